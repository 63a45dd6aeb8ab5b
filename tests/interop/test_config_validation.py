"""Every config of topics, at good and at bad values: Millstream and Apache Kafka give the same answers, to the letter.

Both are asked to create topics and to alter one, and to validate only. Where the answers differ by intention, the
difference is listed here with its reason.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.cluster.configs import AlterOperation, ResourceType
from millstream.core.wire.messages.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from millstream.core.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from millstream.core.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from millstream.testing.kafka import ApacheKafka
from millstream.testing.raw import RawConnection

pytestmark = pytest.mark.java

SET, DELETE, APPEND, SUBTRACT = AlterOperation
Answer = tuple[int, str | None]
Settings = Sequence[tuple[str, str | None]]

TOPIC: Final = "config-validation"
TOPICS_PER_REQUEST: Final = 500
COMBINATIONS_COUNT: Final = 200

VALUES: Final = (
    *("", " ", "0", "-0", "-1", "-2", "-3", "1", "+5", " 5 ", "2", "4", "9", "10", "17", "18", "22", "23", "1024"),
    *("1048575", "1048576", "2147483647", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808"),
    *("-9223372036854775808", "1.5", "0.5", "1.0", ".5", "5.", "1e3", "1e-400", "1e400", "Infinity", "0x10", "0x1p-1"),
    *("1d", "1f", "1L", "1_000", "\u0663", "abc", "true", "false", "TRUE", " true ", "yes"),
    *("none", "producer", "uncompressed", "gzip", "snappy", "lz4", "zstd", "GZIP"),
    *("delete", "compact", "compact,delete", " compact , delete ", "delete,delete", "compact,", ",", "none,delete"),
    *("CreateTime", "LogAppendTime", "createtime"),
    *("*", "*,*", "0:1", "0:1,1:2", "0:1, 1:2", "0:", ":1", "-1:1", "a:b", "1:1,*", "1:1:1"),
)
LIST_ENTRIES: Final = ("", "compact", "delete", "compact,delete", "none", "0:1", "*", "7")
TOGETHER: Final[Sequence[Settings]] = (
    (("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")),
    (("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "5")),
    (("retention.ms", "10"), ("local.retention.ms", "20")),
    (("retention.bytes", "10"), ("local.retention.bytes", "20")),
    (("remote.storage.enable", "true"), ("cleanup.policy", "compact")),
    (("remote.storage.enable", "true"), ("remote.log.copy.disable", "true")),
    (("remote.log.delete.on.disable", "true"),),
    (("segment.bytes", "1048576"), ("max.message.bytes", "2097152")),
    (("retention.ms", "x"), ("nonsense", "1")),
    (("nonsense", "1"), ("retention.ms", "x")),
    (("nonsense", "1"),),
    (("", "1"),),
    (("retention.ms", None),),
    (("retention.ms", None), ("segment.ms", None)),
    (("message.format.version", "3.0"),),
)
# NaN lies inside every limit for Kafka, and a cleaner that compares with it would never run.
ONLY_HERE_REFUSED: Final = ("min.cleanable.dirty.ratio", "NaN")


@pytest.fixture(scope="module")
def brokers(apache_kafka: ApacheKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RawConnection]]:
    """A connection to Millstream and one to Apache Kafka; each has a topic to be altered."""
    with (
        BrokerThread(tmp_path_factory.mktemp("config-validation")) as ours,
        RawConnection(ours.bootstrap_servers) as millstream,
        RawConnection(apache_kafka.bootstrap_servers) as kafka,
    ):
        both = [millstream, kafka]
        for raw in both:
            raw.create_topic(TOPIC)
        yield both


@pytest.fixture(scope="module")
def names(brokers: list[RawConnection]) -> list[str]:
    """Kafka's topic configs, which are ours."""
    resource = DescribeConfigsResource(resource_type=ResourceType.TOPIC, resource_name=TOPIC, configuration_keys=None)
    found = []
    for raw in brokers:
        (result,) = raw.call(DescribeConfigsRequest(resources=[resource])).results
        found.append(sorted(config.name for config in result.configs if not config.name.startswith("millstream.")))
    assert found[0] == found[1]
    assert len(found[0]) == 33
    return found[0]


