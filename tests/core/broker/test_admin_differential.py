"""The admin APIs against Apache Kafka 4.3: the same requests to both brokers, and the same answers.

Each story is a list of requests, every one of them in each version that both serve where it reads only, in the newest
where it changes something. Answers are compared whole, with error codes and messages, but for what must differ: topic
ids, paths, disk sizes, times, and the order of a response's items.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.core.broker.admin_requests import (
    credentials,
    elect,
    move,
    page,
    quotas,
    reassign,
    reassignments,
    resources,
    set_credentials,
    set_quota,
)
from tests.support.broker_thread import BrokerThread

from millstream.core.records import BatchBuilder
from millstream.core.wire import APIS, ZERO_UUID, ApiKey, ErrorCode
from millstream.core.wire.messages import (
    alter_configs,
    create_partitions,
    create_topics,
    delete_records,
    delete_topics,
    describe_cluster,
    describe_configs,
    describe_log_dirs,
    describe_producers,
    describe_topic_partitions,
    incremental_alter_configs,
)
from millstream.testing.kafka import ApacheKafka
from millstream.testing.raw import RawConnection

pytestmark = pytest.mark.java

TOPIC, BROKER, BROKER_LOGGER = 2, 4, 8
SET, DELETE, APPEND, SUBTRACT = range(4)
RANDOM_ID = bytes(range(16))
# Answered by brokers of Kafka that learn of a change some time after its controller has acknowledged it.
SETTLING = (
    describe_configs.DescribeConfigsRequest,
    describe_log_dirs.DescribeLogDirsRequest,
    describe_topic_partitions.DescribeTopicPartitionsRequest,
)
SETTLED_S_MAX = 60.0
UNHEARD_OF = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.NOT_LEADER_OR_FOLLOWER)


class Step(NamedTuple):
    """A request, and the versions to send it in (all, where it changes nothing)."""

    request: Any
    versions: tuple[int, ...]


class Produce(NamedTuple):
    """Not a request to compare: records that the next steps find."""

    topic: str
    partition: int
    record_count: int


@pytest.fixture(scope="module")
def millstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    # As the shared Kafka is configured.
    settings = {"num.partitions": "4", "message.max.bytes": "2097152", "node.id": "1"}
    with BrokerThread(tmp_path_factory.mktemp("admin") / "data", settings) as broker:
        yield broker


def newest(request: Any) -> Step:
    return Step(request, (APIS[ApiKey(request.__wire__.key)].version_max,))


def all_versions(request: Any) -> Step:
    return Step(request, tuple(APIS[ApiKey(request.__wire__.key)].versions))


def topic(
    name: str,
    partitions: int = 1,
    replication: int = 1,
    *,
    assignments: list[tuple[int, list[int]]] | None = None,
    **configs: str | None,
) -> create_topics.CreatableTopic:
    return create_topics.CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=replication,
        assignments=[
            create_topics.CreatableReplicaAssignment(partition_index=index, broker_ids=brokers)
            for index, brokers in assignments or ()
        ],
        configs=[
            create_topics.CreatableTopicConfig(name=key.replace("_", "."), value=value)
            for key, value in configs.items()
        ],
    )


def create(*topics: create_topics.CreatableTopic, validate_only: bool = False) -> Any:
    return create_topics.CreateTopicsRequest(topics=list(topics), timeout_ms=30_000, validate_only=validate_only)


def delete(*topics: tuple[str | None, bytes]) -> Any:
    states = [delete_topics.DeleteTopicState(name=name, topic_id=topic_id) for name, topic_id in topics]
    return delete_topics.DeleteTopicsRequest(topics=states, timeout_ms=30_000)


def delete_names(*names: str) -> Any:
    return delete_topics.DeleteTopicsRequest(topic_names=list(names), timeout_ms=30_000)


def grow(*topics: tuple[str, int, list[list[int]] | None], validate_only: bool = False) -> Any:
    return create_partitions.CreatePartitionsRequest(
        topics=[
            create_partitions.CreatePartitionsTopic(
                name=name,
                count=count,
                assignments=None
                if assignments is None
                else [create_partitions.CreatePartitionsAssignment(broker_ids=brokers) for brokers in assignments],
            )
            for name, count, assignments in topics
        ],
        timeout_ms=30_000,
        validate_only=validate_only,
    )


def delete_before(*topics: tuple[str, list[tuple[int, int]]]) -> Any:
    return delete_records.DeleteRecordsRequest(
        topics=[
            delete_records.DeleteRecordsTopic(
                name=name,
                partitions=[
                    delete_records.DeleteRecordsPartition(partition_index=index, offset=offset)
                    for index, offset in partitions
                ],
            )
            for name, partitions in topics
        ],
        timeout_ms=30_000,
    )


def describe(kind: int, name: str, keys: list[str] | None = None, *, synonyms: bool = True) -> Any:
    resource = describe_configs.DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=keys)
    return describe_configs.DescribeConfigsRequest(resources=[resource], include_synonyms=synonyms)


def alter(*resources: tuple[int, str, dict[str, str | None]], validate_only: bool = False) -> Any:
    return alter_configs.AlterConfigsRequest(
        resources=[
            alter_configs.AlterConfigsResource(
                resource_type=kind,
                resource_name=name,
                configs=[alter_configs.AlterableConfig(name=key, value=value) for key, value in configs.items()],
            )
            for kind, name, configs in resources
        ],
        validate_only=validate_only,
    )


def edit(*resources: tuple[int, str, list[tuple[str, int, str | None]]], validate_only: bool = False) -> Any:
    return incremental_alter_configs.IncrementalAlterConfigsRequest(
        resources=[
            incremental_alter_configs.AlterConfigsResource(
                resource_type=kind,
                resource_name=name,
                configs=[
                    incremental_alter_configs.AlterableConfig(name=key, config_operation=operation, value=value)
                    for key, operation, value in configs
                ],
            )
            for kind, name, configs in resources
        ],
        validate_only=validate_only,
    )


def log_dirs(topics: dict[str, list[int]] | None) -> Any:
    if topics is None:
        return describe_log_dirs.DescribeLogDirsRequest(topics=None)
    return describe_log_dirs.DescribeLogDirsRequest(
        topics=[
            describe_log_dirs.DescribableLogDirTopic(topic=name, partitions=partitions)
            for name, partitions in topics.items()
        ]
    )


def producers(**topics: list[int]) -> Any:
    return describe_producers.DescribeProducersRequest(
        topics=[
            describe_producers.TopicRequest(name=name, partition_indexes=indexes) for name, indexes in topics.items()
        ]
    )


def cluster(endpoint_type: int = 1, *, operations: bool = False) -> Any:
    return describe_cluster.DescribeClusterRequest(
        include_cluster_authorized_operations=operations, endpoint_type=endpoint_type
    )


def _tried_and_told(*configs: tuple[str, str]) -> Iterator[Step]:
    for name, value in configs:
        for resource in ("1", ""):
            yield newest(edit((BROKER, resource, [(name, SET, value)])))
            yield newest(describe(BROKER, resource, [name]))
            yield newest(edit((BROKER, resource, [(name, DELETE, None)])))


STORIES: dict[str, list[Step | Produce]] = {
    "create": [
        newest(create(topic("made", 3))),
        newest(create(topic("made", 3))),
        Step(create(topic("made-2", 1)), (2,)),
        Step(create(topic("made-3", 1)), (3,)),
        Step(create(topic("made-4", -1, -1)), (4,)),
        Step(create(topic("made-5", -1, -1, cleanup_policy="compact", retention_ms="1000")), (5,)),
        newest(create(topic("twice", 1), topic("twice", 2), topic("once", 1))),
        newest(create(topic("two.names"))),
        newest(create(topic("two_names"))),
    ],
    "create, validated only": [
        Step(create(topic("thought", 3, segment_bytes="2097152"), validate_only=True), (2, 4, 5, 7)),
        newest(describe(TOPIC, "thought")),
    ],
    "create, refused": [
        newest(create(request, validate_only=validate_only))
        for validate_only in (True, False)
        for request in (
            topic("none", 0),
            topic("wide", 1, 3),
            topic("narrow", 1, 0),
            topic(".."),
            topic("."),
            topic(""),
            topic("a b"),
            topic("q" * 250),
            topic("many", 20_000),
            topic("negative", -2),
            topic("negative", 1, -2),
            topic("__cluster_metadata"),
            topic("config", nope="1"),
            topic("config", retention_ms="abc"),
            topic("config", retention_ms=""),
            topic("config", retention_ms=None),
            topic("config", cleanup_policy="foo"),
            topic("config", segment_bytes="1"),
            topic("config", compression_type="zip"),
            topic("config", max_message_bytes="-1"),
            topic("config", min_cleanable_dirty_ratio="1.5"),
            topic("config", min_insync_replicas="0"),
            topic("config", message_timestamp_type="Never"),
            topic("config", preallocate="maybe"),
            topic("config", compression_gzip_level="99"),
            topic("config", remote_storage_enable="true"),
            topic("config", min_compaction_lag_ms="10", max_compaction_lag_ms="5"),
            topic("placed", 2, 1, assignments=[(0, [1])]),
            topic("placed", 2, -1, assignments=[(0, [1])]),
            topic("placed", -1, 1, assignments=[(0, [1])]),
            topic("placed", -1, -1, assignments=[(1, [1])]),
            topic("placed", -1, -1, assignments=[(0, [9])]),
            topic("placed", -1, -1, assignments=[(0, [1, 1])]),
            topic("placed", -1, -1, assignments=[(0, [])]),
            topic("placed", -1, -1, assignments=[(0, [1]), (0, [1])]),
        )
    ],
    "create, placed by hand": [
        newest(create(topic("by-hand", -1, -1, assignments=[(0, [1]), (1, [1])]))),
        newest(grow(("by-hand", 3, [[1]]))),
    ],
    "delete": [
        newest(create(topic("gone-1"), topic("gone-2"), topic("gone-3"), topic("gone-4"), topic("gone-5"))),
        Step(delete_names("gone-1", "never"), (1,)),
        Step(delete_names("gone-2", "never", "gone-3", "gone-3"), (5,)),
        newest(delete(("gone-4", ZERO_UUID))),
        newest(delete(("gone-4", ZERO_UUID))),
        newest(create(topic("gone-4", 2))),
        newest(delete((None, ZERO_UUID))),
        newest(delete((None, RANDOM_ID))),
        newest(delete(("gone-5", RANDOM_ID))),
        newest(delete(("gone-5", ZERO_UUID), ("gone-5", ZERO_UUID))),
        newest(delete(("..", ZERO_UUID))),
        newest(delete(("", ZERO_UUID))),
    ],
    "partitions": [
        newest(create(topic("grows", 3))),
        newest(grow(("grows", 5, None))),
        newest(grow(("grows", 5, None))),
        newest(grow(("grows", 4, None))),
        newest(grow(("grows", 0, None))),
        newest(grow(("grows", -1, None))),
        newest(grow(("never", 4, None))),
        newest(grow(("..", 4, None))),
        newest(grow(("grows", 7, [[1]]))),
        newest(grow(("grows", 6, [[9]]))),
        newest(grow(("grows", 6, [[]]))),
        newest(grow(("grows", 6, [[1, 1]]))),
        newest(grow(("grows", 6, []))),
        newest(grow(("grows", 6, None), ("grows", 7, None))),
        Step(grow(("grows", 50, None), validate_only=True), (0, 1, 2, 3)),
        Step(grow(("grows", 6, None)), (0,)),
        Step(grow(("grows", 7, None)), (1,)),
    ],
    "records": [
        newest(create(topic("shrinks", 2), topic("compacted", 1, cleanup_policy="compact"))),
        Produce("shrinks", 0, 10),
        newest(delete_before(("shrinks", [(0, 3), (1, 0)]))),
        newest(delete_before(("shrinks", [(0, 2)]))),
        newest(delete_before(("shrinks", [(0, 11)]))),
        newest(delete_before(("shrinks", [(0, -2)]))),
        newest(delete_before(("shrinks", [(99, 0)]), ("never", [(0, 0)]))),
        Step(delete_before(("shrinks", [(0, 5), (0, 6)])), (0, 1)),
        newest(delete_before(("shrinks", [(0, -1)]))),
        newest(delete_before(("", [(0, 0)]))),
        newest(delete_before(("compacted", [(0, 0)]))),
    ],
    "describe topic configs": [
        newest(create(topic("told", 1, cleanup_policy="compact", retention_ms="5000", max_message_bytes="1000"))),
        all_versions(describe(TOPIC, "told")),
        all_versions(describe(TOPIC, "told", ["cleanup.policy", "retention.ms", "nope"], synonyms=False)),
        all_versions(describe(TOPIC, "told", [])),
        all_versions(describe(TOPIC, "never")),
        all_versions(describe(TOPIC, "..")),
        all_versions(describe(TOPIC, "")),
    ],
    "describe broker configs": [
        all_versions(describe(BROKER, "1", ["log.retention.hours", "num.partitions", "message.max.bytes"])),
        newest(describe(BROKER, "1", ["log.retention.ms", "log.segment.bytes", "log.cleanup.policy", "nope"])),
        newest(describe(BROKER, "2")),
        newest(describe(BROKER, "abc")),
        newest(describe(BROKER_LOGGER, "")),
        newest(describe(BROKER_LOGGER, "7")),
        newest(describe(BROKER_LOGGER, "x")),
    ],
    "alter topic configs": [
        newest(create(topic("altered", 1, cleanup_policy="compact"))),
        newest(alter((TOPIC, "altered", {"retention.ms": "1000", "segment.bytes": "2000000"}))),
        newest(describe(TOPIC, "altered")),
        newest(alter((TOPIC, "altered", {"retention.ms": "x"}))),
        newest(alter((TOPIC, "altered", {"nope": "x"}))),
        newest(alter((TOPIC, "altered", {"retention.ms": None}))),
        newest(alter((TOPIC, "never", {}))),
        newest(alter((TOPIC, "", {}))),
        newest(alter((TOPIC, "..", {}))),
        newest(alter((77, "", {}))),
        newest(alter((BROKER_LOGGER, "1", {"root": "WARN"}))),
        newest(alter((TOPIC, "altered", {"retention.ms": "7"}), validate_only=True)),
        newest(describe(TOPIC, "altered", ["retention.ms", "segment.bytes", "cleanup.policy"])),
        Step(alter((TOPIC, "altered", {"retention.ms": "8"})), (0,)),
        Step(alter((TOPIC, "altered", {})), (1,)),
        newest(describe(TOPIC, "altered")),
    ],
    "edit topic configs": [
        newest(create(topic("edited", 1))),
        newest(edit((TOPIC, "edited", [("retention.ms", SET, "5000"), ("cleanup.policy", APPEND, "delete")]))),
        newest(edit((TOPIC, "edited", [("cleanup.policy", APPEND, "compact")]))),
        newest(describe(TOPIC, "edited", ["cleanup.policy", "retention.ms"])),
        newest(edit((TOPIC, "edited", [("cleanup.policy", SUBTRACT, "delete")]))),
        newest(describe(TOPIC, "edited", ["cleanup.policy"])),
        newest(edit((TOPIC, "edited", [("cleanup.policy", DELETE, None), ("retention.ms", DELETE, None)]))),
        newest(edit((TOPIC, "edited", [("cleanup.policy", SUBTRACT, "delete")]))),
        newest(describe(TOPIC, "edited")),
        newest(edit((TOPIC, "edited", [("leader.replication.throttled.replicas", APPEND, "0:1")]))),
        newest(edit((TOPIC, "edited", [("leader.replication.throttled.replicas", APPEND, "1:1,0:1")]))),
        newest(describe(TOPIC, "edited", ["leader.replication.throttled.replicas"])),
        newest(edit((TOPIC, "edited", [("retention.ms", APPEND, "1")]))),
        newest(edit((TOPIC, "edited", [("retention.ms", SUBTRACT, "1")]))),
        newest(edit((TOPIC, "edited", [("nope", DELETE, None)]))),
        newest(edit((TOPIC, "edited", [("nope", SET, "1")]))),
        newest(edit((TOPIC, "edited", [("nope", APPEND, "1")]))),
        newest(edit((TOPIC, "edited", [("retention.ms", SET, None)]))),
        newest(edit((TOPIC, "edited", [("cleanup.policy", APPEND, None)]))),
        newest(edit((TOPIC, "edited", [("retention.ms", SET, "1"), ("retention.ms", DELETE, None)]))),
        newest(edit((TOPIC, "edited", [("retention.ms", SET, "1")]), (TOPIC, "edited", [("retention.ms", SET, "2")]))),
        newest(edit((TOPIC, "never", [("retention.ms", SET, "1")]), (TOPIC, "edited", [("retention.ms", SET, "9")]))),
        newest(edit((TOPIC, "edited", [("retention.ms", SET, "")]))),
        Step(edit((TOPIC, "edited", [("retention.ms", SET, "77")]), validate_only=True), (0, 1)),
        Step(edit((TOPIC, "edited", [("segment.ms", SET, "78")])), (0,)),
        newest(describe(TOPIC, "edited")),
    ],
    "broker configs": [
        newest(create(topic("inherits", 1))),
        newest(edit((BROKER, "1", [("log.retention.ms", SET, "777777")]))),
        newest(edit((BROKER, "", [("log.retention.ms", SET, "888888")]))),
        newest(describe(BROKER, "1", ["log.retention.ms"])),
        newest(describe(BROKER, "", ["log.retention.ms"])),
        newest(describe(TOPIC, "inherits", ["retention.ms"])),
        newest(edit((BROKER, "1", [("log.retention.ms", DELETE, None)]))),
        newest(describe(TOPIC, "inherits", ["retention.ms"])),
        newest(edit((BROKER, "", [("log.retention.ms", DELETE, None)]))),
        newest(describe(TOPIC, "inherits", ["retention.ms"])),
        newest(edit((BROKER, "1", [("log.retention.ms", SET, "x")]))),
        newest(edit((BROKER, "1", [("message.max.bytes", SET, "x")]))),
        newest(edit((BROKER, "1", [("node.id", SET, "2")]))),
        newest(edit((BROKER, "2", [("log.retention.ms", SET, "1")]))),
        newest(edit((BROKER, "x", [("log.retention.ms", SET, "1")]))),
        newest(edit((BROKER, "1", [("log.retention.ms", SET, "1")]), validate_only=True)),
        newest(edit((BROKER, "1", [("unknown.thing", SET, "2")]))),
        newest(describe(BROKER, "1", ["unknown.thing"])),
        newest(edit((BROKER, "1", [("unknown.thing", DELETE, None)]))),
        newest(edit((BROKER_LOGGER, "1", [("no.such.logger", SET, "DEBUG")]))),
        newest(edit((BROKER_LOGGER, "1", [("root", APPEND, "DEBUG")]))),
        newest(edit((BROKER_LOGGER, "", [("root", SET, "DEBUG")]))),
        newest(alter((BROKER, "1", {"log.retention.ms": "1000000"}))),
        newest(alter((BROKER, "1", {"node.id": "2"}))),
        newest(alter((BROKER, "1", {}))),
    ],
    # A step is refused by the value in force, and Kafka puts a change in force a moment after telling it: so refusals
    # come first, and what is taken of a config is taken whether the change before it is in force or not.
    "broker configs that change while it runs": [
        *_tried_and_told(
            ("max.connections", "100"),
            ("max.connections.per.ip", "x"),
            ("log.cleaner.threads", "5"),
            ("log.cleaner.dedupe.buffer.size", "1"),
            ("log.cleaner.io.max.bytes.per.second", "x"),
            ("num.recovery.threads.per.data.dir", "5"),
            ("log.retention.ms", "0"),
            ("log.segment.bytes", "1"),
            ("compression.type", "zip"),
            ("log.cleaner.threads", "2"),
            ("num.recovery.threads.per.data.dir", "3"),
        ),
        # Kafka does not show the first before it is set, and the others do nothing here.
        *(
            newest(edit((BROKER, resource, [(name, operation, value)])))
            for name, value in (
                ("replica.alter.log.dirs.io.max.bytes.per.second", "1000"),
                ("replica.alter.log.dirs.io.max.bytes.per.second", "-1"),
                ("num.replica.fetchers", "3"),
                ("num.replica.fetchers", "2"),
                ("num.io.threads", "3"),
                ("num.io.threads", "17"),
                ("num.io.threads", "x"),
                ("num.io.threads", "0"),
                ("num.io.threads", "4"),
                ("num.network.threads", "7"),  # fewer of them, and Kafka closes connections
                ("background.threads", "21"),
                ("background.threads", "5"),
            )
            for resource in ("1", "")
            for operation in (SET, DELETE)
        ),
    ],
    "broker configs that need a restart": [
        newest(edit((BROKER, resource, [(name, SET, "1")])))
        for name in (
            *("num.partitions", "auto.create.topics.enable", "log.dirs", "advertised.listeners"),
            *("log.retention.hours", "log.roll.hours", "controller.quorum.voters", "connections.max.idle.ms"),
            *("queued.max.requests", "fetch.max.bytes", "num.replica.alter.log.dirs.threads", "log.cleaner.enable"),
        )
        for resource in ("1", "")
    ],
    "log directories": [
        newest(create(topic("stored", 3))),
        Produce("stored", 0, 10),
        all_versions(log_dirs({"stored": [0, 1, 99], "never": [0]})),
        all_versions(log_dirs({})),
    ],
    "producers": [
        newest(create(topic("written", 2))),
        Produce("written", 1, 3),
        newest(producers(written=[0, 1, 99], never=[0])),
    ],
    "elections": [
        newest(create(topic("elected", 3))),
        all_versions(elect(0, [("elected", [0, 1])])),
        all_versions(elect(0, [("never", [0]), ("elected", [9, -1]), ("", [0])])),
        newest(elect(1, [("elected", [0, 0])])),
        newest(elect(7, [("elected", [0])])),
        newest(elect(0, [("elected", [])])),
        newest(elect(0, [])),
    ],
    "reassignments": [
        newest(create(topic("stays", 3))),
        newest(reassign(("stays", [(0, [1]), (1, None), (2, [2])]))),
        newest(reassign(("stays", [(9, [1]), (-1, [1]), (0, []), (1, [1, 1]), (2, [2, 2])]))),
        newest(reassign(("stays", [(0, [1, 2]), (1, [-1])]), ("never", [(0, [1]), (1, None)]), ("", [(0, [1])]))),
        newest(reassign(("stays", []))),
        newest(reassignments(None)),
        newest(reassignments([("stays", [0, 9]), ("never", [0])])),
    ],
    "pages of partitions": [
        newest(create(topic("page-a", 3), topic("page-b", 2))),
        newest(page("page-a")),
        newest(page("page-b", "never", "page-a", "page-a", "a b")),
        newest(page("page-a", "page-b", limit=2)),
        newest(page("page-a", "page-b", limit=2, cursor=("page-a", 2))),
        newest(page("page-a", "page-b", limit=3)),
        newest(page("page-a", "page-b", cursor=("page-a", 9))),
        newest(page("page-a", cursor=("page-b", 0))),
        newest(page("page-a", "page-b", cursor=("never", 0))),
        newest(page("page-a", "page-b", cursor=("page-a", -1))),
        newest(page("page-a", limit=0)),
        newest(page("page-a", limit=-1)),
        newest(page("never", "page-b", limit=1)),
        newest(page("page-a", "zzz", limit=3)),
        newest(page("page-a", "zzz", limit=2, cursor=("zzz", 0))),
    ],
    "config resources": [
        Step(resources(), (0,)),
        *(newest(resources(*kinds)) for kinds in ((16,), (4,), (8,), (4, 8, 16), (4, 4), (0,), (1,), (99,), (99, 4))),
    ],
    "quotas": [
        all_versions(quotas()),
        *(
            newest(quotas(*components))
            for components in (
                [("user", 0, "a")],
                [("user", 1, None), ("client-id", 2, None)],
                [("ip", 0, "127.0.0.1")],
                [("nope", 0, "a")],
                [("", 0, "a")],
                [("user", 9, "a")],
                [("user", 0, None)],
                [("user", 1, "x")],
                [("client-id", 2, "x")],
                [("user", 0, "a"), ("ip", 2, None)],
                [("user", 0, "a"), ("user", 0, "b")],
                [("user", 0, None), ("", 0, "b")],
            )
        ),
        all_versions(set_quota(("user", "a"), remove=True)),
        newest(set_quota()),
        newest(set_quota(("nope", "a"))),
        newest(quotas()),
    ],
    "SCRAM credentials": [
        newest(credentials(None)),
        newest(credentials([])),
        newest(credentials(["a", "a", "b", ""])),
        newest(set_credentials()),
        newest(set_credentials(deletions=[("a", 1), ("", 1), ("b", 9)])),
        newest(set_credentials(upsertions=[("a", 9, 4096), ("b", 1, 1), ("", 1, 4096), ("c", 2, 20_000)])),
        newest(credentials(None)),
    ],
    "moves that are refused": [
        newest(create(topic("unmoved", 2))),
        all_versions(move(("/nowhere", [("unmoved", [0, 1])]))),
        all_versions(move(("relative", [("unmoved", [0])]), ("", [("unmoved", [1])]))),
        all_versions(move()),
        all_versions(move(("/nowhere", [("unmoved", [])]))),
        all_versions(move(("/nowhere", [("never", [0]), ("unmoved", [9, -1])]))),
    ],
    "cluster": [
        all_versions(cluster()),
        all_versions(cluster(operations=True)),
        newest(cluster(2)),
        newest(cluster(7)),
    ],
}


@pytest.mark.parametrize("story", STORIES)
def test_both_brokers_answer_the_same(story: str, millstream: BrokerThread, apache_kafka: ApacheKafka) -> None:
    found: list[str] = []
    with (
        RawConnection(apache_kafka.bootstrap_servers) as kafka,
        RawConnection(millstream.bootstrap_servers) as ours,
    ):
        for number, step in enumerate(STORIES[story]):
            if isinstance(step, Produce):
                for raw in (kafka, ours):
                    _produce(raw, step)
                continue
            for version in step.versions:
                differing = compare(kafka, ours, step.request, version)
                if isinstance(step.request, SETTLING):
                    deadline = time.monotonic() + SETTLED_S_MAX
                    while differing and time.monotonic() < deadline:
                        differing = compare(kafka, ours, step.request, version)
                if differing:
                    found.append(f"step {number}, version {version}: {step.request}")
                    found += [f"    {each}" for each in differing]
    assert not found, "\n".join(["ours != Kafka's", *found])


def compare(kafka: RawConnection, ours: RawConnection, request: Any, version: int) -> list[str]:
    """Send a request to both and say where the answers differ."""
    expected = normal(kafka.call(request, version))
    given = normal(ours.call(request, version))
    for theirs, mine in _with_configs(expected, given):
        _keep_shared(theirs, mine)
    return differences(given, expected)


def differences(given: Any, expected: Any, path: str = "") -> list[str]:
    """Where two answers differ, one line each."""
    if isinstance(given, dict) and isinstance(expected, dict) and given.keys() == expected.keys():
        return [line for name in given for line in differences(given[name], expected[name], f"{path}.{name}")]
    if isinstance(given, list) and isinstance(expected, list) and len(given) == len(expected):
        pairs = enumerate(zip(given, expected, strict=True))
        return [line for index, pair in pairs for line in differences(*pair, f"{path}[{index}]")]
    return [] if given == expected else [f"{path}: {given!r} != {expected!r}"]


def _with_configs(expected: Any, given: Any) -> list[tuple[Any, Any]]:
    """The pairs of results that hold configs; none where one answer has more results, which `differences` says."""
    pairs: list[tuple[Any, Any]] = []
    for name in ("results", "topics"):
        theirs, ours = expected.get(name, ()), given.get(name, ())
        if len(theirs) == len(ours):
            pairs += zip(theirs, ours, strict=True)
    return [(theirs, ours) for theirs, ours in pairs if theirs.get("configs") and ours.get("configs")]


def _produce(raw: RawConnection, step: Produce) -> None:
    producer_id = raw.new_producer_id()
    builder = BatchBuilder(producer_id=producer_id, producer_epoch=0, base_sequence=0)
    for _ in range(step.record_count):
        builder.append(1_700_000_000_000, None, b"x" * 100)
    batch, deadline = builder.build(), time.monotonic() + SETTLED_S_MAX
    # Refused as a whole while the broker has not heard of the new topic, so another try doubles nothing.
    while (code := raw.produce(step.topic, step.partition, batch).error_code) in UNHEARD_OF:
        assert time.monotonic() < deadline, f"{step.topic} is not there after {SETTLED_S_MAX} s"
    assert code == 0


# What differs between any two brokers.
_MASKED = {"topic_id", "log_dir", "total_bytes", "usable_bytes", "last_timestamp", "producer_id", "port", "cluster_id"}
# Kafka's own documentation is not ours.
_LEFT_OUT = {"documentation", "throttle_time_ms"}
# Where our words say what is so here: nothing is cordoned, and there is no tiered storage to be switched on.
_OWN_WORDS = (
    (re.compile(" or some brokers have all their log directories cordoned"), ""),
    (re.compile(".*[Tt]iered [Ss]torage.*"), "no tiered storage"),
)
# Kafka keeps this one as a dynamic default of the cluster, for its eligible leader replicas (KIP-966).
_OWN_WAYS = {"min.insync.replicas"}


def normal(message: Any) -> Any:
    """A message as dictionaries and lists, without what must differ; items of a response in a fixed order."""
    if isinstance(message, list):
        items = [normal(item) for item in message]
        return sorted(items, key=repr) if items and isinstance(items[0], dict) else items
    fields = getattr(message, "__wire__", None)
    if fields is None:
        return message
    result = {}
    for field in fields.fields:
        value = getattr(message, field.name)
        if field.name in _LEFT_OUT:
            continue
        if field.name in _MASKED and value:
            value = "masked" if not isinstance(value, int) or value > 0 else value
        if field.name == "error_message" and value:
            for pattern, words in _OWN_WORDS:
                value = pattern.sub(words, value)
        result[field.name] = normal(value)
    return result


def _keep_shared(theirs: Any, ours: Any) -> None:
    """Leave the configs that both have; of a topic we have all of Kafka's, and what is ours alone is named so."""
    known = {config["name"] for config in theirs["configs"]}
    own = {config["name"] for config in ours["configs"]}
    assert {name for name in own - known if not name.startswith("millstream.")} == set()
    if theirs.get("resource_type", TOPIC) == TOPIC:
        assert known - own == set()
    for result in (theirs, ours):
        result["configs"] = [
            config for config in result["configs"] if config["name"] in known & own and config["name"] not in _OWN_WAYS
        ]


def test_documentation_is_our_own(millstream: BrokerThread, tmp_path: Path) -> None:
    with RawConnection(millstream.bootstrap_servers) as ours:
        request = describe(BROKER, "1")
        request.include_documentation = True
        (result,) = ours.call(request).results
        assert len(result.configs) > 50
        assert all(config.documentation for config in result.configs)
