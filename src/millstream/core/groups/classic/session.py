"""How long somebody may stay silent: a deadline that each sign of life moves, and one timer behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from millstream.core.groups.timer_wheel import Timer, TimerWheel

# A timer is set for at most this far ahead and looks at the deadline when it fires. So a sign of life only moves a
# number, and the timer of one who left is out of the wheel soon, however long its session could have been.
TIMER_AHEAD_MS_MAX: Final = 10_000


class Session:
    """Calls `on_expiry(now_ms)` once, at the deadline or behind it, unless it is extended or cancelled before."""

    __slots__ = ("_on_expiry", "_timer", "_timers", "deadline_ms")

    def __init__(self, timers: TimerWheel, on_expiry: Callable[[int], None]) -> None:
        self._timers = timers
        self._on_expiry = on_expiry
        # When silence ends the session; without a timer it means nothing.
        self.deadline_ms = 0
        # Invariant: where a timer is set, it falls due no later than deadline_ms.
        self._timer: Timer | None = None

    def extend(self, now_ms: int, timeout_ms: int) -> None:
        """Begin anew: it expires `timeout_ms` from now."""
        self.deadline_ms = now_ms + timeout_ms
        timer = self._timer
        if timer is None:
            self._arm(now_ms)
        elif self.deadline_ms < timer.deadline_ms:
            timer.cancel()
            self._arm(now_ms)

    def cancel(self) -> None:
        """Never expire, unless it is extended again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, now_ms: int) -> None:
        self._timer = self._timers.set(min(self.deadline_ms, now_ms + TIMER_AHEAD_MS_MAX), self._fire)

    def _fire(self, now_ms: int) -> None:
        self._timer = None
        if now_ms < self.deadline_ms:
            self._arm(now_ms)
        else:
            self._on_expiry(now_ms)
