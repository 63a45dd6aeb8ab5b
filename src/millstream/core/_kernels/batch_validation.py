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
_BAD_ATTRIBUTES = cython.declare(cython.int, 16)
_BAD_PRODUCER = cython.declare(cython.int, 17)
_BAD_MAX_TIMESTAMP = cython.declare(cython.int, 18)

_REQUIRE_KEYS = cython.declare(cython.int, 1)
_CHECK_TIMESTAMPS = cython.declare(cython.int, 2)

# LogAppendTime, control, delete horizon: a producer sets none of them. Codec 4 is the last.
_REFUSED_BITS = cython.declare(cython.longlong, 0x68)
_CODEC_MASK = cython.declare(cython.longlong, 0x07)
_CODEC_MAX = cython.declare(cython.longlong, 4)


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
    cursor: cython.longlong[1] = [position]
    fields: cython.longlong[5] = [0, 0, 0, 0, 0]
    index: cython.longlong = 0
    length: cython.longlong
    record_end: cython.longlong
    offset_delta: cython.longlong
    headers: cython.longlong
    timestamp: cython.longlong
    greatest: cython.longlong = -_INT64_MAX - 1
    fault: cython.int = _VALID
    record_fault: cython.int
    error_count: cython.Py_ssize_t = 0
    while index < count:
        if not read_plain_record(base, cursor, end, index, fields):
            length = read_varint(base, cursor, end)
            if cursor[0] > end or length < 0 or length > end - cursor[0]:
                fault = _BAD_RECORD
                break
            record_end = cursor[0] + length
            cursor[0] += 1  # attributes: Kafka defines no bit of them
            fields[0] = read_varint(base, cursor, record_end)
            offset_delta = read_varint(base, cursor, record_end)
            fields[1] = skip_sized(base, cursor, record_end, -1)
            skip_sized(base, cursor, record_end, -1)
            headers = read_varint(base, cursor, record_end)
            while headers > 0 and cursor[0] < record_end:
                skip_sized(base, cursor, record_end, 0)
                skip_sized(base, cursor, record_end, -1)
                headers -= 1
            if cursor[0] != record_end or headers != 0:
                fault = _BAD_RECORD
                break
            if offset_delta != index:
                fault = _BAD_RECORD_OFFSET
                break
        timestamp = add_int64(base_timestamp, fields[0])
        if timestamp > greatest:
            greatest = timestamp
        if flags != 0:
            record_fault = _VALID
            if (flags & _REQUIRE_KEYS) and fields[1] < 0:
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


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.longlong)
def _latest(now_ms: cython.longlong, after_max_ms: cython.longlong) -> int:
    return now_ms + after_max_ms if after_max_ms < _INT64_MAX - now_ms else _INT64_MAX


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.int)
def _inspect(
    base: cython.p_const_uchar,
    size: cython.Py_ssize_t,
    flags: cython.int,
    timestamp_min: cython.longlong,
    timestamp_max: cython.longlong,
    found: cython.p_longlong,
) -> int:
    """Check a batch whose length is its size; return the fault. found[1] becomes its greatest timestamp."""
    count: cython.longlong = load_int32(base, 57)
    attributes: cython.longlong = load_int16(base, 21)
    if load_uint32(base, 17) != crc_of(base, 21, size, 0):
        return _BAD_CRC
    if load_int64(base, 0) != 0:
        return _BAD_BASE_OFFSET
    if count <= 0 or load_int32(base, 23) != count - 1:
        return _BAD_COUNT
    if attributes & _REFUSED_BITS or (attributes & _CODEC_MASK) > _CODEC_MAX:
        return _BAD_ATTRIBUTES
    if load_int64(base, 43) >= 0 and (load_int16(base, 51) < 0 or load_int32(base, 53) < 0):
        return _BAD_PRODUCER
    if attributes & _CODEC_MASK:
        found[1] = load_int64(base, 35)
        return _BAD_MAX_TIMESTAMP if (flags & _CHECK_TIMESTAMPS) and found[1] > timestamp_max else _VALID
    return _walk(
        base,
        _HEADER_SIZE,
        size,
        count,
        load_int64(base, 27),
        flags,
        timestamp_min,
        timestamp_max,
        found,
        cython.NULL,
        0,
    )


