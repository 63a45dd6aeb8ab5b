"""AlterReplicaLogDirs (key 34): moves replicas between the log directories of this broker (KIP-113).

Versions  1 all of it   2 flexible

The answer says that a move has begun, or why it cannot; DescribeLogDirs tells how far it is. A partition that is not
here yet answers that, and is created in the directory that was named for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.log import TopicPartition
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.alter_replica_log_dirs import (
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopicResult,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def alter_replica_log_dirs(
    broker: Broker, request: AlterReplicaLogDirsRequest, context: RequestContext
) -> AlterReplicaLogDirsResponse:
    """Answer per partition. Of a partition that is named twice the last directory counts, as in Kafka."""
    is_allowed = context.permits_cluster(Operation.ALTER)
    paths = {
        TopicPartition(topic.name, index): directory.path
        for directory in request.dirs
        for topic in directory.topics
        for index in topic.partitions
    }
    results: dict[str, AlterReplicaLogDirTopicResult] = {}
    for tp, path in paths.items():
        code = _move(broker, tp, path) if is_allowed else ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        result = results.setdefault(tp.topic, AlterReplicaLogDirTopicResult(topic_name=tp.topic))
        result.partitions.append(AlterReplicaLogDirPartitionResult(partition_index=tp.partition, error_code=code))
    return AlterReplicaLogDirsResponse(results=list(results.values()))


def _move(broker: Broker, tp: TopicPartition, path: str) -> ErrorCode:
    directory = next((each for each in broker.logs.directories if each.path == path), None)
    if directory is None:
        return ErrorCode.LOG_DIR_NOT_FOUND
    if directory.offline_reason is not None:
        return ErrorCode.KAFKA_STORAGE_ERROR
    partition = broker.partitions.get(*tp)
    if partition is None:
        broker.logs.placement.prefer(tp, directory)
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if partition.log is None or not partition.is_leader:
        return ErrorCode.KAFKA_STORAGE_ERROR
    broker.control.mover.move(partition.log, directory)
    return ErrorCode.NONE
