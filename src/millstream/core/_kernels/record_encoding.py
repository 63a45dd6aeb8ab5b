"""Arrow's columns into records: partitions by the hash of the key, and whole batches of encoded records.

Content comes as Arrow's `large_binary` lays it out (`BinaryColumn`: int64 offsets, bytes, a bitmap of validity). Rows
go to partitions (`partition_rows`, `stick_rows`) and are put in the order of those (`order_rows`). Then, batch by
batch, `measure_batch` says how many rows fit and what they take, and `encode_batch` writes them, in the layout that
`batch_validation` describes: offset deltas count from 0, timestamp deltas from the batch's first row.
"""

from __future__ import annotations

from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if cython.compiled:
    from cython.cimports.millstream.core._kernels.native import (
        copy_bytes,
        murmur2_of,
        store_varint,
        varint_size,
    )
else:
    from millstream.core._kernels.interpreted import (
        copy_bytes,
        murmur2_of,
        store_varint,
        varint_size,
    )

_INT32_MAX = cython.declare(cython.longlong, 2147483647)
# What a record takes beside its content, about: seven varints and its attributes.
_RECORD_OVERHEAD = cython.declare(cython.longlong, 12)

NO_PARTITION = -1


@cython.final
@cython.cclass
class BinaryColumn:
    """`count` byte strings or nulls: row i is data[offsets[shift + i] : offsets[shift + i + 1]] where its bit is set.

    An empty `validity` has no nulls; without `offsets` there is nothing else.
    """

    count = cython.declare(cython.Py_ssize_t, visibility="readonly")
    offsets: cython.const[cython.longlong][::1]
    data: cython.const[cython.uchar][::1]
    validity: cython.const[cython.uchar][::1]
    shift: cython.Py_ssize_t
    all_null: cython.bint
    has_nulls: cython.bint

    def __init__(self, count: int, offsets: Any = None, data: Any = b"", validity: Any = b"", shift: int = 0) -> None:
        self.count = count
        self.shift = shift
        self.all_null = offsets is None
        self.has_nulls = False
        if offsets is None:
            return
        self.offsets = offsets
        self.data = data
        self.validity = validity
        self.has_nulls = len(validity) > 0
        if count < 0 or shift < 0 or len(offsets) <= shift + count:
            raise ValueError(f"{count} rows from {shift} on need more than {len(offsets)} offsets")
        if self.has_nulls and 8 * len(validity) < shift + count:
            raise ValueError(f"{count} rows from {shift} on need more than {len(validity)} bytes of validity")
        if not _is_ascending(offsets, shift, shift + count, len(data)):
            raise ValueError(f"offsets of {count} rows from {shift} on do not ascend within {len(data)} bytes")


@cython.cfunc
@cython.returns(cython.bint)
def _is_ascending(
    offsets: cython.const[cython.longlong][::1],
    first: cython.Py_ssize_t,
    last: cython.Py_ssize_t,
    size: cython.longlong,
) -> bool:
    at: cython.Py_ssize_t
    descends: cython.bint = False
    with cython.nogil:
        for at in range(first, last):
            descends |= offsets[at] > offsets[at + 1]
    return not descends and offsets[first] >= 0 and offsets[last] <= size


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.longlong)
def _size_at(
    row: cython.Py_ssize_t,
    offsets: cython.p_const_longlong,
    validity: cython.p_const_uchar,
    kind: cython.int,
) -> int:
    """Return the size of a row's content, -1 for null; `kind` is 0 without nulls, 1 with some, 2 with nothing else."""
    if kind != 0 and (kind == 2 or not (validity[row >> 3] >> (row & 7)) & 1):
        return -1
    return offsets[row + 1] - offsets[row]


@cython.final
@cython.cclass
class Rows:
    """The columns of rows to be encoded: key, value, timestamp in milliseconds, and headers.

    `timestamps` is empty where all have `timestamp`. `header_lists` is empty without headers, else says of row i that
    its headers are header_lists[i] to header_lists[i + 1] of `header_names` and `header_values`.
    """

    count = cython.declare(cython.Py_ssize_t, visibility="readonly")
    keys: BinaryColumn
    values: BinaryColumn
    timestamps: cython.const[cython.longlong][::1]
    timestamp: cython.longlong
    header_lists: cython.const[cython.longlong][::1]
    header_names: BinaryColumn
    header_values: BinaryColumn
    has_timestamps: cython.bint
    has_headers: cython.bint

    def __init__(
        self,
        keys: BinaryColumn,
        values: BinaryColumn,
        timestamp: int,
        timestamps: Any = None,
        header_lists: Any = None,
        header_names: BinaryColumn | None = None,
        header_values: BinaryColumn | None = None,
    ) -> None:
        self.count = keys.count
        self.keys = keys
        self.values = values
        self.timestamp = timestamp
        self.has_timestamps = timestamps is not None
        self.has_headers = header_lists is not None
        if values.count != keys.count:
            raise ValueError(f"{keys.count} keys and {values.count} values")
        if timestamps is not None:
            self.timestamps = timestamps
            if len(timestamps) < self.count:
                raise ValueError(f"{len(timestamps)} timestamps for {self.count} rows")
        if header_lists is not None:
            assert header_names is not None
            assert header_values is not None
            self.header_lists = header_lists
            self.header_names = header_names
            self.header_values = header_values
            if len(header_lists) <= self.count:
                raise ValueError(f"{len(header_lists)} ends of header lists for {self.count} rows")
            if not _is_ascending(header_lists, 0, self.count, min(header_names.count, header_values.count)):
                raise ValueError("lists of headers do not ascend within the headers there are")


