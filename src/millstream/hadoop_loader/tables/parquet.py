"""The table's schema as columns that pyarrow, Spark and DuckDB read alike, across files of several versions of it.

What a Parquet file may say and what its readers take are two things. Spark 4.3 opens no file at all that has a column
of TIME, UUID or TIMESTAMP in nanoseconds, or a decimal of more than 38 digits; no writer has a group without columns.
So the reader's schema that fills Parquet's columns is the table's with these differences:

    time-millis, time-micros             int, long: the number
    timestamp-nanos, local-...-nanos     long: nanoseconds since 1970
    uuid on a fixed                      fixed
    decimal of more than 38 digits       bytes, or fixed: two's complement
    record without fields                with a field `_`, always null
    fields added later                   nullable: earlier files lack their column

Avro files keep what the writers said. What is left out of a type stands in a property of it, UNREAD, for who reads
values of another kind into these columns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.tables.joining import ADDED, PARQUET_DIGITS_MAX, frozen_types, named_types
from millstream.schemas.parsing.avro import parse_avro
from millstream.schemas.parsing.avro_text import canonical_text
from millstream.schemas.parsing.avro_types import (
    ArrayType,
    AvroType,
    EnumType,
    Field,
    FixedType,
    MapType,
    NamedType,
    RecordType,
    UnionType,
    children,
    logical_type,
)

if TYPE_CHECKING:
    import pyarrow as pa

UNREAD: Final = "millstream.unread"
"""Property of types: the logical type that Parquet's readers do not know, and that was left out."""
_UNREAD_NAMES: Final = frozenset(("time-millis", "time-micros", "timestamp-nanos", "local-timestamp-nanos"))


@lru_cache(maxsize=256)
def parquet_avro_schema(text: str) -> str:
    """Return the reader's schema whose columns are written to Parquet, for a table's schema."""
    root, records = _known(text)
    for node in records:
        for field in node.fields:
            if field.props.get(ADDED):
                field.type = _nullable(field.type)
        if not node.fields:
            node.fields = [_placeholder()]
            node.by_name = {field.name: field for field in node.fields}
    return canonical_text(root)


@lru_cache(maxsize=256)
def encoded_avro_schema(text: str) -> str:
    """Return the schema by which those columns are written to Avro: its datums are, byte for byte, the table's."""
    return canonical_text(_known(text)[0])


@lru_cache(maxsize=256)
def arrow_schema(text: str) -> pa.Schema:
    """Return the Arrow schema of a reader's schema. Raises UnsupportedSchemaError."""
    from millstream.schemas.avro.layout import Layout

    return Layout(parse_avro(text).root, raw_recursion=True).schema


def without_added(text: str) -> str:
    """Return a table's schema for a table without files: no field of it was added later."""
    root = parse_avro(text).root
    for node in named_types(root):
        if isinstance(node, RecordType):
            for field in node.fields:
                field.props = {key: value for key, value in field.props.items() if key != ADDED}
    return canonical_text(root)


@lru_cache(maxsize=1024)
def is_same_encoding(one: str, other: str) -> bool:
    """Whether datums of the one Avro schema are, byte for byte, datums of the other, and mean the same."""
    waiting, seen = [(parse_avro(one).root, parse_avro(other).root)], set()
    while waiting:
        pair = left, right = waiting.pop()
        if (id(left), id(right)) in seen:
            continue
        seen.add((id(left), id(right)))
        inner, others = children(left), children(right)
        if left.kind != right.kind or len(inner) != len(others) or logical_type(left) != logical_type(right):
            return False
        if not all(_details(node) == _details(pair[0]) for node in pair):
            return False
        waiting += zip(inner, others, strict=True)
    return True


def _details(node: AvroType) -> object:
    """Return what two types of one kind have to share for their datums to mean the same."""
    if isinstance(node, RecordType):
        return [field.name for field in node.fields]
    if isinstance(node, EnumType):
        return node.symbols
    return node.size if isinstance(node, FixedType) else None


def _known(text: str) -> tuple[AvroType, list[RecordType]]:
    """Return a schema with what Parquet's readers do not know left out, and its records."""
    root = parse_avro(text).root
    named = named_types(root)
    # Their columns hold datums as they were written.
    frozen = frozen_types(named)
    records: list[RecordType] = []
    for node in named:
        if id(node) in frozen:
            continue
        if isinstance(node, RecordType):
            for field in node.fields:
                field.type = _plain(field.type)
            records.append(node)
        elif isinstance(node, FixedType) and _is_unread(node):
            node.props = _without_logical(node)
    return _plain(root), records


def _plain(node: AvroType) -> AvroType:
    """Return a type that is no name's, with what Parquet's readers do not know left out."""
    if isinstance(node, ArrayType):
        return ArrayType(_plain(node.items), node.props)
    if isinstance(node, MapType):
        return MapType(_plain(node.values), node.props)
    if isinstance(node, UnionType):
        return UnionType([_plain(branch) for branch in node.branches])
    if not isinstance(node, NamedType) and _is_unread(node):
        return AvroType(node.kind, _without_logical(node))
    return node


def _nullable(node: AvroType) -> AvroType:
    """Let a type be null as well; what was its default stays one."""
    branches = node.branches if isinstance(node, UnionType) else [node]
    if any(branch.kind == "null" for branch in branches):
        return node
    return UnionType([*branches, AvroType("null")])


def _is_unread(node: AvroType) -> bool:
    logical = logical_type(node)
    if logical is None:
        return False
    if logical.name == "decimal":
        return logical.precision > PARQUET_DIGITS_MAX
    return logical.name in _UNREAD_NAMES or (logical.name == "uuid" and isinstance(node, FixedType))


def _without_logical(node: AvroType) -> dict[str, Any]:
    kept = {key: value for key, value in node.props.items() if key != "logicalType"}
    return {**kept, UNREAD: node.props["logicalType"]}


def _placeholder() -> Field:
    return Field("_", AvroType("null"), 0, doc=None, default=None, order="ascending", aliases=(), props={})
