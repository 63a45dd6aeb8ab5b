"""OffsetForLeaderEpoch: where a leader epoch ended, so that a consumer sees whether its log was cut (KIP-101,
KIP-320).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def offset_for_leader_epoch(
    broker: Broker, request: OffsetForLeaderEpochRequest, context: RequestContext
) -> OffsetForLeaderEpochResponse:
    """Answer each partition for itself with the greatest epoch up to the asked one and the offset behind it."""
    topics = []
    for topic in request.topics:
        results = []
        for asked in topic.partitions:
            try:
                context.require(
                    Operation.DESCRIBE, ResourceType.TOPIC, topic.topic, ErrorCode.TOPIC_AUTHORIZATION_FAILED
                )
                results.append(_end_offset(broker, topic.topic, asked))
            except KafkaError as error:
                results.append(EpochEndOffset(partition=asked.partition, error_code=error.code))
        topics.append(OffsetForLeaderTopicResult(topic=topic.topic, partitions=results))
    return OffsetForLeaderEpochResponse(topics=topics)


def _end_offset(broker: Broker, topic: str, asked: OffsetForLeaderPartition) -> EpochEndOffset:
    partition = broker.partitions.leader(topic, asked.partition, asked.current_leader_epoch)
    epoch, end_offset = partition.end_offset_for_epoch(asked.leader_epoch)
    return EpochEndOffset(partition=asked.partition, leader_epoch=epoch, end_offset=end_offset)
