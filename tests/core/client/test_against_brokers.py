"""The whole client against Millstream and against Apache Kafka: what one takes and answers, so does the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from millstream.core.client import (
    EARLIEST,
    LATEST,
    MAX_TIMESTAMP,
    BatchWriter,
    Client,
    ConfigOperation,
    ConfigResource,
    ConfigResourceType,
    ConfigSource,
    ConfigValue,
    Fetcher,
    NewTopic,
    TopicPartition,
    alter_configs,
    create_partitions,
    create_topics,
    delete_topics,
    describe_configs,
    list_offsets,
)
from millstream.core.client.fetcher import PARTITION_BYTES_MAX
from millstream.core.records import BatchBuilder, Compression, Record
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


async def read(
    client: Client, *partitions: TopicPartition, partition_bytes_max: int = PARTITION_BYTES_MAX
) -> dict[TopicPartition, list[Record]]:
    """Return every record of `partitions` there is now."""
    starts = await list_offsets(client, dict.fromkeys(partitions, EARLIEST))
    ends = await list_offsets(client, dict.fromkeys(partitions, LATEST))
    found: dict[TopicPartition, list[Record]] = {tp: [] for tp in partitions}
    async with Fetcher(
        client,
        {tp: at.offset for tp, at in starts.items()},
        end_offsets={tp: at.offset for tp, at in ends.items()},
        partition_bytes_max=partition_bytes_max,
    ) as fetcher:
        async for fetched in fetcher:
            found[fetched.topic_partition] += fetched.records()
    return found


@pytest.mark.parametrize("codec", list(Compression))
@pytest.mark.parametrize("idempotent", [False, True], ids=["plain", "idempotent"])
async def test_records_come_back_as_they_were_sent(
    client: Client, topic: str, codec: Compression, idempotent: bool
) -> None:
    partitions = [TopicPartition(topic, index) for index in range(3)]
    sent: dict[TopicPartition, list[Record]] = {tp: [] for tp in partitions}
    delivered: dict[TopicPartition, int] = dict.fromkeys(partitions, 0)

    def on_delivery(tp: TopicPartition, first_offset: int, count: int) -> None:
        assert first_offset == delivered[tp]
        delivered[tp] += count

    async with BatchWriter(
        client, compression=codec, idempotent=idempotent, batch_bytes=4_000, on_delivery=on_delivery
    ) as producer:
        for index in range(3_000):
            tp = partitions[index % 3]
            key = None if index % 5 == 0 else f"key-{index}".encode()
            value = None if index % 7 == 0 else b"value " * (index % 11)
            headers = (("trace", b"%d" % index), ("empty", None)) if index % 13 == 0 else ()
            producer.append(tp, key, value, timestamp=NOW_MS + index, headers=headers)
            sent[tp].append(Record(len(sent[tp]), NOW_MS + index, key, value, headers))
            if index % 100 == 0:
                await producer.room()

    assert delivered == dict.fromkeys(partitions, 1_000)
    assert producer.records_acknowledged == 3_000
    assert await read(client, *partitions) == sent
    assert await read(client, *partitions, partition_bytes_max=1_000) == sent


async def test_a_batch_of_the_callers_own_is_written_as_it_is(client: Client, topic: str) -> None:
    tp = TopicPartition(topic, 1)
    builder = BatchBuilder(compression=Compression.LZ4)
    for index in range(10):
        builder.append(NOW_MS + index, None, b"%d" % index)
    async with BatchWriter(client, acks=1) as producer:
        await producer.send_batch(tp, builder.build(), len(builder))
    assert [record.value for record in (await read(client, tp))[tp]] == [b"%d" % index for index in range(10)]


async def test_reading_starts_in_the_middle_of_a_batch_and_stops_at_its_end_offset(client: Client, topic: str) -> None:
    tp = TopicPartition(topic, 0)
    async with BatchWriter(client) as producer:
        for index in range(100):
            producer.append(tp, None, b"%d" % index)
    async with Fetcher(client, {tp: 42}, end_offsets={tp: 100}) as fetcher:
        values = [record.value async for fetched in fetcher for record in fetched.records()]
    assert values == [b"%d" % index for index in range(42, 100)]


async def test_following_gets_what_is_written_later(client: Client, topic: str) -> None:
    partitions = [TopicPartition(topic, index) for index in range(3)]
    async with Fetcher(client, dict.fromkeys(partitions, 0)) as fetcher, BatchWriter(client) as producer:
        batches = aiter(fetcher)
        for round_ in range(3):
            producer.append(partitions[round_], None, b"%d" % round_)
            await producer.flush()
            fetched = await asyncio.wait_for(anext(batches), 10)
            assert fetched.topic_partition == partitions[round_]
            assert [record.value for record in fetched.records()] == [b"%d" % round_]


async def test_acks_0_is_written_too(client: Client, topic: str) -> None:
    tp = TopicPartition(topic, 2)
    async with BatchWriter(client, acks=0) as producer:
        for index in range(10):
            producer.append(tp, None, b"%d" % index)
    async with Fetcher(client, {tp: 0}, end_offsets={tp: 10}) as fetcher:
        values = [record.value async for fetched in fetcher for record in fetched.records()]
    assert values == [b"%d" % index for index in range(10)]


async def test_offsets_by_time(client: Client, topic: str) -> None:
    tp = TopicPartition(topic, 0)
    async with BatchWriter(client, batch_bytes=1) as producer:
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


async def test_an_offset_out_of_range_is_said(client: Client, topic: str) -> None:
    tp = TopicPartition(topic, 0)
    with pytest.raises(KafkaError, match=f"offset 5 of {topic}-0 is not in its log") as raised:
        async with Fetcher(client, {tp: 5}) as fetcher:
            await asyncio.wait_for(anext(aiter(fetcher)), 10)
    assert raised.value.code is ErrorCode.OFFSET_OUT_OF_RANGE


async def test_a_topic_that_does_not_exist_is_said_at_once(client: Client, topic_name: Callable[[], str]) -> None:
    name = topic_name()
    with pytest.raises(KafkaError, match=f"there is no topic '{name}'") as raised:
        await asyncio.wait_for(list_offsets(client, {TopicPartition(name, 0): LATEST}), 5)
    assert raised.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_a_batch_that_is_too_large_fails_with_the_brokers_reason(client: Client, topic: str) -> None:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    await alter_configs(client, resource, [("max.message.bytes", ConfigOperation.SET, "1000")])
    tp = TopicPartition(topic, 0)
    large = b"x" * 5_000

    async def write_large(producer: BatchWriter) -> None:
        # A broker of Apache Kafka takes a change up a moment after it was acknowledged.
        while True:
            producer.append(tp, None, large)
            await producer.flush()

    async with BatchWriter(client) as producer:
        with pytest.raises(KafkaError, match=f"{topic}-0 took no records") as raised:
            await asyncio.wait_for(write_large(producer), 30)
        assert raised.value.code is ErrorCode.MESSAGE_TOO_LARGE
        producer.append(tp, None, b"small")
        await producer.flush()
    values = [record.value for record in (await read(client, tp))[tp]]
    assert [value for value in values if value != large] == [b"small"]
    assert values[-1] == b"small"


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


async def test_a_deadline_holds_where_no_leader_can_be_found(client: Client, topic: str) -> None:
    """The producer gives a batch up at its delivery deadline, and says which partition it was for."""
    tp = TopicPartition(topic, 3)
    async with BatchWriter(client, delivery_timeout_ms=500) as producer:
        producer.append(tp, None, b"x")
        with pytest.raises(KafkaError, match="has no partition 3"):
            await asyncio.wait_for(producer.flush(), 10)


async def test_memory_is_bounded_by_waiting_for_room(client: Client, topic: str) -> None:
    tp = TopicPartition(topic, 0)
    async with BatchWriter(client, batch_bytes=1_000, buffered_bytes_max=10_000) as producer:
        for index in range(2_000):
            await producer.room()
            producer.append(tp, None, b"x" * 200)
            assert producer.buffered_bytes <= 10_000 + 2_000, index
    assert producer.records_acknowledged == 2_000
