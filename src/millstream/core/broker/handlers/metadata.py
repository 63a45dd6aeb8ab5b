"""Metadata: the brokers, and where each topic's partitions are led; topics may come into being by being asked for.

An encoded answer is kept for who asks the same while nothing has changed: clients of large clusters ask for all
topics, over and over, and encoding 1,200 partitions costs a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from millstream.core.broker.context import AllowAll, Operation, RequestContext, ResourceType
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._admin import cluster_operations, commit_applied, topic_operations
from millstream.core.broker.handlers.encoded import Encoded, LongItem, encoded_in_slices
from millstream.core.broker.metadata_cache import CacheKey
from millstream.core.broker.partition import ReplicaState
from millstream.core.broker.partitions import INTERNAL_TOPICS
from millstream.core.cluster import ClusterImage, CreateTopic, TopicImage
from millstream.core.cluster.image import metric_name
from millstream.core.cluster.topics import TopicDefaults, plan_create_topic, validate_topic_name
from millstream.core.groups.partitioning import GROUP_TOPIC
from millstream.core.wire import ZERO_UUID, ErrorCode, KafkaError, encode
from millstream.core.wire.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

# How long an answer waits for the topics it brought into being; clients ask again.
CREATION_MS_MAX: Final = 15_000
# Topics and partitions in an answer that is made in one step of the loop, in about two milliseconds.
ONE_STEP_COUNT_MAX: Final = 1000
# A topic's answer without its partitions, and these, to be made one by one.
_TopicAnswer: TypeAlias = tuple[MetadataResponseTopic, Iterable[MetadataResponsePartition]]
# Topics may be asked for by their id (KIP-516).
BY_ID_FROM_VERSION: Final = 12


def metadata(
    broker: Broker, request: MetadataRequest, context: RequestContext
) -> Encoded | MetadataResponse | Delayed[Encoded]:
    """Answer from the image at hand; only topics that are to be created wait for the store."""
    version = context.api_version
    asked = request.topics
    if asked is not None and version == 0 and not asked:
        asked = None  # version 0 has no other way to ask for all topics
    if asked is not None and any(_is_invalid(topic, version) for topic in asked):
        # The request as a whole: no broker is named either.
        answers = [_error(ErrorCode.INVALID_REQUEST, topic.name or "", topic.topic_id) for topic in asked]
        return MetadataResponse(topics=answers, cluster_id=broker.metadata.image.cluster_id, controller_id=-1)
    missing = _to_create(broker, request, asked, context)
    if missing:
        return Delayed.from_coroutine(broker.loop, _create_and_answer(broker, request, asked, context, missing))
    names = _names(asked)
    if (asked is not None and names is None) or type(broker.authorizer) is not AllowAll:
        if _is_large(broker.metadata.image, asked):
            return Delayed.from_coroutine(broker.loop, _large_answer(broker, request, asked, context, {}))
        return _response(broker, request, asked, context, {})
    key = (
        version,
        context.listener,
        names,
        request.include_topic_authorized_operations,
        request.include_cluster_authorized_operations,
    )
    cache = broker.metadata_cache
    stamp = _stamp(broker)
    body = cache.get(key, stamp)
    if body is None:
        if _is_large(broker.metadata.image, asked):
            return Delayed.from_coroutine(broker.loop, _keep_large_answer(broker, request, asked, context, key))
        body = encode(_response(broker, request, asked, context, {}), version)
        cache.put(key, body)
    return Encoded(body)


def _is_invalid(topic: MetadataRequestTopic, version: int) -> bool:
    """Whether a topic is asked for in a way that its version knows not."""
    return version < BY_ID_FROM_VERSION and (topic.name is None or topic.topic_id != ZERO_UUID)


def _names(asked: Sequence[MetadataRequestTopic] | None) -> tuple[str, ...] | None:
    """Return the names asked for; None for all topics, and where one is asked for by its id."""
    if asked is None:
        return None
    names = tuple(topic.name for topic in asked if topic.name is not None and topic.topic_id == ZERO_UUID)
    return names if len(names) == len(asked) else None


def _to_create(
    broker: Broker,
    request: MetadataRequest,
    asked: Sequence[MetadataRequestTopic] | None,
    context: RequestContext,
) -> list[str]:
    if asked is None or not request.allow_auto_topic_creation or not broker.config.auto_create_topics_enable:
        return []
    topics = broker.metadata.image.topics
    return [
        topic.name
        for topic in asked
        if topic.name is not None
        and topic.topic_id == ZERO_UUID
        and topic.name not in topics
        and context.permits(Operation.DESCRIBE, ResourceType.TOPIC, topic.name)
        and (
            context.permits_cluster(Operation.CREATE)
            or context.permits(Operation.CREATE, ResourceType.TOPIC, topic.name)
        )
    ]


async def _create_and_answer(
    broker: Broker,
    request: MetadataRequest,
    asked: Sequence[MetadataRequestTopic] | None,
    context: RequestContext,
    missing: Sequence[str],
) -> Encoded:
    """Create topics with the broker's defaults, and answer once they are served."""
    # What the plan finds; it may run once more after this has answered.
    errors: dict[str, ErrorCode] = {}
    defaults = TopicDefaults(broker.config.num_partitions, broker.config.default_replication_factor)

    def plan(image: ClusterImage) -> Iterator[CreateTopic]:
        errors.clear()
        by_metric: dict[str, str] = {}  # the names planned here, of which the image knows nothing
        for name in dict.fromkeys(missing):
            if name in image.topics:
                continue
            if by_metric.setdefault(metric_name(name), name) != name:
                errors[name] = ErrorCode.INVALID_TOPIC_EXCEPTION
                continue
            try:
                yield from plan_create_topic(image, name, defaults=defaults)
            except KafkaError as error:
                errors[name] = error.code

    try:
        if GROUP_TOPIC in missing:
            await broker.coordinators.create_topic()  # not with the defaults of a topic of clients
        in_time = await commit_applied(broker, plan, CREATION_MS_MAX)
        answered = ({} if in_time else dict.fromkeys(missing, ErrorCode.LEADER_NOT_AVAILABLE)) | errors
    except KafkaError as error:
        answered = dict.fromkeys(missing, error.code)
    return await _large_answer(broker, request, asked, context, answered)


