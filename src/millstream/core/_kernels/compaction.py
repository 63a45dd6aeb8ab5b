"""What the log's cleaner does with records: the newest offset of each key noted, and batches filtered by that.

**The table** is int64 words, three an entry: two of the key's hash (SipHash, 128 bits, keyed by a secret of the
process), then the newest offset of the key + 1, 0 being an empty place. Open addressing: an entry lies at the place its
hash says or in the first free one behind it, around the end. Keys themselves are not kept. `state` goes with it:

    0  places in the table               4  first offset whose key is noted
    1  entries                           5, 6  the secret
    2  entries at most                   7  records looked at
    3  newest offset looked at, or -1    8, 9  first slice that is noted, and the first one behind those

Keys fall into 2**31 **slices** by their hashes. Those outside of the slices that are noted are no business of this
table: they are neither noted, nor do their records go for what it says.

**Batches** come as rows of `record_batches.check_batches`, whose CRCs are known to be right; the layout of a record is
in `batch_validation`. A batch that keeps all of its records is copied. Else its header keeps base and last offset,
producer and base sequence, and its records keep their deltas, so that what stays is copied in runs. Only where
tombstones get their delete horizon (KIP-534: attribute 0x40, the time in base_timestamp) are records written anew,
since their timestamps count from there.

Actions, one byte a row:

    1  discard: no record stays (of an aborted transaction; a marker whose time has come)
    2  control: records stay without a look at the table
    4  keep the batch, empty, also where no record stays
    8  a marker whose transaction has no record left: it gets a delete horizon
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if cython.compiled:
    from cython.cimports.millstream.core._kernels.native import (
        add_int64,
        copy_bytes,
        crc_of,
        hash_key,
        prefetch_words,
        read_plain_record,
        read_varint,
        skip_sized,
        store_int32,
        store_int64,
        store_varint,
    )
else:
    from millstream.core._kernels.interpreted import (
        add_int64,
        copy_bytes,
        crc_of,
        hash_key,
        prefetch_words,
        read_plain_record,
        read_varint,
        skip_sized,
        store_int32,
        store_int64,
        store_varint,
    )

_HEADER_SIZE = cython.declare(cython.Py_ssize_t, 61)
_LENGTH_END = cython.declare(cython.Py_ssize_t, 12)
_ROW_WIDTH = cython.declare(cython.Py_ssize_t, 13)
_ENTRY_WORDS = cython.declare(cython.Py_ssize_t, 3)
# Records whose places are sought together: each place costs a wait for memory, and so many go on at once.
_GROUP = cython.declare(cython.Py_ssize_t, 16)
_CODEC_MASK = cython.declare(cython.longlong, 0x07)
_LOG_APPEND_TIME_BIT = cython.declare(cython.longlong, 0x08)
_HORIZON_BIT = cython.declare(cython.longlong, 0x40)
_INT64_MAX = cython.declare(cython.longlong, 9223372036854775807)

_END = cython.declare(cython.int, 0)
_ROOM_NEEDED = cython.declare(cython.int, 1)
_COMPRESSED = cython.declare(cython.int, 7)
_BAD_RECORD = cython.declare(cython.int, 8)
_TABLE_FULL = cython.declare(cython.int, 9)

_PLACES = cython.declare(cython.Py_ssize_t, 0)
_ENTRIES = cython.declare(cython.Py_ssize_t, 1)
_ENTRIES_MAX = cython.declare(cython.Py_ssize_t, 2)
_LATEST = cython.declare(cython.Py_ssize_t, 3)
_START = cython.declare(cython.Py_ssize_t, 4)
_SECRET = cython.declare(cython.Py_ssize_t, 5)
_LOOKED = cython.declare(cython.Py_ssize_t, 7)
_SLICE = cython.declare(cython.Py_ssize_t, 8)
_SLICE_END = cython.declare(cython.Py_ssize_t, 9)
_STATE_SIZE = cython.declare(cython.Py_ssize_t, 10)

_DISCARD = cython.declare(cython.int, 1)
_CONTROL = cython.declare(cython.int, 2)
_KEEP = cython.declare(cython.int, 4)
_MARKER = cython.declare(cython.int, 8)

_RETAINED = cython.declare(cython.Py_ssize_t, 0)
_DROPPED = cython.declare(cython.Py_ssize_t, 1)
_KEYLESS = cython.declare(cython.Py_ssize_t, 2)
_OUT_END = cython.declare(cython.Py_ssize_t, 3)
_GREATEST_TIMESTAMP = cython.declare(cython.Py_ssize_t, 4)
_NEW_HORIZON = cython.declare(cython.Py_ssize_t, 5)
_NEEDED = cython.declare(cython.Py_ssize_t, 6)
_FOUND_SIZE = cython.declare(cython.Py_ssize_t, 7)


def clear_table(table: cython.longlong[::1], words: cython.Py_ssize_t) -> None:
    """Make the first `words` of the table empty places."""
    at: cython.Py_ssize_t = 0
    if not 0 <= words <= len(table):
        raise ValueError(f"{words} words of a table of {len(table)}")
    if words:
        out: cython.p_longlong = cython.address(table[0]) if cython.compiled else table
        with cython.nogil:
            while at < words:
                out[at] = 0
                at += 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.bint)
def _is_noted(state: cython.p_longlong, hash1: cython.longlong) -> bool:
    """Whether the hash's slice is one of those that are noted."""
    return state[_SLICE] <= (hash1 & 0x7FFFFFFF) < state[_SLICE_END]


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.Py_ssize_t)
def _first_place(places: cython.longlong, hash0: cython.longlong) -> int:
    """Return the word where the search for a hash begins."""
    place: cython.longlong = ((hash0 & 0x7FFFFFFF) * places) >> 31
    return place * _ENTRY_WORDS


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.Py_ssize_t)
def _place(
    table: cython.p_longlong,
    places: cython.longlong,
    at: cython.Py_ssize_t,
    hash0: cython.longlong,
    hash1: cython.longlong,
) -> int:
    """Return the word at which the hash's entry begins, or the empty place where it would; `at` is its first place."""
    end: cython.Py_ssize_t = places * _ENTRY_WORDS
    while table[at + 2] != 0 and (table[at] != hash0 or table[at + 1] != hash1):
        at += _ENTRY_WORDS
        if at == end:
            at = 0
    return at


