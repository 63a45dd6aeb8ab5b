"""Hypothesis's Avro schemas with values of theirs, and readers' schemas that a writer's may have become."""

from __future__ import annotations

import copy
import io
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import fastavro
from hypothesis import strategies as st

INT = st.integers(-(2**31), 2**31 - 1)
LONG = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Within what Python's datetime and 64 bits of nanoseconds can say.
MICROS = st.integers(-(10**15), 4 * 10**15)

PLAIN = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
LOGICAL: list[dict[str, Any]] = [
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-millis"},
    {"type": "long", "logicalType": "local-timestamp-micros"},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 20},
    {"type": "string", "logicalType": "uuid"},
]
PROMOTIONS = {
    "int": ["long", "float", "double"],
    "long": ["float", "double"],
    "float": ["double"],
    "string": ["bytes"],
    "bytes": ["string"],
}


@st.composite
def schemas(draw: st.DrawFn, depth: int = 3, names: list[int] | None = None, *, in_union: bool = False) -> Any:
    """An Avro schema as JSON; every named type of it has a name of its own."""
    names = [0] if names is None else names
    kinds = ["plain"] * 4 + ["logical", "fixed", "enum"]
    if depth:
        kinds += ["record", "record", "array", "map"] + ([] if in_union else ["nullable", "nullable", "union"])
    kind = draw(st.sampled_from(kinds))
    if kind == "plain":
        return draw(st.sampled_from(PLAIN))
    if kind == "logical":
        return dict(draw(st.sampled_from(LOGICAL)))
    if kind == "array":
        return {"type": "array", "items": draw(schemas(depth - 1, names))}
    if kind == "map":
        return {"type": "map", "values": draw(schemas(depth - 1, names))}
    if kind == "nullable":
        other = draw(schemas(depth - 1, names, in_union=True))
        return draw(st.permutations(["null", other])) if other != "null" else ["null"]
    if kind == "union":
        branches = draw(st.lists(schemas(depth - 1, names, in_union=True), min_size=1, max_size=4))
        # fastavro takes bytes of another branch for a decimal, of too many digits, and an enum's symbol for a uuid.
        if any(_is_logical(branch, "decimal") for branch in branches):
            branches = [branch for branch in branches if not _is_bytes(branch)]
        if any(_is_logical(branch, "uuid") for branch in branches):
            branches = [branch for branch in branches if not (isinstance(branch, dict) and branch["type"] == "enum")]
        return list({_label(branch): branch for branch in branches}.values())
    names[0] += 1
    name = f"N{names[0]}"
    if kind == "fixed":
        return draw(
            st.sampled_from(
                [
                    {"type": "fixed", "name": name, "size": draw(st.integers(1, 20))},
                    {"type": "fixed", "name": name, "size": 16, "logicalType": "uuid"},
                    {"type": "fixed", "name": name, "size": 12, "logicalType": "duration"},
                    {"type": "fixed", "name": name, "size": 6, "logicalType": "decimal", "precision": 11, "scale": 3},
                ]
            )
        )
    if kind == "enum":
        symbols = [f"S{number}" for number in range(draw(st.integers(1, 5)))]
        return {"type": "enum", "name": name, "symbols": symbols}
    return record(name, [draw(schemas(depth - 1, names)) for _ in range(draw(st.integers(0, 4)))])


def _is_logical(schema: Any, name: str) -> bool:
    return isinstance(schema, dict) and schema.get("logicalType") == name


def _is_bytes(schema: Any) -> bool:
    if _is_logical(schema, "decimal"):
        return False
    return schema == "bytes" or (isinstance(schema, dict) and schema["type"] == "fixed")


def record(name: str, types: list[Any]) -> dict[str, Any]:
    """Return a record with a field of each type."""
    fields = [{"name": f"f{index}", "type": type_} for index, type_ in enumerate(types)]
    return {"type": "record", "name": name, "fields": fields}


@st.composite
def record_schemas(draw: st.DrawFn) -> Any:
    """A schema for whole records."""
    names = [0]
    return record("Top", [draw(schemas(3, names)) for _ in range(draw(st.integers(1, 5)))])


