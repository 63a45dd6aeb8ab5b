"""Transactions in a log: which aborted ones a reader leaves out, and the marker that aborts one that was left open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from millstream.core.log.files import FileSystem
from millstream.core.log.producer_rebuild import abort_marker
from millstream.core.log.producer_state import ProducerEntry, ended_entry
from millstream.core.log.segment import TRANSACTION_INDEX_SUFFIX, Segment
from millstream.core.log.transaction_index import (
    ENTRY_SIZE,
    AbortedTransaction,
    CorruptTransactionIndexError,
    read_entries,
)
from millstream.core.records import BatchBuilder, BatchHeader, read_header, set_log_fields
from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.log.log import Log


def aborted_transactions(log: Log, start_offset: int, end_offset: int) -> list[AbortedTransaction]:
    """Return the aborted transactions with records in [start_offset, end_offset). Blocks."""
    found = []
    for segment in log.segments.from_offset(start_offset):
        if not segment.transaction_bytes:
            continue
        data = log.cache.files.read_bytes(segment.stem + TRANSACTION_INDEX_SUFFIX)
        try:
            for aborted in read_entries(data[: segment.transaction_bytes], segment.base_offset):
                if aborted.last_offset >= start_offset and aborted.first_offset < end_offset:
                    found.append(aborted)
                if aborted.last_stable_offset >= end_offset:
                    return found
        except CorruptTransactionIndexError as error:
            raise KafkaError(
                ErrorCode.KAFKA_STORAGE_ERROR,
                f"{segment.stem}{TRANSACTION_INDEX_SUFFIX} is damaged ({error}); a restart after removing "
                "the clean-shutdown mark makes it again",
            ) from error
    return found


def abort_marker_batch(
    entry: ProducerEntry | None,
    producer_id: int,
    producer_epoch: int,
    coordinator_epoch: int,
    offset: int,
    leader_epoch: int,
    now_ms: int,
) -> tuple[bytearray, BatchHeader, ProducerEntry]:
    """Return the control batch that aborts a producer's transaction, its header, and the producer's state behind it."""
    if entry is None or entry.transaction_first_offset < 0:
        raise KafkaError(ErrorCode.INVALID_TXN_STATE, f"producer {producer_id} has no transaction open here")
    if producer_epoch < entry.epoch:
        raise KafkaError(
            ErrorCode.INVALID_PRODUCER_EPOCH, f"producer {producer_id} is at epoch {entry.epoch}, not {producer_epoch}"
        )
    builder = BatchBuilder(
        base_offset=offset, producer_id=producer_id, producer_epoch=producer_epoch, transactional=True, control=True
    )
    builder.append(now_ms, *abort_marker(coordinator_epoch))
    batch = bytearray(builder.build())
    set_log_fields(batch, offset, leader_epoch)
    ended = ended_entry(entry, producer_id, producer_epoch, coordinator_epoch, now_ms, now_ms)
    return batch, read_header(batch), ended


def append_to_index(files: FileSystem, segment: Segment, aborted: AbortedTransaction) -> None:
    """Put the entry behind those of the segment's `.txnindex`, durably. OSError as the system says."""
    fd = files.open(segment.stem + TRANSACTION_INDEX_SUFFIX, os.O_WRONLY | os.O_CREAT)
    try:
        files.write_all(fd, aborted.encode(), segment.transaction_bytes)
        files.fsync(fd)
    finally:
        files.close(fd)
    segment.transaction_bytes += ENTRY_SIZE
