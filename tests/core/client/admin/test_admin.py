"""Every call of the admin client, against Millstream and against Apache Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from millstream.core.client import (
    EARLIEST,
    LATEST,
    CommittedOffset,
    ConfigChange,
    ConfigResource,
    ConfigResourceType,
    ConfigSource,
    GroupType,
    NewTopic,
    TopicPartition,
)
from millstream.core.client.admin import (
    ADMIN_APIS,
    ANY,
    Admin,
    NewPartitions,
    QuotaEntity,
    Replica,
    ScramCredential,
    ScramDeletion,
    ScramMechanism,
    ScramPassword,
)
from millstream.core.client.blocking.admin import Admin as BlockingAdmin
from millstream.core.client.connections import BrokerConnection
from millstream.core.client.consumer import Consumer
from millstream.core.client.producer import Producer
from millstream.core.config import ConfigError
from millstream.core.wire import ApiKey, ErrorCode, KafkaError
from millstream.testing.kafka import free_ports

# What producers, consumers and members of groups send, and no admin client.
NOT_ADMIN = {
    ApiKey.PRODUCE,
    ApiKey.FETCH,
    ApiKey.JOIN_GROUP,
    ApiKey.SYNC_GROUP,
    ApiKey.HEARTBEAT,
    ApiKey.CONSUMER_GROUP_HEARTBEAT,
    ApiKey.INIT_PRODUCER_ID,
    ApiKey.OFFSET_FOR_LEADER_EPOCH,
    ApiKey.API_VERSIONS,
    ApiKey.SASL_HANDSHAKE,
    ApiKey.SASL_AUTHENTICATE,
}


@pytest.fixture
async def admin(bootstrap: str) -> AsyncIterator[Admin]:
    async with Admin(bootstrap, default_api_timeout_ms=90_000) as connected:
        yield connected


@pytest.fixture
async def topic(admin: Admin, topic_name: Callable[[], str]) -> str:
    """A topic of three partitions that are served."""
    name = topic_name()
    await admin.create_topic(name, 3)
    await served(admin, name, 3)
    return name


async def served(admin: Admin, name: str, count: int) -> None:
    """Wait until brokers have heard of what the controller knows."""
    tps = [TopicPartition(name, index) for index in range(count)]

    async def is_served() -> bool:
        found = await admin.list_offsets(dict.fromkeys(tps, EARLIEST))
        return not any(isinstance(one, KafkaError) for one in found.values())

    await eventually(is_served)


async def eventually(condition: Callable[[], Awaitable[bool]], deadline_s: float = 90) -> None:
    async with asyncio.timeout(deadline_s):
        while not await condition():  # noqa: ASYNC110  another process decides when
            await asyncio.sleep(0.02)


async def write(bootstrap: str, tp: TopicPartition, count: int) -> None:
    async with Producer(bootstrap) as producer:
        for index in range(count):
            await producer.send_soon(tp.topic, b"%d" % index, partition=tp.partition)


def code(result: object) -> ErrorCode:
    assert isinstance(result, KafkaError), result
    return result.code


async def test_topics_are_created_described_grown_and_deleted(admin: Admin, topic_name: Callable[[], str]) -> None:
    first, second, absent = topic_name(), topic_name(), topic_name()
    assert await admin.create_topics([NewTopic(first, 2)], validate_only=True) == {first: None}
    created = await admin.create_topics([NewTopic(first, 2, configs={"retention.ms": "60000"}), second])
    assert created == {first: None, second: None}
    assert code((await admin.create_topics([first]))[first]) is ErrorCode.TOPIC_ALREADY_EXISTS
    with pytest.raises(KafkaError, match=first):
        await admin.create_topic(first)
    await served(admin, first, 2)
    assert await admin.create_partitions({first: 3, absent: 3}, validate_only=True) | {absent: None} == {
        first: None,
        absent: None,
    }
    results = await admin.create_partitions({first: NewPartitions(4), absent: 3})
    assert results[first] is None
    assert code(results[absent]) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    await served(admin, first, 4)

    described = await admin.describe_topics([first, absent])
    assert code(described[absent]) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    whole = described[first]
    assert not isinstance(whole, KafkaError)
    assert [one.partition for one in whole.partitions] == [0, 1, 2, 3]
    assert all(one.leader in one.replicas and one.leader in one.isr for one in whole.partitions)
    assert repr(whole).startswith(f"<TopicDescription '{first}', 4 partitions, id ")
    assert (await admin.list_topics())[first].topic_id == whole.topic_id
    with pytest.raises(KafkaError, match="there is no topic"):
        await admin.describe_topic(absent)

    deleted = await admin.delete_topics([first, absent])
    assert deleted[first] is None
    assert code(deleted[absent]) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    await admin.delete_topic(second)

    async def is_gone() -> bool:
        return first not in await admin.list_topics()

    await eventually(is_gone)


async def test_pages_of_partitions_make_one_description(admin: Admin, topic_name: Callable[[], str]) -> None:
    names = sorted(topic_name() for _ in range(3))
    await admin.create_topics([NewTopic(name, 5) for name in names])
    for name in names:
        await served(admin, name, 5)
    whole = await admin.describe_topics(names)
    assert [len(topic.partitions) for topic in whole.values() if not isinstance(topic, KafkaError)] == [5, 5, 5]
    for page in (1, 3, 7):
        assert await admin.describe_topics(names, page_partitions=page) == whole


async def test_configs_of_every_kind(admin: Admin, topic: str) -> None:
    broker = (await admin.describe_cluster()).brokers[0].node_id
    resource, absent = ConfigResource.topic(topic), ConfigResource.topic(f"no-{topic}")
    await admin.set_config(resource, "retention.ms", "60000")

    async def is_set() -> bool:
        return (await admin.describe_config(resource, ["retention.ms"]))["retention.ms"].value == "60000"

    await eventually(is_set)
    config = (await admin.describe_config(resource))["retention.ms"]
    assert config.source is ConfigSource.DYNAMIC_TOPIC_CONFIG
    assert not config.is_default
    of_broker, logger = ConfigResource.broker(broker), ConfigResource.broker_logger(broker)
    nowhere = ConfigResource.broker(4711)
    described = await admin.describe_configs([resource, of_broker, logger, absent, nowhere], documentation=True)
    assert code(described[absent]) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert code(described[nowhere]) is ErrorCode.INVALID_REQUEST
    values = described[of_broker]
    assert not isinstance(values, KafkaError)
    assert {"log.dirs", "num.partitions"} <= {one.name for one in values}
    assert any(one.documentation for one in values)

    assert await admin.replace_configs({resource: {"retention.bytes": "1000000"}}) == {resource: None}

    async def is_replaced() -> bool:
        found = await admin.describe_config(resource)
        return found["retention.ms"].is_default and found["retention.bytes"].value == "1000000"

    await eventually(is_replaced)
    refused = await admin.alter_configs({resource: [ConfigChange("retention.ms", value="soon")]}, validate_only=True)
    assert code(refused[resource]) is ErrorCode.INVALID_CONFIG
    with pytest.raises(KafkaError, match="retention"):
        await admin.set_config(resource, "retention.ms", "soon")
    await admin.set_config(resource, "retention.bytes", None)

    group = ConfigResource.group(f"group-{topic}")
    await admin.set_config(group, "consumer.session.timeout.ms", "50000")

    async def is_listed() -> bool:
        return group in await admin.list_config_resources([ConfigResourceType.GROUP])

    await eventually(is_listed)
    assert resource in await admin.list_config_resources()
    assert await admin.list_client_metrics_resources() == []


async def test_offsets_records_and_producers_of_partitions(bootstrap: str, admin: Admin, topic: str) -> None:
    first, second, absent = (TopicPartition(topic, index) for index in (0, 1, 9))
    await write(bootstrap, first, 10)
    found = await admin.list_offsets({first: LATEST, second: LATEST, absent: LATEST}, timeout_s=60)
    assert (found[first].offset, found[second].offset) == (10, 0)  # type: ignore[union-attr]
    assert code(found[absent]) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    starts = await admin.delete_records({first: 4, second: 5})
    assert starts[first] == 4
    assert code(starts[second]) is ErrorCode.OFFSET_OUT_OF_RANGE
    assert (await admin.list_offsets({first: EARLIEST}))[first].offset == 4  # type: ignore[union-attr]
    producers = await admin.describe_producers([first, second, absent])
    (active,) = producers[first]  # type: ignore[misc]
    assert (active.last_sequence, active.transaction_start_offset) == (9, -1)
    assert producers[second] == ()
    assert code(producers[absent]) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_the_cluster_and_where_its_replicas_lie(bootstrap: str, admin: Admin, topic: str) -> None:
    tp = TopicPartition(topic, 0)
    cluster = await admin.describe_cluster()
    assert [str(broker.address) for broker in cluster.brokers] == [bootstrap]
    node = cluster.brokers[0].node_id
    await write(bootstrap, tp, 10)
    dirs = await admin.describe_log_dirs(of=[tp])
    assert list(dirs) == [node]
    (log_dir,) = dirs[node].values()  # type: ignore[union-attr]
    assert list(log_dir.replicas) == [tp]  # type: ignore[union-attr]
    assert log_dir.size_bytes > 0  # type: ignore[union-attr]
    assert code((await admin.describe_log_dirs([4711]))[4711]) is ErrorCode.BROKER_NOT_AVAILABLE
    here, nowhere = Replica(topic, 0, node), Replica(topic, 0, 4711)
    moved = await admin.alter_replica_log_dirs({here: "/no/such/directory", nowhere: log_dir.path})  # type: ignore[union-attr]
    assert code(moved[here]) is ErrorCode.LOG_DIR_NOT_FOUND
    assert code(moved[nowhere]) is ErrorCode.BROKER_NOT_AVAILABLE
    assert await admin.alter_replica_log_dirs({here: log_dir.path}) == {here: None}  # type: ignore[union-attr]

    elected = await admin.elect_leaders([tp])
    assert code(elected[tp]) is ErrorCode.ELECTION_NOT_NEEDED
    assert await admin.list_partition_reassignments() == {}
    given = await admin.alter_partition_reassignments({tp: [4711], TopicPartition(topic, 1): None})
    assert code(given[tp]) is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert code(given[TopicPartition(topic, 1)]) is ErrorCode.NO_REASSIGNMENT_IN_PROGRESS


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_groups_and_their_offsets(bootstrap: str, admin: Admin, topic: str, protocol: str) -> None:
    group, absent = f"group-{topic}-{protocol}", f"no-{topic}"
    tp = TopicPartition(topic, 0)
    async with Consumer(
        bootstrap, group_id=group, group_protocol=protocol, group_instance_id="one", auto_offset_reset="earliest"
    ) as consumer:
        consumer.subscribe([topic])

        async def is_member() -> bool:
            await consumer.poll(0.1)
            return len(consumer.assignment()) == 3

        await eventually(is_member)
        described = await admin.describe_groups([group, absent])
        assert code(described[absent]) is ErrorCode.GROUP_ID_NOT_FOUND
        one = described[group]
        assert not isinstance(one, KafkaError)
        assert (one.type, one.is_active) == (GroupType(protocol), True)
        assert [member.instance_id for member in one.members] == ["one"]
        listed = await admin.list_groups(types=[GroupType(protocol)])
        assert group in [each.group_id for each in listed]
        assert group not in [each.group_id for each in await admin.list_groups(states=["Empty"])]
        assert code((await admin.delete_groups([group]))[group]) is ErrorCode.NON_EMPTY_GROUP
        refused = await admin.alter_group_offsets(group, {tp: 3})
        assert code(refused[tp]) is ErrorCode.UNKNOWN_MEMBER_ID
        assert await admin.remove_group_members(group, reason="to be tested") == {"one": None}

    async def is_empty() -> bool:
        return not (await admin.describe_group(group)).members

    await eventually(is_empty)
    assert await admin.remove_group_members(group) == {}
    assert await admin.alter_group_offsets(group, {tp: 3}) == {tp: None}
    offsets = await admin.list_group_offsets([group, absent])
    assert offsets[group][tp].offset == 3  # type: ignore[index]
    assert offsets[absent] == {}
    assert await admin.list_group_offsets({group: [tp]}) == {group: {tp: CommittedOffset(3)}}
    assert await admin.delete_group_offsets(group, [tp]) == {tp: None}
    assert tp not in (await admin.list_group_offsets([group]))[group]  # type: ignore[operator]
    assert await admin.delete_groups([group]) == {group: None}


async def test_quotas(bootstrap: str, admin: Admin, request: pytest.FixtureRequest, topic: str) -> None:
    entity = QuotaEntity(user=f"user-{topic}", client_id="loader")
    results = await admin.alter_client_quotas({entity: {"producer_byte_rate": 1_000_000.0}})
    if results[entity] is None:

        async def is_limited() -> bool:
            found = await admin.describe_client_quotas(QuotaEntity(user=ANY))
            return found.get(entity) == {"producer_byte_rate": 1_000_000.0}

        await eventually(is_limited)
    else:
        # Millstream throttles nobody yet, and says so.
        assert "millstream" in request.node.name
        assert str(entity) in str(results[entity])
    assert await admin.alter_client_quotas({entity: {"producer_byte_rate": None}}) == {entity: None}

    async def is_free() -> bool:
        return entity not in await admin.describe_client_quotas()

    await eventually(is_free)


async def test_users_passwords(admin: Admin, request: pytest.FixtureRequest, topic: str) -> None:
    user = f"user-{topic}"
    password = ScramPassword(user, "secret", ScramMechanism.SCRAM_SHA_256, iterations=8_192)
    assert "secret" not in repr(password)
    results = await admin.alter_user_scram_credentials([password])
    if results[user] is None:

        async def is_known() -> bool:
            found = await admin.describe_user_scram_credentials([user])
            return found[user] == (ScramCredential(ScramMechanism.SCRAM_SHA_256, 8_192),)

        await eventually(is_known)
        assert user in await admin.describe_user_scram_credentials()
        deleted = await admin.alter_user_scram_credentials([ScramDeletion(user, ScramMechanism.SCRAM_SHA_256)])
        assert deleted == {user: None}
    else:
        # Millstream authenticates nobody yet, and says so.
        assert "millstream" in request.node.name
        assert code((await admin.describe_user_scram_credentials([user]))[user]) is ErrorCode.RESOURCE_NOT_FOUND


async def test_every_admin_api_that_is_served_has_a_call(
    millstream_broker_session: Any, topic_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Walks what ApiVersions lists; a call stands for an API only if it sends that API's request."""
    address = millstream_broker_session.bootstrap_servers
    sent: set[int] = set()
    request = BrokerConnection.request

    async def watched(self: BrokerConnection, message: Any, **options: Any) -> Any:
        sent.add(message.__wire__.key)
        return await request(self, message, **options)

    monkeypatch.setattr(BrokerConnection, "request", watched)
    name = topic_name()
    tp = TopicPartition(name, 0)
    async with Admin(address) as admin:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "list_topics": admin.list_topics,
            "create_topics": lambda: admin.create_topics([name]),
            "describe_topics": lambda: admin.describe_topics([name]),
            "create_partitions": lambda: admin.create_partitions({name: 2}),
            "describe_configs": lambda: admin.describe_configs([ConfigResource.topic(name)]),
            "alter_configs": lambda: admin.alter_configs({ConfigResource.topic(name): []}),
            "replace_configs": lambda: admin.replace_configs({ConfigResource.topic(name): {}}),
            "list_config_resources": admin.list_config_resources,
            "list_offsets": lambda: admin.list_offsets({tp: LATEST}),
            "delete_records": lambda: admin.delete_records({tp: LATEST}),
            "describe_producers": lambda: admin.describe_producers([tp]),
            "describe_cluster": admin.describe_cluster,
            "describe_log_dirs": admin.describe_log_dirs,
            "alter_replica_log_dirs": lambda: admin.alter_replica_log_dirs({Replica(name, 0, 1): "/none"}),
            "elect_leaders": admin.elect_leaders,
            "alter_partition_reassignments": lambda: admin.alter_partition_reassignments({tp: None}),
            "list_partition_reassignments": admin.list_partition_reassignments,
            "list_groups": admin.list_groups,
            "describe_groups": lambda: admin.describe_groups([name]),
            "remove_group_members": lambda: admin.remove_group_members(name, ["nobody"]),
            "alter_group_offsets": lambda: admin.alter_group_offsets(name, {tp: 0}),
            "list_group_offsets": lambda: admin.list_group_offsets([name]),
            "delete_group_offsets": lambda: admin.delete_group_offsets(name, [tp]),
            "delete_groups": lambda: admin.delete_groups([name]),
            "describe_client_quotas": admin.describe_client_quotas,
            "alter_client_quotas": lambda: admin.alter_client_quotas({QuotaEntity(user=name): {}}),
            "describe_user_scram_credentials": admin.describe_user_scram_credentials,
            "alter_user_scram_credentials": lambda: admin.alter_user_scram_credentials([]),
            "delete_topics": lambda: admin.delete_topics([name]),
        }
        versions = (await admin._client.connection()).versions
        assert {ApiKey(key) for key in versions} - NOT_ADMIN <= ADMIN_APIS.keys()
        assert set(ADMIN_APIS.values()) == calls.keys()
        for method, call in calls.items():
            sent.clear()
            await call()
            missing = {key for key, named in ADMIN_APIS.items() if named == method} - sent
            assert not missing, f"{method} does not send {missing}"