def halve_slices(table: cython.longlong[::1], state: cython.longlong[::1]) -> None:
    """Note only the first half of the slices from now on, and forget the keys of the others. There are two or more."""
    _check_table(table, state)
    if state[_SLICE_END] - state[_SLICE] < 2:
        raise ValueError(f"slices {state[_SLICE]} to {state[_SLICE_END]} cannot be halved")
    words: cython.p_longlong = cython.address(table[0]) if cython.compiled else table
    of_table: cython.p_longlong = cython.address(state[0]) if cython.compiled else state
    end: cython.Py_ssize_t = of_table[_PLACES] * _ENTRY_WORDS
    left: cython.longlong = of_table[_PLACES]
    at: cython.Py_ssize_t = 0
    to: cython.Py_ssize_t
    hash0: cython.longlong
    hash1: cython.longlong
    offset: cython.longlong
    with cython.nogil:
        of_table[_SLICE_END] = (of_table[_SLICE] + of_table[_SLICE_END]) >> 1
        # From behind an empty place on, around the end: an entry taken out then finds its new place at or before its
        # old one, and never passes over one that is still to be taken out.
        while words[at + 2] != 0:
            at += _ENTRY_WORDS
        while left > 0:
            left -= 1
            if words[at + 2] != 0:
                hash0 = words[at]
                hash1 = words[at + 1]
                offset = words[at + 2]
                words[at + 2] = 0
                if _is_noted(of_table, hash1):
                    to = _place(words, of_table[_PLACES], _first_place(of_table[_PLACES], hash0), hash0, hash1)
                    words[to] = hash0
                    words[to + 1] = hash1
                    words[to + 2] = offset
                else:
                    of_table[_ENTRIES] -= 1
            at += _ENTRY_WORDS
            if at == end:
                at = 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.int)
