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
_UNITS: Final = {"s": "millis", "ms": "millis", "us": "micros", "ns": "nanos"}


def avro_to_arrow_schema(schema: ParsedSchema | str) -> pa.Schema:
    """Return the columns that values of an Avro schema decode to. Raises UnsupportedSchemaError, InvalidSchemaError."""
    return Layout(as_avro(schema).root).schema


def arrow_to_avro_schema(schema: pa.Schema, name: str = "Record") -> str:
    """Return an Avro schema, as JSON, that tables of `schema` can be encoded with; nested records get names of paths.

    Nullable fields become unions with null and the default null. An enum's symbols are not part of an Arrow type: a
    dictionary becomes a string. Raises UnsupportedSchemaError for types and names that Avro has nothing for.
    """
    return json.dumps(_record(schema, name))


def _record(fields: Any, name: str) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [_field(field, name) for field in fields]}


def _field(field: pa.Field, within: str) -> dict[str, Any]:
    if not _NAME.match(field.name):
        raise UnsupportedSchemaError(f"{field.name!r} of {within} is no Avro name: letters, digits and underscores are")
    type_ = _type(field.type, f"{within}_{field.name}")
    if field.nullable and type_ != "null":
        return {"name": field.name, "type": ["null", type_], "default": None}
    return {"name": field.name, "type": type_}


def _item(field: pa.Field, path: str) -> Any:
    type_ = _type(field.type, path)
    return ["null", type_] if field.nullable and type_ != "null" else type_


def _type(type_: pa.DataType, path: str) -> Any:
    is_ = pa.types
    if is_.is_dictionary(type_):
        return _type(type_.value_type, path)
    if is_.is_struct(type_):
        return _record(list(type_), path)
    if is_.is_map(type_):
        return {"type": "map", "values": _item(type_.item_field, f"{path}_value")}
    if is_.is_list(type_) or is_.is_large_list(type_) or is_.is_fixed_size_list(type_):
        return {"type": "array", "items": _item(type_.value_field, f"{path}_item")}
    if is_.is_decimal(type_):
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
        return {"type": "fixed", "name": path, "size": 16, "logicalType": "uuid"}
    if is_.is_fixed_size_binary(type_):
        return {"type": "fixed", "name": path, "size": type_.byte_width}
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
