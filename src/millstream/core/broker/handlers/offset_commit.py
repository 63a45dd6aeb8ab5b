"""OffsetCommit: store a group's offsets. Topics that are unknown or not allowed are refused for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._groups import permits_group, permits_topic, then
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def offset_commit(
    broker: Broker, request: OffsetCommitRequest, context: RequestContext
) -> OffsetCommitResponse | Delayed[OffsetCommitResponse]:
    """Answer once the offsets are on every in-sync replica."""
    if not permits_group(context, Operation.READ, request.group_id):
        return _refused(request, ErrorCode.GROUP_AUTHORIZATION_FAILED)
    accepted, refused = _split(broker, request.topics, context)
    if not accepted:
        return OffsetCommitResponse(topics=refused)
    request.topics = accepted
    answer = broker.coordinators.request(
        request.group_id, "offset_commit", request, context, refusal=lambda error: _refused(request, error.code)
    )
    if not refused:
        return answer
    return then(answer, lambda response: OffsetCommitResponse(topics=_merged([*refused, *response.topics])))


def _split(
    broker: Broker, topics: list[OffsetCommitRequestTopic], context: RequestContext
) -> tuple[list[OffsetCommitRequestTopic], list[OffsetCommitResponseTopic]]:
    """Return what may be committed, and the answers for what may not."""
    image = broker.metadata.image
    accepted = []
    refused = []
    for topic in topics:
        known = image.topics.get(topic.name)
        if not permits_topic(context, Operation.READ, topic.name):
            refused.append(_refused_topic(topic, topic.partitions, ErrorCode.TOPIC_AUTHORIZATION_FAILED))
            continue
        count = 0 if known is None else len(known.partitions)
        if len(topic.partitions) == 1 and 0 <= topic.partitions[0].partition_index < count:
            accepted.append(topic)
            continue
        unknown = [each for each in topic.partitions if not 0 <= each.partition_index < count]
        if unknown:
            refused.append(_refused_topic(topic, unknown, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
            partitions = [each for each in topic.partitions if 0 <= each.partition_index < count]
            if not partitions:
                continue
            topic = OffsetCommitRequestTopic(name=topic.name, partitions=partitions)
        elif known is None:
            continue
        accepted.append(topic)
    return accepted, refused


def _refused(request: OffsetCommitRequest, code: ErrorCode) -> OffsetCommitResponse:
    return OffsetCommitResponse(topics=[_refused_topic(topic, topic.partitions, code) for topic in request.topics])


def _refused_topic(
    topic: OffsetCommitRequestTopic, partitions: list[OffsetCommitRequestPartition], code: ErrorCode
) -> OffsetCommitResponseTopic:
    return OffsetCommitResponseTopic(
        name=topic.name,
        partitions=[
            OffsetCommitResponsePartition(partition_index=each.partition_index, error_code=code) for each in partitions
        ],
    )


def _merged(topics: list[OffsetCommitResponseTopic]) -> list[OffsetCommitResponseTopic]:
    """Return one entry for each topic, with the partitions of all."""
    merged: dict[str, OffsetCommitResponseTopic] = {}
    for topic in topics:
        known = merged.setdefault(topic.name, topic)
        if known is not topic:
            known.partitions += topic.partitions
    return list(merged.values())
