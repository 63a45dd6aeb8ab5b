"""DescribeLogDirs (key 35): what lies in a broker's log directories, and how much room is left.

Versions  1 (KIP-113)   2 flexible (KIP-482)   3 an error for the whole request (KIP-784)
          4 size and free bytes of the volume (KIP-827)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message, struct


@struct
class DescribableLogDirTopic:
    topic: str = ""
    partitions: list[int32] = field(factory=list)


@message(key=35, versions="1-4", flexible="2+")
class DescribeLogDirsRequest:
    # Null for all topics.
    topics: list[DescribableLogDirTopic] | None = field(factory=list)


@struct
class DescribeLogDirsPartition:
    partition_index: int32 = 0
    partition_size: int64 = 0
    offset_lag: int64 = 0
    is_future_key: bool = False


@struct
class DescribeLogDirsTopic:
    name: str = ""
    partitions: list[DescribeLogDirsPartition] = field(factory=list)


@struct
class DescribeLogDirsResult:
    error_code: int16 = 0
    log_dir: str = ""
    topics: list[DescribeLogDirsTopic] = field(factory=list)
    total_bytes: int64 = field(versions="4+", default=-1)
    usable_bytes: int64 = field(versions="4+", default=-1)


@message(key=35, versions="1-4", flexible="2+")
class DescribeLogDirsResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = field(versions="3+", default=0)
    results: list[DescribeLogDirsResult] = field(factory=list)
