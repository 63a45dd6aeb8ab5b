"""Confluent's wire format: how a record says which schema it was written with.

    prefix of an id      0x00, the id (4 bytes, big-endian), the value
    prefix of a GUID     0x01, the GUID (16 bytes), the value
    header               __key_schema_id or __value_schema_id = 0x01 and the GUID (or 0x00 and the id); only the value
                         in the record

Protobuf adds which message of the file the value is, as a path of indexes: directly behind the id or GUID, also in the
header. Each is a zigzag varint, their count before them; the commonest path, [0], is the one byte 0x00.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

SchemaId: TypeAlias = int | UUID
"""What names a schema: an id of one registry, or a GUID."""

MessagePath: TypeAlias = tuple[int, ...]
"""Which message of a Protobuf file: the index of one at its top, then of one inside it, and so on."""

HEADER_NAMES: Final = {"key": "__key_schema_id", "value": "__value_schema_id"}

_ID_MAGIC: Final = 0
_GUID_MAGIC: Final = 1
_ID_PREFIX: Final = struct.Struct(">BI")
_GUID_SIZE: Final = 16
_INDEXES_MAX: Final = 1_000
_VARINT_BYTES_MAX: Final = 10
_FIRST_MESSAGE: Final = (0,)

assert _ID_PREFIX.size == 5, _ID_PREFIX.size


class FramingError(ValueError):
    """The bytes name no schema."""


class Framed(NamedTuple):
    """A value's schema, and where what follows it begins."""

    schema_id: SchemaId
    start: int


def prefix(schema_id: SchemaId, indexes: Sequence[int] | None = None) -> bytes:
    """Return what goes before the value, or into the header."""
    if isinstance(schema_id, UUID):
        head = bytes((_GUID_MAGIC,)) + schema_id.bytes
    else:
        head = _ID_PREFIX.pack(_ID_MAGIC, schema_id)
    return head if indexes is None else head + encode_indexes(indexes)


def read_prefix(data: bytes | memoryview) -> Framed:
    """Return the schema that `data` begins with. Raises FramingError."""
    magic = data[0] if len(data) else None
    if magic == _ID_MAGIC:
        if len(data) < _ID_PREFIX.size:
            raise FramingError(f"{len(data)} bytes are too few for the id of a schema: it takes {_ID_PREFIX.size}")
        return Framed(_ID_PREFIX.unpack_from(data)[1], _ID_PREFIX.size)
    if magic == _GUID_MAGIC:
        if len(data) < 1 + _GUID_SIZE:
            raise FramingError(f"{len(data)} bytes are too few for the GUID of a schema: it takes {1 + _GUID_SIZE}")
        return Framed(UUID(bytes=bytes(data[1 : 1 + _GUID_SIZE])), 1 + _GUID_SIZE)
    if magic is None:
        raise FramingError("there are no bytes, and so no id of a schema")
    raise FramingError(
        f"the first byte is {magic:#04x}, where 0x00 announces the id of a schema: this was not written by a serializer"
        " that uses a registry"
    )


def header_value(headers: Any, field: str) -> bytes | None:
    """Return the header that names the schema of `field`, the last one; None where there is none.

    A serializer adds its own behind those that were copied from another record. `headers` are pairs, or a mapping, of
    names (text or bytes) and values.
    """
    if not headers:
        return None
    name = HEADER_NAMES[field]
    pairs: Iterable[tuple[Any, Any]] = headers.items() if isinstance(headers, Mapping) else headers
    last = None
    for found, value in pairs:
        if value is not None and (found == name or (not isinstance(found, str) and bytes(found) == name.encode())):
            last = value
    return None if last is None else bytes(last)


def encode_indexes(indexes: Sequence[int]) -> bytes:
    """Return a path of message indexes as bytes."""
    if tuple(indexes) == _FIRST_MESSAGE:
        return b"\x00"
    return b"".join(_varint(number) for number in (len(indexes), *indexes))


def read_indexes(data: bytes | memoryview, start: int) -> tuple[MessagePath, int]:
    """Return the path of message indexes at `start`, and where it ends. Raises FramingError."""
    count, position = _read_varint(data, start)
    if count == 0:
        return _FIRST_MESSAGE, position
    if not 0 < count <= _INDEXES_MAX:
        raise FramingError(f"a path of {count} message indexes, where 1 to {_INDEXES_MAX} can be meant")
    indexes = []
    for _ in range(count):
        index, position = _read_varint(data, position)
        indexes.append(index)
    return tuple(indexes), position


def _varint(number: int) -> bytes:
    left = number << 1 if number >= 0 else (-number << 1) - 1
    encoded = bytearray()
    while left > 0x7F:
        encoded.append(left & 0x7F | 0x80)
        left >>= 7
    encoded.append(left)
    return bytes(encoded)


def _read_varint(data: bytes | memoryview, start: int) -> tuple[int, int]:
    number = 0
    for count in range(_VARINT_BYTES_MAX):
        if start + count >= len(data):
            raise FramingError("the message indexes end before their count is reached")
        byte = data[start + count]
        number |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return number >> 1 ^ -(number & 1), start + count + 1
    raise FramingError(f"a message index of over {_VARINT_BYTES_MAX} bytes")
