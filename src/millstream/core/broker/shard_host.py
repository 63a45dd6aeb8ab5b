"""One shard of the group coordinator on its partition of `__consumer_offsets`: loads it, writes for it, answers for it.

    load    the partition's bytes are read on a worker thread, piece by piece; the loop replays them in slices of a
            millisecond, up to the high watermark
    resume  members' sessions begin, in such slices too; one of the first may end before the last begins, and be written
    write   what one pass of the loop made the shard append becomes one batch, written with all others of that pass;
            the shard hears of it when the high watermark has passed it
    fail    a write that failed or a leadership that ended leaves the shard ahead of its log: it is closed, whoever
            waits is sent to look for the coordinator again, and the log is replayed, after a pause that grows

Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from millstream.core.broker.delayed import Delayed
from millstream.core.groups.effects import Append, Effect, Respond
from millstream.core.groups.partitioning import GROUP_TOPIC
from millstream.core.groups.shard import GroupShard
from millstream.core.log import CorruptBatchError
from millstream.core.records import (
    HEADER_SIZE,
    BatchHeader,
    Compression,
    CorruptRecordError,
    Record,
    compress,
    iter_batches,
    iter_payload,
    keyed_batch,
    read_header,
    read_payload,
    seal,
)
from millstream.core.wire import ErrorCode, KafkaError, WireError

if TYPE_CHECKING:
    from millstream.core.broker.coordinators import Coordinators
    from millstream.core.broker.partition import Partition
    from millstream.core.groups.group import Caller
    from millstream.core.groups.offset_requests import OffsetRow, TopicCommit
    from millstream.core.log import Log

logger = logging.getLogger(__name__)

# What an error becomes for the one who asked.
Refusal = Callable[[KafkaError], Any]

# For how long a load keeps the loop, and after how many records it looks at the time.
SLICE_S: Final = 0.001
RECORDS_PER_LOOK: Final = 16
# The pause before a log is replayed again: the first, and the longest.
BACKOFF_S_MIN: Final = 0.1
BACKOFF_S_MAX: Final = 10.0

# Batches up to this size are compressed where that is asked for; more would hold the loop.
COMPRESSED_SIZE_BYTES_MAX: Final = 64 * 1024

_MARKER: Final = struct.Struct(">hh")  # the key of a control record: version, type
_ABORT: Final = 0
_COMMIT: Final = 1
_CODEC_BITS: Final = 0x07  # of a batch's attributes
_ABSENT: Final = object()


class HostState(Enum):
    """See ShardHost."""

    LOADING = "loading"
    RESUMING = "resuming"
    ACTIVE = "active"
    STOPPED = "stopped"


class ShardHost:
    """The shard's surroundings.

    States: LOADING -> RESUMING (the log is replayed) -> ACTIVE (sessions run) -> LOADING (a write failed, in either of
    these) ...; any -> STOPPED (resigned).
    """

    def __init__(self, coordinators: Coordinators, partition: Partition) -> None:
        self._coordinators = coordinators
        self._broker = coordinators.broker
        self.partition = partition
        self.state = HostState.LOADING
        # The leadership and the run of successful writes that the shard belongs to.
        self._generation = partition.generation
        # Invariant: there is one while RESUMING and ACTIVE.
        self.shard: GroupShard | None = None
        # Asked for in this pass; and written, or about to be, by the offset behind it (None: not known yet), in order.
        self._appends: list[Append] = []
        self._written: deque[_Batch] = deque()
        # Requests that have no answer yet, with what an error becomes for each.
        self._unanswered: dict[Delayed[Any], Refusal | None] = {}
        self._commit_timeout_s = self._broker.config.integer("offsets.commit.timeout.ms") / 1000
        # Looks whether what was written is committed in time; set while anything is written.
        self._commit_check: asyncio.TimerHandle | None = None
        self._codec = Compression(self._broker.config.integer("offsets.topic.compression.codec"))
        self._backoff_s = BACKOFF_S_MIN
        # When a load has to let the loop go on.
        self._slice_end = 0.0
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Load the shard; one without records serves at once."""
        log = self.partition.log
        if log is not None and log.log_start_offset == self.partition.high_watermark:
            shard = self._coordinators.make_shard(self.partition, self._emit)
            self._take(shard)
            shard.handle_loaded(self._coordinators.now_ms())
            self._activate(shard)
        else:
            self._load()

    @property
    def serving(self) -> GroupShard | None:
        """The shard, where it takes requests."""
        return self.shard if self.state is HostState.ACTIVE else None

    def _load(self, *, pause: bool = False) -> None:
        self.task = self._broker.loop.create_task(self._load_until_active(pause=pause))

    # Requests

    def request(
        self,
        name: str,
        request: Any,
        caller: Caller,
        now_ms: int,
        refusal: Refusal | None,
    ) -> Delayed[Any]:
        """Hand a request to the shard's method `name`; the answer comes once what it shows is committed."""
        delayed = _Answer(self._unanswered)
        self._unanswered[delayed] = refusal
        try:
            getattr(self.shard, name)(request, caller, delayed, now_ms)
        except KafkaError as error:
            # An error is an answer too: it leaves behind what it was decided on.
            self._respond_error(delayed, error)
        except Exception:
            logger.exception("%s of group coordinator %d failed", name, self.partition.index)
            self._refuse(delayed, KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR))
        return delayed

    def commit_rows(
        self, asked: TopicCommit, rows: list[OffsetRow], delayed: Delayed[Any], response: object, now_ms: int
    ) -> bool:
        """Store offsets as `GroupShard.commit_rows` does; `delayed` gets the response, or fails.

        False, with nothing done, where `request` has to look at it.
        """
        shard = self.serving
        if shard is None:
            return False
        self._unanswered[delayed] = None
        try:
            if shard.offset_requests.commit_rows(asked, rows, delayed, response, now_ms):
                return True
        except KafkaError:
            # Nothing was changed: `request` meets the same error and says it in full.
            del self._unanswered[delayed]
            return False
        except Exception:
            logger.exception("a commit at group coordinator %d failed", self.partition.index)
            self._refuse(delayed, KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR))
            return True
        del self._unanswered[delayed]
        return False

    def forget_answer(self, delayed: Delayed[Any]) -> None:
        """Nobody wants this answer any more."""
        self._unanswered.pop(delayed, None)

    def _respond_error(self, delayed: Delayed[Any], error: KafkaError) -> None:
        refusal = self._unanswered.get(delayed)
        if refusal is None or self.shard is None:
            self._refuse(delayed, error)
        else:
            self.shard.outbox.respond(delayed, refusal(error))

    def _refuse(self, delayed: Delayed[Any], error: KafkaError) -> None:
        refuse(delayed, self._unanswered.pop(delayed, None), error)

    # Effects

    def _emit(self, effect: Effect) -> None:
        if isinstance(effect, Respond):
            reply, response = effect
            answer = cast("Delayed[Any]", reply)
            if self._unanswered.pop(answer, _ABSENT) is not _ABSENT:
                answer.complete(response)
        else:
            if not self._appends:
                self._coordinators.write_soon(self)
            self._appends.append(effect)

    def write(self) -> None:
        """Reserve what was appended in this pass; `Appends.submit` then writes it."""
        appends, self._appends = self._appends, []
        if self.shard is None:
            return
        now_ms = self._broker.clock.now_ms()
        if len(appends) == 1:
            self._reserve(appends, now_ms)
            return
        size_bytes_max = self.partition.rules.max_message_bytes
        start = 0
        size_bytes = HEADER_SIZE
        for index, append in enumerate(appends):
            # An append is never split: half of one is no state that a shard was ever in.
            if size_bytes + append.size_bytes > size_bytes_max and index > start:
                self._reserve(appends[start:index], now_ms)
                start, size_bytes = index, HEADER_SIZE
            size_bytes += append.size_bytes
        self._reserve(appends[start:], now_ms)

    def _reserve(self, appends: list[Append], now_ms: int) -> None:
        if self.shard is None:
            return
        records = appends[0].records if len(appends) == 1 else [each for append in appends for each in append.records]
        data, header = keyed_batch(records, now_ms)
        if self._codec is not Compression.NONE and len(data) <= COMPRESSED_SIZE_BYTES_MAX:
            data, header = self._compressed(header, data)
        batch = _Batch(appends[-1].number, self._broker.loop.time())
        self._written.append(batch)
        if self._commit_check is None:
            self._commit_check = self._broker.loop.call_later(self._commit_timeout_s, self._refuse_overdue)
        partition = self.partition
        if partition.generation != self._generation:
            self._fail(KafkaError(partition.failure, f"{partition} ended a generation"))
            return
        try:
            reservation = partition.append(data, -1, now_ms, copy=False, header=header)
        except KafkaError as error:
            self._fail(error)
            return
        if isinstance(reservation, Delayed):
            reservation.on_complete(lambda delayed: self._opened(batch, delayed))
        else:
            batch.end_offset = reservation.last_offset + 1

    def _compressed(self, header: BatchHeader, data: bytearray) -> tuple[bytearray, BatchHeader]:
        payload = compress(self._codec, memoryview(data)[HEADER_SIZE:])
        sealed = bytearray(seal(header._replace(attributes=header.attributes | self._codec), payload))
        return sealed, read_header(sealed)

    def _refuse_overdue(self) -> None:
        """Let nobody wait longer than offsets.commit.timeout.ms for a write; it may yet be committed."""
        self._commit_check = None
        written = self._written
        if self.shard is None or not written:
            return
        loop = self._broker.loop
        overdue_since = loop.time() - self._commit_timeout_s
        overdue = [batch.number for batch in written if batch.written_at <= overdue_since]
        if overdue:
            error = KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"{self.partition} takes long to commit")
            for reply in list(self.shard.outbox.waiting_for(overdue[-1])):
                self._refuse(cast("Delayed[Any]", reply), error)
            wait_s = self._commit_timeout_s
        else:
            wait_s = written[0].written_at - overdue_since
        self._commit_check = loop.call_later(wait_s, self._refuse_overdue)

    def _opened(self, batch: _Batch, delayed: Delayed[Any]) -> None:
        """A batch that the topic wants compressed came back from its thread."""
        if batch not in self._written:
            return  # The shard that appended it was closed meanwhile.
        try:
            batch.end_offset = delayed.result().last_offset + 1
        except KafkaError as error:
            self._fail(error)

    def _handle_progress(self) -> None:
        """The partition's offsets moved, or its generation ended."""
        if self.shard is None:
            return
        partition = self.partition
        if partition.generation != self._generation:
            self._fail(KafkaError(partition.failure, f"{partition} ended a generation"))
            return
        partition.when_acked(self._handle_progress)
        high_watermark = partition.high_watermark
        written = self._written
        number = 0
        while written and (end_offset := written[0].end_offset) is not None and end_offset <= high_watermark:
            number = written.popleft().number
        if number:
            self._backoff_s = BACKOFF_S_MIN
            self.shard.handle_committed(number)

    # States

    def stop(self) -> None:
        """Serve nothing any more: another broker leads the partition, it is gone, or the broker stops."""
        if self.state is HostState.STOPPED:
            return
        self.state = HostState.STOPPED
        if self.task is not None:
            self.task.cancel()
        if self._commit_check is not None:
            self._commit_check.cancel()
        self._close_shard(KafkaError(ErrorCode.NOT_COORDINATOR))

    def check(self) -> None:
        """Notice a generation that has ended without a write."""
        if self.shard is not None:
            self._handle_progress()

    def _fail(self, error: KafkaError) -> None:
        if not self.partition.is_leader:
            self._coordinators.forget(self)
            return
        logger.error("group coordinator %d is ahead of its log and replays it: %s", self.partition.index, error)
        self.state = HostState.LOADING
        self._close_shard(KafkaError(ErrorCode.NOT_COORDINATOR))
        self._load(pause=True)

    def _close_shard(self, error: KafkaError) -> None:
        shard, self.shard = self.shard, None
        if shard is not None:
            shard.close()
        self._appends.clear()
        self._written.clear()
        for delayed in list(self._unanswered):
            self._refuse(delayed, error)

    # Loading

    async def _load_until_active(self, *, pause: bool = False) -> None:
        while True:
            if pause:
                await asyncio.sleep(self._backoff_s)
                self._backoff_s = min(self._backoff_s * 2, BACKOFF_S_MAX)
            pause = True
            partition = self.partition
            if not partition.is_leader or partition.log is None:
                self._coordinators.forget(self)
                return
            self._generation = partition.generation
            # Writes of the generation that has ended are undone, but not all may be told yet.
            try:
                async with self._coordinators.loads:
                    shard = self._coordinators.make_shard(partition, self._emit)
                    await self._replay(shard, partition.log)
            except (KafkaError, OSError) as error:
                logger.warning("group coordinator %d could not be loaded: %s", partition.index, error)
                continue
            except Exception:
                logger.exception("group coordinator %d could not be loaded", partition.index)
                continue
            if partition.generation == self._generation:
                self._take(shard)
                for _ in shard.resume(self._coordinators.now_ms()):
                    await self._breathe()
                    if self.shard is not shard:
                        return  # A write of it failed, which began another load.
                self._activate(shard)
                return

    def _take(self, shard: GroupShard) -> None:
        """The shard is all that the log says, and may write from here on."""
        self.shard = shard
        self.state = HostState.RESUMING
        self.partition.when_acked(self._handle_progress)

    def _activate(self, shard: GroupShard) -> None:
        self.state = HostState.ACTIVE
        # What changed while it was loaded.
        shard.reconfigure(self._coordinators.configs)
        shard.handle_image(self._broker.metadata.image, self._coordinators.now_ms())
        self._coordinators.turn_timers()

    async def _replay(self, shard: GroupShard, log: Log) -> None:
        """Replay the log from its start to the high watermark."""
        loop, executor = self._broker.loop, self._broker.executor
        size_bytes_max = self._broker.config.integer("offsets.load.buffer.size")
        offset = log.log_start_offset
        records = 0
        started = loop.time()
        while offset < (end_offset := self.partition.high_watermark):
            try:
                read = await loop.run_in_executor(
                    executor, partial(log.read, offset, size_bytes_max, end_offset=end_offset)
                )
            except CorruptBatchError as error:
                logger.error(  # noqa: TRY400  the damage is what counts, not where it was met
                    "%s-%d: %s; its groups go on without that batch", GROUP_TOPIC, self.partition.index, error
                )
                if error.next_offset is None:
                    break
                offset = error.next_offset
                continue
            if read.next_offset <= offset:
                break
            for header, batch in iter_batches(read.data):
                records += await self._replay_batch(shard, header, batch)
            offset = read.next_offset
        logger.log(
            logging.INFO if records else logging.DEBUG,
            "group coordinator %d is loaded: %d groups, %d offsets from %d records in %.3f s",
            self.partition.index,
            len(shard.groups),
            shard.offsets.count,
            records,
            loop.time() - started,
        )

    async def _replay_batch(self, shard: GroupShard, header: BatchHeader, batch: memoryview) -> int:
        loop = self._broker.loop
        try:
            if header.attributes & _CODEC_BITS != Compression.NONE:
                payload = await loop.run_in_executor(self._broker.executor, lambda: read_payload(batch))
            else:
                payload = read_payload(batch)
            if header.is_control:
                for record in iter_payload(header, payload):
                    _replay_marker(shard, header, record.key)
                return header.count
            producer_id = header.producer_id if header.is_transactional else -1
            for count, record in enumerate(iter_payload(header, payload)):
                _replay_record(shard, record, producer_id)
                if not count % RECORDS_PER_LOOK:
                    await self._breathe()
        except CorruptRecordError as error:
            logger.error(  # noqa: TRY400
                "%s-%d: the batch at offset %d cannot be read: %s; its groups go on without it",
                GROUP_TOPIC,
                self.partition.index,
                header.base_offset,
                error,
            )
        return header.count

    async def _breathe(self) -> None:
        """Let the loop go on where this load has had its slice."""
        now = self._broker.loop.time()
        if now >= self._slice_end:
            await asyncio.sleep(0)
            self._slice_end = self._broker.loop.time() + SLICE_S


