"""What `native.h` does, in Python: the kernels import these when they run interpreted.

Same names, same arguments, same results. `columns` is the flat array of int64s; its addresses are read and written
through ctypes, each access checked against the column's capacity first.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from typing import Any, NamedTuple

from millstream.schemas._kernels.opcodes import (
    BAD_DECIMAL,
    BAD_INT,
    BAD_RANGE,
    BAD_SIZE,
    BAD_TEXT,
    BAD_TRUNCATED,
    BAD_VARINT,
    COLUMN_FIELDS,
    FIELD_CAPACITY,
    FIELD_CHILD,
    FIELD_DATA,
    FIELD_KEPT,
    FIELD_KIND,
    FIELD_LENGTH,
    FIELD_NULLS,
    FIELD_OFFSETS,
    FIELD_PARENT,
    FIELD_ROOM,
    FIELD_SIBLING,
    FIELD_USED,
    FIELD_VALIDITY,
    FIELD_WANTED,
    FIELD_WANTED_ROOM,
    FIELD_WIDTH,
    GOOD,
    KIND_BITS,
    KIND_BYTES,
    KIND_FIXED,
    KIND_LIST,
    KIND_UNION,
    NO_ROOM,
    OP_INT_AS_DOUBLE,
    OP_INT_AS_FLOAT,
    OP_INT_AS_LONG,
    OP_LONG_AS_FLOAT,
    OP_SCALED,
    SLACK,
    SOURCE_BITS_START,
    SOURCE_DATA,
    SOURCE_FIELDS,
    SOURCE_OFFSETS,
    SOURCE_SYMBOL_COUNT,
    SOURCE_SYMBOLS,
    SOURCE_VALIDITY,
    SOURCE_VALIDITY_START,
)

Column = object
Source = object


class Varint(NamedTuple):
    """A number and where it ends, or why it cannot be read, negated."""

    value: int
    position: int


def read_varint(data: Any, position: int, end: int, _wide: bool) -> Varint:
    """Return the zigzag varint within data[position:end]."""
    raw = 0
    for shift in range(0, 70, 7):
        if position >= end:
            return Varint(0, -BAD_TRUNCATED)
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return Varint(0, -BAD_VARINT) if shift == 63 and byte > 1 else Varint((raw >> 1) ^ -(raw & 1), position)
    return Varint(0, -BAD_VARINT)


read_small_varint = read_varint


def read_size(data: Any, position: int, end: int, wide: bool) -> Varint:
    """Return the size of what follows, which lies before `end`."""
    read = read_varint(data, position, end, wide)
    return Varint(0, -BAD_SIZE) if read.position >= 0 and not 0 <= read.value <= end - read.position else read


def skip_long(data: Any, position: int, end: int, wide: bool) -> int:
    """Return where a varint ends, or why it cannot be read, negated."""
    return read_varint(data, position, end, wide).position


def skip_int(data: Any, position: int, end: int, wide: bool) -> int:
    """Return likewise where a varint of 32 bits ends."""
    read = read_varint(data, position, end, wide)
    return read.position if _is_int32(read.value) else -BAD_INT


def skip_bytes(data: Any, position: int, end: int, wide: bool) -> int:
    """Return likewise where sized bytes end."""
    size = read_size(data, position, end, wide)
    return size.position if size.position < 0 else size.position + size.value


def skip_text(data: Any, position: int, end: int, wide: bool) -> int:
    """Return likewise where sized UTF-8 ends."""
    size = read_size(data, position, end, wide)
    if size.position < 0 or _is_text(data, size.position, size.value):
        return size.position if size.position < 0 else size.position + size.value
    return -BAD_TEXT


def _is_int32(value: int) -> bool:
    return -(1 << 31) <= value < 1 << 31


def _is_text(data: Any, position: int, size: int) -> bool:
    try:
        bytes(data[position : position + size]).decode()
    except UnicodeDecodeError:
        return False
    return True


def load_id(data: Any, position: int) -> int:
    """Return the big-endian number of four bytes at `position`."""
    return int.from_bytes(bytes(data[position : position + 4]), "big")


def _field(columns: Any, at: int, field: int) -> int:
    return int(columns[at * COLUMN_FIELDS + field])


def _store(address: int, content: bytes) -> None:
    ctypes.memmove(address, content, len(content))


def _load_int32(address: int) -> int:
    return ctypes.c_int32.from_address(address).value


def _append(columns: Any, at: int) -> int:
    """Count one more value; return its index."""
    index = _field(columns, at, FIELD_LENGTH)
    assert index < _field(columns, at, FIELD_CAPACITY), f"column {at} is full with {index} values"
    columns[at * COLUMN_FIELDS + FIELD_LENGTH] = index + 1
    return index


def _set_bit(bits: int, index: int, on: bool) -> None:
    byte = ctypes.c_uint8.from_address(bits + (index >> 3))
    mask = 1 << (index & 7)
    byte.value = byte.value & ~mask | (mask if on else 0)


def _length(columns: Any, at: int) -> int:
    return _field(columns, at, FIELD_LENGTH)


def set_valid(columns: Any, at: int) -> None:
    """Note that the next value is not null."""
    _set_bit(_field(columns, at, FIELD_VALIDITY), _field(columns, at, FIELD_LENGTH), True)


def _put(columns: Any, at: int, content: bytes) -> None:
    _store(_field(columns, at, FIELD_DATA) + _append(columns, at) * len(content), content)


def put_int32(columns: Any, at: int, value: int) -> None:
    """Append an int32."""
    _put(columns, at, struct.pack("=i", value))


def put_int64(columns: Any, at: int, value: int) -> None:
    """Append an int64."""
    _put(columns, at, struct.pack("=q", value))


def put_float(columns: Any, at: int, value: float) -> None:
    """Append a float32, rounded to the nearest."""
    _put(columns, at, bytes(ctypes.c_float(value)))


def put_double(columns: Any, at: int, value: float) -> None:
    """Append a float64, rounded to the nearest."""
    _put(columns, at, struct.pack("=d", value))


def put_float_bits(columns: Any, at: int, data: Any, position: int) -> None:
    """Append four little-endian bytes as they are."""
    word = int.from_bytes(bytes(data[position : position + 4]), "little")
    _put(columns, at, word.to_bytes(4, sys.byteorder))


def put_double_bits(columns: Any, at: int, data: Any, position: int) -> None:
    """Append eight little-endian bytes as they are."""
    word = int.from_bytes(bytes(data[position : position + 8]), "little")
    _put(columns, at, word.to_bytes(8, sys.byteorder))


def put_float_as_double(columns: Any, at: int, data: Any, position: int) -> None:
    """Append a little-endian float32 as a float64."""
    put_double(columns, at, struct.unpack("<f", bytes(data[position : position + 4]))[0])


def put_bool(columns: Any, at: int, value: int) -> None:
    """Append a bit."""
    _set_bit(_field(columns, at, FIELD_DATA), _append(columns, at), bool(value))


def put_fixed(columns: Any, at: int, data: Any, position: int, size: int) -> None:
    """Append so many bytes."""
    _put(columns, at, bytes(data[position : position + size]))


def put_struct(columns: Any, at: int) -> None:
    """Count a struct."""
    _append(columns, at)


def put_null(columns: Any, at: int) -> None:
    """Append a null, or the zero that stands where a null's children or another branch's value would."""
    index = _append(columns, at)
    validity, kind = _field(columns, at, FIELD_VALIDITY), _field(columns, at, FIELD_KIND)
    if validity:
        _set_bit(validity, index, False)
        columns[at * COLUMN_FIELDS + FIELD_NULLS] = 1
    if kind == KIND_BITS:
        _set_bit(_field(columns, at, FIELD_DATA), index, False)
    elif kind == KIND_FIXED:
        width = _field(columns, at, FIELD_WIDTH)
        _store(_field(columns, at, FIELD_DATA) + index * width, bytes(width))
    elif kind in {KIND_BYTES, KIND_LIST}:
        offsets = _field(columns, at, FIELD_OFFSETS)
        _store(offsets + 4 * (index + 1), struct.pack("=i", _load_int32(offsets + 4 * index)))


def reserve(columns: Any, at: int, count: int) -> bool:
    """Return whether so many more values fit; where not, how many are wanted is noted."""
    length = _field(columns, at, FIELD_LENGTH)
    if count <= _field(columns, at, FIELD_CAPACITY) - length:
        return True
    wanted = at * COLUMN_FIELDS + FIELD_WANTED
    columns[wanted] = max(columns[wanted], length + count)
    return False


def _has_room(columns: Any, at: int, size: int) -> bool:
    used = _field(columns, at, FIELD_USED)
    if size + SLACK <= _field(columns, at, FIELD_ROOM) - used:
        return True
    wanted = at * COLUMN_FIELDS + FIELD_WANTED_ROOM
    columns[wanted] = max(columns[wanted], used + size + SLACK)
    return False


def put_bytes(columns: Any, at: int, data: Any, position: int, size: int, _wide: bool) -> bool:
    """Append bytes of any length; return whether there was room."""
    if not _has_room(columns, at, size):
        return False
    used = _field(columns, at, FIELD_USED)
    _store(_field(columns, at, FIELD_DATA) + used, bytes(data[position : position + size]))
    columns[at * COLUMN_FIELDS + FIELD_USED] = used + size
    index = _append(columns, at)
    _store(_field(columns, at, FIELD_OFFSETS) + 4 * (index + 1), struct.pack("=i", used + size))
    return True


def take_long(columns: Any, at: int, data: Any, position: int, end: int, wide: bool) -> int:
    """Read a long into the column; return where it ends, or why it cannot be read, negated."""
    read = read_varint(data, position, end, wide)
    if read.position >= 0:
        put_int64(columns, at, read.value)
    return read.position


def take_int(columns: Any, at: int, data: Any, position: int, end: int, wide: bool) -> int:
    """Read an int likewise."""
    read = read_varint(data, position, end, wide)
    if not _is_int32(read.value):
        return -BAD_INT
    if read.position >= 0:
        put_int32(columns, at, read.value)
    return read.position


def take_bytes(columns: Any, at: int, data: Any, position: int, end: int, wide: bool) -> int:
    """Read sized bytes likewise."""
    size = read_size(data, position, end, wide)
    if size.position < 0:
        return size.position
    return size.position + size.value if put_bytes(columns, at, data, size.position, size.value, wide) else -NO_ROOM


def take_text(columns: Any, at: int, data: Any, position: int, end: int, wide: bool) -> int:
    """Read sized UTF-8 likewise."""
    size = read_size(data, position, end, wide)
    if size.position < 0:
        return size.position
    if not _has_room(columns, at, size.value):
        return -NO_ROOM
    if not _is_text(data, size.position, size.value):
        return -BAD_TEXT
    put_bytes(columns, at, data, size.position, size.value, wide)
    return size.position + size.value


def take_promoted(columns: Any, at: int, op: int, data: Any, position: int, end: int, wide: bool) -> int:
    """Read a number that the reader has another type for likewise."""
    read = read_varint(data, position, end, wide)
    if read.position < 0:
        return read.position
    if op in {OP_INT_AS_LONG, OP_INT_AS_FLOAT, OP_INT_AS_DOUBLE} and not _is_int32(read.value):
        return -BAD_INT
    if op == OP_INT_AS_LONG:
        put_int64(columns, at, read.value)
    elif op in {OP_INT_AS_FLOAT, OP_LONG_AS_FLOAT}:
        put_float(columns, at, read.value)
    else:
        put_double(columns, at, read.value)
    return read.position


def take_time(columns: Any, at: int, op: int, unit: int, data: Any, position: int, end: int, wide: bool) -> int:
    """Read a long, times `unit` or divided by it and rounded down, likewise."""
    read = read_varint(data, position, end, wide)
    if read.position < 0:
        return read.position
    if op == OP_SCALED and abs(read.value) > (2**63 - 1) // unit:
        return -BAD_RANGE
    put_int64(columns, at, read.value * unit if op == OP_SCALED else read.value // unit)
    return read.position


def is_time(columns: Any, at: int, unit: int) -> bool:
    """Return whether the last value of a column, of `unit` to the millisecond, is a time of day."""
    width = _field(columns, at, FIELD_WIDTH)
    last = _field(columns, at, FIELD_DATA) + (_length(columns, at) - 1) * width
    value: int = (ctypes.c_int32 if width == 4 else ctypes.c_int64).from_address(last).value
    return 0 <= value < 86_400_000 * unit


def take_decimal(
    columns: Any, at: int, pool: Any, bound: int, size: int, data: Any, position: int, end: int, wide: bool
) -> int:
    """Read a decimal of `size` bytes, or of those that say so themselves where it is negative, likewise.

    `pool[bound:]` is ten to the power of its precision, as many bytes little-endian as the column is wide.
    """
    if size < 0:
        size, position = read_size(data, position, end, wide)
        if position < 0:
            return position
    elif end - position < size:
        return -BAD_TRUNCATED
    width = _field(columns, at, FIELD_WIDTH)
    number = int.from_bytes(bytes(data[position : position + size]), "big", signed=True)
    if abs(number) >= int.from_bytes(bytes(pool[bound : bound + width]), "little"):
        return -BAD_DECIMAL
    _put(columns, at, number.to_bytes(width, "little", signed=True))
    return position + size


def check_digits(pool: Any, at: int, width: int, size: int, data: Any, position: int, end: int, wide: bool) -> int:
    """Look at the decimal that comes next, as `take_decimal` reads it, without taking it: GOOD, or why it is bad."""
    if size < 0:
        size, position = read_size(data, position, end, wide)
        if position < 0:
            return -position
    elif end - position < size:
        return BAD_TRUNCATED
    number = int.from_bytes(bytes(data[position : position + size]), "big", signed=True)
    return GOOD if abs(number) < int.from_bytes(bytes(pool[at : at + width]), "little") else BAD_DECIMAL


def put_list(columns: Any, at: int, child: int) -> None:
    """End a list: its items are those of `child` so far."""
    index = _append(columns, at)
    _store(_field(columns, at, FIELD_OFFSETS) + 4 * (index + 1), struct.pack("=i", _length(columns, child)))


def put_union(columns: Any, at: int, child: int, branch: int) -> None:
    """Begin a dense union's value, which lies in `child`, the branch of that number."""
    index = _append(columns, at)
    _store(_field(columns, at, FIELD_OFFSETS) + 4 * index, struct.pack("=i", _length(columns, child)))
    _store(_field(columns, at, FIELD_DATA) + index, bytes([branch]))


