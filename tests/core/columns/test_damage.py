"""A damaged batch by every face: records before it come, it is named, `step_over` goes on behind it, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.support.batches import raw_batch
from tests.support.calm_brokers import TP, calm_brokers, fill, flip
from tests.support.model_broker import ModelBrokers, log_of

from millstream import Consumer, CorruptBatchError, aio
from millstream.core.records import HEADER_SIZE, Compression, RecordColumns

DEADLINE_S = 90.0
CONFIGS: dict[str, Any] = {"auto_offset_reset": "earliest", "retry_backoff_ms": 5}


@pytest.fixture
async def brokers() -> AsyncIterator[ModelBrokers]:
    async with calm_brokers() as running:
        yield running


def break_crc(brokers: ModelBrokers) -> None:
    bad = log_of(brokers.cluster).batches[2]
    bad.data = flip(HEADER_SIZE + 5)(bad.data)


def break_stream(brokers: ModelBrokers) -> None:
    log_of(brokers.cluster).batches[2].data = raw_batch(
        b"no stream of any codec", base_offset=20, attributes=int(Compression.ZSTD), last_offset_delta=9, count=10
    )


def break_records(brokers: ModelBrokers) -> None:
    """Its CRC is right: only who takes it apart can see it."""
    log_of(brokers.cluster).batches[2].data = raw_batch(b"\xff" * 40, base_offset=20, last_offset_delta=9, count=10)


Step = Callable[[Any], Awaitable[list[int]]]


async def records(consumer: aio.Consumer) -> list[int]:
    return [record.offset for record in await consumer.poll_records(DEADLINE_S, 7)]


async def one_by_one(consumer: aio.Consumer) -> list[int]:
    async for record in consumer:
        return [record.offset]
    raise AssertionError("it goes on for ever")


async def tables(consumer: aio.Consumer) -> list[int]:
    return (await consumer.poll_arrow(DEADLINE_S)).column("offset").to_pylist()  # type: ignore[no-any-return]


async def views(consumer: aio.Consumer) -> list[int]:
    async for batch in consumer.batches(7, views=True):
        return batch.column("offset").to_pylist()  # type: ignore[no-any-return]
    raise AssertionError("it goes on for ever")


def plain_records(consumer: Consumer) -> list[int]:
    return [record.offset for record in consumer.poll_records(DEADLINE_S, 7)]


def plain_one_by_one(consumer: Consumer) -> list[int]:
    return [next(iter(consumer)).offset]


def plain_tables(consumer: Consumer) -> list[int]:
    return consumer.poll_arrow(DEADLINE_S).column("offset").to_pylist()  # type: ignore[no-any-return]


def plain_views(consumer: Consumer) -> list[int]:
    return next(consumer.batches(7, views=True)).column("offset").to_pylist()  # type: ignore[no-any-return]


by_damage = pytest.mark.parametrize("damage", [break_crc, break_stream, break_records])


@by_damage
@pytest.mark.parametrize("take", [records, one_by_one, tables, views])
async def test_the_asyncio_faces(brokers: ModelBrokers, damage: Callable[[ModelBrokers], None], take: Step) -> None:
    fill(brokers, 5)
    damage(brokers)
    offsets: list[int] = []
    async with aio.Consumer(brokers.bootstrap_servers, **CONFIGS) as consumer:
        consumer.assign([TP])
        with pytest.raises(CorruptBatchError) as raised:  # noqa: PT012
            while True:
                offsets += await asyncio.wait_for(take(consumer), DEADLINE_S)
        assert (raised.value.topic_partition, raised.value.offset) == (TP, 20)
        assert offsets == list(range(20))
        assert await consumer.step_over(TP) == 30
        while len(offsets) < 40:
            offsets += await asyncio.wait_for(take(consumer), DEADLINE_S)
    assert offsets == [*range(20), *range(30, 50)]


@by_damage
@pytest.mark.parametrize("take", [plain_records, plain_one_by_one, plain_tables, plain_views])
async def test_the_faces_without_await(
    brokers: ModelBrokers, damage: Callable[[ModelBrokers], None], take: Callable[[Consumer], list[int]]
) -> None:
    fill(brokers, 5)
    damage(brokers)

    def read() -> list[int]:
        offsets: list[int] = []
        with Consumer(brokers.bootstrap_servers, **CONFIGS) as consumer:
            consumer.assign([TP])
            with pytest.raises(CorruptBatchError) as raised:  # noqa: PT012
                while True:
                    offsets += take(consumer)
            assert (raised.value.topic_partition, raised.value.offset) == (TP, 20)
            assert offsets == list(range(20))
            assert consumer.step_over(TP) == 30
            while len(offsets) < 40:
                offsets += take(consumer)
        return offsets

    # The brokers are on this loop.
    assert await asyncio.to_thread(read) == [*range(20), *range(30, 50)]


@pytest.mark.parametrize("max_records", [None, 7, 1])
async def test_pieces_name_it_where_they_are_taken_apart(brokers: ModelBrokers, max_records: int | None) -> None:
    """Whoever locates records by itself is told by `locate`, and goes on with a seek."""
    fill(brokers, 5)
    break_records(brokers)
    offsets: list[int] = []
    columns = RecordColumns(16)

    async def read(consumer: aio.Consumer) -> None:
        while len(offsets) < 40:
            for piece in await consumer.poll(DEADLINE_S, max_records=max_records):
                for located in piece.locate(columns):
                    offsets.extend(located.columns.offsets[located.start : located.end])

    async with aio.Consumer(brokers.bootstrap_servers, **CONFIGS) as consumer:
        consumer.assign([TP])
        with pytest.raises(CorruptBatchError) as raised:
            await read(consumer)
        assert offsets == list(range(20))
        assert (raised.value.offset, raised.value.next_offset) == (20, 30)
        consumer.seek(TP, 30)
        await read(consumer)
    assert offsets == [*range(20), *range(30, 50)]
