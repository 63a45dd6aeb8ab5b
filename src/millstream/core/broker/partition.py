"""One replica of a topic partition on this broker: what it acknowledges, what it shows to whom, who waits for it.

Offsets, and what moves them:

    log_start_offset <= last_stable_offset <= high_watermark <= acked_end_offset <= log_end_offset <= reserved end
    (retention,         (open transactions   (on every          (flushed, where      (written)         (accepted,
     DeleteRecords)      end)                 in-sync replica)   flush.messages asks)                    in memory)

A batch is accepted by `append` on the loop: validated, deduplicated, given its offsets. It is written with all others
of its pass by `Appends.submit`, and `handle_written` then moves the offsets and calls who waits. Owned by the event
loop.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from millstream.core.broker.delayed import Delayed
from millstream.core.log import LogConfig, Reservation
from millstream.core.log.config import UNLIMITED
from millstream.core.records import (
    BatchHeader,
    InvalidBatchError,
    needs_opening,
    open_batch,
    read_header,
    validate_batch,
)
from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.broker.appends import Appends
    from millstream.core.broker.broker_metrics import TopicMetrics
    from millstream.core.log import Log, TopicPartition

logger = logging.getLogger(__name__)

Buffer = bytes | bytearray | memoryview

# Appends of one partition that wait to be opened on a worker thread: more are refused until some are through. Before
# that, `Appends.has_room` makes producers wait.
OPENING_COUNT_MAX: Final = 10_000
# What is counted for a batch that waits to be opened besides its bytes: it grows when it is.
OPENING_SIZE_BYTES: Final = 8 * 1024

_TRANSACTIONAL: Final = 0x10  # a bit of a batch's attributes


class ReplicaState(Enum):
    """See Partition."""

    OFFLINE = "offline"
    FOLLOWER = "follower"
    LEADER = "leader"


class FetchWaiter(Protocol):
    """What waits in a partition's purgatory for records."""

    def handle_progress(self, size_bytes: int) -> None:
        """`size_bytes` more can be read from a partition it watches, or something else there changed (0)."""


class UnansweredProducer(Protocol):
    """Who sent batches with acks=0: nothing is answered, so only the end of the connection says that one was lost."""

    def refuse(self, reason: str) -> None:
        """End the connection, for this reason."""


