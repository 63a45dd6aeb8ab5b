"""Writing: records gathered into batches per partition, one batch of each partition in flight, idempotent by choice.

`append` is a plain call that puts a record into its partition's open batch, so a caller pays no await per record; it
awaits `room` now and then, which is where backpressure is. A batch is closed when it is full, or by `flush`. Batches of
many partitions with the same leader travel in one request, and a broker may have several requests in flight, but no
partition has two: records never change their order, with retries or without.

A batch that a retry can help is sent again until its deadline. With `idempotent` the broker drops what it has already
(KIP-98), so a retry never writes twice; there a batch that failed leaves a hole in its partition's sequence, and the
producer takes no more.

States: NEW -> OPEN (start) -> FAILED (a batch was lost while idempotent) -> CLOSED (close). Owned by one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.producer.ids import init_producer_id
from millstream.core.records import BatchBuilder, Compression
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)

BATCH_BYTES: Final = 256 * 1024
REQUEST_BYTES_MAX: Final = 8 * 1024 * 1024
BUFFERED_BYTES_MAX: Final = 64 * 1024 * 1024
DELIVERY_TIMEOUT_MS: Final = 120_000
REQUESTS_PER_BROKER_MAX: Final = 5
_RETRY_PAUSE_S: Final = 0.05
_RECORD_OVERHEAD_BYTES: Final = 24  # lengths, deltas, and the attributes of a record, at most about this
_ALREADY_WRITTEN: Final = frozenset({ErrorCode.DUPLICATE_SEQUENCE_NUMBER})


class _Batch:
    """A closed batch on its way; `first_offset` is set when the broker has it."""

    __slots__ = ("attempts", "count", "data", "deadline", "topic_partition")

    def __init__(self, topic_partition: TopicPartition, data: bytes, count: int, deadline: float) -> None:
        self.topic_partition = topic_partition
        self.data = data
        self.count = count
        self.deadline = deadline
        self.attempts = 0


class _OpenBatch:
    __slots__ = ("builder", "count", "size_bytes")

    def __init__(self, builder: BatchBuilder) -> None:
        self.builder = builder
        self.count = 0
        self.size_bytes = 0


class BatchWriter:
    """Sends records to partitions of the caller's choice; an async context manager that flushes at its end."""

    def __init__(
        self,
        client: Client,
        *,
        acks: int = -1,
        idempotent: bool = False,
        compression: Compression = Compression.NONE,
        batch_bytes: int = BATCH_BYTES,
        buffered_bytes_max: int = BUFFERED_BYTES_MAX,
        delivery_timeout_ms: int = DELIVERY_TIMEOUT_MS,
        on_delivery: Callable[[TopicPartition, int, int], None] | None = None,
    ) -> None:
        """`on_delivery(topic_partition, first_offset, count)` is called for each batch the broker took.

        With acks=0 the first offset is -1: nobody knows it.
        """
        if idempotent and acks != -1:
            raise ValueError("an idempotent producer needs acks=all (-1): otherwise the broker may forget what it took")
        self._client = client
        self._acks = acks
        self._idempotent = idempotent
        self._compression = compression
        self._batch_bytes = batch_bytes
        self._buffered_bytes_max = buffered_bytes_max
        self._delivery_timeout_s = delivery_timeout_ms / 1000
        self._on_delivery = on_delivery
        self._producer_id = -1
        self._producer_epoch = -1
        # The sequence number of the next record per partition; wraps at 2**31 as Kafka's does.
        self._sequences: dict[TopicPartition, int] = {}
        self._open: dict[TopicPartition, _OpenBatch] = {}
        # Closed batches not yet acknowledged, per partition in their order. The head may be in flight.
        self._closed: dict[TopicPartition, deque[_Batch]] = {}
        self._in_flight: set[TopicPartition] = set()
        self._requests: dict[int, int] = {}
        # Bytes of records appended and not acknowledged: `room` waits while it is over _buffered_bytes_max.
        self._buffered_bytes = 0
        # Set when there may be something to send.
        self._wake = asyncio.Event()
        # Set, and replaced by a new one, whenever a batch was acknowledged or failed.
        self._progress = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # The first batch lost since the last flush; and what ended a task unforeseen.
        self._error: KafkaError | None = None
        self._broken: BaseException | None = None
        self.records_acknowledged = 0
        self.bytes_acknowledged = 0

    async def __aenter__(self) -> BatchWriter:
        await self.start()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if error is None:
                await self.flush()
        finally:
            await self.close()

    async def start(self) -> None:
        """Get a producer id where idempotence needs one. Raises KafkaError."""
        if self._idempotent:
            self._producer_id, self._producer_epoch = await init_producer_id(self._client)
        self._sender = asyncio.create_task(self._run())
        self._sender.add_done_callback(self._ended)

    def append(
        self,
        topic_partition: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        *,
        timestamp: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Add a record to its partition's batch; `timestamp` in ms, now by default. Raises the producer's error.

        Never waits: call `await room()` every so many records, and once before the first.
        """
        self._raise_if_broken()
        opened = self._open.get(topic_partition)
        if opened is None:
            opened = self._open[topic_partition] = self._new_batch(topic_partition)
        size = _RECORD_OVERHEAD_BYTES + (len(key) if key else 0) + (len(value) if value else 0)
        for name, header_value in headers:
            size += len(name) + (len(header_value) if header_value else 0) + 4
        opened.builder.append(int(time.time() * 1000) if timestamp is None else timestamp, key, value, headers)
        opened.count += 1
        opened.size_bytes += size
        if opened.size_bytes >= self._batch_bytes:
            self._close_batch(topic_partition)

    async def room(self) -> None:
        """Wait until there is room for more records. Raises the producer's error, if any."""
        self._raise_if_broken()
        while self._buffered_bytes >= self._buffered_bytes_max:
            await self._progress.wait()
            self._raise_if_broken()

    async def send_batch(self, topic_partition: TopicPartition, batch: bytes, count: int) -> None:
        """Queue a batch of `count` records built by the caller, whatever its producer fields; waits for room."""
        if self._idempotent:
            raise ValueError("an idempotent producer numbers its batches itself: use append")
        await self.room()
        self._queue(topic_partition, batch, count)

    def close_batches(self) -> None:
        """Close every open batch, so that it is sent now: a caller's linger has run out."""
        for topic_partition in list(self._open):
            self._close_batch(topic_partition)

    async def flush(self) -> None:
        """Send what is open and wait until the broker has everything. Raises the first error since the last flush."""
        self.close_batches()
        try:
            while any(self._closed.values()):
                self._raise_if_broken()
                await self._progress.wait()
            self._raise_if_broken()
        finally:
            if not self._idempotent:
                self._error = None

    async def close(self) -> None:
        """Stop; what was not flushed is dropped."""
        tasks = [task for task in (self._sender, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sender = None

    # Batches.

    def _new_batch(self, tp: TopicPartition) -> _OpenBatch:
        if not self._idempotent:
            return _OpenBatch(BatchBuilder(compression=self._compression))
        return _OpenBatch(
            BatchBuilder(
                compression=self._compression,
                producer_id=self._producer_id,
                producer_epoch=self._producer_epoch,
                base_sequence=self._sequences.get(tp, 0),
            )
        )

    def _close_batch(self, tp: TopicPartition) -> None:
        opened = self._open.pop(tp)
        if self._idempotent:
            self._sequences[tp] = (self._sequences.get(tp, 0) + opened.count) & 0x7FFFFFFF
        self._queue(tp, opened.builder.build(), opened.count)

    def _queue(self, tp: TopicPartition, data: bytes, count: int) -> None:
        deadline = time.monotonic() + self._delivery_timeout_s
        self._closed.setdefault(tp, deque()).append(_Batch(tp, data, count, deadline))
        self._buffered_bytes += len(data)
        self._signal()

    # Sending.

    async def _run(self) -> None:
        """Send whatever may be sent, each time something has changed."""
        while True:
            self._wake.clear()
            waiting = [tp for tp, batches in self._closed.items() if batches and tp not in self._in_flight]
            if waiting:
                await self._dispatch(waiting)
            await self._wake.wait()

    async def _dispatch(self, waiting: list[TopicPartition]) -> None:
        try:
            groups = await self._client.leaders(waiting)
        except KafkaError as error:
            for tp in waiting:
                self._fail(self._closed[tp], error)
            return
        for node, partitions in groups.items():
            # Gathering fills requests: small batches of many partitions leave together.
            while partitions and self._requests.get(node, 0) < REQUESTS_PER_BROKER_MAX:
                size = 0
                batches: list[_Batch] = []
                while partitions and (
                    not batches or size + len(self._closed[partitions[0]][0].data) <= REQUEST_BYTES_MAX
                ):
                    batch = self._closed[partitions.pop(0)][0]
                    batches.append(batch)
                    size += len(batch.data)
                self._in_flight.update(batch.topic_partition for batch in batches)
                self._requests[node] = self._requests.get(node, 0) + 1
                task = asyncio.create_task(self._send(node, batches))
                self._tasks.add(task)
                task.add_done_callback(self._ended)

    async def _send(self, node: int, batches: list[_Batch]) -> None:
        try:
            results = await self._ask(node, batches)
        except KafkaError as lost:
            results = {batch.topic_partition: (lost, -1) for batch in batches}
        finally:
            self._requests[node] -= 1
        again: list[_Batch] = []
        for batch in batches:
            tp = batch.topic_partition
            error, first_offset = results.get(
                tp, (KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"the broker said nothing of {tp}"), -1)
            )
            if error is None or error.code in _ALREADY_WRITTEN:
                self._done(batch, first_offset)
            elif error.code.retriable and time.monotonic() < batch.deadline:
                batch.attempts += 1
                self._client.forget([tp.topic])
                again.append(batch)
                continue
            else:
                self._fail(self._closed[tp], error)
            self._in_flight.discard(tp)
        self._signal()
        if again:
            await asyncio.sleep(min(1.0, _RETRY_PAUSE_S * 2 ** min(4, max(batch.attempts for batch in again))))
            self._in_flight.difference_update(batch.topic_partition for batch in again)
            self._signal()

    async def _ask(self, node: int, batches: list[_Batch]) -> dict[TopicPartition, tuple[KafkaError | None, int]]:
        topics: dict[str, TopicProduceData] = {}
        for batch in batches:
            tp = batch.topic_partition
            topics.setdefault(tp.topic, TopicProduceData(name=tp.topic)).partition_data.append(
                PartitionProduceData(index=tp.partition, records=batch.data)
            )
        timeout_s = self._client.request_timeout_ms / 1000
        request = ProduceRequest(
            transactional_id=None,
            acks=self._acks,
            timeout_ms=self._client.request_timeout_ms,
            topic_data=list(topics.values()),
        )
        connection = await self._client.connection(node, lane="produce")
        if self._acks == 0:
            await connection.send_unanswered(request, timeout_s=timeout_s)
            return {batch.topic_partition: (None, -1) for batch in batches}
        # From version 13 on topics go by their id.
        response = await connection.request(request, timeout_s=timeout_s, version_max=12)
        return {
            (tp := TopicPartition(topic.name, partition.index)): (_error(tp, partition), partition.base_offset)
            for topic in response.responses
            for partition in topic.partition_responses
        }

    def _done(self, batch: _Batch, first_offset: int) -> None:
        self._closed[batch.topic_partition].popleft()
        self._buffered_bytes -= len(batch.data)
        self.records_acknowledged += batch.count
        self.bytes_acknowledged += len(batch.data)
        if self._on_delivery is not None:
            self._on_delivery(batch.topic_partition, first_offset, batch.count)

    def _fail(self, batches: deque[_Batch], error: KafkaError) -> None:
        """Drop the head of a partition's batches, or all of them where their sequence now has a hole."""
        self._error = self._error or error
        while batches:
            self._buffered_bytes -= len(batches.popleft().data)
            if not self._idempotent:
                break
        self._signal()

    @property
    def buffered_bytes(self) -> int:
        """Bytes of closed batches that are not acknowledged yet."""
        return self._buffered_bytes

    def _signal(self) -> None:
        """Wake the sender, and whoever waits for batches to be acknowledged."""
        self._wake.set()
        self._progress.set()
        self._progress = asyncio.Event()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task of ours ended: if by what nobody foresaw, the caller is told."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = self._broken or error
            self._signal()

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._error is not None:
            raise self._error


def _error(tp: TopicPartition, partition: PartitionProduceResponse) -> KafkaError | None:
    code = error_code(partition.error_code)
    if code is ErrorCode.NONE:
        return None
    reason = (partition.error_message or code.sentence).rstrip(".")
    if partition.record_errors:
        first = partition.record_errors[0]
        detail = first.batch_index_error_message or reason
        reason = f"record {first.batch_index} of the batch: {detail.rstrip('.')}"
    return KafkaError(code, f"{tp} took no records: {reason}")
