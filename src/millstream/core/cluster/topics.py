"""Planning changes of topics: pure functions from an image and a request to operations, or to Kafka's error.

Each returns the operations and changes nothing, so that validate_only is a plan that nobody commits. The checks and
their sentences are Apache Kafka 4.3's; clients and tools of others match on them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from millstream.core.cluster.image import NO_LEADER, ClusterImage, PartitionState, TopicImage
from millstream.core.cluster.operations import AddPartitions, CreateTopic, DeleteTopic
from millstream.core.config import ConfigError, validate_topic_configs
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire import uuid_text as topic_id_text

NAME_LENGTH_MAX: Final = 249  # so that the partition folder `name-4294967295` fits a file name of 255 characters
PARTITIONS_PER_REQUEST_MAX: Final = 10_000
DEFAULT: Final = -1
"""In a request: take the broker's number."""

_NAME: Final = re.compile(r"[a-zA-Z0-9._-]+\Z")
_RESERVED_IDS: Final = (bytes(16), bytes(15) + b"\x01")  # no id, and the metadata topic's

Assignments = Mapping[int, Sequence[int]]


class TopicDefaults(NamedTuple):
    """The broker's numbers for topics that are created without any."""

    num_partitions: int
    replication_factor: int


def random_topic_id() -> bytes:
    """Return a new topic id: a random UUID that is not reserved and whose text does not look like an option."""
    while True:
        topic_id = uuid.uuid4().bytes
        if topic_id not in _RESERVED_IDS and not topic_id_text(topic_id).startswith("-"):
            return topic_id


def validate_topic_name(name: str) -> None:
    """Raise INVALID_TOPIC_EXCEPTION unless `name` can name a topic."""
    if not name:
        problem = "the empty string is not allowed"
    elif name in (".", ".."):
        problem = f"'{name}' is not allowed"
    elif len(name) > NAME_LENGTH_MAX:
        problem = f"the length of '{name}' is longer than the max allowed length {NAME_LENGTH_MAX}"
    elif not _NAME.match(name):
        problem = f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    else:
        return
    raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {problem}")


def plan_create_topic(
    image: ClusterImage,
    name: str,
    *,
    num_partitions: int = DEFAULT,
    replication_factor: int = DEFAULT,
    assignments: Assignments | None = None,
    configs: Mapping[str, str | None] | None = None,
    defaults: TopicDefaults,
    new_topic_id: Callable[[], bytes] = random_topic_id,
) -> list[CreateTopic]:
    """Plan a new topic. `assignments` gives each partition's brokers, the leader first.

    Where there are assignments both numbers are DEFAULT. Raises KafkaError.
    """
    validate_topic_name(name)
    if name in image.topics:
        raise KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    if (other := image.topic_like(name)) is not None:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic '{name}' collides with existing topic: {other}")
    settings = _topic_configs(configs or {})
    if assignments:
        partitions = _assigned(image, assignments, num_partitions, replication_factor)
    else:
        partitions = _placed(image, num_partitions, replication_factor, defaults)
    return [CreateTopic(TopicImage(name, new_topic_id(), partitions, settings))]


def plan_delete_topic(
    image: ClusterImage, *, name: str | None = None, topic_id: bytes | None = None
) -> list[DeleteTopic]:
    """Plan the end of a topic, named by exactly one of its name and its id."""
    if (name is None) == (topic_id is None):
        raise KafkaError(ErrorCode.INVALID_REQUEST, "A topic is named by its name or by its id, by one of them.")
    if name is not None:
        topic = image.topics.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
    else:
        assert topic_id is not None
        topic = image.topic_by_id(topic_id)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, f"No topic has the id {topic_id_text(topic_id)}.")
    return [DeleteTopic(topic.topic_id)]


