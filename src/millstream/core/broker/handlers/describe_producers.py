"""DescribeProducers (key 61): the idempotent and transactional producers a partition remembers (KIP-664).

Versions  0 all of it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.broker.handlers._admin import UNKNOWN_TOPIC
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicRequest,
    TopicResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def describe_producers(
    broker: Broker, request: DescribeProducersRequest, context: RequestContext
) -> DescribeProducersResponse:
    """Answer per partition; one that this broker does not lead never fails the rest."""
    allowed, denied = context.authorize(
        Operation.READ, ResourceType.TOPIC, request.topics, name=lambda topic: topic.name
    )
    response = DescribeProducersResponse()
    for topic in allowed:
        partitions = [_partition(broker, topic.name, index) for index in topic.partition_indexes]
        response.topics.append(TopicResponse(name=topic.name, partitions=partitions))
    response.topics.extend(map(_denied, denied))
    return response


def _partition(broker: Broker, topic: str, index: int) -> PartitionResponse:
    answer = PartitionResponse(partition_index=index)
    try:
        log = broker.partitions.leader(topic, index).check_leader()
    except KafkaError as error:
        answer.error_code = error.code
        if error.code is not ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            answer.error_message = error.message
        elif topic not in broker.metadata.image.topics:
            answer.error_message = UNKNOWN_TOPIC
        return answer
    for producer in log.active_producers():
        answer.active_producers.append(
            ProducerState(
                producer_id=producer.producer_id,
                producer_epoch=producer.epoch,
                last_sequence=producer.last_sequence,
                last_timestamp=producer.last_timestamp,
                coordinator_epoch=producer.coordinator_epoch,
                current_txn_start_offset=producer.transaction_first_offset,
            )
        )
    return answer


def _denied(topic: TopicRequest) -> TopicResponse:
    code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return TopicResponse(
        name=topic.name,
        partitions=[
            PartitionResponse(partition_index=index, error_code=code, error_message=code.sentence)
            for index in topic.partition_indexes
        ],
    )