def roll_back(columns: Any, count: int, rows: int) -> None:
    """Take back what was appended beyond the first `rows`."""
    for at in range(count):
        parent, length = _field(columns, at, FIELD_PARENT), rows
        if parent >= 0:
            length = _length(columns, parent)
            kind = _field(columns, parent, FIELD_KIND)
            if kind == KIND_LIST:
                length = _load_int32(_field(columns, parent, FIELD_OFFSETS) + 4 * length)
            elif kind == KIND_UNION:
                length = _field(columns, at, FIELD_KEPT)
        kind = _field(columns, at, FIELD_KIND)
        if kind == KIND_UNION:
            _roll_back_union(columns, at, length)
        elif kind == KIND_BYTES:
            columns[at * COLUMN_FIELDS + FIELD_USED] = _load_int32(_field(columns, at, FIELD_OFFSETS) + 4 * length)
        columns[at * COLUMN_FIELDS + FIELD_LENGTH] = length


def _roll_back_union(columns: Any, at: int, length: int) -> None:
    children = []
    child = _field(columns, at, FIELD_CHILD)
    while child >= 0:
        children.append(child)
        columns[child * COLUMN_FIELDS + FIELD_KEPT] = _length(columns, child)
        child = _field(columns, child, FIELD_SIBLING)
    for index in range(length, _length(columns, at)):
        branch = ctypes.c_uint8.from_address(_field(columns, at, FIELD_DATA) + index).value
        kept = children[branch] * COLUMN_FIELDS + FIELD_KEPT
        columns[kept] = min(columns[kept], _load_int32(_field(columns, at, FIELD_OFFSETS) + 4 * index))


