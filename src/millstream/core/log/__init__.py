"""One partition on disk, in Apache Kafka's own format: segments, indexes, producer state, recovery, retention.

many logs       manager, directory, offset_checkpoints, doomed_files, topic_partition, config, checkpoints
one log         log = log_state + log_appends (rolling) + log_reader; truncation, retention, timestamps,
                transactions are functions over it
its segments    segments, segment, open_segments, offset_index, time_index, sparse_index, transaction_index
what it knows   producer_state, leader_epochs
coming back     directory_start, loader (cleaner.swap), recovery, rebuild, segment_scan (damage, lying_offsets),
                producer_rebuild
below           files, file_region, errors; beside: dump
"""

from millstream.core.log.config import LogConfig
from millstream.core.log.damage import CorruptRange
from millstream.core.log.directory import LogDirectory, read_meta_properties
from millstream.core.log.directory_start import Owner, OwnerOf, Unowned
from millstream.core.log.errors import (
    CorruptBatchError,
    CorruptCheckpointError,
    InconsistentDirectoryError,
    LogDirectoryError,
    LogLockedError,
    OffsetOutOfRangeError,
)
from millstream.core.log.file_region import REGION_SIZE_BYTES_MIN, FileRegion, ReadBuffer
from millstream.core.log.files import FileSystem
from millstream.core.log.log import Log
from millstream.core.log.log_appends import Reservation
from millstream.core.log.log_reader import LogRead
from millstream.core.log.manager import LogManager
from millstream.core.log.producer_state import ProducerEntry
from millstream.core.log.timestamps import TimestampOffset
from millstream.core.log.topic_partition import TopicPartition
from millstream.core.log.transaction_index import AbortedTransaction

__all__ = [
    "REGION_SIZE_BYTES_MIN",
    "AbortedTransaction",
    "CorruptBatchError",
    "CorruptCheckpointError",
    "CorruptRange",
    "FileRegion",
    "FileSystem",
    "InconsistentDirectoryError",
    "Log",
    "LogConfig",
    "LogDirectory",
    "LogDirectoryError",
    "LogLockedError",
    "LogManager",
    "LogRead",
    "OffsetOutOfRangeError",
    "Owner",
    "OwnerOf",
    "ProducerEntry",
    "ReadBuffer",
    "Reservation",
    "TimestampOffset",
    "TopicPartition",
    "Unowned",
    "read_meta_properties",
]