def _read_record(
    base: cython.p_const_uchar,
    cursor: cython.p_longlong,
    end: cython.Py_ssize_t,
    fields: cython.p_longlong,
) -> int:
    """Read the record at the cursor into fields (timestamp delta, key size and end, value size and end, offset delta).

    fields[5] is the delta that is expected. Returns _END or _BAD_RECORD.
    """
    if read_plain_record(base, cursor, end, fields[5], fields):
        return _END
    length: cython.longlong = read_varint(base, cursor, end)
    if cursor[0] > end or length < 0 or length > end - cursor[0]:
        return _BAD_RECORD
    record_end: cython.longlong = cursor[0] + length
    cursor[0] += 1  # attributes: Kafka defines no bit of them
    fields[0] = read_varint(base, cursor, record_end)
    fields[5] = read_varint(base, cursor, record_end)
    fields[1] = skip_sized(base, cursor, record_end, -1)
    fields[2] = cursor[0]
    fields[3] = skip_sized(base, cursor, record_end, -1)
    fields[4] = cursor[0]
    headers: cython.longlong = read_varint(base, cursor, record_end)
    while headers > 0 and cursor[0] < record_end:
        skip_sized(base, cursor, record_end, 0)
        skip_sized(base, cursor, record_end, -1)
        headers -= 1
    if cursor[0] != record_end or headers != 0 or fields[5] < 0:
        return _BAD_RECORD
    return _END


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.int)
def _note_keys(
    base: cython.p_const_uchar,
    position: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    count: cython.longlong,
    base_offset: cython.longlong,
    table: cython.p_longlong,
    state: cython.p_longlong,
) -> int:
    """Note the newest offset of each key in one batch's records; return _END, _BAD_RECORD or _TABLE_FULL."""
    cursor: cython.longlong[1] = [position]
    fields: cython.longlong[6] = [0, 0, 0, 0, 0, -1]
    hashed: cython.longlong[2] = [0, 0]
    # Of each record of a group: its hash, its offset, and where its search begins, -1 where it is not noted.
    hash0: cython.longlong[16] = [0] * 16
    hash1: cython.longlong[16] = [0] * 16
    offsets: cython.longlong[16] = [0] * 16
    first: cython.longlong[16] = [0] * 16
    size: cython.Py_ssize_t
    index: cython.Py_ssize_t
    at: cython.Py_ssize_t
    while count > 0:
        size = min(_GROUP, count)
        count -= size
        index = 0
        while index < size:
            fields[5] += 1
            if _read_record(base, cursor, end, fields) != _END:
                return _BAD_RECORD
            offsets[index] = base_offset + fields[5]
            first[index] = -1
            if fields[1] >= 0 and offsets[index] >= state[_START]:
                hash_key(base, fields[2] - fields[1], fields[1], state[_SECRET], state[_SECRET + 1], hashed)
                if _is_noted(state, hashed[1]):
                    hash0[index] = hashed[0]
                    hash1[index] = hashed[1]
                    first[index] = _first_place(state[_PLACES], hashed[0])
                    prefetch_words(table, first[index])
            index += 1
        index = 0
        while index < size:
            if offsets[index] >= state[_START]:
                state[_LOOKED] += 1
            if first[index] >= 0:
                if state[_ENTRIES] >= state[_ENTRIES_MAX]:
                    return _TABLE_FULL
                at = _place(table, state[_PLACES], first[index], hash0[index], hash1[index])
                if table[at + 2] == 0:
                    table[at] = hash0[index]
                    table[at + 1] = hash1[index]
                    state[_ENTRIES] += 1
                table[at + 2] = offsets[index] + 1
                state[_LATEST] = offsets[index]
            index += 1
    return _END if cursor[0] == end else _BAD_RECORD


