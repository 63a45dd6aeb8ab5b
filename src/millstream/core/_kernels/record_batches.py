"""Headers of many record batches a call: checked, put into rows, into indexes, or trimmed for a fetch.

A batch of magic 2 (KIP-98), big-endian; the checksum covers everything from `attributes` on:

     0  base_offset              int64     27  base_timestamp     int64
     8  batch_length             int32     35  max_timestamp      int64
    12  partition_leader_epoch   int32     43  producer_id        int64
    16  magic                    int8      51  producer_epoch     int16
    17  crc                      uint32    53  base_sequence      int32
    21  attributes               int16     57  count              int32
    23  last_offset_delta        int32     61  records

`batch_length` counts what follows it, so a batch takes 12 bytes more. Rows, states and stop reasons are named in
`millstream.core.records.scan`. No byte outside `data` is read whatever the batches claim.
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if cython.compiled:
    from cython.cimports.millstream.core._kernels.native import (
        crc_of,
        find_bad_crc,
        load_int16,
        load_int32,
        load_int64,
        load_uint32,
        store_int32,
        store_int64,
    )
else:
    from millstream.core._kernels.interpreted import (
        crc_of,
        find_bad_crc,
        load_int16,
        load_int32,
        load_int64,
        load_uint32,
        store_int32,
        store_int64,
    )

_HEADER_SIZE = cython.declare(cython.Py_ssize_t, 61)
_LENGTH_END = cython.declare(cython.Py_ssize_t, 12)
_MAGIC_AT = cython.declare(cython.Py_ssize_t, 16)
_CRC_AT = cython.declare(cython.Py_ssize_t, 17)
_ATTRIBUTES_AT = cython.declare(cython.Py_ssize_t, 21)
_LOG_APPEND_TIME_BIT = cython.declare(cython.int, 0x08)
_CONTROL_BIT = cython.declare(cython.longlong, 0x20)
_INT32_MAX = cython.declare(cython.longlong, 2147483647)
_INT64_MAX = cython.declare(cython.longlong, 9223372036854775807)

_END = cython.declare(cython.int, 0)
_ROWS_FULL = cython.declare(cython.int, 1)
_TRUNCATED = cython.declare(cython.int, 2)
_BAD_LENGTH = cython.declare(cython.int, 3)
_BAD_MAGIC = cython.declare(cython.int, 4)
_BAD_CRC = cython.declare(cython.int, 5)
_BAD_OFFSET = cython.declare(cython.int, 6)

_ROW_WIDTH = cython.declare(cython.Py_ssize_t, 13)

_POSITION = cython.declare(cython.Py_ssize_t, 0)
_FILE_POSITION = cython.declare(cython.Py_ssize_t, 1)
_SEGMENT_BASE_OFFSET = cython.declare(cython.Py_ssize_t, 2)
_NEXT_OFFSET = cython.declare(cython.Py_ssize_t, 3)
_INDEX_INTERVAL_BYTES = cython.declare(cython.Py_ssize_t, 4)
_BYTES_SINCE_INDEX = cython.declare(cython.Py_ssize_t, 5)
_MAX_TIMESTAMP = cython.declare(cython.Py_ssize_t, 6)
_OFFSET_OF_MAX_TIMESTAMP = cython.declare(cython.Py_ssize_t, 7)
_LAST_TIME_INDEXED = cython.declare(cython.Py_ssize_t, 8)
_LEADER_EPOCH = cython.declare(cython.Py_ssize_t, 9)
_INDEX_BYTES = cython.declare(cython.Py_ssize_t, 10)
_TIME_INDEX_BYTES = cython.declare(cython.Py_ssize_t, 11)
_ROWS = cython.declare(cython.Py_ssize_t, 12)
_BATCHES = cython.declare(cython.Py_ssize_t, 13)
_RECORDS = cython.declare(cython.Py_ssize_t, 14)
_LARGEST_BATCH_BYTES = cython.declare(cython.Py_ssize_t, 15)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.int)
def _check(
    base: cython.p_const_uchar,
    position: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    next_offset: cython.longlong,
    check_crc: cython.bint,
) -> int:
    """Return _END if a whole valid batch lies at `position`, else why not."""
    length: cython.longlong
    base_offset: cython.longlong
    delta: cython.longlong
    if end - position < _LENGTH_END:
        return _TRUNCATED
    length = load_int32(base, position + 8)
    if length < _HEADER_SIZE - _LENGTH_END:
        return _BAD_LENGTH
    if end - position <= _MAGIC_AT:
        return _TRUNCATED
    if base[position + _MAGIC_AT] != 2:
        return _BAD_MAGIC
    if length > end - position - _LENGTH_END:
        return _TRUNCATED
    base_offset = load_int64(base, position)
    delta = load_int32(base, position + 23)
    if base_offset < next_offset or base_offset < 0 or delta < 0 or base_offset > _INT64_MAX - delta:
        return _BAD_OFFSET
    if check_crc and load_uint32(base, position + _CRC_AT) != crc_of(
        base, position + _ATTRIBUTES_AT, position + _LENGTH_END + cython.cast(cython.Py_ssize_t, length), 0
    ):
        return _BAD_CRC
    return _END


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.void)
def _write_row(
    base: cython.p_const_uchar, position: cython.Py_ssize_t, rows: cython.p_longlong, at: cython.Py_ssize_t
) -> None:
    base_offset: cython.longlong = load_int64(base, position)
    rows[at] = position
    rows[at + 1] = load_int32(base, position + 8) + _LENGTH_END
    rows[at + 2] = base_offset
    rows[at + 3] = base_offset + load_int32(base, position + 23)
    rows[at + 4] = load_int32(base, position + 12)
    rows[at + 5] = load_int16(base, position + _ATTRIBUTES_AT)
    rows[at + 6] = load_int64(base, position + 27)
    rows[at + 7] = load_int64(base, position + 35)
    rows[at + 8] = load_int64(base, position + 43)
    rows[at + 9] = load_int16(base, position + 51)
    rows[at + 10] = load_int32(base, position + 53)
    rows[at + 11] = load_int32(base, position + 57)
    rows[at + 12] = load_uint32(base, position + _CRC_AT)


def check_batches(
    data: cython.const[cython.uchar][::1],
    position: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    next_offset: cython.longlong,
    rows: cython.longlong[::1],
    check_crc: cython.bint = True,
) -> tuple[int, int, int]:
    """Write a row per whole valid batch of data[position:end]; return (rows written, position reached, stop reason).

    Batches must not start below `next_offset`, nor below the end of the one before. The unread batch starts at the
    position reached; with ROWS_FULL the same call from there carries on.
    """
    size: cython.Py_ssize_t = len(data)
    capacity: cython.Py_ssize_t = len(rows) // _ROW_WIDTH
    count: cython.Py_ssize_t = 0
    reason: cython.int = _END
    if not 0 <= position <= end <= size:
        raise ValueError(f"[{position}, {end}) does not lie within {size} bytes")
    if position == end:
        return 0, position, _END
    if capacity == 0:
        return 0, position, _ROWS_FULL
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    out: cython.p_longlong = cython.address(rows[0]) if cython.compiled else rows
    with cython.nogil:
        while position < end:
            if count == capacity:
                reason = _ROWS_FULL
                break
            reason = _check(base, position, end, next_offset, check_crc)
            if reason != _END:
                break
            _write_row(base, position, out, count * _ROW_WIDTH)
            next_offset = out[count * _ROW_WIDTH + 3]
            position += cython.cast(cython.Py_ssize_t, out[count * _ROW_WIDTH + 1])
            count += 1
            if next_offset == _INT64_MAX and position < end:
                reason = _BAD_OFFSET
                break
            next_offset += 1
    return count, position, reason


def index_batches(
    data: cython.const[cython.uchar][::1],
    state: cython.longlong[::1],
    offset_index: cython.uchar[::1],
    time_index: cython.uchar[::1],
    rows: cython.longlong[::1],
    check_crc: cython.bint = True,
) -> int:
    """Walk `data`, whole batches of one segment, write due index entries and special batches; return the stop reason.

    `state` says where to begin and carries what is known so far to the next chunk; see `records.scan`. An index entry
    (the last offset of a batch, its position) is due when more than the interval lies behind the one before, as on
    append; a time index entry goes with it when the greatest timestamp so far has grown since the last.
    """
    size: cython.Py_ssize_t = len(data)
    row_capacity: cython.Py_ssize_t = len(rows) // _ROW_WIDTH
    index_capacity: cython.Py_ssize_t = len(offset_index)
    time_capacity: cython.Py_ssize_t = len(time_index)
    if len(state) < 16:
        raise ValueError(f"a state has 16 integers, not {len(state)}")
    position: cython.Py_ssize_t = state[_POSITION]
    if not 0 <= position <= size:
        raise ValueError(f"position {position} does not lie within {size} bytes")
    state[_INDEX_BYTES] = 0
    state[_TIME_INDEX_BYTES] = 0
    state[_ROWS] = 0
    if position == size:
        return _END
    if row_capacity == 0 or index_capacity < 8 or time_capacity < 12:
        return _ROWS_FULL
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    row_out: cython.p_longlong = cython.address(rows[0]) if cython.compiled else rows
    index_out: cython.p_uchar = cython.address(offset_index[0]) if cython.compiled else offset_index
    time_out: cython.p_uchar = cython.address(time_index[0]) if cython.compiled else time_index

    reason: cython.int = _END
    row_count: cython.Py_ssize_t = 0
    index_bytes: cython.Py_ssize_t = 0
    time_bytes: cython.Py_ssize_t = 0
    next_offset: cython.longlong = state[_NEXT_OFFSET]
    since_index: cython.longlong = state[_BYTES_SINCE_INDEX]
    max_timestamp: cython.longlong = state[_MAX_TIMESTAMP]
    max_timestamp_offset: cython.longlong = state[_OFFSET_OF_MAX_TIMESTAMP]
    last_time_indexed: cython.longlong = state[_LAST_TIME_INDEXED]
    leader_epoch: cython.longlong = state[_LEADER_EPOCH]
    largest: cython.longlong = state[_LARGEST_BATCH_BYTES]
    batches: cython.longlong = 0
    records: cython.longlong = 0
    segment_base: cython.longlong = state[_SEGMENT_BASE_OFFSET]
    interval: cython.longlong = state[_INDEX_INTERVAL_BYTES]
    file_position: cython.longlong = state[_FILE_POSITION]
    base_offset: cython.longlong
    last_offset: cython.longlong
    timestamp: cython.longlong
    epoch: cython.longlong
    size_bytes: cython.longlong
    with cython.nogil:
        while position < size:
            reason = _check(base, position, size, next_offset, check_crc)
            if reason != _END:
                break
            base_offset = load_int64(base, position)
            last_offset = base_offset + load_int32(base, position + 23)
            if base_offset < segment_base or last_offset - segment_base > _INT32_MAX or last_offset == _INT64_MAX:
                reason = _BAD_OFFSET
                break
            if (
                row_count == row_capacity
                or (since_index > interval and index_bytes + 8 > index_capacity)
                or (since_index > interval and time_bytes + 12 > time_capacity)
            ):
                reason = _ROWS_FULL
                break
            size_bytes = load_int32(base, position + 8) + _LENGTH_END
            timestamp = load_int64(base, position + 35)
            epoch = load_int32(base, position + 12)
            if timestamp > max_timestamp:
                max_timestamp = timestamp
                max_timestamp_offset = last_offset
            if since_index > interval:
                store_int32(index_out, index_bytes, last_offset - segment_base)
                store_int32(index_out, index_bytes + 4, file_position + position)
                index_bytes += 8
                since_index = 0
                if max_timestamp > last_time_indexed:
                    store_int64(time_out, time_bytes, max_timestamp)
                    store_int32(time_out, time_bytes + 8, max_timestamp_offset - segment_base)
                    time_bytes += 12
                    last_time_indexed = max_timestamp
            since_index += size_bytes
            if (
                epoch > leader_epoch
                or load_int64(base, position + 43) >= 0
                or load_int16(base, position + _ATTRIBUTES_AT) & _CONTROL_BIT
            ):
                _write_row(base, position, row_out, row_count * _ROW_WIDTH)
                row_count += 1
                if epoch > leader_epoch:
                    leader_epoch = epoch
            if size_bytes > largest:
                largest = size_bytes
            batches += 1
            records += load_int32(base, position + 57)
            next_offset = last_offset + 1
            position += cython.cast(cython.Py_ssize_t, size_bytes)
    state[_POSITION] = position
    state[_NEXT_OFFSET] = next_offset
    state[_BYTES_SINCE_INDEX] = since_index
    state[_MAX_TIMESTAMP] = max_timestamp
    state[_OFFSET_OF_MAX_TIMESTAMP] = max_timestamp_offset
    state[_LAST_TIME_INDEXED] = last_time_indexed
    state[_LEADER_EPOCH] = leader_epoch
    state[_INDEX_BYTES] = index_bytes
    state[_TIME_INDEX_BYTES] = time_bytes
    state[_ROWS] = row_count
    state[_BATCHES] += batches
    state[_RECORDS] += records
    state[_LARGEST_BATCH_BYTES] = largest
    return reason


def trim_batches(
    data: cython.const[cython.uchar][::1],
    offset: cython.longlong,
    end_offset: cython.longlong,
    size_bytes_max: cython.longlong,
    at_least_one: cython.bint = True,
) -> tuple[int, int, int, int, int, int]:
    """Find what a fetch may send of `data`, whose first byte starts a batch.

    Returns (start, end, first_offset, next_offset, corrupt_position, size_bytes_needed). data[start:end] are whole
    batches with a right CRC; the first holds `offset` or starts behind it, all lie below `end_offset`, and together
    they keep to size_bytes_max, but for a first one that alone is larger when `at_least_one`. first_offset is the
    first one's base offset and next_offset follows the last one; both are `offset` where nothing was found.
    corrupt_position is where a batch is no batch, or -1. size_bytes_needed is the size of the first wanted batch when
    `data` ends inside it (61 if not even its header is there), so the caller reads that much from `start`; or 0.
    """
    size: cython.Py_ssize_t = len(data)
    position: cython.Py_ssize_t = 0
    start: cython.Py_ssize_t = -1
    corrupt: cython.Py_ssize_t = -1
    needed: cython.longlong = 0
    first_offset: cython.longlong = offset
    next_offset: cython.longlong = offset
    last_offset: cython.longlong
    behind: cython.longlong = -1
    length: cython.longlong
    bad: cython.Py_ssize_t
    reason: cython.int
    if size == 0:
        return 0, 0, offset, offset, -1, 0
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    with cython.nogil:
        while position < size:
            # Without the CRCs at first: they are summed together, and of batches before the wanted one not at all.
            reason = _check(base, position, size, behind, False)
            if reason == _TRUNCATED:
                if start < 0 and (size - position < 8 or load_int64(base, position) < end_offset):
                    needed = _HEADER_SIZE
                    if size - position >= _LENGTH_END:
                        length = load_int32(base, position + 8) + _LENGTH_END
                        needed = length if length > size - position else _HEADER_SIZE
                break
            if reason != _END:
                corrupt = position
                break
            length = load_int32(base, position + 8) + _LENGTH_END
            last_offset = load_int64(base, position) + load_int32(base, position + 23)
            if last_offset >= end_offset:
                break
            if last_offset >= offset:
                if start < 0:
                    if length > size_bytes_max and not at_least_one:
                        break
                    start = position
                elif position + length - start > size_bytes_max:
                    break
            behind = last_offset + 1
            position += cython.cast(cython.Py_ssize_t, length)
        if start >= 0:
            first_offset = load_int64(base, start)
            next_offset = behind
            bad = find_bad_crc(base, start, position)
            if bad < position:
                # What was made of the bytes behind it does not count: its length may be what is wrong.
                corrupt = position = bad
                if bad == start:
                    start = -1
                else:
                    bad = start
                    while bad < position:
                        next_offset = load_int64(base, bad) + load_int32(base, bad + 23) + 1
                        bad += cython.cast(cython.Py_ssize_t, load_int32(base, bad + 8) + _LENGTH_END)
    if start < 0:
        return position, position, offset, offset, corrupt, needed
    return start, position, first_offset, next_offset, corrupt, 0


def set_log_fields(
    buffer: cython.uchar[::1],
    base_offset: cython.longlong,
    leader_epoch: cython.longlong,
    max_timestamp: object = None,
    log_append_time_ms: object = None,
) -> None:
    """Write into the whole batch at the start of `buffer` what the log decides, in place.

    Base offset and leader epoch lie outside the CRC, which is made again only where more has to change: with
    log_append_time_ms the batch becomes LogAppendTime of that time; else with max_timestamp (of the header that
    validate_batch returned) a greatest timestamp that the producer got wrong is put right, as Kafka does.
    """
    size: cython.Py_ssize_t = len(buffer)
    if size < _HEADER_SIZE:
        raise ValueError(f"{size} bytes are no batch")
    base: cython.p_uchar = cython.address(buffer[0]) if cython.compiled else buffer
    end: cython.longlong = load_int32(base, 8) + _LENGTH_END
    timestamp: cython.longlong
    if not _HEADER_SIZE <= end <= size:
        raise ValueError(f"a batch of {end} bytes in a buffer of {size}")
    store_int64(base, 0, base_offset)
    store_int32(base, 12, leader_epoch)
    if log_append_time_ms is not None:
        timestamp = log_append_time_ms
        base[22] |= _LOG_APPEND_TIME_BIT
    elif max_timestamp is not None:
        timestamp = max_timestamp
        if timestamp == load_int64(base, 35):
            return
    else:
        return
    store_int64(base, 35, timestamp)
    store_int32(base, _CRC_AT, crc_of(base, _ATTRIBUTES_AT, cython.cast(cython.Py_ssize_t, end), 0))


def find_batch(
    data: cython.const[cython.uchar][::1],
    position: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    base_offset_min: cython.longlong,
    base_offset_max: cython.longlong,
) -> int:
    """Return where the next whole valid batch with a base offset in [min, max] starts at or behind `position`, or -1.

    Every byte is tried, so it finds what lies behind a damaged length too.
    """
    size: cython.Py_ssize_t = len(data)
    found: cython.Py_ssize_t = -1
    if not 0 <= position <= end <= size:
        raise ValueError(f"[{position}, {end}) does not lie within {size} bytes")
    if end - position < _HEADER_SIZE:
        return -1
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    with cython.nogil:
        while end - position >= _HEADER_SIZE:
            if (
                base[position + _MAGIC_AT] == 2
                and load_int64(base, position) <= base_offset_max
                and _check(base, position, end, base_offset_min, True) == _END
            ):
                found = position
                break
            position += 1
    return found


def is_compiled() -> bool:
    """Whether this is the compiled kernel; `millstream doctor` tells."""
    return cython.compiled
