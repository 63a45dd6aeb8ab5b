"""Timers of thousands of members: sessions, rebalances, expiries.

Time is passed in, so a test turns the wheel by hand. A timer falls due at the first tick at or behind its deadline,
never before it. Setting and cancelling cost the same however many there are: timers of one tick share a slot, and a
cancelled one is dropped when its slot comes up, or with all others once they are the most: a client may ask for
deadlines that are weeks ahead, and have them cancelled thousands of times a second.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

TICK_MS: Final = 10
# Cancelled timers that may stand in the wheel, however few others there are.
CANCELLED_COUNT_MAX: Final = 1_000


def _never() -> bool:
    return False


class Timer:
    """One deadline; `cancel` it, or it calls once."""

    __slots__ = ("_callback", "_wheel", "deadline_ms")

    def __init__(self, wheel: TimerWheel, deadline_ms: int, callback: Callable[[int], None]) -> None:
        self.deadline_ms = deadline_ms
        self._wheel = wheel
        self._callback: Callable[[int], None] | None = callback

    @property
    def is_active(self) -> bool:
        """Whether it will still call."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never call."""
        if self._callback is not None:
            self._callback = None
            self._wheel.handle_cancelled()

    def fire(self, now_ms: int) -> None:
        """Call, unless that was done or cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(now_ms)


class TimerWheel:
    """All timers of the coordinator, by the tick they fall due in."""

    __slots__ = ("_cancelled_count", "_count", "_is_advancing", "_slots", "_ticks")

    def __init__(self) -> None:
        self._slots: dict[int, list[Timer]] = {}
        # Ticks that have a slot, the nearest first.
        self._ticks: list[int] = []
        # Timers in the slots, and those of them that are cancelled.
        # Invariant: _cancelled_count <= max(CANCELLED_COUNT_MAX, _count / 2).
        self._count = 0
        self._cancelled_count = 0
        self._is_advancing = False

    def __len__(self) -> int:
        """How many timers it holds, cancelled ones included."""
        return self._count

    @property
    def next_deadline_ms(self) -> int | None:
        """When `advance` has something to do next; None where nothing is set."""
        return self._ticks[0] * TICK_MS if self._ticks else None

    def set(self, deadline_ms: int, callback: Callable[[int], None]) -> Timer:
        """Call `callback(now_ms)` at the first `advance` to `deadline_ms` or later."""
        timer = Timer(self, deadline_ms, callback)
        self._count += 1
        tick = -(-deadline_ms // TICK_MS)
        slot = self._slots.get(tick)
        if slot is None:
            self._slots[tick] = [timer]
            heapq.heappush(self._ticks, tick)
        else:
            slot.append(timer)
        return timer

    def soon(self, now_ms: int, callback: Callable[[int], None]) -> Timer:
        """Call `callback` with what is due now: in the `advance` to `now_ms` that goes on, or with the next one."""
        return self.set(now_ms // TICK_MS * TICK_MS, callback)

    def advance(self, now_ms: int, *, is_over: Callable[[], bool] = _never) -> None:
        """Fire what is due, in the order of ticks and, within one, in the order it was set, until `is_over`.

        What a callback sets for now or earlier fires in the same call. A callback that raises ends the call; the timers
        behind it are left for the next, and so are those that it was over for; `next_deadline_ms` stands for them.
        """
        assert not self._is_advancing, "a timer advances the wheel that it stands in"
        self._is_advancing = True
        try:
            while self._ticks and self._ticks[0] * TICK_MS <= now_ms:
                if self._fire_slot(self._ticks[0], now_ms, is_over):
                    return
        finally:
            self._is_advancing = False
            self._maybe_drop_cancelled()

    def _fire_slot(self, tick: int, now_ms: int, is_over: Callable[[], bool]) -> bool:
        """Fire the timers of a slot; return whether it was over before the end."""
        slot = self._slots[tick]
        due, slot[:] = slot[::-1], []
        try:
            while due:
                timer = due.pop()
                self._count -= 1
                if not timer.is_active:
                    self._cancelled_count -= 1
                    continue
                timer.fire(now_ms)
                if is_over():
                    return True
        finally:
            slot[:0] = due[::-1]
            if not slot and self._ticks[0] == tick:
                del self._slots[heapq.heappop(self._ticks)]
        return False

    def handle_cancelled(self) -> None:
        """One of its timers was cancelled."""
        self._cancelled_count += 1
        self._maybe_drop_cancelled()

    def _maybe_drop_cancelled(self) -> None:
        too_many = self._cancelled_count > CANCELLED_COUNT_MAX and 2 * self._cancelled_count > self._count
        if self._is_advancing or not too_many:
            return
        kept = {tick: [timer for timer in slot if timer.is_active] for tick, slot in self._slots.items()}
        self._slots = {tick: slot for tick, slot in kept.items() if slot}
        self._ticks = sorted(self._slots)
        self._count -= self._cancelled_count
        self._cancelled_count = 0
