"""Columns for the records of many batches, filled by a compiled call; `_kernels.record_columns` says what they hold."""

from __future__ import annotations

from array import array
from typing import Any, Final

from millstream.core._kernels.record_columns import locate_payload, locate_records
from millstream.core.records.header import BatchHeader, Buffer, TimestampType
from millstream.core.records.scan import StopReason

COLUMN_NAMES: Final = (
    "offsets",
    "timestamps",
    "key_positions",
    "key_sizes",
    "value_positions",
    "value_sizes",
    "header_positions",
    "header_counts",
    "batch_positions",
)


class RecordColumns:
    """Nine int64 columns of one capacity, made once and filled again and again; `count` records are valid.

    Positions are those of the buffer that was located; a caller that locates several buffers into one set of columns
    keeps apart by itself which rows belong to which.
    """

    __slots__ = (*COLUMN_NAMES, "_all", "capacity", "count")

    offsets: array[int]
    timestamps: array[int]
    key_positions: array[int]
    key_sizes: array[int]
    value_positions: array[int]
    value_sizes: array[int]
    header_positions: array[int]
    header_counts: array[int]
    batch_positions: array[int]

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Rows in use, from the start of each column. Invariant: count <= capacity.
        self.count = 0
        self._all: Any = tuple(array("q", bytes(8 * capacity)) for _ in COLUMN_NAMES)
        for name, column in zip(COLUMN_NAMES, self._all, strict=True):
            setattr(self, name, column)

    def clear(self) -> None:
        """Forget all rows."""
        self.count = 0

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` rows where there is less, and forget those there are."""
        if capacity > self.capacity:
            self.__init__(capacity)  # type: ignore[misc]  # every column is made anew
        self.count = 0

    def locate(
        self, data: Buffer, position: int = 0, end: int | None = None, *, check_crc: bool = True
    ) -> tuple[int, StopReason]:
        """Add the records of data[position:end], whole batches; return the position reached and why it stopped there.

        COMPRESSED: decompress the batch at that position, give it to `locate_payload`, and go on behind it. ROWS_FULL:
        use what there is, clear, and call again; a batch of more records than the capacity needs larger columns.
        """
        end = len(data) if end is None else end
        self.count, position, reason = locate_records(data, position, end, self.count, check_crc, *self._all)
        return position, StopReason(reason)

    def locate_payload(self, payload: Buffer, header: BatchHeader, batch_position: int) -> StopReason:
        """Add the records of one decompressed batch, whose positions are within `payload`."""
        fixed = header.timestamp_type is TimestampType.LOG_APPEND_TIME
        reason = locate_payload(
            payload,
            header.count,
            header.base_offset,
            header.max_timestamp if fixed else header.base_timestamp,
            fixed,
            batch_position,
            self.count,
            *self._all,
        )
        if reason == StopReason.END:
            self.count += header.count
        return StopReason(reason)
