"""Two Avro schemas to the least one that reads both: a table's, and one more writer's.

The rules are those of Avro's schema resolution (1.12), turned round: where they let a reader take what a writer wrote,
the table becomes that reader. Fields that one side lacks become optional, nullable wins over required, enums get all
symbols, unions all branches, numbers meet at the wider type (int and long with float at double, which loses least).
Beyond the specification, as in the decoder: logical types have to agree, or values would change their meaning.

Some of it Avro can do and Parquet's readers cannot, over several files: Spark 4.3 merges neither numbers of different
types nor text with bytes, and nobody follows a field to its new name (tests/hadoop_loader/tables holds each of these
against pyarrow, DuckDB and Spark). Such changes are `breaking`: the caller begins a new generation with the result.

A join works on the table's graph in place: a named type is one node wherever it is used, so what one use brings all
others get. After CannotJoinError the graph is good for nothing.
"""

from __future__ import annotations

from typing import Final

from millstream.hadoop_loader.tables.changes import ChangeKind
from millstream.schemas.compat.avro import names_match
from millstream.schemas.parsing.avro_defaults import DefaultChecks
from millstream.schemas.parsing.avro_types import (
    NO_DEFAULT,
    ArrayType,
    AvroType,
    EnumType,
    Field,
    FixedType,
    LogicalType,
    MapType,
    NamedType,
    RecordType,
    UnionType,
    children,
    logical_type,
    same_type,
)

ADDED: Final = "millstream.added"
"""Property of fields that were not there from the start: files written before lack their column."""

PARQUET_DIGITS_MAX: Final = 38
"""Decimals of more digits are bytes in Parquet files: Spark's own have no more."""

_WIDER: Final = {
    frozenset(("int", "long")): "long",
    frozenset(("int", "float")): "double",
    frozenset(("long", "float")): "double",
    frozenset(("int", "double")): "double",
    frozenset(("long", "double")): "double",
    frozenset(("float", "double")): "double",
    frozenset(("string", "bytes")): "bytes",
}
# These say something about a value, not how it is read.
_REMARKS: Final = frozenset(("big-decimal",))
_FINER: Final = {
    (f"{family}-millis", f"{family}-micros"): f"{family}-micros" for family in ("timestamp", "local-timestamp")
}


class CannotJoinError(ValueError):
    """No schema reads both; the message says where, and why."""

    def __init__(self, path: str, sentence: str) -> None:
        self.path = path
        super().__init__(f"{path or 'the record'}: {sentence}")


