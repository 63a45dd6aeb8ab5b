"""How much the cleaner threads together may read and write in a second (`log.cleaner.io.max.bytes.per.second`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

BURST_S: Final = 0.1


class Throttle:
    """A bucket that runs over: who took more than the rate allows waits until it has drained. For any thread."""

    def __init__(self, now_s: Callable[[], float], wait: Callable[[float], object]) -> None:
        """`wait(seconds)` returns early when the cleaner stops. Without a rate nobody waits."""
        self._now_s = now_s
        self._wait = wait
        self._lock = threading.Lock()
        self._rate = float("inf")
        # When all that was taken will have been paid for.
        self._paid_s = 0.0

    def set_rate(self, bytes_per_second: float) -> None:
        """Allow so many bytes a second."""
        with self._lock:
            self._rate = max(bytes_per_second, 1.0)

    def take(self, size_bytes: int) -> None:
        """Count bytes read or written; blocks as long as they are too many."""
        with self._lock:
            now_s = self._now_s()
            self._paid_s = max(self._paid_s, now_s) + size_bytes / self._rate
            due_s = self._paid_s - now_s
        if due_s > BURST_S:
            self._wait(due_s)
