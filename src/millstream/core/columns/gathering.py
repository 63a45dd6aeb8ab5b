"""Fetched pieces to one Arrow record batch; the kernels of `arrow_columns` do it, a few thousand rows a call.

Every byte of a record is part of its key, or its value, or its headers, or none: so no column can need more than the
pieces have. Values get room for that at once, keys for what those before them took; headers a room whose untouched
pages cost nothing, cut to what was used of it at the end.

The system clears fresh pages, which would cost as much as gathering: large buffers come from a pool where one is given,
and go back to it by themselves when the last array on them is gone. The columns of a fixed width share one, keys have
one and values have one, so whoever keeps a column keeps little else.

With `views` the key and value columns point into the fetched buffers. Those stay in memory, and in the consumer's
bound, until the last array is gone that was made of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from millstream.core._kernels.arrow_columns import (
    VIEW_SPAN,
    gather_bytes,
    gather_headers,
    locate_header,
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
from millstream.core.net import BufferPool
from millstream.core.records import RecordColumns

# Rows located at a time: they stay in the processor's cache.
LOCATED_ROWS: Final = 2_048
# Arrow's offsets are int32: more bytes than this of keys, of values or of headers make a batch of their own.
GATHERED_BYTES_MAX: Final = 2**31 - 1
_RECORD_SIZE_MIN: Final = 7
_HEADER_SIZE_MIN: Final = 2
_VIEW_SIZE: Final = 16
# Buffers at least as large come from the pool.
POOLED_BYTES_MIN: Final = 64 * 1024
# The first room for keys, a row.
_KEY_BYTES_USUAL: Final = 16
# What Arrow recommends for the beginning of a buffer.
_ALIGNMENT: Final = 64
_Code = Literal["i", "q", "B"]
_ITEM_BYTES: Final = {"i": 4, "q": 8, "B": 1}


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
    pool: BufferPool | None = None,
) -> Gathered:
    """Make one batch of the pieces' records, in their order, and give the pieces' memory back unless it is viewed.

    It stops in front of a record that makes a column larger than `bytes_max`, and of a damaged batch; one record is
    always taken. Any thread may do this. `columns` is scratch room, the caller's own; large buffers come from `pool`.
    """
    gatherer = _Gatherer(pieces, views, columns or RecordColumns(LOCATED_ROWS), bytes_max, pool)
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


def gathered_bytes(located: LocatedRecords, name: Literal["key", "value"], size_bytes: int) -> pa.BinaryArray:
    """Return the keys, or values, of located records, which are `size_bytes` together, and nothing else of them."""
    data, columns, start, end = located
    if name == "key":
        return _bytes_array(data, start, end, columns.key_positions, columns.key_sizes, size_bytes)
    return _bytes_array(data, start, end, columns.value_positions, columns.value_sizes, size_bytes)


def gathered_places(located: LocatedRecords, tp: TopicPartition) -> pa.RecordBatch:
    """Return where located records of a partition stand: of RECORD_SCHEMA all but keys, values and headers."""
    rows = located.end - located.start
    places = _Places(_Rooms(None).columns(rows, _Places.CODES))
    places.add(located, located.end, 0, tp, 0)
    arrays = places.arrays(rows, [tp.topic])
    schema = pa.schema([RECORD_SCHEMA.field(name) for name in arrays])
    return pa.RecordBatch.from_arrays(list(arrays.values()), schema=schema)


def gathered_headers(located: LocatedRecords, count: int) -> pa.Array:
    """Return the headers of located records, `count` of them together, and nothing else of them."""
    data, columns, start, end = located
    if not count:
        return _no_headers(end - start)
    headers = _Headers(end - start, 0, len(data) - columns.header_positions[start], count)
    done = headers.add(data, start, end, columns.header_positions, columns.header_counts, 0)
    assert done == end - start, f"{done} of {end - start} rows"
    return headers.array(done)


def gathered_header(located: LocatedRecords, name: bytes) -> pa.BinaryArray | None:
    """Return the value of the last header of that name, null where a record has none; None where no record has one."""
    data, columns, start, end = located
    rows = end - start
    positions, sizes = array("q", bytes(8 * rows)), array("q", bytes(8 * rows))
    if not locate_header(data, start, end, columns.header_positions, columns.header_counts, name, positions, sizes):
        return None
    lengths = pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(sizes)])
    size_bytes = pc.sum(pc.max_element_wise(lengths, 0)).as_py()
    return _bytes_array(data, 0, rows, positions, sizes, size_bytes)


def empty_batch(*, views: bool = False) -> pa.RecordBatch:
    """Return a batch of no records."""
    return pa.RecordBatch.from_pylist([], schema=VIEW_SCHEMA if views else RECORD_SCHEMA)


class _Column:
    """A buffer of Arrow's that is being filled, as the kernels want to see it."""

    __slots__ = ("_buffer", "_item_bytes", "view")

    def __init__(self, buffer: pa.Buffer, memory: memoryview, code: _Code) -> None:
        self._item_bytes = _ITEM_BYTES[code]
        self._buffer = buffer
        self.view: Any = memory.cast("B").cast(code)

    def cut(self, count: int) -> pa.Buffer:
        """Return what was used; the column is not filled any more."""
        self.view.release()
        size_bytes = count * self._item_bytes
        if isinstance(self._buffer, pa.ResizableBuffer):
            self._buffer.resize(size_bytes, shrink_to_fit=True)
            return self._buffer
        return self._buffer.slice(0, size_bytes)