def _source(sources: Any, at: int, field: int) -> int:
    return int(sources[at * SOURCE_FIELDS + field])


def _load_bit(address: int, index: int) -> bool:
    return bool(ctypes.c_uint8.from_address(address + (index >> 3)).value >> (index & 7) & 1)


def source_is_valid(sources: Any, at: int, index: int) -> bool:
    """Return whether the value is not null."""
    validity = _source(sources, at, SOURCE_VALIDITY)
    return not validity or _load_bit(validity, index + _source(sources, at, SOURCE_VALIDITY_START))


def source_bit(sources: Any, at: int, index: int) -> bool:
    """Return a boolean."""
    return _load_bit(_source(sources, at, SOURCE_DATA), index + _source(sources, at, SOURCE_BITS_START))


def source_int32(sources: Any, at: int, index: int) -> int:
    """Return an int32."""
    return _load_int32(_source(sources, at, SOURCE_DATA) + 4 * index)


def source_int64(sources: Any, at: int, index: int) -> int:
    """Return an int64."""
    return ctypes.c_int64.from_address(_source(sources, at, SOURCE_DATA) + 8 * index).value


def source_offset(sources: Any, at: int, index: int) -> int:
    """Return where bytes or items begin."""
    return _load_int32(_source(sources, at, SOURCE_OFFSETS) + 4 * index)