@cython.cfunc
@cython.inline
@cython.returns(cython.int)
def _kind_of(column: BinaryColumn) -> int:
    return 2 if column.all_null else 1 if column.has_nulls else 0


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.p_const_uchar)
def _data_of(column: BinaryColumn) -> Any:
    if not cython.compiled:
        return b"" if column.all_null else column.data
    if column.all_null or len(column.data) == 0:
        return cython.NULL
    return cython.address(column.data[0])


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.p_const_uchar)
def _validity_of(column: BinaryColumn) -> Any:
    if not cython.compiled:
        return column.validity if column.has_nulls else b""
    return cython.address(column.validity[0]) if column.has_nulls else cython.NULL


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.p_const_longlong)
def _offsets_of(column: BinaryColumn) -> Any:
    if not cython.compiled:
        return () if column.all_null else column.offsets
    return cython.NULL if column.all_null else cython.address(column.offsets[0])


def partition_rows(keys: BinaryColumn, partition_count: cython.int, partitions: cython.int[::1]) -> int:
    """Write the partition of each row, by Java's hash of its key; return how many have none (NO_PARTITION)."""
    if len(partitions) < keys.count:
        raise ValueError(f"{len(partitions)} places for {keys.count} rows")
    if partition_count < 1:
        raise ValueError(f"{partition_count} partitions")
    count: cython.Py_ssize_t = keys.count
    shift: cython.Py_ssize_t = keys.shift
    kind: cython.int = _kind_of(keys)
    offsets: cython.p_const_longlong = _offsets_of(keys)
    data: cython.p_const_uchar = _data_of(keys)
    validity: cython.p_const_uchar = _validity_of(keys)
    row: cython.Py_ssize_t
    size: cython.longlong
    start: cython.longlong
    hashed: cython.uint
    keyless: cython.Py_ssize_t = 0
    with cython.nogil:
        for row in range(count):
            size = _size_at(shift + row, offsets, validity, kind)
            if size < 0:
                partitions[row] = -1
                keyless += 1
                continue
            start = offsets[shift + row]
            if cython.compiled:
                hashed = murmur2_of(data + start, cython.cast(cython.Py_ssize_t, size))
            else:
                hashed = murmur2_of(data[start : start + size], size)
            partitions[row] = cython.cast(cython.int, (hashed & 0x7FFFFFFF) % cython.cast(cython.uint, partition_count))
    return keyless


def stick_rows(
    values: BinaryColumn,
    partitions: cython.int[::1],
    first: cython.Py_ssize_t,
    partition: cython.int,
    bytes_max: cython.longlong,
) -> int:
    """Give `partition` to rows that have none, from `first` on, until they take `bytes_max`; return where it ended."""
    count: cython.Py_ssize_t = values.count
    if len(partitions) < count or first < 0:
        raise ValueError(f"rows {first} to {count} of {len(partitions)}")
    shift: cython.Py_ssize_t = values.shift
    kind: cython.int = _kind_of(values)
    offsets: cython.p_const_longlong = _offsets_of(values)
    validity: cython.p_const_uchar = _validity_of(values)
    row: cython.Py_ssize_t = first
    taken: cython.longlong = 0
    size: cython.longlong
    with cython.nogil:
        while row < count and taken < bytes_max:
            if partitions[row] < 0:
                partitions[row] = partition
                size = _size_at(shift + row, offsets, validity, kind)
                taken += _RECORD_OVERHEAD + max(0, size)
            row += 1
    return row


