"""What a log knows of its producers: enough to drop a repeated batch, refuse a gap, and find open transactions.

For each producer id: its epoch and its last BATCHES_KEPT batches (sequences and offsets), since an idempotent client
has at most five requests in flight. A batch that repeats one of them is answered with the original offset (KIP-98).

State is kept twice. `reserve` works on the newest state, which includes batches that are reserved but not written yet;
`apply` moves a batch's state to the written side, in offset order. So a snapshot taken when a segment rolls holds
exactly what lies before it, and a failed write is undone by forgetting the reserved side. Entries are immutable
tuples: either side may be read from any thread.

On disk (`<offset>.snapshot`, Kafka's ProducerSnapshot version 1; the state before `offset`), big-endian:

    version  int16   1
    crc      uint32  CRC-32C of everything behind it
    count    int32
    entries  each 46 bytes:
        producer_id int64, epoch int16, last_sequence int32, last_offset int64, offset_delta int32, timestamp int64,
        coordinator_epoch int32, current_transaction_first_offset int64 (-1: none)

`reserve` and `forget_reserved` belong to the event loop, everything else to the holder of the log's write lock.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable
from typing import Final, NamedTuple

from millstream.core.log.transaction_index import AbortedTransaction
from millstream.core.records import BatchHeader, crc32c
from millstream.core.wire import ErrorCode, KafkaError

BATCHES_KEPT: Final = 5
NO_PRODUCER_ID: Final = -1
NO_EPOCH: Final = -1
NO_SEQUENCE: Final = -1
SEQUENCE_MAX: Final = 2**31 - 1
PRODUCER_COUNT_MAX: Final = 100_000
EXPIRATION_MS: Final = 24 * 3600 * 1000

_HEAD: Final = struct.Struct(">hIi")
_CRC: Final = struct.Struct(">I")
_ENTRY: Final = struct.Struct(">qhiqiqiq")
_CRC_POSITION: Final = 2
_COUNT_POSITION: Final = _CRC_POSITION + _CRC.size
_SNAPSHOT_VERSION: Final = 1

assert _HEAD.size == _COUNT_POSITION + 4, _HEAD.size
assert _ENTRY.size == 46, _ENTRY.size


class ProducerBatch(NamedTuple):
    """One batch that a producer has in the log."""

    first_sequence: int
    last_sequence: int
    first_offset: int
    last_offset: int
    timestamp: int


class ProducerEntry(NamedTuple):
    """One producer's state. `used_ms` is when it last wrote, by our clock: expiry counts from it."""

    producer_id: int
    epoch: int
    coordinator_epoch: int
    last_timestamp: int
    transaction_first_offset: int  # -1: no transaction is open
    batches: tuple[ProducerBatch, ...]  # of this epoch, oldest first
    used_ms: int

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE


class CorruptSnapshotError(Exception):
    """A `.snapshot` file is not one; an older one or the log itself gives the state."""