def _is_large(image: ClusterImage, asked: Sequence[MetadataRequestTopic] | None) -> bool:
    """Whether an answer takes long to make."""
    if asked is None:
        count = 0
        for topic in image.topics.values():
            count += 1 + len(topic.partitions)
            if count > ONE_STEP_COUNT_MAX:
                return True
        return False
    if len(asked) > ONE_STEP_COUNT_MAX:
        return True
    named = (image.topics.get(topic.name or "") or image.topic_by_id(topic.topic_id) for topic in asked)
    return sum(1 + len(topic.partitions) for topic in named if topic is not None) > ONE_STEP_COUNT_MAX


async def _large_answer(
    broker: Broker,
    request: MetadataRequest,
    asked: Sequence[MetadataRequestTopic] | None,
    context: RequestContext,
    errors: Mapping[str, ErrorCode],
) -> Encoded:
    """Make and encode an answer in slices, of the image of this moment."""
    image = broker.metadata.image
    answers = _topics(broker, image, request, asked, context, errors)
    topics = (LongItem(topic, "partitions", partitions) for topic, partitions in answers)
    return await encoded_in_slices(_head(image, request, context), "topics", topics, context.api_version)


async def _keep_large_answer(
    broker: Broker,
    request: MetadataRequest,
    asked: Sequence[MetadataRequestTopic] | None,
    context: RequestContext,
    key: CacheKey,
) -> Encoded:
    stamp = _stamp(broker)
    answer = await _large_answer(broker, request, asked, context, {})
    if _stamp(broker) == stamp:
        broker.metadata_cache.put(key, answer.body)
    return answer


def _stamp(broker: Broker) -> tuple[int, int]:
    """Moves with everything that an answer is made of."""
    return broker.metadata.image.version, broker.partitions.version


def _response(
    broker: Broker,
    request: MetadataRequest,
    asked: Sequence[MetadataRequestTopic] | None,
    context: RequestContext,
    errors: Mapping[str, ErrorCode],
) -> MetadataResponse:
    image = broker.metadata.image
    response = _head(image, request, context)
    for topic, partitions in _topics(broker, image, request, asked, context, errors):
        topic.partitions = list(partitions)
        response.topics.append(topic)
    return response


