"""Waiters end by progress or by time, and leave nothing behind either way."""

import asyncio
from typing import Any, cast

import pytest

from millstream.core.broker import purgatory
from millstream.core.broker.purgatory import Purgatory


class _Partition:
    def __init__(self) -> None:
        self.fetch_waiters: dict[Any, None] = {}


async def test_progress_is_passed_on_until_the_watch_ends() -> None:
    waiting = Purgatory(asyncio.get_running_loop())
    one, two = _Partition(), _Partition()
    seen: list[int] = []
    watch = waiting.watch(cast("Any", [one, two]), 60_000, seen.append, lambda: seen.append(-1))
    assert watch is not None
    for partition in (one, two):
        for waiter in tuple(partition.fetch_waiters):
            waiter.handle_progress(7)
    assert seen == [7, 7]
    watch.end()
    watch.end()
    assert not one.fetch_waiters
    assert not two.fetch_waiters
    assert (waiting.waiters_count, waiting.watches_count) == (0, 0)


async def test_time_ends_a_watch_and_says_so() -> None:
    waiting = Purgatory(asyncio.get_running_loop())
    partition = _Partition()
    expired = asyncio.Event()
    watch = waiting.watch(cast("Any", [partition]), 5, lambda size: None, expired.set)
    assert watch is not None
    await asyncio.wait_for(expired.wait(), 60)
    assert watch.has_ended
    assert not partition.fetch_waiters
    assert waiting.watches_count == 0


async def test_a_full_purgatory_takes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purgatory, "WATCHES_COUNT_MAX", 3)
    waiting = Purgatory(asyncio.get_running_loop())
    partitions: list[Any] = [_Partition() for _ in range(2)]
    first = waiting.watch(partitions, 60_000, lambda size: None, lambda: None)
    assert first is not None
    assert waiting.watch(partitions, 60_000, lambda size: None, lambda: None) is None
    first.end()
    second = waiting.watch(partitions, 60_000, lambda size: None, lambda: None)
    assert second is not None
    second.end()
