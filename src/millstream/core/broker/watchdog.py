"""The loop's watchdog: how late the event loop runs what it is given, and what it was doing when that was too late.

A thread of its own hands the loop a ping every `interval_ms` and waits for it to be run. The delay is the lag: observed
into a summary by the loop itself, so that nothing is shared. A ping that stays out longer than the threshold means that
the loop is held up; the thread then writes the loop thread's stack to the log, once per hold-up, while it still lasts.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Final

from millstream.core.metrics import Registry

logger = logging.getLogger(__name__)

INTERVAL_MS: Final = 100
CLOSED_CHECK_S: Final = 1.0  # how often a held-up loop is asked whether it was closed
RECENT_COUNT: Final = 100  # pings that `recent_lag_ms` looks back on: ten seconds at the usual interval
THRESHOLD_MS_MAX: Final = 3_600_000  # a larger one never comes to be; a thread cannot wait for 2**63 - 1
_NS_PER_MS: Final = 1_000_000
_NS_PER_US: Final = 1_000


class Watchdog:
    """Measures the lag of one event loop.

    States: STOPPED -> RUNNING (start) -> STOPPED (stop). `start` and `stop` are called on the loop.
    """

    def __init__(
        self,
        registry: Registry,
        now_ns: Callable[[], int],
        *,
        threshold_ms: Callable[[], int],
        interval_ms: int = INTERVAL_MS,
    ) -> None:
        """`now_ns` is a monotonic clock; `threshold_ms` is asked each time, so that it may be changed while running."""
        self._now_ns = now_ns
        self._threshold_ms = threshold_ms
        self._interval_s = interval_ms / 1000
        self._lag = registry.summary(
            "millstream_loop_lag_ms", "Milliseconds from a callback due to its running."
        ).labels()
        self._stalls = registry.counter(
            "millstream_loop_stalls_total", "Times the event loop was held up beyond the threshold."
        ).labels()
        registry.read_gauge("millstream_loop_lag_max_ms", "Greatest lag of the last ten seconds.", self.recent_lag_ms)
        # Lags of the last pings in microseconds; written and read on the loop.
        self._recent_us: deque[int] = deque(maxlen=RECENT_COUNT)
        self._stopping = threading.Event()
        self._answered = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to ping the running loop from a thread."""
        assert self._thread is None, "the watchdog runs already"
        self._stopping.clear()
        self._thread = threading.Thread(
            target=self._watch,
            args=(asyncio.get_running_loop(), threading.get_ident()),
            name="millstream-watchdog",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it sees that within microseconds, so this does not hold up the loop."""
        if self._thread is None:
            return
        self._stopping.set()
        self._answered.set()
        self._thread.join()
        self._thread = None

    def recent_lag_ms(self) -> float:
        """Greatest lag of the last ten seconds, in milliseconds."""
        return max(self._recent_us, default=0) / 1000

    def _watch(self, loop: asyncio.AbstractEventLoop, loop_thread_id: int) -> None:
        while not self._stopping.wait(self._interval_s):
            self._answered.clear()
            if self._stopping.is_set():  # `stop` waits on the loop: a ping would not be answered
                return
            sent_ns = self._now_ns()
            try:
                loop.call_soon_threadsafe(self._ping, sent_ns)
            except RuntimeError:  # the loop was closed without stopping us
                return
            if self._answered.wait(min(self._threshold_ms(), THRESHOLD_MS_MAX) / 1000) or self._stopping.is_set():
                continue
            if loop.is_closed():  # it took the ping with it
                return
            stack = _stack_of(loop_thread_id)
            # The loop may have come back while the stack was taken; then it shows an innocent.
            if not self._answered.is_set():
                logger.warning(
                    "the event loop is held up for %d ms and longer; it is at:\n%s",
                    (self._now_ns() - sent_ns) // _NS_PER_MS,
                    stack,
                )
            while not self._answered.wait(CLOSED_CHECK_S):
                if loop.is_closed():
                    return
            if self._stopping.is_set():
                return
            logger.warning("the event loop runs again after %d ms", (self._now_ns() - sent_ns) // _NS_PER_MS)

    def _ping(self, sent_ns: int) -> None:
        lag_us = (self._now_ns() - sent_ns) // _NS_PER_US
        self._answered.set()
        self._lag.observe(lag_us)
        self._recent_us.append(lag_us)
        if lag_us >= self._threshold_ms() * 1000:
            self._stalls.value += 1


def _stack_of(thread_id: int) -> str:
    frame = sys._current_frames().get(thread_id)
    return "".join(traceback.format_stack(frame)) if frame is not None else "(the thread has ended)"
