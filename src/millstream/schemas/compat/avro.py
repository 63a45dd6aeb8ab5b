"""Avro: whether a reader's schema can take every datum of a writer's, by the resolution of the specification (1.12).

The verdicts are those of Avro's Java SchemaCompatibility, which registries give: names count without their namespace,
a reader's aliases count, logical types don't. Paths are JSON pointers into the reader's schema, as Java makes them;
where the writer alone has a union, they also name its branch.

A pair of types is looked at once. While it is being looked at it counts as compatible, so recursive types end; with
that, pairs inside it are judged as if it were, which is right: the whole is incompatible only through something else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from millstream.schemas.compat.incompatibility import Incompatibility
from millstream.schemas.compat.trampoline import Steps, run
from millstream.schemas.parsing.avro import AvroSchema
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
)

PROMOTIONS: Final = frozenset(
    (
        ("int", "long"),
        ("int", "float"),
        ("int", "double"),
        ("long", "float"),
        ("long", "double"),
        ("float", "double"),
        ("string", "bytes"),
        ("bytes", "string"),
    )
)
"""(writer, reader) pairs of different primitive types that a reader can take."""

INCOMPATIBILITIES_MAX: Final = 100
"""How many are told of a pair of types: a type that is used many times, nested, would tell its own again and again."""

KEPT_MAX: Final = 20_000
"""How many are kept of all pairs together until the whole is known; beyond that one of each pair."""

PATH_CHARACTERS_MAX: Final = 1_000
"""How long a path grows: a graph can be far deeper than its text. A longer one has only its end, after `/...`."""


def avro_incompatibilities(
    reader: AvroSchema, writer: AvroSchema, reader_is: str, writer_is: str
) -> list[Incompatibility]:
    """Return why `reader` can't take what `writer` wrote, in the order of the reader's schema; empty where it can."""
    if reader.root is writer.root:
        return []
    found = run(_Checker(reader_is, writer_is).pair(reader.root, writer.root))
    return [replace(one, path=one.path or "/") for one in found]


def find_writer_field(record: RecordType, field: Field) -> Field | None:
    """Return the field of a writer's record that a reader's `field` takes: of its name, else of one of its aliases."""
    return next(iter(_writer_fields(record, field)), None)


def _writer_fields(record: RecordType, field: Field) -> list[Field]:
    return [record.by_name[name] for name in dict.fromkeys((field.name, *field.aliases)) if name in record.by_name]


def names_match(reader: NamedType, writer: NamedType) -> bool:
    """Return whether a writer's name means a reader's type: names without namespace are equal, or an alias is."""
    return reader.name == writer.name or writer.full_name in reader.aliases


def _under(path: str, one: Incompatibility) -> Incompatibility:
    if one.path.startswith("/..."):
        return one
    return replace(one, path=path + one.path if len(one.path) < PATH_CHARACTERS_MAX else f"/...{one.path}")


class _Checker:
    def __init__(self, reader_is: str, writer_is: str) -> None:
        self._reader_is = reader_is
        self._writer_is = writer_is
        # What is known of a pair of types, by identity; None while it is being looked at.
        self._results: dict[tuple[int, int], list[Incompatibility] | None] = {}
        self._kept = 0  # incompatibilities in _results
        # The branches of a reader's union, by identity of the union: by names and aliases, "" for those without.
        self._branches: dict[int, dict[str, list[AvroType]]] = {}

    def pair(self, reader: AvroType, writer: AvroType) -> Steps[list[Incompatibility]]:
        """Return the incompatibilities of a pair of types, paths from there, by what is known or by looking."""
        key = (id(reader), id(writer))
        if key in self._results:
            return self._results[key] or []
        self._results[key] = None
        result: list[Incompatibility] = yield self._compare(reader, writer)
        if self._kept > KEPT_MAX:
            del result[1:]
        self._kept += len(result)
        self._results[key] = result
        return result

    def _at(self, path: str, reader: AvroType, writer: AvroType) -> Steps[list[Incompatibility]]:
        """As `pair`, with paths from above: `path` leads to the pair."""
        found: list[Incompatibility] = yield self.pair(reader, writer)
        return [_under(path, one) for one in found]

    def _compare(self, reader: AvroType, writer: AvroType) -> Steps[list[Incompatibility]]:
        found: list[Incompatibility] = []
        if isinstance(writer, UnionType):
            for index, branch in enumerate(writer.branches):
                if not isinstance(reader, UnionType):
                    found += yield self._at(f"/{index}", reader, branch)
                elif (yield self.pair(reader, branch)):
                    found.append(self._missing_branch(branch, f"/{index}"))
                del found[INCOMPATIBILITIES_MAX:]
        elif isinstance(reader, UnionType):
            for branch in self._candidates(reader, writer):
                if not (yield self.pair(branch, writer)):
                    return found
            found.append(self._missing_branch(writer, ""))
        elif isinstance(reader, ArrayType) and isinstance(writer, ArrayType):
            found += yield self._at("/items", reader.items, writer.items)
        elif isinstance(reader, MapType) and isinstance(writer, MapType):
            found += yield self._at("/values", reader.values, writer.values)
        elif isinstance(reader, NamedType) and isinstance(writer, NamedType) and reader.kind == writer.kind:
            found += self._names(reader, writer)
            found += yield self._named(reader, writer)
        elif reader.kind != writer.kind and (writer.kind, reader.kind) not in PROMOTIONS:
            found.append(self._type_mismatch(reader, writer))
        return found

    def _candidates(self, reader: UnionType, writer: AvroType) -> list[AvroType]:
        """Return the branches that could take a writer's type as far as names tell: unions may have many branches."""
        by_name = self._branches.get(id(reader))
        if by_name is None:
            by_name = self._branches[id(reader)] = {}
            for branch in reader.branches:
                for name in (branch.name, *branch.aliases) if isinstance(branch, NamedType) else ("",):
                    by_name.setdefault(name, []).append(branch)
        if not isinstance(writer, NamedType):
            return by_name.get("", [])
        named = by_name.get(writer.name, []) + by_name.get(writer.full_name, [])
        return [branch for branch in dict.fromkeys(named) if branch.kind == writer.kind]

    def _named(self, reader: NamedType, writer: NamedType) -> Steps[list[Incompatibility]]:
        if isinstance(reader, RecordType) and isinstance(writer, RecordType):
            found: list[Incompatibility] = yield self._fields(reader, writer)
            return found
        if isinstance(reader, EnumType) and isinstance(writer, EnumType):
            return self._symbols(reader, writer)
        assert isinstance(reader, FixedType), reader
        assert isinstance(writer, FixedType), writer
        if reader.size == writer.size:
            return []
        sentence = (
            f"{reader.full_name} has {reader.size} bytes in the {self._reader_is} schema and {writer.size} in the"
            f" {self._writer_is} one; keep the size, or give the new one another name"
        )
        detail = f"expected: {writer.size}, found: {reader.size}"
        return [Incompatibility("FIXED_SIZE_MISMATCH", "/size", sentence, detail)]

    def _fields(self, reader: RecordType, writer: RecordType) -> Steps[list[Incompatibility]]:
        found: list[Incompatibility] = []
        for field in reader.fields:
            path = f"/fields/{field.position}"
            written = _writer_fields(writer, field)
            if len(written) > 1:
                found.append(self._ambiguous(field, written, path))
            elif written:
                found += yield self._at(f"{path}/type", field.type, written[0].type)
            elif not field.has_default:
                if isinstance(field.type, EnumType) and field.type.default is not None:
                    # Java asks here whether the enum, having a default itself, can take the record: it never can.
                    found += yield self._at(f"{path}/type", field.type, writer)
                else:
                    found.append(self._missing_field(field, path))
            if len(found) >= INCOMPATIBILITIES_MAX:
                break
        return found[:INCOMPATIBILITIES_MAX]

    def _missing_field(self, field: Field, path: str) -> Incompatibility:
        sentence = (
            f"the {self._reader_is} schema wants the field {field.name}, which the {self._writer_is} schema does not"
            " have; give it a default, or the name it had before as an alias"
        )
        return Incompatibility("READER_FIELD_MISSING_DEFAULT_VALUE", path, sentence, field.name)

    def _ambiguous(self, field: Field, written: list[Field], path: str) -> Incompatibility:
        names = ", ".join(one.name for one in written)
        sentence = (
            f"the field {field.name} of the {self._reader_is} schema could be any of {names} of the {self._writer_is}"
            " schema; drop the aliases that are fields of their own"
        )
        return Incompatibility("AMBIGUOUS_FIELD_ALIAS", path, sentence, names)

    def _symbols(self, reader: EnumType, writer: EnumType) -> list[Incompatibility]:
        missing = sorted(set(writer.symbols).difference(reader.symbols))
        if not missing or reader.default is not None:
            return []
        shown = f"[{', '.join(missing)}]"
        sentence = (
            f"{reader.full_name} lacks the symbols {shown} in the {self._reader_is} schema, which it has in the"
            f" {self._writer_is} one; keep them, or give the enum a default"
        )
        return [Incompatibility("MISSING_ENUM_SYMBOLS", "/symbols", sentence, shown)]

    def _names(self, reader: NamedType, writer: NamedType) -> list[Incompatibility]:
        if names_match(reader, writer):
            return []
        sentence = (
            f"the {reader.kind} {writer.full_name} of the {self._writer_is} schema is {reader.full_name} in the"
            f" {self._reader_is} one; keep the name, or make the one it had before an alias"
        )
        return [Incompatibility("NAME_MISMATCH", "/name", sentence, f"expected: {writer.full_name}")]

    def _missing_branch(self, writer: AvroType, path: str) -> Incompatibility:
        sentence = (
            f"the union of the {self._reader_is} schema has no branch that can take {writer.label} of the"
            f" {self._writer_is} schema; keep such a branch"
        )
        detail = f"reader union lacking writer type: {writer.kind.upper()}"
        return Incompatibility("MISSING_UNION_BRANCH", path, sentence, detail)

    def _type_mismatch(self, reader: AvroType, writer: AvroType) -> Incompatibility:
        sentence = (
            f"the {self._reader_is} schema has {reader.label} where the {self._writer_is} one has {writer.label}, which"
            " can't be read as that; keep the type, widen it, or make it a union of both"
        )
        detail = f"reader type: {reader.kind.upper()} not compatible with writer type: {writer.kind.upper()}"
        return Incompatibility("TYPE_MISMATCH", "", sentence, detail)
