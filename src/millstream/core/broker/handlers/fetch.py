"""Fetch: record batches as they lie in the log, from an offset on, of many partitions at once.

Reads run on the event loop as long as the page cache has the bytes; a cold page moves that read to a worker thread, and
the request goes on from there. A request that finds too little waits in purgatory and reads again when there is more.
Each partition is answered for itself; at least one batch is given, however small the limits are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import AllowAll, Operation, RequestContext, ResourceType
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.fetch_codec import (
    AskedFetch,
    PartitionAnswer,
    encode_answer,
)
from millstream.core.broker.fetch_sessions import FetchPlan, FetchTarget, move_to_end
from millstream.core.broker.handlers.encoded import EncodedParts
from millstream.core.broker.partition import ReplicaState
from millstream.core.log import FileRegion, LogRead, OffsetOutOfRangeError
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.fetch import FetchResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from millstream.core.broker.broker import Broker
    from millstream.core.broker.direct_send import Part
    from millstream.core.broker.partition import Partition
    from millstream.core.broker.purgatory import Watch
    from millstream.core.log import Log

READ_COMMITTED: Final = 1
# Errors that Kafka answers with an empty list of aborted transactions, where others have none at all.
_WITHOUT_PARTITION: Final = frozenset(
    {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.TOPIC_AUTHORIZATION_FAILED}
)
# Read memory that a fetch takes before it reads: what it finds beyond that is limited by what is free.
RESERVED_SIZE_BYTES: Final = 64 * 1024
# When read memory is taken by clients that do not read, look again after this.
MEMORY_RETRY_S: Final = 0.1

FetchAnswer = EncodedParts | FetchResponse | Delayed[EncodedParts]

_LEADER: Final = ReplicaState.LEADER
_new_tuple: Final = tuple.__new__  # a NamedTuple's own constructor costs twice this


def fetch(broker: Broker, request: AskedFetch, context: RequestContext) -> FetchAnswer:
    """Answer at once if there are `min_bytes`, an error or no time to wait; else when one of them is so."""
    plan = broker.fetch_sessions.plan(request, context.api_version, broker.clock.now_ms())
    if plan.error:
        return FetchResponse(error_code=plan.error)
    return _Fetch(broker, request, context, plan).start()


class _Fetch:
    """One request's way to its answer.

    States: READING (a pass over the partitions; on the loop, or on a thread for one of them) -> WAITING (in purgatory)
    -> READING -> ... -> DONE | CANCELLED (the connection has gone).
    """

    __slots__ = (
        "_answers",
        "_asks_authorizer",
        "_broker",
        "_context",
        "_deadline_ms",
        "_delayed",
        "_ends",
        "_has_error",
        "_min_bytes",
        "_missing_bytes",
        "_plan",
        "_read_committed",
        "_reserved_bytes",
        "_response",
        "_size_bytes",
        "_size_limit",
        "_size_max",
        "_targets",
        "_watch",
    )

    def __init__(self, broker: Broker, request: AskedFetch, context: RequestContext, plan: FetchPlan) -> None:
        self._broker = broker
        self._context = context
        self._plan = plan
        self._asks_authorizer = type(context.authorizer) is not AllowAll
        max_wait_ms, self._min_bytes, max_bytes, isolation_level, _, _, _, _ = request
        self._read_committed = isolation_level == READ_COMMITTED
        self._size_max = max(0, min(max_bytes, broker.fetch_size_bytes_max))
        self._deadline_ms = broker.clock.monotonic_ms() + max_wait_ms
        # The answer: as it is where the first pass finds it, else by a Delayed.
        self._response: EncodedParts | None = None
        self._delayed: Delayed[EncodedParts] | None = None
        self._watch: Watch | None = None
        # How many bytes were missing after the last pass, less what has arrived on watched partitions since.
        self._missing_bytes = 0
        self._reserved_bytes = 0

    def start(self) -> EncodedParts | Delayed[EncodedParts]:
        """Make the first pass; return the answer if that finds it."""
        self._read()
        if self._response is not None:
            return self._response
        self._delayed = Delayed()
        self._delayed.on_cancel(self._cancel)
        return self._delayed

    @property
    def _is_cancelled(self) -> bool:
        return self._delayed is not None and self._delayed.is_cancelled

    def _read(self) -> None:
        """Begin a pass once there is memory for it."""
        if self._is_cancelled:
            return
        memory = self._broker.connections.read_memory
        reserved = min(self._size_max, RESERVED_SIZE_BYTES)
        if not memory.try_charge(reserved):
            self._broker.loop.call_later(MEMORY_RETRY_S, self._read)
            return
        self._answers: list[PartitionAnswer] = []
        self._size_bytes = 0
        self._has_error = False
        self._reserved_bytes = reserved
        self._size_limit = min(self._size_max, reserved + memory.free_bytes)
        self._targets: Iterator[FetchTarget] = iter(list(self._plan.targets.values()))
        # Where partitions ended for this reader when the pass first went to a thread; empty while it did not.
        self._ends: dict[Partition, int] = {}
        self._go_on()

    def _go_on(self) -> None:
        """Read the partitions left in this pass; ends early where one has to be read on a thread."""
        broker = self._broker
        find = broker.partitions.find
        incremental = self._plan.incremental
        for target in self._targets:
            key = target.key
            partition = find(key)
            if (
                partition is None
                or partition.state is not _LEADER
                or (target.current_leader_epoch >= 0 and target.current_leader_epoch != partition.leader_epoch)
                or self._asks_authorizer
            ):
                partition = self._partition(target)
                if partition is None:
                    continue
            log = partition.log
            assert log is not None, f"{partition} leads without a log"
            offset = target.fetch_offset
            high_watermark = partition.high_watermark
            stable_offset = partition.last_stable_offset
            end_offset = stable_offset if self._read_committed else high_watermark
            if target.last_fetched_epoch >= 0 and self._has_diverged(target, partition, log):
                continue
            log_start_offset = log.log_start_offset
            if not log_start_offset <= offset <= log.log_end_offset:
                error = OffsetOutOfRangeError(offset, log_start_offset, high_watermark)
                self._answer_error(target, error, partition)
                continue
            left = self._size_limit - self._size_bytes
            if offset >= end_offset or (left <= 0 and self._size_bytes):
                if (
                    not incremental
                    or high_watermark != target.sent_high_watermark
                    or log_start_offset != target.sent_log_start_offset
                ):
                    aborted = () if self._read_committed else None
                    self._answers.append(
                        _new_tuple(
                            PartitionAnswer,
                            (key, 0, high_watermark, stable_offset, log_start_offset, aborted, b"", None),
                        )
                    )
                continue
            at_least_one = self._size_bytes == 0
            size_max = max(0, min(target.max_bytes, left))
            if self._read_committed and log.has_aborted_transactions:
                # Which ones lie in what is read stands in files.
                self._read_on_thread(target, partition, log, end_offset, size_max, at_least_one)
                return
            try:
                read = log.read(
                    offset,
                    size_max,
                    end_offset=end_offset,
                    at_least_one=at_least_one,
                    wait=False,
                    buffer=broker.connections.read_buffer,
                )
            except BlockingIOError:
                self._read_on_thread(target, partition, log, end_offset, size_max, at_least_one)
                return
            except KafkaError as error:
                self._answer_error(target, error, partition)
            else:
                # The buffer is the next read's; what is large goes to the socket from the file.
                records = bytes(read.data) if read.region is None else read.region
                self._size_bytes += len(records)
                self._append(target, partition, log, records, [])
        self._end_pass()

    def _partition(self, target: FetchTarget) -> Partition | None:
        """Return the partition of a target; answers what stands against reading it."""
        broker = self._broker
        name, index = target.key
        if isinstance(name, bytes):
            image = broker.metadata.image.topic_by_id(name)
            if image is None:
                self._answer_error(target, KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, "no topic has this id"), None)
                return None
            topic = image.name
        else:
            topic = name
        if not self._context.permits(Operation.READ, ResourceType.TOPIC, topic):
            self._answer_error(target, KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED, f"no read on {topic}"), None)
            return None
        try:
            partition = broker.partitions.leader(topic, index, target.current_leader_epoch)
        except KafkaError as error:
            self._answer_error(target, error, None)
            return None
        if isinstance(name, bytes) and partition.topic_id != name:
            # The topic was made anew under its name, and the old one's partitions are still here.
            anew = KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, f"{topic} is being made anew")
            self._answer_error(target, anew, None)
            return None
        return partition

    def _has_diverged(self, target: FetchTarget, partition: Partition, log: Log) -> bool:
        """Whether the client's last record is none of ours, and so is answered where the logs part (KIP-595)."""
        epoch, end_offset = partition.end_offset_for_epoch(target.last_fetched_epoch)
        if epoch < 0 or end_offset < 0:
            # No epoch to go back to: the client has to start anew.
            error = OffsetOutOfRangeError(target.fetch_offset, log.log_start_offset, partition.high_watermark)
            self._answer_error(target, error, partition)
            return True
        if epoch < target.last_fetched_epoch or end_offset < target.fetch_offset:
            self._append(target, partition, log, b"", diverging=(epoch, end_offset))
            self._has_error = True
            return True
        return False

    def _read_on_thread(
        self, target: FetchTarget, partition: Partition, log: Log, end_offset: int, size_max: int, at_least_one: bool
    ) -> None:
        offset = target.fetch_offset
        self._read_regions()
        self._ends = self._ends or {each: self._end_of(each) for each in self._partitions()}

        def read() -> tuple[LogRead, list[tuple[int, int]]]:
            found = log.read(offset, size_max, end_offset=end_offset, at_least_one=at_least_one, wait=True)
            if not self._read_committed or not log.has_aborted_transactions:
                return found, []
            return found, [
                (aborted.producer_id, aborted.first_offset)
                for aborted in log.aborted_transactions(offset, found.next_offset)
            ]

        def finished(result: tuple[LogRead, list[tuple[int, int]]] | None, error: BaseException | None) -> None:
            if self._is_cancelled:
                self._release()
                return
            if isinstance(error, KafkaError):
                self._answer_error(target, error, partition)
            elif result is not None:
                found, aborted = result
                self._size_bytes += len(found.data)
                self._append(target, partition, log, found.data, aborted)
            else:
                assert error is not None, "a read ended without a result or an error"
                self._fail(error)
                return
            try:
                self._go_on()
            except Exception as error:  # noqa: BLE001  nobody else would answer
                self._fail(error)

        self._broker.appends.run_on_thread(read, finished)

    def _fail(self, error: BaseException) -> None:
        self._release()
        if self._delayed is not None and not self._delayed.is_done:
            self._delayed.fail(error)

    def _read_regions(self) -> None:
        """Have in memory what was found before a thread reads on: it is in the page cache now, and who knows then."""
        for position, answer in enumerate(self._answers):
            if isinstance(answer.records, FileRegion):
                try:
                    self._answers[position] = answer._replace(records=answer.records.read())
                except KafkaError as error:
                    self._answers[position] = answer._replace(records=b"", error_code=error.code)
                    self._has_error = True

    def _answer_error(self, target: FetchTarget, error: KafkaError, partition: Partition | None) -> None:
        self._has_error = True
        if partition is not None:
            partition.metrics.failed_fetch_requests += 1
        aborted = () if error.code in _WITHOUT_PARTITION else None
        self._answers.append(PartitionAnswer(target.key, error.code, -1, -1, -1, aborted, b""))

    def _append(
        self,
        target: FetchTarget,
        partition: Partition,
        log: Log,
        records: Part,
        aborted: Sequence[tuple[int, int]] = (),
        diverging: tuple[int, int] | None = None,
    ) -> None:
        self._answers.append(
            _new_tuple(
                PartitionAnswer,
                (
                    target.key,
                    0,
                    partition.high_watermark,
                    partition.last_stable_offset,
                    log.log_start_offset,
                    aborted if self._read_committed else None,
                    records,
                    diverging,
                ),
            )
        )

    def _end_pass(self) -> None:
        """Answer, or wait for more."""
        if self._has_error or self._size_bytes >= self._min_bytes or not self._plan.targets:
            self._complete()
            return
        wait_ms = self._deadline_ms - self._broker.clock.monotonic_ms()
        if wait_ms > 0 and self._has_more_since():
            self._answers.clear()
            self._release()
            self._read()
            return
        if wait_ms > 0:
            self._missing_bytes = self._min_bytes - self._size_bytes
            self._watch = self._broker.purgatory.watch(
                self._partitions(), wait_ms, self._handle_progress, self._handle_expired
            )
        if wait_ms <= 0 or self._watch is None:
            self._complete()
            return
        # What was read is read again, from the page cache; waiting holds no memory.
        self._answers.clear()
        self._release()

    def _partitions(self) -> list[Partition]:
        # Without an error all of them are there.
        return [found for key in self._plan.targets if (found := self._broker.partitions.find(key)) is not None]

    def _end_of(self, partition: Partition) -> int:
        return partition.last_stable_offset if self._read_committed else partition.high_watermark

    def _has_more_since(self) -> bool:
        """Whether partitions went on, or away, while the pass was on a thread, when nobody watched them.

        What it was to find may even have been cleaned away for what came then, and no later progress would tell.
        """
        return any(
            partition.state is not _LEADER or self._end_of(partition) > end for partition, end in self._ends.items()
        )

    def _handle_progress(self, size_bytes: int) -> None:
        """A watched partition has `size_bytes` more; 0 says that something else changed there."""
        self._missing_bytes -= size_bytes
        if size_bytes == 0 or self._missing_bytes <= 0:
            assert self._watch is not None, "progress without a watch"
            self._watch.end()
            self._read()

    def _handle_expired(self) -> None:
        self._deadline_ms = 0
        self._read()

    def _cancel(self) -> None:
        if self._watch is not None:
            self._watch.end()
            self._answers.clear()
            # Memory is held only between a pass's start and its end; a pass on a thread gives it back itself.

    def _release(self) -> None:
        reserved, self._reserved_bytes = self._reserved_bytes, 0
        if reserved:
            self._broker.connections.read_memory.release(reserved)

    def _complete(self) -> None:
        plan = self._plan
        memory = self._broker.connections.read_memory
        held = self._size_bytes
        if held > self._reserved_bytes:
            memory.charge(held - self._reserved_bytes)
        elif self._reserved_bytes > held:
            memory.release(self._reserved_bytes - held)
        self._reserved_bytes = 0
        if held:
            if self._context.connection is not None:
                self._context.connection.hold_read_memory(held)
            else:
                memory.release(held)
        session = plan.session
        if session is not None:
            for answer in self._answers:
                target = plan.targets.get(answer.key)
                if target is not None:
                    target.sent_high_watermark = -1 if answer.error_code else answer.high_watermark
                    target.sent_log_start_offset = answer.log_start_offset
            if held:
                move_to_end(plan.targets, [answer.key for answer in self._answers if answer.records])
        if held:
            # Counted here, since what a pass found is thrown away where the request waits on.
            for answer in self._answers:
                if answer.records and (partition := self._broker.partitions.find(answer.key)) is not None:
                    partition.metrics.bytes_out += len(answer.records)
        response = encode_answer(self._context.api_version, 0 if session is None else session.id, self._answers)
        self._watch = None
        if self._delayed is None:
            self._response = response
        else:
            self._delayed.complete(response)
