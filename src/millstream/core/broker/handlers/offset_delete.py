"""OffsetDelete: forget a group's offsets of topics that its members do not read (KIP-496)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._groups import permits_group, permits_topic, then
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def offset_delete(
    broker: Broker, request: OffsetDeleteRequest, context: RequestContext
) -> OffsetDeleteResponse | Delayed[OffsetDeleteResponse]:
    """Answer once the deletions are on every in-sync replica."""
    if not permits_group(context, Operation.DELETE, request.group_id):
        return OffsetDeleteResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if not request.group_id:
        # Unlike the other requests, for which older clients' empty name is one like any other.
        return OffsetDeleteResponse(error_code=ErrorCode.INVALID_GROUP_ID)
    image = broker.metadata.image
    accepted: list[OffsetDeleteRequestTopic] = []
    refused: list[OffsetDeleteResponseTopic] = []
    for topic in request.topics:
        if not permits_topic(context, Operation.READ, topic.name):
            refused.append(_refused(topic, topic.partitions, ErrorCode.TOPIC_AUTHORIZATION_FAILED))
            continue
        known = image.topics.get(topic.name)
        count = 0 if known is None else len(known.partitions)
        there = [each for each in topic.partitions if 0 <= each.partition_index < count]
        if len(there) < len(topic.partitions):
            missing = [each for each in topic.partitions if not 0 <= each.partition_index < count]
            refused.append(_refused(topic, missing, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
        if there:
            accepted.append(OffsetDeleteRequestTopic(name=topic.name, partitions=there))
    request.topics = accepted
    answer = broker.coordinators.request(
        request.group_id,
        "offset_delete",
        request,
        context,
        refusal=lambda error: OffsetDeleteResponse(error_code=error.code),
    )

    def combined(response: OffsetDeleteResponse) -> OffsetDeleteResponse:
        if not response.error_code:
            merged: dict[str, OffsetDeleteResponseTopic] = {}
            for topic in (*refused, *response.topics):
                known = merged.setdefault(topic.name, topic)
                if known is not topic:
                    known.partitions += topic.partitions
            response.topics = list(merged.values())
        return response

    return then(answer, combined)


def _refused(
    topic: OffsetDeleteRequestTopic, partitions: list[OffsetDeleteRequestPartition], code: ErrorCode
) -> OffsetDeleteResponseTopic:
    return OffsetDeleteResponseTopic(
        name=topic.name,
        partitions=[
            OffsetDeleteResponsePartition(partition_index=each.partition_index, error_code=code) for each in partitions
        ],
    )