def note_keys(
    data: cython.const[cython.uchar][::1],
    rows: cython.const[cython.longlong][::1],
    row: cython.Py_ssize_t,
    row_end: cython.Py_ssize_t,
    actions: cython.const[cython.uchar][::1],
    table: cython.longlong[::1],
    state: cython.longlong[::1],
) -> tuple[int, int]:
    """Note the newest offset of each key in the batches of rows [row, row_end); return (row reached, stop reason).

    Batches with any action are passed over. Stops in front of a batch that is compressed, holds a record that is none,
    or a key for which the table has no place: what lies before that key is noted.
    """
    reason: cython.int = _END
    _check_rows(len(data), rows, row, row_end, len(actions))
    _check_table(table, state)
    if row == row_end:
        return row, _END
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    row_in: cython.p_const_longlong = cython.address(rows[0]) if cython.compiled else rows
    words: cython.p_longlong = cython.address(table[0]) if cython.compiled else table
    of_table: cython.p_longlong = cython.address(state[0]) if cython.compiled else state
    at: cython.Py_ssize_t
    position: cython.Py_ssize_t
    with cython.nogil:
        while row < row_end:
            at = row * _ROW_WIDTH
            if row_in[at + 3] >= of_table[_START]:
                if actions[row] == 0:
                    if row_in[at + 5] & _CODEC_MASK:
                        reason = _COMPRESSED
                        break
                    position = row_in[at]
                    reason = _note_keys(
                        base,
                        position + _HEADER_SIZE,
                        position + row_in[at + 1],
                        row_in[at + 11],
                        row_in[at + 2],
                        words,
                        of_table,
                    )
                    if reason != _END:
                        break
                of_table[_LATEST] = row_in[at + 3]
            row += 1
    return row, reason