def plan_create_partitions(
    image: ClusterImage, name: str, count: int, assignments: Sequence[Sequence[int]] | None = None
) -> list[AddPartitions]:
    """Plan that a topic gets `count` partitions in all; `assignments` gives the brokers of each new one."""
    topic = image.topics.get(name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
    existing = len(topic.partitions)
    if count == existing:
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {existing} partition(s).")
    if count < existing:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS,
            f"The topic {name} currently has {existing} partition(s); {count} would not be an increase.",
        )
    added = count - existing
    _refuse_too_many(added)
    if assignments is None:
        replication_factor = len(topic.partitions[0].replicas)
        return [AddPartitions(topic.topic_id, existing, _place(image, existing, added, replication_factor))]
    if len(assignments) != added:
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"Attempted to add {added} additional partition(s), but only {len(assignments)} assignment(s) were "
            "specified.",
        )
    width = len(topic.partitions[0].replicas)
    return [AddPartitions(topic.topic_id, existing, [_assign(image, replicas, width) for replicas in assignments])]


def _topic_configs(configs: Mapping[str, str | None]) -> dict[str, str]:
    settings = {name: text for name, text in configs.items() if text is not None}
    if len(settings) < len(configs):
        nulls = ",".join(name for name in configs if name not in settings)
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"Null value not supported for topic configs: {nulls}")
    try:
        validate_topic_configs(settings)
    except ConfigError as error:
        raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from error
    return settings


def _assigned(
    image: ClusterImage, assignments: Assignments, num_partitions: int, replication_factor: int
) -> tuple[PartitionState, ...]:
    if replication_factor != DEFAULT:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        )
    if num_partitions != DEFAULT:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        )
    _refuse_too_many(len(assignments))
    if sorted(assignments) != list(range(len(assignments))):
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, "partitions should be a consecutive 0-based integer sequence"
        )
    width = len(assignments[0])
    return tuple(_assign(image, assignments[index], width) for index in range(len(assignments)))


def validate_replicas(image: ClusterImage, replicas: Sequence[int]) -> None:
    """Raise KafkaError INVALID_REPLICA_ASSIGNMENT unless these are registered brokers, each once."""
    problem = None
    if not replicas:
        problem = "The manual partition assignment includes an empty replica list."
    for index, broker in enumerate(sorted(replicas)):
        if broker not in image.brokers:
            problem = f"The manual partition assignment includes broker {broker}, but no such broker is registered."
        elif index and sorted(replicas)[index - 1] == broker:
            problem = f"The manual partition assignment includes the broker {broker} more than once."
        if problem:
            break
    if problem is not None:
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, problem)


def _assign(image: ClusterImage, replicas: Sequence[int], width: int) -> PartitionState:
    validate_replicas(image, replicas)
    if len(replicas) != width:
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"The manual partition assignment includes a partition with {len(replicas)} replica(s), but this is not "
            f"consistent with previous partitions, which have {width} replica(s).",
        )
    return _new_partition(tuple(replicas))


def _placed(
    image: ClusterImage, num_partitions: int, replication_factor: int, defaults: TopicDefaults
) -> tuple[PartitionState, ...]:
    if replication_factor == 0 or replication_factor < DEFAULT:
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        )
    if num_partitions == 0 or num_partitions < DEFAULT:
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value.")
    count = defaults.num_partitions if num_partitions == DEFAULT else num_partitions
    factor = defaults.replication_factor if replication_factor == DEFAULT else replication_factor
    _refuse_too_many(count)
    return _place(image, 0, count, factor)


def _place(image: ClusterImage, first_index: int, count: int, replication_factor: int) -> tuple[PartitionState, ...]:
    """Spread partitions over the brokers, round and round; equal ones share their state."""
    brokers = sorted(image.brokers)
    if replication_factor > len(brokers):
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"Unable to replicate the partition {replication_factor} time(s): The target replication factor of "
            f"{replication_factor} cannot be reached because only {len(brokers)} broker(s) are registered.",
        )
    round_size = len(brokers)
    states = [
        _new_partition(tuple(brokers[(start + step) % round_size] for step in range(replication_factor)))
        for start in range(round_size)
    ]
    return tuple(states[index % round_size] for index in range(first_index, first_index + count))


def _new_partition(replicas: tuple[int, ...]) -> PartitionState:
    return PartitionState(
        leader=replicas[0] if replicas else NO_LEADER,
        leader_epoch=0,
        replicas=replicas,
        isr=replicas,
        partition_epoch=0,
    )


def _refuse_too_many(count: int) -> None:
    if count > PARTITIONS_PER_REQUEST_MAX:
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION,
            f"Excessively large number of partitions per request: {count}, at most {PARTITIONS_PER_REQUEST_MAX}.",
        )
