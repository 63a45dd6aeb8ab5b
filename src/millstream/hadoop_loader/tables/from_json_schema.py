"""JSON Schemas as the Avro schemas that their values' columns are read by.

    string                       string           object with properties       record
    integer, number              long, double     array                        array
    boolean                      boolean          enum, const of one type      that type
    null with one of these       it, nullable     $ref, allOf of one           what it leads to

Every field may be null: JSON's members may be missing, and nobody tells a missing one from null in a column. Texts of
dates and times stay texts. What has no column of one type (an object without properties, several types at once) is
refused with its path: a part of the values that nobody would find again must not be left out quietly.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from millstream.schemas.avro import UnsupportedSchemaError

if TYPE_CHECKING:
    from millstream.schemas.parsing.json_schema import JsonSchema

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLAIN: Final = {"string": "string", "integer": "long", "number": "double", "boolean": "boolean"}
_OF_VALUES: Final = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"))
_NESTING_MAX: Final = 50
_REMEDY: Final = '; take value.format = "raw" for such values, or give it one type'


def avro_of_json_schema(schema: JsonSchema) -> str:
    """Return the Avro schema of a JSON Schema of objects. Raises UnsupportedSchemaError."""
    found = _Translation().type_of(schema.value, schema.resolver, "Value", 0)
    type_ = found[1] if isinstance(found, list) else found
    if not isinstance(type_, dict) or type_["type"] != "record":
        raise UnsupportedSchemaError(f"values are no objects with properties{_REMEDY}")
    return json.dumps(type_)


class _Translation:
    def __init__(self) -> None:
        # Of records. Paths are joined by what may be in a property's name, so two may come to one name.
        self._names: set[str] = set()

    def type_of(self, schema: Any, resolver: Any, path: str, depth: int) -> Any:
        """Return the Avro type of a schema: [null, type] where it may be null."""
        if depth > _NESTING_MAX:
            raise UnsupportedSchemaError(f"{path} lies deeper than {_NESTING_MAX} levels, or holds itself{_REMEDY}")
        if not isinstance(schema, dict):
            raise UnsupportedSchemaError(f"{path} may be anything{_REMEDY}")
        if "$ref" in schema:
            found = resolver.lookup(schema["$ref"])
            return self.type_of(found.contents, found.resolver, path, depth + 1)
        for keyword in ("oneOf", "anyOf", "allOf"):
            if keyword in schema and "properties" not in schema:
                return self._one_of(schema[keyword], resolver, path, depth)
        kinds = _kinds(schema)
        others = [kind for kind in kinds if kind != "null"]
        if len(others) != 1:
            said = f"is one of {', '.join(kinds)}" if kinds else "may be anything"
            raise UnsupportedSchemaError(f"{path} {said}{_REMEDY}")
        type_ = self._of_kind(others[0], schema, resolver, path, depth)
        return ["null", type_] if len(others) < len(kinds) else type_

    def _one_of(self, schemas: list[Any], resolver: Any, path: str, depth: int) -> Any:
        others = [one for one in schemas if not isinstance(one, dict) or one.get("type") != "null"]
        if len(others) != 1:
            raise UnsupportedSchemaError(f"{path} is one of {len(others)} schemas{_REMEDY}")
        found = self.type_of(others[0], resolver, path, depth + 1)
        return found if len(others) == len(schemas) or isinstance(found, list) else ["null", found]

    def _of_kind(self, kind: str, schema: dict[str, Any], resolver: Any, path: str, depth: int) -> Any:
        if kind in _PLAIN:
            return _PLAIN[kind]
        if kind == "array":
            items = schema.get("items")
            if not isinstance(items, dict):
                raise UnsupportedSchemaError(f"{path} is an array of anything{_REMEDY}")
            found = self.type_of(items, resolver, f"{path}_item", depth + 1)
            return {"type": "array", "items": found if isinstance(found, list) else ["null", found]}
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            raise UnsupportedSchemaError(f"{path} is an object without properties{_REMEDY}")
        record_name = self._free_name(path)
        fields = []
        for name, inner in properties.items():
            if not _NAME.match(name):
                raise UnsupportedSchemaError(
                    f"the property {name!r} of {path} is no name of a column: letters, digits and underscores are"
                )
            found = self.type_of(inner, resolver, f"{path}_{name}", depth + 1)
            nullable = found if isinstance(found, list) else ["null", found]
            fields.append({"name": name, "type": nullable, "default": None})
        return {"type": "record", "name": record_name, "fields": fields}

    def _free_name(self, path: str) -> str:
        name, number = path, 1
        while name in self._names:
            number += 1
            name = f"{path}_{number}"
        self._names.add(name)
        return name


def _kinds(schema: dict[str, Any]) -> list[str]:
    """Return the types a value may have, as far as the schema says so itself."""
    type_ = schema.get("type")
    if isinstance(type_, str):
        return [type_]
    if isinstance(type_, list):
        # An integer is a number.
        kinds = [str(kind) for kind in type_]
        return [kind for kind in kinds if kind != "integer" or "number" not in kinds]
    values = [*schema["enum"]] if isinstance(schema.get("enum"), list) else []
    if "const" in schema:
        values.append(schema["const"])
    if values:
        return list(dict.fromkeys(_kind_of(value) for value in values))
    if "properties" in schema:
        return ["object"]
    return ["array"] if "items" in schema else []


def _kind_of(value: Any) -> str:
    for type_, kind in _OF_VALUES:
        if isinstance(value, type_):
            return kind
    return "null" if value is None else "object"