class Joiner:
    """One join of a writer's schema to a table's.

    `changes` are what the table lacked, as (kind, path, sentence); `breaking` those of them that Parquet's readers
    can't follow across files.
    """

    def __init__(self, table: AvroType | None) -> None:
        """Join to `table`, whose graph is the joiner's from now on; None: the first schema becomes it."""
        self.root = table
        self.changes: list[tuple[ChangeKind, str, str]] = []
        self.breaking: list[str] = []
        self._checks = DefaultChecks()
        self._named = {} if table is None else {node.full_name: node for node in named_types(table)}
        # Types that hold themselves, and what is in them.
        self._frozen = frozen_types(list(self._named.values()))
        self._done: set[tuple[int, int]] = set()
        # A writer's named types, by id, and their copies in the table.
        self._copies: dict[int, tuple[NamedType, NamedType]] = {}

    def add(self, writer: AvroType) -> AvroType:
        """Join the schema of one writer; returns the table's. Raises CannotJoinError."""
        if self.root is not None and isinstance(self.root, RecordType) != isinstance(writer, RecordType):
            # Fields are the columns of the one, and the other has a single column.
            raise CannotJoinError("", f"{_said(writer)} has other columns than {_said(self.root)}")
        self.root = self._adopt(writer, "") if self.root is None else self._join(self.root, writer, "")
        for node, copy in self._copies.values():
            if _reaches_itself(node) and not same_type(node, copy):
                raise CannotJoinError(node.full_name, "it holds itself, and a type in it is another than before")
        return self.root

    def _note(self, kind: ChangeKind, path: str, sentence: str, *, breaks: bool = False) -> None:
        self.changes.append((kind, path, sentence))
        if breaks:
            self.breaking.append(sentence)

    # Types that both have.

    def _join(self, table: AvroType, writer: AvroType, path: str) -> AvroType:
        if table is writer:
            return table
        if isinstance(table, UnionType) or isinstance(writer, UnionType) or "null" in {table.kind, writer.kind}:
            return self._union(table, writer, path)
        if isinstance(table, NamedType) and isinstance(writer, NamedType) and table.kind == writer.kind:
            return self._named_type(table, writer, path)
        if isinstance(table, ArrayType) and isinstance(writer, ArrayType):
            table.items = self._join(table.items, writer.items, f"{path}[]")
            return table
        if isinstance(table, MapType) and isinstance(writer, MapType):
            table.values = self._join(table.values, writer.values, f"{path}{{}}")
            return table
        return self._plain(table, writer, path)

    def _plain(self, table: AvroType, writer: AvroType, path: str) -> AvroType:
        ours, theirs = _meaning(table), _meaning(writer)
        if table.kind == writer.kind:
            if ours == theirs:
                same_remarks = table.props.get("logicalType") == writer.props.get("logicalType")
                return table if same_remarks else _without_logical(table)
            return self._logical(table, ours, writer, theirs, path)
        wider = _WIDER.get(frozenset((table.kind, writer.kind)))
        if wider is None or ours is not None or theirs is not None:
            raise CannotJoinError(path, f"{_said(writer)} is not read as {_said(table)}, nor the other way")
        if wider == table.kind:
            return table
        self._note(ChangeKind.PROMOTED, path, f"{path} is {wider} instead of {table.kind}", breaks=True)
        return AvroType(wider)

    def _logical(
        self, table: AvroType, ours: LogicalType | None, writer: AvroType, theirs: LogicalType | None, path: str
    ) -> AvroType:
        """Join types of one kind that mean different things."""
        if ours is not None and theirs is not None:
            if ours.name == theirs.name == "decimal" and ours.scale == theirs.scale:
                if theirs.precision <= ours.precision:
                    return table
                breaks = theirs.precision > PARQUET_DIGITS_MAX >= ours.precision
                said = f"{path} has {theirs.precision} digits instead of {ours.precision}"
                self._note(ChangeKind.PROMOTED, path, said, breaks=breaks)
                props = {**table.props, "precision": theirs.precision}
                if isinstance(table, FixedType):
                    table.props = props
                    return table
                return AvroType(table.kind, props)
            if (theirs.name, ours.name) in _FINER:
                return table
            if (ours.name, theirs.name) in _FINER:
                # Who reads the Avro files by the table's schema would take the older numbers for the finer unit.
                self._note(ChangeKind.PROMOTED, path, f"{path} is {theirs.name} instead of {ours.name}", breaks=True)
                return writer
        raise CannotJoinError(path, f"{_said(writer)} means something else than {_said(table)}")

    def _named_type(self, table: NamedType, writer: NamedType, path: str) -> NamedType:
        key = id(table), id(writer)
        if key in self._done:
            return table
        self._done.add(key)
        if not names_match(table, writer):
            if table.full_name not in writer.aliases:
                raise CannotJoinError(path, f"{writer.full_name} is another type than {table.full_name}")
            table.aliases = (*table.aliases, writer.full_name)
        if id(table) in self._frozen or _reaches_itself(writer):
            # The column holds the datums as they were written: all of them by one schema.
            if not same_type(table, writer):
                raise CannotJoinError(path, f"{table.full_name} holds itself, and such a type cannot change")
        elif isinstance(table, RecordType) and isinstance(writer, RecordType):
            self._fields(table, writer, path)
        elif isinstance(table, EnumType) and isinstance(writer, EnumType):
            self._symbols(table, writer, path)
        elif isinstance(table, FixedType) and isinstance(writer, FixedType):
            if table.size != writer.size:
                raise CannotJoinError(path, f"{table.full_name} has {table.size} bytes, and {writer.size} there")
            self._plain(table, writer, path)
        return table

    def _symbols(self, table: EnumType, writer: EnumType, path: str) -> None:
        added = [symbol for symbol in writer.symbols if symbol not in table.symbols]
        if not added:
            return
        covered = set(table.symbols) <= set(writer.symbols)
        # The writer's order where it can be had: then its datums are the table's, byte for byte.
        table.symbols = list(writer.symbols) if covered else [*table.symbols, *added]
        self._note(ChangeKind.SYMBOLS_ADDED, path, f"{path or table.full_name} may be {', '.join(added)} as well")

    # Unions.

    def _union(self, table: AvroType, writer: AvroType, path: str) -> AvroType:
        ours = _branches(table)
        single = _others(table) == _others(writer) == 1
        whole = list(ours)
        # Where each of the writer's branches went.
        order: list[AvroType] = []
        for branch in _branches(writer):
            at = _branch_for(whole, branch)
            if at is None and single and branch.kind != "null":
                at = next(at for at, one in enumerate(whole) if one.kind != "null")
            if at is not None:
                whole[at] = self._join(whole[at], branch, path)
                order.append(whole[at])
                continue
            order.append(self._adopt(branch, path))
            if branch.kind == "null":
                whole.insert(0, order[-1])
                self._note(ChangeKind.MADE_NULLABLE, path, f"{path} may be null")
            else:
                whole.append(order[-1])
                said = f"{path} may be {_said(branch)} as well"
                self._note(ChangeKind.BRANCH_ADDED, path, said, breaks=_others(table) < 2)
        if len(whole) == len(ours) and all(map(_is, whole, ours)):
            return table
        if len(whole) == 1 and not isinstance(table, UnionType):
            return whole[0]
        # The writer's order where it has all of them: then its datums are the table's, byte for byte.
        return UnionType(order if len(order) == len(whole) else whole)

    # Fields.

    def _fields(self, table: RecordType, writer: RecordType, path: str) -> None:
        matched: dict[int, Field] = {}
        added: list[Field] = []
        order: list[Field] = []
        held = list(table.fields)
        for wanted in writer.fields:
            field = _field_for(table, writer, wanted)
            if field is None:
                field = self._added(table, writer, wanted, path)
                added.append(field)
                order.append(field)
                continue
            if id(field) in matched:
                raise CannotJoinError(_at(path, field.name), f"both {matched[id(field)].name} and {wanted.name} are it")
            matched[id(field)] = wanted
            order.append(field)
            if wanted.name != field.name and wanted.name not in field.aliases:
                self._rename(table, field, wanted, path)
            field.type = self._join(field.type, wanted.type, _at(path, field.name))
            self._settle_default(field, wanted)
        missing = [field for field in held if id(field) not in matched]
        for field in missing:
            if not field.has_default:
                make_optional(field)
                said = f"{_at(path, field.name)} may be missing, and is null then"
                self._note(ChangeKind.FIELD_OPTIONAL, _at(path, field.name), said)
        # As with symbols: the writer's order, where it has all.
        fields = order if added and not missing else [*held, *added]
        _set_fields(table, fields)

    def _added(self, table: RecordType, writer: RecordType, wanted: Field, path: str) -> Field:
        where = _at(path, wanted.name)
        for field in table.fields:
            if wanted.name in field.aliases:
                raise CannotJoinError(where, f"it is a name that {field.name} had before")
            if field.name.casefold() == wanted.name.casefold():
                raise CannotJoinError(where, f"it differs from {field.name} only in case, which Spark and Hive ignore")
        field = self._field(wanted, {*table.by_name, *writer.by_name}, where)
        field.props = {**field.props, ADDED: True}
        if not field.has_default:
            make_optional(field)
        self._note(ChangeKind.FIELD_ADDED, where, f"{where} is new, {_said(wanted.type)}")
        return field

    def _rename(self, table: RecordType, field: Field, wanted: Field, path: str) -> None:
        self._note(
            ChangeKind.RENAMED,
            _at(path, wanted.name),
            f"{_at(path, field.name)} is called {wanted.name} now",
            breaks=True,
        )
        aliases = dict.fromkeys((field.name, *field.aliases, *wanted.aliases))
        names = {one.name for one in table.fields if one is not field} | {wanted.name}
        field.aliases = tuple(alias for alias in aliases if alias not in names)
        field.name = wanted.name
        table.by_name = {one.name: one for one in table.fields}

    def _settle_default(self, field: Field, wanted: Field) -> None:
        """Have a default that fits the first branch of the field's type, as Avro before 1.12 wants it."""
        if not field.has_default:
            return
        for default in (field.default, wanted.default):
            if default is NO_DEFAULT:
                continue
            branches = _branches(field.type)
            at = next((at for at, branch in enumerate(branches) if self._checks.is_valid(branch, default)), None)
            if at is None:
                continue
            field.default = default
            if at and not self._checks.is_valid(branches[0], default):
                field.type = UnionType([branches[at], *branches[:at], *branches[at + 1 :]])
            return
        make_optional(field)

    # Types that the table does not have yet.

    def _adopt(self, node: AvroType, path: str) -> AvroType:
        """Return a copy of a writer's type, with the table's own for named types that it has already."""
        if isinstance(node, NamedType):
            if id(node) in self._copies:
                return self._copies[id(node)][1]
            held = self._named.get(node.full_name)
            if held is not None:
                if held.kind != node.kind:
                    raise CannotJoinError(path, f"{node.full_name} is {node.kind} there, and {held.kind} before")
                return self._join(held, node, path)
            return self._adopt_named(node, path)
        if isinstance(node, ArrayType):
            return ArrayType(self._adopt(node.items, f"{path}[]"), node.props)
        if isinstance(node, MapType):
            return MapType(self._adopt(node.values, f"{path}{{}}"), node.props)
        if isinstance(node, UnionType):
            return UnionType([self._adopt(branch, path) for branch in node.branches])
        return node

    def _adopt_named(self, node: NamedType, path: str) -> NamedType:
        copy: NamedType
        if isinstance(node, RecordType):
            copy = RecordType(node.name, node.namespace, node.doc, node.aliases, node.props)
        elif isinstance(node, EnumType):
            copy = EnumType(
                node.name,
                node.namespace,
                node.doc,
                node.aliases,
                node.props,
                symbols=list(node.symbols),
                default=node.default,
            )
        else:
            assert isinstance(node, FixedType), node
            copy = FixedType(node.name, node.namespace, node.doc, node.aliases, node.props, size=node.size)
        self._named[node.full_name] = copy
        self._copies[id(node)] = node, copy
        if isinstance(node, RecordType) and isinstance(copy, RecordType):
            _set_fields(copy, [self._field(field, set(node.by_name), _at(path, field.name)) for field in node.fields])
        return copy

    def _field(self, field: Field, names: set[str], path: str) -> Field:
        return Field(
            field.name,
            self._adopt(field.type, path),
            field.position,
            doc=field.doc,
            default=field.default,
            order=field.order,
            # One that is a field's own name would have two fields read one.
            aliases=tuple(alias for alias in field.aliases if alias not in names),
            props=field.props,
        )


