"""Making the producers' state, the open transactions and the leader epochs again from batches that are scanned.

A kernel hands over a row per batch that matters. Where a chunk has no transactions, only a producer's last few batches
in it count, and they are found by searching columns from behind: a million batches of one idempotent producer cost a
few calls.
"""

from __future__ import annotations

import struct
from array import array
from typing import Final

from millstream.core.log.leader_epochs import LeaderEpochs
from millstream.core.log.producer_state import BATCHES_KEPT, ProducerState
from millstream.core.log.transaction_index import AbortedTransaction
from millstream.core.records import (
    ROW_ATTRIBUTES,
    ROW_BASE_OFFSET,
    ROW_LEADER_EPOCH,
    ROW_POSITION,
    ROW_PRODUCER_ID,
    ROW_SIZE_BYTES,
    ROW_WIDTH,
    CorruptRecordError,
    iter_records,
    read_header,
)

_TRANSACTIONAL_OR_CONTROL: Final = 0x30
_CONTROL: Final = 0x20
_MARKER_KEY: Final = struct.Struct(">hh")  # version, type
_MARKER_VALUE: Final = struct.Struct(">hi")  # version, coordinator epoch
_ABORT: Final = 0
_COMMIT: Final = 1


class ProducerRebuild:
    """Takes the special batches of a log, in order, and feeds the state."""

    def __init__(self, producers: ProducerState, leader_epochs: LeaderEpochs, now_ms: int) -> None:
        self._producers = producers
        self._leader_epochs = leader_epochs
        self._now_ms = now_ms
        # Transactions that ended, aborted, in the segment at hand.
        self.aborted: list[AbortedTransaction] = []
        # What was known before it.
        self._entries_before = producers.entries()
        self._epochs_before = leader_epochs.entries

    def begin_segment(self) -> None:
        """The batches that follow are those of the next segment."""
        self.aborted = []
        self._entries_before = self._producers.entries()
        self._epochs_before = self._leader_epochs.entries

    def restart_segment(self) -> None:
        """Forget the batches of this segment: they come again."""
        self.aborted = []
        self._producers.load(self._entries_before)
        self._leader_epochs.clear()
        for entry in self._epochs_before:
            self._leader_epochs.assign(*entry)

    def on_rows(self, rows: array[int], count: int, data: memoryview) -> None:
        """Take `count` rows of batches in `data`."""
        end = count * ROW_WIDTH
        epochs = rows[ROW_LEADER_EPOCH:end:ROW_WIDTH]
        if max(epochs) > self._leader_epochs.latest_epoch:
            offsets = rows[ROW_BASE_OFFSET:end:ROW_WIDTH]
            for epoch, offset in zip(epochs, offsets, strict=True):
                if epoch > self._leader_epochs.latest_epoch:
                    self._leader_epochs.assign(epoch, offset)
        producer_ids = rows[ROW_PRODUCER_ID:end:ROW_WIDTH]
        distinct = set(producer_ids)
        distinct.discard(-1)
        if not distinct:
            return
        plain = not any(each & _TRANSACTIONAL_OR_CONTROL for each in set(rows[ROW_ATTRIBUTES:end:ROW_WIDTH]))
        if plain and len(distinct) * BATCHES_KEPT < count:
            chosen = _last_of_each(producer_ids, distinct)
        else:
            chosen = [index for index, producer_id in enumerate(producer_ids) if producer_id >= 0]
        for index in chosen:
            row = index * ROW_WIDTH
            position = rows[row + ROW_POSITION]
            self._take(data[position : position + rows[row + ROW_SIZE_BYTES]])

    def _take(self, batch: memoryview) -> None:
        header = read_header(batch)
        if not header.attributes & _CONTROL:
            self._producers.apply_batch(header, self._now_ms)
            return
        marker = read_marker(batch)
        if marker is None:
            return
        committed, coordinator_epoch = marker
        aborted = self._producers.end_transaction(header, coordinator_epoch, self._now_ms, committed=committed)
        if aborted is not None:
            self.aborted.append(aborted)


def read_marker(batch: memoryview) -> tuple[bool, int] | None:
    """Return (whether it commits, coordinator epoch) of a control batch; None where it ends no transaction."""
    try:
        record = next(iter(iter_records(batch)), None)
    except CorruptRecordError:
        return None
    if record is None or record.key is None or record.value is None:
        return None
    if len(record.key) < _MARKER_KEY.size or len(record.value) < _MARKER_VALUE.size:
        return None
    _, kind = _MARKER_KEY.unpack_from(record.key)
    if kind not in (_ABORT, _COMMIT):
        return None
    return kind == _COMMIT, _MARKER_VALUE.unpack_from(record.value)[1]


def abort_marker(coordinator_epoch: int) -> tuple[bytes, bytes]:
    """Return key and value of the record that aborts a transaction."""
    return _MARKER_KEY.pack(0, _ABORT), _MARKER_VALUE.pack(0, coordinator_epoch)


def _last_of_each(producer_ids: array[int], distinct: set[int]) -> list[int]:
    # The indexes of the last BATCHES_KEPT rows of each producer, ascending.
    backwards = producer_ids[::-1]
    count = len(backwards)
    chosen = []
    for producer_id in distinct:
        at = -1
        for _ in range(BATCHES_KEPT):
            try:
                at = backwards.index(producer_id, at + 1)
            except ValueError:
                break
            chosen.append(count - 1 - at)
    return sorted(chosen)
