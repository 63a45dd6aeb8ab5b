"""Fetched records of one partition as readers of values take them: positions into the fetched bytes.

What every row needs (offset, time, where the value lies) is there at once, without a copy: most values go straight from
the fetched bytes into columns or blocks. Keys, values, headers and where records stand are columns by themselves, made
when they are asked for; who wants all of a record takes `records`, the Arrow batch of the same rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc

from millstream.core.columns.gathering import (
    gather,
    gathered_bytes,
    gathered_header,
    gathered_headers,
    gathered_places,
)
from millstream.core.records import RecordColumns, read_header
from millstream.hadoop_loader.values.located import Located, locate_each

if TYPE_CHECKING:
    from millstream.core.client.consumer import FetchedRecords, LocatedRecords

LOCATED_ROWS = 65_536
"""Rows at a time: all of a piece that the client opened, unless its records are small, as each round costs calls."""


class Fetched:
    """Rows of one partition, one after the other in their log; valid until the next ones are asked for."""

    def __init__(self, piece: _Piece, located: LocatedRecords, start: int, end: int, first_row: int) -> None:
        columns = located.columns
        self.length = end - start
        self._piece = piece
        self._first_row = first_row
        self._header = located.buffer, columns.batch_positions[end - 1]
        self.offsets = _int64s(columns.offsets, start, end)
        # ms since 1970, -1 where a producer sent none.
        self.times = _int64s(columns.timestamps, start, end)
        self._sizes = _int64s(columns.value_sizes, start, end)
        self._key_sizes = _int64s(columns.key_sizes, start, end)
        self.values = Located(
            located.buffer,
            memoryview(columns.value_positions)[start:end],
            memoryview(columns.value_sizes)[start:end],
            end - start,
        )
        self.has_nulls: bool = pc.min(self._sizes).as_py() < 0
        self._located = located._replace(start=start, end=end)
        # The values with the ids that headers name, where any does.
        self._framed: pa.Array | None = None
        # The keys as the job reads them, where they have a schema.
        self.read_keys: pa.Array | None = None

    @property
    def leader_epoch(self) -> int:
        """Of the leader that appended the last of them."""
        buffer, position = self._header
        return read_header(buffer, position).partition_leader_epoch

    @property
    def size_bytes(self) -> int:
        """Of keys and values."""
        return _total(self._sizes) + _total(self._key_sizes)

    def null_rows(self) -> pa.Int64Array:
        """Return the rows without a value."""
        return pc.indices_nonzero(pc.less(self._sizes, 0)).cast(pa.int64())

    def value_rows(self) -> pa.Int64Array:
        """Return the rows with a value that may be read."""
        if self._framed is not None:
            return pc.indices_nonzero(pc.is_valid(self._framed)).cast(pa.int64())
        return pc.indices_nonzero(pc.greater_equal(self._sizes, 0)).cast(pa.int64())

    @cached_property
    def places(self) -> pa.RecordBatch:
        """Topic, partition, offset, timestamp and its type, leader epoch: as `records` has them."""
        return gathered_places(self._located, self._piece.topic_partition)

    @cached_property
    def header_count(self) -> int:
        """Headers of all records together."""
        _, columns, start, end = self._located
        count: int = pc.sum(_int64s(columns.header_counts, start, end)).as_py()
        return count

    @cached_property
    def headers(self) -> pa.Array:
        """The records' headers, as `records` has them."""
        return gathered_headers(self._located, self.header_count)

    def header(self, name: bytes) -> pa.BinaryArray | None:
        """What the last header of that name says, null where a record has none; None where no record has one."""
        return gathered_header(self._located, name) if self.header_count else None

    def column(self, name: Literal["key", "value"]) -> pa.Array:
        """The records' keys, or values, as they came."""
        return gathered_bytes(self._located, name, _total(self._key_sizes if name == "key" else self._sizes))

    def frame(self, values: pa.Array) -> None:
        """Read these instead of the values as they came: they have the ids before them that headers name."""
        self._framed = values
        self.values = locate_each(values)

    @property
    def value_column(self) -> pa.Array:
        """The values that are to be read, as a column."""
        return self.column("value") if self._framed is None else self._framed

    @property
    def records(self) -> pa.RecordBatch:
        """The same rows with all that a record has, as `core.columns.schema` describes it."""
        return self._piece.records().slice(self._first_row, self.length)


class _Piece:
    """What the client handed over, and its records once they were asked for."""

    def __init__(self, piece: FetchedRecords) -> None:
        self._piece = piece
        self.topic_partition = piece.topic_partition
        self._records: pa.RecordBatch | None = None

    def records(self) -> pa.RecordBatch:
        if self._records is None:
            gathered = gather([self._piece])
            assert not gathered.left, gathered.left
            self._records = gathered.batch
        return self._records


def fetched_rows(piece: FetchedRecords, end_offset: int, columns: RecordColumns) -> Iterator[Fetched]:
    """Yield the rows of a piece below an offset; `columns` is scratch room. Raises CorruptBatchError."""
    whole, first_row = _Piece(piece), 0
    for located in piece.locate(columns):
        start, end = located.start, located.end
        offsets = located.columns.offsets
        if offsets[end - 1] >= end_offset:
            end = bisect_left(offsets, end_offset, start, end)
        if start < end:
            yield Fetched(whole, located, start, end, first_row)
        first_row += end - start


def _total(sizes: pa.Int64Array) -> int:
    """Return the sum of sizes; those below 0 are of nulls."""
    ends = pc.min_max(sizes)
    if ends["max"].as_py() <= 0:
        return 0
    known = sizes if ends["min"].as_py() >= 0 else pc.max_element_wise(sizes, 0)
    total: int = pc.sum(known).as_py()
    return total


def _int64s(column: object, start: int, end: int) -> pa.Int64Array:
    buffer = pa.py_buffer(column)
    return pa.Array.from_buffers(pa.int64(), end - start, [None, buffer], 0, start)