def _label(schema: Any) -> str:
    if isinstance(schema, str):
        return schema
    return str(schema.get("name", schema["type"]))


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Values as fastavro takes them."""
    if isinstance(schema, list):
        return st.one_of([values(branch) for branch in schema])
    kind = schema if isinstance(schema, str) else schema["type"]
    logical = None if isinstance(schema, str) else schema.get("logicalType")
    if logical is not None:
        return _logical_values(schema, logical)
    if kind == "record":
        return st.fixed_dictionaries({field["name"]: values(field["type"]) for field in schema["fields"]})
    if kind == "array":
        return st.lists(values(schema["items"]), max_size=4)
    if kind == "map":
        return st.dictionaries(TEXT, values(schema["values"]), max_size=4)
    if kind == "enum":
        return st.sampled_from(schema["symbols"])
    if kind == "fixed":
        return st.binary(min_size=schema["size"], max_size=schema["size"])
    return {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": INT,
        "long": LONG,
        "float": st.floats(width=32, allow_nan=False),
        "double": st.floats(allow_nan=False),
        "bytes": st.binary(max_size=40),
        "string": TEXT,
    }[kind]


def _logical_values(schema: Any, logical: str) -> st.SearchStrategy[Any]:
    if logical == "decimal":
        digits, scale = schema["precision"], schema["scale"]
        return st.integers(-(10**digits) + 1, 10**digits - 1).map(lambda number: Decimal(f"{number}e-{scale}"))
    if logical == "uuid":
        # fastavro does not know the one on a fixed.
        return st.binary(min_size=16, max_size=16) if schema["type"] == "fixed" else st.uuids()
    if logical == "duration":
        return st.binary(min_size=12, max_size=12)
    if logical == "date":
        return st.dates(date(1, 1, 2))
    step = 1000 if logical.endswith("millis") else 1
    if logical.startswith("time-"):
        return st.integers(0, 86_400_000_000 - 1).map(
            lambda micros: (datetime.min + timedelta(microseconds=micros // step * step)).time()
        )
    moments = MICROS.map(lambda micros: EPOCH + timedelta(microseconds=micros // step * step))
    return moments.map(lambda moment: moment.replace(tzinfo=None)) if logical.startswith("local") else moments


@st.composite
def readers(draw: st.DrawFn, writer: Any) -> Any:
    """A reader's schema made of a writer's by a few changes, allowed ones and others."""
    reader = copy.deepcopy(writer)
    for _ in range(draw(st.integers(0, 3))):
        reader = _changed(draw, reader)
    return reader


@st.composite
def chains(draw: st.DrawFn) -> list[Any]:
    """A few schemas, each of which may have become of one before it."""
    chain = [draw(record_schemas())]
    for _ in range(draw(st.integers(1, 3))):
        chain.append(draw(readers(draw(st.sampled_from(chain)))))
    return chain


def _changed(draw: st.DrawFn, schema: Any) -> Any:
    """Change one spot of a schema."""
    if isinstance(schema, list):
        index = draw(st.integers(0, len(schema) - 1))
        how = draw(st.sampled_from(["inside", "inside", "reorder", "drop"]))
        if how == "reorder":
            return draw(st.permutations(schema))
        if how == "drop" and len(schema) > 1:
            return schema[:index] + schema[index + 1 :]
        changed = _changed(draw, schema[index])
        if isinstance(changed, list) or _label(changed) in {_label(branch) for branch in schema}:
            return schema
        return [*schema[:index], changed, *schema[index + 1 :]]
    kind = schema if isinstance(schema, str) else schema["type"]
    hows = ["inside"] * 4 + ["promote", "nullable"]
    how = draw(st.sampled_from(hows))
    if how == "nullable" and kind != "null":
        return draw(st.permutations(["null", schema]))
    if how == "promote" and isinstance(schema, str):
        return draw(st.sampled_from([*PROMOTIONS.get(kind, []), "string"]))
    if kind == "array":
        return schema | {"items": _changed(draw, schema["items"])}
    if kind == "map":
        return schema | {"values": _changed(draw, schema["values"])}
    if kind == "enum":
        symbols = draw(st.lists(st.sampled_from([*schema["symbols"], "S8", "S9"]), min_size=1, unique=True))
        default = draw(st.sampled_from([None, *symbols]))
        changed = {key: schema[key] for key in ("type", "name")} | {"symbols": symbols}
        return changed if default is None else changed | {"default": default}
    if kind == "record":
        return _changed_record(draw, schema)
    return schema


def _changed_record(draw: st.DrawFn, schema: Any) -> Any:
    fields = [dict(field) for field in schema["fields"]]
    how = draw(st.sampled_from(["inside", "inside", "drop", "add", "reorder", "rename"]))
    if how == "add":
        type_, default = draw(st.sampled_from(DEFAULTS))
        name = f"added{len(fields)}"
        added = {"name": name, "type": _fresh(type_, name), "default": default}
        if not any(field["name"] == name for field in fields):
            fields.insert(draw(st.integers(0, len(fields))), added)
    elif fields and how == "reorder":
        fields = draw(st.permutations(fields))
    elif fields:
        index = draw(st.integers(0, len(fields) - 1))
        if how == "drop":
            del fields[index]
        elif how == "rename":
            old = fields[index]["name"]
            fields[index] = fields[index] | {"name": f"{old}_new"} | draw(st.sampled_from([{"aliases": [old]}, {}]))
        else:
            fields[index]["type"] = _changed(draw, fields[index]["type"])
            fields[index].pop("default", None)
    return schema | {"fields": fields}


def _fresh(type_: Any, name: str) -> Any:
    return type_ | {"name": f"T_{name}"} if isinstance(type_, dict) and "name" in type_ else type_


DEFAULTS: list[tuple[Any, Any]] = [
    ("int", 7),
    ("long", -5),
    ("double", 1.5),
    ("string", "dé"),
    ("bytes", "\u00ff\u0001"),
    ("boolean", True),
    (["null", "string"], None),
    (["string", "null"], "there"),
    ({"type": "array", "items": "int"}, [1, 2]),
    ({"type": "map", "values": "string"}, {"a": "b"}),
    ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B"),
    ({"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]}, {"x": 3}),
]


def written(schema: Any, value: Any) -> bytes:
    """Return a datum as fastavro writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(copy.deepcopy(schema)), value)
    return out.getvalue()


