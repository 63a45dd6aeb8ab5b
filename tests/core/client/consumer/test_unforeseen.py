"""Whatever goes wrong inside a consumer, its polls say so, and go on where that is possible: nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.support.calm_brokers import TP, calm_brokers, fill
from tests.support.model_broker import ModelBrokers

from millstream.core.client.consumer import Consumer, FetchedRecords
from millstream.core.client.consumer.errors import PartitionError
from millstream.core.records import Compression
from millstream.core.wire import ErrorCode, KafkaError

DEADLINE_S = 90.0


@pytest.fixture
async def brokers() -> AsyncIterator[ModelBrokers]:
    async with calm_brokers() as running:
        yield running


def made(brokers: ModelBrokers, **configs: Any) -> Consumer:
    consumer = Consumer(
        brokers.bootstrap_servers,
        **{"auto_offset_reset": "earliest", "retry_backoff_ms": 5, "enable_auto_commit": False, **configs},
    )
    consumer.assign([TP])
    return consumer


async def offsets_and_errors(consumer: Consumer, count: int) -> tuple[list[int], list[KafkaError]]:
    """Poll until so many records have come."""
    offsets: list[int] = []
    errors: list[KafkaError] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(offsets) < count:
            try:
                offsets += [record.offset for record in await consumer.poll_records(1.0)]
            except KafkaError as error:
                errors.append(error)
    return offsets, errors


def failing_once(owner: Any, name: str) -> None:
    """Have the next call of a method fail in a way that it never should."""
    method = getattr(owner, name)

    def fails(*args: Any, **kwargs: Any) -> Any:
        setattr(owner, name, method)
        raise ZeroDivisionError("unthinkable")

    setattr(owner, name, fails)


PLACES: dict[str, Callable[[Consumer], tuple[Any, str]]] = {
    "a fetch": lambda consumer: (consumer._engine.fetching, "handle_response"),
    "planning": lambda consumer: (consumer._engine.fetching, "plan"),
    "metadata": lambda consumer: (consumer._client, "metadata"),
    "looking for offsets": lambda consumer: (consumer._engine.lookups, "handle_response"),
}


@pytest.mark.parametrize("place", PLACES)
async def test_what_nobody_foresaw_is_raised_once_and_reading_goes_on(brokers: ModelBrokers, place: str) -> None:
    fill(brokers, 3)
    consumer = made(brokers)
    await consumer.start()
    failing_once(*PLACES[place](consumer))
    async with consumer:
        offsets, errors = await offsets_and_errors(consumer, 30)
        assert offsets == list(range(30))
        assert [error.code for error in errors] == [ErrorCode.UNKNOWN_SERVER_ERROR]
        assert "unthinkable" in errors[0].message
        assert isinstance(errors[0].__cause__, ZeroDivisionError)
        # Nothing of the bound is lost by it.
        fetching = consumer._engine.fetching
        assert sum(plan.reserved_bytes for plan in fetching._in_flight.values()) == fetching._reserved_bytes


async def test_committed_offsets_that_cannot_be_read_are_raised(brokers: ModelBrokers) -> None:
    fill(brokers, 1)
    consumer = made(brokers, group_id="readers")
    await consumer.start()

    async def committed(partitions: Any, **_: Any) -> dict[Any, Any]:
        return {}

    consumer._own_committer.committed = committed  # type: ignore[method-assign]
    failing_once(consumer._own_committer, "committed")
    async with consumer:
        offsets, errors = await offsets_and_errors(consumer, 10)
        assert offsets == list(range(10))
        assert [error.code for error in errors] == [ErrorCode.UNKNOWN_SERVER_ERROR]


async def test_what_lasts_is_raised_again_and_again_but_not_kept(brokers: ModelBrokers) -> None:
    fill(brokers, 1)
    consumer = made(brokers)
    await consumer.start()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("unthinkable")

    consumer._engine.fetching.plan = broken  # type: ignore[assignment, method-assign]
    async with consumer, asyncio.timeout(DEADLINE_S):
        for _ in range(3):
            with pytest.raises(KafkaError, match=r"planning what to fetch failed: .*unthinkable"):
                await consumer.poll(None)
        assert consumer._engine.take_error() is None


async def test_a_piece_that_finds_no_memory_to_be_opened_in_is_named(
    brokers: ModelBrokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(brokers, 3, Compression.ZSTD)
    opened = FetchedRecords.open

    def short_of_memory(piece: FetchedRecords, *arguments: object) -> FetchedRecords | None:
        raise MemoryError("no room")

    monkeypatch.setattr(FetchedRecords, "open", short_of_memory)
    async with made(brokers) as consumer:
        for _ in range(2):
            with pytest.raises(PartitionError, match="could not be opened: MemoryError") as raised:
                await consumer.poll(DEADLINE_S)
            assert (raised.value.topic_partition, raised.value.offset) == (TP, 0)
        with pytest.raises(KafkaError, match="no damaged batch to step over"):
            await consumer.step_over(TP)
        monkeypatch.setattr(FetchedRecords, "open", opened)
        consumer.seek(TP, 5)
        offsets, errors = await offsets_and_errors(consumer, 25)
        assert (offsets, errors) == (list(range(5, 30)), [])