class _Rooms:
    """Where the buffers of one batch come from."""

    __slots__ = ("_pool",)

    def __init__(self, pool: BufferPool | None) -> None:
        self._pool = pool

    def column(self, count: int, code: _Code) -> _Column:
        """Return a column with room for so many items, one at least."""
        return self.columns(count, (code,))[0]

    def columns(self, count: int, codes: Sequence[_Code]) -> list[_Column]:
        """Return columns with room for so many items each, side by side in one buffer where that is large."""
        sizes = [max(count, 1) * _ITEM_BYTES[code] for code in codes]
        rooms = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
        if self._pool is None or sum(rooms) < POOLED_BYTES_MIN:
            return [_allocated(size, code) for size, code in zip(sizes, codes, strict=True)]
        pooled = self._pool.take(sum(rooms))
        buffer, memory = pa.py_buffer(pooled), memoryview(pooled)
        columns = []
        start = 0
        for size, room, code in zip(sizes, rooms, codes, strict=True):
            columns.append(_Column(buffer.slice(start, size), memory[start : start + size], code))
            start += room
        return columns


def _allocated(size_bytes: int, code: _Code) -> _Column:
    buffer = pa.allocate_buffer(size_bytes, resizable=True)
    return _Column(buffer, memoryview(buffer), code)