def read(data: bytes, writer: Any, reader: Any = None) -> Any:
    """Return what fastavro makes of a datum; raises EOFError where bytes are left."""
    stream = io.BytesIO(data)
    reader = None if reader is None else fastavro.parse_schema(copy.deepcopy(reader))
    value = fastavro.schemaless_reader(stream, fastavro.parse_schema(copy.deepcopy(writer)), reader)
    if stream.read(1):
        raise EOFError("bytes are left")
    return value


def from_arrow(schema: Any, value: Any) -> Any:
    """Return a value of Arrow's as fastavro would have it."""
    if isinstance(schema, list):
        others = [branch for branch in schema if branch != "null"]
        if value is None:
            return None
        if len(others) == 1:
            return from_arrow(others[0], value)
        found = [(branch, value[_label(branch)]) for branch in others if value[_label(branch)] is not None]
        assert len(found) == 1, value
        return from_arrow(*found[0])
    if isinstance(schema, str):
        return value
    if schema["type"] == "record":
        return {field["name"]: from_arrow(field["type"], value[field["name"]]) for field in schema["fields"]}
    if schema["type"] == "array":
        return [from_arrow(schema["items"], item) for item in value]
    if schema["type"] == "map":
        return {key: from_arrow(schema["values"], item) for key, item in value}
    if schema.get("logicalType") == "duration":
        return b"".join(value[part].to_bytes(4, "little") for part in ("months", "days", "milliseconds"))
    if schema.get("logicalType") == "uuid":
        if schema["type"] == "fixed":
            return value.bytes
        try:
            return uuid.UUID(value)
        except ValueError:
            return value
    return value


def alike(left: Any, right: Any, *, plain: bool = False) -> bool:
    """Return whether values are equal, floats but for their width.

    `plain`: what the writer's logical type made of a number or bytes may be a number or bytes, as a reader without that
    logical type has it; fastavro goes by the writer's.
    """
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(alike(left[key], right[key], plain=plain) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(alike(*pair, plain=plain) for pair in zip(left, right, strict=True))
    if plain and isinstance(left, (int, float, bytes, str)) and isinstance(right, (date, time, Decimal, uuid.UUID)):
        return True
    if isinstance(left, float) and isinstance(right, (float, int)):
        return math.isclose(left, right, rel_tol=1e-6) or left == right
    if plain and isinstance(left, str) and isinstance(right, bytes):
        return left.encode() == right
    if isinstance(left, bytes) and isinstance(right, str):
        # fastavro leaves defaults of bytes as the schema's text.
        return left == right.encode("latin-1")
    if isinstance(left, (datetime, time)):
        return bool(left == right)
    return type(left) is type(right) and bool(left == right)
