"""Planning topics: what is refused, in whose words, and what a plan makes. Apache Kafka is asked the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stubs miss them
from tests.support.metadata_store_kit import topic

from millstream.core.cluster import BrokerImage, ClusterImage, CreateTopic, PartitionState, RegisterBroker
from millstream.core.cluster.topics import (
    TopicDefaults,
    plan_create_partitions,
    plan_create_topic,
    plan_delete_topic,
    random_topic_id,
    validate_topic_name,
)
from millstream.core.wire import ErrorCode, KafkaError
from millstream.testing.kafka import ApacheKafka

DEFAULTS = TopicDefaults(num_partitions=3, replication_factor=1)


class Case(NamedTuple):
    """A topic that is refused. `own` where Kafka says more or something else."""

    name: str
    arguments: dict[str, Any]
    code: ErrorCode
    message: str
    own: bool = False


def config(name: str, value: str, message: str) -> Case:
    """Return the case of one bad config."""
    return Case("fresh", {"configs": {name: value}}, ErrorCode.INVALID_CONFIG, message)


def bad_value(name: str, value: str, reason: str, shown: str | None = None) -> Case:
    """Return the case of a config's bad value, in the usual sentence."""
    shown = value if shown is None else shown
    return config(name, value, f"Invalid value {shown} for configuration {name}: {reason}")


NAME = ErrorCode.INVALID_TOPIC_EXCEPTION
ASSIGNMENT = ErrorCode.INVALID_REPLICA_ASSIGNMENT
FACTOR = ErrorCode.INVALID_REPLICATION_FACTOR
CHARACTERS = "contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
COUNT = ErrorCode.INVALID_PARTITIONS
LONG = "x" * 250
MANUAL = "The manual partition assignment includes"
ADD_2 = "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."

