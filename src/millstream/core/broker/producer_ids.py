"""Producer ids, handed out from blocks that the cluster's metadata gives to this broker and to no other, ever.

Owned by the event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterMetadata


class ProducerIds:
    """The block in use. Ids left in it when the broker stops are never used."""

    def __init__(self, metadata: ClusterMetadata) -> None:
        self._metadata = metadata
        # Invariant: _next <= _end; both belong to the block in use.
        self._next = 0
        self._end = 0
        self._allocation: asyncio.Task[None] | None = None

    def take_now(self) -> int | None:
        """Return a fresh producer id; None where a block has to be fetched first."""
        if self._next == self._end:
            return None
        self._next += 1
        return self._next - 1

    async def take(self) -> int:
        """Return a fresh producer id; many who wait share one new block."""
        while True:
            taken = self.take_now()
            if taken is not None:
                return taken
            if self._allocation is None or self._allocation.done():
                self._allocation = asyncio.create_task(self._allocate(), name="producer-ids")
            await asyncio.shield(self._allocation)

    async def _allocate(self) -> None:
        block = await self._metadata.allocate_producer_ids()
        self._next, self._end = block.first_id, block.first_id + block.size
