"""From the fetch buffer into the application's hands: pieces or records, and what that does to positions.

At most one piece is being gone through record by record (`_Current`); it keeps its turn until it is done, is set aside
when its partition is paused or another face is used, and is worthless once what was fetched of its partition is
dropped. Owned by the loop.

A record counts as handed over when it was returned. What automatic commits commit is less: the positions as of the
start of the last poll, since the application is done only with what earlier polls gave (`consumed`).
"""

from __future__ import annotations

from typing import Final

from millstream.core._kernels.consumer_records import ConsumerRecord
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer.errors import CorruptBatchError
from millstream.core.client.consumer.fetched import FetchedRecords
from millstream.core.client.consumer.fetching import Fetching
from millstream.core.client.consumer.partition_state import AssignedPartition, Position
from millstream.core.client.consumer.records import COLUMNS_ROWS, RecordCursor
from millstream.core.client.consumer.subscription import SubscriptionState
from millstream.core.records import RecordColumns

# Bytes that one poll hands over as pieces, at most, but for a piece that is larger by itself.
POLL_BYTES_MAX: Final = 4 * 1024 * 1024


class _Current:
    """The piece whose records are being handed over; `records` from `index` on have been made and not handed over."""

    __slots__ = ("cursor", "drops", "fetched", "index", "records", "state")

    def __init__(self, state: AssignedPartition, fetched: FetchedRecords, cursor: RecordCursor, drops: int) -> None:
        self.state = state
        self.fetched = fetched
        self.cursor = cursor
        self.drops = drops
        self.records: list[ConsumerRecord] = []
        self.index = 0


