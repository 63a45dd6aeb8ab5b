"""Located records into Arrow's layout: keys, values and headers gathered by one copy, or as views of where they lie.

What `record_columns` located goes, a few thousand rows a call, into buffers that become Arrow arrays: int32 offsets and
the bytes behind each other, 16-byte views, bitmaps of validity (least significant bit first; the caller sets every bit,
nulls are cleared). A call never writes beyond its buffers: where they end it says how many rows it did.

    place_records    topic, partition, offset, timestamp, timestamp type and leader epoch
    gather_bytes     `binary`: offsets and one copy of the bytes
    view_bytes       `binary_view`: short ones inside the view, longer ones by buffer and offset
    gather_headers   `list<struct<key, value>>`, for rows that have headers
    locate_header    where the value of one header lies, for who wants no other

A view's offset is an int32; so a buffer is named once for each GiB of it (`VIEW_SPAN`), by what begins there.
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if cython.compiled:
    from cython.cimports.millstream.core._kernels.native import (
        copy_bytes,
        load_int16,
        load_int32,
        skip_sized,
        store_native_int32,
    )
else:
    from millstream.core._kernels.interpreted import (
        copy_bytes,
        load_int16,
        load_int32,
        skip_sized,
        store_native_int32,
    )

_HEADER_SIZE = cython.declare(cython.Py_ssize_t, 61)
_LOG_APPEND_TIME_BIT = cython.declare(cython.longlong, 0x08)
_VIEW_SIZE = cython.declare(cython.Py_ssize_t, 16)
# Bytes that lie inside their view.
_INLINE_MAX = cython.declare(cython.longlong, 12)
_SPAN_BITS = cython.declare(cython.int, 30)

VIEW_SPAN = 1 << 30


def place_records(
    data: cython.const[cython.uchar][::1],
    start: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    offsets: cython.longlong[::1],
    timestamps: cython.longlong[::1],
    header_counts: cython.longlong[::1],
    batch_positions: cython.longlong[::1],
    row: cython.Py_ssize_t,
    topic: cython.int,
    partition: cython.int,
    topics_out: cython.int[::1],
    partitions_out: cython.int[::1],
    offsets_out: cython.longlong[::1],
    timestamps_out: cython.longlong[::1],
    types_out: cython.uchar[::1],
    epochs_out: cython.int[::1],
) -> int:
    """Write rows start to end of located columns from `row` on; return how many headers they have together.

    `topic` is an index of the dictionary of topics. Timestamp type and leader epoch come from the batch's header in
    `data`. Raises ValueError where a column ends too early.
    """
    size: cython.Py_ssize_t = len(data)
    capacity: cython.Py_ssize_t = min(
        len(topics_out),
        len(partitions_out),
        len(offsets_out),
        len(timestamps_out),
        len(types_out),
        len(epochs_out),
    )
    rows: cython.Py_ssize_t = min(len(offsets), len(timestamps), len(header_counts), len(batch_positions))
    if not 0 <= start <= end <= rows:
        raise ValueError(f"[{start}, {end}) does not lie within columns of {rows}")
    if not 0 <= row <= capacity - (end - start):
        raise ValueError(f"{end - start} rows from {row} on do not fit into {capacity}")
    if start == end:
        return 0
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    headers: cython.longlong = 0
    # No batch's, so that the first row's is looked at.
    batch_position: cython.longlong = ~batch_positions[start]
    bad_position: cython.bint = False
    epoch: cython.int = -1
    timestamp_type: cython.uchar = 0
    at: cython.Py_ssize_t
    with cython.nogil:
        for at in range(start, end):
            if batch_positions[at] != batch_position:
                batch_position = batch_positions[at]
                if batch_position < 0 or batch_position > size - _HEADER_SIZE:
                    bad_position = True
                    break
                epoch = cython.cast(cython.int, load_int32(base, cython.cast(cython.Py_ssize_t, batch_position) + 12))
                timestamp_type = (
                    1
                    if load_int16(base, cython.cast(cython.Py_ssize_t, batch_position) + 21) & _LOG_APPEND_TIME_BIT
                    else 0
                )
            topics_out[row] = topic
            partitions_out[row] = partition
            offsets_out[row] = offsets[at]
            timestamps_out[row] = timestamps[at]
            types_out[row] = timestamp_type
            epochs_out[row] = epoch
            headers += header_counts[at]
            row += 1
    if bad_position:
        raise ValueError(f"no batch header lies at {batch_position} of {size} bytes")
    return headers


def gather_bytes(
    data: cython.const[cython.uchar][::1],
    start: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    positions: cython.longlong[::1],
    sizes: cython.longlong[::1],
    row: cython.Py_ssize_t,
    offsets_out: cython.int[::1],
    validity_out: cython.uchar[::1],
    bytes_out: cython.uchar[::1],
) -> tuple[int, int]:
    """Copy what lies at `positions`, rows start to end, behind what was gathered; return (rows done, nulls).

    offsets_out[row] says where to go on in `bytes_out`. Fewer rows are done where the next one would not fit.
    """
    size: cython.Py_ssize_t = len(data)
    room: cython.longlong = len(bytes_out)
    capacity: cython.Py_ssize_t = min(len(offsets_out) - 1, 8 * len(validity_out))
    rows: cython.Py_ssize_t = min(len(positions), len(sizes))
    if not 0 <= start <= end <= rows:
        raise ValueError(f"[{start}, {end}) does not lie within columns of {rows}")
    if not 0 <= row <= capacity - (end - start):
        raise ValueError(f"{end - start} rows from {row} on do not fit into {capacity}")
    if start == end:
        return 0, 0
    base: cython.p_const_uchar = b""
    target: cython.p_uchar = b""
    if size > 0:
        base = cython.address(data[0]) if cython.compiled else data
    if room > 0:
        target = cython.address(bytes_out[0]) if cython.compiled else bytes_out
    at: cython.Py_ssize_t
    length: cython.longlong
    position: cython.longlong
    done: cython.longlong = offsets_out[row]
    nulls: cython.Py_ssize_t = 0
    bad: cython.bint = done < 0
    with cython.nogil:
        at = start
        while at < end and not bad:
            length = sizes[at]
            if length < 0:
                validity_out[row >> 3] &= ~(1 << (row & 7)) & 0xFF
                nulls += 1
            elif length > 0:
                position = positions[at]
                if position < 0 or length > size - position:
                    bad = True
                    break
                if length > room - done:
                    break
                copy_bytes(
                    target,
                    cython.cast(cython.Py_ssize_t, done),
                    base,
                    cython.cast(cython.Py_ssize_t, position),
                    cython.cast(cython.Py_ssize_t, position + length),
                )
                done += length
            row += 1
            offsets_out[row] = cython.cast(cython.int, done)
            at += 1
    if bad:
        raise ValueError(f"row {at} does not lie within {size} bytes, or was gathered to {done}")
    return at - start, nulls


def view_bytes(
    data: cython.const[cython.uchar][::1],
    start: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    positions: cython.longlong[::1],
    sizes: cython.longlong[::1],
    row: cython.Py_ssize_t,
    first_buffer: cython.int,
    views_out: cython.uchar[::1],
    validity_out: cython.uchar[::1],
) -> int:
    """Write a view for each of the rows start to end, from `row` on; return how many are null.

    `first_buffer` is the number of what begins with data[0]; what begins with data[VIEW_SPAN] has the next, and so on.
    """
    size: cython.Py_ssize_t = len(data)
    capacity: cython.Py_ssize_t = min(len(views_out) // _VIEW_SIZE, 8 * len(validity_out))
    rows: cython.Py_ssize_t = min(len(positions), len(sizes))
    if not 0 <= start <= end <= rows:
        raise ValueError(f"[{start}, {end}) does not lie within columns of {rows}")
    if not 0 <= row <= capacity - (end - start):
        raise ValueError(f"{end - start} rows from {row} on do not fit into {capacity}")
    if start == end:
        return 0
    base: cython.p_const_uchar = b""
    if size > 0:
        base = cython.address(data[0]) if cython.compiled else data
    target: cython.p_uchar = cython.address(views_out[0]) if cython.compiled else views_out
    at: cython.Py_ssize_t
    out: cython.Py_ssize_t
    index: cython.Py_ssize_t
    length: cython.longlong
    position: cython.longlong
    nulls: cython.Py_ssize_t = 0
    bad: cython.bint = False
    with cython.nogil:
        for at in range(start, end):
            length = sizes[at]
            position = positions[at]
            out = row * _VIEW_SIZE
            if length <= 0:
                # All of a view counts when two are compared.
                for index in range(out, out + _VIEW_SIZE):
                    target[index] = 0
                if length < 0:
                    validity_out[row >> 3] &= ~(1 << (row & 7)) & 0xFF
                    nulls += 1
            elif position < 0 or length > size - position or length > 2147483647:
                bad = True
                break
            else:
                store_native_int32(target, out, length)
                if length <= _INLINE_MAX:
                    for index in range(out + 4, out + _VIEW_SIZE):
                        target[index] = 0
                    copy_bytes(
                        target,
                        out + 4,
                        base,
                        cython.cast(cython.Py_ssize_t, position),
                        cython.cast(cython.Py_ssize_t, position + length),
                    )
                else:
                    copy_bytes(
                        target,
                        out + 4,
                        base,
                        cython.cast(cython.Py_ssize_t, position),
                        cython.cast(cython.Py_ssize_t, position + 4),
                    )
                    store_native_int32(target, out + 8, first_buffer + (position >> _SPAN_BITS))
                    store_native_int32(target, out + 12, position & ((1 << _SPAN_BITS) - 1))
            row += 1
    if bad:
        raise ValueError(f"row {at} does not lie within {size} bytes")
    return nulls


def gather_headers(
    data: cython.const[cython.uchar][::1],
    start: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    positions: cython.longlong[::1],
    counts: cython.longlong[::1],
    row: cython.Py_ssize_t,
    lists_out: cython.int[::1],
    name_offsets_out: cython.int[::1],
    names_out: cython.uchar[::1],
    value_offsets_out: cython.int[::1],
    value_validity_out: cython.uchar[::1],
    values_out: cython.uchar[::1],
) -> tuple[int, int]:
    """Copy the headers of rows start to end behind those that were gathered; return (rows done, null values).

    lists_out[row] is how many headers there are so far, and where to go on in the others. Fewer rows are done where the
    next one's headers would not fit.
    """
    size: cython.Py_ssize_t = len(data)
    names_room: cython.longlong = len(names_out)
    values_room: cython.longlong = len(values_out)
    room: cython.longlong = min(len(name_offsets_out) - 1, len(value_offsets_out) - 1, 8 * len(value_validity_out))
    capacity: cython.Py_ssize_t = len(lists_out) - 1
    rows: cython.Py_ssize_t = min(len(positions), len(counts))
    if not 0 <= start <= end <= rows:
        raise ValueError(f"[{start}, {end}) does not lie within columns of {rows}")
    if not 0 <= row <= capacity - (end - start):
        raise ValueError(f"{end - start} rows from {row} on do not fit into {capacity}")
    if start == end:
        return 0, 0
    if not 0 <= lists_out[row] <= room:
        raise ValueError(f"{lists_out[row]} headers of at most {room}")
    base: cython.p_const_uchar = b""
    names: cython.p_uchar = b""
    values: cython.p_uchar = b""
    if size > 0:
        base = cython.address(data[0]) if cython.compiled else data
    if names_room > 0:
        names = cython.address(names_out[0]) if cython.compiled else names_out
    if values_room > 0:
        values = cython.address(values_out[0]) if cython.compiled else values_out
    cursor: cython.longlong[1] = [0]
    at: cython.Py_ssize_t
    left: cython.longlong
    name_size: cython.longlong
    value_size: cython.longlong
    done: cython.Py_ssize_t = lists_out[row]
    names_done: cython.longlong = name_offsets_out[done]
    values_done: cython.longlong = value_offsets_out[done]
    nulls: cython.Py_ssize_t = 0
    row_nulls: cython.Py_ssize_t
    full: cython.bint = False
    bad: cython.bint = names_done < 0 or values_done < 0
    with cython.nogil:
        at = start
        while at < end and not bad:
            left = counts[at]
            cursor[0] = positions[at]
            row_nulls = 0
            if left > room - done:
                break
            if left > 0 and (cursor[0] < 0 or cursor[0] > size):
                bad = True
            while left > 0 and not bad and not full:
                name_size = skip_sized(base, cursor, size, 0)
                if cursor[0] > size or name_size > names_room - names_done:
                    bad = cursor[0] > size
                    full = not bad
                    break
                copy_bytes(
                    names,
                    cython.cast(cython.Py_ssize_t, names_done),
                    base,
                    cython.cast(cython.Py_ssize_t, cursor[0] - name_size),
                    cython.cast(cython.Py_ssize_t, cursor[0]),
                )
                names_done += name_size
                value_size = skip_sized(base, cursor, size, -1)
                if cursor[0] > size or value_size > values_room - values_done:
                    bad = cursor[0] > size
                    full = not bad
                    break
                if value_size < 0:
                    value_validity_out[done >> 3] &= ~(1 << (done & 7)) & 0xFF
                    row_nulls += 1
                else:
                    value_validity_out[done >> 3] |= 1 << (done & 7)
                    if value_size > 0:
                        copy_bytes(
                            values,
                            cython.cast(cython.Py_ssize_t, values_done),
                            base,
                            cython.cast(cython.Py_ssize_t, cursor[0] - value_size),
                            cython.cast(cython.Py_ssize_t, cursor[0]),
                        )
                        values_done += value_size
                done += 1
                name_offsets_out[done] = cython.cast(cython.int, names_done)
                value_offsets_out[done] = cython.cast(cython.int, values_done)
                left -= 1
            if bad or full:
                break
            nulls += row_nulls
            row += 1
            lists_out[row] = cython.cast(cython.int, done)
            at += 1
    if bad:
        raise ValueError(f"the headers of row {at} do not lie within {size} bytes")
    return at - start, nulls


def locate_header(
    data: cython.const[cython.uchar][::1],
    start: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    positions: cython.longlong[::1],
    counts: cython.longlong[::1],
    name: cython.const[cython.uchar][::1],
    positions_out: cython.longlong[::1],
    sizes_out: cython.longlong[::1],
) -> int:
    """Write where the value of the last header called `name` lies in each of the rows start to end, from 0 on.

    Its size is -1 where a row has none, or none with a value. Returns how many rows have one.
    """
    size: cython.Py_ssize_t = len(data)
    name_length: cython.Py_ssize_t = len(name)
    capacity: cython.Py_ssize_t = min(len(positions_out), len(sizes_out))
    rows: cython.Py_ssize_t = min(len(positions), len(counts))
    if not 0 <= start <= end <= rows:
        raise ValueError(f"[{start}, {end}) does not lie within columns of {rows}")
    if end - start > capacity:
        raise ValueError(f"{end - start} rows do not fit into {capacity}")
    base: cython.p_const_uchar = b""
    if size > 0:
        base = cython.address(data[0]) if cython.compiled else data
    cursor: cython.longlong[1] = [0]
    at: cython.Py_ssize_t
    index: cython.Py_ssize_t
    first: cython.Py_ssize_t
    left: cython.longlong
    name_size: cython.longlong
    value_size: cython.longlong
    is_named: cython.bint
    found: cython.Py_ssize_t = 0
    bad: cython.bint = False
    with cython.nogil:
        for at in range(start, end):
            positions_out[at - start] = 0
            sizes_out[at - start] = -1
            left = counts[at]
            cursor[0] = positions[at]
            if left > 0 and (cursor[0] < 0 or cursor[0] > size):
                bad = True
                break
            while left > 0:
                name_size = skip_sized(base, cursor, size, 0)
                if cursor[0] > size:
                    bad = True
                    break
                is_named = name_size == name_length
                if is_named:
                    first = cython.cast(cython.Py_ssize_t, cursor[0]) - name_length
                    for index in range(name_length):
                        if base[first + index] != name[index]:
                            is_named = False
                            break
                value_size = skip_sized(base, cursor, size, -1)
                if cursor[0] > size:
                    bad = True
                    break
                if is_named and value_size >= 0:
                    positions_out[at - start] = cursor[0] - value_size
                    sizes_out[at - start] = value_size
                left -= 1
            if bad:
                break
            if sizes_out[at - start] >= 0:
                found += 1
    if bad:
        raise ValueError(f"the headers of row {at} do not lie within {size} bytes")
    return found


def is_compiled() -> bool:
    """Whether this is the compiled kernel; `millstream doctor` tells."""
    return cython.compiled
