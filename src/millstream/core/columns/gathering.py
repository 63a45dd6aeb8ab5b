"""Fetched pieces to one Arrow record batch; the kernels of `arrow_columns` do it, a few thousand rows a call.

Every byte of a record is part of its key, or its value, or its headers, or none: so no column can need more than the
pieces have, and buffers of that size, whose untouched pages cost nothing, are cut to what was used of them at the end.

With `views` the key and value columns point into the fetched buffers. Those stay in memory, and in the consumer's
bound, until the last array is gone that was made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

import pyarrow as pa

from millstream.core._kernels.arrow_columns import (
    VIEW_SPAN,
    gather_bytes,
    gather_headers,
    place_records,
    view_bytes,
)
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer import CorruptBatchError, FetchedRecords, LocatedRecords
from millstream.core.columns.schema import (
    HEADER_TYPE,
    HEADERS_TYPE,
    RECORD_SCHEMA,
    TIMESTAMP_TYPE,
    VIEW_SCHEMA,
)
from millstream.core.records import RecordColumns

# Rows located at a time: they stay in the processor's cache.
LOCATED_ROWS: Final = 2_048
# Arrow's offsets are int32: more bytes than this of keys, of values or of headers make a batch of their own.
GATHERED_BYTES_MAX: Final = 2**31 - 1
_RECORD_SIZE_MIN: Final = 7
_HEADER_SIZE_MIN: Final = 2
_VIEW_SIZE: Final = 16


class Gathered(NamedTuple):
    """A record batch, and what of the pieces is not in it: from where on each partition is to be read again.

    `error` is what stands at the first of those places, if it is damage and not a lack of room.
    """

    batch: pa.RecordBatch
    left: dict[TopicPartition, int]
    error: CorruptBatchError | None


def gather(
    pieces: Sequence[FetchedRecords],
    *,
    views: bool = False,
    columns: RecordColumns | None = None,
    bytes_max: int = GATHERED_BYTES_MAX,
) -> Gathered:
    """Make one batch of the pieces' records, in their order, and give the pieces' memory back unless it is viewed.

    It stops in front of a record that makes a column larger than `bytes_max`, and of a damaged batch; one record is
    always taken. Any thread may do this. `columns` is scratch room, the caller's own.
    """
    gatherer = _Gatherer(pieces, views, columns or RecordColumns(LOCATED_ROWS), bytes_max)
    left: dict[TopicPartition, int] = {}
    error: CorruptBatchError | None = None
    stopped = False
    for piece in pieces:
        if stopped or piece.topic_partition in left:
            left.setdefault(piece.topic_partition, piece.offset)
            continue
        try:
            for located in piece.locate(gatherer.columns):
                done = gatherer.add(piece, located)
                if done < located.end - located.start:
                    left[piece.topic_partition] = located.columns.offsets[located.start + done]
                    stopped = True
                    break
        except CorruptBatchError as damage:
            left[piece.topic_partition] = damage.offset
            error = damage
            stopped = True
    batch = gatherer.finish()
    for piece in pieces:
        if not views:
            piece.release()
    return Gathered(batch, left, error)


def empty_batch(*, views: bool = False) -> pa.RecordBatch:
    """Return a batch of no records."""
    return pa.RecordBatch.from_pylist([], schema=VIEW_SCHEMA if views else RECORD_SCHEMA)


class _Column:
    """A buffer of Arrow's that is being filled, as the kernels want to see it."""

    __slots__ = ("_item_bytes", "buffer", "view")

    def __init__(self, count: int, code: Literal["i", "q", "B"]) -> None:
        self._item_bytes = {"i": 4, "q": 8, "B": 1}[code]
        self.buffer = pa.allocate_buffer(max(count, 1) * self._item_bytes, resizable=True)
        self.view: Any = memoryview(self.buffer).cast("B").cast(code)

    def cut(self, count: int) -> pa.Buffer:
        """Give the rest of the room back; the column is not filled any more."""
        self.view.release()
        self.buffer.resize(count * self._item_bytes, shrink_to_fit=True)
        return self.buffer


class _Bytes:
    """A `binary` column being gathered."""

    __slots__ = ("content", "nulls", "offsets", "validity")

    def __init__(self, rows: int, size_bytes: int) -> None:
        self.offsets = _Column(rows + 1, "i")
        self.offsets.view[0] = 0
        self.validity = _validity(rows)
        self.content = _Column(size_bytes, "B")
        self.nulls = 0

    def add(self, data: memoryview, start: int, end: int, positions: Any, sizes: Any, row: int) -> int:
        done, nulls = gather_bytes(
            data, start, end, positions, sizes, row, self.offsets.view, self.validity, self.content.view
        )
        self.nulls += nulls
        return done

    def array(self, rows: int) -> pa.Array:
        size_bytes = self.offsets.view[rows]
        validity = pa.py_buffer(self.validity) if self.nulls else None
        buffers = [validity, self.offsets.cut(rows + 1), self.content.cut(size_bytes)]
        # Rows that were cut off again may have been among the nulls: Arrow counts for itself.
        return pa.Array.from_buffers(pa.binary(), rows, buffers, -1 if self.nulls else 0)


