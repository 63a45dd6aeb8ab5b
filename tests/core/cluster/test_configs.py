"""Planning config changes: single ones, whole sets, lists, brokers; in Kafka's words."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.metadata_store_kit import topic

from millstream.core.cluster import AlterBrokerConfigs, AlterTopicConfigs, ClusterImage, CreateTopic
from millstream.core.cluster.configs import (
    AlterOperation,
    ConfigChange,
    ResourceType,
    plan_alter_configs,
    plan_incremental_alter_configs,
)
from millstream.core.config import BrokerConfig
from millstream.core.wire import ErrorCode, KafkaError

SET, DELETE, APPEND, SUBTRACT = AlterOperation
TOPIC, BROKER = ResourceType.TOPIC, ResourceType.BROKER
Change = tuple[int, str, str | None]


@pytest.fixture
def image() -> ClusterImage:
    """Return an image with a topic that has settings, and broker 1 with a dynamic one."""
    created = CreateTopic(topic("t", retention_ms="5", cleanup_policy="compact,delete"))
    return ClusterImage().apply(1, [created, AlterBrokerConfigs("1", {"log.retention.ms": "7"})])


def incremental(image: ClusterImage, kind: int, name: str, *changes: Change) -> ClusterImage:
    """Return the image after the changes, given as (operation, config, value)."""
    wanted = [ConfigChange(config, operation, value) for operation, config, value in changes]
    return image.apply(2, plan_incremental_alter_configs(image, kind, name, wanted, node_id=1))


@pytest.mark.parametrize(
    ("changes", "policy"),
    [
        ([(APPEND, "cleanup.policy", "compact")], "compact,delete"),
        ([(SUBTRACT, "cleanup.policy", "delete")], "compact"),
        ([(SUBTRACT, "cleanup.policy", "delete, compact")], ""),
        ([(DELETE, "cleanup.policy", None)], None),
        ([(DELETE, "unheard.of", "")], "compact,delete"),
        ([(SET, "cleanup.policy", "delete")], "delete"),
        ([], "compact,delete"),
    ],
)
def test_a_topics_list(image: ClusterImage, changes: list[Change], policy: str | None) -> None:
    after = incremental(image, TOPIC, "t", *changes)
    assert after.topics["t"].configs.get("cleanup.policy") == policy
    assert after.topics["t"].configs["retention.ms"] == "5"


def test_append_starts_at_the_default(image: ClusterImage) -> None:
    after = incremental(image, TOPIC, "t", (DELETE, "cleanup.policy", None))
    after = incremental(after, TOPIC, "t", (APPEND, "cleanup.policy", "compact"))
    assert after.topics["t"].configs["cleanup.policy"] == "delete,compact"


def test_what_changes_nothing_commits_nothing(image: ClusterImage) -> None:
    same = [ConfigChange("retention.ms", SET, "5"), ConfigChange("cleanup.policy", APPEND, "delete")]
    assert plan_incremental_alter_configs(image, TOPIC, "t", same, node_id=1) == []


def test_alter_configs_replaces_all_of_a_resource(image: ClusterImage) -> None:
    plan = plan_alter_configs(image, TOPIC, "t", [("segment.ms", "9")], node_id=1)
    assert plan == [
        AlterTopicConfigs(topic("t").topic_id, {"retention.ms": None, "cleanup.policy": None, "segment.ms": "9"})
    ]
    plan = plan_alter_configs(image, BROKER, "1", [], node_id=1)
    assert plan == [AlterBrokerConfigs("1", {"log.retention.ms": None})]


def test_broker_configs_of_one_and_of_all(image: ClusterImage) -> None:
    after = incremental(image, BROKER, "", (SET, "log.retention.ms", "8"), (SET, "unheard.of", "x"))
    after = incremental(after, BROKER, "1", (DELETE, "log.retention.ms", None))
    assert after.broker_configs == {"": {"log.retention.ms": "8", "unheard.of": "x"}}


INVALID = ErrorCode.INVALID_REQUEST
CONFIG = ErrorCode.INVALID_CONFIG


@pytest.mark.parametrize(
    ("kind", "name", "changes", "code", "message"),
    [
        (
            TOPIC,
            "t",
            [(APPEND, "retention.ms", "5")],
            CONFIG,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (TOPIC, "t", [(SUBTRACT, "foo", "5")], CONFIG, "Can't SUBTRACT to key foo because its type is not LIST."),
        (
            TOPIC,
            "t",
            [(SET, "retention.ms", "x")],
            CONFIG,
            "Invalid value x for configuration retention.ms: Not a number of type LONG",
        ),
        (TOPIC, "t", [(SET, "foo", "x")], CONFIG, "Unknown topic config name: foo"),
        (TOPIC, "t", [(SET, "", "x")], CONFIG, "Unknown topic config name: "),
        (TOPIC, "t", [(SET, "retention.ms", None)], INVALID, "Null value not supported for : retention.ms"),
        (
            TOPIC,
            "t",
            [(SET, "retention.ms", "5"), (DELETE, "retention.ms", "")],
            INVALID,
            "Error due to duplicate config keys",
        ),
        (TOPIC, "t", [(7, "retention.ms", "5")], INVALID, "Unknown operations type 7"),
        (
            TOPIC,
            "t",
            [(SET, "min.compaction.lag.ms", "9"), (SET, "max.compaction.lag.ms", "5")],
            CONFIG,
            "conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (5)",
        ),
        (
            TOPIC,
            "none",
            [(SET, "retention.ms", "5")],
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            "The topic 'none' does not exist.",
        ),
        (TOPIC, "", [(SET, "retention.ms", "5")], INVALID, "Default topic resources are not allowed."),
        (
            TOPIC,
            "..",
            [(SET, "retention.ms", "5")],
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            "Topic name is invalid: '..' is not allowed",
        ),
        (
            BROKER,
            "1",
            [(SET, "num.partitions", "5")],
            INVALID,
            "Cannot update these configs dynamically: [num.partitions]",
        ),
        (
            BROKER,
            "",
            [(SET, "log.retention.hours", "5")],
            INVALID,
            "Cannot update these configs dynamically: [log.retention.hours]",
        ),
        (
            BROKER,
            "1",
            [(SET, "log.segment.bytes", "5")],
            INVALID,
            "Invalid value 5 for configuration log.segment.bytes: Value must be at least 1048576",
        ),
        (BROKER, "7", [(SET, "log.retention.ms", "5")], INVALID, "Unexpected broker id, expected 1, but received 7"),
        (BROKER, "x", [(SET, "log.retention.ms", "5")], INVALID, "Node id must be an integer, but it is: x"),
        (ResourceType.GROUP, "", [], INVALID, "Default group resources are not allowed."),
        (3, "x", [], INVALID, "Unknown resource type 3"),
    ],
)
def test_what_is_refused(
    image: ClusterImage, kind: int, name: str, changes: list[Change], code: ErrorCode, message: str
) -> None:
    with pytest.raises(KafkaError) as raised:
        incremental(image, kind, name, *changes)
    assert (raised.value.code, raised.value.message) == (code, message)


GROUP_LIMITS = BrokerConfig.load(None, {"group.consumer.max.heartbeat.interval.ms": "55000"})


def group_plan(image: ClusterImage, *changes: Change) -> ClusterImage:
    wanted = [ConfigChange(config, operation, value) for operation, config, value in changes]
    plan = plan_incremental_alter_configs(image, ResourceType.GROUP, "g", wanted, node_id=1, broker_config=GROUP_LIMITS)
    return image.apply(image.version + 1, plan)


def test_a_groups_configs_come_and_go(image: ClusterImage) -> None:
    after = group_plan(image, (SET, "consumer.session.timeout.ms", "50000"))
    assert after.group_configs == {"g": {"consumer.session.timeout.ms": "50000"}}
    assert group_plan(after, (DELETE, "consumer.session.timeout.ms", None)).group_configs == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([(SET, "nope", "1")], "Unknown group config name: nope"),
        (
            [(SET, "consumer.session.timeout.ms", "10")],
            "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
        ),
        (
            [(SET, "consumer.session.timeout.ms", "60001")],
            "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms",
        ),
        (
            [(SET, "consumer.session.timeout.ms", "0")],
            "Invalid value 0 for configuration consumer.session.timeout.ms: Value must be at least 1",
        ),
        (
            [(SET, "consumer.heartbeat.interval.ms", "50000")],
            "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms",
        ),
        (
            [(APPEND, "consumer.session.timeout.ms", "50000")],
            "Can't APPEND to key consumer.session.timeout.ms because its type is not LIST.",
        ),
    ],
)
def test_what_is_refused_of_a_group(image: ClusterImage, changes: list[Change], message: str) -> None:
    with pytest.raises(KafkaError) as raised:
        group_plan(image, *changes)
    assert (raised.value.code, raised.value.message) == (ErrorCode.INVALID_CONFIG, message)


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ([("retention.ms", None)], "Null value not supported for : retention.ms"),
        ([("retention.ms", "1"), ("retention.ms", "2")], "Error due to duplicate config keys"),
    ],
)
def test_alter_configs_refuses(image: ClusterImage, configs: Any, message: str) -> None:
    with pytest.raises(KafkaError, match=message):
        plan_alter_configs(image, TOPIC, "t", configs, node_id=1)


def test_a_stored_config_of_another_program_does_not_stand_in_the_way() -> None:
    image = ClusterImage().apply(1, [CreateTopic(topic("t", from_the_future="1"))])
    after = incremental(image, TOPIC, "t", (SET, "retention.ms", "5"))
    assert after.topics["t"].configs == {"from.the.future": "1", "retention.ms": "5"}
