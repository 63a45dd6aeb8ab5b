"""Whether a default fits its type, as Avro's Java decides for new schemas.

A default is JSON: bytes, fixed and enums are any string there, numbers must fit their width. That of a union fits when
it fits any branch (until Avro 1.11 the first alone). A record's default may leave out fields that have defaults.
"""

from __future__ import annotations

from typing import Any, Final

from millstream.schemas.parsing.avro_types import ArrayType, AvroType, MapType, RecordType, UnionType
from millstream.schemas.parsing.parsed_schema import InvalidSchemaError

DEFAULT_CHECKS_MAX: Final = 200_000
"""How many values are held against types for all defaults of a schema: unions try each value on each branch."""

_BITS: Final = {"int": 31, "long": 63}


class DefaultChecks:
    """The checks of one schema's defaults; what was found of a type and a value is remembered, by identity."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bool] = {}
        self._count = 0

    def is_valid(self, node: AvroType, value: Any) -> bool:
        """Return whether `value` (JSON, as the schema has it) can stand for a value of type `node`.

        Recursion follows the JSON, whose depth is bounded. What a record's default leaves out is not looked into: that
        field's own default is checked with its own record. Raises InvalidSchemaError after DEFAULT_CHECKS_MAX checks.
        """
        self._count += 1
        if self._count > DEFAULT_CHECKS_MAX:
            raise InvalidSchemaError(f"the defaults take more than {DEFAULT_CHECKS_MAX} checks against their types")
        if not isinstance(value, dict | list):
            return self._is_valid_scalar(node, value)
        key = (id(node), id(value))
        if key not in self._known:
            self._known[key] = self._is_valid_container(node, value)
        return self._known[key]

    def _is_valid_scalar(self, node: AvroType, value: Any) -> bool:
        kind = node.kind
        if isinstance(node, UnionType):
            return any(self.is_valid(branch, value) for branch in node.branches)
        if kind in ("string", "bytes", "enum", "fixed"):
            return isinstance(value, str)
        if kind in _BITS:
            return type(value) is int and -(1 << _BITS[kind]) <= value < 1 << _BITS[kind]
        if kind in ("float", "double"):
            return type(value) in (int, float)
        if kind == "boolean":
            return isinstance(value, bool)
        return kind == "null" and value is None

    def _is_valid_container(self, node: AvroType, value: Any) -> bool:
        if isinstance(node, UnionType):
            return any(self.is_valid(branch, value) for branch in node.branches)
        if isinstance(node, ArrayType):
            return isinstance(value, list) and all(self.is_valid(node.items, item) for item in value)
        if isinstance(node, MapType):
            return isinstance(value, dict) and all(self.is_valid(node.values, item) for item in value.values())
        if not isinstance(node, RecordType) or not isinstance(value, dict):
            return False
        return all(
            self.is_valid(field.type, value[field.name]) if field.name in value else field.has_default
            for field in node.fields
        )