class _Views:
    """A `binary_view` column being made."""

    __slots__ = ("nulls", "validity", "views")

    def __init__(self, rows: int) -> None:
        self.views = _Column(rows * _VIEW_SIZE, "B")
        self.validity = _validity(rows)
        self.nulls = 0

    def add(self, data: memoryview, start: int, end: int, positions: Any, sizes: Any, row: int, first: int) -> None:
        self.nulls += view_bytes(data, start, end, positions, sizes, row, first, self.views.view, self.validity)

    def array(self, rows: int, pinned: list[pa.Buffer]) -> pa.Array:
        validity = pa.py_buffer(self.validity) if self.nulls else None
        buffers = [validity, self.views.cut(rows * _VIEW_SIZE), *pinned]
        return pa.Array.from_buffers(pa.binary_view(), rows, buffers, -1 if self.nulls else 0)


class _Headers:
    """The list column of headers, from the first row that has any."""

    __slots__ = ("lists", "name_offsets", "names", "nulls", "validity", "value_offsets", "values")

    def __init__(self, rows: int, rows_without: int, size_bytes: int) -> None:
        count = min(size_bytes // _HEADER_SIZE_MIN, GATHERED_BYTES_MAX)
        self.lists = _Column(rows + 1, "i")
        self.lists.view.cast("B")[: 4 * (rows_without + 1)] = bytes(4 * (rows_without + 1))
        self.name_offsets = _Column(count + 1, "i")
        self.name_offsets.view[0] = 0
        self.names = _Column(size_bytes, "B")
        self.value_offsets = _Column(count + 1, "i")
        self.value_offsets.view[0] = 0
        self.validity = _Column(count // 8 + 1, "B")
        self.values = _Column(size_bytes, "B")
        self.nulls = 0

    def add(self, data: memoryview, start: int, end: int, positions: Any, counts: Any, row: int) -> int:
        done, nulls = gather_headers(
            data,
            start,
            end,
            positions,
            counts,
            row,
            self.lists.view,
            self.name_offsets.view,
            self.names.view,
            self.value_offsets.view,
            self.validity.view,
            self.values.view,
        )
        self.nulls += nulls
        return done

    def array(self, rows: int) -> pa.Array:
        count = self.lists.view[rows]
        names_bytes, values_bytes = self.name_offsets.view[count], self.value_offsets.view[count]
        names = _text(count, self.name_offsets.cut(count + 1), self.names.cut(names_bytes))
        validity = self.validity.cut(-(-count // 8))
        values = pa.Array.from_buffers(
            pa.binary(),
            count,
            [validity if self.nulls else None, self.value_offsets.cut(count + 1), self.values.cut(values_bytes)],
        )
        pairs = pa.StructArray.from_arrays([names, values], fields=list(HEADER_TYPE))
        return pa.Array.from_buffers(HEADERS_TYPE, rows, [None, self.lists.cut(rows + 1)], 0, children=[pairs])


class _Gatherer:
    """One batch being made."""

    def __init__(self, pieces: Sequence[FetchedRecords], views: bool, columns: RecordColumns, bytes_max: int) -> None:
        size_bytes = sum(region.end - region.start for piece in pieces for region in piece.regions)
        rows = min(sum(piece.record_count for piece in pieces), size_bytes // _RECORD_SIZE_MIN)
        self.columns = columns
        self._rows_max = rows
        self._rows = 0
        self._bytes_max = min(size_bytes, bytes_max)
        self._topics: dict[str, int] = {}
        self._topic = _Column(rows, "i")
        self._partition = _Column(rows, "i")
        self._offset = _Column(rows, "q")
        self._timestamp = _Column(rows, "q")
        self._timestamp_type = _Column(rows, "B")
        self._leader_epoch = _Column(rows, "i")
        self._headers: _Headers | None = None
        self._pinned: list[pa.Buffer] = []
        self._pinned_as: dict[int, int] = {}
        self._bytes: tuple[_Bytes, _Bytes] | None = None
        self._views: tuple[_Views, _Views] | None = None
        if views:
            self._views = _Views(rows), _Views(rows)
        else:
            self._bytes = _Bytes(rows, self._bytes_max), _Bytes(rows, self._bytes_max)

    def add(self, piece: FetchedRecords, located: LocatedRecords) -> int:
        """Add located rows; return how many there was room for."""
        data, columns, start, end = located
        row = self._rows
        key = data, start, end, columns.key_positions, columns.key_sizes, row
        value = data, start, end, columns.value_positions, columns.value_sizes, row
        done = end - start
        if self._bytes is not None:
            keys, values = self._bytes
            done = min(keys.add(*key), values.add(*value))
        else:
            assert self._views is not None
            keys_views, values_views = self._views
            first = self._pin(data)
            keys_views.add(*key, first)
            values_views.add(*value, first)
        headers = self._place(piece, located, done)
        if headers or self._headers is not None:
            if self._headers is None:
                self._headers = _Headers(self._rows_max, row, self._bytes_max)
            fitting = self._headers.add(data, start, start + done, columns.header_positions, columns.header_counts, row)
            done = min(done, fitting)
        if row == done == 0 < end - start:
            raise _too_large(piece, columns.offsets[start], self._bytes_max)
        self._rows = row + done
        return done

    def finish(self) -> pa.RecordBatch:
        """Return the batch; nothing can be added any more."""
        rows = self._rows
        topics = pa.DictionaryArray.from_arrays(
            pa.Array.from_buffers(pa.int32(), rows, [None, self._topic.cut(rows)], 0),
            pa.array(list(self._topics), pa.string()),
        )
        if self._bytes is not None:
            keys, values = (column.array(rows) for column in self._bytes)
        else:
            assert self._views is not None
            keys, values = (column.array(rows, self._pinned) for column in self._views)
        arrays = [
            topics,
            pa.Array.from_buffers(pa.int32(), rows, [None, self._partition.cut(rows)], 0),
            pa.Array.from_buffers(pa.int64(), rows, [None, self._offset.cut(rows)], 0),
            pa.Array.from_buffers(TIMESTAMP_TYPE, rows, [None, self._timestamp.cut(rows)], 0),
            pa.Array.from_buffers(pa.int8(), rows, [None, self._timestamp_type.cut(rows)], 0),
            keys,
            values,
            self._headers.array(rows) if self._headers is not None else _no_headers(rows),
            pa.Array.from_buffers(pa.int32(), rows, [None, self._leader_epoch.cut(rows)], 0),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=VIEW_SCHEMA if self._views is not None else RECORD_SCHEMA)

    def _place(self, piece: FetchedRecords, located: LocatedRecords, count: int) -> int:
        columns = located.columns
        topic = self._topics.setdefault(piece.topic, len(self._topics))
        headers: int = place_records(
            located.buffer,
            located.start,
            located.start + count,
            columns.offsets,
            columns.timestamps,
            columns.header_counts,
            columns.batch_positions,
            self._rows,
            topic,
            piece.partition,
            self._topic.view,
            self._partition.view,
            self._offset.view,
            self._timestamp.view,
            self._timestamp_type.view,
            self._leader_epoch.view,
        )
        return headers

    def _pin(self, data: memoryview) -> int:
        """Have the arrays hold `data`, and return its number among what they hold."""
        known = self._pinned_as.get(id(data))
        if known is None:
            known = self._pinned_as[id(data)] = len(self._pinned)
            whole = pa.py_buffer(data)
            self._pinned += [whole.slice(start) for start in range(0, len(data), VIEW_SPAN)]
        return known


def _validity(rows: int) -> bytearray:
    return bytearray(b"\xff") * max(1, -(-rows // 8))


def _no_headers(rows: int) -> pa.Array:
    children = [pa.array([], HEADER_TYPE)]
    return pa.Array.from_buffers(HEADERS_TYPE, rows, [None, pa.py_buffer(bytes(4 * (rows + 1)))], 0, children=children)


def _text(count: int, offsets: pa.Buffer, content: pa.Buffer) -> pa.Array:
    """Make a string column; what is no UTF-8, which Kafka's clients never write, is replaced as `bytes.decode` does."""
    names = pa.Array.from_buffers(pa.binary(), count, [None, offsets, content], 0)
    try:
        return names.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([name.decode(errors="replace") for name in names.to_pylist()], pa.string())


def _too_large(piece: FetchedRecords, offset: int, bytes_max: int) -> CorruptBatchError:
    tp = piece.topic_partition
    return CorruptBatchError(tp, offset, offset + 1, f"its record does not fit into {bytes_max} bytes of a column")


def release_all(pieces: Iterable[FetchedRecords]) -> None:
    """Give the memory of pieces back that are not to be used."""
    for piece in pieces:
        piece.release()