class ProducerState:
    """All producers of one log; see the module's text for who owns what."""

    __slots__ = ("_changing", "_count_max", "_reserved", "_transactions", "_written")

    def __init__(self, *, count_max: int = PRODUCER_COUNT_MAX) -> None:
        self._count_max = count_max
        # State before log_end_offset, least recently used first. Invariant: len(_written) <= _count_max, but for
        # producers with an open transaction, which are never dropped.
        self._written: dict[int, ProducerEntry] = {}
        # Newer state of producers that have a batch pending. The loop adds while the writer takes away what it has
        # applied: under `_changing`, or it could take away what was reserved a moment later.
        self._reserved: dict[int, ProducerEntry] = {}
        self._changing = threading.Lock()
        # Producer id to the first offset of its open transaction, written side.
        self._transactions: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._written)

    def entries(self) -> list[ProducerEntry]:
        """Return the written state, least recently used producer first."""
        return list(self._written.values())

    def entry(self, producer_id: int) -> ProducerEntry | None:
        """Return a producer's newest state, reserved batches included."""
        return self._reserved.get(producer_id) or self._written.get(producer_id)

    @property
    def first_unstable_offset(self) -> int | None:
        """The first offset of the oldest open transaction, None without one."""
        return min(self._transactions.values(), default=None) if self._transactions else None

    def open_transactions(self) -> list[ProducerEntry]:
        """Return the producers with an open transaction."""
        return [entry for entry in self.entries() if entry.transaction_first_offset >= 0]

    def duplicate_of(self, header: BatchHeader) -> ProducerBatch | None:
        """Return the batch in the log or pending that `header` repeats."""
        entry = self._reserved.get(header.producer_id) or self._written.get(header.producer_id)
        if entry is None or entry.epoch != header.producer_epoch:
            return None
        first = header.base_sequence
        for batch in entry.batches:
            if batch.first_sequence == first and batch.last_sequence == sequence_after(first, header.last_offset_delta):
                return batch
        return None

    def reserve(
        self, header: BatchHeader, first_offset: int, now_ms: int, *, timestamp: int | None = None
    ) -> ProducerEntry:
        """Check a client's batch and make it the newest state. `timestamp` is what the log stamps it with, if it does.

        Raises KafkaError INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER or INVALID_TXN_STATE.
        """
        producer_id = header.producer_id
        entry = self._reserved.get(producer_id) or self._written.get(producer_id)
        if entry is not None:
            _check(entry, header)
        if timestamp is None:
            timestamp = header.max_timestamp
        entry = _with_batch(entry, header, first_offset, timestamp, now_ms)
        with self._changing:
            self._reserved[producer_id] = entry
        return entry

    def reserve_entry(self, entry: ProducerEntry) -> None:
        """Make `entry` the newest state: a control batch of ours is pending."""
        with self._changing:
            self._reserved[entry.producer_id] = entry

    def forget_reserved(self) -> None:
        """Drop the state of batches that will not be written."""
        with self._changing:
            self._reserved.clear()

    def apply(self, entry: ProducerEntry) -> None:
        """Make `entry` the written state: its newest batch is in the log."""
        producer_id = entry.producer_id
        written = self._written
        written.pop(producer_id, None)
        written[producer_id] = entry
        if entry.transaction_first_offset >= 0:
            self._transactions[producer_id] = entry.transaction_first_offset
        elif self._transactions:
            self._transactions.pop(producer_id, None)
        if self._reserved:
            with self._changing:
                if self._reserved.get(producer_id) is entry:
                    del self._reserved[producer_id]
        if len(written) > self._count_max:
            self._drop_oldest()

    def apply_batch(self, header: BatchHeader, now_ms: int) -> None:
        """Apply a data batch that stands in the log already: recovery does not doubt sequences."""
        entry = self._written.get(header.producer_id)
        self.apply(_with_batch(entry, header, header.base_offset, header.max_timestamp, now_ms))

    def end_transaction(
        self, header: BatchHeader, coordinator_epoch: int, now_ms: int, *, committed: bool
    ) -> AbortedTransaction | None:
        """Apply a commit or abort marker that stands in the log; return the entry that the transaction index gets."""
        entry = self._written.get(header.producer_id)
        ended = ended_entry(
            entry, header.producer_id, header.producer_epoch, coordinator_epoch, header.max_timestamp, now_ms
        )
        self.apply(ended)
        if committed or entry is None or entry.transaction_first_offset < 0:
            return None
        last_offset = header.last_offset
        unstable = self.first_unstable_offset
        stable = last_offset + 1 if unstable is None else unstable
        return AbortedTransaction(header.producer_id, entry.transaction_first_offset, last_offset, stable)

    def expire(self, now_ms: int, expiration_ms: int) -> int:
        """Drop producers that have not written for `expiration_ms`, but for open transactions; return how many."""
        expired = [
            entry.producer_id
            for entry in self.entries()
            if entry.transaction_first_offset < 0
            and now_ms - entry.used_ms >= expiration_ms
            and entry.producer_id not in self._reserved
        ]
        for producer_id in expired:
            self._written.pop(producer_id, None)
        return len(expired)

    def clear(self) -> None:
        """Forget everything."""
        self._written, self._reserved, self._transactions = {}, {}, {}

    def load(self, entries: Iterable[ProducerEntry]) -> None:
        """Replace the written state."""
        self.clear()
        for entry in entries:
            self.apply(entry)

    def _drop_oldest(self) -> None:
        for producer_id in self._written:
            if producer_id not in self._transactions and producer_id not in self._reserved:
                del self._written[producer_id]
                return


def sequence_after(sequence: int, steps: int) -> int:
    """Return the sequence number `steps` behind `sequence`; they wrap from 2**31 - 1 to 0."""
    return sequence + steps if sequence <= SEQUENCE_MAX - steps else steps - (SEQUENCE_MAX - sequence) - 1


def ended_entry(
    entry: ProducerEntry | None,
    producer_id: int,
    producer_epoch: int,
    coordinator_epoch: int,
    timestamp: int,
    now_ms: int,
) -> ProducerEntry:
    """Return a producer's state behind the marker that ends its transaction."""
    batches = entry.batches if entry is not None and entry.epoch == producer_epoch else ()
    return ProducerEntry(producer_id, producer_epoch, coordinator_epoch, timestamp, -1, batches, now_ms)