def order_rows(
    partitions: cython.int[::1],
    count: cython.Py_ssize_t,
    starts: cython.longlong[::1],
    rows: cython.longlong[::1],
) -> int:
    """Write the rows by partition, in their order within each; those of partition p are rows[starts[p]:starts[p + 1]].

    Returns `count`, or the first row whose partition is none of the len(starts) - 1 (nothing of use is written).
    """
    partition_count: cython.longlong = len(starts) - 1
    if not 0 <= count <= min(len(partitions), len(rows)) or partition_count < 1:
        raise ValueError(f"{count} rows of {len(partitions)} into {len(rows)}, {partition_count} partitions")
    row: cython.Py_ssize_t
    partition: cython.Py_ssize_t
    bad: cython.Py_ssize_t = count
    with cython.nogil:
        for partition in range(partition_count + 1):
            starts[partition] = 0
        for row in range(count):
            if partitions[row] < 0 or partitions[row] >= partition_count:
                bad = row
                break
            starts[partitions[row] + 1] += 1
        if bad == count:
            for partition in range(partition_count):
                starts[partition + 1] += starts[partition]
            # Each start moves to its end here, and all are moved back by one place behind.
            for row in range(count):
                partition = partitions[row]
                rows[starts[partition]] = row
                starts[partition] += 1
            for partition in range(partition_count, 0, -1):
                starts[partition] = starts[partition - 1]
            starts[0] = 0
    return bad


def measure_batch(
    rows: Rows,
    order: cython.const[cython.longlong][::1],
    first: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    size_max: cython.longlong,
) -> tuple[int, int, int, int]:
    """Return (how many of the rows first to end fit, bytes, first timestamp, last timestamp) of the next batch.

    One row is taken whatever it takes. Rows are order[first:end], or first to end themselves where `order` is empty.
    """
    _check_range(rows, order, first, end)
    out = bytearray()
    return _walk(rows, order, first, end, size_max, out, 0, False)


def encode_batch(
    rows: Rows,
    order: cython.const[cython.longlong][::1],
    first: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    out: cython.uchar[::1],
    position: cython.Py_ssize_t,
) -> int:
    """Write the rows first to end as records, from out[position] on; return where they end.

    Raises ValueError where they don't fit: measure_batch says what they take.
    """
    _check_range(rows, order, first, end)
    count, size, _, _ = _walk(rows, order, first, end, len(out) - position, out, position, True)
    if count < end - first:
        raise ValueError(f"{end - first} rows do not fit into {len(out) - position} bytes")
    return position + size


@cython.cfunc
@cython.returns(object)
def _check_range(
    rows: Rows, order: cython.const[cython.longlong][::1], first: cython.Py_ssize_t, end: cython.Py_ssize_t
) -> Any:
    count: cython.Py_ssize_t = rows.count
    at: cython.Py_ssize_t
    if not 0 <= first <= end <= (len(order) if len(order) > 0 else count):
        raise ValueError(f"[{first}, {end}) does not lie within {len(order) or count} rows")
    if len(order) > 0:
        for at in range(first, end):
            if order[at] < 0 or order[at] >= count:
                raise ValueError(f"row {order[at]} of {count}")