def source_symbol(sources: Any, at: int, index: int) -> int:
    """Return the symbol of an enum's value, -1 where there is none."""
    number = source_int32(sources, at, index)
    if not 0 <= number < _source(sources, at, SOURCE_SYMBOL_COUNT):
        return -1
    return _load_int32(_source(sources, at, SOURCE_SYMBOLS) + 4 * number)


def write_number(out: Any, position: int, number: int) -> int:
    """Write a zigzag varint; return where it ends."""
    raw = (number << 1 ^ number >> 63) & 0xFFFFFFFFFFFFFFFF
    while raw > 0x7F:
        out[position] = raw & 0x7F | 0x80
        position += 1
        raw >>= 7
    out[position] = raw
    return position + 1


def write_bytes(out: Any, position: int, data: Any, start: int, size: int) -> int:
    """Write so many bytes of data[start:]; return where they end."""
    out[position : position + size] = bytes(data[start : start + size])
    return position + size


def write_source_bytes(out: Any, position: int, sources: Any, at: int, start: int, size: int) -> int:
    """Write bytes of a column; return where they end."""
    content = ctypes.string_at(_source(sources, at, SOURCE_DATA) + start, size) if size else b""
    return write_bytes(out, position, content, 0, size)


def write_word(out: Any, position: int, sources: Any, at: int, index: int, size: int) -> int:
    """Write a float or double little-endian; return where it ends."""
    content = ctypes.string_at(_source(sources, at, SOURCE_DATA) + index * size, size)
    return write_bytes(out, position, content if sys.byteorder == "little" else content[::-1], 0, size)


def write_decimal(out: Any, position: int, sources: Any, at: int, index: int, width: int, size: int) -> int:
    """Write a decimal big-endian, in `size` bytes or with 0 in as few as it takes; return -1 where it takes more."""
    content = ctypes.string_at(_source(sources, at, SOURCE_DATA) + index * width, width)
    number = int.from_bytes(content, "little", signed=True)
    least = (number if number >= 0 else ~number).bit_length() // 8 + 1
    if size == 0:
        size = least
        position = write_number(out, position, size)
    elif least > size:
        return -1
    return write_bytes(out, position, number.to_bytes(size, "big", signed=True), 0, size)
