"""CreateTopics (key 19): new topics with their partitions and configs.

Versions  2 per-topic messages   4 default partitions and replication (KIP-464)   5 configs in the answer (KIP-525),
          flexible   7 topic ids

An answer without an error means that every partition is served: its log exists and takes records, or, where the disk
refused that, it is offline and tried again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._admin import (
    AUTHORIZATION_FAILED,
    DUPLICATE_TOPIC,
    PARTITIONS_PER_REQUEST_MAX,
    TIMED_OUT,
    Fault,
    commit_applied,
    duplicates,
    may,
    walk,
)
from millstream.core.broker.handlers.encoded import Encoded, encoded_in_slices
from millstream.core.cluster import ClusterImage, CreateTopic, TopicImage
from millstream.core.cluster.image import metric_name
from millstream.core.cluster.slices import Slices
from millstream.core.cluster.topics import Assignments, TopicDefaults, plan_create_topic
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

CLUSTER_METADATA_TOPIC: Final = "__cluster_metadata"
_DEFAULT: Final = -1


def create_topics(broker: Broker, request: CreateTopicsRequest, context: RequestContext) -> Delayed[Encoded]:
    """Create the topics that can be; each has its own error."""
    return Delayed.from_coroutine(broker.loop, _create_topics(broker, request, context))


async def _create_topics(broker: Broker, request: CreateTopicsRequest, context: RequestContext) -> Encoded:
    defaults = TopicDefaults(broker.config.num_partitions, broker.config.default_replication_factor)
    faults: dict[str, Fault] = {}
    accepted: list[CreatableTopic] = []
    repeated = duplicates(topic.name for topic in request.topics)
    excessive = _partition_count(request.topics, defaults) > PARTITIONS_PER_REQUEST_MAX
    slices = Slices()
    for topic in request.topics:
        if (fault := _refused(topic, context, repeated, excessive)) is not None:
            faults[topic.name] = fault
        else:
            accepted.append(topic)
        await slices.pause()

    created: dict[str, TopicImage] = {}

    def plan(image: ClusterImage) -> Iterator[CreateTopic]:
        created.clear()
        names: dict[str, str] = {}
        for topic in accepted:
            try:
                planned = _plan(image, topic, names, defaults)
            except KafkaError as error:
                faults[topic.name] = Fault.of(error)
                continue
            faults.pop(topic.name, None)
            created[topic.name] = planned.topic
            yield planned

    if request.validate_only:
        await walk(plan(broker.metadata.image))
    elif accepted:
        try:
            in_time = await commit_applied(broker, plan, request.timeout_ms)
        except KafkaError as error:
            faults |= {topic.name: Fault.of(error) for topic in accepted if topic.name not in faults}
        else:
            if not in_time:
                late = Fault(ErrorCode.REQUEST_TIMED_OUT, TIMED_OUT)
                faults |= {topic.name: late for topic in accepted if topic.name not in faults}
    # Copies: a plan that the client no longer waits for may still run, and says there what it finds.
    results = _results(broker, request, dict(faults), dict(created), context)
    return await encoded_in_slices(CreateTopicsResponse(), "topics", results, context.api_version)


def _results(
    broker: Broker,
    request: CreateTopicsRequest,
    faults: Mapping[str, Fault],
    created: Mapping[str, TopicImage],
    context: RequestContext,
) -> Iterator[CreatableTopicResult]:
    # Told once for all topics with the same ones.
    told: dict[frozenset[tuple[str, str]], list[CreatableTopicConfigs]] = {}
    for name in dict.fromkeys(topic.name for topic in request.topics):
        fault = faults.get(name)
        if fault is not None:
            yield CreatableTopicResult(name=name, error_code=fault.code, error_message=fault.message)
        else:
            yield _result(broker, created[name], context, told)


def _refused(topic: CreatableTopic, context: RequestContext, repeated: set[str], excessive: bool) -> Fault | None:
    if topic.name in repeated:
        return Fault(ErrorCode.INVALID_REQUEST, DUPLICATE_TOPIC)
    if topic.name == CLUSTER_METADATA_TOPIC:
        return Fault(ErrorCode.INVALID_REQUEST, f"Creation of internal topic {CLUSTER_METADATA_TOPIC} is prohibited.")
    if not context.permits_cluster(Operation.CREATE) and not may(context, Operation.CREATE, topic.name):
        return Fault(ErrorCode.TOPIC_AUTHORIZATION_FAILED, AUTHORIZATION_FAILED)
    if excessive:
        return Fault(ErrorCode.POLICY_VIOLATION, "Excessively large number of partitions per request.")
    return None


def _partition_count(topics: Sequence[CreatableTopic], defaults: TopicDefaults) -> int:
    return sum(
        len(topic.assignments)
        or (defaults.num_partitions if topic.num_partitions == _DEFAULT else max(topic.num_partitions, 0))
        for topic in topics
    )


def _plan(image: ClusterImage, topic: CreatableTopic, names: dict[str, str], defaults: TopicDefaults) -> CreateTopic:
    """Plan one topic; `names` holds those of this request by their metric names, since the image has none of them."""
    assignments: dict[int, Sequence[int]] = {}
    for assignment in topic.assignments:
        if assignment.partition_index in assignments:
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Found multiple manual partition assignments for partition {assignment.partition_index}",
            )
        assignments[assignment.partition_index] = assignment.broker_ids
    given: Assignments | None = assignments or None
    (operation,) = plan_create_topic(
        image,
        topic.name,
        num_partitions=topic.num_partitions,
        replication_factor=topic.replication_factor,
        assignments=given,
        configs={config.name: config.value for config in topic.configs},
        defaults=defaults,
    )
    other = names.setdefault(metric_name(topic.name), topic.name)
    if other != topic.name:
        raise KafkaError(
            ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic '{topic.name}' collides with existing topic: {other}"
        )
    return operation


def _result(
    broker: Broker,
    topic: TopicImage,
    context: RequestContext,
    told: dict[frozenset[tuple[str, str]], list[CreatableTopicConfigs]],
) -> CreatableTopicResult:
    result = CreatableTopicResult(name=topic.name, topic_id=topic.topic_id, error_message=None)
    if not may(context, Operation.DESCRIBE_CONFIGS, topic.name):
        result.topic_config_error_code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        return result
    result.num_partitions = len(topic.partitions)
    result.replication_factor = len(topic.partitions[0].replicas)
    key = frozenset(topic.configs.items())
    configs = told.get(key)
    if configs is None:
        entries = broker.control.applier.topic_config(topic.configs)
        configs = told[key] = [
            CreatableTopicConfigs(
                name=name, value=entry.text, config_source=entry.source, is_sensitive=entry.key.sensitive
            )
            for name, entry in sorted(entries.items())
        ]
    result.configs = configs
    return result
