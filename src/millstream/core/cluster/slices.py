"""Long work on the event loop, cut into slices between which others run.

    slices = Slices()
    for topic in topics:
        ...
        await slices.pause()

The unit is time and not items, since what an item costs is the client's choice: a topic has one partition or ten
thousand. Whoever works so holds no state over a pause that another may change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

SLICE_S: Final = 0.001


class Slices:
    """One piece of long work; its first slice begins when it is made."""

    __slots__ = ("_end", "_now")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is a monotonic clock, in seconds."""
        self._now = now
        self._end = now() + SLICE_S

    async def pause(self) -> None:
        """Let others run if this slice is over; call it after each item."""
        if self._now() >= self._end:
            await asyncio.sleep(0)
            self._end = self._now() + SLICE_S
