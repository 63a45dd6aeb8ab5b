"""One batch of a producer, from the first record to its end, and what its records' handles ask of it.

States: OPEN (records are added; the accumulator's) -> QUEUED (full, or its linger is over) -> PREPARING (compressed or
split on a worker thread) -> READY -> SENT (in a request in flight) -> RETRY (to be sent again) -> SENT ...
-> ENDED (acknowledged, or failed). Any state may end. Without compression QUEUED goes to READY.

Everything but the waiting is the loop's. Handles are asked from any thread; `done` and the callbacks are the compiled
class's, which keeps them together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from millstream.core._kernels.crc32c import crc32c
from millstream.core._kernels.record_accumulator import OpenBatch
from millstream.core.client.blocking.loop_thread import LOOK_S
from millstream.core.records import HEADER_SIZE
from millstream.core.records.header import (
    ATTRIBUTES_POSITION,
    BATCH_LENGTH_MIN,
    CRC_POSITION,
    HEADER_LAYOUT,
    MAGIC,
    NO_LEADER_EPOCH,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    Compression,
)
from millstream.core.wire import KafkaError

NO_OFFSET: Final = -1

_logger: Final = logging.getLogger(__name__)
_lock: Final = threading.Lock()


class RecordMetadata(NamedTuple):
    """Where a record is now; `offset` is -1 where nobody knows it (acks=0, or a retry that the broker had already)."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class BatchState(Enum):
    """See the module's docstring."""

    OPEN = auto()
    QUEUED = auto()
    PREPARING = auto()
    READY = auto()
    SENT = auto()
    RETRY = auto()
    ENDED = auto()


