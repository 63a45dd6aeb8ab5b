"""ListPartitionReassignments (key 46): the moves of partitions that are under way.

Versions  0 (KIP-455)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, message, struct


@struct
class ListPartitionReassignmentsTopics:
    name: str = ""
    partition_indexes: list[int32] = field(factory=list)


@message(key=46, versions="0", flexible="0+")
class ListPartitionReassignmentsRequest:
    timeout_ms: int32 = 60000
    # Null for all topics.
    topics: list[ListPartitionReassignmentsTopics] | None = None


@struct
class OngoingPartitionReassignment:
    partition_index: int32 = 0
    replicas: list[int32] = field(factory=list)
    adding_replicas: list[int32] = field(factory=list)
    removing_replicas: list[int32] = field(factory=list)


@struct
class OngoingTopicReassignment:
    name: str = ""
    partitions: list[OngoingPartitionReassignment] = field(factory=list)


@message(key=46, versions="0", flexible="0+")
class ListPartitionReassignmentsResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = 0
    error_message: str | None = ""
    topics: list[OngoingTopicReassignment] = field(factory=list)
