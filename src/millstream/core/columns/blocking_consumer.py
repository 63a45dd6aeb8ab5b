"""The consumer without await, for one thread at a time.

    with Consumer("127.0.0.1:9092", group_id="loaders", auto_offset_reset="earliest") as consumer:
        consumer.subscribe(["flights"])
        for batch in consumer.batches():
            table = pyarrow.Table.from_batches([batch])

Fetching goes on on the background loop. Each call crosses to it once; records become Arrow on the caller's thread, and
iteration crosses once in a few thousand records. Listeners and commit callbacks run on the caller's thread, inside its
calls. An interrupted call (KeyboardInterrupt) leaves the position where it was: what it would have returned comes
again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from millstream.core._kernels.consumer_records import ConsumerRecord
from millstream.core.client.blocking import BlockingClient
from millstream.core.client.cluster import PartitionInfo, TopicInfo, TopicPartition
from millstream.core.client.consumer import (
    ConsumerInterceptor,
    ConsumerState,
    FetchedRecords,
    RebalanceListener,
    TopicPattern,
)
from millstream.core.client.consumer.consumer import CommitCallback, Offsets
from millstream.core.client.consumer.delivery import Chunk
from millstream.core.client.group_offsets import CommittedOffset
from millstream.core.client.offsets import LogOffset
from millstream.core.columns.caller import Caller
from millstream.core.columns.consumer import Consumer as AsyncConsumer
from millstream.core.columns.consumer import starts_of
from millstream.core.config.client_config import Given
from millstream.core.net import BufferPool
from millstream.core.records import RecordColumns

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.core.client.membership.membership import GroupMetadata

T = TypeVar("T")

# Records made by one crossing to the loop while iterating.
ITERATED_RECORDS: Final = 2_048


class Consumer(BlockingClient):
    """A consumer; a context manager. Its methods are those of the asyncio consumer without await, from one thread.

    Configs are Kafka's, as keywords with underscores or in a mapping by their own names. The first use connects. Raises
    ConfigError; ConcurrentUseError where two threads are inside at once; ForkedError in a forked child.
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] | Mapping[str, Given] | None = None,
        *,
        interceptors: Sequence[ConsumerInterceptor] = (),
        assignors: Sequence[Any] = (),
        ssl_context: SSLContext | None = None,
        sasl_token_provider: Any = None,
        buffer_pool: BufferPool | None = None,
        **configs: Given,
    ) -> None:
        """Read the configuration; interceptors and assignors run on the background loop's thread.

        What is fetched lies in buffers of `buffer_pool`, for consumers one after the other; without one in some of its
        own, which end with it.
        """
        self._consumer = AsyncConsumer(
            bootstrap_servers,
            interceptors=interceptors,
            assignors=assignors,
            ssl_context=ssl_context,
            sasl_token_provider=sasl_token_provider,
            buffer_pool=buffer_pool,
            **configs,
        )
        super().__init__(self._consumer)
        self._caller = Caller(self._thread, "this consumer")
        self._has_interceptors = bool(interceptors)
        # Where records are located before they are gathered; one call uses it at a time.
        self._scratch: RecordColumns | None = None

    # Opening and closing.

    @property
    def state(self) -> ConsumerState:
        """Where it stands."""
        return self._consumer.state

    def start(self) -> None:
        """Make the machinery; done by itself on first use. Connections follow when needed."""
        self._caller.run(self._consumer.start())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread.is_ours:
            self._caller.run(self._consumer.__aexit__(kind, error, traceback))

    def close(self, timeout_s: float | None = None) -> None:
        """Commit all that was handed over (with enable_auto_commit), leave the group, and end every connection.

        Takes at most about `timeout_s`. Leaving `with` by an exception commits only what was handed over before the
        last poll, or record. Does nothing in a forked child: what it inherited is the parent's.
        """
        if self._thread.is_ours:
            self._caller.run(self._consumer.close(timeout_s))

    # What is read.

    def subscribe(
        self, topics: Iterable[str] | TopicPattern | re.Pattern[str], listener: RebalanceListener | None = None
    ) -> None:
        """Have the group assign partitions of `topics`, or of those that a pattern matches, now and later.

        A TopicPattern is RE2's syntax, a re.Pattern is matched here; both against whole names. The listener's methods
        are plain ones; they run on this thread inside poll, unsubscribe and close, and may use the consumer but for
        poll. Replaces an earlier subscription.
        """
        heard = _Listener(self._caller, listener) if listener is not None else None
        self._call(lambda: self._consumer.subscribe(topics, heard))

    def assign(self, partitions: Iterable[TopicPartition | tuple[str, int]]) -> None:
        """Read exactly these partitions, without asking a group. Those assigned before keep their position."""
        self._call(lambda: self._consumer.assign(partitions))

    def unsubscribe(self) -> None:
        """Read nothing any more; a member leaves its group."""
        self._caller.run(self._consumer.unsubscribe())

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are read now."""
        return self._call(self._consumer.assignment)

    def subscription(self) -> frozenset[str]:
        """The topics subscribed to: those given, or those that the pattern matches."""
        return self._call(self._consumer.subscription)

    def pause(self, *partitions: TopicPartition) -> None:
        """Hand over nothing of these until `resume`; what is buffered stays."""
        self._call(lambda: self._consumer.pause(*partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        """Undo `pause`."""
        self._call(lambda: self._consumer.resume(*partitions))

    def paused(self) -> frozenset[TopicPartition]:
        """The partitions paused now."""
        return self._call(self._consumer.paused)

    # Positions.

    def seek(self, partition: TopicPartition, offset: int | CommittedOffset, *, until: int | None = None) -> None:
        """Go on reading at `offset`; with a CommittedOffset its leader epoch is checked against the log (KIP-320).

        `until` ends it, up to the next seek or until the partition is lost: the batch that holds the offset before it,
        or else the first one behind, is the last. It comes whole, so the position may move past `until`. Nothing comes
        where `until` is not behind `offset`, or not behind where a reset leads. Polls wait there as at the end of the
        log, those without a timeout for ever. Raises ValueError for a negative offset.
        """
        self._call(lambda: self._consumer.seek(partition, offset, until=until))

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Go to the first record there is; without partitions: in all assigned. The offset is asked for later."""
        self._call(lambda: self._consumer.seek_to_beginning(*partitions))

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Go behind the last record; with isolation_level=read_committed, of those that can be read."""
        self._call(lambda: self._consumer.seek_to_end(*partitions))

    def seek_to_timestamp(self, timestamps: Mapping[TopicPartition, int]) -> None:
        """Go to the first record at or after a time, in milliseconds since 1970; to the end where none is as young."""
        self._caller.run(self._consumer.seek_to_timestamp(timestamps))

    def position(self, partition: TopicPartition) -> int | None:
        """The offset of the next record to be handed over; None while that is being found out."""
        return self._call(lambda: self._consumer.position(partition))

    def reached(self, partition: TopicPartition) -> CommittedOffset | None:
        """As `position`, with the leader epoch of the batch before it (-1: not known): what a commit would say."""
        return self._call(lambda: self._consumer.reached(partition))

    def current_lag(self, partition: TopicPartition) -> int | None:
        """Records between the position and the end, as of the last answer; None before one came."""
        return self._call(lambda: self._consumer.current_lag(partition))

    def lag(self) -> dict[TopicPartition, int]:
        """Return for each assigned partition with a position how far its end is away now."""
        return self._caller.run(self._consumer.lag())

    def step_over(self, partition: TopicPartition) -> int:
        """Go on behind the damaged batch that a CorruptBatchError named; returns the offset."""
        return self._caller.run(self._consumer.step_over(partition))

    # Reading.

    def poll(self, timeout_s: float | None = 0.0, *, max_records: int | None = None) -> list[FetchedRecords]:
        """Return fetched pieces as soon as there are any, or an empty list after `timeout_s` (None: wait for ever).

        Raises PartitionError for a partition that cannot go on, KafkaError for what else is wrong, and what a rebalance
        listener raises.
        """
        pieces: list[FetchedRecords] = []
        try:
            self._caller.run(self._polled(pieces, timeout_s, max_records))
        except BaseException:
            self._return_pieces(pieces)
            raise
        return pieces

    def poll_records(self, timeout_s: float | None = 0.0, max_records: int | None = None) -> Sequence[ConsumerRecord]:
        """Return records as soon as there are any, at most `max_records` (or max_poll_records). Else as `poll`."""
        records: list[ConsumerRecord] = []

        async def polled() -> None:
            records.extend(await self._consumer.poll_records(timeout_s, max_records))

        try:
            self._caller.run(polled())
        except BaseException:
            starts: dict[TopicPartition, int] = {}
            for record in records:
                starts.setdefault(TopicPartition(record.topic, record.partition), record.offset)
            self._return(starts)
            raise
        return records

    def poll_arrow(
        self, timeout_s: float | None = 0.0, max_records: int | None = None, *, views: bool = False
    ) -> pa.RecordBatch:
        """Return records as soon as there are any, as one batch, else an empty one after `timeout_s` (None: never).

        Columns: topic, partition, offset, timestamp, timestamp_type, key, value, headers, leader_epoch; see
        `core.columns.schema`. At most `max_records` rows; without it about 4 MB of records. With `views`, key and
        value are `binary_view` over the fetched bytes, which count in buffer_memory until the arrays are gone.
        Raises as `poll` does.
        """
        from millstream.core.columns.gathering import LOCATED_ROWS, empty_batch, gather

        if self._scratch is None:
            self._scratch = RecordColumns(LOCATED_ROWS)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        left_s = timeout_s
        while True:
            pieces: list[FetchedRecords] = []
            try:
                self._caller.run(self._polled(pieces, left_s, max_records))
                if not pieces:
                    return empty_batch(views=views)
                gathered = gather(pieces, views=views, columns=self._scratch, pool=self._consumer.batch_pool)
            except BaseException:
                self._return_pieces(pieces)
                raise
            if gathered.left:
                self._call(partial(self._consumer.return_unread, gathered.left, gathered.error))
            if gathered.batch.num_rows:
                return gathered.batch
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())

    def batches(self, max_records: int | None = None, *, views: bool = False) -> Iterator[pa.RecordBatch]:
        """Yield batches of records for ever, each as `poll_arrow` returns it and none of them empty."""
        while True:
            yield self.poll_arrow(None, max_records, views=views)

    def __iter__(self) -> Iterator[ConsumerRecord]:
        """Yield records for ever; leaving the loop keeps what was not yielded for later."""
        if self._has_interceptors:
            while True:
                # One at a time: what was not yielded cannot be told from what they make of it.
                yield from self.poll_records(None, 1)
        while True:
            chunk: Chunk = self._caller.run(self._consumer.next_chunk(ITERATED_RECORDS))
            current = chunk.current
            records = current.records
            while current.index < len(records):
                record = records[current.index]
                current.index += 1
                yield record
                if chunk.is_over or current.records is not records:
                    break

    def enforce_rebalance(self, reason: str = "asked for by the application") -> None:
        """Have the group assign anew. Does nothing without a membership."""
        self._call(lambda: self._consumer.enforce_rebalance(reason))

    def group_metadata(self) -> GroupMetadata:
        """Who this member is in its group, for a transaction that commits offsets."""
        return self._call(self._consumer.group_metadata)

    # Commits.

    def commit(self, offsets: Offsets | None = None, *, timeout_s: float | None = None) -> None:
        """Commit `offsets`, or the positions behind everything handed over. Raises CommitFailedError, KafkaError."""
        self._caller.run(self._consumer.commit(offsets, timeout_s=timeout_s))

    def commit_soon(self, offsets: Offsets | None = None, callback: CommitCallback | None = None) -> None:
        """Commit in the background, in order with other commits.

        `callback(offsets, error or None)` runs on this thread, inside a later call of this consumer.
        """
        done = partial(self._caller.leave, callback) if callback is not None else None
        self._call(lambda: self._consumer.commit_soon(offsets, done))

    def committed(
        self, partitions: Iterable[TopicPartition], *, timeout_s: float | None = None
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Return what the group has committed for each partition, None where nothing."""
        return self._caller.run(self._consumer.committed(partitions, timeout_s=timeout_s))

    # Asking.

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int], *, timeout_s: float | None = None
    ) -> dict[TopicPartition, LogOffset | None]:
        """Return the first record at or after each time (milliseconds since 1970), None where none is as young."""
        return self._caller.run(self._consumer.offsets_for_times(timestamps, timeout_s=timeout_s))

    def beginning_offsets(
        self, partitions: Iterable[TopicPartition], *, timeout_s: float | None = None
    ) -> dict[TopicPartition, int]:
        """Return the offset of the first record of each partition."""
        return self._caller.run(self._consumer.beginning_offsets(partitions, timeout_s=timeout_s))

    def end_offsets(
        self, partitions: Iterable[TopicPartition], *, timeout_s: float | None = None
    ) -> dict[TopicPartition, int]:
        """Return the offset behind the last record that can be read of each partition."""
        return self._caller.run(self._consumer.end_offsets(partitions, timeout_s=timeout_s))

    def partitions_for(self, topic: str, *, timeout_s: float | None = None) -> list[PartitionInfo]:
        """Return the partitions of a topic. Raises KafkaError where there is none of that name."""
        return self._caller.run(self._consumer.partitions_for(topic, timeout_s=timeout_s))

    def topics(self, *, timeout_s: float | None = None) -> dict[str, TopicInfo]:
        """Return every topic that this client may see, by name."""
        return self._caller.run(self._consumer.topics(timeout_s=timeout_s))

    def metrics(self) -> dict[str, float]:
        """Kafka's consumer metrics by their names in snake_case; times in milliseconds, sizes in bytes."""
        return self._caller.call(self._consumer.metrics)

    # Inside.

    def _call(self, function: Callable[[], T]) -> T:
        """Run a plain function of the consumer on the loop that owns it, opened first where it is new."""

        async def called() -> T:
            if self._consumer.state is ConsumerState.NEW:
                await self._consumer.start()
            return function()

        return self._caller.run(called())

    async def _polled(self, pieces: list[FetchedRecords], timeout_s: float | None, max_records: int | None) -> None:
        pieces += await self._consumer.poll(timeout_s, max_records=max_records)

    def _return_pieces(self, pieces: list[FetchedRecords]) -> None:
        starts = starts_of(pieces)
        self._return(starts)
        for piece in pieces:
            piece.release()

    def _return(self, starts: Mapping[TopicPartition, int]) -> None:
        """Go back to where an interrupted call began."""
        if starts:
            self._caller.call(partial(self._consumer.return_unread, starts))


class _Listener(RebalanceListener):
    """Brings a listener's calls to the thread that uses the consumer."""

    def __init__(self, caller: Caller, listener: RebalanceListener) -> None:
        self._caller = caller
        self._listener = listener

    def on_assigned(self, partitions: Collection[TopicPartition]) -> Awaitable[None]:
        """Run the application's there."""
        return self._caller.run_there(_plainly, self._listener.on_assigned, partitions)

    def on_revoked(self, partitions: Collection[TopicPartition]) -> Awaitable[None]:
        """Run the application's there."""
        return self._caller.run_there(_plainly, self._listener.on_revoked, partitions)

    def on_lost(self, partitions: Collection[TopicPartition]) -> Awaitable[None]:
        """Run the application's there."""
        return self._caller.run_there(_plainly, self._listener.on_lost, partitions)


def _plainly(
    method: Callable[[Collection[TopicPartition]], Awaitable[None] | None], partitions: Collection[TopicPartition]
) -> None:
    returned = method(partitions)
    if returned is not None:
        if hasattr(returned, "close"):
            returned.close()
        raise TypeError(f"{method.__qualname__} is async: a consumer without await needs plain methods")