def note_payload_keys(
    payload: cython.const[cython.uchar][::1],
    count: cython.longlong,
    base_offset: cython.longlong,
    last_offset: cython.longlong,
    table: cython.longlong[::1],
    state: cython.longlong[::1],
) -> int:
    """Note the newest offset of each key in one decompressed batch; return END, BAD_RECORD or TABLE_FULL."""
    size: cython.Py_ssize_t = len(payload)
    reason: cython.int = _END
    _check_table(table, state)
    if size:
        base: cython.p_const_uchar = cython.address(payload[0]) if cython.compiled else payload
        words: cython.p_longlong = cython.address(table[0]) if cython.compiled else table
        of_table: cython.p_longlong = cython.address(state[0]) if cython.compiled else state
        with cython.nogil:
            reason = _note_keys(base, 0, size, count, base_offset, words, of_table)
    elif count:
        reason = _BAD_RECORD
    if reason == _END and last_offset >= state[_START]:
        state[_LATEST] = last_offset
    return reason


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.int)
def _filter(
    base: cython.p_const_uchar,
    position: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    count: cython.longlong,
    base_offset: cython.longlong,
    base_timestamp: cython.longlong,
    fixed_timestamp: cython.bint,
    horizon: cython.longlong,
    action: cython.int,
    now_ms: cython.longlong,
    new_horizon: cython.longlong,
    table: cython.p_longlong,
    state: cython.p_longlong,
    out: cython.p_uchar,
    out_position: cython.Py_ssize_t,
    out_end: cython.Py_ssize_t,
    found: cython.p_longlong,
) -> int:
    """Copy the records of base[position:end] that stay to out[out_position:]; return _END, _BAD_RECORD, _ROOM_NEEDED.

    `horizon` is when the batch's tombstones may go, -1 where that has not been said yet. found[_NEW_HORIZON] tells
    whether the records were written anew, with timestamps that count from `new_horizon`.
    """
    cursor: cython.longlong[1] = [position]
    fields: cython.longlong[6] = [0, 0, 0, 0, 0, -1]
    hashed: cython.longlong[2] = [0, 0]
    # Of each record of a group: where it begins, its hash, its offset, its timestamp's delta, its value's size, and
    # where its search begins: -1 where it stays without one, -2 where it goes, -3 for want of a key.
    starts: cython.longlong[16] = [0] * 16
    hash0: cython.longlong[16] = [0] * 16
    hash1: cython.longlong[16] = [0] * 16
    offsets: cython.longlong[16] = [0] * 16
    deltas: cython.longlong[16] = [0] * 16
    values: cython.longlong[16] = [0] * 16
    first: cython.longlong[16] = [0] * 16
    size: cython.Py_ssize_t
    index: cython.Py_ssize_t
    run: cython.Py_ssize_t = -1
    at: cython.Py_ssize_t
    start: cython.Py_ssize_t = out_position
    timestamp: cython.longlong
    greatest: cython.longlong = -_INT64_MAX - 1
    retained: cython.longlong = 0
    dropped: cython.longlong = 0
    keyless: cython.longlong = 0
    tombstones: cython.bint = (action & _MARKER) != 0
    stays: cython.bint
    found[_NEEDED] = end - position
    if end - position > out_end - out_position:
        return _ROOM_NEEDED
    while count > 0:
        size = min(_GROUP, count)
        count -= size
        index = 0
        while index < size:
            starts[index] = cursor[0]
            fields[5] += 1
            if _read_record(base, cursor, end, fields) != _END:
                return _BAD_RECORD
            offsets[index] = base_offset + fields[5]
            deltas[index] = fields[0]
            values[index] = fields[3]
            first[index] = -1
            if action & _DISCARD:
                first[index] = -2
            elif not action & _CONTROL and offsets[index] <= state[_LATEST]:
                first[index] = -3
                if fields[1] >= 0:
                    hash_key(base, fields[2] - fields[1], fields[1], state[_SECRET], state[_SECRET + 1], hashed)
                    first[index] = -1
                    if _is_noted(state, hashed[1]):
                        hash0[index] = hashed[0]
                        hash1[index] = hashed[1]
                        first[index] = _first_place(state[_PLACES], hashed[0])
                        prefetch_words(table, first[index])
            index += 1
        index = 0
        while index < size:
            stays = first[index] >= -1
            if first[index] >= 0:
                at = _place(table, state[_PLACES], first[index], hash0[index], hash1[index])
                if offsets[index] < table[at + 2] - 1 or (values[index] < 0 and 0 <= horizon <= now_ms):
                    stays = False
            elif first[index] == -3:
                keyless += 1
            if stays:
                if values[index] < 0 and not action & _CONTROL:
                    tombstones = True
                timestamp = base_timestamp if fixed_timestamp else add_int64(base_timestamp, deltas[index])
                if timestamp > greatest:
                    greatest = timestamp
                if run < 0:
                    run = starts[index]
                retained += 1
            else:
                if run >= 0:
                    copy_bytes(out, out_position, base, run, starts[index])
                    out_position += starts[index] - run
                    run = -1
                dropped += 1
            index += 1
    if cursor[0] != end:
        return _BAD_RECORD
    if run >= 0:
        copy_bytes(out, out_position, base, run, end)
        out_position += end - run
    found[_NEW_HORIZON] = 0
    if retained > 0 and tombstones and horizon < 0:
        # Each length and each timestamp delta grows by less than ten bytes.
        found[_NEEDED] = 2 * (out_position - start) + 20 * retained
        if found[_NEEDED] > out_end - start:
            return _ROOM_NEEDED
        out_position = _count_from(out, start, out_position, retained, base_timestamp, fixed_timestamp, new_horizon)
        found[_NEW_HORIZON] = 1
    found[_RETAINED] = retained
    found[_DROPPED] = dropped
    found[_KEYLESS] = keyless
    found[_OUT_END] = out_position
    found[_GREATEST_TIMESTAMP] = greatest
    return _END


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.Py_ssize_t)
def _count_from(
    out: cython.p_uchar,
    start: cython.Py_ssize_t,
    end: cython.Py_ssize_t,
    count: cython.longlong,
    base_timestamp: cython.longlong,
    fixed_timestamp: cython.bint,
    horizon: cython.longlong,
) -> int:
    """Write the records of out[start:end] anew, timestamps counted from `horizon`; return where they end."""
    cursor: cython.longlong[1] = [start]
    scratch: cython.uchar[12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    length: cython.longlong
    record_end: cython.longlong
    delta: cython.longlong
    size: cython.Py_ssize_t
    written: cython.Py_ssize_t = end
    while count > 0:
        length = read_varint(out, cursor, end)
        record_end = cursor[0] + length
        cursor[0] += 1
        delta = read_varint(out, cursor, record_end)
        delta = add_int64(base_timestamp if fixed_timestamp else add_int64(base_timestamp, delta), -horizon)
        size = store_varint(scratch, 0, delta)
        written = store_varint(out, written, 1 + size + record_end - cursor[0])
        out[written] = 0
        copy_bytes(out, written + 1, scratch, 0, size)
        written += 1 + size
        copy_bytes(out, written, out, cursor[0], record_end)
        written += record_end - cursor[0]
        cursor[0] = record_end
        count -= 1
    copy_bytes(out, start, out, end, written)
    return start + written - end


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.bint)
def _holds(numbers: cython.p_const_longlong, count: cython.Py_ssize_t, wanted: cython.longlong) -> bool:
    """Whether the ascending numbers have the wanted one among them."""
    low: cython.Py_ssize_t = 0
    middle: cython.Py_ssize_t
    end: cython.Py_ssize_t = count
    while low < count:
        middle = (low + count) >> 1
        if numbers[middle] < wanted:
            low = middle + 1
        else:
            count = middle
    return low < end and numbers[low] == wanted