async def test_no_answer_is_waited_for_longer_than_allowed() -> None:
    """A server that takes connections and says nothing."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Admin(f"127.0.0.1:{port}", default_api_timeout_ms=100) as admin:
        with pytest.raises(KafkaError) as raised:
            await admin.describe_cluster()
        assert raised.value.code is ErrorCode.REQUEST_TIMED_OUT
        with pytest.raises(KafkaError, match=r"within 0\.05 s"):
            await admin.list_topics(timeout_s=0.05)


async def test_a_cluster_that_is_not_there_is_an_error_at_once() -> None:
    (port,) = free_ports(1)
    async with Admin(f"127.0.0.1:{port}") as admin:
        with pytest.raises(KafkaError, match=str(port)):
            await admin.describe_topics(["flights"])


@pytest.fixture
def blocking_admin(bootstrap: str) -> Iterator[BlockingAdmin]:
    with BlockingAdmin({"bootstrap.servers": bootstrap}) as connected:
        yield connected


def test_the_same_without_await(blocking_admin: BlockingAdmin, bootstrap: str, topic_name: Callable[[], str]) -> None:
    name = topic_name()
    blocking_admin.create_topic(name, partitions=2)
    with pytest.raises(KafkaError) as raised:
        blocking_admin.create_topic(name)
    assert raised.value.code is ErrorCode.TOPIC_ALREADY_EXISTS
    assert blocking_admin.describe_cluster().brokers
    assert blocking_admin.list_offsets({TopicPartition(name, 0): LATEST})[TopicPartition(name, 0)] is not None
    assert repr(blocking_admin) == f"<Admin of {bootstrap}>"
    assert blocking_admin.config["default.api.timeout.ms"] == 60_000
    assert (BlockingAdmin.describe_topics.__doc__ or "").startswith("Describe topics")


def test_every_call_is_there_without_await() -> None:
    asked = {name for name in vars(Admin) if not name.startswith("_")}
    assert asked <= {name for name in dir(BlockingAdmin) if not name.startswith("_")} | {"config"}


def test_a_config_that_is_not_known_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean default\.api\.timeout\.ms"):
        Admin("127.0.0.1:9092", default_api_timeouts_ms=3)
