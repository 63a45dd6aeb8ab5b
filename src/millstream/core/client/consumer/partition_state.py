"""One assigned partition as its consumer sees it: where it is to be read, and whether that is known to be right.

There are two positions, since fetching runs ahead: `position` is the next record to hand to the application, and
`fetch_position` the next to ask a broker for; what lies between is buffered. A position is an offset and the leader
epoch of the record before it, by which a log that was cut by an unclean election is found out (KIP-320).

States, and what moves between them:

    INITIALIZING       no position: a committed offset is looked for, or the application has to seek
    AWAIT_RESET        an offset is being asked for, at an end of the log or at a time
    AWAIT_VALIDATION   the leader is being asked whether its log still has what was read
    FETCHING           may be fetched
    FAILED             `error` is raised by polls until a seek

    INITIALIZING -> FETCHING | AWAIT_VALIDATION (seek)        INITIALIZING -> AWAIT_RESET (nothing committed) | FAILED
    AWAIT_RESET -> FETCHING (the offset came)                 FETCHING -> AWAIT_VALIDATION (a new leader epoch)
    FETCHING -> AWAIT_RESET | FAILED (out of range, cut, damaged; only when what is buffered has been handed over)
    AWAIT_VALIDATION -> FETCHING | AWAIT_RESET | FAILED       any -> FETCHING | AWAIT_VALIDATION (seek) | AWAIT_RESET
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from millstream.core.client.cluster import NO_NODE, TopicPartition
from millstream.core.client.consumer.errors import LogTruncationError, NoOffsetForPartitionError, PartitionError
from millstream.core.client.consumer.settings import OffsetReset, ResetKind

NO_EPOCH: Final = -1


class Position(NamedTuple):
    """The offset of the next record, and the leader epoch of the one before it (-1: not known)."""

    offset: int
    leader_epoch: int = NO_EPOCH


class FetchState(Enum):
    """See the module's top."""

    INITIALIZING = "initializing"
    AWAIT_RESET = "await reset"
    AWAIT_VALIDATION = "await validation"
    FETCHING = "fetching"
    FAILED = "failed"


