"""Whether a default fits its type, as Avro's Java decides for new schemas.

A default is JSON: bytes, fixed and enums are any string there, numbers must fit their width. That of a union fits when
it fits any branch (until Avro 1.11 the first alone). A record's default may leave out fields that have defaults.
"""

from __future__ import annotations

from typing import Any

from millstream.schemas.parsing.avro_types import ArrayType, AvroType, MapType, RecordType, UnionType

_BITS = {"int": 31, "long": 63}


def is_valid_default(node: AvroType, value: Any) -> bool:
    """Return whether `value` (JSON, as the schema has it) can stand for a value of type `node`.

    Recursion follows the JSON, whose depth is bounded. What a record's default leaves out is not looked into: that
    field's own default is checked with its own record.
    """
    kind = node.kind
    if kind in ("string", "bytes", "enum", "fixed"):
        return isinstance(value, str)
    if kind in _BITS:
        return type(value) is int and -(1 << _BITS[kind]) <= value < 1 << _BITS[kind]
    if kind in ("float", "double"):
        return type(value) in (int, float)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "null":
        return value is None
    if isinstance(node, ArrayType):
        return isinstance(value, list) and all(is_valid_default(node.items, item) for item in value)
    if isinstance(node, MapType):
        return isinstance(value, dict) and all(is_valid_default(node.values, item) for item in value.values())
    if isinstance(node, UnionType):
        return any(is_valid_default(branch, value) for branch in node.branches)
    if not isinstance(node, RecordType) or not isinstance(value, dict):
        return False
    return all(
        is_valid_default(field.type, value[field.name]) if field.name in value else field.has_default
        for field in node.fields
    )
