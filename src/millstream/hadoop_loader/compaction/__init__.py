"""Compaction: the many small files of a directory become few large ones, with the same rows.

planning.py        which directories, and which of their files: pure, from the commit log's state
compactor.py       directories staged by some threads, and committed one by one
avro_blocks.py     Avro: blocks copied, not opened        parquet_rows.py   Parquet: encoded anew, sorted on wish
sorting.py         a sort in bounded memory               deduplication.py  rows that later ones replaced
outputs.py         the files staged
"""

from millstream.hadoop_loader.compaction.compactor import (
    CompactionReport,
    DirectoryResult,
    compact,
    compact_directory,
)
from millstream.hadoop_loader.compaction.outputs import CompactionError, StoppedError
from millstream.hadoop_loader.compaction.planning import DirectoryPlan, plan_compaction

__all__ = [
    "CompactionError",
    "CompactionReport",
    "DirectoryPlan",
    "DirectoryResult",
    "StoppedError",
    "compact",
    "compact_directory",
    "plan_compaction",
]