def filter_batches(
    data: cython.const[cython.uchar][::1],
    rows: cython.const[cython.longlong][::1],
    row: cython.Py_ssize_t,
    row_end: cython.Py_ssize_t,
    actions: cython.const[cython.uchar][::1],
    kept: cython.const[cython.longlong][::1],
    now_ms: cython.longlong,
    new_horizon: cython.longlong,
    table: cython.longlong[::1],
    state: cython.longlong[::1],
    out: cython.uchar[::1],
    out_position: cython.Py_ssize_t,
    found: cython.longlong[::1],
) -> tuple[int, int, int]:
    """Copy what stays of the batches of rows [row, row_end) to out[out_position:]; return (row, out_position, reason).

    A batch of which no record stays goes, unless its action or `kept` (last offsets, ascending) keeps it empty. Stops
    in front of a batch that is compressed, that holds a record that is none, or for which `out` has no room: it needs
    found[6] bytes. found[0:3] grow by the records that stayed, went, and went for want of a key.
    """
    reason: cython.int = _END
    _check_rows(len(data), rows, row, row_end, len(actions))
    _check_table(table, state)
    out_size: cython.Py_ssize_t = len(out)
    kept_count: cython.Py_ssize_t = len(kept)
    if len(found) < _FOUND_SIZE or not 0 <= out_position <= out_size:
        raise ValueError(f"{len(found)} results, position {out_position} of {out_size}")
    if row == row_end:
        return row, out_position, _END
    if out_size == 0:
        found[_NEEDED] = _HEADER_SIZE
        return row, out_position, _ROOM_NEEDED
    base: cython.p_const_uchar = cython.address(data[0]) if cython.compiled else data
    row_in: cython.p_const_longlong = cython.address(rows[0]) if cython.compiled else rows
    words: cython.p_longlong = cython.address(table[0]) if cython.compiled else table
    of_table: cython.p_longlong = cython.address(state[0]) if cython.compiled else state
    target: cython.p_uchar = cython.address(out[0]) if cython.compiled else out
    kept_in: cython.p_const_longlong = cython.NULL
    if kept_count:
        kept_in = cython.address(kept[0]) if cython.compiled else kept
    result: cython.longlong[7] = [0, 0, 0, 0, 0, 0, 0]
    at: cython.Py_ssize_t
    position: cython.Py_ssize_t
    size: cython.Py_ssize_t
    payload: cython.Py_ssize_t
    attributes: cython.longlong
    action: cython.int
    fixed: cython.bint
    with cython.nogil:
        while row < row_end:
            at = row * _ROW_WIDTH
            attributes = row_in[at + 5]
            action = actions[row]
            position = row_in[at]
            size = row_in[at + 1]
            if attributes & _CODEC_MASK and not action & _DISCARD:
                reason = _COMPRESSED
                break
            if out_size - out_position < _HEADER_SIZE:
                result[_NEEDED] = _HEADER_SIZE
                reason = _ROOM_NEEDED
                break
            payload = out_position + _HEADER_SIZE
            if row_in[at + 11] == 0 or action & _DISCARD:
                result[_RETAINED] = 0
                result[_DROPPED] = row_in[at + 11]
                result[_KEYLESS] = 0
            else:
                fixed = (attributes & _LOG_APPEND_TIME_BIT) != 0
                reason = _filter(
                    base,
                    position + _HEADER_SIZE,
                    position + size,
                    row_in[at + 11],
                    row_in[at + 2],
                    row_in[at + 7] if fixed else row_in[at + 6],
                    fixed,
                    row_in[at + 6] if attributes & _HORIZON_BIT else -1,
                    action,
                    now_ms,
                    new_horizon,
                    words,
                    of_table,
                    target,
                    payload,
                    out_size,
                    result,
                )
                if reason != _END:
                    result[_NEEDED] += _HEADER_SIZE
                    break
            if result[_RETAINED] == 0:
                if action & _KEEP or _holds(kept_in, kept_count, row_in[at + 3]):
                    copy_bytes(target, out_position, base, position, position + _HEADER_SIZE)
                    store_int32(target, out_position + 8, _HEADER_SIZE - _LENGTH_END)
                    target[out_position + 22] &= 0x38  # no codec, no delete horizon
                    store_int64(target, out_position + 27, -1)
                    store_int32(target, out_position + 57, 0)
                    store_int32(target, out_position + 17, crc_of(target, out_position + 21, payload, 0))
                    out_position = payload
            elif result[_DROPPED] == 0 and result[_NEW_HORIZON] == 0:
                copy_bytes(target, out_position, base, position, position + _HEADER_SIZE)
                out_position += size
            else:
                copy_bytes(target, out_position, base, position, position + _HEADER_SIZE)
                size = result[_OUT_END] - out_position
                store_int32(target, out_position + 8, size - _LENGTH_END)
                if result[_NEW_HORIZON]:
                    target[out_position + 22] |= 0x40
                    store_int64(target, out_position + 27, new_horizon)
                if not attributes & _LOG_APPEND_TIME_BIT:
                    store_int64(target, out_position + 35, result[_GREATEST_TIMESTAMP])
                store_int32(target, out_position + 57, result[_RETAINED])
                store_int32(target, out_position + 17, crc_of(target, out_position + 21, result[_OUT_END], 0))
                out_position = result[_OUT_END]
            found[_RETAINED] += result[_RETAINED]
            found[_DROPPED] += result[_DROPPED]
            found[_KEYLESS] += result[_KEYLESS]
            row += 1
    found[_NEEDED] = result[_NEEDED]
    return row, out_position, reason


