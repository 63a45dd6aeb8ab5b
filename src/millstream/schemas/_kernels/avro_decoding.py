"""Avro datums into Arrow's buffers: the program of a pair of schemas run over many values a call.

A program is a table of instructions, four ints each (`opcodes.py` says what each does and with what), compiled once for
a writer's and a reader's schema; programs of several writers lie behind each other in one table, and a value's schema
id says where its own begins. The columns to be filled are those of the reader's schema, sixteen int64s each (`Column`
in native.h): where Arrow's buffers lie, and how far they are filled. Instructions that only skip make the same loop a
validation: then there are no columns.

A datum is decoded in one pass. A bad one is noted, and what it appended is taken back: a column's length follows from
its parent's. The same happens to the datum that a buffer has no room for; then the call ends, having noted in the
columns how much room is wanted, and the caller goes on with that row. So nothing is allocated here, and the GIL is not
needed. No datum reads beyond its end. Loads may go beyond it, but not beyond `data`.

    positions, sizes   where each value lies in `data`; a negative size is a null and is passed over. Without sizes a
                       value ends where the next one begins
    framing            0 a bare datum, 1 behind a zero byte and four bytes of schema id
    numbers            which schema a value was written with where something else than the value says so; NOT_NUMBERED:
                       its prefix does. Without any all are framed alike
    ids, starts        schema ids and where their programs begin; with bare datums starts[0] is the only one
    tables             what instructions need more of than four ints hold: branches, symbols, columns of list items
    pool               the reader's defaults, as datums, and the bounds of decimals
    rows_out           for each datum decoded the row it came from
    bad_out            for each bad one four numbers: row, reason, position in its value, instruction
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if not cython.compiled:
    from millstream.schemas._kernels.interpreted import (
        Column,
        Varint,
        check_digits,
        is_time,
        load_id,
        put_bool,
        put_bytes,
        put_double_bits,
        put_fixed,
        put_float_as_double,
        put_float_bits,
        put_int32,
        put_list,
        put_null,
        put_struct,
        put_union,
        read_size,
        read_small_varint,
        reserve,
        roll_back,
        set_valid,
        skip_bytes,
        skip_int,
        skip_long,
        skip_text,
        take_bytes,
        take_decimal,
        take_int,
        take_long,
        take_promoted,
        take_text,
        take_time,
    )
    from millstream.schemas._kernels.opcodes import (
        BAD_BLOCK,
        BAD_BOOLEAN,
        BAD_BRANCH,
        BAD_COUNT,
        BAD_DEPTH,
        BAD_EMPTY_ITEMS,
        BAD_FRAMING,
        BAD_RANGE,
        BAD_READER_SYMBOL,
        BAD_RESOLUTION,
        BAD_SYMBOL,
        BAD_TRAILING,
        BAD_TRUNCATED,
        GOOD,
        NO_ROOM,
        OP_BLOCK,
        OP_BLOCKS,
        OP_BOOLEAN,
        OP_BRANCH,
        OP_BYTES,
        OP_CALL,
        OP_CAPTURE,
        OP_CAPTURED,
        OP_CHECK_DIGITS,
        OP_CHECK_TIME,
        OP_DECIMAL_BYTES,
        OP_DECIMAL_FIXED,
        OP_DEFAULT,
        OP_DIVIDED,
        OP_DOUBLE,
        OP_END,
        OP_ENUM,
        OP_FIXED,
        OP_FLOAT,
        OP_FLOAT_AS_DOUBLE,
        OP_INT,
        OP_INT_AS_DOUBLE,
        OP_INT_AS_FLOAT,
        OP_INT_AS_LONG,
        OP_JUMP,
        OP_LONG,
        OP_LONG_AS_DOUBLE,
        OP_LONG_AS_FLOAT,
        OP_NEXT,
        OP_NULLABLE,
        OP_PUT_NULL,
        OP_RAW,
        OP_RESUME,
        OP_RETURN,
        OP_SCALED,
        OP_SET_VALID,
        OP_SKIP_BOOLEAN,
        OP_SKIP_BYTES,
        OP_SKIP_ENUM,
        OP_SKIP_FIXED,
        OP_SKIP_INT,
        OP_SKIP_LONG,
        OP_SKIP_NULLABLE,
        OP_SKIP_RAW,
        OP_SKIP_STRING,
        OP_STRING,
        OP_STRUCT,
        OP_UNION,
    )

# How deep lists, maps and recursive records may lie in each other.
_DEPTH_MAX = cython.declare(cython.int, 128)
_INT64_MAX = cython.declare(cython.longlong, 9223372036854775807)
_NOT_NUMBERED = cython.declare(cython.int, -2147483648)

DEPTH_MAX = 128
NOT_NUMBERED = -(2**31)


def is_compiled() -> bool:
    """Return whether this module runs compiled."""
    return bool(cython.compiled)


def decode_datums(
    data: cython.const[cython.uchar][::1],
    positions: cython.const[cython.longlong][::1],
    sizes: cython.const[cython.longlong][::1],
    numbers: cython.const[cython.int][::1],
    row: cython.Py_ssize_t,
    stop: cython.Py_ssize_t,
    framing: cython.int,
    ids: cython.const[cython.int][::1],
    starts: cython.const[cython.int][::1],
    code: cython.const[cython.int][::1],
    tables: cython.const[cython.int][::1],
    pool: cython.const[cython.uchar][::1],
    columns: cython.longlong[::1],
    done: cython.Py_ssize_t,
    rows_out: cython.longlong[::1],
    bad_out: cython.longlong[::1],
    empty_items_max: cython.longlong,
) -> tuple[int, int, int, int]:
    """Decode values row to stop behind the `done` rows that the columns hold.

    Return the row it came to, the rows that the columns hold now, how many bad ones were noted, and why it ended before
    `stop`: 0 it didn't, 1 a column has no room, 2 a schema id has no program, 3 `bad_out` is full. At most
    `empty_items_max` items without bytes are believed in a datum. Raises ValueError for a value outside of `data`.
    """
    size: cython.longlong = len(data)
    pool_size: cython.longlong = len(pool)
    column_count: cython.Py_ssize_t = len(columns) // 16
    id_count: cython.Py_ssize_t = len(ids)
    if len(starts) < id_count:
        raise ValueError(f"{len(starts)} programs are not enough for {id_count} schema ids")
    bad_room: cython.Py_ssize_t = len(bad_out) // 4
    numbered: cython.bint = len(numbers) > 0
    if numbered and len(numbers) < stop:
        raise ValueError(f"{len(numbers)} numbers are not enough for {stop} values")
    sized: cython.bint = len(sizes) > 0
    if not 0 <= row <= stop <= (len(sizes) if sized else max(0, len(positions) - 1)) or stop > len(positions):
        raise ValueError(f"[{row}, {stop}) does not lie within {len(positions)} values")
    if done < 0 or done + stop - row > len(rows_out):
        raise ValueError(f"{stop - row} rows behind {done} do not fit into {len(rows_out)}")
    if row == stop:
        return row, done, 0, 0
    values: cython.p_const_uchar = b""
    if size > 0:
        values = cython.address(data[0]) if cython.compiled else data
    defaults: cython.p_const_uchar = b""
    if pool_size > 0:
        defaults = cython.address(pool[0]) if cython.compiled else pool
    table: cython.pointer(Column)
    if column_count > 0:
        table = cython.cast(cython.pointer(Column), cython.address(columns[0])) if cython.compiled else columns
    else:
        table = cython.NULL if cython.compiled else columns

    program: cython.p_const_int = cython.address(code[0]) if cython.compiled else code
    # Frames: what is left of a block and where it ends, where to return to, or where a capture began.
    counts: cython.longlong[128] = [0] * 128
    ends: cython.longlong[128] = [0] * 128
    depth: cython.int
    base: cython.p_const_uchar
    position: cython.longlong
    after: cython.longlong
    end: cython.longlong
    # Whether sixteen bytes may be loaded from anywhere up to `end`.
    wide: cython.bint
    # Where the datum goes on behind a default.
    resume_position: cython.longlong = 0
    resume_end: cython.longlong = 0
    resume_wide: cython.bint = False
    empty_items: cython.longlong
    schema_id: cython.longlong = -1
    # The program of the last row; ids are looked up only where they change.
    last_id: cython.longlong = -1
    last_start: cython.Py_ssize_t = starts[0] if len(starts) > 0 else 0
    known: cython.bint = framing == 0
    pc: cython.Py_ssize_t
    at: cython.Py_ssize_t
    index: cython.Py_ssize_t
    column: cython.Py_ssize_t
    number: Varint
    value: cython.longlong
    status: cython.int
    ended: cython.int = 0
    bad: cython.Py_ssize_t = 0
    outside: cython.bint = False
    op: cython.int
    with cython.nogil:
        while row < stop:
            position = positions[row]
            if sized:
                if sizes[row] < 0:
                    row += 1
                    continue
                end = sizes[row]
                if position < 0 or end > size - position:
                    outside = True
                    break
                end += position
            else:
                end = positions[row + 1]
                if position < 0 or end < position or end > size:
                    outside = True
                    break
            base = values
            wide = size - end >= 16
            status = GOOD
            pc = last_start
            if framing != 0:
                if numbered and numbers[row] != _NOT_NUMBERED:
                    schema_id = numbers[row]
                elif end - position < 5 or base[position] != 0:
                    status = BAD_FRAMING
                else:
                    schema_id = load_id(base, position + 1)
                    position += 5
                if status == GOOD:
                    if schema_id != last_id or not known:
                        known = False
                        for at in range(id_count):
                            if ids[at] == schema_id:
                                known = True
                                last_id = schema_id
                                last_start = starts[at]
                                break
                        if not known:
                            ended = 2
                            break
                    pc = last_start
            depth = 0
            empty_items = 0
            while status == GOOD:
                op = program[pc]
                column = program[pc + 1]
                if op == OP_END:
                    if position != end:
                        status = BAD_TRAILING
                    break
                if op == OP_NULLABLE:
                    number = read_small_varint(base, position, end, wide)
                    if number.position < 0:
                        status = cython.cast(cython.int, -number.position)
                        break
                    if number.value == program[pc + 2]:
                        position = number.position
                        put_null(table, column)
                        pc = program[pc + 3]
                        continue
                    if number.value != 1 - program[pc + 2]:
                        status = BAD_BRANCH
                        break
                    position = number.position
                    set_valid(table, column)
                elif op == OP_STRING:
                    after = take_text(table, column, base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op == OP_LONG:
                    after = take_long(table, column, base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op == OP_INT:
                    after = take_int(table, column, base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op == OP_DOUBLE:
                    if end - position < 8:
                        status = BAD_TRUNCATED
                        break
                    put_double_bits(table, column, base, position)
                    position += 8
                elif op == OP_FLOAT:
                    if end - position < 4:
                        status = BAD_TRUNCATED
                        break
                    put_float_bits(table, column, base, position)
                    position += 4
                elif op == OP_FLOAT_AS_DOUBLE:
                    if end - position < 4:
                        status = BAD_TRUNCATED
                        break
                    put_float_as_double(table, column, base, position)
                    position += 4
                elif op == OP_BOOLEAN:
                    if position >= end:
                        status = BAD_TRUNCATED
                        break
                    if base[position] > 1:
                        status = BAD_BOOLEAN
                        break
                    put_bool(table, column, base[position])
                    position += 1
                elif op == OP_BYTES:
                    after = take_bytes(table, column, base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op == OP_RAW:
                    if not put_bytes(table, column, base, position, end - position, wide):
                        status = NO_ROOM
                        break
                    position = end
                elif op == OP_FIXED:
                    if end - position < program[pc + 2]:
                        status = BAD_TRUNCATED
                        break
                    put_fixed(table, column, base, position, program[pc + 2])
                    position += program[pc + 2]
                elif op == OP_ENUM:
                    number = read_small_varint(base, position, end, wide)
                    if number.position < 0:
                        status = cython.cast(cython.int, -number.position)
                        break
                    if number.value < 0 or number.value >= program[pc + 2]:
                        status = BAD_SYMBOL
                        break
                    value = number.value
                    if program[pc + 3] >= 0:
                        value = tables[program[pc + 3] + number.value]
                        if value < 0:
                            status = BAD_READER_SYMBOL
                            break
                    position = number.position
                    put_int32(table, column, value)
                elif op == OP_STRUCT:
                    put_struct(table, column)
                elif op == OP_SET_VALID:
                    set_valid(table, column)
                elif op == OP_PUT_NULL:
                    put_null(table, column)
                elif op == OP_UNION:
                    put_union(table, column, program[pc + 2], program[pc + 3])
                elif op == OP_BRANCH:
                    number = read_small_varint(base, position, end, wide)
                    if number.position < 0:
                        status = cython.cast(cython.int, -number.position)
                        break
                    if number.value < 0 or number.value >= program[pc + 3]:
                        status = BAD_BRANCH
                        break
                    position = number.position
                    pc = tables[program[pc + 2] + number.value]
                    continue
                elif op == OP_JUMP:
                    pc = program[pc + 2]
                    continue
                elif op == OP_BLOCKS:
                    if depth >= _DEPTH_MAX:
                        status = BAD_DEPTH
                        break
                    depth += 1
                elif op == OP_BLOCK:
                    at = program[pc + 2]
                    number = read_small_varint(base, position, end, wide)
                    if number.position < 0:
                        status = cython.cast(cython.int, -number.position)
                        break
                    value = number.value
                    if value == 0:
                        position = number.position
                        depth -= 1
                        if column >= 0:
                            put_list(table, column, tables[at + 1])
                        pc = program[pc + 3]
                        continue
                    after = number.position
                    ends[depth - 1] = -1
                    if value < 0:
                        number = read_size(base, after, end, wide)
                        if number.position < 0:
                            status = cython.cast(cython.int, -number.position)
                            break
                        after = number.position
                        # The lowest number has no opposite; its count is beyond all bytes anyway.
                        value = -value if value != -_INT64_MAX - 1 else _INT64_MAX
                        ends[depth - 1] = after + number.value
                    if tables[at] == 0:
                        if value > empty_items_max - empty_items:
                            status = BAD_EMPTY_ITEMS
                            break
                        empty_items += value
                    elif value > (end - after) // tables[at]:
                        status = BAD_COUNT
                        break
                    position = after
                    if tables[at + 2] != 0 and ends[depth - 1] >= 0:
                        position = ends[depth - 1]
                        continue
                    for index in range(at + 4, at + 4 + tables[at + 3]):
                        if not reserve(table, tables[index], value):
                            status = NO_ROOM
                    if status != GOOD:
                        break
                    counts[depth - 1] = value
                elif op == OP_NEXT:
                    counts[depth - 1] -= 1
                    if counts[depth - 1] > 0:
                        pc = program[pc + 2]
                        continue
                    if ends[depth - 1] >= 0 and ends[depth - 1] != position:
                        status = BAD_BLOCK
                        break
                    pc = program[pc + 3]
                    continue
                elif op in (OP_DECIMAL_BYTES, OP_DECIMAL_FIXED):
                    value = program[pc + 3] if op == OP_DECIMAL_FIXED else -1
                    after = take_decimal(table, column, defaults, program[pc + 2], value, base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op in (OP_INT_AS_LONG, OP_INT_AS_FLOAT, OP_INT_AS_DOUBLE, OP_LONG_AS_FLOAT, OP_LONG_AS_DOUBLE):
                    after = take_promoted(table, column, op, base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op == OP_CHECK_TIME:
                    if not is_time(table, column, program[pc + 2]):
                        status = BAD_RANGE
                        break
                elif op == OP_CHECK_DIGITS:
                    at = program[pc + 2]
                    status = check_digits(
                        defaults, tables[at + 1], tables[at + 2], tables[at], base, position, end, wide
                    )
                    if status != GOOD:
                        break
                elif op in (OP_SCALED, OP_DIVIDED):
                    after = take_time(table, column, op, program[pc + 2], base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op == OP_DEFAULT:
                    resume_position = position
                    resume_end = end
                    resume_wide = wide
                    base = defaults
                    position = program[pc + 2]
                    end = position + program[pc + 3]
                    wide = pool_size - end >= 16
                elif op == OP_RESUME:
                    base = values
                    position = resume_position
                    end = resume_end
                    wide = resume_wide
                elif op == OP_SKIP_NULLABLE:
                    number = read_small_varint(base, position, end, wide)
                    if number.position < 0:
                        status = cython.cast(cython.int, -number.position)
                        break
                    if number.value == program[pc + 2]:
                        position = number.position
                        pc = program[pc + 3]
                        continue
                    if number.value != 1 - program[pc + 2]:
                        status = BAD_BRANCH
                        break
                    position = number.position
                elif op == OP_SKIP_LONG:
                    after = skip_long(base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op == OP_SKIP_STRING:
                    after = skip_text(base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op == OP_SKIP_INT:
                    after = skip_int(base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op == OP_SKIP_BYTES:
                    after = skip_bytes(base, position, end, wide)
                    if after < 0:
                        status = cython.cast(cython.int, -after)
                        break
                    position = after
                elif op == OP_SKIP_FIXED:
                    if end - position < program[pc + 2]:
                        status = BAD_TRUNCATED
                        break
                    position += program[pc + 2]
                elif op == OP_SKIP_BOOLEAN:
                    if position >= end:
                        status = BAD_TRUNCATED
                        break
                    if base[position] > 1:
                        status = BAD_BOOLEAN
                        break
                    position += 1
                elif op == OP_SKIP_ENUM:
                    number = read_small_varint(base, position, end, wide)
                    if number.position < 0:
                        status = cython.cast(cython.int, -number.position)
                        break
                    if number.value < 0 or number.value >= program[pc + 2]:
                        status = BAD_SYMBOL
                        break
                    position = number.position
                elif op == OP_SKIP_RAW:
                    position = end
                elif op == OP_CALL:
                    if depth >= _DEPTH_MAX:
                        status = BAD_DEPTH
                        break
                    counts[depth] = pc + 4
                    depth += 1
                    pc = program[pc + 2]
                    continue
                elif op == OP_RETURN:
                    depth -= 1
                    pc = cython.cast(cython.Py_ssize_t, counts[depth])
                    continue
                elif op == OP_CAPTURE:
                    if depth >= _DEPTH_MAX:
                        status = BAD_DEPTH
                        break
                    counts[depth] = position
                    depth += 1
                elif op == OP_CAPTURED:
                    depth -= 1
                    if not put_bytes(table, column, base, counts[depth], position - counts[depth], wide):
                        status = NO_ROOM
                        break
                else:
                    # OP_FAIL: what the writer wrote here cannot be read as the reader's.
                    status = BAD_RESOLUTION
                    break
                pc += 4
            if status == GOOD:
                rows_out[done] = row
                done += 1
                row += 1
                continue
            roll_back(table, column_count, done)
            if status == NO_ROOM:
                ended = 1
                break
            if bad == bad_room:
                ended = 3
                break
            bad_out[4 * bad] = row
            bad_out[4 * bad + 1] = status
            bad_out[4 * bad + 2] = position - positions[row]
            bad_out[4 * bad + 3] = pc
            bad += 1
            row += 1
    if outside:
        raise ValueError(f"row {row} does not lie within {size} bytes")
    return row, done, bad, ended
