"""Arrow's columns into Avro datums: a schema's instructions run over many rows a call.

The counterpart of `avro_decoding`, and in the same manner: instructions of four ints, columns as eight int64s each
(`Source` in native.h) that say where Arrow's buffers lie, one pass over the rows, the GIL released, nothing allocated.
Where the output ends, the call ends in front of the row that did not fit, and the caller goes on with it.
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if not cython.compiled:
    from millstream.schemas._kernels.interpreted import (
        Source,
        source_bit,
        source_int32,
        source_int64,
        source_is_valid,
        source_offset,
        source_symbol,
        write_bytes,
        write_decimal,
        write_number,
        write_source_bytes,
        write_word,
    )
    from millstream.schemas._kernels.opcodes import (
        WRITE_BLOCKS,
        WRITE_BOOLEAN,
        WRITE_BRANCH,
        WRITE_BYTES,
        WRITE_CHOICE,
        WRITE_DECIMAL,
        WRITE_END,
        WRITE_ENUM,
        WRITE_FIXED,
        WRITE_INT,
        WRITE_JUMP,
        WRITE_LONG,
        WRITE_NEXT,
        WRITE_NULLABLE,
        WRITE_RAW,
        WRITE_REQUIRED,
        WRITE_WORD,
    )

# A varint takes ten bytes, and eight stored at once reach a little beyond.
_VARINT_ROOM = cython.declare(cython.longlong, 24)
_DEPTH_MAX = cython.declare(cython.int, 128)


def is_compiled() -> bool:
    """Return whether this module runs compiled."""
    return bool(cython.compiled)


def encode_datums(
    sources: cython.const[cython.longlong][::1],
    row: cython.Py_ssize_t,
    stop: cython.Py_ssize_t,
    code: cython.const[cython.int][::1],
    tables: cython.const[cython.int][::1],
    pool: cython.const[cython.uchar][::1],
    prefix_size: cython.Py_ssize_t,
    out: cython.uchar[::1],
    offsets_out: cython.int[::1],
) -> tuple[int, int, int]:
    """Write rows row to stop as datums behind each other, each behind the first `prefix_size` bytes of the pool.

    offsets_out[row] says where to go on. Return the row it came to, why it ended before `stop`, and at which
    instruction: 0 it didn't, 1 `out` has no room, 2 a null where the schema has none, 3 a value that the schema has no
    symbol or branch for, 4 a decimal that is too long for its fixed, 5 lists too deep, 6 a union of several values.
    """
    room: cython.longlong = len(out)
    if not 0 <= row <= stop < len(offsets_out):
        raise ValueError(f"[{row}, {stop}) does not lie within {len(offsets_out) - 1} rows")
    if prefix_size > len(pool):
        raise ValueError(f"a prefix of {prefix_size} bytes does not lie within {len(pool)}")
    if row == stop:
        return row, 0, 0
    position: cython.longlong = offsets_out[row]
    if not 0 <= position <= room:
        raise ValueError(f"{position} does not lie within {room} bytes")
    if room == 0:
        return row, 1, 0
    target: cython.p_uchar = cython.address(out[0]) if cython.compiled else out
    table: cython.pointer(Source)
    if len(sources) > 0:
        table = cython.cast(cython.pointer(Source), cython.address(sources[0])) if cython.compiled else sources
    else:
        table = cython.NULL if cython.compiled else sources
    constants: cython.p_const_uchar = b""
    if len(pool) > 0:
        constants = cython.address(pool[0]) if cython.compiled else pool
    program: cython.p_const_int = cython.address(code[0]) if cython.compiled else code
    # Frames: where the list's own value lies, and the last of its items.
    indexes: cython.longlong[128] = [0] * 128
    ends: cython.longlong[128] = [0] * 128
    depth: cython.int
    index: cython.longlong
    start: cython.longlong
    size: cython.longlong
    pc: cython.Py_ssize_t = 0
    at: cython.Py_ssize_t
    column: cython.Py_ssize_t
    op: cython.int
    ended: cython.int = 0
    with cython.nogil:
        while row < stop:
            pc = 0
            depth = 0
            index = row
            if room - position < prefix_size:
                ended = 1
                break
            if prefix_size > 0:
                position = write_bytes(target, position, constants, 0, prefix_size)
            while True:
                op = program[pc]
                column = program[pc + 1]
                if room - position < _VARINT_ROOM:
                    ended = 1
                    break
                if op == WRITE_END:
                    break
                if op == WRITE_BYTES:
                    start = source_offset(table, column, index)
                    size = source_offset(table, column, index + 1) - start
                    if size > room - position - _VARINT_ROOM:
                        ended = 1
                        break
                    position = write_number(target, position, size)
                    position = write_source_bytes(target, position, table, column, start, size)
                elif op == WRITE_LONG:
                    position = write_number(target, position, source_int64(table, column, index))
                elif op == WRITE_INT:
                    position = write_number(target, position, source_int32(table, column, index))
                elif op == WRITE_NULLABLE:
                    if not source_is_valid(table, column, index):
                        target[position] = 2 * program[pc + 2]
                        position += 1
                        pc = program[pc + 3]
                        continue
                    target[position] = 2 - 2 * program[pc + 2]
                    position += 1
                elif op == WRITE_RAW:
                    start = source_offset(table, column, index)
                    size = source_offset(table, column, index + 1) - start
                    if size > room - position:
                        ended = 1
                        break
                    position = write_source_bytes(target, position, table, column, start, size)
                elif op == WRITE_WORD:
                    position = write_word(target, position, table, column, index, program[pc + 2])
                elif op == WRITE_BOOLEAN:
                    target[position] = source_bit(table, column, index)
                    position += 1
                elif op == WRITE_FIXED:
                    size = program[pc + 2]
                    if size > room - position:
                        ended = 1
                        break
                    position = write_source_bytes(target, position, table, column, index * size, size)
                elif op == WRITE_ENUM:
                    size = source_symbol(table, column, index)
                    if size < 0:
                        ended = 3
                        break
                    position = write_number(target, position, size)
                elif op == WRITE_DECIMAL:
                    if program[pc + 2] + program[pc + 3] > room - position - _VARINT_ROOM:
                        ended = 1
                        break
                    start = write_decimal(target, position, table, column, index, program[pc + 2], program[pc + 3])
                    if start < 0:
                        ended = 4
                        break
                    position = start
                elif op == WRITE_REQUIRED:
                    if not source_is_valid(table, column, index):
                        ended = 2
                        break
                elif op == WRITE_CHOICE:
                    at = program[pc + 2]
                    size = at + 2 * program[pc + 3]
                    while at < size and tables[at] >= 0 and not source_is_valid(table, tables[at], index):
                        at += 2
                    if at == size:
                        ended = 3
                        break
                    start = tables[at + 1]
                    at += 2
                    while at < size and (tables[at] < 0 or not source_is_valid(table, tables[at], index)):
                        at += 2
                    if at < size:
                        ended = 6
                        break
                    pc = start
                    continue
                elif op == WRITE_BRANCH:
                    position = write_number(target, position, program[pc + 2])
                elif op == WRITE_JUMP:
                    pc = program[pc + 2]
                    continue
                elif op == WRITE_BLOCKS:
                    start = source_offset(table, column, index)
                    size = source_offset(table, column, index + 1)
                    if start >= size:
                        position = write_number(target, position, 0)
                        pc = program[pc + 2]
                        continue
                    if depth >= _DEPTH_MAX:
                        ended = 5
                        break
                    position = write_number(target, position, size - start)
                    indexes[depth] = index
                    ends[depth] = size
                    depth += 1
                    index = start
                elif op == WRITE_NEXT:
                    index += 1
                    if index < ends[depth - 1]:
                        pc = program[pc + 2]
                        continue
                    depth -= 1
                    index = indexes[depth]
                    position = write_number(target, position, 0)
                else:
                    # WRITE_CONSTANT
                    size = program[pc + 3]
                    if size > room - position:
                        ended = 1
                        break
                    position = write_bytes(target, position, constants, program[pc + 2], size)
                pc += 4
            if ended != 0:
                break
            row += 1
            if position > 2147483647:
                row -= 1
                ended = 1
                break
            offsets_out[row] = cython.cast(cython.int, position)
    return row, ended, pc