def filter_payload(
    payload: cython.const[cython.uchar][::1],
    count: cython.longlong,
    base_offset: cython.longlong,
    base_timestamp: cython.longlong,
    fixed_timestamp: cython.bint,
    horizon: cython.longlong,
    action: cython.int,
    now_ms: cython.longlong,
    new_horizon: cython.longlong,
    table: cython.longlong[::1],
    state: cython.longlong[::1],
    out: cython.uchar[::1],
    found: cython.longlong[::1],
) -> int:
    """Copy what stays of one decompressed batch's records to `out`; return END, BAD_RECORD or ROOM_NEEDED.

    `base_timestamp` is the batch's, or with fixed_timestamp (LogAppendTime) that of each record; `horizon` is -1 where
    the batch has none. `found` is set: records that stayed, went, went for want of a key, where they end in `out`,
    their greatest timestamp, whether they count from `new_horizon` now, and the room needed.
    """
    size: cython.Py_ssize_t = len(payload)
    out_size: cython.Py_ssize_t = len(out)
    reason: cython.int
    _check_table(table, state)
    if len(found) < _FOUND_SIZE:
        raise ValueError(f"{len(found)} results")
    if size == 0 or count <= 0:
        return _BAD_RECORD
    if out_size == 0:
        found[_NEEDED] = size
        return _ROOM_NEEDED
    base: cython.p_const_uchar = cython.address(payload[0]) if cython.compiled else payload
    words: cython.p_longlong = cython.address(table[0]) if cython.compiled else table
    of_table: cython.p_longlong = cython.address(state[0]) if cython.compiled else state
    target: cython.p_uchar = cython.address(out[0]) if cython.compiled else out
    result: cython.p_longlong = cython.address(found[0]) if cython.compiled else found
    with cython.nogil:
        reason = _filter(
            base,
            0,
            size,
            count,
            base_offset,
            base_timestamp,
            fixed_timestamp,
            horizon,
            action,
            now_ms,
            new_horizon,
            words,
            of_table,
            target,
            0,
            out_size,
            result,
        )
    return reason


