"""Puts records into topics and takes them out again, for tests whose subject is something else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from millstream.core.client import EARLIEST, Client, NewTopic, TopicPartition, create_topics, list_offsets
from millstream.core.client.consumer import Consumer
from millstream.core.client.producer import BatchHandle, Producer, RecordHandle
from millstream.core.records import HEADER_SIZE, Compression, Record, read_header

_DEADLINE_S: Final = 90.0
_Headers = Sequence[tuple[str, bytes | None]]


async def made_topic(client: Client, name: str, partitions: int = 3, **configs: str) -> str:
    """Create a topic that is served: Apache Kafka answers before its broker has heard of it."""
    named = {key.replace("_", "."): value for key, value in configs.items()}
    assert await create_topics(client, [NewTopic(name, partitions, configs=named)]) == {name: None}
    await list_offsets(client, {TopicPartition(name, index): EARLIEST for index in range(partitions)})
    return name


class TopicWriter:
    """Writes what it was given when its block ends, or at `flush`; all of it is acknowledged then.

    async with TopicWriter(client, batch_bytes=1_000) as writer:
        writer.append(TopicPartition("flights", 0), b"key", b"value")
    """

    def __init__(
        self, client: Client, *, compression: Compression = Compression.NONE, batch_bytes: int = 16_384
    ) -> None:
        self._producer = Producer(
            client.config.strings("bootstrap.servers"),
            compression_type=compression.name.lower(),
            batch_size=batch_bytes,
            buffer_memory=64 * 1024 * 1024,
            max_request_size=32 * 1024 * 1024,
        )
        self._waiting: list[tuple[TopicPartition, bytes | None, bytes | None, int | None, _Headers]] = []
        self._handles: list[RecordHandle | BatchHandle] = []

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.flush()
        finally:
            await self._producer.close(0 if error is not None else _DEADLINE_S)

    def append(
        self,
        tp: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        *,
        timestamp: int | None = None,
        headers: _Headers = (),
    ) -> None:
        """Have a record written."""
        self._waiting.append((tp, key, value, timestamp, headers))

    async def send_batch(self, tp: TopicPartition, batch: bytes) -> None:
        """Have an uncompressed batch of the caller's own written."""
        await self.flush()
        await self._producer.partitions_for(tp.topic)
        header = read_header(batch)
        assert len(batch) > HEADER_SIZE, batch
        self._handles.append(
            await self._producer.send_encoded(
                tp, bytearray(batch), header.count, header.base_timestamp, header.max_timestamp
            )
        )

    async def flush(self) -> None:
        """Write what is waiting. Raises what any record ended with."""
        for tp, key, value, timestamp, headers in self._waiting:
            self._handles.append(
                await self._producer.send_soon(
                    tp.topic, value, key=key, partition=tp.partition, timestamp_ms=timestamp, headers=headers
                )
            )
        self._waiting.clear()
        await self._producer.flush(_DEADLINE_S)
        for handle in self._handles:
            await handle
        self._handles.clear()


async def read_topics(client: Client, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, list[Record]]:
    """Return every record that partitions hold now."""
    found: dict[TopicPartition, list[Record]] = {tp: [] for tp in partitions}
    async with (
        Consumer(client.config.strings("bootstrap.servers"), auto_offset_reset="earliest") as consumer,
        asyncio.timeout(_DEADLINE_S),
    ):
        ends = await consumer.end_offsets(found)
        consumer.assign(found)
        consumer.seek_to_beginning()
        while any((at := consumer.position(tp)) is None or at < end for tp, end in ends.items()):
            for one in await consumer.poll_records(0.1, 5_000):
                record = Record(one.offset, one.timestamp, one.key, one.value, tuple(one.headers))
                found[TopicPartition(one.topic, one.partition)].append(record)
    return found
