"""Work that is done again and again beside the requests: retention, checkpoints, flushes, expiry, disk space.

One task per kind of work. The time between two runs counts from the end of one, so work that is slow never piles up. A
run that fails is logged and tried again at the next turn: a broker must not lose retention over one bad moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

logger = logging.getLogger(__name__)

INTERVAL_S_MIN: Final = 0.05  # 0 means "all the time" in Kafka's files; the loop has other work
INTERVAL_S_MAX: Final = 86_400.0  # an interval of "never" (2**63 - 1 ms) is looked at again each day


class Periodic:
    """One kind of work and its task.

    States: STOPPED -> RUNNING (start) -> STOPPED (stop: a run in progress is finished first).
    """

    def __init__(self, name: str, interval_ms: Callable[[], int], work: Callable[[], Awaitable[object]]) -> None:
        """`interval_ms` is asked before each pause, so that a dynamic config takes effect with the next."""
        self._name = name
        self._interval_ms = interval_ms
        self._work = work
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with a pause, so that a start is not slowed by work that can wait."""
        assert self._task is None, f"{self._name} runs already"
        self._stopping.clear()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"millstream-{self._name}")

    async def stop(self) -> None:
        """End the pause, or wait for the run in progress."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._stopping.set()
        await task

    async def _run(self) -> None:
        while True:
            pause_s = min(max(self._interval_ms() / 1000, INTERVAL_S_MIN), INTERVAL_S_MAX)
            try:
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass
            else:
                return
            try:
                await self._work()
            except Exception:  # whatever it was this time, the next time may do
                logger.exception("%s failed; it is tried again in %.1f s", self._name, pause_s)
