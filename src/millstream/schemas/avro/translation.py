"""Schemas from one side to the other: the Arrow schema of an Avro one, and an Avro schema for an Arrow one."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pyarrow as pa

from millstream.schemas.avro.decoder import as_avro
from millstream.schemas.avro.layout import Layout, UnsupportedSchemaError
from millstream.schemas.parsing import ParsedSchema

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LISTS: Final = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
_UNITS: Final = {"s": "millis", "ms": "millis", "us": "micros", "ns": "nanos"}


def avro_to_arrow_schema(schema: ParsedSchema | str) -> pa.Schema:
    """Return the columns that values of an Avro schema decode to. Raises UnsupportedSchemaError, InvalidSchemaError."""
    return Layout(as_avro(schema).root).schema


def arrow_to_avro_schema(schema: pa.Schema, name: str = "Record") -> str:
    """Return an Avro schema, as JSON, that tables of `schema` can be encoded with; nested records get names of paths.

    Nullable fields become unions with null and the default null. An enum's symbols are not part of an Arrow type: a
    dictionary becomes a string. Raises UnsupportedSchemaError for types and names that Avro has nothing for.
    """
    return json.dumps(_Names().record(schema, name))


class _Names:
    """The types of one schema, each name of theirs given once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def record(self, fields: Any, path: str) -> dict[str, Any]:
        name = self._new(path)
        return {"type": "record", "name": name, "fields": [self._field(field, path) for field in fields]}

    def _new(self, path: str) -> str:
        # a_b within R and b within R.a have the same path.
        name, number = path, 2
        while name in self._given:
            name, number = f"{path}_{number}", number + 1
        self._given.add(name)
        return name

    def _field(self, field: pa.Field, within: str) -> dict[str, Any]:
        if not _NAME.match(field.name):
            raise UnsupportedSchemaError(
                f"{field.name!r} of {within} is no Avro name: letters, digits and underscores are"
            )
        type_ = self._type(field.type, f"{within}_{field.name}")
        if field.nullable and type_ != "null":
            return {"name": field.name, "type": ["null", type_], "default": None}
        return {"name": field.name, "type": type_}

    def _item(self, field: pa.Field, path: str) -> Any:
        type_ = self._type(field.type, path)
        return ["null", type_] if field.nullable and type_ != "null" else type_

    def _type(self, type_: pa.DataType, path: str) -> Any:
        is_ = pa.types
        if is_.is_dictionary(type_) or is_.is_run_end_encoded(type_):
            return self._type(type_.value_type, path)
        if is_.is_struct(type_):
            return self.record(list(type_), path)
        if is_.is_map(type_):
            return {"type": "map", "values": self._item(type_.item_field, f"{path}_value")}
        if any(is_list(type_) for is_list in _LISTS):
            return {"type": "array", "items": self._item(type_.value_field, f"{path}_item")}
        if is_.is_decimal(type_):
            if type_.scale < 0:
                raise UnsupportedSchemaError(f"{path} is {type_}: decimals of Avro have no negative scale")
            return {"type": "bytes", "logicalType": "decimal", "precision": type_.precision, "scale": type_.scale}
        if is_.is_timestamp(type_):
            kind = "timestamp" if type_.tz else "local-timestamp"
            return {"type": "long", "logicalType": f"{kind}-{_UNITS[type_.unit]}"}
        if is_.is_date(type_):
            return {"type": "int", "logicalType": "date"}
        if is_.is_time32(type_):
            return {"type": "int", "logicalType": "time-millis"}
        if is_.is_time64(type_):
            return {"type": "long", "logicalType": "time-micros"}
        if isinstance(type_, pa.UuidType):
            return {"type": "fixed", "name": self._new(path), "size": 16, "logicalType": "uuid"}
        if isinstance(type_, pa.BaseExtensionType):
            return self._type(type_.storage_type, path)
        if is_.is_fixed_size_binary(type_):
            return {"type": "fixed", "name": self._new(path), "size": type_.byte_width}
        return _plain(type_, path)


def _plain(type_: pa.DataType, path: str) -> str:
    is_ = pa.types
    for test, kind in (
        (is_.is_null, "null"),
        (is_.is_boolean, "boolean"),
        (is_.is_uint32, "long"),
        (is_.is_int64, "long"),
        (is_.is_uint64, "long"),
        (is_.is_integer, "int"),
        (is_.is_float64, "double"),
        (is_.is_floating, "float"),
        (is_.is_string, "string"),
        (is_.is_large_string, "string"),
        (is_.is_string_view, "string"),
        (is_.is_binary, "bytes"),
        (is_.is_large_binary, "bytes"),
        (is_.is_binary_view, "bytes"),
    ):
        if test(type_):
            return kind
    raise UnsupportedSchemaError(f"{path} is {type_}: Avro has no type for it; cast the column")