def created(raw: RawConnection, cases: Sequence[Settings]) -> list[Answer]:
    """What a topic with each of the settings would be answered."""
    answers: list[Answer] = []
    for start in range(0, len(cases), TOPICS_PER_REQUEST):
        topics = [
            CreatableTopic(
                name=f"t{index}",
                num_partitions=1,
                replication_factor=1,
                configs=[CreatableTopicConfig(name=name, value=value) for name, value in settings],
            )
            for index, settings in enumerate(cases[start : start + TOPICS_PER_REQUEST])
        ]
        response = raw.call(CreateTopicsRequest(topics=topics, timeout_ms=60_000, validate_only=True))
        by_name = {topic.name: (topic.error_code, topic.error_message) for topic in response.topics}
        answers += [by_name[topic.name] for topic in topics]
    return answers


def altered(raw: RawConnection, operation: AlterOperation, settings: Settings) -> Answer:
    """What the topic's change would be answered."""
    configs = [AlterableConfig(name=name, config_operation=operation, value=value) for name, value in settings]
    resource = AlterConfigsResource(resource_type=ResourceType.TOPIC, resource_name=TOPIC, configs=configs)
    response = raw.call(IncrementalAlterConfigsRequest(resources=[resource], validate_only=True))
    return response.responses[0].error_code, response.responses[0].error_message


def differences(cases: Sequence[object], ours: Sequence[Answer], theirs: Sequence[Answer]) -> list[str]:
    return [
        f"{case}: {mine}, Kafka {other}" for case, mine, other in zip(cases, ours, theirs, strict=True) if mine != other
    ]


def every_value(names: Sequence[str]) -> list[Settings]:
    return [[(name, value)] for name in names for value in VALUES] + list(TOGETHER)


def test_topics_are_created_with_the_same_configs(brokers: list[RawConnection], names: list[str]) -> None:
    cases = every_value(names)
    ours, theirs = (created(raw, cases) for raw in brokers)
    assert differences(cases, ours, theirs) == []
    refused = sum(code != 0 for code, _ in theirs)
    assert 1000 < refused < len(cases) - 300, "the values do not tell good from bad"


def test_topics_are_altered_to_the_same_configs(brokers: list[RawConnection], names: list[str]) -> None:
    cases = every_value(names)
    ours, theirs = ([altered(raw, SET, case) for case in cases] for raw in brokers)
    assert differences(cases, ours, theirs) == []


def test_of_several_wrong_configs_the_same_one_is_named(brokers: list[RawConnection], names: list[str]) -> None:
    chosen = random.Random(20_13)  # any seed; printed with the case
    cases = [[(name, "no:value") for name in chosen.sample(names, 3)] for _ in range(COMBINATIONS_COUNT)]
    ours, theirs = (created(raw, cases) for raw in brokers)
    assert differences(cases, ours, theirs) == []


@pytest.mark.parametrize("operation", [DELETE, APPEND, SUBTRACT], ids=lambda operation: operation.name)
def test_lists_change_alike(brokers: list[RawConnection], names: list[str], operation: AlterOperation) -> None:
    cases: list[Settings] = [[(name, entry)] for name in [*names, "nonsense"] for entry in (*LIST_ENTRIES, None)]
    ours, theirs = ([altered(raw, operation, case) for case in cases] for raw in brokers)
    assert differences(cases, ours, theirs) == []


def test_what_is_only_refused_here(brokers: list[RawConnection]) -> None:
    ours, theirs = (created(raw, [[ONLY_HERE_REFUSED]]) for raw in brokers)
    name, value = ONLY_HERE_REFUSED
    assert ours == [(40, f"Invalid value {value} for configuration {name}: Not a number of type DOUBLE")]
    assert theirs == [(0, None)]
