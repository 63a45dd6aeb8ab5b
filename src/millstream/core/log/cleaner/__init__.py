"""Log compaction: the newest value of each key is kept, with its offset, and what it replaced goes.

log_cleaner      the threads; which partition is left alone and why
plan             which part of a log may be cleaned, which log first, which segments become one
cleaning         one cleaning of one log = offset_map (keys), transactions, batch_opener (compressed batches),
                 segment_walk (reading), cleaned_segment (writing)
swap             putting a cleaned segment in place, and finishing that after a crash
"""

from millstream.core.log.cleaner.cleaning import Tools
from millstream.core.log.cleaner.log_cleaner import (
    UNCLEANABLE,
    CleanerConfig,
    CleanerStats,
    LogCleaner,
    Uncleanable,
    decode_uncleanable,
)

__all__ = [
    "UNCLEANABLE",
    "CleanerConfig",
    "CleanerStats",
    "LogCleaner",
    "Tools",
    "Uncleanable",
    "decode_uncleanable",
]
