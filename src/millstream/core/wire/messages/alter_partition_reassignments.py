"""AlterPartitionReassignments (key 45): start or cancel moving partitions to other brokers.

Versions  0 (KIP-455)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, message, struct


@struct
class ReassignablePartition:
    partition_index: int32 = 0
    # Null to cancel.
    replicas: list[int32] | None = None


@struct
class ReassignableTopic:
    name: str = ""
    partitions: list[ReassignablePartition] = field(factory=list)


@message(key=45, versions="0", flexible="0+")
class AlterPartitionReassignmentsRequest:
    timeout_ms: int32 = 60000
    topics: list[ReassignableTopic] = field(factory=list)


@struct
class ReassignablePartitionResponse:
    partition_index: int32 = 0
    error_code: int16 = 0
    error_message: str | None = ""


@struct
class ReassignableTopicResponse:
    name: str = ""
    partitions: list[ReassignablePartitionResponse] = field(factory=list)


@message(key=45, versions="0", flexible="0+")
class AlterPartitionReassignmentsResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = 0
    error_message: str | None = ""
    responses: list[ReassignableTopicResponse] = field(factory=list)