class Delivery:
    """Takes from the buffer for polls and moves `position`."""

    def __init__(self, subscription: SubscriptionState, fetching: Fetching) -> None:
        self._subscription = subscription
        self._fetching = fetching
        self._buffer = fetching.buffer
        self._columns = RecordColumns(COLUMNS_ROWS)
        self._current: _Current | None = None
        # Whether the records of `_current` are handed over one at a time, by `async for`.
        self._is_iterating = False
        # Where partitions stood at the start of the last poll, those that moved since.
        self._before: dict[TopicPartition, Position] = {}

    def begin_turn(self) -> None:
        """A poll begins: the application is done with what the earlier ones gave."""
        self.settle()
        self._is_iterating = False
        self._before.clear()

    def take_pieces(self, records_max: int | None = None) -> list[FetchedRecords]:
        """Return pieces that are ready, in turn among partitions, at most `records_max` records in them."""
        self._set_aside()
        pieces: list[FetchedRecords] = []
        left = records_max
        size = 0
        while size < POLL_BYTES_MAX and (left is None or left > 0):
            taken = self._next_piece()
            if taken is None:
                break
            state, fetched = taken
            if pieces and size + fetched.size_bytes > POLL_BYTES_MAX:
                self._buffer.put_back(fetched)
                break
            if left is not None and fetched.record_count > left:
                rest = fetched.split(left, self._columns)
                if rest is not None:
                    self._buffer.put_back(rest)
            self._move(state, Position(fetched.next_offset, fetched.leader_epoch))
            self._fetching.maybe_drained(state)
            self._fetching.counters.records += fetched.record_count
            size += fetched.size_bytes
            if left is not None:
                left -= fetched.record_count
            pieces.append(fetched)
        return pieces

    def take_records(self, records_max: int) -> list[ConsumerRecord]:
        """Return at most `records_max` records."""
        taken: list[ConsumerRecord] = []
        while len(taken) < records_max:
            current = self._usable()
            if current is None:
                break
            wanted = records_max - len(taken)
            if current.index == len(current.records) and not self._make(current, wanted):
                continue
            rest = len(current.records) - current.index
            if not taken and current.index == 0 and rest <= wanted:
                taken = current.records
                current.records = []
            else:
                taken = taken + current.records[current.index : current.index + wanted]
                current.index += min(wanted, rest)
            last = taken[-1]
            self._finish_if_done(current, Position(last.offset + 1, last.leader_epoch))
        self._fetching.counters.records += len(taken)
        return taken

    def next_chunk(self, records_max: int) -> Chunk | None:
        """Return records to be handed over one at a time, with `Chunk.index` saying how many have been."""
        while (current := self._usable()) is not None:
            if current.index < len(current.records) or self._make(current, records_max):
                self._is_iterating = True
                return Chunk(self, current)
        return None

    def settle(self) -> None:
        """Move the position to where handing over one at a time has come."""
        current = self._current
        if current is None or current.index == 0 or not self._is_valid(current):
            return
        last = current.records[current.index - 1]
        self._finish_if_done(current, Position(last.offset + 1, last.leader_epoch))

    def drop(self, tp: TopicPartition) -> None:
        """What was fetched of `tp` is not to be handed over any more."""
        self.settle()
        self._buffer.drop(tp)
        current = self._current
        if current is not None and current.state.tp == tp:
            self._let_go()

    def close(self) -> None:
        """Give back what is being gone through."""
        if self._current is not None:
            self._let_go()

    def consumed(self) -> dict[TopicPartition, Position]:
        """Return how far the application is done: what to commit by itself."""
        self.settle()
        positions = {**self._subscription.positions(), **self._before}
        current = self._current
        if self._is_iterating and current is not None and current.index > 0:
            # The record that was handed over last is being worked on.
            offset = current.records[current.index - 1].offset
            positions[current.state.tp] = Position(offset, current.records[current.index - 1].leader_epoch)
        return {tp: at for tp, at in positions.items() if tp in self._subscription}

    def _is_valid(self, current: _Current) -> bool:
        state = current.state
        return self._subscription.find(state.tp) is state and self._buffer.drops_of(state.tp) == current.drops

    def _usable(self) -> _Current | None:
        """Return the piece to go on with, a new one where the last is done or not to be used now; None without one."""
        current = self._current
        if current is not None:
            if not self._is_valid(current):
                self._let_go()
            elif current.cursor.is_done and current.index == len(current.records):
                self._let_go()
                self._fetching.maybe_drained(current.state)
            elif current.state.is_paused or current.state.is_held:
                self._set_aside()
            else:
                return current
        taken = self._next_piece()
        if taken is None:
            return None
        state, fetched = taken
        cursor = RecordCursor(fetched, self._columns)
        self._current = _Current(state, fetched, cursor, self._buffer.drops_of(state.tp))
        self._buffer.in_hand = state.tp
        if cursor.is_done:
            self._finish_if_done(self._current, Position(fetched.next_offset, fetched.leader_epoch))
            return self._usable()
        return self._current

    def _make(self, current: _Current, records_max: int) -> bool:
        """Make the next records of a piece; returns False where its batch turned out to be damaged."""
        try:
            current.records, current.index = current.cursor.take(records_max), 0
        except CorruptBatchError as error:
            self._let_go()
            self._buffer.drop(current.state.tp)
            current.state.handle_unreadable(error)
            self._fetching.maybe_drained(current.state)
            return False
        return True

    def _finish_if_done(self, current: _Current, position: Position) -> None:
        if current.index == len(current.records) and current.cursor.is_done:
            # Behind its last record there may be control batches, or gaps of a compacted log.
            fetched = current.fetched
            self._move(current.state, Position(fetched.next_offset, fetched.leader_epoch))
            if self._is_iterating and current.records:
                return
            self._let_go()
            self._fetching.maybe_drained(current.state)
        else:
            self._move(current.state, position)

    def _set_aside(self) -> None:
        """Put what is left of the piece being gone through back into the buffer."""
        self.settle()
        current = self._current
        if current is None:
            return
        if not self._is_valid(current) or (current.cursor.is_done and current.index == len(current.records)):
            self._let_go()
            self._fetching.maybe_drained(current.state)
            return
        assert current.state.position is not None, current.state
        current.fetched.offset = current.state.position.offset
        self._buffer.put_back(current.fetched)
        self._current = self._buffer.in_hand = None

    def _let_go(self) -> None:
        """Give back the piece that is being gone through: all of it was handed over, or it is worthless."""
        assert self._current is not None
        self._current.fetched.release()
        self._current = self._buffer.in_hand = None

    def _next_piece(self) -> tuple[AssignedPartition, FetchedRecords] | None:
        """Return the next piece with records; one without (control batches) only moves the position."""
        while (fetched := self._buffer.take(self._is_allowed)) is not None:
            state = self._subscription.get(fetched.topic_partition)
            if fetched.regions:
                return state, fetched
            self._move(state, Position(fetched.next_offset, fetched.leader_epoch))
            fetched.release()
            self._fetching.maybe_drained(state)
        return None

    def _is_allowed(self, tp: TopicPartition) -> bool:
        state = self._subscription.find(tp)
        return state is not None and not state.is_paused and not state.is_held

    def _move(self, state: AssignedPartition, position: Position) -> None:
        assert state.position is not None, state
        if position.offset > state.position.offset:
            self._before.setdefault(state.tp, state.position)
            state.handle_taken(position)


class Chunk:
    """Records of one partition that are handed over one at a time: count `index` up, and stop when it `is_over`."""

    __slots__ = ("_current", "_delivery")

    def __init__(self, delivery: Delivery, current: _Current) -> None:
        self._delivery = delivery
        self._current = current

    @property
    def records(self) -> list[ConsumerRecord]:
        """All of them, those handed over included."""
        return self._current.records

    @property
    def current(self) -> _Current:
        """Where `index` is counted."""
        return self._current

    @property
    def is_over(self) -> bool:
        """Whether the rest is not to be handed over now: a seek, a pause, a rebalance came between."""
        current = self._current
        state = current.state
        return self._delivery._current is not current or state.is_paused or state.is_held
