"""Topics, configs and offsets by functions of a client: what Millstream takes and answers, so does Apache Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.support.topic_contents import TopicWriter

from millstream.core.client import (
    EARLIEST,
    LATEST,
    MAX_TIMESTAMP,
    Client,
    ConfigOperation,
    ConfigResource,
    ConfigResourceType,
    ConfigSource,
    ConfigValue,
    NewTopic,
    TopicPartition,
    alter_configs,
    create_partitions,
    create_topics,
    delete_topics,
    describe_configs,
    list_offsets,
)
from millstream.core.wire import ErrorCode, KafkaError

NOW_MS = 1_790_000_000_000


@pytest.fixture
async def client(bootstrap: str) -> AsyncIterator[Client]:
    async with Client(bootstrap, request_timeout_ms=20_000) as connected:
        yield connected


@pytest.fixture
async def topic(client: Client, topic_name: Callable[[], str]) -> str:
    """A topic of three partitions that are served: Apache Kafka answers before its broker has heard of them."""
    name = topic_name()
    assert await create_topics(client, [NewTopic(name, 3)]) == {name: None}
    await list_offsets(client, {TopicPartition(name, index): EARLIEST for index in range(3)})
    return name


async def eventually(condition: Callable[[], Awaitable[bool]], deadline_s: float = 20) -> None:
    """Wait for what an admin request changed: a broker of Apache Kafka hears of it later than the one who asked."""
    async with asyncio.timeout(deadline_s):
        while not await condition():  # noqa: ASYNC110  another process decides when
            await asyncio.sleep(0.02)


async def test_offsets_by_time(client: Client, topic: str) -> None:
    tp = TopicPartition(topic, 0)
    async with TopicWriter(client, batch_bytes=1) as producer:
        for index in range(10):
            producer.append(tp, None, b"x", timestamp=NOW_MS + 1000 * index)
    found = {
        when: (await list_offsets(client, {tp: when}))[tp]
        for when in (EARLIEST, LATEST, MAX_TIMESTAMP, NOW_MS + 2_500, NOW_MS + 60_000)
    }
    assert found[EARLIEST].offset == 0
    assert found[LATEST].offset == 10
    assert found[MAX_TIMESTAMP][:2] == (9, NOW_MS + 9_000)
    assert found[NOW_MS + 2_500][:2] == (3, NOW_MS + 3_000)
    assert found[NOW_MS + 60_000].offset == -1


async def test_a_topic_that_does_not_exist_is_said_at_once(client: Client, topic_name: Callable[[], str]) -> None:
    name = topic_name()
    with pytest.raises(KafkaError, match=f"there is no topic '{name}'") as raised:
        await asyncio.wait_for(list_offsets(client, {TopicPartition(name, 0): LATEST}), 5)
    assert raised.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_topics_are_created_grown_and_deleted(client: Client, topic_name: Callable[[], str]) -> None:
    name = topic_name()
    created = NewTopic(name, 2, configs={"retention.ms": "1234567"})
    assert await create_topics(client, [created], validate_only=True) == {name: None}
    assert name not in (await client.metadata()).topics
    assert await create_topics(client, [created]) == {name: None}

    again = (await create_topics(client, [created]))[name]
    assert again is not None
    assert again.code is ErrorCode.TOPIC_ALREADY_EXISTS
    assert again.message == f"Topic '{name}' already exists"

    assert await create_partitions(client, {name: 5}) == {name: None}

    async def has_grown() -> bool:
        return len((await client.metadata([name])).topic(name).partitions) == 5

    await eventually(has_grown)
    fewer = (await create_partitions(client, {name: 1}))[name]
    assert fewer is not None
    assert fewer.code is ErrorCode.INVALID_PARTITIONS

    assert await delete_topics(client, [name]) == {name: None}

    async def is_gone() -> bool:
        return name not in (await client.metadata()).topics

    await eventually(is_gone)
    gone = (await delete_topics(client, [name]))[name]
    assert gone is not None
    assert gone.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_configs_are_set_listed_and_taken_back(client: Client, topic: str) -> None:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    await alter_configs(
        client,
        resource,
        [("retention.ms", ConfigOperation.SET, "60000"), ("cleanup.policy", ConfigOperation.APPEND, "compact")],
    )

    async def described() -> dict[str, ConfigValue]:
        return {config.name: config for config in await describe_configs(client, resource, documentation=True)}

    async def is_set() -> bool:
        return (await described())["retention.ms"].value == "60000"

    await eventually(is_set)
    configs = await described()
    assert configs["retention.ms"].source is ConfigSource.DYNAMIC_TOPIC_CONFIG
    assert configs["retention.ms"].documentation
    assert set((configs["cleanup.policy"].value or "").split(",")) == {"delete", "compact"}
    assert configs["segment.bytes"].is_default

    await alter_configs(client, resource, [("retention.ms", ConfigOperation.DELETE, None)])

    async def is_default() -> bool:
        (only,) = await describe_configs(client, resource, ["retention.ms"])
        return only.source is not ConfigSource.DYNAMIC_TOPIC_CONFIG

    await eventually(is_default)

    with pytest.raises(KafkaError) as raised:
        await alter_configs(client, resource, [("retention.ms", ConfigOperation.SET, "soon")])
    assert raised.value.code is ErrorCode.INVALID_CONFIG
    assert "retention.ms" in raised.value.message


async def test_configs_of_a_broker_are_its_own(client: Client) -> None:
    (node,) = (await client.metadata([])).brokers
    configs = await describe_configs(client, ConfigResource(ConfigResourceType.BROKER, str(node)))
    assert {config.name for config in configs} >= {"log.dirs", "num.partitions"}
    with pytest.raises(KafkaError, match="the cluster has no broker 4711"):
        await describe_configs(client, ConfigResource(ConfigResourceType.BROKER, "4711"))