class AssignedPartition:
    """The state of one assigned partition; owned by the loop. Times are milliseconds of a clock that never jumps.

    Whatever makes an answer on its way worthless raises `version`: requests carry it, and answers of an older one are
    dropped.
    """

    __slots__ = (
        "buffered_bytes",
        "error",
        "fetch_position",
        "high_watermark",
        "is_held",
        "is_paused",
        "last_stable_offset",
        "leader",
        "leader_epoch",
        "log_start_offset",
        "position",
        "preferred_replica",
        "preferred_until_ms",
        "reset",
        "reset_when_drained",
        "retry_at_ms",
        "state",
        "stop_offset",
        "suspect_offset",
        "topic_id",
        "tp",
        "version",
    )

    def __init__(self, tp: TopicPartition) -> None:
        self.tp = tp
        self.topic_id = b""
        self.state = FetchState.INITIALIZING
        # None in INITIALIZING and, without anything buffered, in AWAIT_RESET.
        # Invariant: position.offset <= fetch_position.offset, and both are there or neither.
        self.position: Position | None = None
        self.fetch_position: Position | None = None
        self.version = 0
        # Nothing is asked for from here on, and of an answer nothing is kept behind the batch that reaches it; None:
        # there is no end. Moved by an application's seeks alone.
        self.stop_offset: int | None = None
        self.leader = NO_NODE
        self.leader_epoch = NO_EPOCH
        self.is_paused = False
        # A rebalance callback about it runs: nothing of it is asked for or handed over.
        self.is_held = False
        # What AWAIT_RESET asks for.
        self.reset: OffsetReset | None = None
        # The policy to apply, or the error to show, once what is buffered has been handed over.
        self.reset_when_drained = False
        self.error: Exception | None = None
        # Where a batch failed its CRC once: it is fetched again before that is taken for the log's fault.
        self.suspect_offset = -1
        # Not asked for again before; after an error.
        self.retry_at_ms = 0
        self.preferred_replica = NO_NODE
        self.preferred_until_ms = 0
        # As of the last answer; -1: not known yet.
        self.high_watermark = -1
        self.last_stable_offset = -1
        self.log_start_offset = -1
        # Bytes of `data` in the fetch buffer. Moved by FetchBuffer alone.
        self.buffered_bytes = 0

    def __repr__(self) -> str:
        return f"AssignedPartition({self.tp}, {self.state.value}, at {self.position}, fetched to {self.fetch_position})"

    def is_fetchable(self, now_ms: int) -> bool:
        """Whether it may be asked for now, as far as it alone is concerned."""
        return (
            self.state is FetchState.FETCHING
            and not self.is_paused
            and not self.is_held
            and not self.reset_when_drained
            and self.error is None
            and now_ms >= self.retry_at_ms
            and not self.is_at_stop
        )

    @property
    def is_at_stop(self) -> bool:
        """Whether all that lies before `stop_offset` was fetched."""
        stop, at = self.stop_offset, self.fetch_position
        return stop is not None and at is not None and at.offset >= stop

    def read_replica(self, now_ms: int) -> int:
        """Return the node to fetch from: the preferred replica while that holds (KIP-392), else the leader."""
        if self.preferred_replica != NO_NODE:
            if now_ms < self.preferred_until_ms:
                return self.preferred_replica
            self.preferred_replica = NO_NODE
        return self.leader

    def prefer(self, node: int, until_ms: int) -> None:
        """Fetch from `node` until then."""
        self.preferred_replica, self.preferred_until_ms = node, until_ms

    def seek(self, position: Position) -> None:
        """Go to `position`: what is on its way is worthless. With a known epoch it is validated first."""
        self._begin_anew()
        self.position = self.fetch_position = position
        self.state = FetchState.FETCHING
        if position.leader_epoch >= 0 and self.leader_epoch >= 0:
            self.state = FetchState.AWAIT_VALIDATION

    def request_reset(self, reset: OffsetReset) -> None:
        """Go where `reset` says, once that offset is known. NONE fails."""
        self._begin_anew()
        self.position = self.fetch_position = None
        if reset.kind is ResetKind.NONE:
            self.fail(NoOffsetForPartitionError(self.tp))
            return
        self.reset = reset
        self.state = FetchState.AWAIT_RESET

    def handle_reset_offset(self, version: int, position: Position) -> bool:
        """Take the offset that was asked for; returns whether it was still wanted."""
        if self.state is not FetchState.AWAIT_RESET or version != self.version:
            return False
        # What the leader has just said needs no validation.
        self._begin_anew()
        self.position = self.fetch_position = position
        self.state = FetchState.FETCHING
        return True

    def handle_leader(self, leader: int, leader_epoch: int) -> None:
        """Take what metadata says; a newer epoch asks for validation. An older one than known is not believed."""
        if leader_epoch != NO_EPOCH and leader_epoch < self.leader_epoch:
            return
        is_new = leader_epoch > self.leader_epoch
        if leader != self.leader or is_new:
            self.preferred_replica = NO_NODE
        self.leader, self.leader_epoch = leader, leader_epoch
        if (
            is_new
            and self.state is FetchState.FETCHING
            and self.fetch_position is not None
            and self.fetch_position.leader_epoch >= 0
        ):
            self.version += 1
            self.state = FetchState.AWAIT_VALIDATION
            self.retry_at_ms = 0

    def handle_topic_id(self, topic_id: bytes) -> None:
        """Take the topic's id. Another one is another topic under the name: its epochs begin anew, and offsets may."""
        if any(self.topic_id) and topic_id != self.topic_id:
            self.version += 1
            self.leader, self.leader_epoch = NO_NODE, NO_EPOCH
            self.preferred_replica = NO_NODE
            self.skip_validation()
            if self.position is not None and self.fetch_position is not None:
                self.position = Position(self.position.offset)
                self.fetch_position = Position(self.fetch_position.offset)
        self.topic_id = topic_id

    def skip_validation(self) -> None:
        """Fetch on without asking: the broker does not know the request, or asking is pointless."""
        if self.state is FetchState.AWAIT_VALIDATION:
            self.state = FetchState.FETCHING

    def handle_epoch_end(self, version: int, epoch: int, end_offset: int, reset: OffsetReset) -> bool:
        """Take the leader's word on where `fetch_position.leader_epoch` ends in its log (-1, -1: it never had it).

        Returns whether what is buffered has to be dropped: the log was cut below what was fetched.
        """
        if version != self.version or self.state is not FetchState.AWAIT_VALIDATION:
            return False
        assert self.position is not None, self
        assert self.fetch_position is not None, self
        if end_offset >= self.fetch_position.offset and epoch >= 0:
            self.state = FetchState.FETCHING
            return False
        if self.fetch_position.offset > self.position.offset:
            # Only what nobody has seen may be affected: forget it, and ask again about what was handed over.
            self.version += 1
            self.fetch_position = self.position
            if self.position.leader_epoch < 0:
                self.state = FetchState.FETCHING
            return True
        self._handle_truncation(epoch, end_offset, reset)
        return True

    def handle_divergence(self, version: int, epoch: int, end_offset: int, reset: OffsetReset) -> bool:
        """Take what a Fetch answered instead of records: the same as `handle_epoch_end` of a failed validation."""
        if version != self.version or self.state is not FetchState.FETCHING:
            return False
        self.state = FetchState.AWAIT_VALIDATION
        return self.handle_epoch_end(version, epoch, end_offset, reset)

    def handle_fetched(self, position: Position) -> None:
        """Move `fetch_position` on: records up to it are buffered."""
        assert self.fetch_position is not None, self
        assert position.offset >= self.fetch_position.offset, (self, position)
        self.fetch_position = position

    def handle_taken(self, position: Position) -> None:
        """Move `position` on: the application has got the records up to it."""
        assert self.position is not None, self
        assert self.fetch_position is not None, self
        assert self.position.offset <= position.offset <= self.fetch_position.offset, (self, position)
        self.position = position

    def handle_out_of_range(self, error: PartitionError, reset: OffsetReset) -> None:
        """The log does not hold `fetch_position`: go by the policy as soon as what is buffered has been handed over."""
        if reset.kind is ResetKind.NONE:
            self.error = error
        self.reset_when_drained = True

    def handle_unreadable(self, error: PartitionError) -> None:
        """What was fetched from `error.offset` on cannot be opened: fetch no further, and fail when that is reached."""
        assert self.position is not None, self
        self.version += 1
        self.fetch_position = Position(max(error.offset, self.position.offset), self.position.leader_epoch)
        self.error = error

    def handle_drained(self, reset: OffsetReset) -> None:
        """Nothing of it is buffered any more: do what waited for that."""
        if self.error is not None:
            self.state = FetchState.FAILED
        elif self.reset_when_drained:
            self.request_reset(reset)

    def fail(self, error: Exception) -> None:
        """Have `error` raised by polls until a seek; what is buffered is handed over first."""
        self.error = error
        self.state = FetchState.FAILED

    def _handle_truncation(self, epoch: int, end_offset: int, reset: OffsetReset) -> None:
        assert self.position is not None, self
        is_known = epoch >= 0 and end_offset >= 0
        if reset.kind is ResetKind.NONE:
            error = LogTruncationError(self.tp, self.position.offset, end_offset if is_known else None, epoch)
            self.version += 1
            self.fail(error)
        elif is_known:
            # As Kafka: a consumer that may be reset goes back to where the logs part.
            self._begin_anew()
            self.position = self.fetch_position = Position(end_offset, epoch)
            self.state = FetchState.FETCHING
        else:
            self.request_reset(reset)

    def _begin_anew(self) -> None:
        self.version += 1
        self.reset = None
        self.reset_when_drained = False
        self.error = None
        self.retry_at_ms = 0
