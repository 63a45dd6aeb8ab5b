"""The Arrow columns of an Avro schema: what the kernel fills, and how the result is typed.

    null                       null                    record                struct
    boolean                    bool                    array                 list<item>
    int, long                  int32, int64            map                   map<string, value>
    float, double              float, double           enum                  dictionary<int32, string>
    bytes, string              binary, string          fixed                 fixed_size_binary
    [null, T]                  T with nulls            other unions          see below

    date                       date32                  decimal               decimal128, from 39 digits decimal256
    time-millis, -micros       time32[ms], time64[us]  uuid on a string      string, on a fixed: arrow.uuid
    timestamp-*                timestamp[*, UTC]       duration              struct<months, days, milliseconds: uint32>
    local-timestamp-*          timestamp[*]            big-decimal           binary, as it is written

A union of several types becomes a struct with a field for each of them, named as Avro's JSON encoding names it, all
null but one; the null branch is a null struct. Or, where asked for, a dense union. A decimal of more than 76 digits
stays what it is made of. A duration is no Arrow interval: those are signed and no Parquet writer takes them.

The fields of a record at the top are the columns; anything else at the top is one column, `value`. A type that holds
itself has no Arrow type: it is refused, or kept there as Avro-encoded binary.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from millstream.schemas._kernels.opcodes import (
    KIND_BITS,
    KIND_BYTES,
    KIND_FIXED,
    KIND_LIST,
    KIND_NULL,
    KIND_STRUCT,
    KIND_UNION,
)
from millstream.schemas.parsing.avro_types import (
    ArrayType,
    AvroType,
    EnumType,
    FixedType,
    LogicalType,
    MapType,
    RecordType,
    UnionType,
    logical_type,
)

COLUMNS_MAX: Final = 10_000
"""Columns of one schema, nested ones included: types used over and over can make exponentially many."""

NESTING_MAX: Final = 60
"""How deep columns may lie in each other."""

DENSE_BRANCHES_MAX: Final = 127  # a dense union's type ids are int8
DECIMAL128_PRECISION_MAX: Final = 38
DECIMAL256_PRECISION_MAX: Final = 76

_DURATION_PARTS: Final = ("months", "days", "milliseconds")
_TEMPORAL: Final[dict[str, pa.DataType]] = {
    "date": pa.date32(),
    "time-millis": pa.time32("ms"),
    "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "timestamp-nanos": pa.timestamp("ns", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
    "local-timestamp-nanos": pa.timestamp("ns"),
}
_PLAIN: Final[dict[str, tuple[int, int, pa.DataType]]] = {
    "null": (KIND_NULL, 0, pa.null()),
    "boolean": (KIND_BITS, 0, pa.bool_()),
    "int": (KIND_FIXED, 4, pa.int32()),
    "long": (KIND_FIXED, 8, pa.int64()),
    "float": (KIND_FIXED, 4, pa.float32()),
    "double": (KIND_FIXED, 8, pa.float64()),
    "bytes": (KIND_BYTES, 0, pa.binary()),
    "string": (KIND_BYTES, 0, pa.string()),
}


class UnsupportedSchemaError(ValueError):
    """A valid schema that has no Arrow type; the message says where, and what to do."""


class Slot:
    """One column of the kernel's table.

    `node` is the reader's type without the null of [null, T]; `nullable` says that there was one, or that the column is
    one of several that a value may lie in. `children` are a record's fields, a list's items, the entries of a map with
    key and value in them, or a union's branches; `branches` are a union's types without null.
    """

    __slots__ = (
        "branches",
        "children",
        "index",
        "is_raw",
        "kind",
        "node",
        "nullable",
        "parent",
        "path",
        "type",
        "width",
    )

    def __init__(self, index: int, parent: int, node: AvroType, path: str, *, nullable: bool) -> None:
        self.index = index
        self.parent = parent
        self.node = node
        self.path = path
        self.nullable = nullable
        self.kind = KIND_NULL
        self.width = 0
        self.type: pa.DataType = pa.null()
        self.children: list[Slot] = []
        self.branches: list[AvroType] = []
        # Holds Avro-encoded values of `node` as they are.
        self.is_raw = False

    @property
    def has_validity(self) -> bool:
        """Whether it has a bitmap of validity: Arrow's nulls and unions have none."""
        return self.nullable and self.kind not in {KIND_NULL, KIND_UNION}

    @property
    def holds_raw(self) -> bool:
        """Whether it, or a column in it, holds Avro-encoded values."""
        return self.is_raw or any(child.holds_raw for child in self.children)

    def __repr__(self) -> str:
        return f"<column {self.index} {self.path}: {self.type}>"


