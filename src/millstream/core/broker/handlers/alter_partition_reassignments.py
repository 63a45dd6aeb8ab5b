"""AlterPartitionReassignments (key 45): starts or cancels moving partitions to other brokers (KIP-455).

Versions  0 all of it

On one node a partition can be assigned to no other broker, so that an assignment changes nothing or is refused, and
none is ever in progress.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.handlers._admin import CLUSTER_AUTHORIZATION_FAILED, NO_FAULT, Fault
from millstream.core.cluster.topics import validate_replicas
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartition,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.cluster import ClusterImage


def alter_partition_reassignments(
    broker: Broker, request: AlterPartitionReassignmentsRequest, context: RequestContext
) -> AlterPartitionReassignmentsResponse:
    """Answer per partition."""
    if not context.permits_cluster(Operation.ALTER):
        return AlterPartitionReassignmentsResponse(
            error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=CLUSTER_AUTHORIZATION_FAILED
        )
    image = broker.metadata.image
    response = AlterPartitionReassignmentsResponse(error_message=None)
    for topic in request.topics:
        result = ReassignableTopicResponse(name=topic.name)
        response.responses.append(result)
        for partition in topic.partitions:
            fault = _reassign(image, topic.name, partition)
            result.partitions.append(
                ReassignablePartitionResponse(
                    partition_index=partition.partition_index, error_code=fault.code, error_message=fault.message
                )
            )
    return response


def _reassign(image: ClusterImage, name: str, partition: ReassignablePartition) -> Fault:
    topic = image.topics.get(name)
    if topic is None:
        return Fault(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find a topic named {name}.")
    index, replicas = partition.partition_index, partition.replicas
    if not 0 <= index < len(topic.partitions):
        return Fault(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find partition {name}:{index}.")
    if replicas is None:
        return Fault(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, None)
    try:
        validate_replicas(image, replicas)
    except KafkaError as error:
        return Fault.of(error)
    if tuple(replicas) != topic.partitions[index].replicas:
        return Fault(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"{name}-{index} cannot be moved to other brokers: replication between brokers does not exist here yet.",
        )
    return NO_FAULT
