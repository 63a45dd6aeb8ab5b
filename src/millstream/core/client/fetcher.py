"""Reading by assignment: from given offsets on, many partitions per broker in one request, brokers in parallel.

One task per broker keeps one Fetch in flight and puts what it brings into a queue that the reader takes from; the bytes
in the queue are bounded, and a task whose broker's answers are not taken waits. What is yielded are whole batches,
CRC-checked, as the log holds them: `Fetched.records` opens them where a caller wants records.

Requests are full fetches (no session, KIP-227) of at most version 12, so topics go by name,
not by id.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from millstream.core.client.client import Client, FinalKafkaError
from millstream.core.client.cluster import TopicPartition
from millstream.core.records import BatchHeader, Record, iter_batches, iter_records, trim_batches
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
)

MAX_WAIT_MS: Final = 500
PARTITION_BYTES_MAX: Final = 1024 * 1024
FETCH_BYTES_MAX: Final = 50 * 1024 * 1024
QUEUED_BYTES_MAX: Final = 64 * 1024 * 1024
_OFFSET_MAX: Final = 2**63 - 1
_SIZE_MAX: Final = 2**31 - 1
_VERSION_MAX: Final = 12
_RETRY_PAUSE_S: Final = 0.1
_ABORT_MARKER: Final = 0


@dataclass(frozen=True, slots=True)
class Fetched:
    """Whole batches of one partition, back to back in `data`; the first may start before `offset`, the one wanted."""

    topic_partition: TopicPartition
    data: memoryview
    offset: int
    next_offset: int
    high_watermark: int
    log_start_offset: int
    aborted: tuple[tuple[int, int], ...] = ()  # (first offset, producer id), ascending; with read_committed only

    def batches(self) -> Iterator[tuple[BatchHeader, memoryview]]:
        """Yield the batches that hold data: no control batches, and none of an aborted transaction."""
        aborted = list(self.aborted)
        aborting: set[int] = set()
        for header, batch in iter_batches(self.data):
            while aborted and aborted[0][0] <= header.last_offset:
                aborting.add(aborted.pop(0)[1])
            if header.is_control:
                if _marker_type(batch) == _ABORT_MARKER:
                    aborting.discard(header.producer_id)
            elif not (header.is_transactional and header.producer_id in aborting):
                yield header, batch

    def records(self) -> Iterator[Record]:
        """Yield the records from `offset` on. Raises KafkaError (CORRUPT_MESSAGE) for a batch that cannot be opened."""
        for header, batch in self.batches():
            if header.base_offset >= self.offset:
                yield from iter_records(batch)
            else:
                yield from (record for record in iter_records(batch) if record.offset >= self.offset)


class Fetcher:
    """Reads the partitions of an assignment until each reaches its end offset, or for ever.

    Iterate over it once: `async for fetched in Fetcher(client, {...})`. Leaving the loop early needs `close`, which
    `async with` does. Raises KafkaError for what no retry mends: an offset out of range, corrupt data, a lost topic.
    """

    def __init__(
        self,
        client: Client,
        offsets: Mapping[TopicPartition, int],
        *,
        end_offsets: Mapping[TopicPartition, int] | None = None,
        read_committed: bool = False,
        max_wait_ms: int = MAX_WAIT_MS,
        min_bytes: int = 1,
        partition_bytes_max: int = PARTITION_BYTES_MAX,
        fetch_bytes_max: int = FETCH_BYTES_MAX,
        queued_bytes_max: int = QUEUED_BYTES_MAX,
        retry_ms: int | None = None,
    ) -> None:
        self._client = client
        self._ends = dict(end_offsets) if end_offsets is not None else {}
        # Where each partition is to be read from next; one that reached its end has left.
        self._positions = {tp: offset for tp, offset in offsets.items() if offset < self._ends.get(tp, _OFFSET_MAX)}
        self._read_committed = read_committed
        self._max_wait_ms = max_wait_ms
        self._min_bytes = min_bytes
        self._partition_bytes_max = partition_bytes_max
        self._fetch_bytes_max = fetch_bytes_max
        self._queued_bytes_max = queued_bytes_max
        self._retry_s = (client.request_timeout_ms if retry_ms is None else retry_ms) / 1000
        self._queue: asyncio.Queue[Fetched | BaseException | None] = asyncio.Queue()
        # Bytes fetched and not yet taken by the reader. A fetch starts only while it is below _queued_bytes_max.
        self._queued_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._runner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Fetcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop reading; does nothing where it has ended by itself."""
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner

    async def __aiter__(self) -> AsyncIterator[Fetched]:
        assert self._runner is None, "a Fetcher is iterated over once"
        self._runner = asyncio.create_task(self._run())
        try:
            while True:
                taken = await self._queue.get()
                if taken is None:
                    return
                if isinstance(taken, BaseException):
                    raise taken
                self._queued_bytes -= len(taken.data)
                if self._queued_bytes < self._queued_bytes_max:
                    self._room.set()
                yield taken
        finally:
            await self.close()

    async def _run(self) -> None:
        """Group the partitions by leader, let each group fetch until one of them finds the grouping wrong; repeat."""
        try:
            failing_since: float | None = None
            while self._positions:
                try:
                    groups = await self._client.leaders(self._positions)
                    async with asyncio.TaskGroup() as tasks:
                        for node, partitions in groups.items():
                            tasks.create_task(self._fetch_from(node, partitions))
                    failing_since = None
                except* KafkaError as group:
                    error = _first(group)
                    self._client.forget({tp.topic for tp in self._positions})
                    now = time.monotonic()
                    failing_since = failing_since if failing_since is not None and not self._progressed else now
                    self._progressed = False
                    if (
                        isinstance(error, FinalKafkaError)
                        or not error.code.retriable
                        or now - failing_since > self._retry_s
                    ):
                        raise error from None
                    await asyncio.sleep(_RETRY_PAUSE_S)
            self._queue.put_nowait(None)
        except Exception as error:  # noqa: BLE001  it is the reader's to handle, whatever it is
            self._queue.put_nowait(_only(error))

    # Whether anything was fetched since the last error: retries start counting anew then.
    _progressed = False

    async def _fetch_from(self, node: int, partitions: list[TopicPartition]) -> None:
        while remaining := [tp for tp in partitions if tp in self._positions]:
            await self._room.wait()
            connection = await self._client.connection(node, lane="fetch")
            response: FetchResponse = await connection.request(
                self._request(remaining),
                timeout_s=(self._max_wait_ms + self._client.request_timeout_ms) / 1000,
                version_max=_VERSION_MAX,
            )
            if response.error_code:
                code = error_code(response.error_code)
                raise KafkaError(code, f"fetch from broker {node}: {code.sentence}")
            for topic in response.responses:
                for partition in topic.partitions:
                    self._take(TopicPartition(topic.topic, partition.partition_index), partition)
            # The order of a request is the order in which the broker fills its answer: none may starve.
            partitions = [*partitions[1:], partitions[0]]

    def _request(self, partitions: list[TopicPartition]) -> FetchRequest:
        topics: dict[str, FetchTopic] = {}
        for tp in partitions:
            topics.setdefault(tp.topic, FetchTopic(topic=tp.topic)).partitions.append(
                FetchPartition(
                    partition=tp.partition,
                    fetch_offset=self._positions[tp],
                    partition_max_bytes=self._partition_bytes_max,
                )
            )
        return FetchRequest(
            max_wait_ms=self._max_wait_ms,
            min_bytes=self._min_bytes,
            max_bytes=self._fetch_bytes_max,
            isolation_level=1 if self._read_committed else 0,
            topics=list(topics.values()),
        )

    def _take(self, tp: TopicPartition, partition: PartitionData) -> None:
        offset = self._positions.get(tp)
        if offset is None:
            return
        code = error_code(partition.error_code)
        if code is ErrorCode.OFFSET_OUT_OF_RANGE:
            raise KafkaError(code, f"offset {offset} of {tp} is not in its log; `millstream offsets` shows what is")
        if code is not ErrorCode.NONE:
            raise KafkaError(code, f"fetch of {tp} at offset {offset}: {code.sentence}")
        data = memoryview(partition.records) if partition.records else memoryview(b"")
        if not len(data):
            return
        end_offset = self._ends.get(tp, _OFFSET_MAX)
        start, end, _, next_offset, corrupt_position, _ = trim_batches(data, offset, _OFFSET_MAX, _SIZE_MAX)
        if start == end:
            if corrupt_position >= 0:
                raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{tp} has a damaged batch at or after offset {offset}")
            return
        self._progressed = True
        if next_offset >= end_offset:
            del self._positions[tp]
        else:
            self._positions[tp] = next_offset
        self._queued_bytes += end - start
        if self._queued_bytes >= self._queued_bytes_max:
            self._room.clear()
        self._queue.put_nowait(
            Fetched(
                topic_partition=tp,
                data=data[start:end],
                offset=offset,
                next_offset=next_offset,
                high_watermark=partition.high_watermark,
                log_start_offset=partition.log_start_offset,
                aborted=tuple(
                    sorted((one.first_offset, one.producer_id) for one in partition.aborted_transactions or ())
                ),
            )
        )


def _marker_type(batch: memoryview) -> int:
    """Return a control batch's kind: the int16 behind the version in its one record's key."""
    for record in iter_records(batch):
        if record.key is not None and len(record.key) >= 4:
            return int.from_bytes(bytes(record.key[2:4]), "big")
    return -1


def _first(group: BaseExceptionGroup[KafkaError]) -> KafkaError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, KafkaError), error
    return error


def _only(error: BaseException) -> BaseException:
    """Return the first of a group's errors: the reader is told one reason."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