def find_offset(key: cython.const[cython.uchar][::1], table: cython.longlong[::1], state: cython.longlong[::1]) -> int:
    """Return the newest offset noted for the key, -1 where there is none."""
    _check_table(table, state)
    size: cython.Py_ssize_t = len(key)
    hashed: cython.longlong[2] = [0, 0]
    empty: cython.const[cython.uchar][::1] = key if size else b"\0"
    base: cython.p_const_uchar = cython.address(empty[0]) if cython.compiled else empty
    words: cython.p_longlong = cython.address(table[0]) if cython.compiled else table
    hash_key(base, 0, size, state[_SECRET], state[_SECRET + 1], hashed)
    at: cython.Py_ssize_t = _first_place(state[_PLACES], hashed[0])
    return words[_place(words, state[_PLACES], at, hashed[0], hashed[1]) + 2] - 1


@cython.cfunc
@cython.exceptval(-1)
@cython.returns(cython.int)
def _check_rows(
    size: cython.Py_ssize_t,
    rows: cython.const[cython.longlong][::1],
    row: cython.Py_ssize_t,
    row_end: cython.Py_ssize_t,
    actions: cython.Py_ssize_t,
) -> int:
    # That the rows are of this data: nothing outside of it is read, whatever they say.
    if not 0 <= row <= row_end or row_end * _ROW_WIDTH > len(rows) or row_end > actions:
        raise ValueError(f"rows {row} to {row_end} of {len(rows) // _ROW_WIDTH}, {actions} actions")
    at: cython.Py_ssize_t
    while row < row_end:
        at = row * _ROW_WIDTH
        if rows[at] < 0 or rows[at + 1] < _HEADER_SIZE or rows[at] > size - rows[at + 1]:
            raise ValueError(f"row {row}: {rows[at + 1]} bytes at {rows[at]} do not lie within {size}")
        row += 1
    return 0


@cython.cfunc
@cython.exceptval(-1)
@cython.returns(cython.int)
def _check_table(table: cython.longlong[::1], state: cython.longlong[::1]) -> int:
    # A table always has an empty place, or a search for what is not there would not end.
    if len(state) < _STATE_SIZE:
        raise ValueError(f"a state has {_STATE_SIZE} integers, not {len(state)}")
    places: cython.longlong = state[_PLACES]
    if not 0 < places <= 1 << 31 or places > len(table) // _ENTRY_WORDS or not 0 <= state[_ENTRIES_MAX] < places:
        raise ValueError(f"{places} places for {state[_ENTRIES_MAX]} entries in a table of {len(table)} words")
    return 0


def is_compiled() -> bool:
    """Whether this is the compiled kernel; `millstream doctor` tells."""
    return cython.compiled
