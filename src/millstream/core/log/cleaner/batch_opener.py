"""Compressed batches for the cleaner: opened within a bound, filtered like any other, and compressed again.

A batch that keeps all of its records is taken as it is. One that cannot be opened makes its log uncleanable. Owned by
one cleaner thread.
"""

from __future__ import annotations

from array import array
from typing import Final

from millstream.core._kernels.compaction import filter_payload
from millstream.core.log.cleaner.errors import UncleanableError
from millstream.core.log.cleaner.offset_map import OffsetMap
from millstream.core.records import (
    DECOMPRESSED_BYTES_MAX,
    HEADER_SIZE,
    NO_TIMESTAMP,
    BatchHeader,
    CorruptRecordError,
    StopReason,
    compress,
    decompress,
    read_header,
    seal,
)
from millstream.core.records.header import CONTROL_BIT, DELETE_HORIZON_BIT, LOG_APPEND_TIME_BIT, TRANSACTIONAL_BIT

# Timestamp type, transactional, control: what an empty batch keeps of its attributes.
_EMPTY_ATTRIBUTES: Final = LOG_APPEND_TIME_BIT | TRANSACTIONAL_BIT | CONTROL_BIT
_SCRATCH_BYTES: Final = 1 << 16


class BatchOpener:
    """Opens batches against one offset map."""

    def __init__(self, offsets: OffsetMap) -> None:
        self._offsets = offsets
        self._scratch = bytearray(_SCRATCH_BYTES)

    def shrink(self) -> None:
        """Give back what a large batch took."""
        if len(self._scratch) > _SCRATCH_BYTES:
            self._scratch = bytearray(_SCRATCH_BYTES)

    def note(self, batch: memoryview, path: str) -> StopReason:
        """Note the keys of a compressed batch. Raises UncleanableError."""
        header = read_header(batch)
        return self._offsets.note_payload(self._open(batch, header, path), header)

    def filter(
        self, batch: memoryview, path: str, *, keep: bool, now_ms: int, new_horizon: int, found: array[int]
    ) -> bytes | memoryview:
        """Return what stays of a compressed batch, b"" for nothing; `found` as of `filter_payload`.

        Raises UncleanableError.
        """
        header = read_header(batch)
        payload = self._open(batch, header, path)
        fixed = bool(header.attributes & LOG_APPEND_TIME_BIT)
        reason = StopReason.ROWS_FULL
        while reason is StopReason.ROWS_FULL:
            reason = StopReason(
                filter_payload(
                    payload,
                    header.count,
                    header.base_offset,
                    header.max_timestamp if fixed else header.base_timestamp,
                    fixed,
                    header.base_timestamp if header.attributes & DELETE_HORIZON_BIT else -1,
                    0,
                    now_ms,
                    new_horizon,
                    self._offsets.table,
                    self._offsets.state,
                    self._scratch,
                    found,
                )
            )
            if reason is StopReason.ROWS_FULL:
                self._scratch = bytearray(found[6])
        if reason is StopReason.BAD_RECORD:
            raise self._unreadable(header, path, "it holds a record that is none")
        retained, dropped, _, end, greatest, has_new_horizon, _ = found
        if not retained:
            empty = header._replace(
                attributes=header.attributes & _EMPTY_ATTRIBUTES, base_timestamp=NO_TIMESTAMP, count=0
            )
            return seal(empty, b"") if keep else b""
        if not dropped and not has_new_horizon:
            return batch
        if not fixed:
            header = header._replace(max_timestamp=greatest)
        if has_new_horizon:
            header = header._replace(attributes=header.attributes | DELETE_HORIZON_BIT, base_timestamp=new_horizon)
        records = compress(header.compression, memoryview(self._scratch)[:end])
        return seal(header._replace(count=retained), records)

    def _open(self, batch: memoryview, header: BatchHeader, path: str) -> memoryview:
        try:
            return decompress(header.compression, batch[HEADER_SIZE:], size_bytes_max=DECOMPRESSED_BYTES_MAX)
        except (CorruptRecordError, ValueError) as error:
            raise self._unreadable(header, path, str(error)) from error

    @staticmethod
    def _unreadable(header: BatchHeader, path: str, why: str) -> UncleanableError:
        return UncleanableError(path, -1, header.base_offset, f"cannot be opened, although its CRC is right: {why}")
