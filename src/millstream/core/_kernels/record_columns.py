"""Where the records of many batches lie: offsets, timestamps, and the places of keys, values and headers, in columns.

One compiled loop over fetched bytes, CRCs included; the record's layout is in `batch_validation`. Columns are int64
arrays of the caller's, filled from index `first` on:

    offsets, timestamps                absolute
    key_positions, key_sizes           where the key lies in `data`; size -1 for null
    value_positions, value_sizes       the same for the value
    header_positions, header_counts    where the first header lies, and how many there are
    batch_positions                    where the record's batch starts in `data`, or as the caller says for a payload
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if cython.compiled:
    from cython.cimports.millstream.core._kernels.native import (
        add_int64,
        crc_of,
        load_int16,
        load_int32,
        load_int64,
        load_uint32,
        read_plain_record,
        read_varint,
        skip_sized,
    )
else:
    from millstream.core._kernels.interpreted import (
        add_int64,
        crc_of,
        load_int16,
        load_int32,
        load_int64,
        load_uint32,
        read_plain_record,
        read_varint,
        skip_sized,
    )

_HEADER_SIZE = cython.declare(cython.Py_ssize_t, 61)
_LENGTH_END = cython.declare(cython.Py_ssize_t, 12)
_MAGIC_AT = cython.declare(cython.Py_ssize_t, 16)
_CODEC_MASK = cython.declare(cython.longlong, 0x07)
_LOG_APPEND_TIME_BIT = cython.declare(cython.longlong, 0x08)
_CONTROL_BIT = cython.declare(cython.longlong, 0x20)

_END = cython.declare(cython.int, 0)
_ROWS_FULL = cython.declare(cython.int, 1)
_TRUNCATED = cython.declare(cython.int, 2)
_BAD_LENGTH = cython.declare(cython.int, 3)
_BAD_MAGIC = cython.declare(cython.int, 4)
_BAD_CRC = cython.declare(cython.int, 5)
_COMPRESSED = cython.declare(cython.int, 7)
_BAD_RECORD = cython.declare(cython.int, 8)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.int)
def _locate(
    base: cython.p_const_uchar,
    position: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    count: cython.longlong,
    base_offset: cython.longlong,
    base_timestamp: cython.longlong,
    fixed_timestamp: cython.bint,
    batch_position: cython.longlong,
    at: cython.Py_ssize_t,
    offsets: cython.p_longlong,
    timestamps: cython.p_longlong,
    key_positions: cython.p_longlong,
    key_sizes: cython.p_longlong,
    value_positions: cython.p_longlong,
    value_sizes: cython.p_longlong,
    header_positions: cython.p_longlong,
    header_counts: cython.p_longlong,
    batch_positions: cython.p_longlong,
) -> int:
    """Fill the columns from `at` on with the `count` records of base[position:end]; return _END or _BAD_RECORD.

    With fixed_timestamp every record has base_timestamp: the batch is LogAppendTime.
    """
    cursor: cython.longlong[1] = [position]
    fields: cython.longlong[5] = [0, 0, 0, 0, 0]
    index: cython.longlong = 0
    length: cython.longlong
    record_end: cython.longlong
    offset_delta: cython.longlong
    headers: cython.longlong
    headers_left: cython.longlong
    header_position: cython.longlong
    while index < count:
        if read_plain_record(base, cursor, end, index, fields):
            offset_delta = index
            headers = 0
            header_position = cursor[0]
        else:
            length = read_varint(base, cursor, end)
            if cursor[0] > end or length < 0 or length > end - cursor[0]:
                return _BAD_RECORD
            record_end = cursor[0] + length
            cursor[0] += 1  # attributes: Kafka defines no bit of them
            fields[0] = read_varint(base, cursor, record_end)
            offset_delta = read_varint(base, cursor, record_end)
            fields[1] = skip_sized(base, cursor, record_end, -1)
            fields[2] = cursor[0]
            fields[3] = skip_sized(base, cursor, record_end, -1)
            fields[4] = cursor[0]
            headers = read_varint(base, cursor, record_end)
            header_position = cursor[0]
            headers_left = headers
            while headers_left > 0 and cursor[0] < record_end:
                skip_sized(base, cursor, record_end, 0)
                skip_sized(base, cursor, record_end, -1)
                headers_left -= 1
            if cursor[0] != record_end or headers_left != 0 or offset_delta < 0:
                return _BAD_RECORD
        offsets[at] = add_int64(base_offset, offset_delta)
        timestamps[at] = base_timestamp if fixed_timestamp else add_int64(base_timestamp, fields[0])
        key_sizes[at] = fields[1]
        key_positions[at] = fields[2] - fields[1] if fields[1] > 0 else fields[2]
        value_sizes[at] = fields[3]
        value_positions[at] = fields[4] - fields[3] if fields[3] > 0 else fields[4]
        header_positions[at] = header_position
        header_counts[at] = headers
        batch_positions[at] = batch_position
        at += 1
        index += 1
    return _END if cursor[0] == end else _BAD_RECORD


def locate_records(
    data: cython.const[cython.uchar][::1],
    position: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    first: cython.Py_ssize_t,
    check_crc: cython.bint,
    offsets: cython.longlong[::1],
    timestamps: cython.longlong[::1],
    key_positions: cython.longlong[::1],
    key_sizes: cython.longlong[::1],
    value_positions: cython.longlong[::1],
    value_sizes: cython.longlong[::1],
    header_positions: cython.longlong[::1],
    header_counts: cython.longlong[::1],
    batch_positions: cython.longlong[::1],
) -> tuple[int, int, int]:
    """Fill the columns with the records of data[position:end], whole batches; return (filled, position, reason).

    `filled` is the index behind the last record. Control batches are passed over: they hold no records for anyone. It
    stops in front of a batch that doesn't fit any more (ROWS_FULL), is compressed, or is damaged.
    """
    size: cython.Py_ssize_t = len(data)
    capacity: cython.Py_ssize_t = min(
        len(offsets),
        len(timestamps),
        len(key_positions),
        len(key_sizes),
        len(value_positions),
        len(value_sizes),
        len(header_positions),
        len(header_counts),
        len(batch_positions),
    )
    reason: cython.int = _END
    length: cython.longlong
    count: cython.longlong
    attributes: cython.longlong
    base_timestamp: cython.longlong
    fixed: cython.bint
    if not 0 <= position <= end <= size:
        raise ValueError(f"[{position}, {end}) does not lie within {size} bytes")
    if not 0 <= first <= capacity:
        raise ValueError(f"{first} does not lie within columns of {capacity}")
    if position == end:
        return first, position, _END
    if capacity == 0:
        return first, position, _ROWS_FULL
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    offsets_out: cython.p_longlong = cython.address(offsets[0]) if cython.compiled else offsets
    timestamps_out: cython.p_longlong = cython.address(timestamps[0]) if cython.compiled else timestamps
    key_positions_out: cython.p_longlong = cython.address(key_positions[0]) if cython.compiled else key_positions
    key_sizes_out: cython.p_longlong = cython.address(key_sizes[0]) if cython.compiled else key_sizes
    value_positions_out: cython.p_longlong = cython.address(value_positions[0]) if cython.compiled else value_positions
    value_sizes_out: cython.p_longlong = cython.address(value_sizes[0]) if cython.compiled else value_sizes
    header_positions_out: cython.p_longlong = (
        cython.address(header_positions[0]) if cython.compiled else header_positions
    )
    header_counts_out: cython.p_longlong = cython.address(header_counts[0]) if cython.compiled else header_counts
    batch_positions_out: cython.p_longlong = cython.address(batch_positions[0]) if cython.compiled else batch_positions
    with cython.nogil:
        while position < end:
            if end - position < _HEADER_SIZE:
                reason = _TRUNCATED
                break
            length = load_int32(base, position + 8)
            if length < _HEADER_SIZE - _LENGTH_END:
                reason = _BAD_LENGTH
                break
            if base[position + _MAGIC_AT] != 2:
                reason = _BAD_MAGIC
                break
            if length > end - position - _LENGTH_END:
                reason = _TRUNCATED
                break
            length += _LENGTH_END
            attributes = load_int16(base, position + 21)
            count = load_int32(base, position + 57)
            if not attributes & _CONTROL_BIT:
                if attributes & _CODEC_MASK:
                    reason = _COMPRESSED
                    break
                if count < 0:
                    reason = _BAD_RECORD
                    break
                if count > capacity - first:
                    # A record takes 7 bytes at least: a count that its batch can't hold is a lie, not a lack of room.
                    reason = _ROWS_FULL if count <= length // 7 else _BAD_RECORD
                    break
            if check_crc and load_uint32(base, position + 17) != crc_of(
                base, position + 21, position + cython.cast(cython.Py_ssize_t, length), 0
            ):
                reason = _BAD_CRC
                break
            if not attributes & _CONTROL_BIT:
                fixed = (attributes & _LOG_APPEND_TIME_BIT) != 0
                base_timestamp = load_int64(base, position + 35) if fixed else load_int64(base, position + 27)
                reason = _locate(
                    base,
                    position + _HEADER_SIZE,
                    position + cython.cast(cython.Py_ssize_t, length),
                    count,
                    load_int64(base, position),
                    base_timestamp,
                    fixed,
                    position,
                    first,
                    offsets_out,
                    timestamps_out,
                    key_positions_out,
                    key_sizes_out,
                    value_positions_out,
                    value_sizes_out,
                    header_positions_out,
                    header_counts_out,
                    batch_positions_out,
                )
                if reason != _END:
                    break
                first += cython.cast(cython.Py_ssize_t, count)
            position += cython.cast(cython.Py_ssize_t, length)
    return first, position, reason


def locate_payload(
    payload: cython.const[cython.uchar][::1],
    count: cython.longlong,
    base_offset: cython.longlong,
    base_timestamp: cython.longlong,
    fixed_timestamp: cython.bint,
    batch_position: cython.longlong,
    first: cython.Py_ssize_t,
    offsets: cython.longlong[::1],
    timestamps: cython.longlong[::1],
    key_positions: cython.longlong[::1],
    key_sizes: cython.longlong[::1],
    value_positions: cython.longlong[::1],
    value_sizes: cython.longlong[::1],
    header_positions: cython.longlong[::1],
    header_counts: cython.longlong[::1],
    batch_positions: cython.longlong[::1],
) -> int:
    """Fill the columns with the `count` records of one decompressed batch; positions are within `payload`.

    Returns END, ROWS_FULL (nothing of use is written) or BAD_RECORD. With fixed_timestamp (LogAppendTime) every record
    has base_timestamp.
    """
    size: cython.Py_ssize_t = len(payload)
    capacity: cython.Py_ssize_t = min(
        len(offsets),
        len(timestamps),
        len(key_positions),
        len(key_sizes),
        len(value_positions),
        len(value_sizes),
        len(header_positions),
        len(header_counts),
        len(batch_positions),
    )
    reason: cython.int
    if not 0 <= first <= capacity:
        raise ValueError(f"{first} does not lie within columns of {capacity}")
    if count < 0 or count > size // 7:
        return _BAD_RECORD
    if count > capacity - first:
        return _ROWS_FULL
    if count == 0:
        return _END if size == 0 else _BAD_RECORD
    base: cython.p_const_uchar = cython.address(payload[0]) if cython.compiled else payload
    offsets_out: cython.p_longlong = cython.address(offsets[0]) if cython.compiled else offsets
    timestamps_out: cython.p_longlong = cython.address(timestamps[0]) if cython.compiled else timestamps
    key_positions_out: cython.p_longlong = cython.address(key_positions[0]) if cython.compiled else key_positions
    key_sizes_out: cython.p_longlong = cython.address(key_sizes[0]) if cython.compiled else key_sizes
    value_positions_out: cython.p_longlong = cython.address(value_positions[0]) if cython.compiled else value_positions
    value_sizes_out: cython.p_longlong = cython.address(value_sizes[0]) if cython.compiled else value_sizes
    header_positions_out: cython.p_longlong = (
        cython.address(header_positions[0]) if cython.compiled else header_positions
    )
    header_counts_out: cython.p_longlong = cython.address(header_counts[0]) if cython.compiled else header_counts
    batch_positions_out: cython.p_longlong = cython.address(batch_positions[0]) if cython.compiled else batch_positions
    with cython.nogil:
        reason = _locate(
            base,
            0,
            size,
            count,
            base_offset,
            base_timestamp,
            fixed_timestamp,
            batch_position,
            first,
            offsets_out,
            timestamps_out,
            key_positions_out,
            key_sizes_out,
            value_positions_out,
            value_sizes_out,
            header_positions_out,
            header_counts_out,
            batch_positions_out,
        )
    return reason


def is_compiled() -> bool:
    """Whether this is the compiled kernel; `millstream doctor` tells."""
    return cython.compiled
