"""CreatePartitions (key 37): give topics more partitions.

Versions  0 (KIP-195)   2 flexible (KIP-482)   3 THROTTLING_QUOTA_EXCEEDED (KIP-599)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, message, struct


@struct
class CreatePartitionsAssignment:
    broker_ids: list[int32] = field(factory=list)


@struct
class CreatePartitionsTopic:
    name: str = ""
    # The new number of partitions, those there are included.
    count: int32 = 0
    assignments: list[CreatePartitionsAssignment] | None = field(factory=list)


@message(key=37, versions="0-3", flexible="2+")
class CreatePartitionsRequest:
    topics: list[CreatePartitionsTopic] = field(factory=list)
    timeout_ms: int32 = 0
    validate_only: bool = False


@struct
class CreatePartitionsTopicResult:
    name: str = ""
    error_code: int16 = 0
    error_message: str | None = None


@message(key=37, versions="0-3", flexible="2+")
class CreatePartitionsResponse:
    throttle_time_ms: int32 = 0
    results: list[CreatePartitionsTopicResult] = field(factory=list)