class Batch(OpenBatch):
    """A batch; `topic`, `partition`, `buffer`, `size`, `count` and the timestamps are the accumulator's."""

    topic: str
    partition: int
    buffer: bytearray | None
    size: int
    charged_bytes: int
    count: int
    base_timestamp: int
    max_timestamp: int
    done: bool

    def __init__(self, topic: str, partition: int, buffer: bytearray, opened_ms: float, thread: int) -> None:
        super().__init__(topic, partition, buffer)
        self.state = BatchState.OPEN
        self.opened_ms = opened_ms
        # The thread of the producer's loop: waiting there would be for ever.
        self._thread = thread
        self.compression = Compression.NONE
        # How often it was sent, when it may be again, and by which connection it went last: (node, generation).
        self.attempts = 0
        self.retry_at_ms = 0.0
        self.sent_on: tuple[int, int] | None = None
        self.sent_ms = 0.0
        # Its place among all batches that its partition sent.
        self.number_sent = -1
        # Whether a broker may have appended it without our knowing.
        self.is_ambiguous = False
        self.last_error: KafkaError | None = None
        # Invariant: all three are set before it is sent by an idempotent producer; a retry keeps them.
        self.producer_id = NO_PRODUCER_ID
        self.producer_epoch = NO_PRODUCER_EPOCH
        self.base_sequence = NO_SEQUENCE
        self._is_stamped = False
        # How it ended.
        self.error: KafkaError | None = None
        self.base_offset = NO_OFFSET
        self.log_append_time_ms = -1
        # Held until it has ended, where threads wait for that; each of them takes it and gives it on.
        self._latch: threading.Lock | None = None
        # For a batch that was split: its parts in order, with the index of each one's first record here.
        self._parts: list[tuple[int, Batch]] = []
        self._whole: Batch | None = None

    # What is sent.

    @property
    def next_sequence(self) -> int:
        """The sequence behind its last record's; they wrap around at 2**31."""
        return (self.base_sequence + self.count) & 0x7FFFFFFF

    def take_compressed(self, payload: bytes, compression: Compression) -> None:
        """Have the compressed records in place of the plain ones."""
        buffer = bytearray(HEADER_SIZE)
        buffer += payload
        self.buffer = buffer
        self.size = len(buffer)
        self.compression = compression

    def number(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """Set what a broker knows it again by."""
        self.producer_id, self.producer_epoch, self.base_sequence = producer_id, producer_epoch, base_sequence
        self._is_stamped = False

    def stamped(self) -> memoryview:
        """Return the batch with its header, as it is sent."""
        buffer = self.buffer
        assert buffer is not None, f"batch in state {self.state} has no records"
        view = memoryview(buffer)[: self.size]
        if not self._is_stamped:
            length = BATCH_LENGTH_MIN + self.size - HEADER_SIZE
            HEADER_LAYOUT.pack_into(
                buffer,
                0,
                0,
                length,
                NO_LEADER_EPOCH,
                MAGIC,
                0,
                self.compression,
                self.count - 1,
                self.base_timestamp,
                self.max_timestamp,
                self.producer_id,
                self.producer_epoch,
                self.base_sequence,
                self.count,
            )
            crc = crc32c(view[ATTRIBUTES_POSITION:])
            buffer[CRC_POSITION:ATTRIBUTES_POSITION] = crc.to_bytes(4, "big")
            self._is_stamped = True
        return view

    # How it ends.

    def acknowledge(self, base_offset: int, log_append_time_ms: int) -> None:
        """End well."""
        self.base_offset, self.log_append_time_ms = base_offset, log_append_time_ms
        self._end()

    def fail(self, error: KafkaError) -> None:
        """End in `error`."""
        self.error = error
        self._end()

    def split_into(self, parts: list[Batch]) -> None:
        """Have `parts` sent in this one's place; it has ended when all of them have."""
        first = 0
        whole = self._whole or self
        if whole is not self:
            # Split again: the parts become the whole one's.
            first = next(at for at, part in whole._parts if part is self)
            whole._parts = [entry for entry in whole._parts if entry[1] is not self]
        for part in parts:
            part._whole = whole
            whole._parts.append((first, part))
            first += part.count
        whole._parts.sort(key=lambda entry: entry[0])
        self.buffer = None
        self.state = BatchState.ENDED

    def _end(self) -> None:
        assert not self.done, f"{self.topic}-{self.partition}: a batch ends once"
        self.state = BatchState.ENDED
        self.buffer = None
        callbacks = iter(self.take_callbacks())
        if self._latch is not None:
            self._latch.release()
        for callback in callbacks:
            try:
                callback(next(callbacks))
            except Exception:
                _logger.exception("a callback of a record failed")
        whole = self._whole
        if whole is not None and all(part.done for _, part in whole._parts):
            whole._end()

    # What handles ask.

    def wait(self, timeout_s: float | None) -> None:
        """Block until it has ended. Raises TimeoutError, and RuntimeError on the loop's own thread."""
        if self.done:
            return
        if threading.get_ident() == self._thread:
            raise RuntimeError("this would block the producer's own loop for ever: `await` the handle instead")
        latch = self._latch
        if latch is None:
            with _lock:
                if self._latch is None:
                    fresh = threading.Lock()
                    fresh.acquire()
                    self._latch = fresh
                latch = self._latch
        if self.done:
            return
        left_s = float("inf") if timeout_s is None else timeout_s
        while not latch.acquire(timeout=max(0.0, min(left_s, LOOK_S))):
            left_s -= LOOK_S
            if left_s <= 0:
                raise TimeoutError(f"{self.topic}-{self.partition}: not acknowledged within {timeout_s:g} s")
        latch.release()

    def outcome(self, index: int, timestamp: int) -> RecordMetadata:
        """Return the metadata of one of its records. Raises what it ended in."""
        batch, index = self._part_of(index)
        if batch.error is not None:
            # One error for all its records: without this each raise would add to what the others have of its traceback.
            raise batch.error.with_traceback(None)
        return RecordMetadata(
            self.topic,
            self.partition,
            batch.base_offset + index if batch.base_offset >= 0 else NO_OFFSET,
            timestamp if batch.log_append_time_ms < 0 else batch.log_append_time_ms,
        )

    def ranges(self) -> list[tuple[int, int]]:
        """Return (base offset, count) of each of its parts, itself if it was not split. Raises what any ended in."""
        parts = [part for _, part in self._parts] or [self]
        for part in parts:
            if part.error is not None:
                raise part.error.with_traceback(None)
        return [(part.base_offset, part.count) for part in parts]

    def error_of(self, index: int) -> KafkaError | None:
        """Return what one of its records ended in, None for an acknowledged one."""
        return self._part_of(index)[0].error

    def ended_on_this_loop(self) -> Iterator[Any]:
        """Wait for its end on the running loop, whichever that is; for `yield from`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.add_callback(_wake_on(loop), future)
        return future.__await__()

    def describe(self, index: int, timestamp: int) -> str:
        """Say where a record is on its way."""
        where = f"{self.topic}-{self.partition}"
        if not self.done:
            return f"{where} pending"
        error = self.error_of(index)
        return f"{where} {error!r}" if error is not None else f"{where} offset {self.outcome(index, timestamp).offset}"

    def _part_of(self, index: int) -> tuple[Batch, int]:
        if not self._parts:
            return self, index
        at = bisect_right(self._parts, index, key=lambda entry: entry[0]) - 1
        first, part = self._parts[at]
        return part, index - first


def _wake_on(loop: asyncio.AbstractEventLoop) -> Callable[[asyncio.Future[None]], None]:
    def wake(future: asyncio.Future[None]) -> None:
        if asyncio._get_running_loop() is loop:
            _finish(future)
        else:
            # A loop that was closed meanwhile has nobody waiting.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_finish, future)

    return wake


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