def _head(image: ClusterImage, request: MetadataRequest, context: RequestContext) -> MetadataResponse:
    """The answer without its topics."""
    response = MetadataResponse(
        brokers=[
            MetadataResponseBroker(node_id=node_id, host=endpoint.host, port=endpoint.port, rack=member.rack)
            for node_id, member in sorted(image.brokers.items())
            for endpoint in member.endpoints
            if endpoint.listener == context.listener
        ],
        cluster_id=image.cluster_id,
        controller_id=image.controller_id,
    )
    if request.include_cluster_authorized_operations:
        response.cluster_authorized_operations = cluster_operations(context)
    return response


def _topics(
    broker: Broker,
    image: ClusterImage,
    request: MetadataRequest,
    asked: Sequence[MetadataRequestTopic] | None,
    context: RequestContext,
    errors: Mapping[str, ErrorCode],
) -> Iterator[_TopicAnswer]:
    """The topics' answers, made one by one."""
    if asked is None:
        for topic in image.topics.values():
            if context.permits(Operation.DESCRIBE, ResourceType.TOPIC, topic.name):
                yield _topic(broker, topic, request, context)
        return
    for wanted in {(topic.name, topic.topic_id): topic for topic in asked}.values():
        yield _asked(broker, image, wanted, request, context, errors)


def _asked(
    broker: Broker,
    image: ClusterImage,
    asked: MetadataRequestTopic,
    request: MetadataRequest,
    context: RequestContext,
    errors: Mapping[str, ErrorCode],
) -> _TopicAnswer:
    """Answer one topic that was named, or the error that stands against it."""
    by_id = asked.topic_id != ZERO_UUID
    topic = image.topic_by_id(asked.topic_id) if by_id else image.topics.get(asked.name or "")
    name = topic.name if topic is not None else asked.name
    if name is not None and not context.permits(Operation.DESCRIBE, ResourceType.TOPIC, name):
        # Who may not describe a topic must not learn its name from its id (KIP-516).
        if by_id:
            return _error(ErrorCode.UNKNOWN_TOPIC_ID, None, asked.topic_id), ()
        return _error(ErrorCode.TOPIC_AUTHORIZATION_FAILED, name), ()
    if topic is not None:
        return _topic(broker, topic, request, context)
    if by_id:
        return _error(ErrorCode.UNKNOWN_TOPIC_ID, None, asked.topic_id), ()
    if asked.name is None:
        return _error(ErrorCode.INVALID_REQUEST, None), ()
    code = errors.get(asked.name)
    if code is None or code is ErrorCode.TOPIC_ALREADY_EXISTS:
        try:
            validate_topic_name(asked.name)
            code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        except KafkaError as error:
            code = error.code
    answer = _error(code, asked.name)
    if request.include_topic_authorized_operations:
        answer.topic_authorized_operations = topic_operations(asked.name, context)
    return answer, ()


def _error(code: ErrorCode, name: str | None, topic_id: bytes = ZERO_UUID) -> MetadataResponseTopic:
    return MetadataResponseTopic(error_code=code, name=name, topic_id=topic_id, is_internal=name in INTERNAL_TOPICS)


def _topic(broker: Broker, topic: TopicImage, request: MetadataRequest, context: RequestContext) -> _TopicAnswer:
    response = MetadataResponseTopic(
        name=topic.name, topic_id=topic.topic_id, is_internal=topic.name in INTERNAL_TOPICS
    )
    if request.include_topic_authorized_operations:
        response.topic_authorized_operations = topic_operations(topic.name, context)
    return response, _partitions(broker, topic)


def _partitions(broker: Broker, topic: TopicImage) -> Iterator[MetadataResponsePartition]:
    node_id = broker.config.node_id
    for index, state in enumerate(topic.partitions):
        held = broker.partitions.get(topic.name, index)
        is_offline = (
            held is not None
            and held.state is ReplicaState.OFFLINE
            and held.offline_error is ErrorCode.KAFKA_STORAGE_ERROR
        )
        yield MetadataResponsePartition(
            error_code=ErrorCode.LEADER_NOT_AVAILABLE if state.leader < 0 else ErrorCode.NONE,
            partition_index=index,
            leader_id=state.leader,
            leader_epoch=state.leader_epoch,
            replica_nodes=list(state.replicas),
            isr_nodes=list(state.isr),
            offline_replicas=[node_id] if is_offline else [],
        )
