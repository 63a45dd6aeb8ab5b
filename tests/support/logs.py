"""Batches for logs, and reading all of a log back."""

from __future__ import annotations

from typing import Any, NamedTuple

from millstream.core.log import CorruptBatchError, Log, Reservation
from millstream.core.records import BatchBuilder, iter_batches, iter_records, read_header

NOW_MS = 1_700_000_000_000
TOPIC_ID = bytes(range(16))


class Stored(NamedTuple):
    """One record as it lies in a log."""

    offset: int
    timestamp: int
    value: bytes | None


def batch(*values: bytes, timestamp: int = NOW_MS, **options: Any) -> bytes:
    """Build a batch of these values, a millisecond apart."""
    builder = BatchBuilder(**options)
    for index, value in enumerate(values):
        builder.append(timestamp + index, None, value)
    return bytes(builder.build())


def append(
    log: Log, *values: bytes, leader_epoch: int = 0, now_ms: int = NOW_MS, write: bool = True, **options: Any
) -> Reservation:
    """Reserve one batch, and write it unless told otherwise."""
    data = batch(*values, **options)
    reservation = log.reserve(data, read_header(data), leader_epoch=leader_epoch, now_ms=now_ms)
    if write:
        log.write()
    return reservation


def read_all(log: Log, offset: int | None = None, *, size_bytes: int = 1 << 16, wait: bool = True) -> list[Stored]:
    """Read from `offset` (default: the start) to the end, stepping over damage."""
    found: list[Stored] = []
    at = log.log_start_offset if offset is None else offset
    while at < log.log_end_offset:
        try:
            read = log.read(at, size_bytes, wait=wait)
        except CorruptBatchError as error:
            at = max(error.next_offset or 0, at + 1)
            continue
        if read.next_offset == at:
            break
        for header, data in iter_batches(read.data):
            assert header.base_offset >= (found[-1].offset + 1 if found else 0), (header, found[-1:])
            found.extend(
                Stored(record.offset, record.timestamp, record.value and bytes(record.value))
                for record in iter_records(data)
                if record.offset >= at
            )
        at = read.next_offset
    return found