def make_optional(field: Field) -> None:
    """Let a field be null, by default."""
    others = [branch for branch in _branches(field.type) if branch.kind != "null"]
    field.type = UnionType([AvroType("null"), *others]) if others else AvroType("null")
    field.default = None


def named_types(root: AvroType) -> list[NamedType]:
    """Return the named types of a graph, each once."""
    found: dict[int, AvroType] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found[id(node)] = node
            waiting += children(node)
    return [node for node in found.values() if isinstance(node, NamedType)]


def _reaches_itself(node: NamedType) -> bool:
    seen: set[int] = set()
    waiting = children(node)
    while waiting:
        other = waiting.pop()
        if other is node:
            return True
        if id(other) not in seen:
            seen.add(id(other))
            waiting += children(other)
    return False


def frozen_types(nodes: list[NamedType]) -> set[int]:
    """Return the ids of those nodes that hold themselves, and of what lies in them."""
    return {id(inner) for node in nodes if _reaches_itself(node) for inner in named_types(node)}


def _set_fields(record: RecordType, fields: list[Field]) -> None:
    record.fields = fields
    for position, field in enumerate(fields):
        field.position = position
    record.by_name = {field.name: field for field in fields}


def _field_for(table: RecordType, writer: RecordType, wanted: Field) -> Field | None:
    """Return the table's field that a writer's field is: by name, by the table's aliases, by the writer's."""
    field = table.by_name.get(wanted.name)
    if field is not None:
        return field
    for field in table.fields:
        if wanted.name in field.aliases and field.name not in writer.by_name:
            return field
    for alias in wanted.aliases:
        if alias in table.by_name and alias not in writer.by_name:
            return table.by_name[alias]
    return None