def _check(entry: ProducerEntry, header: BatchHeader) -> None:
    producer_id, epoch, sequence = header.producer_id, header.producer_epoch, header.base_sequence
    if epoch < entry.epoch:
        raise KafkaError(
            ErrorCode.INVALID_PRODUCER_EPOCH,
            f"producer {producer_id} writes with epoch {epoch}, but epoch {entry.epoch} has been seen: it is fenced",
        )
    if epoch != entry.epoch:
        if sequence != 0 and entry.epoch != NO_EPOCH:
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"producer {producer_id} begins epoch {epoch} with sequence {sequence} instead of 0",
            )
    elif sequence != sequence_after(entry.last_sequence, 1):
        raise KafkaError(
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
            f"producer {producer_id} (epoch {epoch}) sent sequence {sequence} behind {entry.last_sequence}",
        )
    if entry.transaction_first_offset >= 0 and not header.is_transactional:
        raise KafkaError(
            ErrorCode.INVALID_TXN_STATE,
            f"producer {producer_id} has a transaction open from offset {entry.transaction_first_offset} "
            "and sent a batch outside of it",
        )


def _with_batch(
    entry: ProducerEntry | None, header: BatchHeader, first_offset: int, timestamp: int, now_ms: int
) -> ProducerEntry:
    delta = header.last_offset_delta
    first_sequence = header.base_sequence
    last_sequence = sequence_after(first_sequence, delta)
    batch = ProducerBatch(first_sequence, last_sequence, first_offset, first_offset + delta, timestamp)
    transaction = -1
    batches: tuple[ProducerBatch, ...] = (batch,)
    coordinator_epoch = -1
    if entry is not None:
        transaction, coordinator_epoch = entry.transaction_first_offset, entry.coordinator_epoch
        if entry.epoch == header.producer_epoch:
            batches = (*entry.batches[1 - BATCHES_KEPT :], batch)
    if transaction < 0 and header.attributes & 0x10:
        transaction = first_offset
    return ProducerEntry(
        header.producer_id, header.producer_epoch, coordinator_epoch, timestamp, transaction, batches, now_ms
    )


def encode_snapshot(entries: Iterable[ProducerEntry]) -> bytes:
    """Return the state as a `.snapshot` file. Only the last batch of a producer survives in it."""
    packed = []
    for entry in entries:
        last = entry.batches[-1] if entry.batches else None
        packed.append(
            _ENTRY.pack(
                entry.producer_id,
                entry.epoch,
                last.last_sequence if last else NO_SEQUENCE,
                last.last_offset if last else -1,
                last.last_offset - last.first_offset if last else 0,
                entry.last_timestamp,
                entry.coordinator_epoch,
                entry.transaction_first_offset,
            )
        )
    data = bytearray(_HEAD.pack(_SNAPSHOT_VERSION, 0, len(packed)))
    data += b"".join(packed)
    _CRC.pack_into(data, _CRC_POSITION, crc32c(memoryview(data)[_COUNT_POSITION:]))
    return bytes(data)


def decode_snapshot(data: bytes, now_ms: int) -> list[ProducerEntry]:
    """Return what a `.snapshot` file holds, each producer taken as just used. Raises CorruptSnapshotError."""
    if len(data) < _HEAD.size:
        raise CorruptSnapshotError(f"{len(data)} bytes are no snapshot")
    version, crc, count = _HEAD.unpack_from(data)
    if version != _SNAPSHOT_VERSION:
        raise CorruptSnapshotError(f"version {version} where {_SNAPSHOT_VERSION} is the only one")
    if crc != crc32c(memoryview(data)[_COUNT_POSITION:]):
        raise CorruptSnapshotError("its checksum does not match")
    if len(data) != _HEAD.size + count * _ENTRY.size:
        raise CorruptSnapshotError(f"{len(data)} bytes do not hold {count} producers")
    entries = []
    for fields in _ENTRY.iter_unpack(memoryview(data)[_HEAD.size :]):
        producer_id, epoch, last_sequence, last_offset, delta, timestamp, coordinator_epoch, transaction = fields
        batches: tuple[ProducerBatch, ...] = ()
        if last_offset >= 0:
            first_sequence = (
                last_sequence - delta if last_sequence >= delta else last_sequence - delta + SEQUENCE_MAX + 1
            )
            batches = (ProducerBatch(first_sequence, last_sequence, last_offset - delta, last_offset, timestamp),)
        entries.append(ProducerEntry(producer_id, epoch, coordinator_epoch, timestamp, transaction, batches, now_ms))
    return entries
