"""The tables do not lie: what is said to be acted on is, what is not says so, what may change while running does."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import millstream
from millstream.core.config import BROKER_CONFIGS, TOPIC_CONFIGS, BrokerConfig, ConfigError
from millstream.core.config.accepted_configs import ACCEPTED
from millstream.core.log import LogConfig

SOURCES = {path: path.read_text() for path in Path(millstream.__file__).parent.rglob("*.py")}
OUTSIDE = "\n".join(text for path, text in SOURCES.items() if "core/config/" not in path.as_posix())
# These become attributes of BrokerConfig, which others read.
ATTRIBUTES = {
    "auto.create.topics.enable": "auto_create_topics_enable",
    "broker.id": "node_id",
    "broker.rack": "rack",
    "default.replication.factor": "default_replication_factor",
    "listener.security.protocol.map": "listeners",
    "controller.listener.names": "listeners",
    "listeners": "listeners",
    "advertised.listeners": "advertised_listeners",
    "log.dir": "log_dirs",
    "log.dirs": "log_dirs",
    "max.connections.per.ip.overrides": "max_connections_per_ip_overrides",
    "node.id": "node_id",
    "num.partitions": "num_partitions",
    "queued.max.request.bytes": "queued_request_size_bytes_max",
    "socket.request.max.bytes": "request_size_bytes_max",
}
NO_EFFECT = "has no effect"
# Accepted at one value alone, and that is in its documentation.
FIXED = {"remote.storage.enable"}


def is_obeyed_by_logs(topic_config: str) -> bool:
    """Whether the log or the broker reads what LogConfig makes of a topic's config."""
    name = topic_config.removeprefix("millstream.").replace(".", "_")
    name = "compression_level" if re.fullmatch(r"compression_\w+_level", name) else name
    if name not in {field.name for field in fields(LogConfig)}:
        return False
    # `rules()` hands a field on to the append path.
    return re.search(rf"\b(config|self|limits)\.{name}\b", OUTSIDE) is not None


@pytest.mark.parametrize("name", list(TOPIC_CONFIGS))
def test_a_topic_config_is_obeyed_or_says_that_it_is_not(name: str) -> None:
    obeyed = is_obeyed_by_logs(name) and name not in {"preallocate", "unclean.leader.election.enable"}
    assert obeyed != (NO_EFFECT in TOPIC_CONFIGS[name].doc or name in FIXED)


@pytest.mark.parametrize("name", list(BROKER_CONFIGS))
def test_a_broker_config_is_obeyed(name: str) -> None:
    assert name not in ACCEPTED
    if any(synonym.name == name for key in TOPIC_CONFIGS.values() for synonym in key.synonyms):
        return  # a topic's config under the broker's name; the test above looks at it
    attribute = ATTRIBUTES.get(name)
    used = rf"\bconfig\.{attribute}\b" if attribute is not None else re.escape(f'"{name}"')
    assert re.search(used, OUTSIDE), f"nothing outside core/config reads {name}"


def test_what_may_change_while_running_is_read_while_running() -> None:
    """A dynamic config is a topic's default, which the metadata applier reads anew, or is read by one of these."""
    readers = {
        "group.consumer.assignment.interval.ms": "coordinators.py",
        "log.cleaner.backoff.ms": "log_cleaning.py",
        "log.cleaner.dedupe.buffer.size": "log_cleaning.py",
        "log.cleaner.io.buffer.load.factor": "log_cleaning.py",
        "log.cleaner.io.buffer.size": "log_cleaning.py",
        "log.cleaner.io.max.bytes.per.second": "log_cleaning.py",
        "log.cleaner.threads": "log_cleaning.py",
        "max.connections": "connections.py",
        "max.connections.per.ip": "connections.py",
        "max.connections.per.ip.overrides": "connections.py",
        "millstream.disk.free.min.bytes": "control_plane.py",
        "millstream.loop.lag.threshold.ms": "control_plane.py",
        "num.recovery.threads.per.data.dir": "startup.py",
        "producer.id.expiration.ms": "log_tasks.py",
        "replica.alter.log.dirs.io.max.bytes.per.second": "control_plane.py",
    }
    defaults = {synonym.name for key in TOPIC_CONFIGS.values() for synonym in key.synonyms}
    dynamic = {key.name for key in BROKER_CONFIGS.values() if key.is_dynamic}
    assert dynamic - defaults == set(readers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max.connections.per.ip.overrides", "localhost:5"),
        ("max.connections.per.ip.overrides", "127.0.0.1:-5"),
        ("log.retention.ms", "0"),
        ("log.retention.hours", "0"),
        ("log.roll.ms", "0"),
        ("log.flush.interval.ms", "-1"),
        ("millstream.http.listener", "9404"),
        ("millstream.http.listener", "::1:9404"),
    ],
)
def test_a_value_that_would_only_fail_later_is_refused_at_once(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^command line: Invalid value {value} for configuration {name}: "):
        BrokerConfig.load(None, {name: value})


def test_a_stored_value_that_was_valid_once_does_not_stop_the_start() -> None:
    config = BrokerConfig.load(None, {"max.connections.per.ip.overrides": "127.0.0.1:3"})
    after = config.with_dynamic({"": {"max.connections.per.ip.overrides": "somewhere:9", "max.connections": "7"}})
    assert (after.max_connections_per_ip_overrides, after["max.connections"]) == ({"127.0.0.1": 3}, 7)