class _Bytes:
    """A `binary` column being gathered."""

    __slots__ = ("_bytes_max", "_rooms", "_rows", "content", "nulls", "offsets", "validity")

    def __init__(self, rooms: _Rooms, offsets: _Column, rows: int, room_bytes: int, bytes_max: int) -> None:
        """Make one of at most `bytes_max` bytes of content, with room for the first `room_bytes`."""
        self._rooms = rooms
        self._rows = rows
        self._bytes_max = bytes_max
        self.offsets = offsets
        self.offsets.view[0] = 0
        self.validity = _validity(rows)
        self.content = rooms.column(min(room_bytes, bytes_max), "B")
        self.nulls = 0

    def add(self, data: memoryview, start: int, end: int, positions: Any, sizes: Any, row: int) -> int:
        """Gather rows start to end; return how many there was room for."""
        first = start
        while True:
            done, nulls = gather_bytes(
                data, start, end, positions, sizes, row, self.offsets.view, self.validity, self.content.view
            )
            self.nulls += nulls
            start, row = start + done, row + done
            if start == end or len(self.content.view) >= self._bytes_max:
                return start - first
            self._grow(row, sizes[start])

    def array(self, rows: int) -> pa.Array:
        """Return the first `rows` of them; none can be added any more."""
        size_bytes = self.offsets.view[rows]
        validity = pa.py_buffer(self.validity) if self.nulls else None
        buffers = [validity, self.offsets.cut(rows + 1), self.content.cut(size_bytes)]
        # Rows that were cut off again may have been among the nulls: Arrow counts for itself.
        return pa.Array.from_buffers(pa.binary(), rows, buffers, -1 if self.nulls else 0)

    def _grow(self, row: int, next_bytes: int) -> None:
        """Make room for all rows, if those that come are like those before `row`, and for the next one in any case."""
        used = self.offsets.view[row]
        likely = used * self._rows // max(row, 1)
        size_bytes = max(likely + likely // 8, 2 * len(self.content.view), used + next_bytes)
        grown = self._rooms.column(min(size_bytes, self._bytes_max), "B")
        grown.view[:used] = self.content.view[:used]
        self.content = grown


class _Views:
    """A `binary_view` column being made."""

    __slots__ = ("nulls", "validity", "views")

    def __init__(self, rooms: _Rooms, rows: int) -> None:
        self.views = rooms.column(rows * _VIEW_SIZE, "B")
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

    def __init__(self, rows: int, rows_without: int, size_bytes: int, count: int | None = None) -> None:
        """Make room for the headers of `rows` in so many bytes, `count` of them where that is known."""
        if count is None:
            count = min(size_bytes // _HEADER_SIZE_MIN, GATHERED_BYTES_MAX)
        # Without the pool, whose buffers are no larger than what is put there.
        rooms = _Rooms(None)
        self.lists = rooms.column(rows + 1, "i")
        self.lists.view.cast("B")[: 4 * (rows_without + 1)] = bytes(4 * (rows_without + 1))
        self.name_offsets = rooms.column(count + 1, "i")
        self.name_offsets.view[0] = 0
        self.names = rooms.column(size_bytes, "B")
        self.value_offsets = rooms.column(count + 1, "i")
        self.value_offsets.view[0] = 0
        self.validity = rooms.column(count // 8 + 1, "B")
        self.values = rooms.column(size_bytes, "B")
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


class _Places:
    """What a batch has of where its records stand: topic, partition, offset, time, leader."""

    CODES: Final[tuple[_Code, ...]] = ("q", "q", "i", "i", "i", "B")
    __slots__ = ("_epoch", "_offset", "_partition", "_timestamp", "_timestamp_type", "_topic")

    def __init__(self, columns: Sequence[_Column]) -> None:
        """Fill columns of CODES."""
        self._offset, self._timestamp, self._topic, self._partition, self._epoch, self._timestamp_type = columns

    def add(self, located: LocatedRecords, end: int, topic: int, tp: TopicPartition, row: int) -> int:
        """Add located rows below `end`, of the topic of that number; return how many headers they have."""
        columns = located.columns
        headers: int = place_records(
            located.buffer,
            located.start,
            end,
            columns.offsets,
            columns.timestamps,
            columns.header_counts,
            columns.batch_positions,
            row,
            topic,
            tp.partition,
            self._topic.view,
            self._partition.view,
            self._offset.view,
            self._timestamp.view,
            self._timestamp_type.view,
            self._epoch.view,
        )
        return headers

    def arrays(self, rows: int, topics: Iterable[str]) -> dict[str, pa.Array]:
        """Return the first `rows` by their names; none can be added any more."""
        numbers = pa.Array.from_buffers(pa.int32(), rows, [None, self._topic.cut(rows)], 0)
        return {
            "topic": pa.DictionaryArray.from_arrays(numbers, _names(topics)),
            "partition": pa.Array.from_buffers(pa.int32(), rows, [None, self._partition.cut(rows)], 0),
            "offset": pa.Array.from_buffers(pa.int64(), rows, [None, self._offset.cut(rows)], 0),
            "timestamp": pa.Array.from_buffers(TIMESTAMP_TYPE, rows, [None, self._timestamp.cut(rows)], 0),
            "timestamp_type": pa.Array.from_buffers(pa.int8(), rows, [None, self._timestamp_type.cut(rows)], 0),
            "leader_epoch": pa.Array.from_buffers(pa.int32(), rows, [None, self._epoch.cut(rows)], 0),
        }


class _Gatherer:
    """One batch being made."""

    def __init__(
        self,
        pieces: Sequence[FetchedRecords],
        views: bool,
        columns: RecordColumns,
        bytes_max: int,
        pool: BufferPool | None,
    ) -> None:
        size_bytes = sum(region.end - region.start for piece in pieces for region in piece.regions)
        rows = min(sum(piece.record_count for piece in pieces), size_bytes // _RECORD_SIZE_MIN)
        self.columns = columns
        self._rows_max = rows
        self._rows = 0
        self._bytes_max = min(size_bytes, bytes_max)
        self._topics: dict[str, int] = {}
        rooms = _Rooms(pool)
        # The two last ones are the offsets of keys and values, of which there is one more than rows.
        codes: tuple[_Code, ...] = (*_Places.CODES, *(() if views else ("i", "i")))
        fixed = rooms.columns(rows + 1, codes)
        self._places = _Places(fixed[: len(_Places.CODES)])
        self._headers: _Headers | None = None
        self._pinned: list[pa.Buffer] = []
        self._pinned_as: dict[int, int] = {}
        self._bytes: tuple[_Bytes, _Bytes] | None = None
        self._views: tuple[_Views, _Views] | None = None
        if views:
            self._views = _Views(rooms, rows), _Views(rooms, rows)
        else:
            content_bytes = size_bytes - rows * _RECORD_SIZE_MIN
            self._bytes = (
                _Bytes(rooms, fixed[-2], rows, rows * _KEY_BYTES_USUAL, self._bytes_max),
                _Bytes(rooms, fixed[-1], rows, content_bytes, self._bytes_max),
            )

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
        topic = self._topics.setdefault(piece.topic, len(self._topics))
        headers = self._places.add(located, start + done, topic, piece.topic_partition, row)
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
        if self._bytes is not None:
            keys, values = (column.array(rows) for column in self._bytes)
        else:
            assert self._views is not None
            keys, values = (column.array(rows, self._pinned) for column in self._views)
        headers = self._headers.array(rows) if self._headers is not None else _no_headers(rows)
        arrays = {**self._places.arrays(rows, self._topics), "key": keys, "value": values, "headers": headers}
        schema = VIEW_SCHEMA if self._views is not None else RECORD_SCHEMA
        return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)

    def _pin(self, data: memoryview) -> int:
        """Have the arrays hold `data`, and return its number among what they hold."""
        known = self._pinned_as.get(id(data))
        if known is None:
            known = self._pinned_as[id(data)] = len(self._pinned)
            whole = pa.py_buffer(data)
            self._pinned += [whole.slice(start) for start in range(0, len(data), VIEW_SPAN)]
        return known


def _bytes_array(data: memoryview, start: int, end: int, positions: Any, sizes: Any, size_bytes: int) -> pa.BinaryArray:
    """Return rows start to end, of `size_bytes` together, as a `binary` array of their own."""
    rows, rooms = end - start, _Rooms(None)
    gathered = _Bytes(rooms, rooms.column(rows + 1, "i"), rows, size_bytes, size_bytes)
    done = gathered.add(data, start, end, positions, sizes, 0)
    assert done == rows, f"{done} of {rows} rows"
    return gathered.array(rows)


def _names(topics: Iterable[str]) -> pa.Array:
    """Return texts as an array. Not by pa.array, which imports pandas to see whether a list is one of its own."""
    encoded = [topic.encode() for topic in topics]
    ends = array("i", accumulate(map(len, encoded), initial=0))
    return pa.Array.from_buffers(
        pa.string(), len(encoded), [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(b"".join(encoded))], 0
    )


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
