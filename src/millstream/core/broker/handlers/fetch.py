"""Fetch: record batches as they lie in the log, from an offset on, of many partitions at once.

Reads run on the event loop as long as the page cache has the bytes; a cold page moves that read to a worker thread, and
the request goes on from there. A request that finds too little waits in purgatory and reads again when there is more.
Each partition is answered for itself; at least one batch is given, however small the limits are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.fetch_sessions import TOPIC_IDS_FROM_VERSION, FetchPlan, FetchTarget, move_to_end
from millstream.core.log import FileRegion, LogRead, OffsetOutOfRangeError
from millstream.core.wire import ZERO_UUID, ErrorCode, KafkaError
from millstream.core.wire.messages.fetch import (
    AbortedTransaction,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    PartitionData,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from millstream.core.broker.broker import Broker
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


def fetch(broker: Broker, request: FetchRequest, context: RequestContext) -> FetchResponse | Delayed[FetchResponse]:
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

    def __init__(self, broker: Broker, request: FetchRequest, context: RequestContext, plan: FetchPlan) -> None:
        self._broker = broker
        self._context = context
        self._plan = plan
        self._by_topic_id = context.api_version >= TOPIC_IDS_FROM_VERSION
        self._read_committed = request.isolation_level == READ_COMMITTED
        self._min_bytes: int = request.min_bytes
        self._size_max = max(0, min(request.max_bytes, broker.fetch_size_bytes_max))
        self._deadline_ms = broker.clock.monotonic_ms() + request.max_wait_ms
        self._delayed: Delayed[FetchResponse] = Delayed()
        self._watch: Watch | None = None
        # Bytes that arrived on watched partitions since the last pass, and how many were missing then.
        self._missing_bytes = 0
        self._begin_pass()

    def _begin_pass(self) -> None:
        self._targets: Iterator[FetchTarget] = iter(list(self._plan.targets.values()))
        self._answers: list[tuple[FetchTarget, PartitionData]] = []
        self._served: list[FetchTarget] = []
        self._watchable: dict[Partition, None] = {}
        self._size_bytes = 0
        self._reserved_bytes = 0
        self._has_error = False

    def start(self) -> FetchResponse | Delayed[FetchResponse]:
        """Make the first pass; return the answer if that finds it."""
        self._delayed.on_cancel(self._cancel)
        self._read()
        return self._delayed.result() if self._delayed.is_done else self._delayed

    def _read(self) -> None:
        """Begin a pass once there is memory for it."""
        if self._delayed.is_cancelled:
            return
        memory = self._broker.connections.read_memory
        reserved = min(self._size_max, RESERVED_SIZE_BYTES)
        if not memory.try_charge(reserved):
            self._broker.loop.call_later(MEMORY_RETRY_S, self._read)
            return
        self._begin_pass()
        self._reserved_bytes = reserved
        self._size_limit = min(self._size_max, reserved + memory.free_bytes)
        self._go_on()

    def _go_on(self) -> None:
        """Read the partitions left in this pass; ends early where one has to be read on a thread."""
        for target in self._targets:
            partition = self._partition(target)
            if partition is None:
                continue
            work = self._prepare(target, partition)
            if work is None:
                continue
            log, end_offset, size_max, at_least_one = work
            if self._read_committed and log.has_aborted_transactions:
                # Which ones lie in what is read stands in files.
                self._read_on_thread(target, partition, log, end_offset, size_max, at_least_one)
                return
            try:
                read = log.read(
                    target.fetch_offset,
                    size_max,
                    end_offset=end_offset,
                    at_least_one=at_least_one,
                    wait=False,
                    buffer=self._broker.connections.read_buffer,
                )
            except BlockingIOError:
                self._read_on_thread(target, partition, log, end_offset, size_max, at_least_one)
                return
            except KafkaError as error:
                self._answer_error(target, error, partition)
            else:
                # The buffer is the next read's; what is large goes to the socket from the file.
                records = bytes(read.data) if read.region is None else read.region
                self._answer(target, partition, log, records, [])
        self._end_pass()

    def _partition(self, target: FetchTarget) -> Partition | None:
        """Return the partition of a target; answers what stands against reading it."""
        broker = self._broker
        topic = target.topic
        if self._by_topic_id:
            image = broker.metadata.image.topic_by_id(target.topic_id)
            if image is None:
                self._answer_error(target, KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, "no topic has this id"), None)
                return None
            topic = image.name
        if not self._context.permits(Operation.READ, ResourceType.TOPIC, topic):
            self._answer_error(target, KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED, f"no read on {topic}"), None)
            return None
        try:
            partition = broker.partitions.leader(topic, target.index, target.current_leader_epoch)
        except KafkaError as error:
            self._answer_error(target, error, None)
            return None
        if self._by_topic_id and partition.topic_id != target.topic_id:
            # The topic was made anew under its name, and the old one's partitions are still here.
            anew = KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, f"{topic} is being made anew")
            self._answer_error(target, anew, None)
            return None
        return partition

    def _prepare(self, target: FetchTarget, partition: Partition) -> tuple[Log, int, int, bool] | None:
        """Return what to read; None where there is nothing and the target is answered."""
        log = partition.log
        assert log is not None, f"{partition} leads without a log"
        offset = target.fetch_offset
        end_offset = partition.last_stable_offset if self._read_committed else partition.high_watermark
        if target.last_fetched_epoch >= 0:
            epoch, epoch_end_offset = partition.end_offset_for_epoch(target.last_fetched_epoch)
            if epoch < 0 or epoch_end_offset < 0:
                # No epoch to go back to: the client has to start anew.
                error = OffsetOutOfRangeError(offset, log.log_start_offset, partition.high_watermark)
                self._answer_error(target, error, partition)
                return None
            if epoch < target.last_fetched_epoch or epoch_end_offset < offset:
                data = self._data(target, partition, log)
                data.diverging_epoch = EpochEndOffset(epoch=epoch, end_offset=epoch_end_offset)
                self._answers.append((target, data))
                self._has_error = True
                return None
        if not log.log_start_offset <= offset <= log.log_end_offset:
            error = OffsetOutOfRangeError(offset, log.log_start_offset, partition.high_watermark)
            self._answer_error(target, error, partition)
            return None
        left = self._size_limit - self._size_bytes
        if offset >= end_offset or (left <= 0 and self._size_bytes):
            self._watchable[partition] = None
            if (
                not self._plan.incremental
                or partition.high_watermark != target.sent_high_watermark
                or log.log_start_offset != target.sent_log_start_offset
            ):
                self._answers.append((target, self._data(target, partition, log)))
            return None
        return log, end_offset, max(0, min(target.max_bytes, left)), self._size_bytes == 0

    def _read_on_thread(
        self, target: FetchTarget, partition: Partition, log: Log, end_offset: int, size_max: int, at_least_one: bool
    ) -> None:
        offset = target.fetch_offset
        self._read_regions()

        def read() -> tuple[LogRead, list[AbortedTransaction]]:
            found = log.read(offset, size_max, end_offset=end_offset, at_least_one=at_least_one, wait=True)
            if not self._read_committed or not log.has_aborted_transactions:
                return found, []
            return found, [
                AbortedTransaction(producer_id=aborted.producer_id, first_offset=aborted.first_offset)
                for aborted in log.aborted_transactions(offset, found.next_offset)
            ]

        def finished(result: tuple[LogRead, list[AbortedTransaction]] | None, error: BaseException | None) -> None:
            if self._delayed.is_cancelled:
                self._release()
                return
            if isinstance(error, KafkaError):
                self._answer_error(target, error, partition)
            elif result is not None:
                found, aborted = result
                self._answer(target, partition, log, found.data, aborted)
            else:
                assert error is not None, "a read ended without a result or an error"
                self._release()
                self._delayed.fail(error)
                return
            try:
                self._go_on()
            except Exception as error:  # noqa: BLE001  nobody else would answer
                self._release()
                if not self._delayed.is_done:
                    self._delayed.fail(error)

        self._broker.appends.run_on_thread(read, finished)

    def _read_regions(self) -> None:
        """Have in memory what was found before a thread reads on: it is in the page cache now, and who knows then."""
        for _, data in self._answers:
            if isinstance(data.records, FileRegion):
                try:
                    data.records = data.records.read()
                except KafkaError as error:
                    data.records, data.error_code = b"", error.code
                    self._has_error = True

    def _answer(
        self,
        target: FetchTarget,
        partition: Partition,
        log: Log,
        records: bytes | memoryview | FileRegion,
        aborted: list[AbortedTransaction],
    ) -> None:
        data = self._data(target, partition, log)
        size = len(records)
        if size:
            data.records = cast("memoryview", records)  # of a region the codec asks for no more than its length
            self._size_bytes += size
            self._served.append(target)
            partition.metrics.bytes_out += size
            if self._read_committed:
                data.aborted_transactions = aborted
        self._watchable[partition] = None
        self._answers.append((target, data))

    def _answer_error(self, target: FetchTarget, error: KafkaError, partition: Partition | None) -> None:
        self._has_error = True
        if partition is not None:
            partition.metrics.failed_fetch_requests += 1
        data = PartitionData(
            partition_index=target.index,
            error_code=error.code,
            high_watermark=-1,
            aborted_transactions=[] if error.code in _WITHOUT_PARTITION else None,
            records=b"",
        )
        self._answers.append((target, data))

    def _data(self, target: FetchTarget, partition: Partition, log: Log) -> PartitionData:
        return PartitionData(
            partition_index=target.index,
            high_watermark=partition.high_watermark,
            last_stable_offset=partition.last_stable_offset,
            log_start_offset=log.log_start_offset,
            aborted_transactions=[] if self._read_committed else None,
            records=b"",
        )

    def _end_pass(self) -> None:
        """Answer, or wait for more."""
        wait_ms = self._deadline_ms - self._broker.clock.monotonic_ms()
        if self._has_error or self._size_bytes >= self._min_bytes or wait_ms <= 0 or not self._plan.targets:
            self._complete()
            return
        self._missing_bytes = self._min_bytes - self._size_bytes
        self._watch = self._broker.purgatory.watch(
            list(self._watchable), wait_ms, self._handle_progress, self._handle_expired
        )
        if self._watch is None:
            self._complete()
            return
        # What was read is read again, from the page cache; waiting holds no memory.
        self._answers.clear()
        self._release()

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
            for target, data in self._answers:
                failed = data.error_code != 0
                target.sent_high_watermark = -1 if failed else data.high_watermark
                target.sent_log_start_offset = data.log_start_offset
            if self._served:
                move_to_end(plan.targets, self._served)
        response = FetchResponse(session_id=0 if session is None else session.id, responses=self._by_topic())
        self._answers.clear()
        self._watch = None
        self._delayed.complete(response)

    def _by_topic(self) -> list[FetchableTopicResponse]:
        topics: dict[str | bytes, FetchableTopicResponse] = {}
        for target, data in self._answers:
            key: str | bytes = target.topic_id if self._by_topic_id else target.topic
            response = topics.get(key)
            if response is None:
                response = topics[key] = FetchableTopicResponse(
                    topic=target.topic, topic_id=target.topic_id if self._by_topic_id else ZERO_UUID
                )
            response.partitions.append(data)
        return list(topics.values())
