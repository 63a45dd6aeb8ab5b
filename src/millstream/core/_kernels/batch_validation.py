"""The produce path's one call per batch, and the validate-only walk of uncompressed records.

A record (KIP-98), every number a zigzag varint but for `attributes`; a size of -1 is null:

    length  attributes:int8  timestamp_delta  offset_delta  key_size key  value_size value  header_count headers
    header: key_size key  value_size value

Faults and flags are named in `millstream.core.records.validation`.
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
    )
else:
    from millstream.core._kernels.interpreted import (
        add_int64,
        crc_of,
        load_int16,
        load_int32,
        load_int64,
        load_uint32,
    )

_HEADER_SIZE = cython.declare(cython.Py_ssize_t, 61)
_LENGTH_END = cython.declare(cython.Py_ssize_t, 12)
_INT64_MAX = cython.declare(cython.longlong, 9223372036854775807)
_NO_TIMESTAMP = cython.declare(cython.longlong, -1)

# Below this many bytes the work is shorter than letting other threads run.
_NOGIL_BYTES = cython.declare(cython.Py_ssize_t, 16384)

_VALID = cython.declare(cython.int, 0)
_EMPTY = cython.declare(cython.int, 1)
_TRUNCATED = cython.declare(cython.int, 2)
_TRAILING_BYTES = cython.declare(cython.int, 3)
_BAD_LENGTH = cython.declare(cython.int, 4)
_OLD_MAGIC = cython.declare(cython.int, 5)
_BAD_MAGIC = cython.declare(cython.int, 6)
_TOO_LARGE = cython.declare(cython.int, 7)
_BAD_CRC = cython.declare(cython.int, 8)
_BAD_BASE_OFFSET = cython.declare(cython.int, 9)
_BAD_COUNT = cython.declare(cython.int, 10)
_BAD_RECORD = cython.declare(cython.int, 11)
_BAD_RECORD_OFFSET = cython.declare(cython.int, 12)
_RECORDS_LEFT = cython.declare(cython.int, 13)
_NO_KEY = cython.declare(cython.int, 14)
_BAD_TIMESTAMP = cython.declare(cython.int, 15)

_REQUIRE_KEYS = cython.declare(cython.int, 1)
_CHECK_TIMESTAMPS = cython.declare(cython.int, 2)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.longlong)
def _varint(base: cython.p_const_uchar, cursor: cython.p_longlong, end: cython.Py_ssize_t) -> int:
    """Return the zigzag varint at cursor[0] and move the cursor behind it, or beyond `end` if it doesn't end there."""
    position: cython.Py_ssize_t = cursor[0]
    raw: cython.ulonglong
    byte: cython.ulonglong
    shift: cython.int
    if position >= end:
        cursor[0] = end + 1
        return 0
    raw = base[position]
    position += 1
    if raw >= 128:
        raw &= 127
        shift = 7
        while True:
            if position >= end or shift > 63:
                cursor[0] = end + 1
                return 0
            byte = base[position]
            position += 1
            raw |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
        if not cython.compiled:
            raw &= 0xFFFFFFFFFFFFFFFF
    cursor[0] = position
    return cython.cast(cython.longlong, raw >> 1) ^ -cython.cast(cython.longlong, raw & 1)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.void)
def _skip(
    base: cython.p_const_uchar, cursor: cython.p_longlong, end: cython.Py_ssize_t, size_min: cython.longlong
) -> None:
    """Move the cursor behind a size and that many bytes, or beyond `end`; cursor[1] is the size."""
    size: cython.longlong = _varint(base, cursor, end)
    cursor[1] = size
    if size > 0:
        if size > end - cursor[0]:
            cursor[0] = end + 1
        else:
            cursor[0] += size
    elif size < size_min:
        cursor[0] = end + 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.int)
def _walk(
    base: cython.p_const_uchar,
    position: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    count: cython.longlong,
    base_timestamp: cython.longlong,
    flags: cython.int,
    timestamp_min: cython.longlong,
    timestamp_max: cython.longlong,
    found: cython.p_longlong,
    errors: cython.p_longlong,
    error_capacity: cython.Py_ssize_t,
) -> int:
    """Walk `count` records of base[position:end]; return the first fault.

    found[0] is the index of the record at fault, found[1] the greatest timestamp, found[2] how many pairs (index,
    fault) went to `errors`: records that are well-formed and yet refused, one after the other up to the capacity.
    """
    cursor: cython.longlong[2] = [position, 0]
    index: cython.longlong = 0
    record_end: cython.longlong
    length: cython.longlong
    timestamp: cython.longlong
    greatest: cython.longlong = -_INT64_MAX - 1
    headers: cython.longlong
    offset_delta: cython.longlong
    has_key: cython.bint
    fault: cython.int = _VALID
    record_fault: cython.int
    error_count: cython.Py_ssize_t = 0
    while index < count:
        length = _varint(base, cursor, end)
        if cursor[0] > end or length < 0 or length > end - cursor[0]:
            fault = _BAD_RECORD
            break
        record_end = cursor[0] + length
        cursor[0] += 1  # attributes: Kafka defines no bit of them
        timestamp = add_int64(base_timestamp, _varint(base, cursor, end))
        offset_delta = _varint(base, cursor, end)
        _skip(base, cursor, end, -1)
        has_key = cursor[1] >= 0
        _skip(base, cursor, end, -1)
        headers = _varint(base, cursor, end)
        if headers != 0:
            if headers < 0 or headers > end - cursor[0]:
                fault = _BAD_RECORD
                break
            while headers > 0 and cursor[0] <= end:
                _skip(base, cursor, end, 0)
                _skip(base, cursor, end, -1)
                headers -= 1
        if cursor[0] != record_end:
            fault = _BAD_RECORD
            break
        if offset_delta != index:
            fault = _BAD_RECORD_OFFSET
            break
        if timestamp > greatest:
            greatest = timestamp
        if flags != 0:
            record_fault = _VALID
            if (flags & _REQUIRE_KEYS) and not has_key:
                record_fault = _NO_KEY
            elif (
                (flags & _CHECK_TIMESTAMPS)
                and (timestamp < timestamp_min or timestamp > timestamp_max)
                and timestamp != _NO_TIMESTAMP
            ):
                record_fault = _BAD_TIMESTAMP
            if record_fault != _VALID:
                if error_count < error_capacity:
                    errors[2 * error_count] = index
                    errors[2 * error_count + 1] = record_fault
                    error_count += 1
                if fault == _VALID:
                    fault = record_fault
                    if error_capacity == 0:
                        break
        index += 1
    if index == count and fault == _VALID and cursor[0] != end:
        fault = _RECORDS_LEFT
    found[0] = index
    found[1] = greatest
    found[2] = error_count
    return fault


