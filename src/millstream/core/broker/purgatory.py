"""Where requests wait: keyed by partition, ended by progress there or by their time.

The waiters of a partition stand on the partition itself (`Partition.fetch_waiters`), so progress finds them without a
lookup; the purgatory adds the clock and the bound. A waiter that ends, however it ends, leaves nothing behind: no
entry on a partition and no timer. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from millstream.core.broker.partition import Partition

# Sum over all waiters of the partitions they watch. A request that would pass it is answered at once instead.
WATCHES_COUNT_MAX: Final = 1_000_000
WAIT_MS_MAX: Final = 24 * 3600 * 1000


class Purgatory:
    """The clock and the bound of all waiting requests."""

    __slots__ = ("_loop", "waiters_count", "watches_count")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.waiters_count = 0
        # Invariant: the sum of len(partition.fetch_waiters) over all partitions.
        self.watches_count = 0

    def watch(
        self,
        partitions: Sequence[Partition],
        max_wait_ms: int,
        on_progress: Callable[[int], None],
        on_expired: Callable[[], None],
    ) -> Watch | None:
        """Wait on several partitions; None where the purgatory is full and the request must be answered as it stands.

        `on_progress(size_bytes)` is called for each that got more to read, until the watch is ended.
        """
        if self.watches_count + len(partitions) > WATCHES_COUNT_MAX:
            return None
        return Watch(self, self._loop, partitions, max_wait_ms, on_progress, on_expired)


class Watch:
    """One request in purgatory. States: WAITING -> ENDED (end; its time having come ends it as well)."""

    __slots__ = ("_on_expired", "_partitions", "_purgatory", "_timer", "handle_progress")

    def __init__(
        self,
        purgatory: Purgatory,
        loop: asyncio.AbstractEventLoop,
        partitions: Sequence[Partition],
        max_wait_ms: int,
        on_progress: Callable[[int], None],
        on_expired: Callable[[], None],
    ) -> None:
        self._purgatory = purgatory
        self._partitions: Sequence[Partition] | None = partitions
        self.handle_progress = on_progress
        self._on_expired = on_expired
        for partition in partitions:
            partition.fetch_waiters[self] = None
        purgatory.waiters_count += 1
        purgatory.watches_count += len(partitions)
        self._timer = loop.call_later(min(max_wait_ms, WAIT_MS_MAX) / 1000, self._expire)

    @property
    def has_ended(self) -> bool:
        return self._partitions is None

    def end(self) -> None:
        """Leave nothing behind; may be called twice."""
        partitions = self._partitions
        if partitions is None:
            return
        self._partitions = None
        self._timer.cancel()
        # The one who waited refers to this watch: without a way back there is no cycle.
        self.handle_progress = _ignore
        self._on_expired = _nothing
        for partition in partitions:
            partition.fetch_waiters.pop(self, None)
        self._purgatory.waiters_count -= 1
        self._purgatory.watches_count -= len(partitions)

    def _expire(self) -> None:
        on_expired = self._on_expired
        self.end()
        on_expired()


def _ignore(_size_bytes: int) -> None:
    """Progress after the end."""


def _nothing() -> None:
    """Time after the end."""
