"""What topics hold, asked of Apache Kafka and of Millstream: the same answers."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.support.topic_contents import TopicWriter

from millstream.core.client import (
    EARLIEST,
    Client,
    NewTopic,
    TopicPartition,
    create_partitions,
    create_topics,
    delete_records,
    delete_topics,
    list_offsets,
)
from millstream.core.client.group_offsets import CommittedOffset, commit_offsets
from millstream.core.wire import ErrorCode, KafkaError, uuid_text
from millstream.hadoop_loader.commit.entries import Position, Positions
from millstream.hadoop_loader.job import SourceSettings
from millstream.hadoop_loader.source import (
    EpochEnd,
    FindingKind,
    Reconciled,
    SourceSnapshot,
    TopicNow,
    read_snapshot,
    read_source,
    reading,
    reconcile,
)

NOW_MS = 1_790_000_000_000
_numbers = itertools.count()


@pytest.fixture(params=["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def bootstrap(request: pytest.FixtureRequest) -> str:
    """The address of a broker, ours or Apache Kafka's; shared, so topics need names of their own."""
    fixture = "millstream_broker_session" if request.param == "millstream" else "apache_kafka"
    address: str = request.getfixturevalue(fixture).bootstrap_servers
    return address


@pytest.fixture
async def client(bootstrap: str) -> AsyncIterator[Client]:
    async with Client(bootstrap, request_timeout_ms=30_000) as connected:
        yield connected


@pytest.fixture
def topic() -> str:
    return f"source-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def source(bootstrap: str, topic: str) -> SourceSettings:
    return SourceSettings(bootstrap_servers=bootstrap, topics=(topic,))


async def create(client: Client, name: str, partitions: int = 2) -> None:
    assert await create_topics(client, [NewTopic(name, partitions)]) == {name: None}
    await list_offsets(client, {TopicPartition(name, index): EARLIEST for index in range(partitions)})


async def write(client: Client, name: str, partition: int, count: int, first_ms: int = NOW_MS) -> None:
    async with TopicWriter(client, batch_bytes=1) as writer:
        for index in range(count):
            writer.append(TopicPartition(name, partition), None, b"x" * 100, timestamp=first_ms + 1000 * index)


async def look(client: Client, source: SourceSettings, positions: Positions | None = None) -> SourceSnapshot:
    loaded = dict.fromkeys(positions or {}, source.topics[0])
    return await read_snapshot(client, source, positions or {}, loaded)


def only(snapshot: SourceSnapshot) -> TopicNow:
    (topic,) = snapshot.topics.values()
    return topic


async def test_both_ends_sizes_ids_and_epochs(client: Client, source: SourceSettings, topic: str) -> None:
    await create(client, topic)
    await write(client, topic, 0, 10)
    await delete_records(client, {TopicPartition(topic, 0): 4})
    known = (await client.metadata([topic])).topic(topic)

    snapshot = await look(client, source)

    found = only(snapshot)
    assert snapshot.cluster_id == client.cluster.cluster_id
    assert snapshot.cluster_id
    assert (found.name, found.topic_id) == (topic, uuid_text(known.topic_id))
    first, second = found.partitions
    assert (first.begin_offset, first.end_offset, first.high_watermark) == (4, 10, 10)
    assert (first.start_offset, first.stop_offset) == (4, 10)
    assert (second.begin_offset, second.end_offset) == (0, 0)
    assert first.size_bytes is not None
    assert first.size_bytes > 1000
    assert first.leader_epoch >= 0
    assert first.error == ""


async def test_times_and_offsets_to_start_and_stop_at(client: Client, source: SourceSettings, topic: str) -> None:
    await create(client, topic)
    await write(client, topic, 0, 10)
    at = replace(source, start=NOW_MS + 2_500, stop=NOW_MS + 8_000)
    first, second = only(await look(client, at)).partitions
    assert (first.start_offset, first.stop_offset) == (3, 8)
    assert (second.start_offset, second.stop_offset) == (0, 0)

    later = replace(source, start="latest", stop_offsets={topic: {0: 5}})
    assert [each.start_offset for each in only(await look(client, later)).partitions] == [10, 0]
    assert [each.stop_offset for each in only(await look(client, later)).partitions] == [5, 0]