@cython.cfunc
@cython.returns(tuple)
def _walk(
    rows: Rows,
    order: cython.const[cython.longlong][::1],
    first: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    size_max: cython.longlong,
    out: cython.uchar[::1],
    position: cython.Py_ssize_t,
    writes: cython.bint,
) -> tuple[int, int, int, int]:
    """Measure rows, and write them where `writes`: then no row goes beyond size_max, not the first one either."""
    keys: BinaryColumn = rows.keys
    values: BinaryColumn = rows.values
    key_shift: cython.Py_ssize_t = keys.shift
    value_shift: cython.Py_ssize_t = values.shift
    key_kind: cython.int = _kind_of(keys)
    value_kind: cython.int = _kind_of(values)
    key_offsets: cython.p_const_longlong = _offsets_of(keys)
    value_offsets: cython.p_const_longlong = _offsets_of(values)
    key_data: cython.p_const_uchar = _data_of(keys)
    value_data: cython.p_const_uchar = _data_of(values)
    key_validity: cython.p_const_uchar = _validity_of(keys)
    value_validity: cython.p_const_uchar = _validity_of(values)
    has_headers: cython.bint = rows.has_headers
    has_timestamps: cython.bint = rows.has_timestamps
    is_ordered: cython.bint = len(order) > 0
    name_shift: cython.Py_ssize_t = 0
    content_shift: cython.Py_ssize_t = 0
    content_kind: cython.int = 2
    name_offsets: cython.p_const_longlong = cython.NULL
    content_offsets: cython.p_const_longlong = cython.NULL
    name_data: cython.p_const_uchar = cython.NULL
    content_data: cython.p_const_uchar = cython.NULL
    content_validity: cython.p_const_uchar = cython.NULL
    header_lists: cython.p_const_longlong = cython.NULL
    names: BinaryColumn
    contents: BinaryColumn
    if has_headers:
        names = rows.header_names
        contents = rows.header_values
        name_shift = names.shift
        content_shift = contents.shift
        content_kind = _kind_of(contents)
        name_offsets = _offsets_of(names)
        content_offsets = _offsets_of(contents)
        name_data = _data_of(names)
        content_data = _data_of(contents)
        content_validity = _validity_of(contents)
        header_lists = cython.address(rows.header_lists[0]) if cython.compiled else rows.header_lists
    timestamps: cython.p_const_longlong = cython.NULL
    if has_timestamps and rows.count > 0:
        timestamps = cython.address(rows.timestamps[0]) if cython.compiled else rows.timestamps
    target: cython.p_uchar = cython.NULL
    if writes and len(out) > 0:
        target = cython.address(out[0]) if cython.compiled else out
    timestamp: cython.longlong = rows.timestamp
    base_timestamp: cython.longlong = timestamp
    max_timestamp: cython.longlong = timestamp
    index: cython.longlong = 0
    size: cython.longlong = 0
    body: cython.longlong
    row_size: cython.longlong
    key_size: cython.longlong
    value_size: cython.longlong
    header: cython.longlong
    header_end: cython.longlong
    name_size: cython.longlong
    content_size: cython.longlong
    row: cython.Py_ssize_t
    at: cython.Py_ssize_t = first
    with cython.nogil:
        while at < end and index < _INT32_MAX:
            row = cython.cast(cython.Py_ssize_t, order[at]) if is_ordered else at
            if has_timestamps:
                timestamp = timestamps[row]
            if index == 0:
                base_timestamp = timestamp
                max_timestamp = timestamp
            key_size = _size_at(key_shift + row, key_offsets, key_validity, key_kind)
            value_size = _size_at(value_shift + row, value_offsets, value_validity, value_kind)
            body = 1 + varint_size(timestamp - base_timestamp) + varint_size(index)
            body += varint_size(key_size) + max(0, key_size)
            body += varint_size(value_size) + max(0, value_size)
            if has_headers:
                header = header_lists[row]
                header_end = header_lists[row + 1]
                body += varint_size(header_end - header)
                while header < header_end:
                    name_size = _size_at(name_shift + header, name_offsets, content_validity, 0)
                    content_size = _size_at(content_shift + header, content_offsets, content_validity, content_kind)
                    body += varint_size(name_size) + name_size
                    body += varint_size(content_size) + max(0, content_size)
                    header += 1
            else:
                body += 1
            row_size = varint_size(body) + body
            if size + row_size > size_max and (writes or index > 0):
                break
            if timestamp > max_timestamp:
                max_timestamp = timestamp
            if writes:
                position = store_varint(target, position, body)
                target[position] = 0
                position = store_varint(target, position + 1, timestamp - base_timestamp)
                position = store_varint(target, position, index)
                position = store_varint(target, position, key_size)
                if key_size > 0:
                    copy_bytes(
                        target, position, key_data, key_offsets[key_shift + row], key_offsets[key_shift + row + 1]
                    )
                    position += cython.cast(cython.Py_ssize_t, key_size)
                position = store_varint(target, position, value_size)
                if value_size > 0:
                    copy_bytes(
                        target,
                        position,
                        value_data,
                        value_offsets[value_shift + row],
                        value_offsets[value_shift + row + 1],
                    )
                    position += cython.cast(cython.Py_ssize_t, value_size)
                if has_headers:
                    header = header_lists[row]
                    header_end = header_lists[row + 1]
                    position = store_varint(target, position, header_end - header)
                    while header < header_end:
                        name_size = _size_at(name_shift + header, name_offsets, content_validity, 0)
                        position = store_varint(target, position, name_size)
                        if name_size > 0:
                            copy_bytes(
                                target,
                                position,
                                name_data,
                                name_offsets[name_shift + header],
                                name_offsets[name_shift + header + 1],
                            )
                            position += cython.cast(cython.Py_ssize_t, name_size)
                        content_size = _size_at(content_shift + header, content_offsets, content_validity, content_kind)
                        position = store_varint(target, position, content_size)
                        if content_size > 0:
                            copy_bytes(
                                target,
                                position,
                                content_data,
                                content_offsets[content_shift + header],
                                content_offsets[content_shift + header + 1],
                            )
                            position += cython.cast(cython.Py_ssize_t, content_size)
                        header += 1
                else:
                    target[position] = 0
                    position += 1
            size += row_size
            index += 1
            at += 1
    return at - first, size, base_timestamp, max_timestamp


def is_compiled() -> bool:
    """Whether this is the compiled kernel; `millstream doctor` tells."""
    return cython.compiled
