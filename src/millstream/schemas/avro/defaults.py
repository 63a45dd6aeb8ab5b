"""Defaults of a reader's fields as Avro datums: JSON in the schema, bytes to the kernel.

A default is encoded once, whole: what it leaves out of nested records is filled in from their own defaults. So the
instructions that read a writer's value read it as well.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from millstream.schemas.parsing.avro_defaults import DefaultChecks
from millstream.schemas.parsing.avro_types import (
    ArrayType,
    AvroType,
    EnumType,
    FixedType,
    MapType,
    RecordType,
    UnionType,
)
from millstream.schemas.parsing.parsed_schema import InvalidSchemaError

DEFAULT_SIZE_BYTES_MAX: Final = 1 << 20
"""Bytes of one default: records within records, each with a default of its own, can make exponentially many."""

_NESTING_MAX: Final = 100  # a record may even be the default of its own field


class InvalidDefaultError(ValueError):
    """A default does not fit its type."""


def encode_default(node: AvroType, value: Any) -> bytes:
    """Return `value`, JSON as a schema has it, as a datum of type `node`. Raises InvalidDefaultError."""
    out = bytearray()
    try:
        _encode(node, value, out, DefaultChecks(), 0)
    except InvalidSchemaError as error:
        raise InvalidDefaultError(str(error)) from error
    return bytes(out)


def varint(number: int) -> bytes:
    """Return `number` as Avro writes ints and longs."""
    raw = (number << 1 ^ number >> 63) & 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


def _encode(node: AvroType, value: Any, out: bytearray, checks: DefaultChecks, depth: int) -> None:
    if depth > _NESTING_MAX or len(out) > DEFAULT_SIZE_BYTES_MAX:
        raise InvalidDefaultError(f"it takes over {DEFAULT_SIZE_BYTES_MAX} bytes, or {_NESTING_MAX} levels, whole")
    if isinstance(node, UnionType):
        # Since Avro 1.12 any branch may be meant; before it was the first.
        for index, branch in enumerate(node.branches):
            if checks.is_valid(branch, value):
                out += varint(index)
                _encode(branch, value, out, checks, depth + 1)
                return
        raise InvalidDefaultError(f"{value!r} fits no branch of a union")
    if isinstance(node, RecordType):
        if not isinstance(value, dict):
            raise InvalidDefaultError(f"{value!r} is no record {node.full_name}")
        for field in node.fields:
            if field.name not in value and not field.has_default:
                raise InvalidDefaultError(f"{value!r} lacks the field {field.name!r} of {node.full_name}")
            _encode(field.type, value.get(field.name, field.default), out, checks, depth + 1)
        return
    if not checks.is_valid(node, value):
        raise InvalidDefaultError(f"{value!r} is no {node.label}")
    if isinstance(node, ArrayType):
        if value:
            out += varint(len(value))
            for item in value:
                _encode(node.items, item, out, checks, depth + 1)
        out += varint(0)
    elif isinstance(node, MapType):
        if value:
            out += varint(len(value))
            for key, item in value.items():
                _sized(key.encode(), out)
                _encode(node.values, item, out, checks, depth + 1)
        out += varint(0)
    elif isinstance(node, EnumType):
        if value not in node.symbols:
            raise InvalidDefaultError(f"{value!r} is no symbol of {node.full_name}")
        out += varint(node.symbols.index(value))
    else:
        _encode_plain(node, value, out)


def _encode_plain(node: AvroType, value: Any, out: bytearray) -> None:
    try:
        if isinstance(node, FixedType):
            content = value.encode("latin-1")
            if len(content) != node.size:
                raise InvalidDefaultError(f"{value!r} does not have the {node.size} bytes of {node.full_name}")
            out += content
        elif node.kind == "bytes":
            _sized(value.encode("latin-1"), out)
        elif node.kind == "string":
            _sized(value.encode(), out)
        elif node.kind in {"int", "long"}:
            out += varint(value)
        elif node.kind == "boolean":
            out.append(value)
        elif node.kind == "float":
            out += struct.pack("<f", value)
        elif node.kind == "double":
            out += struct.pack("<d", value)
    except (UnicodeEncodeError, OverflowError) as error:
        raise InvalidDefaultError(f"{value!r} is no {node.label}: {error}") from error


def _sized(content: bytes, out: bytearray) -> None:
    out += varint(len(content))
    out += content