CASES = [
    Case(".", {}, NAME, "Topic name is invalid: '.' is not allowed"),
    Case("..", {}, NAME, "Topic name is invalid: '..' is not allowed"),
    Case("a b", {}, NAME, f"Topic name is invalid: 'a b' {CHARACTERS}"),
    Case("täglich", {}, NAME, f"Topic name is invalid: 'täglich' {CHARACTERS}"),
    Case("a\n", {}, NAME, f"Topic name is invalid: 'a\n' {CHARACTERS}"),
    Case(LONG, {}, NAME, f"Topic name is invalid: the length of '{LONG}' is longer than the max allowed length 249"),
    Case("plan.taken", {}, ErrorCode.TOPIC_ALREADY_EXISTS, "Topic 'plan.taken' already exists."),
    Case("plan_taken", {}, NAME, "Topic 'plan_taken' collides with existing topic: plan.taken"),
    Case(
        "fresh",
        {"num_partitions": 0},
        ErrorCode.INVALID_PARTITIONS,
        "Number of partitions was set to an invalid non-positive value.",
    ),
    Case(
        "fresh",
        {"replication_factor": 0},
        FACTOR,
        "Replication factor must be larger than 0, or -1 to use the default value.",
    ),
    Case(
        "fresh",
        {"replication_factor": 2},
        FACTOR,
        "Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because "
        "only 1 broker(s) are registered.",
        own=True,
    ),
    Case(
        "fresh",
        {"num_partitions": 10_001},
        ErrorCode.POLICY_VIOLATION,
        "Excessively large number of partitions per request: 10001, at most 10000.",
        own=True,
    ),
    Case(
        "fresh",
        {"assignments": {0: [1], 1: []}},
        ASSIGNMENT,
        "The manual partition assignment includes an empty replica list.",
    ),
    Case(
        "fresh",
        {"assignments": {0: [1, 1]}},
        ASSIGNMENT,
        "The manual partition assignment includes the broker 1 more than once.",
    ),
    Case(
        "fresh",
        {"assignments": {0: [2]}},
        ASSIGNMENT,
        "The manual partition assignment includes broker 2, but no such broker is registered.",
    ),
    Case(
        "fresh",
        {"assignments": {0: [1], 1: [1, 2]}},
        ASSIGNMENT,
        "The manual partition assignment includes broker 2, but no such broker is registered.",
    ),
    bad_value("segment.bytes", "-2", "Value must be at least 1048576"),
    bad_value("segment.bytes", "x", "Not a number of type INT"),
    bad_value("segment.bytes", "99999999999", "Not a number of type INT"),
    bad_value("cleanup.policy", "delete,foo", "String must be one of: compact, delete", "foo"),
    bad_value("cleanup.policy", "Delete", "String must be one of: compact, delete"),
    bad_value("compression.type", "foo", "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer"),
    bad_value("compression.gzip.level", "0", "Value must be between 1 and 9 or equal to -1"),
    bad_value("compression.lz4.level", "99", "Value must be no more than 17"),
    bad_value("compression.zstd.level", "99", "Value must be no more than 22"),
    bad_value("preallocate", "maybe", "Expected value to be either true or false"),
    bad_value("min.cleanable.dirty.ratio", "1.5", "Value must be no more than 1"),
    bad_value("min.cleanable.dirty.ratio", "-1", "Value must be at least 0", "-1.0"),
    bad_value("min.cleanable.dirty.ratio", "x", "Not a number of type DOUBLE"),
    bad_value("retention.ms", "", "Not a number of type LONG"),
    bad_value("retention.ms", "9223372036854775808", "Not a number of type LONG"),
    bad_value("retention.ms", "-2", "Value must be at least -1"),
    bad_value("min.insync.replicas", "0", "Value must be at least 1"),
    bad_value("message.timestamp.type", "foo", "String must be one of: CreateTime, LogAppendTime"),
    bad_value(
        "leader.replication.throttled.replicas",
        "foo",
        "leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: "
        "[partitionId]:[brokerId],[partitionId]:[brokerId],...",
        "[foo]",
    ),
    config(
        "remote.storage.enable",
        "true",
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
    ),
    config("foo", "bar", "Unknown topic config name: foo"),
    config("message.format.version", "2.0", "Unknown topic config name: message.format.version"),
    Case(
        "fresh",
        {"configs": {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"}},
        ErrorCode.INVALID_CONFIG,
        "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
    ),
]
ACCEPTED = [
    {"cleanup.policy": ""},
    {"cleanup.policy": "delete,delete"},
    {"cleanup.policy": "compact, delete"},
    {"retention.ms": " 5 "},
    {"retention.ms": "+5"},
    {"preallocate": "TRUE"},
    {"compression.type": "gzip "},
    {"leader.replication.throttled.replicas": "*"},
    {"local.retention.ms": "5"},
    {"remote.log.copy.disable": "true"},
    {"min.cleanable.dirty.ratio": "0.50"},
]


@pytest.fixture
def image() -> ClusterImage:
    """Return an image of broker 1 with the topic plan.taken."""
    return ClusterImage().apply(1, [RegisterBroker(BrokerImage(1, ())), CreateTopic(topic("plan.taken", 2))])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.message[:60])
def test_what_is_refused(image: ClusterImage, case: Case) -> None:
    with pytest.raises(KafkaError) as raised:
        plan_create_topic(image, case.name, defaults=DEFAULTS, **case.arguments)
    assert (raised.value.code, raised.value.message) == (case.code, case.message)


@pytest.mark.parametrize("configs", ACCEPTED, ids=str)
def test_what_is_accepted(image: ClusterImage, configs: dict[str, str]) -> None:
    (created,) = plan_create_topic(image, "fresh", configs=configs, defaults=DEFAULTS)
    assert created.topic.configs == configs


@pytest.mark.java
def test_kafka_refuses_and_accepts_the_same_in_the_same_words(apache_kafka: ApacheKafka) -> None:
    admin = AdminClient({"bootstrap.servers": apache_kafka.bootstrap_servers})
    ask(admin, NewTopic("plan.taken", 2, 1), validate_only=False)
    for case in CASES:
        if case.arguments.get("assignments"):
            continue  # the library refuses these before it asks
        code, message = ask(admin, new_topic(case))
        assert code == case.code, f"{case}: Kafka says {message}"
        if not case.own:
            assert message == case.message
    for configs in ACCEPTED:
        assert ask(admin, NewTopic("fresh", 1, 1, config=configs)) == (0, ""), configs


def new_topic(case: Case) -> NewTopic:
    """Return the case as a request of confluent-kafka."""
    return NewTopic(
        case.name,
        case.arguments.get("num_partitions", 1),
        case.arguments.get("replication_factor", 1),
        config=case.arguments.get("configs", {}),
    )


def ask(admin: AdminClient, wanted: NewTopic, *, validate_only: bool = True) -> tuple[int, str]:
    """Return the error code and message that Kafka answers, (0, "") for success."""
    try:
        admin.create_topics([wanted], validate_only=validate_only, request_timeout=20)[wanted.topic].result(30)
    except KafkaException as error:
        return error.args[0].code(), error.args[0].str()
    return 0, ""


def test_numbers_come_from_the_request_or_the_broker(image: ClusterImage) -> None:
    ids = count(1)

    def new_topic_id() -> bytes:
        return next(ids).to_bytes(16, "big")

    state = PartitionState(leader=1, leader_epoch=0, replicas=(1,), isr=(1,), partition_epoch=0)

    (created,) = plan_create_topic(image, "a", defaults=DEFAULTS, new_topic_id=new_topic_id)
    assert created.topic.partitions == (state,) * 3
    assert created.topic.topic_id == (1).to_bytes(16, "big")
    (created,) = plan_create_topic(image, "a", num_partitions=5, replication_factor=1, defaults=DEFAULTS)
    assert len(created.topic.partitions) == 5
    (created,) = plan_create_topic(image, "a", assignments={1: [1], 0: [1]}, defaults=DEFAULTS)
    assert created.topic.partitions == (state,) * 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ({"assignments": {1: [1]}}, ASSIGNMENT, "partitions should be a consecutive 0-based integer sequence"),
        ({"assignments": {0: [1]}, "num_partitions": 1}, ErrorCode.INVALID_REQUEST, "numPartitions was not set to -1"),
        ({"assignments": {0: [1]}, "replication_factor": 1}, ErrorCode.INVALID_REQUEST, "factor was not set to -1"),
        ({"num_partitions": -2}, ErrorCode.INVALID_PARTITIONS, "non-positive"),
        ({"replication_factor": -2}, FACTOR, "larger than 0, or -1"),
        ({"configs": {"retention.ms": None}}, ErrorCode.INVALID_CONFIG, "Null value not supported for topic configs"),
    ],
)
def test_what_no_client_library_sends(
    image: ClusterImage, arguments: dict[str, Any], code: ErrorCode, message: str
) -> None:
    with pytest.raises(KafkaError, match=message) as raised:
        plan_create_topic(image, "fresh", defaults=DEFAULTS, **arguments)
    assert raised.value.code is code


