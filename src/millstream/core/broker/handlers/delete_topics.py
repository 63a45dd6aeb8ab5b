"""DeleteTopics (key 20): topics, by name or by id, with everything in them.

Versions  1 throttle time   4 flexible   5 error messages   6 by topic id (KIP-516)

An answer means that the topic is gone here: its partitions no longer answer and its folders bear other names. The bytes
are freed behind that, off the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._admin import (
    AUTHORIZATION_FAILED,
    DUPLICATE_TOPIC,
    TIMED_OUT,
    UNKNOWN_TOPIC,
    UNKNOWN_TOPIC_ID,
    Fault,
    commit_applied,
    duplicates,
    may,
)
from millstream.core.broker.handlers.encoded import Encoded, encoded_in_slices
from millstream.core.cluster import ClusterImage, DeleteTopic
from millstream.core.cluster.slices import Slices
from millstream.core.wire import ZERO_UUID, ErrorCode, KafkaError
from millstream.core.wire.messages.delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

_TOPIC_IDS_FROM_VERSION = 6
_DELETION_DISABLED_FROM_VERSION = 3


def delete_topics(broker: Broker, request: DeleteTopicsRequest, context: RequestContext) -> Delayed[Encoded]:
    """Delete the topics that exist and may be deleted; each item has its own error."""
    return Delayed.from_coroutine(broker.loop, _delete_topics(broker, request, context))


async def _delete_topics(broker: Broker, request: DeleteTopicsRequest, context: RequestContext) -> Encoded:
    results = await _results(broker, request, context)
    return await encoded_in_slices(DeleteTopicsResponse(), "responses", results, context.api_version)


async def _results(
    broker: Broker, request: DeleteTopicsRequest, context: RequestContext
) -> Sequence[DeletableTopicResult]:
    if context.api_version >= _TOPIC_IDS_FROM_VERSION:
        states = list(request.topics)
    else:
        states = [DeleteTopicState(name=name) for name in request.topic_names]
    if not broker.config["delete.topic.enable"]:
        code = (
            ErrorCode.TOPIC_DELETION_DISABLED
            if context.api_version >= _DELETION_DISABLED_FROM_VERSION
            else ErrorCode.INVALID_REQUEST
        )
        return [_result(state, Fault(code, "Topic deletion is disabled.")) for state in states]

    image = broker.metadata.image
    results: list[DeletableTopicResult] = []
    accepted: dict[bytes, DeleteTopicState] = {}
    slices = Slices()
    for state, fault in _checked(image, states, context):
        await slices.pause()
        if fault is not None:
            results.append(_result(state, fault))
            continue
        topic = image.topic_by_id(state.topic_id) if state.name is None else image.topics[state.name]
        assert topic is not None, f"{state} was checked to exist"
        accepted[topic.topic_id] = DeleteTopicState(name=topic.name, topic_id=topic.topic_id)

    gone: set[bytes] = set()

    def plan(image: ClusterImage) -> Iterator[DeleteTopic]:
        gone.clear()
        for topic_id in accepted:
            if image.topic_by_id(topic_id) is None:
                gone.add(topic_id)
            else:
                yield DeleteTopic(topic_id)

    if accepted:
        failure: Fault | None = None
        try:
            if not await commit_applied(broker, plan, request.timeout_ms):
                failure = Fault(ErrorCode.REQUEST_TIMED_OUT, TIMED_OUT)
        except KafkaError as error:
            failure = Fault.of(error)
        unknown = Fault(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC)
        for topic_id, state in accepted.items():
            results.append(_result(state, unknown if topic_id in gone else failure))
            await slices.pause()
    return results


def _checked(
    image: ClusterImage, states: Sequence[DeleteTopicState], context: RequestContext
) -> Iterator[tuple[DeleteTopicState, Fault | None]]:
    """Each different item once, with what forbids it."""
    repeated_names = duplicates(state.name for state in states if state.name is not None)
    repeated_ids = _repeated_ids(states)
    named_ids = {topic.topic_id for state in states if (topic := image.topics.get(state.name or "")) is not None}
    once = {(state.name, state.topic_id) if state.name is None else (state.name, ZERO_UUID): state for state in states}
    for state in once.values():
        yield state, _fault(image, state, context, repeated_names, repeated_ids, named_ids)


def _repeated_ids(states: Sequence[DeleteTopicState]) -> set[bytes]:
    """The ids that stand more than once among the items without a name."""
    seen: set[bytes] = set()
    repeated: set[bytes] = set()
    for state in states:
        if state.name is None and state.topic_id != ZERO_UUID:
            (repeated if state.topic_id in seen else seen).add(state.topic_id)
    return repeated


def _fault(
    image: ClusterImage,
    state: DeleteTopicState,
    context: RequestContext,
    repeated_names: set[str],
    repeated_ids: set[bytes],
    named_ids: set[bytes],
) -> Fault | None:
    if state.name is None:
        if state.topic_id == ZERO_UUID:
            return Fault(ErrorCode.INVALID_REQUEST, "Neither topic name nor id were specified.")
        if state.topic_id in repeated_ids:
            return Fault(ErrorCode.INVALID_REQUEST, "Duplicate topic id.")
        topic = image.topic_by_id(state.topic_id)
        # Who may not see the topic must not learn from its id that there is one.
        if topic is not None and not may(context, Operation.DESCRIBE, topic.name):
            return Fault(ErrorCode.TOPIC_AUTHORIZATION_FAILED, AUTHORIZATION_FAILED)
        if topic is None:
            return Fault(ErrorCode.UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_ID)
        if state.topic_id in named_ids:
            return Fault(ErrorCode.INVALID_REQUEST, "The provided topic name maps to an ID that was already supplied.")
        name = topic.name
    else:
        if state.topic_id != ZERO_UUID:
            return Fault(ErrorCode.INVALID_REQUEST, "You may not specify both topic name and topic id.")
        if state.name in repeated_names:
            return Fault(ErrorCode.INVALID_REQUEST, DUPLICATE_TOPIC)
        name = state.name
    if not may(context, Operation.DELETE, name):
        return Fault(ErrorCode.TOPIC_AUTHORIZATION_FAILED, AUTHORIZATION_FAILED)
    if name not in image.topics:
        return Fault(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC)
    return None


def _result(state: DeleteTopicState, fault: Fault | None) -> DeletableTopicResult:
    return DeletableTopicResult(
        name=state.name,
        topic_id=state.topic_id,
        error_code=ErrorCode.NONE if fault is None else fault.code,
        error_message=None if fault is None else fault.message,
    )
