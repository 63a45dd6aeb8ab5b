"""DescribeTopicPartitions (key 75): partitions of topics in the order of names, page by page (KIP-966).

Versions  0 all of it

A page ends after so many partitions as the client and `max.request.partition.size.limit` allow; its cursor says where
the next begins. There are no eligible leader replicas beside the ISR on one node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.handlers._admin import may, topic_operations
from millstream.core.broker.partition import ReplicaState
from millstream.core.broker.partitions import INTERNAL_TOPICS
from millstream.core.cluster.topics import validate_topic_name
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.describe_topic_partitions import (
    Cursor,
    CursorResponse,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.cluster import PartitionState, TopicImage

LIMIT: Final = "max.request.partition.size.limit"


def describe_topic_partitions(
    broker: Broker, request: DescribeTopicPartitionsRequest, context: RequestContext
) -> DescribeTopicPartitionsResponse:
    """Answer one page. Topics that may not be described are named in an answer to their names only."""
    asked = {topic.name for topic in request.topics}
    cursor = request.cursor
    if cursor is not None and (cursor.partition_index < 0 or (asked and cursor.topic_name not in asked)):
        return DescribeTopicPartitionsResponse(
            topics=[_error(ErrorCode.INVALID_REQUEST, name) for name in sorted(asked)]
        )
    topics = broker.metadata.image.topics
    names = sorted(name for name in asked or topics if cursor is None or name >= cursor.topic_name)
    room = max(min(request.response_partition_limit, broker.config.integer(LIMIT)), 1)
    response = DescribeTopicPartitionsResponse()
    denied = []
    for name in names:
        if not may(context, Operation.DESCRIBE, name):
            if asked:
                denied.append(_error(ErrorCode.TOPIC_AUTHORIZATION_FAILED, name))
            continue
        if room <= 0:
            response.next_cursor = CursorResponse(topic_name=name, partition_index=0)
            break
        topic = topics.get(name)
        if topic is None:
            response.topics.append(_unknown(name, context))
            continue
        first = _first_partition(cursor, name)
        answer = _topic(broker, topic, first, first + room, context)
        response.topics.append(answer)
        room -= len(answer.partitions)
        reached = first + len(answer.partitions)
        if reached < len(topic.partitions):
            response.next_cursor = CursorResponse(topic_name=name, partition_index=reached)
            break
    response.topics += denied
    return response


def _first_partition(cursor: Cursor | None, name: str) -> int:
    return cursor.partition_index if cursor is not None and cursor.topic_name == name else 0


def _topic(
    broker: Broker, topic: TopicImage, first: int, end: int, context: RequestContext
) -> DescribeTopicPartitionsResponseTopic:
    return DescribeTopicPartitionsResponseTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.name in INTERNAL_TOPICS,
        partitions=[
            _partition(broker, topic.name, index, state)
            for index, state in enumerate(topic.partitions[first:end], start=first)
        ],
        topic_authorized_operations=topic_operations(topic.name, context),
    )


def _partition(
    broker: Broker, topic: str, index: int, state: PartitionState
) -> DescribeTopicPartitionsResponsePartition:
    held = broker.partitions.get(topic, index)
    is_offline = (
        held is not None and held.state is ReplicaState.OFFLINE and held.offline_error is ErrorCode.KAFKA_STORAGE_ERROR
    )
    return DescribeTopicPartitionsResponsePartition(
        error_code=ErrorCode.LEADER_NOT_AVAILABLE if state.leader < 0 else ErrorCode.NONE,
        partition_index=index,
        leader_id=state.leader,
        leader_epoch=state.leader_epoch,
        replica_nodes=list(state.replicas),
        isr_nodes=list(state.isr),
        eligible_leader_replicas=[],
        last_known_elr=[],
        offline_replicas=[broker.config.node_id] if is_offline else [],
    )


def _unknown(name: str, context: RequestContext) -> DescribeTopicPartitionsResponseTopic:
    try:
        validate_topic_name(name)
        code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    except KafkaError as error:
        code = error.code
    answer = _error(code, name)
    answer.topic_authorized_operations = topic_operations(name, context)
    return answer


def _error(code: ErrorCode, name: str) -> DescribeTopicPartitionsResponseTopic:
    return DescribeTopicPartitionsResponseTopic(error_code=code, name=name, is_internal=name in INTERNAL_TOPICS)
