"""ElectLeaders (key 43): make the preferred replica the leader, or any replica where none in sync is left.

Versions  0 preferred leaders (KIP-183)   1 unclean elections (KIP-460)   2 flexible (KIP-482)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int8, int16, int32, message, struct


@struct
class TopicPartitions:
    topic: str = ""
    partitions: list[int32] = field(factory=list)


@message(key=43, versions="0-2", flexible="2+")
class ElectLeadersRequest:
    # 0 preferred, 1 unclean.
    election_type: int8 = field(versions="1+", default=0)
    # Null for all partitions.
    topic_partitions: list[TopicPartitions] | None = field(factory=list)
    timeout_ms: int32 = 60000


@struct
class PartitionResult:
    partition_id: int32 = 0
    error_code: int16 = 0
    error_message: str | None = ""


@struct
class ReplicaElectionResult:
    topic: str = ""
    partition_result: list[PartitionResult] = field(factory=list)


@message(key=43, versions="0-2", flexible="2+")
class ElectLeadersResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = field(versions="1+", default=0)
    replica_election_results: list[ReplicaElectionResult] = field(factory=list)
