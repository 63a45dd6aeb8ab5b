"""Timers of thousands of members: sessions, rebalances, expiries.

Time is passed in, so a test turns the wheel by hand. A timer falls due at the first tick at or behind its deadline,
never before it. Setting and cancelling cost the same however many there are: timers of one tick share a slot, and a
cancelled one is dropped when its slot comes up.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

TICK_MS: Final = 10


class Timer:
    """One deadline; `cancel` it, or it calls once."""

    __slots__ = ("_callback", "deadline_ms")

    def __init__(self, deadline_ms: int, callback: Callable[[int], None]) -> None:
        self.deadline_ms = deadline_ms
        self._callback: Callable[[int], None] | None = callback

    @property
    def is_active(self) -> bool:
        """Whether it will still call."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never call."""
        self._callback = None

    def fire(self, now_ms: int) -> None:
        """Call, unless that was done or cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(now_ms)


class TimerWheel:
    """All timers of the coordinator, by the tick they fall due in."""

    __slots__ = ("_slots", "_ticks")

    def __init__(self) -> None:
        self._slots: dict[int, list[Timer]] = {}
        # Ticks that have a slot, the nearest first.
        self._ticks: list[int] = []

    @property
    def next_deadline_ms(self) -> int | None:
        """When `advance` has something to do next; None where nothing is set."""
        return self._ticks[0] * TICK_MS if self._ticks else None

    def set(self, deadline_ms: int, callback: Callable[[int], None]) -> Timer:
        """Call `callback(now_ms)` at the first `advance` to `deadline_ms` or later."""
        timer = Timer(deadline_ms, callback)
        tick = -(-deadline_ms // TICK_MS)
        slot = self._slots.get(tick)
        if slot is None:
            self._slots[tick] = [timer]
            heapq.heappush(self._ticks, tick)
        else:
            slot.append(timer)
        return timer

    def advance(self, now_ms: int) -> None:
        """Fire what is due, in the order of ticks and, within one, in the order it was set.

        What a callback sets for now or earlier fires in the same call. A callback that raises ends the call; the timers
        behind it are left for the next.
        """
        while self._ticks and self._ticks[0] * TICK_MS <= now_ms:
            tick = self._ticks[0]
            slot = self._slots[tick]
            due, slot[:] = slot[::-1], []
            try:
                while due:
                    due.pop().fire(now_ms)
            finally:
                slot[:0] = due[::-1]
            if not slot and self._ticks[0] == tick:
                del self._slots[heapq.heappop(self._ticks)]
