"""Which value holds and where it comes from; and the tables against Apache Kafka's own answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs miss them
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from millstream.core.config import (
    BROKER_CONFIGS,
    TOPIC_CONFIGS,
    BrokerConfig,
    ConfigSource,
    TopicConfigDefaults,
    effective_broker_config,
    effective_topic_config,
)
from millstream.core.config.accepted_configs import ACCEPTED, PROTECTING, REMOVED
from millstream.testing.kafka import ApacheKafka

TOPIC, BROKER, EVERY, STATIC, DEFAULT = list(ConfigSource)[1:6]
Places = Mapping[str, Mapping[str, str]]


@pytest.mark.parametrize(
    ("own", "static", "dynamic", "value", "synonyms"),
    [
        ({}, {}, {}, 604800000, []),
        (
            {},
            {"log.retention.hours": "1"},
            {},
            3600000,
            [("log.retention.hours", "1", STATIC), ("log.retention.hours", "168", DEFAULT)],
        ),
        (
            {},
            {"log.retention.hours": "1", "log.retention.minutes": "2"},
            {},
            120000,
            [
                ("log.retention.minutes", "2", STATIC),
                ("log.retention.hours", "1", STATIC),
                ("log.retention.hours", "168", DEFAULT),
            ],
        ),
        (
            {},
            {"log.retention.minutes": "-1"},
            {},
            -1,
            [("log.retention.minutes", "-1", STATIC), ("log.retention.hours", "168", DEFAULT)],
        ),
        (
            {"retention.ms": "9"},
            {"log.retention.ms": "3"},
            {"": {"log.retention.ms": "4"}, "1": {"log.retention.ms": "5"}, "2": {"log.retention.ms": "6"}},
            9,
            [
                ("retention.ms", "9", TOPIC),
                ("log.retention.ms", "5", BROKER),
                ("log.retention.ms", "4", EVERY),
                ("log.retention.ms", "3", STATIC),
                ("log.retention.hours", "168", DEFAULT),
            ],
        ),
        (
            {},
            {"log.retention.hours": "1"},
            {"": {"log.retention.ms": "4"}},
            4,
            [
                ("log.retention.ms", "4", EVERY),
                ("log.retention.hours", "1", STATIC),
                ("log.retention.hours", "168", DEFAULT),
            ],
        ),
        # What cannot change while a broker runs is not taken from the store, whoever put it there.
        ({}, {}, {"1": {"log.retention.hours": "1", "log.retention.ms": "x"}}, 604800000, []),
    ],
)
def test_retention_ms(
    own: Mapping[str, str],
    static: Mapping[str, str],
    dynamic: Places,
    value: int,
    synonyms: list[tuple[str, str, ConfigSource]],
) -> None:
    entry = effective_topic_config(own, BrokerConfig(static), dynamic)["retention.ms"]
    assert entry.value == value
    assert entry.text == str(value)
    assert list(entry.synonyms) == synonyms
    assert entry.source == (synonyms[0][2] if synonyms else DEFAULT)


def test_a_stored_value_that_is_not_valid_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    entries = effective_topic_config({"retention.ms": "soon", "unheard.of": "1"}, BrokerConfig(), {})
    assert entries["retention.ms"].value == 604800000
    assert "unheard.of" not in entries
    assert "Invalid value soon for configuration retention.ms" in caplog.text


def test_topics_without_settings_share_one_mapping() -> None:
    defaults = TopicConfigDefaults(BrokerConfig(), {})
    assert defaults.effective({}) is defaults.effective({})
    assert defaults.effective({"retention.ms": "5"})["segment.ms"] is defaults.effective({})["segment.ms"]


def test_broker_configs_show_their_source() -> None:
    entries = effective_broker_config(
        BrokerConfig({"num.partitions": "3", "log.retention.hours": "2"}), {"": {"max.connections": "5"}}
    )
    assert (entries["num.partitions"].text, entries["num.partitions"].source) == ("3", STATIC)
    assert (entries["max.connections"].text, entries["max.connections"].source) == ("5", EVERY)
    assert (entries["log.retention.ms"].text, entries["log.retention.ms"].source) == ("7200000", STATIC)
    assert (entries["log.retention.bytes"].text, entries["log.retention.bytes"].source) == ("-1", DEFAULT)
    assert entries["broker.rack"].text is None


# Where this broker's default is another one, and why it may be.
OWN_DEFAULTS = {
    "listeners",  # the loopback address
    "node.id",
    "broker.id",  # the older name, without a default of its own
    "log.dir",  # in the working directory
    "queued.max.request.bytes",  # bounded
    "listener.security.protocol.map",  # the order of names
    "controller.listener.names",  # Kafka demands it
}


@pytest.mark.java
async def test_kafka_has_the_same_tables(apache_kafka: ApacheKafka) -> None:
    """Every topic config of Kafka is here, with its default and synonyms; no broker config of it is unknown here."""
    topics, brokers = await asyncio.to_thread(describe, apache_kafka)

    ours = effective_topic_config({}, BrokerConfig({"message.max.bytes": "2097152"}), {})
    assert {name for name in ours if not name.startswith("millstream.")} == set(topics)
    for name, theirs in topics.items():
        assert ours[name].text == theirs.value, name
        if name == "min.insync.replicas":
            continue  # Kafka sets it for the cluster when it formats its storage
        # The library keeps one synonym of each name, the last.
        shown = {synonym.name: (synonym.text, synonym.source) for synonym in ours[name].synonyms}
        assert shown == {s.name: (s.value, s.source) for s in theirs.synonyms.values()}
        assert ours[name].source == theirs.source, name

    for name, theirs in brokers.items():
        assert name in BROKER_CONFIGS or name in ACCEPTED, f"{name} would be warned about as unknown"
        key = BROKER_CONFIGS.get(name)
        if key is None or name in OWN_DEFAULTS:
            continue
        default = next((s.value for s in theirs.synonyms.values() if s.source == DEFAULT), None)
        assert key.render(key.default) == default, name
        assert key.sensitive == theirs.is_sensitive, name
        # What changes while Kafka runs may be fixed here, never the other way round.
        assert not (key.is_dynamic and theirs.is_read_only), name
    assert set(BROKER_CONFIGS) - set(brokers) <= {name for name in BROKER_CONFIGS if name.startswith("millstream.")} | {
        # Internal to Kafka, so it does not show them.
        "producer.id.expiration.check.interval.ms",
        "group.consumer.regex.refresh.interval.ms",
        # Kafka shows it only where it is set.
        "replica.alter.log.dirs.io.max.bytes.per.second",
    }
    assert not ACCEPTED & set(BROKER_CONFIGS)
    assert not REMOVED & set(brokers)
    assert set(brokers) >= PROTECTING


def describe(kafka: ApacheKafka) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return Kafka's configs of a fresh topic and of its broker."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic("effective-configs", 1, 1)])["effective-configs"].result(30)
    resources = [ConfigResource(ResourceType.TOPIC, "effective-configs"), ConfigResource(ResourceType.BROKER, "1")]
    topic, broker = (admin.describe_configs([resource])[resource].result(30) for resource in resources)
    return topic, broker


def test_every_config_has_a_sentence_of_its_own() -> None:
    for table in (TOPIC_CONFIGS, BROKER_CONFIGS):
        for key in table.values():
            assert key.doc[0].isupper() or key.doc.startswith("HOST"), key.name
            assert key.doc.endswith("."), key.name
            assert len(key.doc) > 20, key.name
        assert len({key.doc for key in table.values()}) == len(table)