class Layout:
    """The columns of a reader's schema, parents before their children, and the Arrow schema they make."""

    def __init__(self, root: AvroType, *, dense_unions: bool = False, raw_recursion: bool = False) -> None:
        """Raises UnsupportedSchemaError for what has no Arrow type, or too many columns."""
        self.root = root
        self.slots: list[Slot] = []
        self._dense_unions = dense_unions
        self._raw_recursion = raw_recursion
        self._open: list[AvroType] = []
        self.fields: list[Slot] = []
        if isinstance(root, RecordType):
            self._open.append(root)
            names = [field.name for field in root.fields]
            self.fields = [self._slot(field.type, -1, field.name) for field in root.fields]
        else:
            names = ["value"]
            self.fields = [self._slot(root, -1, "value")]
        self.schema = pa.schema(
            [_field(name, slot) for name, slot in zip(names, self.fields, strict=True)],
        )

    def _slot(self, node: AvroType, parent: int, path: str, *, nullable: bool = False) -> Slot:
        if len(self.slots) >= COLUMNS_MAX:
            raise UnsupportedSchemaError(f"the schema has more than {COLUMNS_MAX} columns, at {path}; project it")
        if len(self._open) > NESTING_MAX:
            raise UnsupportedSchemaError(f"{path} lies deeper than {NESTING_MAX} levels; project it")
        branches: list[AvroType] = []
        if isinstance(node, UnionType):
            branches = [branch for branch in node.branches if branch.kind != "null"]
            nullable = nullable or len(branches) < len(node.branches)
            if len(branches) == 1:
                node = branches[0]
            elif not branches:
                node = node.branches[0] if node.branches else node
        slot = Slot(len(self.slots), parent, node, path, nullable=nullable)
        self.slots.append(slot)
        if any(node is one for one in self._open):
            if not self._raw_recursion:
                raise UnsupportedSchemaError(
                    f"{path} is a {node.label} within a {node.label}: no Arrow type holds itself; leave the field out"
                    " of the reader's schema, or have it as Avro-encoded binary (on_recursion='binary')"
                )
            slot.kind, slot.type, slot.is_raw = KIND_BYTES, pa.binary(), True
            return slot
        self._open.append(node)
        if isinstance(node, UnionType):
            self._union(slot, node, branches)
        else:
            self._type(slot, node)
        self._open.pop()
        return slot

    def _type(self, slot: Slot, node: AvroType) -> None:
        logical = logical_type(node)
        if isinstance(node, RecordType):
            slot.kind = KIND_STRUCT
            slot.children = [self._slot(field.type, slot.index, f"{slot.path}.{field.name}") for field in node.fields]
            slot.type = pa.struct(
                [_field(field.name, child) for field, child in zip(node.fields, slot.children, strict=True)]
            )
        elif isinstance(node, ArrayType):
            slot.kind = KIND_LIST
            slot.children = [self._slot(node.items, slot.index, f"{slot.path}[]")]
            slot.type = pa.list_(_field("item", slot.children[0]))
        elif isinstance(node, MapType):
            self._map(slot, node)
        elif isinstance(node, EnumType):
            slot.kind, slot.width = KIND_FIXED, 4
            slot.type = pa.dictionary(pa.int32(), pa.string())
        elif logical is not None and logical.name == "decimal" and logical.precision <= DECIMAL256_PRECISION_MAX:
            slot.kind = KIND_FIXED
            slot.type, slot.width = _decimal(logical)
        elif isinstance(node, FixedType):
            if logical is not None and logical.name == "duration":
                self._duration(slot, node)
            else:
                slot.kind, slot.width = KIND_FIXED, node.size
                slot.type = pa.uuid() if logical is not None and logical.name == "uuid" else pa.binary(node.size)
        else:
            slot.kind, slot.width, slot.type = _PLAIN[node.kind]
            if logical is not None and logical.name in _TEMPORAL:
                slot.type = _TEMPORAL[logical.name]

    def _map(self, slot: Slot, node: MapType) -> None:
        slot.kind = KIND_LIST
        entries = Slot(len(self.slots), slot.index, node, f"{slot.path}[]", nullable=False)
        self.slots.append(entries)
        entries.kind = KIND_STRUCT
        key = self._slot(AvroType("string"), entries.index, f"{slot.path}[].key")
        value = self._slot(node.values, entries.index, f"{slot.path}[].value")
        entries.children = [key, value]
        slot.children = [entries]
        slot.type = pa.map_(pa.field("key", key.type, nullable=False), _field("value", value))
        entries.type = pa.struct([slot.type.key_field, slot.type.item_field])

    def _duration(self, slot: Slot, node: FixedType) -> None:
        slot.kind = KIND_STRUCT
        for part in _DURATION_PARTS:
            child = Slot(len(self.slots), slot.index, node, f"{slot.path}.{part}", nullable=False)
            child.kind, child.width, child.type = KIND_FIXED, 4, pa.uint32()
            self.slots.append(child)
            slot.children.append(child)
        slot.type = pa.struct([pa.field(part, pa.uint32(), nullable=False) for part in _DURATION_PARTS])

    def _union(self, slot: Slot, node: UnionType, branches: list[AvroType]) -> None:
        if not node.branches:
            raise UnsupportedSchemaError(f"{slot.path} is a union of nothing: no value can be written for it")
        if self._dense_unions:
            # Arrow's unions have no nulls of their own: null is a branch.
            slot.kind, slot.branches, slot.nullable = KIND_UNION, node.branches, slot.nullable
            if len(node.branches) > DENSE_BRANCHES_MAX:
                raise UnsupportedSchemaError(
                    f"{slot.path} has over {DENSE_BRANCHES_MAX} branches; take on_union='struct'"
                )
            slot.children = [self._slot(branch, slot.index, f"{slot.path}.{branch.label}") for branch in node.branches]
            fields = [_field(branch.label, child) for branch, child in zip(node.branches, slot.children, strict=True)]
            slot.type = pa.dense_union(fields)
            return
        slot.kind, slot.branches = KIND_STRUCT, branches
        slot.children = [
            self._slot(branch, slot.index, f"{slot.path}.{branch.label}", nullable=True) for branch in branches
        ]
        slot.type = pa.struct(
            [_field(branch.label, child) for branch, child in zip(branches, slot.children, strict=True)]
        )


def _field(name: str, slot: Slot) -> pa.Field:
    logical = None if slot.is_raw else logical_type(slot.node)
    metadata = None
    if (
        logical is not None
        and logical.name in {"uuid", "duration", "big-decimal"}
        and not isinstance(slot.node, MapType)
    ):
        # What the Arrow type does not say.
        metadata = {"avro.logicalType": logical.name}
    nullable = slot.nullable or slot.kind == KIND_NULL
    return pa.field(name, slot.type, nullable=nullable, metadata=metadata)


def _decimal(logical: LogicalType) -> tuple[pa.DataType, int]:
    if logical.precision <= DECIMAL128_PRECISION_MAX:
        return pa.decimal128(logical.precision, logical.scale), 16
    return pa.decimal256(logical.precision, logical.scale), 32