async def test_offsets_that_another_loader_left(client: Client, source: SourceSettings, topic: str) -> None:
    await create(client, topic, 3)
    await write(client, topic, 0, 10)
    group = f"connect-{topic}"
    committed = {TopicPartition(topic, 0): CommittedOffset(7, 0), TopicPartition(topic, 1): CommittedOffset(0)}
    await commit_offsets(client, group, committed)
    given = replace(source, start_group=group, start_offsets={topic: {1: 4}})

    found = only(await look(client, given))

    assert [(each.left_offset, each.left_epoch) for each in found.partitions] == [(7, 0), (4, -1), (None, -1)]
    assert [each.epoch_end for each in found.partitions] == [EpochEnd(0, 10), None, None]
    loaded = {found.topic_id: {0: Position(1)}}
    assert {each.left_offset for each in only(await look(client, given, loaded)).partitions} == {None}
    unknown = replace(source, start_group=f"{group}-unknown")
    assert {each.left_offset for each in only(await look(client, unknown)).partitions} == {None}


async def test_a_group_that_is_not_shown_keeps_nothing_from_topics_that_are_loaded(
    client: Client, source: SourceSettings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = KafkaError(ErrorCode.GROUP_AUTHORIZATION_FAILED, "it may not be read")

    async def refuse(*_: object, **__: object) -> None:
        raise refused

    monkeypatch.setattr(reading, "fetch_offsets", refuse)
    names = [f"{topic}-{end}" for end in ("loaded", "named", "new")]
    for name in names:
        await create(client, name, 1)
    ids = {name: uuid_text(info.topic_id) for name, info in (await client.metadata(names)).topics.items()}
    given = replace(source, topics=tuple(names), start_group="connect", start_offsets={names[1]: {0: 0}})

    snapshot = await read_snapshot(client, given, {ids[names[0]]: {0: Position(0)}}, {ids[names[0]]: names[0]})

    assert [snapshot.topics[name].left_error for name in names] == ["", "", str(refused)]
    assert {each.error for found in snapshot.topics.values() for each in found.partitions} == {""}


async def test_topics_by_pattern(client: Client, source: SourceSettings, topic: str) -> None:
    names = [f"{topic}-{end}" for end in ("a", "b", "test")]
    for name in names:
        await create(client, name, 1)
    by_pattern = replace(source, topics=(f"{topic}-nowhere",), topics_pattern=f"{topic}-.*", exclude_pattern=".*-test")
    snapshot = await look(client, by_pattern)
    assert sorted(snapshot.topics) == names[:2]
    assert list(snapshot.missing) == [f"{topic}-nowhere"]
    assert "there is no topic" in snapshot.missing[f"{topic}-nowhere"].reason


async def test_loaded_topics_that_a_pattern_finds_no_more(client: Client, source: SourceSettings, topic: str) -> None:
    await create(client, f"{topic}-there", 1)
    by_pattern = replace(source, topics=(), topics_pattern=f"{topic}-.*", exclude_pattern=".*-old")
    names = ("there", "gone", "gone-old")
    loaded = {f"id of {name}": f"{topic}-{name}" for name in names} | {"id of clicks": "clicks"}
    positions = {topic_id: {0: Position(1)} for topic_id in loaded}

    snapshot = await read_snapshot(client, by_pattern, positions, loaded)
    result = reconcile(snapshot, by_pattern, cluster_id=snapshot.cluster_id, topics=loaded, positions=positions)

    assert {name: missing.is_gone for name, missing in snapshot.missing.items()} == {f"{topic}-gone": True}
    assert (FindingKind.TOPIC_DELETED, f"{topic}-gone") in {(one.kind, one.topic) for one in result.findings}


def held(snapshot: SourceSnapshot, source: SourceSettings, topic_id: str, *positions: Position) -> Reconciled:
    """Reconcile with what is said to be committed."""
    return reconcile(
        snapshot,
        source,
        cluster_id=snapshot.cluster_id,
        topics={topic_id: source.topics[0]},
        positions={topic_id: dict(enumerate(positions))},
    )


async def test_a_recreated_topic_is_noticed(client: Client, source: SourceSettings, topic: str) -> None:
    await create(client, topic, 1)
    before = only(await look(client, source)).topic_id
    assert await delete_topics(client, [topic]) == {topic: None}
    async with asyncio.timeout(30):
        while topic in (await client.metadata()).topics:  # noqa: ASYNC110  another process decides when
            await asyncio.sleep(0.02)
    await create(client, topic, 1)
    await write(client, topic, 0, 3)

    result = held(await look(client, source), source, before, Position(3, 0))

    assert [finding.kind for finding in result.findings] == [FindingKind.TOPIC_RECREATED]
    assert result.ranges == []


async def test_lost_records_new_partitions_and_what_goes_on(client: Client, source: SourceSettings, topic: str) -> None:
    await create(client, topic, 2)
    for partition in (0, 1):
        await write(client, topic, partition, 10)
    await delete_records(client, {TopicPartition(topic, 0): 6})
    assert await create_partitions(client, {topic: 3}) == {topic: None}
    async with asyncio.timeout(30):
        while len((await client.metadata([topic])).topic(topic).partitions) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await list_offsets(client, {TopicPartition(topic, 2): EARLIEST})
    await write(client, topic, 2, 2)
    going_on = replace(source, gaps="continue")
    topic_id = only(await look(client, source)).topic_id
    positions = (Position(2, 0), Position(7, 0))

    snapshot = await look(client, going_on, {topic_id: dict(enumerate(positions))})
    result = held(snapshot, going_on, topic_id, *positions)

    assert {finding.kind for finding in result.findings} == {FindingKind.RECORDS_LOST, FindingKind.PARTITIONS_ADDED}
    assert sorted((each.partition, each.start_offset, each.end_offset) for each in result.ranges) == [
        (0, 6, 10),
        (1, 7, 10),
        (2, 0, 2),
    ]
    assert all(each.estimated_bytes > 100 for each in result.ranges)


@pytest.mark.parametrize("position", [Position(50, 0), Position(3, 99), Position(50, -1)])
async def test_a_log_that_ends_before_the_position(
    client: Client, source: SourceSettings, topic: str, position: Position
) -> None:
    await create(client, topic, 1)
    await write(client, topic, 0, 10)
    topic_id = only(await look(client, source)).topic_id

    snapshot = await look(client, source, {topic_id: {0: position}})
    result = held(snapshot, source, topic_id, position)

    assert [finding.kind for finding in result.findings] == [FindingKind.LOG_TRUNCATED]
    assert result.stopped_topics == {topic}


async def test_asked_without_await(client: Client, source: SourceSettings, topic: str) -> None:
    await create(client, topic, 1)
    await write(client, topic, 0, 3)
    # From a thread of its own as from a notebook, where a loop runs already.
    snapshot = await asyncio.to_thread(read_source, source, {}, {})
    assert only(snapshot).partitions[0].end_offset == 3


@pytest.mark.java
async def test_the_last_stable_offset_is_the_end(apache_kafka: object, jars: object, topic: str) -> None:
    from confluent_kafka import Producer

    address: str = apache_kafka.bootstrap_servers  # type: ignore[attr-defined]
    source = SourceSettings(bootstrap_servers=address, topics=(topic,))
    async with Client(address, request_timeout_ms=30_000) as client:
        await create(client, topic, 1)
        await write(client, topic, 0, 5)

        def open_transaction() -> Producer:
            producer = Producer({"bootstrap.servers": address, "transactional.id": topic})
            producer.init_transactions(30)
            producer.begin_transaction()
            producer.produce(topic, b"open", partition=0)
            producer.flush(30)
            return producer

        producer = await asyncio.to_thread(open_transaction)
        (committed,) = only(await look(client, source)).partitions
        (uncommitted,) = only(await look(client, replace(source, isolation_level="read_uncommitted"))).partitions
        await asyncio.to_thread(producer.abort_transaction, 30)

    assert (committed.end_offset, committed.high_watermark) == (5, 6)
    assert uncommitted.end_offset == 6
