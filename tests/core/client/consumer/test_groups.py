"""Consumers in groups, by both protocols: listeners, commits, patterns, and what a rebalance does to positions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from typing import Any

import pytest
from tests.support.topic_contents import TopicWriter

from millstream.core.client import Client, NewTopic, TopicPartition, create_topics, list_offsets
from millstream.core.client.consumer import (
    Consumer,
    ConsumerRecord,
    ConsumerStateError,
    RebalanceListener,
    TopicPattern,
)
from millstream.core.client.offsets import EARLIEST

DEADLINE_S = 90.0
PARTITIONS = 4

each_protocol = pytest.mark.parametrize("protocol", ["classic", "cooperative-sticky", "consumer"])


@pytest.fixture
async def client(bootstrap: str) -> AsyncIterator[Client]:
    async with Client(bootstrap, request_timeout_ms=20_000) as connected:
        yield connected


@pytest.fixture
async def topic(client: Client, topic_name: Callable[[], str]) -> str:
    """A topic of four partitions that are served."""
    name = topic_name()
    assert await create_topics(client, [NewTopic(name, PARTITIONS)]) == {name: None}
    await list_offsets(client, {TopicPartition(name, index): EARLIEST for index in range(PARTITIONS)})
    return name


@pytest.fixture
def member(bootstrap: str) -> Callable[..., Consumer]:
    """member(protocol, group, **configs): a consumer of the group."""

    def make(protocol: str, group: str, **configs: Any) -> Consumer:
        chosen: dict[str, Any] = {"group_protocol": "classic" if protocol != "consumer" else "consumer"}
        if protocol == "cooperative-sticky":
            chosen["partition_assignment_strategy"] = protocol
        if protocol != "consumer":
            chosen["heartbeat_interval_ms"] = 200
        given = {"auto_offset_reset": "earliest", "fetch_max_wait_ms": 50, **chosen, **configs}
        return Consumer(bootstrap, group_id=group, **given)

    return make


async def write(client: Client, topic: str, start: int, end: int) -> None:
    async with TopicWriter(client) as writer:
        for number in range(start, end):
            writer.append(TopicPartition(topic, number % PARTITIONS), None, b"%d" % number)


class Telling(RebalanceListener):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, frozenset[int]]] = []

    def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append(("assigned", frozenset(tp.partition for tp in partitions)))

    async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        await asyncio.sleep(0)
        self.told.append(("revoked", frozenset(tp.partition for tp in partitions)))


async def poll_until(condition: Callable[[], bool], *members: Consumer) -> list[ConsumerRecord]:
    """Poll each in turn until the condition holds."""
    records: list[ConsumerRecord] = []
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            for one in members:
                records += await one.poll_records(0.05)
    return records


def is_assigned(consumer: Consumer, tp: TopicPartition) -> bool:
    return tp in consumer.assignment()


def numbers(records: list[ConsumerRecord]) -> list[int]:
    return sorted(int(record.value or b"-1") for record in records)


@each_protocol
async def test_partitions_move_and_nothing_is_lost_or_doubled(
    client: Client, topic: str, member: Callable[..., Consumer], topic_name: Callable[[], str], protocol: str
) -> None:
    group = topic_name()
    told, told_second = Telling(), Telling()
    everything = frozenset(range(PARTITIONS))
    await write(client, topic, 0, 100)
    async with member(protocol, group) as first:
        first.subscribe([topic], told)
        assert first.subscription() == {topic}
        records: list[ConsumerRecord] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(records) < 100:
                records += await first.poll_records(0.5)
        assert first.assignment() == {TopicPartition(topic, index) for index in everything}
        assert first.group_metadata().group_id == group
        async with member(protocol, group) as second:
            second.subscribe([topic], told_second)
            records += await poll_until(
                lambda: len(first.assignment()) == len(second.assignment()) == PARTITIONS // 2, first, second
            )
            assert not first.assignment() & second.assignment()
            await write(client, topic, 100, 200)
            async with asyncio.timeout(DEADLINE_S):
                while len(records) < 200:
                    records += [*await first.poll_records(0.05), *await second.poll_records(0.05)]
            assert numbers(records) == list(range(200))
        assert told_second.told[-1][0] == "revoked"
        records += await poll_until(lambda: len(first.assignment()) == PARTITIONS, first)
        await write(client, topic, 200, 300)
        async with asyncio.timeout(DEADLINE_S):
            while len(records) < 300:
                records += await first.poll_records(0.05)
        assert numbers(records) == list(range(300))
    assert told.told[-1] == ("revoked", everything)
    held: set[int] = set()
    for what, partitions in told.told:
        if what == "assigned":
            assert not held & partitions
            held |= partitions
        else:
            assert held >= partitions
            held -= partitions
    # Closing committed what had been handed over, so that nobody gets it again.
    async with member(protocol, group) as third:
        third.subscribe([topic])
        assert await poll_until(lambda: len(third.assignment()) == PARTITIONS, third) == []
        assert list(await third.poll_records(0.2)) == []


@each_protocol
async def test_a_listener_may_seek_and_commit(
    client: Client, topic: str, member: Callable[..., Consumer], topic_name: Callable[[], str], protocol: str
) -> None:
    await write(client, topic, 0, 40)
    group = topic_name()

    class Seeking(RebalanceListener):
        def __init__(self, consumer: Consumer) -> None:
            self.consumer = consumer

        def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
            for tp in partitions:
                self.consumer.seek(tp, 5)

        async def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
            await self.consumer.commit(dict.fromkeys(partitions, 7))

    async with member(protocol, group, enable_auto_commit=False) as reader:
        reader.subscribe([topic], Seeking(reader))
        records: list[ConsumerRecord] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(records) < 20:
                records += await reader.poll_records(0.5)
        assert {record.offset for record in records} == set(range(5, 10))
    async with member(protocol, group, enable_auto_commit=False) as after:
        committed = await after.committed([TopicPartition(topic, index) for index in range(PARTITIONS)])
        assert {at.offset if at else None for at in committed.values()} == {7}


async def test_what_a_listener_raises_is_raised_by_poll(
    client: Client, topic: str, member: Callable[..., Consumer], topic_name: Callable[[], str]
) -> None:
    await write(client, topic, 0, 4)

    class Failing(RebalanceListener):
        def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
            raise ZeroDivisionError("in the listener")

    async with member("classic", topic_name()) as reader:
        reader.subscribe([topic], Failing())
        with pytest.raises(ZeroDivisionError, match="in the listener"):
            await reader.poll(DEADLINE_S)
        records: list[ConsumerRecord] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(records) < 4:
                records += await reader.poll_records(0.5)
        assert numbers(records) == [0, 1, 2, 3]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("kind", ["re2", "python"])
async def test_a_pattern_takes_what_matches_whole(
    client: Client, topic: str, member: Callable[..., Consumer], topic_name: Callable[[], str], protocol: str, kind: str
) -> None:
    await write(client, topic, 0, 8)
    longer = f"{topic}-longer"
    assert await create_topics(client, [NewTopic(longer, 1)]) == {longer: None}
    text = f"{topic[:-1]}[{topic[-1]}]"
    pattern = TopicPattern(text) if kind == "re2" else re.compile(text)
    async with member(protocol, topic_name()) as reader:
        reader.subscribe(pattern)
        records: list[ConsumerRecord] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(records) < 8:
                records += await reader.poll_records(0.5)
        assert {tp.topic for tp in reader.assignment()} == {topic}
        assert reader.subscription() == {topic}


async def test_a_rebalance_that_waits_for_a_poll_does_not_wait_for_ever(
    client: Client, topic: str, member: Callable[..., Consumer], topic_name: Callable[[], str]
) -> None:
    """The application closes without another poll: its listener is told all the same, and the others go on."""
    group = topic_name()
    told = Telling()
    async with member("classic", group) as second:
        async with member("classic", group) as first:
            first.subscribe([topic], told)
            await poll_until(lambda: len(first.assignment()) == PARTITIONS, first)
            second.subscribe([topic])
            await poll_until(lambda: bool(first._rebalances._waiting), second)
        assert [what for what, _ in told.told] == ["assigned", "revoked"]
        await poll_until(lambda: len(second.assignment()) == PARTITIONS, second)
        waiting = asyncio.create_task(second.poll(None))
        await asyncio.sleep(0)
        await second.close()
        with pytest.raises(ConsumerStateError, match="closed"):
            await waiting


@pytest.mark.parametrize(("protocol", "kind"), [("classic", "re2"), ("classic", "python"), ("consumer", "python")])
async def test_a_pattern_takes_what_comes_later(
    client: Client, member: Callable[..., Consumer], topic_name: Callable[[], str], protocol: str, kind: str
) -> None:
    name = topic_name()
    pattern = TopicPattern(f"{name}.*") if kind == "re2" else re.compile(f"{name}.*")
    async with member(protocol, topic_name(), metadata_max_age_ms=200) as reader:
        reader.subscribe(pattern)
        assert list(await reader.poll_records(0.1)) == []
        for suffix in ("-a", "-b"):
            assert await create_topics(client, [NewTopic(name + suffix, 1)]) == {name + suffix: None}
            await list_offsets(client, {TopicPartition(name + suffix, 0): EARLIEST})
            await poll_until(partial(is_assigned, reader, TopicPartition(name + suffix, 0)), reader)
        assert reader.subscription() == {f"{name}-a", f"{name}-b"}


async def test_leaving_and_coming_back_with_another_subscription(
    client: Client, topic: str, member: Callable[..., Consumer], topic_name: Callable[[], str]
) -> None:
    other = topic_name()
    assert await create_topics(client, [NewTopic(other, 1)]) == {other: None}
    await write(client, topic, 0, 4)
    async with member("classic", topic_name()) as reader:
        reader.subscribe([topic])
        await poll_until(lambda: len(reader.assignment()) == PARTITIONS, reader)
        await reader.unsubscribe()
        assert reader.assignment() == frozenset()
        reader.subscribe([other])
        await poll_until(lambda: reader.assignment() == {TopicPartition(other, 0)}, reader)
        # A new list replaces the old one without leaving.
        reader.subscribe([other, topic])
        await poll_until(lambda: len(reader.assignment()) == PARTITIONS + 1, reader)
        reader.enforce_rebalance()
        await poll_until(lambda: len(reader.assignment()) == PARTITIONS + 1, reader)
