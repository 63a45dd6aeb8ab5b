"""The asyncio consumer with Arrow: that of `core.client`, and record batches.

async with Consumer("127.0.0.1:9092", group_id="loaders", auto_offset_reset="earliest") as consumer:
    consumer.subscribe(["flights"])
    async for batch in consumer.batches():
        table = pyarrow.Table.from_batches([batch])
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer import Consumer as BytesConsumer
from millstream.core.client.consumer import FetchedRecords
from millstream.core.net import BufferPool

if TYPE_CHECKING:
    import pyarrow as pa

# What is gathered on the loop itself, in about a tenth of a millisecond; more goes to a worker thread.
GATHERED_ON_LOOP_BYTES: Final = 256 * 1024
# Buffers of batches that are gone, kept for the next ones: those of two polls, about.
POOLED_BYTES_MAX: Final = 16 * 1024 * 1024


class Consumer(BytesConsumer):
    """A consumer whose records come as Arrow record batches, as lists, or one by one; see `core.client.consumer`."""

    @cached_property
    def batch_pool(self) -> BufferPool:
        """What batches are gathered into."""
        return BufferPool(min(POOLED_BYTES_MAX, self.config.integer("buffer.memory") // 4))

    async def _close(self, timeout_s: float | None, *, is_done: bool) -> None:
        try:
            await super()._close(timeout_s, is_done=is_done)
        finally:
            self.batch_pool.clear()

    async def poll_arrow(
        self, timeout_s: float | None = 0.0, max_records: int | None = None, *, views: bool = False
    ) -> pa.RecordBatch:
        """Return records as soon as there are any, as one batch, else an empty one after `timeout_s` (None: never).

        Columns: topic, partition, offset, timestamp, timestamp_type, key, value, headers, leader_epoch; see
        `core.columns.schema`. At most `max_records` rows; without it about 4 MB of records. With `views`, key and
        value are `binary_view` over the fetched bytes, which count in buffer_memory until the arrays are gone.
        Raises as `poll` does.
        """
        from millstream.core.columns.gathering import empty_batch, gather

        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        left_s = timeout_s
        while True:
            pieces = await self.poll(left_s, max_records=max_records)
            if not pieces:
                return empty_batch(views=views)
            try:
                if sum(piece.size_bytes for piece in pieces) <= GATHERED_ON_LOOP_BYTES:
                    gathered = gather(pieces, views=views, pool=self.batch_pool)
                else:
                    work = partial(gather, pieces, views=views, pool=self.batch_pool)
                    gathered = await asyncio.get_running_loop().run_in_executor(None, work)
            except BaseException:
                self.return_unread(starts_of(pieces))
                raise
            if gathered.left:
                self.return_unread(gathered.left, gathered.error)
            if gathered.batch.num_rows:
                return gathered.batch
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())

    async def batches(self, max_records: int | None = None, *, views: bool = False) -> AsyncIterator[pa.RecordBatch]:
        """Yield batches of records for ever, each as `poll_arrow` returns it and none of them empty."""
        while True:
            yield await self.poll_arrow(None, max_records, views=views)


def starts_of(pieces: list[FetchedRecords]) -> dict[TopicPartition, int]:
    """Return where each partition among `pieces` begins."""
    starts: dict[TopicPartition, int] = {}
    for piece in pieces:
        starts.setdefault(piece.topic_partition, piece.offset)
    return starts