def _branch_for(branches: list[AvroType], wanted: AvroType) -> int | None:
    """Return the branch that takes a type as it is: the same, else one of its short name."""
    for index, branch in enumerate(branches):
        if branch.kind == wanted.kind and branch.label == wanted.label:
            return index
    for index, branch in enumerate(branches):
        if not isinstance(branch, NamedType) or not isinstance(wanted, NamedType) or branch.kind != wanted.kind:
            continue
        if names_match(branch, wanted) or branch.full_name in wanted.aliases:
            return index
    return None


def _meaning(node: AvroType) -> LogicalType | None:
    """Return the logical type, where it makes values another type: a uuid that is text is text."""
    logical = logical_type(node)
    if logical is None or logical.name in _REMARKS or (logical.name == "uuid" and node.kind == "string"):
        return None
    return logical


def _without_logical(node: AvroType) -> AvroType:
    return AvroType(node.kind, {key: value for key, value in node.props.items() if key != "logicalType"})


def _said(node: AvroType) -> str:
    logical = logical_type(node)
    if isinstance(node, UnionType):
        said = [_said(branch) for branch in node.branches]
        return " or ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
    return node.label if logical is None else f"{logical.name} ({node.label})"


def _branches(node: AvroType) -> list[AvroType]:
    return node.branches if isinstance(node, UnionType) else [node]


def _others(node: AvroType) -> int:
    return sum(branch.kind != "null" for branch in _branches(node))


def _is(one: AvroType, other: AvroType) -> bool:
    return one is other


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
