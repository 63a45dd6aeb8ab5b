"""ElectLeaders (key 43): makes a partition's preferred replica its leader, or any replica where none in sync is left.

Versions  0 preferred leaders (KIP-183)   1 unclean elections (KIP-460)   2 flexible

On one node the only replica leads already, so an election is needed nowhere; where the replica's log directory is
offline there is nobody to elect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.handlers._admin import CLUSTER_AUTHORIZATION_FAILED, Fault
from millstream.core.broker.partition import ReplicaState
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

PREFERRED: Final = 0
UNCLEAN: Final = 1

_NOT_NEEDED: Final = Fault(ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.")
_NOBODY: Final = {
    PREFERRED: Fault(ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, "The preferred leader was not available."),
    UNCLEAN: Fault(ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, "Eligible topic partition leaders are not available."),
}


def elect_leaders(broker: Broker, request: ElectLeadersRequest, context: RequestContext) -> ElectLeadersResponse:
    """Answer per partition; where all are asked for, those are left out that need no election."""
    refusal = None
    if not context.permits_cluster(Operation.ALTER):
        refusal = Fault(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED)
    elif request.election_type not in _NOBODY:
        refusal = Fault(ErrorCode.INVALID_REQUEST, f"Unknown election type {request.election_type}")
    response = ElectLeadersResponse(error_code=ErrorCode.NONE if refusal is None else refusal.code)
    if request.topic_partitions is not None:
        for topic in request.topic_partitions:
            faults = [refusal or _elect(broker, request, topic.topic, index) for index in topic.partitions]
            response.replica_election_results.append(_result(topic.topic, list(topic.partitions), faults))
    elif refusal is None:
        for name, image in broker.metadata.image.topics.items():
            found = {index: _elect(broker, request, name, index) for index in range(len(image.partitions))}
            needed = {index: fault for index, fault in found.items() if fault is not _NOT_NEEDED}
            response.replica_election_results.append(_result(name, list(needed), list(needed.values())))
    return response


def _elect(broker: Broker, request: ElectLeadersRequest, name: str, index: int) -> Fault:
    topic = broker.metadata.image.topics.get(name)
    if topic is None:
        return Fault(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such topic as {name}")
    if not 0 <= index < len(topic.partitions):
        return Fault(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such partition as {name}-{index}")
    partition = broker.partitions.get(name, index)
    if partition is None or partition.state is ReplicaState.OFFLINE:
        return _NOBODY[request.election_type]
    return _NOT_NEEDED


def _result(topic: str, indexes: list[int], faults: list[Fault]) -> ReplicaElectionResult:
    return ReplicaElectionResult(
        topic=topic,
        partition_result=[
            PartitionResult(partition_id=index, error_code=fault.code, error_message=fault.message)
            for index, fault in zip(indexes, faults, strict=True)
        ],
    )
