"""BufferPool: a buffer comes again once nothing looks at it, and never before; what is kept stays within the bound."""

from __future__ import annotations

import random

import pytest

from millstream.core.net import BufferPool

MB = 1 << 20


def test_a_buffer_that_nothing_looks_at_comes_again() -> None:
    pool = BufferPool(8 * MB)
    first = pool.take(MB)
    known = id(first)
    del first
    again = pool.take(MB - 1000)
    assert id(again) == known
    assert id(pool.take(MB)) != known


@pytest.mark.parametrize("deep", [False, True])
def test_a_view_keeps_it(deep: bool) -> None:
    pool = BufferPool(8 * MB)
    buffer = pool.take(MB)
    view = memoryview(buffer)
    if deep:
        view = view[100:200].toreadonly()[10:20]
    known = id(buffer)
    del buffer
    assert pool.find(MB) is None
    assert id(pool.take(MB)) != known
    del view
    assert pool.find(MB) is not None


def test_the_smallest_that_fits_comes() -> None:
    pool = BufferPool(64 * MB)
    for buffer in [pool.take(size * MB) for size in (8, 1, 4)]:
        assert len(buffer) >= MB
    del buffer
    found = pool.find(2 * MB)
    assert found is not None
    assert len(found) == 4 * MB
    assert pool.find(20 * MB) is None


def test_a_little_does_not_hold_a_large_one() -> None:
    pool = BufferPool(64 * MB)
    assert len(pool.take(32 * MB)) == 32 * MB
    assert len(pool.take(MB)) < 4 * MB
    assert len(pool.take(16 * MB)) == 32 * MB


def test_free_ones_make_room_for_a_new_one_and_used_ones_stay() -> None:
    pool = BufferPool(4 * MB)
    used = pool.take(MB)
    pool.take(2 * MB)
    assert pool.held_bytes == 3 * MB
    large = pool.take(3 * MB)
    assert pool.held_bytes == 4 * MB
    # Nothing is free: this one is not kept.
    assert len(pool.take(MB)) >= MB
    assert pool.held_bytes == 4 * MB
    assert len(pool.take(100 * MB)) >= 100 * MB
    assert pool.held_bytes == 4 * MB
    assert len(used) + len(large) == 4 * MB


def test_nothing_is_kept_of_what_was_cleared() -> None:
    pool = BufferPool(8 * MB)
    used = memoryview(pool.take(MB))
    pool.take(2 * MB)
    pool.clear()
    assert pool.held_bytes == 0
    assert pool.find(MB) is None
    assert len(used) >= MB


@pytest.mark.parametrize("seed", range(5))
def test_what_is_looked_at_keeps_its_bytes_and_the_bound_holds(seed: int) -> None:
    draw = random.Random(seed)
    pool = BufferPool(2 * MB)
    held: list[tuple[memoryview, int]] = []
    for number in range(500):
        size = draw.choice([0, 1, 50_000, 100_000, 700_000, 3_000_000])
        view = memoryview(pool.take(size))[:size]
        view[: min(size, 1)] = bytes([number % 256])[: min(size, 1)]
        held.append((view.toreadonly(), number % 256))
        del view
        while held and draw.random() < 0.6:
            held.pop(draw.randrange(len(held)))
        assert pool.held_bytes <= 2 * MB
        assert all(view[0] == mark for view, mark in held if len(view))


def test_what_cannot_be_had_is_a_memory_error() -> None:
    pool = BufferPool(8 * MB)
    with pytest.raises(MemoryError, match="can be had for a buffer"):
        pool.take(1 << 60)
    assert len(pool.take(MB)) >= MB
