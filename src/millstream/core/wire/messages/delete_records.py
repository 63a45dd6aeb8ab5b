"""DeleteRecords (key 21): drop every record of a partition before an offset.

Versions  0 (KIP-107)   2 flexible (KIP-482)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message, struct


@struct
class DeleteRecordsPartition:
    partition_index: int32 = 0
    # The first offset that stays; -1 for the high watermark.
    offset: int64 = 0


@struct
class DeleteRecordsTopic:
    name: str = ""
    partitions: list[DeleteRecordsPartition] = field(factory=list)


@message(key=21, versions="0-2", flexible="2+")
class DeleteRecordsRequest:
    topics: list[DeleteRecordsTopic] = field(factory=list)
    timeout_ms: int32 = 0


@struct
class DeleteRecordsPartitionResult:
    partition_index: int32 = 0
    low_watermark: int64 = 0
    error_code: int16 = 0


@struct
class DeleteRecordsTopicResult:
    name: str = ""
    partitions: list[DeleteRecordsPartitionResult] = field(factory=list)


@message(key=21, versions="0-2", flexible="2+")
class DeleteRecordsResponse:
    throttle_time_ms: int32 = 0
    topics: list[DeleteRecordsTopicResult] = field(factory=list)
