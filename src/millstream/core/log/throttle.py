"""How much a group of threads may read and write in a second.

The cleaner's: `log.cleaner.io.max.bytes.per.second`; those that move logs to another directory:
`replica.alter.log.dirs.io.max.bytes.per.second`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

BURST_S: Final = 0.1
# A wait looks again as often: the rate may have been raised, and a rate set too low by mistake may mean days.
LOOK_AGAIN_S: Final = 1.0
_MOMENT_S: Final = 0.001


class Throttle:
    """A bucket that runs over: who took more than the rate allows waits until it has drained. For any thread."""

    def __init__(self, now_s: Callable[[], float], wait: Callable[[float], bool]) -> None:
        """`wait(seconds)` returns True, early, when its owner stops. Without a rate nobody waits."""
        self._now_s = now_s
        self._wait = wait
        self._lock = threading.Lock()
        self._rate = float("inf")
        # Bytes taken, and those of them that have drained, by `_drained_s`. Invariant: _drained <= _taken.
        self._taken = 0
        self._drained = 0.0
        self._drained_s = now_s()

    def set_rate(self, bytes_per_second: float) -> None:
        """Allow so many bytes a second from now on; who waits already waits by the new rate."""
        with self._lock:
            self._drain()
            self._rate = max(bytes_per_second, 1.0)

    def take(self, size_bytes: int, *, is_over: Callable[[], bool] = lambda: False) -> None:
        """Count bytes read or written; blocks while they are too many and their work is not `is_over`."""
        with self._lock:
            self._drain()
            self._taken += size_bytes
            mine = self._taken
            due_s = (mine - self._drained) / self._rate
        if due_s <= BURST_S:
            return
        while due_s > _MOMENT_S and not is_over() and not self._wait(min(due_s, LOOK_AGAIN_S)):
            with self._lock:
                self._drain()
                due_s = (mine - self._drained) / self._rate

    def _drain(self) -> None:
        now_s = self._now_s()
        passed_s, self._drained_s = now_s - self._drained_s, now_s
        if self._rate == float("inf"):
            self._drained = float(self._taken)
        elif passed_s > 0:
            self._drained = min(self._drained + passed_s * self._rate, float(self._taken))
