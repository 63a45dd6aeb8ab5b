"""OffsetFetch: the offsets that groups have committed; from version 8 on of several groups at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._groups import done, gather, permits_group, permits_topic, then
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

SEVERAL_GROUPS_FROM_VERSION: Final = 8
# Before it an error of the group stands with each partition.
GROUP_ERROR_FROM_VERSION: Final = 2
NO_OFFSET: Final = -1


def offset_fetch(broker: Broker, request: OffsetFetchRequest, context: RequestContext) -> Delayed[OffsetFetchResponse]:
    """Answer once all that the answer shows is committed."""
    stable = request.require_stable
    if context.api_version >= SEVERAL_GROUPS_FROM_VERSION:
        answers = [_fetch(broker, group, context, require_stable=stable) for group in request.groups]
        return gather(answers, lambda groups: OffsetFetchResponse(groups=groups))
    topics: Any = request.topics
    group = OffsetFetchRequestGroup(group_id=request.group_id, topics=topics)
    answer = _fetch(broker, group, context, require_stable=stable)
    return then(answer, partial(_of_one_group, group, context.api_version))


def _fetch(
    broker: Broker, group: OffsetFetchRequestGroup, context: RequestContext, *, require_stable: bool
) -> Delayed[OffsetFetchResponseGroup]:
    def failed(error: KafkaError) -> OffsetFetchResponseGroup:
        return OffsetFetchResponseGroup(group_id=group.group_id, error_code=error.code)

    if not permits_group(context, Operation.DESCRIBE, group.group_id):
        return done(failed(KafkaError(ErrorCode.GROUP_AUTHORIZATION_FAILED)))
    asked = group.topics
    refused: list[OffsetFetchResponseTopics] = []
    if asked is not None:
        allowed = []
        for topic in asked:
            if permits_topic(context, Operation.DESCRIBE, topic.name):
                allowed.append(topic)
            else:
                refused.append(_without_offsets(topic, ErrorCode.TOPIC_AUTHORIZATION_FAILED))
        group = OffsetFetchRequestGroup(
            group_id=group.group_id, member_id=group.member_id, member_epoch=group.member_epoch, topics=allowed
        )
    answer = broker.coordinators.request(
        group.group_id, "offset_fetch", (group, require_stable), context, refusal=failed
    )

    def visible(response: OffsetFetchResponseGroup) -> OffsetFetchResponseGroup:
        if response.error_code == ErrorCode.NONE:
            if asked is None:
                response.topics = [
                    each for each in response.topics if permits_topic(context, Operation.DESCRIBE, each.name)
                ]
            else:
                response.topics = [*response.topics, *refused]
        return response

    return then(answer, visible)


def _of_one_group(asked: OffsetFetchRequestGroup, version: int, group: OffsetFetchResponseGroup) -> OffsetFetchResponse:
    """Return the answer in the form of the versions before there were several groups."""
    topics: Any = group.topics
    if group.error_code and version < GROUP_ERROR_FROM_VERSION:
        topics = [_without_offsets(topic, error_code(group.error_code)) for topic in asked.topics or []]
    return OffsetFetchResponse(error_code=group.error_code, topics=topics)


def _without_offsets(topic: OffsetFetchRequestTopics, code: ErrorCode) -> OffsetFetchResponseTopics:
    return OffsetFetchResponseTopics(
        name=topic.name,
        partitions=[
            OffsetFetchResponsePartitions(partition_index=index, committed_offset=NO_OFFSET, error_code=code)
            for index in topic.partition_indexes
        ],
    )