def walk_records(
    data: cython.const[cython.uchar][::1],
    count: cython.longlong,
    base_timestamp: cython.longlong,
    flags: cython.int,
    timestamp_min: cython.longlong,
    timestamp_max: cython.longlong,
    errors: cython.longlong[::1],
) -> tuple[int, int, int, int]:
    """Walk `data`, the uncompressed records of one batch; return (fault, record index, greatest timestamp, errors).

    The fault is the first one. Records that are well-formed and yet refused (no key, timestamp out of bounds) go to
    `errors` as pairs (index, fault) while there is room, and the walk goes on.
    """
    size: cython.Py_ssize_t = len(data)
    capacity: cython.Py_ssize_t = len(errors) // 2
    fault: cython.int
    if count <= 0:
        return _BAD_COUNT, 0, _NO_TIMESTAMP, 0
    if size == 0:
        return _BAD_RECORD, 0, _NO_TIMESTAMP, 0
    found: cython.longlong[3] = [0, 0, 0]
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    out: cython.p_longlong = cython.NULL
    if capacity:
        out = cython.address(errors[0]) if cython.compiled else errors
    with cython.nogil:
        fault = _walk(base, 0, size, count, base_timestamp, flags, timestamp_min, timestamp_max, found, out, capacity)
    return fault, found[0], found[1], found[2]


def inspect_batch(
    data: cython.const[cython.uchar][::1],
    size_bytes_max: cython.longlong,
    flags: cython.int,
    timestamp_min: cython.longlong,
    timestamp_max: cython.longlong,
) -> tuple[int, ...] | int:
    """Check one produced batch whole: header, CRC, and its records unless they are compressed.

    Returns the 13 fields of a BatchHeader in their order, max_timestamp being what the records say where they could be
    read; or the fault, as a number.
    """
    size: cython.Py_ssize_t = len(data)
    if size < _LENGTH_END:
        return _EMPTY
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    length: cython.longlong = load_int32(base, 8)
    fault: cython.int = _VALID
    if size > 16:
        if base[16] < 2:
            return _OLD_MAGIC
        if base[16] != 2:
            return _BAD_MAGIC
    if length < _HEADER_SIZE - _LENGTH_END:
        return _BAD_LENGTH
    if length + _LENGTH_END > size:
        return _TRUNCATED
    if length + _LENGTH_END < size:
        return _TRAILING_BYTES
    if size > size_bytes_max:
        return _TOO_LARGE
    base_offset: cython.longlong = load_int64(base, 0)
    crc: cython.longlong = load_uint32(base, 17)
    attributes: cython.longlong = load_int16(base, 21)
    last_offset_delta: cython.longlong = load_int32(base, 23)
    base_timestamp: cython.longlong = load_int64(base, 27)
    max_timestamp: cython.longlong = load_int64(base, 35)
    count: cython.longlong = load_int32(base, 57)
    found: cython.longlong[3] = [0, 0, 0]
    walked: cython.bint = not (attributes & 7)
    if size < _NOGIL_BYTES:
        if crc != crc_of(base, 21, size, 0):
            return _BAD_CRC
        if base_offset != 0:
            return _BAD_BASE_OFFSET
        if count <= 0 or last_offset_delta != count - 1:
            return _BAD_COUNT
        if walked:
            fault = _walk(
                base, 61, size, count, base_timestamp, flags, timestamp_min, timestamp_max, found, cython.NULL, 0
            )
    else:
        with cython.nogil:
            if crc != crc_of(base, 21, size, 0):
                fault = _BAD_CRC
            elif base_offset != 0:
                fault = _BAD_BASE_OFFSET
            elif count <= 0 or last_offset_delta != count - 1:
                fault = _BAD_COUNT
            elif walked:
                fault = _walk(
                    base, 61, size, count, base_timestamp, flags, timestamp_min, timestamp_max, found, cython.NULL, 0
                )
    if fault != _VALID:
        return fault
    if walked:
        max_timestamp = found[1]
    return (
        base_offset,
        length,
        load_int32(base, 12),
        2,
        crc,
        attributes,
        last_offset_delta,
        base_timestamp,
        max_timestamp,
        load_int64(base, 43),
        load_int16(base, 51),
        load_int32(base, 53),
        count,
    )


def is_compiled() -> bool:
    """Whether this is the compiled kernel; `millstream doctor` tells."""
    return cython.compiled
