"""The consumer of a split: every range from its start to its end, several partitions at once.

A range ends where its end offset is passed, be it by a record, by a batch of which nothing is shown, or by the client's
position alone: the last offsets of a log may be transaction markers, and a compacted log may have nothing there. Two
ranges of one partition are read one after the other.
"""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.connections import make_buffer_pool
from millstream.core.client.consumer import (
    CorruptBatchError,
    FetchedRecords,
    LogTruncationError,
    OffsetOutOfRangeError,
)
from millstream.core.client.group_offsets import CommittedOffset
from millstream.core.columns.blocking_consumer import Consumer
from millstream.core.config.client_config import ClientConfig, Given
from millstream.core.config.client_configs import CONSUMER_CONFIGS
from millstream.core.net import BufferPool
from millstream.core.records import RecordColumns
from millstream.hadoop_loader.running.errors import RangeGoneError, StalledError, TopicRecreatedError, unreadable
from millstream.hadoop_loader.running.gaps import epoch_before
from millstream.hadoop_loader.running.range_state import RangeState
from millstream.hadoop_loader.values.fetched import LOCATED_ROWS, Fetched, fetched_rows

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import SourceSettings

POLL_S: Final = 0.2
"""How long one poll waits: a stop is noticed as soon."""
# Of a worker's memory, fetched bytes may take one part in so many; as much again is kept of buffers to fetch the next
# ones into.
FETCH_SHARE: Final = 8
FETCH_BYTES_MAX: Final = 32 * 1024 * 1024
"""More is not read faster: what lies longer has left the processor's cache when its turn comes."""


class ReadingBuffers:
    """Memory that splits of one job are read with, one after the other; whose pages are there once they were used.

    Nothing in it is known of the cluster, nor of what an earlier split read. Its owner uses it for one split at a time.
    """

    def __init__(self) -> None:
        # Of the size that the job's consumers ask for; made by the first of them.
        self._pool: BufferPool | None = None
        self._columns = RecordColumns(LOCATED_ROWS)

    @property
    def columns(self) -> RecordColumns:
        """Where records stand: room for as many as usual, also behind a split with a batch of more."""
        if self._columns.capacity > LOCATED_ROWS:
            self._columns = RecordColumns(LOCATED_ROWS)
        return self._columns

    def pool(self, configs: Mapping[str, Given]) -> BufferPool:
        """Return what the job's consumers fetch into and open into; `configs` are theirs. Raises ConfigError."""
        if self._pool is None:
            self._pool = make_buffer_pool(ClientConfig.load(CONSUMER_CONFIGS, configs))
        return self._pool