class Partition:
    """One replica of a topic partition on this broker; owned by the event loop.

    States: OFFLINE -> FOLLOWER | LEADER (become_follower, become_leader: a new leader epoch) -> OFFLINE (log directory
    failed, topic deleted). A partition that leaves LEADER, or whose write failed, starts a new `generation`: appends
    that wait from an earlier one are never acknowledged.
    """

    __slots__ = (
        "_append_waiters",
        "_appends",
        "_flush_wanted",
        "_flushes_in_time",
        "_flushing",
        "_opening",
        "_size_unseen_bytes",
        "acked_end_offset",
        "failure",
        "fetch_waiters",
        "generation",
        "high_watermark",
        "index",
        "isr",
        "leader",
        "leader_epoch",
        "log",
        "metrics",
        "min_insync_replicas",
        "offline_error",
        "replicas",
        "rules",
        "state",
        "topic",
        "topic_id",
        "unanswered",
    )

    def __init__(self, topic: str, index: int, topic_id: bytes, *, appends: Appends, metrics: TopicMetrics) -> None:
        self.topic = topic
        self.index = index
        self.topic_id = topic_id
        self._appends = appends
        self.metrics = metrics
        self.state = ReplicaState.OFFLINE
        self.offline_error = ErrorCode.LEADER_NOT_AVAILABLE
        self.leader = -1
        self.leader_epoch = -1
        self.replicas: tuple[int, ...] = ()
        self.isr: tuple[int, ...] = ()
        self.log: Log | None = None
        self.rules = LogConfig().rules()
        self.min_insync_replicas = 1
        # Counts failed writes and lost leaderships; see the class.
        self.generation = 0
        # What appends of the last ended generation are answered.
        self.failure = ErrorCode.NOT_LEADER_OR_FOLLOWER
        # Offset behind the last record that acks=1 may acknowledge: log_end_offset, or flushed_offset while
        # flush.messages asks for a flush. Moves up by handle_written and handle_flushed.
        self.acked_end_offset = 0
        # Offset of the first record not yet on every in-sync replica. Moves up only, by maybe_advance_high_watermark.
        # Invariant: log_start_offset <= high_watermark <= acked_end_offset.
        self.high_watermark = 0
        # Purgatory: fetches that watch this partition, in the order they came. A waiter removes itself when it ends.
        self.fetch_waiters: dict[FetchWaiter, None] = {}
        # Called when offsets move: who waits to acknowledge appends.
        self._append_waiters: dict[Callable[[], None], None] = {}
        # Whose connection ends if what it sent with acks=0 is not written, with the offset behind its newest batch
        # here; gone once that is written.
        self.unanswered: dict[UnansweredProducer, int] = {}
        # Batches being opened on worker threads, and those behind them; appended in this order.
        self._opening: deque[_Opening] = deque()
        # Appended since fetches were last told.
        self._size_unseen_bytes = 0
        self._flushing = False
        self._flush_wanted = False
        # Whether the topic has flush.ms.
        self._flushes_in_time = False

    @property
    def topic_partition(self) -> TopicPartition:
        assert self.log is not None, f"{self} has no log"
        return self.log.topic_partition

    @property
    def is_leader(self) -> bool:
        return self.state is ReplicaState.LEADER

    @property
    def log_start_offset(self) -> int:
        return self.log.log_start_offset if self.log is not None else 0

    @property
    def log_end_offset(self) -> int:
        return self.log.log_end_offset if self.log is not None else 0

    @property
    def last_stable_offset(self) -> int:
        """Offset behind the last record that read_committed may see: the first open transaction's, or the high
        watermark.
        """
        unstable = self.log.producers.first_unstable_offset if self.log is not None else None
        return self.high_watermark if unstable is None or unstable > self.high_watermark else unstable

    def __repr__(self) -> str:
        return f"{self.topic}-{self.index} ({self.state.value}, epoch {self.leader_epoch})"

    # States

    def become_leader(
        self, log: Log, *, leader: int, leader_epoch: int, replicas: tuple[int, ...], isr: tuple[int, ...]
    ) -> None:
        """Serve this partition from `log` as its leader in `leader_epoch`."""
        self.log = log
        self.leader = leader
        if self.state is not ReplicaState.LEADER or leader_epoch != self.leader_epoch:
            self.generation += 1
        self.leader_epoch = leader_epoch
        self.replicas = replicas
        self.isr = isr
        self.state = ReplicaState.LEADER
        self.acked_end_offset = log.log_end_offset
        self.configure(log.config)
        self.maybe_advance_high_watermark()

    def become_offline(self, error: ErrorCode) -> None:
        """Serve nothing any more and answer `error`: the log directory failed, or the topic was deleted."""
        if self.state is ReplicaState.OFFLINE and self.offline_error is error:
            return
        self.state = ReplicaState.OFFLINE
        self.offline_error = error
        self._fail_appends(KafkaError(error, f"{self.topic}-{self.index} went offline on this broker"))
        self._wake_fetches(0)

    def configure(self, config: LogConfig) -> None:
        """Take over the topic's configuration after it changed."""
        assert self.log is not None, f"{self} has no log"
        self.log.config = config
        self.rules = config.rules()
        # More than there are replicas can never be in sync, so Kafka asks for no more than all of them (KIP-966).
        self.min_insync_replicas = min(config.min_insync_replicas, len(self.replicas))
        self._flushes_in_time = config.flush_ms < UNLIMITED
        if self._flushes_in_time:
            self._appends.unflushed.add(self)

    def check_leader(self, current_leader_epoch: int = -1) -> Log:
        """Return the log if this replica leads in the epoch the client knows (-1: it knows none); KafkaError
        otherwise.
        """
        if self.state is not ReplicaState.LEADER:
            raise KafkaError(self.offline_error, f"{self.topic}-{self.index} is not served by this broker")
        if current_leader_epoch not in {-1, self.leader_epoch}:
            if current_leader_epoch < self.leader_epoch:
                raise KafkaError(
                    ErrorCode.FENCED_LEADER_EPOCH,
                    f"leader epoch {current_leader_epoch} of {self.topic}-{self.index} is over: "
                    f"it is {self.leader_epoch} now",
                )
            raise KafkaError(
                ErrorCode.UNKNOWN_LEADER_EPOCH,
                f"leader epoch {current_leader_epoch} of {self.topic}-{self.index} is not known here: "
                f"it is {self.leader_epoch} now",
            )
        assert self.log is not None, f"{self} has no log"
        return self.log

    # Appending

    def append(
        self, batch: Buffer, acks: int, now_ms: int, *, copy: bool = True, header: BatchHeader | None = None
    ) -> Reservation | Delayed[Reservation]:
        """Accept one client batch: validate, deduplicate, assign its offsets; `Appends.submit` then writes it.

        With `copy` false the caller keeps `batch` valid and untouched until it is written. A batch that comes with its
        header was made by this broker and is not validated. Delayed where the batch must be opened on a worker thread,
        or others before it are. Raises KafkaError (InvalidBatchError says which records).
        """
        reservation = self.append_now(batch, acks, now_ms, copy, header)
        return self._open(bytes(batch), now_ms) if reservation is None else reservation

    def append_now(
        self, batch: Buffer, acks: int, now_ms: int, copy: bool, header: BatchHeader | None = None
    ) -> Reservation | None:
        """Like `append`; None where it would be Delayed, and nothing is done yet."""
        log = self.log
        if self.state is not ReplicaState.LEADER or log is None:
            log = self.check_leader()
        if acks == -1 and len(self.isr) < self.min_insync_replicas:
            raise KafkaError(
                ErrorCode.NOT_ENOUGH_REPLICAS,
                f"{self.topic}-{self.index} has {len(self.isr)} in-sync replicas, min.insync.replicas is "
                f"{self.min_insync_replicas}",
            )
        if log.directory.read_only_reason is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, log.directory.read_only_reason)
        rules = self.rules
        if header is None:
            header = validate_batch(batch, rules, now_ms)
        if header.attributes & _TRANSACTIONAL:
            # Kafka's answer to a transactional batch without a transactional id; clients take it for final.
            raise InvalidBatchError(
                ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                f"{self.topic}-{self.index} has no open transaction of producer {header.producer_id}",
            )
        if self._opening or needs_opening(header, rules):
            return None
        return self._reserve(log, batch, header, now_ms, copy)

    def is_acked(self, end_offset: int, acks: int) -> bool:
        """Whether everything before `end_offset` may be acknowledged to a producer that asked for `acks`."""
        return (self.high_watermark if acks == -1 else self.acked_end_offset) >= end_offset

    def when_acked(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when more may be acknowledged than now or a generation ends; it looks for itself."""
        self._append_waiters[callback] = None

    def handle_written(self, _log_end_offset: int | None, error: BaseException | None) -> None:
        """What was reserved is in the log (`log_end_offset` has moved), or `error` undid all of it."""
        if self._appends.unwritten_bytes and self.log is not None:
            self._appends.handle_written(self, self.log.unwritten_bytes)
        if error is not None:
            if self.state is ReplicaState.LEADER:  # else it was deleted or went offline, and that is said already
                logger.error("%s-%d: a write failed: %s", self.topic, self.index, error)
            self._fail_appends(error)
            return
        assert self.log is not None, f"{self} has no log"
        if self.state is not ReplicaState.LEADER:
            return
        log = self.log
        end_offset = log.log_end_offset
        if self.unanswered:
            self.unanswered = {producer: end for producer, end in self.unanswered.items() if end > end_offset}
        if self._flushes_in_time:
            self._appends.unflushed.add(self)
        if end_offset - log.flushed_offset >= log.config.flush_messages:
            self._flush_wanted = True
            self._maybe_flush()
        elif not self._flushing and end_offset > self.acked_end_offset:
            self.acked_end_offset = end_offset
            self.maybe_advance_high_watermark()

    def handle_flushed(self, flushed_offset: int | None, error: BaseException | None) -> None:
        """The log is on the disk itself up to `flushed_offset`: acks that flush.messages held back can go."""
        self._flushing = False
        if error is not None:
            self._fail_appends(error)
            return
        assert flushed_offset is not None, "neither an offset nor an error"
        if self.state is not ReplicaState.LEADER or self.log is None:
            return
        self.acked_end_offset = max(self.acked_end_offset, flushed_offset)
        self._maybe_flush()
        self.handle_written(self.log.log_end_offset, None)
        self.maybe_advance_high_watermark()

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """Return (the greatest leader epoch up to `epoch`, the offset behind it); (-1, -1) where none is known.

        The log knows an epoch by its first batch; the partition's own began without one, at the log's end.
        """
        assert self.log is not None, f"{self} has no log"
        log = self.log
        latest = log.leader_epochs.latest_epoch
        if latest < epoch <= self.leader_epoch:
            return epoch if epoch == self.leader_epoch or latest < 0 else latest, log.log_end_offset
        return log.end_offset_for_epoch(epoch)

    def maybe_advance_high_watermark(self) -> None:
        """Move the high watermark to what every in-sync replica has, and call who waits for that."""
        # This broker is the only replica until replication exists.
        advanced = self.acked_end_offset
        before = self.high_watermark
        if advanced > before:
            self.high_watermark = advanced
        if self._append_waiters:
            self._wake_appends()
        if advanced > before and self.fetch_waiters:
            size_bytes, self._size_unseen_bytes = self._size_unseen_bytes, 0
            self._wake_fetches(size_bytes)

    def _reserve(self, log: Log, batch: Buffer, header: BatchHeader, now_ms: int, copy: bool) -> Reservation:
        reservation = log.reserve(batch, header, leader_epoch=self.leader_epoch, now_ms=now_ms, copy=copy)
        self._appends.touched[self] = None
        size_bytes = len(batch)
        self._size_unseen_bytes += size_bytes
        metrics = self.metrics
        metrics.messages_in += header.count
        metrics.bytes_in += size_bytes
        return reservation

    def _open(self, batch: bytes, now_ms: int) -> Delayed[Reservation]:
        """Queue a batch behind the ones being opened; open it on a worker thread where the topic needs it."""
        if len(self._opening) >= OPENING_COUNT_MAX:
            raise KafkaError(
                ErrorCode.THROTTLING_QUOTA_EXCEEDED,
                f"{OPENING_COUNT_MAX} batches of {self.topic}-{self.index} wait to be decompressed",
            )
        header = read_header(batch)
        opening = _Opening(batch, now_ms)
        self._opening.append(opening)
        self._appends.hold(opening.size_bytes)
        if needs_opening(header, self.rules):
            rules = self.rules

            def opened(result: Buffer | None, error: BaseException | None) -> None:
                opening.batch, opening.error, opening.is_open = result, error, True
                self._append_opened()

            self._appends.run_on_thread(lambda: open_batch(batch, rules, now_ms), opened)
        else:
            opening.is_open = True
        return opening.delayed

    def _append_opened(self) -> None:
        """Append what is open, in the order it came."""
        while self._opening and self._opening[0].is_open:
            opening = self._opening.popleft()
            self._appends.hold(-opening.size_bytes)
            if opening.error is not None:
                opening.delayed.fail(_as_kafka_error(opening.error, ErrorCode.UNKNOWN_SERVER_ERROR))
                continue
            assert opening.batch is not None, "opened into neither a batch nor an error"
            try:
                log = self.check_leader()
                header = read_header(opening.batch)
                reservation = self._reserve(log, bytearray(opening.batch), header, opening.now_ms, False)
            except Exception as error:  # noqa: BLE001  whoever waits for it is answered, whatever it is
                opening.delayed.fail(_as_kafka_error(error, ErrorCode.UNKNOWN_SERVER_ERROR))
            else:
                opening.delayed.complete(reservation)
        self._appends.submit()

    def _maybe_flush(self) -> None:
        if self._flush_wanted and not self._flushing:
            assert self.log is not None, f"{self} has no log"
            self._flush_wanted = False
            self._flushing = True
            self.log.directory.submit_flush(self.log, self.handle_flushed)

    def _wake_appends(self) -> None:
        waiters, self._append_waiters = self._append_waiters, {}
        for callback in waiters:
            try:
                callback()
            except Exception:
                # One producer's trouble is not that of the others who wait.
                logger.exception("%s-%d: a waiting append failed", self.topic, self.index)

    def _fail_appends(self, error: BaseException) -> None:
        self.generation += 1
        failure = _as_kafka_error(error, ErrorCode.KAFKA_STORAGE_ERROR)
        self.failure = failure.code
        while self._opening:
            opening = self._opening.popleft()
            self._appends.hold(-opening.size_bytes)
            opening.delayed.fail(failure)
        unanswered, self.unanswered = self.unanswered, {}
        for producer in unanswered:
            producer.refuse(f"its acks=0 produce failed: {self.topic}-{self.index}: {error}")
        self._wake_appends()

    def _wake_fetches(self, size_bytes: int) -> None:
        for waiter in tuple(self.fetch_waiters):
            try:
                waiter.handle_progress(size_bytes)
            except Exception:
                # One consumer's trouble is not the producer's, in whose pass this runs.
                logger.exception("%s-%d: a waiting fetch failed", self.topic, self.index)


def _as_kafka_error(error: BaseException, code: ErrorCode) -> KafkaError:
    return error if isinstance(error, KafkaError) else KafkaError(code, f"{type(error).__name__}: {error}")


class _Opening:
    """A batch on its way through a worker thread."""

    __slots__ = ("batch", "delayed", "error", "is_open", "now_ms", "size_bytes")

    def __init__(self, batch: bytes, now_ms: int) -> None:
        self.batch: Buffer | None = batch
        self.size_bytes = len(batch) + OPENING_SIZE_BYTES
        self.now_ms = now_ms
        self.is_open = False
        self.error: BaseException | None = None
        self.delayed: Delayed[Reservation] = Delayed()