def inspect_batch(
    data: cython.const[cython.uchar][::1],
    size_bytes_max: cython.longlong,
    flags: cython.int,
    now_ms: cython.longlong,
    before_max_ms: cython.longlong,
    after_max_ms: cython.longlong,
) -> tuple[int, ...] | int:
    """Check one produced batch whole: header, CRC, and its records unless they are compressed.

    Returns the 13 fields of a BatchHeader in their order, max_timestamp being what the records say where they could be
    read; or the fault, as a number. The three times are not negative.
    """
    size: cython.Py_ssize_t = len(data)
    if size < _LENGTH_END:
        return _EMPTY
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    length: cython.longlong = load_int32(base, 8)
    if size > 16:
        if base[16] < 2:
            return _OLD_MAGIC
        if base[16] != 2:
            return _BAD_MAGIC
    if length < _HEADER_SIZE - _LENGTH_END:
        return _BAD_LENGTH
    if length + _LENGTH_END > size:
        return _TRUNCATED
    if length + _LENGTH_END > size_bytes_max:
        return _TOO_LARGE
    if length + _LENGTH_END < size:
        # A length that lies is damage, and shows in the CRC; only behind a sound batch is there something else.
        if load_uint32(base, 17) != crc_of(base, 21, cython.cast(cython.Py_ssize_t, length + _LENGTH_END), 0):
            return _BAD_CRC
        return _TRAILING_BYTES
    timestamp_max: cython.longlong = _latest(now_ms, after_max_ms)
    found: cython.longlong[3] = [0, 0, 0]
    fault: cython.int
    if size < _NOGIL_BYTES:
        fault = _inspect(base, size, flags, now_ms - before_max_ms, timestamp_max, found)
    else:
        with cython.nogil:
            fault = _inspect(base, size, flags, now_ms - before_max_ms, timestamp_max, found)
    if fault != _VALID:
        return fault
    return (
        load_int64(base, 0),
        length,
        load_int32(base, 12),
        2,
        load_uint32(base, 17),
        load_int16(base, 21),
        load_int32(base, 23),
        load_int64(base, 27),
        found[1],
        load_int64(base, 43),
        load_int16(base, 51),
        load_int32(base, 53),
        load_int32(base, 57),
    )


def walk_records(
    data: cython.const[cython.uchar][::1],
    count: cython.longlong,
    base_timestamp: cython.longlong,
    flags: cython.int,
    now_ms: cython.longlong,
    before_max_ms: cython.longlong,
    after_max_ms: cython.longlong,
    errors: cython.longlong[::1],
) -> tuple[int, int, int, int]:
    """Walk `data`, the uncompressed records of one batch; return (fault, record index, greatest timestamp, errors).

    The fault is the first one. Records that are well-formed and yet refused (no key, timestamp out of bounds) go to
    `errors` as pairs (index, fault) while there is room, and the walk goes on. The three times are not negative.
    """
    size: cython.Py_ssize_t = len(data)
    capacity: cython.Py_ssize_t = len(errors) // 2
    fault: cython.int
    if count <= 0:
        return _BAD_COUNT, 0, _NO_TIMESTAMP, 0
    if size == 0:
        return _BAD_RECORD, 0, _NO_TIMESTAMP, 0
    timestamp_max: cython.longlong = _latest(now_ms, after_max_ms)
    found: cython.longlong[3] = [0, 0, 0]
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    out: cython.p_longlong = cython.NULL
    if capacity:
        out = cython.address(errors[0]) if cython.compiled else errors
    with cython.nogil:
        fault = _walk(
            base,
            0,
            size,
            count,
            base_timestamp,
            flags,
            now_ms - before_max_ms,
            timestamp_max,
            found,
            out,
            capacity,
        )
    return fault, found[0], found[1], found[2]


def is_compiled() -> bool:
    """Whether this is the compiled kernel; `millstream doctor` tells."""
    return cython.compiled