class SplitReader:
    """Reads ranges; a context manager, for one thread."""

    def __init__(
        self,
        source: SourceSettings,
        states: Sequence[RangeState],
        *,
        memory_bytes: int,
        buffers: ReadingBuffers | None = None,
    ) -> None:
        """`buffers` are used until it is closed, and outlive it."""
        self._source = source
        self._waiting: dict[TopicPartition, deque[RangeState]] = {}
        for state in sorted(states, key=lambda state: state.wanted.start_offset):
            self._waiting.setdefault(state.topic_partition, deque()).append(state)
        fetched = min(FETCH_BYTES_MAX, memory_bytes // FETCH_SHARE)
        configs: dict[str, Given] = {
            "buffer.memory": fetched,
            "fetch.max.bytes": fetched // 4,
            "max.partition.fetch.bytes": fetched // 16,
            **source.consumer_configs(),
        }
        buffers = ReadingBuffers() if buffers is None else buffers
        self._consumer = Consumer(configs, buffer_pool=buffers.pool(configs))
        self._columns = buffers.columns
        self._stalled_at = time.monotonic()

    def __enter__(self) -> Self:
        self._consumer.start()
        for tp in [tp for tp, states in self._waiting.items() if not self._drop_done(states)]:
            del self._waiting[tp]
        self._consumer.assign(self._waiting)
        for states in self._waiting.values():
            self._begin(states[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close(timeout_s=5.0)

    @property
    def is_done(self) -> bool:
        """Whether every range was read to its end."""
        return not self._waiting

    def drop_topic(self, topic: str) -> None:
        """Read nothing more of a topic."""
        self._waiting = {tp: states for tp, states in self._waiting.items() if tp.topic != topic}
        self._consumer.assign(self._waiting)

    def poll(self) -> Iterator[tuple[RangeState, Fetched]]:
        """Yield what came, each some rows of one range in order; they are not counted yet.

        Offsets that brought nothing are. Raises RangeGoneError, TopicUnreadableError, StalledError, KafkaError.
        """
        try:
            # Taken out one by one: what is worked off is free for what is fetched meanwhile.
            pieces = deque(self._consumer.poll(POLL_S))
        except OffsetOutOfRangeError as error:
            self._handle_out_of_range(error)
            return
        except (CorruptBatchError, LogTruncationError) as error:
            raise unreadable(error) from error
        # Of one partition there may be several: what follows the end of a range is no part of the next one, which is
        # read from its own start.
        states_now = {tp: states[0] for tp, states in self._waiting.items()}
        is_empty = not pieces
        while pieces:
            piece = pieces.popleft()
            state = states_now.get(piece.topic_partition)
            if state is not None and self._is_read(state):
                yield from ((state, rows) for rows in self._rows(state, piece))
                self._maybe_end(state)
            piece.release()
        if is_empty:
            self._look_at_positions()
        else:
            # Behind the work on them: while that took its time, or its rate made it wait, nobody asked the brokers.
            self._stalled_at = time.monotonic()

    def check_topics(self, states: Sequence[RangeState]) -> None:
        """Raise TopicRecreatedError where a topic is not the one that was to be read: an id does not come back."""
        infos = self._consumer.topics()
        for state in states:
            info = infos.get(state.wanted.topic)
            found = "" if info is None else topic_id_text(info.topic_id)
            if found != state.wanted.topic_id:
                raise TopicRecreatedError(state.wanted.topic)

    def _begin(self, state: RangeState) -> None:
        wanted = state.wanted
        # The leader epoch has the log checked: a log that was cut below the position is noticed (KIP-320). Behind the
        # range lies what another split reads, or nobody waits for.
        at = CommittedOffset(wanted.start_offset, wanted.leader_epoch)
        self._consumer.seek(state.topic_partition, at, until=wanted.end_offset)

    def _rows(self, state: RangeState, piece: FetchedRecords) -> Iterator[Fetched]:
        """Yield a piece's records that lie in the range; counts the offsets that brought none."""
        end = min(piece.next_offset, state.wanted.end_offset)
        state.pass_unseen(piece.offset)
        start = state.next_offset
        if end <= start:
            return
        found = 0
        for rows in fetched_rows(piece, end, self._columns):
            found += rows.length
            yield rows
        if found < end - start:
            offsets = [rows.offsets.to_pylist() for rows in fetched_rows(piece, end, self._columns)]
            state.gaps.add_missing(piece, start, end, [offset for some in offsets for offset in some])
        state.next_offset = end
        state.leader_epoch = piece.leader_epoch if end == piece.next_offset else epoch_before(piece, end)

    def _is_read(self, state: RangeState) -> bool:
        """Whether it is the range that its partition is read for now."""
        states = self._waiting.get(state.topic_partition)
        return states is not None and states[0] is state

    def _maybe_end(self, state: RangeState) -> None:
        if not state.is_done or not self._is_read(state):
            return
        states = self._waiting[state.topic_partition]
        if self._drop_done(states):
            self._begin(states[0])
        else:
            del self._waiting[state.topic_partition]
            self._consumer.assign(self._waiting)

    @staticmethod
    def _drop_done(states: deque[RangeState]) -> bool:
        while states and states[0].is_done:
            states.popleft()
        return bool(states)

    def _look_at_positions(self) -> None:
        """Nothing came: perhaps the client has passed over what there was, perhaps nothing is to come."""
        for states in list(self._waiting.values()):
            state = states[0]
            reached = self._consumer.reached(state.topic_partition)
            if reached is not None and reached.offset > state.next_offset:
                self._stalled_at = time.monotonic()
                state.pass_unseen(reached.offset, reached.leader_epoch)
                self._maybe_end(state)
        waited_s = time.monotonic() - self._stalled_at
        if waited_s < self._source.timeout_s or not self._waiting:
            return
        # One that is gone is named; asked for its end it would be an error of all.
        self.check_topics([states[0] for states in self._waiting.values()])
        for tp, end in self._consumer.end_offsets(self._waiting).items():
            state = self._waiting[tp][0]
            if end < state.wanted.end_offset:
                raise RangeGoneError(
                    tp.topic,
                    tp.partition,
                    f"its log ends at {end}, before offset {state.wanted.end_offset} that was to be read: it was cut",
                )
        raise StalledError(self._waiting, waited_s)

    def _handle_out_of_range(self, error: OffsetOutOfRangeError) -> None:
        tp = error.topic_partition
        state = self._waiting[tp][0]
        begin = self._consumer.beginning_offsets([tp])[tp]
        if begin <= state.next_offset:
            raise RangeGoneError(
                tp.topic, tp.partition, f"offset {error.offset} lies behind the end of its log: it was cut"
            ) from error
        if self._source.gaps == "fail":
            raise RangeGoneError(
                tp.topic,
                tp.partition,
                f"retention has deleted offsets {state.next_offset} to {begin - 1} before they were loaded;"
                ' source.gaps = "continue" goes on behind them',
            ) from error
        state.pass_deleted(begin)
        if state.is_done:
            self._maybe_end(state)
        else:
            self._consumer.seek(tp, begin, until=state.wanted.end_offset)


def topic_id_text(topic_id: bytes) -> str:
    return base64.urlsafe_b64encode(topic_id).rstrip(b"=").decode()
