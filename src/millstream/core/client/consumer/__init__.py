"""The consumer on bytes; `consumer` names the modules and what each does.

`FetchedRecords` is the form that columns, loader, serdes and streams stand on; `ConsumerRecord` one record.
"""

from millstream.core._kernels.consumer_records import ConsumerRecord
from millstream.core.client.consumer.consumer import Consumer, ConsumerState
from millstream.core.client.consumer.errors import (
    ConsumerStateError,
    CorruptBatchError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    PartitionError,
    PinnedMemoryError,
    RefusedPartitionError,
    RefusedTopicError,
)
from millstream.core.client.consumer.fetched import FetchedRecords, LocatedRecords
from millstream.core.client.consumer.listeners import ConsumerInterceptor, RebalanceListener
from millstream.core.client.consumer.opening import Region
from millstream.core.client.consumer.partition_state import Position
from millstream.core.client.consumer.subscription import TopicPattern

__all__ = [
    "Consumer",
    "ConsumerInterceptor",
    "ConsumerRecord",
    "ConsumerState",
    "ConsumerStateError",
    "CorruptBatchError",
    "FetchedRecords",
    "LocatedRecords",
    "LogTruncationError",
    "NoOffsetForPartitionError",
    "OffsetOutOfRangeError",
    "PartitionError",
    "PinnedMemoryError",
    "Position",
    "RebalanceListener",
    "RefusedPartitionError",
    "RefusedTopicError",
    "Region",
    "TopicPattern",
]