def test_replicas_are_spread_over_brokers() -> None:
    image = ClusterImage().apply(1, [RegisterBroker(BrokerImage(node, ())) for node in (3, 1, 2)])
    (created,) = plan_create_topic(image, "a", num_partitions=4, replication_factor=2, defaults=DEFAULTS)
    assert [state.replicas for state in created.topic.partitions] == [(1, 2), (2, 3), (3, 1), (1, 2)]
    assert all(state.leader == state.replicas[0] and state.isr == state.replicas for state in created.topic.partitions)

    with pytest.raises(KafkaError, match="partition with 1 replica"):
        plan_create_topic(image, "a", assignments={0: [1, 2], 1: [3]}, defaults=DEFAULTS)


@pytest.mark.parametrize(
    ("name", "total", "assignments", "code", "message"),
    [
        (
            "plan.taken",
            1,
            None,
            COUNT,
            "The topic plan.taken currently has 2 partition(s); 1 would not be an increase.",
        ),
        (
            "plan.taken",
            0,
            None,
            COUNT,
            "The topic plan.taken currently has 2 partition(s); 0 would not be an increase.",
        ),
        ("plan.taken", 2, None, COUNT, "Topic already has 2 partition(s)."),
        ("none", 3, None, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The topic 'none' does not exist."),
        ("plan.taken", 4, [[1]], ASSIGNMENT, ADD_2),
        ("plan.taken", 3, [[2]], ASSIGNMENT, f"{MANUAL} broker 2, but no such broker is registered."),
        ("plan.taken", 3, [[1, 1]], ASSIGNMENT, f"{MANUAL} the broker 1 more than once."),
        ("plan.taken", 3, [[]], ASSIGNMENT, f"{MANUAL} an empty replica list."),
    ],
)
def test_partitions_that_cannot_be_added(
    image: ClusterImage,
    name: str,
    total: int,
    assignments: Sequence[Sequence[int]] | None,
    code: ErrorCode,
    message: str,
) -> None:
    with pytest.raises(KafkaError) as raised:
        plan_create_partitions(image, name, total, assignments)
    assert (raised.value.code, raised.value.message) == (code, message)


@pytest.mark.parametrize("assignments", [None, [[1], [1]]])
def test_partitions_are_added_behind_the_old_ones(
    image: ClusterImage, assignments: Sequence[Sequence[int]] | None
) -> None:
    after = image.apply(2, plan_create_partitions(image, "plan.taken", 4, assignments))
    states = after.topics["plan.taken"].partitions
    assert len(states) == 4
    assert states[:2] == image.topics["plan.taken"].partitions
    assert states[3].replicas == (1,)


def test_a_topic_is_deleted_by_name_or_by_id(image: ClusterImage) -> None:
    taken = image.topics["plan.taken"]
    for plan in (plan_delete_topic(image, name="plan.taken"), plan_delete_topic(image, topic_id=taken.topic_id)):
        after = image.apply(2, plan)
        assert not after.topics
        assert plan_create_topic(after, "plan_taken", defaults=DEFAULTS)

    with pytest.raises(KafkaError) as raised:
        plan_delete_topic(image, name="none")
    assert raised.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    with pytest.raises(KafkaError) as raised:
        plan_delete_topic(image, topic_id=bytes(16))
    assert raised.value.code is ErrorCode.UNKNOWN_TOPIC_ID
    with pytest.raises(KafkaError) as raised:
        plan_delete_topic(image, name="plan.taken", topic_id=taken.topic_id)
    assert raised.value.code is ErrorCode.INVALID_REQUEST


def test_topic_ids_are_random_uuids() -> None:
    ids = {random_topic_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(topic_id[6] >> 4 == 4 and topic_id[8] >> 6 == 2 and topic_id[0] >> 2 != 62 for topic_id in ids)


def test_the_longest_name() -> None:
    validate_topic_name("x" * 249)
    with pytest.raises(KafkaError, match="the empty string is not allowed"):
        validate_topic_name("")
