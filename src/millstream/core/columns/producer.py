"""The asyncio producer with Arrow: that of `core.client`, and tables.

async with Producer("127.0.0.1:9092") as producer:
    handle = await producer.send_batch("flights", table, key="carrier", value="body")
    metadata = await handle
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

from millstream.core.client.producer.handles import BatchHandle
from millstream.core.client.producer.producer import Producer as BytesProducer
from millstream.core.columns.sent_table import TableHandle

if TYPE_CHECKING:
    from millstream.core.columns.encoding import EncodedBatch

# Batches encoded by one visit to a worker thread; they are beside buffer_memory until there is room in it.
_BATCHES_ASIDE: Final = 8


class Producer(BytesProducer):
    """A producer that also sends tables; see `core.client.producer`."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def send_batch(
        self,
        topic: str,
        data: Any,
        *,
        key: Any = None,
        value: Any = None,
        timestamp: Any = None,
        partition: Any = None,
        headers: Any = None,
    ) -> TableHandle:
        """Send each row of `data` as a record; return a handle of all of them when the last one is on its way.

        `data` is anything of Arrow's: a table, record batch or stream of pyarrow, polars, pandas, duckdb; or a mapping
        of names to lists. Each part of the records is a column's name or an array as long as the table:

            key, value    bytes or text; the columns "key" and "value" where not given, null where there is none
            timestamp     a timestamp, or milliseconds since 1970; now
            partition     integers, or one number for all; by the key as Java's producer, in turn without one
            headers       list<struct<key, value>> or map; none

        Waits for room as `send_soon` does. Rows keep their order within a partition. Raises KeyError for a column that
        is not there, TypeError for one of a wrong type, ValueError for a null or negative timestamp or partition,
        KafkaError for a row that is too large or a partition that the topic has not; each names the row. What is sent
        goes by parts: rows in front of one that is refused may be on their way. Interceptors do not see tables.
        """
        from millstream.core.columns.outgoing import Choice

        await self.partitions_for(topic)
        sent: list[tuple[int, BatchHandle]] = []
        batches = self.encoded(topic, data, Choice(key, value, timestamp, partition, headers))
        loop = asyncio.get_running_loop()
        while some := await loop.run_in_executor(None, lambda: list(islice(batches, _BATCHES_ASIDE))):
            sent += [(batch.topic_partition.partition, await self.send_encoded(*batch)) for batch in some]
        return TableHandle(topic, sent)

    def encoded(self, topic: str, data: Any, choice: Any) -> Iterator[EncodedBatch]:
        """Yield `data` as encoded batches for a topic whose partitions are known; on any thread."""
        from millstream.core.columns.encoding import Encoder
        from millstream.core.columns.outgoing import outgoing

        config = self.config
        encoder = Encoder(
            topic,
            self.partition_count(topic),
            partial(self.choose_partition, topic),
            batch_size=config.integer("batch.size"),
            batch_size_max=min(config.integer("max.request.size"), config.integer("buffer.memory")),
            ignore_keys=config.boolean("partitioner.ignore.keys"),
            partitioner=self._partitioner,
        )
        for part in outgoing(data, choice, time.time_ns() // 1_000_000):
            yield from encoder.encode(part)