def refuse(delayed: Delayed[Any], refusal: Refusal | None, error: KafkaError) -> None:
    """End a request in an error, in the form its API has for it."""
    if delayed.is_done:
        return
    if refusal is None:
        delayed.fail(error)
    else:
        delayed.complete(refusal(error))


class _Answer(Delayed[Any]):
    """The answer to one request; of one that nobody wants any more the host keeps nothing."""

    __slots__ = ("_unanswered",)

    def __init__(self, unanswered: dict[Delayed[Any], Refusal | None]) -> None:
        super().__init__()
        self._unanswered = unanswered

    def cancel(self) -> None:
        self._unanswered.pop(self, None)
        super().cancel()


class _Batch:
    """Appends on their way into the log as one batch."""

    __slots__ = ("end_offset", "number", "written_at")

    def __init__(self, number: int, written_at: float) -> None:
        self.number = number
        # The loop's time.
        self.written_at = written_at
        self.end_offset: int | None = None


def _replay_record(shard: GroupShard, record: Record, producer_id: int) -> None:
    try:
        shard.replay(record.key, record.value, producer_id=producer_id)
    except WireError as error:
        logger.error(  # noqa: TRY400
            "%s-%d: the record at offset %d is none of a group, and is left alone: %s",
            GROUP_TOPIC,
            shard.index,
            record.offset,
            error,
        )


def _replay_marker(shard: GroupShard, header: BatchHeader, key: bytes | None) -> None:
    if key is None or len(key) < _MARKER.size:
        raise CorruptRecordError("a control record without a type")
    _, kind = _MARKER.unpack_from(key)
    if kind in {_ABORT, _COMMIT}:
        shard.replay_marker(header.producer_id, committed=kind == _COMMIT)
