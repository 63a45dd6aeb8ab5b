"""The pool charges what arrived, makes room by pressure, and keeps buffers within its bound."""

from millstream.core.broker.memory_pool import CHARGE_SIZE_BYTES, RETAINED_SIZE_BYTES_MAX, MemoryPool


def test_charges_up_to_its_size_and_no_more() -> None:
    pool = MemoryPool(100)
    assert pool.try_charge(60)
    assert not pool.try_charge(41)
    assert pool.try_charge(40)
    assert pool.free_bytes == 0
    pool.release(60)
    assert pool.free_bytes == 60


def test_one_charge_larger_than_the_pool_is_taken_alone() -> None:
    pool = MemoryPool(100)
    assert pool.try_charge(150)
    assert not pool.try_charge(1)
    pool.release(150)
    assert pool.try_charge(1)


def test_pressure_makes_room_until_it_cannot() -> None:
    held = [50, 50]

    def make_room() -> bool:
        if not held:
            return False
        pool.release(held.pop())
        return True

    pool = MemoryPool(100, make_room)
    assert pool.try_charge(100)
    assert pool.try_charge(70)
    assert held == []
    assert not pool.try_charge(70)


def test_release_calls_who_waits_once() -> None:
    calls: list[int] = []
    pool = MemoryPool(10)
    pool.charge(10)
    pool.when_released(lambda: calls.append(pool.free_bytes))
    pool.release(4)
    pool.release(6)
    assert calls == [4]


def test_a_frame_is_charged_as_it_fills_and_not_by_its_size() -> None:
    pool = MemoryPool(1 << 30)
    frame = pool.allocate(100 << 20)
    assert pool.used_bytes == 0
    frame.view[:5000] = b"x" * 5000
    frame.filled = 5000
    assert pool.try_charge_frame(frame)
    assert pool.used_bytes == CHARGE_SIZE_BYTES
    frame.filled = CHARGE_SIZE_BYTES + 1
    assert pool.try_charge_frame(frame)
    assert pool.used_bytes == 2 * CHARGE_SIZE_BYTES
    pool.free(frame)
    assert pool.used_bytes == 0


def test_freed_buffers_come_back_within_the_bound() -> None:
    pool = MemoryPool(1 << 30)
    first = pool.allocate(1 << 20)
    view = first.view
    pool.free(first)
    assert pool.allocate((1 << 20) - 5).view is view
    frames = [pool.allocate(1 << 20) for _ in range(2 * RETAINED_SIZE_BYTES_MAX >> 20)]
    for frame in frames:
        pool.free(frame)
    again = {id(pool.allocate(1 << 20).view) for _ in frames}
    assert len(again & {id(frame.view) for frame in frames}) == RETAINED_SIZE_BYTES_MAX >> 20


def test_a_buffer_that_may_still_be_read_is_not_used_again() -> None:
    pool = MemoryPool(1 << 30)
    frame = pool.allocate(1 << 20)
    pool.free(frame, reusable=False)
    assert pool.allocate(1 << 20).view is not frame.view
