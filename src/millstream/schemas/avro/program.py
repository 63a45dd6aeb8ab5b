"""Pairs of schemas compiled for the kernel: how each writer's datums fill the columns of the one reader.

The rules are those of the Avro specification 1.12 for schema resolution, as Java follows them: names count without
their namespace, of a reader's union the branch of the very same type is taken, else the first that the writer's can be
promoted to. What cannot be resolved fails where it is met in a datum, not before: a writer's union may well have a
branch that nobody wrote.

Beyond the specification, which leaves logical types out of resolution: where writer and reader both have times or
timestamps, in different units, they are converted, rounding down; and decimals of different scale do not match.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final

import pyarrow as _pa

from millstream.schemas._kernels import opcodes as op
from millstream.schemas.avro.defaults import InvalidDefaultError, encode_default
from millstream.schemas.avro.layout import Layout, Slot, UnsupportedSchemaError
from millstream.schemas.compat.avro import PROMOTIONS, find_writer_field, names_match
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
    same_type,
)

INSTRUCTIONS_MAX: Final = 200_000
"""Of all programs of a reader together, writers dropped when there are more."""

DIGITS_CHECKED_MAX: Final = 1_000
"""Decimals that may have more digits are bytes: whether they have too many is nobody's question."""

# Levels of a type that is skipped: records deeper than the first are skipped by calls, the rest is refused behind the
# second. How deep records are looked into for their least size.
_CALL_NESTING: Final = 20
_SKIP_NESTING_MAX: Final = 80
_SIZE_NESTING_MAX: Final = 50

_OPS: Final = {
    ("boolean", "boolean"): op.OP_BOOLEAN,
    ("int", "int"): op.OP_INT,
    ("int", "long"): op.OP_INT_AS_LONG,
    ("int", "float"): op.OP_INT_AS_FLOAT,
    ("int", "double"): op.OP_INT_AS_DOUBLE,
    ("long", "long"): op.OP_LONG,
    ("long", "float"): op.OP_LONG_AS_FLOAT,
    ("long", "double"): op.OP_LONG_AS_DOUBLE,
    ("float", "float"): op.OP_FLOAT,
    ("float", "double"): op.OP_FLOAT_AS_DOUBLE,
    ("double", "double"): op.OP_DOUBLE,
    ("bytes", "bytes"): op.OP_BYTES,
    ("string", "bytes"): op.OP_BYTES,
    ("string", "string"): op.OP_STRING,
    ("bytes", "string"): op.OP_STRING,
}
_SIZES: Final = {"null": 0, "boolean": 1, "float": 4, "double": 8}
# Families of logical types that count the same thing, and how long their unit is in nanoseconds.
_UNITS: Final = {
    f"{family}-{unit}": (family, nanos)
    for family in ("time", "timestamp", "local-timestamp")
    for unit, nanos in (("millis", 1_000_000), ("micros", 1_000), ("nanos", 1))
}


class Program:
    """Instructions for the writers added so far, with what the kernel needs beside them.

    Addresses are indices of `code`: a writer's program begins where `add` says.
    """

    def __init__(self, layout: Layout | None, *, strict: bool = False, checks_digits: bool = False) -> None:
        """Compile for the columns of `layout`; without one, datums are only skipped.

        `strict`: what is skipped is looked at to the last byte, not only passed over. `checks_digits`: a decimal has no
        more digits than its writer's schema says, whatever the reader's does; what is skipped strictly has not either.
        """
        self.layout = layout
        self.code = array("i")
        self.tables = array("i")
        self.pool = bytearray()
        # Why instructions FAIL, and for each instruction where in the schema it stands.
        self.reasons: list[str] = []
        self.paths: list[str] = []
        # How datums are looked at where nothing says otherwise; the same of what is being compiled.
        self._ways = strict, strict or checks_digits
        self._strict, self._checks_digits = self._ways
        # Precision -> where in the pool ten to its power lies, and in how many bytes; of the writer being added.
        self._bounds: dict[int, tuple[int, int]] = {}
        # No instruction before this one may be merged with those behind: something jumps between.
        self._barrier = 0
        # Where a record is called, and how it is looked at: strictly, and at its decimals' digits.
        self._calls: list[tuple[int, AvroType, bool, bool]] = []
        self._shared: set[int] = set()
        self._empty: set[int] = set()
        self._depth = 0
        self._sizes: dict[int, tuple[AvroType, int]] = {}

    def add(self, writer: AvroType, *, bare_bytes: bool = False) -> int:
        """Compile a writer's schema; return where its program begins.

        With `bare_bytes` a schema of bytes alone has no length before them, as Confluent's serializers write it.
        Raises UnsupportedSchemaError where that takes too many instructions.
        """
        self._calls, self._shared = [], _shared_records(writer)
        if self.layout is not None:
            self._shared |= _shared_records(self.layout.root)
        self._empty = _empty_records(writer)
        self._depth = 0
        self._bounds = {}
        self._strict, self._checks_digits = self._ways
        start = self._label()
        held = len(self.tables), len(self.pool), len(self.reasons)
        try:
            self._add(writer, bare_bytes=bare_bytes)
        except UnsupportedSchemaError:
            del self.code[start:], self.paths[start // 4 :]
            del self.tables[held[0] :], self.pool[held[1] :], self.reasons[held[2] :]
            raise
        return start

    def _add(self, writer: AvroType, *, bare_bytes: bool) -> None:
        if self.layout is None:
            if bare_bytes and writer.kind == "bytes":
                self._emit("value", op.OP_SKIP_RAW)
            else:
                self._skip(writer, "value")
        elif isinstance(self.layout.root, RecordType):
            self._root_record(writer, self.layout.root, self.layout.fields)
        elif bare_bytes and writer.kind == "bytes":
            slot = self.layout.fields[0]
            if slot.kind == op.KIND_BYTES and slot.node.kind == "bytes":
                self._set_valid(slot)
                self._emit(slot.path, op.OP_RAW, slot.index)
            else:
                self._fail(f"bytes are no {slot.node.label}", slot.path)
        else:
            self._resolve(writer, self.layout.fields[0])
        self._emit("", op.OP_END)
        self._compile_calls()

    def path_at(self, address: int) -> str:
        """Return where in the schema an instruction stands: a path of the reader's, or the writer's if skipped."""
        return self.paths[address // 4] if 0 <= address // 4 < len(self.paths) else ""

    def reason_at(self, address: int) -> str:
        """Return why the instruction FAILs."""
        return self.reasons[self.code[address + 2]]

    # Instructions.

    def _emit(self, path: str, code: int, column: int = -1, a: int = 0, b: int = 0) -> int:
        if len(self.code) >= 4 * INSTRUCTIONS_MAX:
            raise UnsupportedSchemaError(f"the schema takes more than {INSTRUCTIONS_MAX} instructions, at {path}")
        self.code.extend((code, column, a, b))
        self.paths.append(path)
        return len(self.code) - 4

    def _label(self) -> int:
        self._barrier = len(self.code)
        return self._barrier

    def _fail(self, reason: str, path: str) -> None:
        self._emit(path, op.OP_FAIL, -1, len(self.reasons))
        self.reasons.append(reason)

    def _table(self, entries: list[int]) -> int:
        start = len(self.tables)
        self.tables.extend(entries)
        return start

    def _set_valid(self, slot: Slot) -> None:
        if slot.has_validity:
            self._emit(slot.path, op.OP_SET_VALID, slot.index)

    def _null(self, slot: Slot) -> None:
        """Append a null, or what stands for nothing where there are none."""
        if slot.kind == op.KIND_UNION:
            branch = next((at for at, node in enumerate(slot.branches) if node.kind == "null"), 0)
            self._emit(slot.path, op.OP_UNION, slot.index, slot.children[branch].index, branch)
            self._null(slot.children[branch])
            return
        self._emit(slot.path, op.OP_PUT_NULL, slot.index)
        if slot.kind == op.KIND_STRUCT:
            for child in slot.children:
                self._null(child)

    # Resolution.

    def _resolve(self, writer: AvroType, slot: Slot) -> None:
        """Read a value of `writer` into a column, whose reader's type may be a union or not."""
        if isinstance(writer, UnionType):
            self._writer_union(writer, slot)
        elif writer.kind == "null" and slot.kind != op.KIND_UNION:
            if slot.nullable or slot.kind == op.KIND_NULL:
                self._null(slot)
            else:
                self._fail(f"null is no {slot.node.label}, and the reader's schema has no null there", slot.path)
        else:
            self._set_valid(slot)
            self._value(writer, slot)

    def _writer_union(self, writer: UnionType, slot: Slot) -> None:
        kinds = [branch.kind for branch in writer.branches]
        if len(kinds) == 2 and "null" in kinds and slot.has_validity:
            null = kinds.index("null")
            at = self._emit(slot.path, op.OP_NULLABLE, slot.index, null)
            self._value(writer.branches[1 - null], slot)
            if slot.kind == op.KIND_STRUCT and slot.children:
                jump = self._emit(slot.path, op.OP_JUMP)
                self.code[at + 3] = self._label()
                for child in slot.children:
                    self._null(child)
                self.code[jump + 2] = self._label()
            else:
                self.code[at + 3] = self._label()
            return
        self._branches(writer, slot.path, lambda branch: self._resolve(branch, slot))

    def _branches(self, writer: UnionType, path: str, compile_branch: Callable[[AvroType], None]) -> None:
        at = self._emit(path, op.OP_BRANCH, -1, self._table([0] * len(writer.branches)), len(writer.branches))
        jumps = []
        for index, branch in enumerate(writer.branches):
            self.tables[self.code[at + 2] + index] = self._label()
            compile_branch(branch)
            jumps.append(self._emit(path, op.OP_JUMP))
        end = self._label()
        for jump in jumps:
            self.code[jump + 2] = end

    def _value(self, writer: AvroType, slot: Slot) -> None:
        """Read a value that is not null, and of no union, into a column whose validity is set."""
        node = slot.node
        if slot.is_raw:
            self._raw(writer, slot)
        elif slot.branches:
            self._reader_union(writer, slot)
        elif isinstance(node, RecordType) and isinstance(writer, RecordType):
            if self._named_alike(writer, node, slot.path):
                self._emit(slot.path, op.OP_STRUCT, slot.index)
                self._fields(writer, node, slot.children)
        elif isinstance(node, ArrayType) and isinstance(writer, ArrayType):
            self._blocks(slot, [writer.items], lambda: self._resolve(writer.items, slot.children[0]))
        elif isinstance(node, MapType) and isinstance(writer, MapType):
            self._blocks(slot, [AvroType("string"), writer.values], lambda: self._entry(writer, slot.children[0]))
        elif isinstance(node, EnumType) and isinstance(writer, EnumType):
            if self._named_alike(writer, node, slot.path):
                self._enum(writer, node, slot)
        elif isinstance(node, FixedType) and isinstance(writer, FixedType):
            if self._named_alike(writer, node, slot.path):
                self._fixed(writer, node, slot)
        else:
            self._plain(writer, slot)

    def _named_alike(self, writer: NamedType, node: NamedType, path: str) -> bool:
        if names_match(node, writer):
            return True
        self._fail(f"the writer's {writer.full_name} is no {node.full_name}, nor an alias of it", path)
        return False

    def _plain(self, writer: AvroType, slot: Slot) -> None:
        node = slot.node
        code = _OPS.get((writer.kind, node.kind))
        logical, written = logical_type(node), logical_type(writer)
        if code is None:
            self._fail(f"{writer.label} cannot be read as {node.label}", slot.path)
        elif slot.type.id in _DECIMALS:
            assert logical is not None
            if written is not None and written.name == "decimal" and written.scale != logical.scale:
                self._fail(f"a decimal of scale {written.scale} cannot be read as one of {logical.scale}", slot.path)
            else:
                self._check_digits(writer, slot.path, logical.precision)
                self._emit(slot.path, op.OP_DECIMAL_BYTES, slot.index, self._bound(logical.precision, slot))
        elif logical and written and _UNITS.get(logical.name, ("",))[0] == _UNITS.get(written.name, (None,))[0]:
            unit, written_unit = _UNITS[logical.name][1], _UNITS[written.name][1]
            if written_unit > unit:
                self._emit(slot.path, op.OP_SCALED, slot.index, written_unit // unit)
            elif written_unit < unit:
                self._emit(slot.path, op.OP_DIVIDED, slot.index, unit // written_unit)
            else:
                self._emit(slot.path, code, slot.index)
        else:
            self._check_digits(writer, slot.path)
            self._emit(slot.path, code, slot.index)
        if _pa.types.is_time(slot.type):
            # Arrow has no others; Avro's are just numbers.
            self._emit(slot.path, op.OP_CHECK_TIME, slot.index, 1000 if slot.type.unit == "us" else 1)

    def _bound(self, precision: int, slot: Slot) -> int:
        """Put ten to the power of a precision into the pool."""
        start = len(self.pool)
        self.pool += (10**precision).to_bytes(slot.width, "little")
        return start

    def _fixed(self, writer: FixedType, node: FixedType, slot: Slot) -> None:
        logical, written = logical_type(node), logical_type(writer)
        if writer.size != node.size:
            self._fail(f"{writer.size} bytes of {writer.full_name} cannot be read as {node.size}", slot.path)
        elif slot.type.id in _DECIMALS:
            assert logical is not None
            if written is not None and written.name == "decimal" and written.scale != logical.scale:
                self._fail(f"a decimal of scale {written.scale} cannot be read as one of {logical.scale}", slot.path)
            else:
                self._check_digits(writer, slot.path, logical.precision)
                bound = self._bound(logical.precision, slot)
                self._emit(slot.path, op.OP_DECIMAL_FIXED, slot.index, bound, node.size)
        elif slot.kind == op.KIND_STRUCT:
            # A duration: three little-endian numbers.
            self._emit(slot.path, op.OP_STRUCT, slot.index)
            for child in slot.children:
                self._emit(child.path, op.OP_FLOAT, child.index)
        else:
            self._check_digits(writer, slot.path)
            self._emit(slot.path, op.OP_FIXED, slot.index, node.size)

    def _check_digits(self, writer: AvroType, path: str, checked: int | None = None) -> None:
        """Look at the digits of a decimal before it is read or skipped; who reads it has a look at `checked` itself."""
        logical = logical_type(writer) if self._checks_digits else None
        if logical is None or logical.name != "decimal" or logical.precision > DIGITS_CHECKED_MAX:
            return
        if checked is not None and checked <= logical.precision:
            return
        if logical.precision not in self._bounds:
            bound = 10**logical.precision
            width = (bound.bit_length() + 7) // 8
            self._bounds[logical.precision] = len(self.pool), width
            self.pool += bound.to_bytes(width, "little")
        size = writer.size if isinstance(writer, FixedType) else -1
        self._emit(path, op.OP_CHECK_DIGITS, -1, self._table([size, *self._bounds[logical.precision]]))

    def _enum(self, writer: EnumType, node: EnumType, slot: Slot) -> None:
        table = -1
        if writer.symbols != node.symbols[: len(writer.symbols)]:
            numbers = {symbol: number for number, symbol in enumerate(node.symbols)}
            default = -1 if node.default is None else numbers[node.default]
            table = self._table([numbers.get(symbol, default) for symbol in writer.symbols])
        self._emit(slot.path, op.OP_ENUM, slot.index, len(writer.symbols), table)

    def _root_record(self, writer: AvroType, node: RecordType, fields: list[Slot]) -> None:
        if isinstance(writer, UnionType):
            self._branches(writer, "", lambda branch: self._root_record(branch, node, fields))
        elif not isinstance(writer, RecordType):
            self._fail(f"{writer.label} is no {node.full_name}", "")
        elif self._named_alike(writer, node, ""):
            self._fields(writer, node, fields)

    def _fields(self, writer: RecordType, node: RecordType, slots: list[Slot]) -> None:
        taken: dict[int, tuple[Field, Slot]] = {}
        missing: list[tuple[Field, Slot]] = []
        for field, slot in zip(node.fields, slots, strict=True):
            found = find_writer_field(writer, field)
            if found is None or found.position in taken:
                missing.append((field, slot))
            else:
                taken[found.position] = field, slot
        for written in writer.fields:
            reader = taken.get(written.position)
            if reader is None:
                self._skip(written.type, f"{written.name} (skipped)")
            else:
                self._resolve(written.type, reader[1])
        self._defaults(missing)

    def _defaults(self, missing: list[tuple[Field, Slot]]) -> None:
        encoded: list[tuple[Field, Slot]] = []
        content = b""
        for field, slot in missing:
            if not field.has_default:
                self._fail("the writer's schema lacks the field, and it has no default", slot.path)
                return
            if field.default is None and (slot.nullable or slot.kind == op.KIND_NULL) and slot.kind != op.KIND_UNION:
                self._null(slot)
                continue
            try:
                content += encode_default(field.type, field.default)
            except InvalidDefaultError as error:
                self._fail(f"the default does not fit: {error}", slot.path)
                return
            encoded.append((field, slot))
        if encoded:
            self._emit(encoded[0][1].path, op.OP_DEFAULT, -1, len(self.pool), len(content))
            self.pool += content
            for field, slot in encoded:
                self._resolve(field.type, slot)
            self._emit(encoded[-1][1].path, op.OP_RESUME)

    def _reader_union(self, writer: AvroType, slot: Slot) -> None:
        chosen = best_branch(writer, slot.branches)
        if chosen is None:
            names = ", ".join(branch.label for branch in slot.branches)
            self._fail(f"{writer.label} is none of {names}", slot.path)
        elif slot.kind == op.KIND_UNION:
            child = slot.children[chosen]
            self._emit(slot.path, op.OP_UNION, slot.index, child.index, chosen)
            self._resolve(writer, child)
        else:
            self._emit(slot.path, op.OP_STRUCT, slot.index)
            for number, child in enumerate(slot.children):
                if number == chosen:
                    self._set_valid(child)
                    self._value(writer, child)
                else:
                    self._null(child)

    def _blocks(self, slot: Slot, item: list[AvroType], compile_item: Callable[[], None]) -> None:
        child = slot.children[0]
        reserved = _within(child)
        size = sum(min_size(node, self._sizes) for node in item)
        table = self._table([size, child.index, 0, len(reserved), *reserved])
        self._loop(slot.path, slot.index, table, compile_item)

    def _loop(self, path: str, column: int, table: int, compile_item: Callable[[], None]) -> None:
        self._emit(path, op.OP_BLOCKS)
        block = self._emit(path, op.OP_BLOCK, column, table)
        body = self._label()
        compile_item()
        self._emit(path, op.OP_NEXT, -1, body, block)
        self.code[block + 3] = self._label()

    def _entry(self, writer: MapType, entries: Slot) -> None:
        key, value = entries.children
        self._emit(entries.path, op.OP_STRUCT, entries.index)
        self._emit(key.path, op.OP_STRING, key.index)
        self._resolve(writer.values, value)

    def _raw(self, writer: AvroType, slot: Slot) -> None:
        if not same_type(writer, slot.node):
            self._fail(f"{writer.label} was written by another schema, and holds itself: it cannot be kept", slot.path)
            return
        self._emit(slot.path, op.OP_CAPTURE)
        before = self._strict, self._checks_digits
        self._strict = self._checks_digits = True
        self._skip(writer, slot.path)
        self._strict, self._checks_digits = before
        self._emit(slot.path, op.OP_CAPTURED, slot.index)

    # Skipping.

    def _skip(self, writer: AvroType, path: str) -> None:
        """Pass over a value."""
        if self._depth > _SKIP_NESTING_MAX:
            raise UnsupportedSchemaError(f"{path} lies deeper than {_SKIP_NESTING_MAX} levels in one type")
        self._depth += 1
        self._skip_type(writer, path)
        self._depth -= 1

    def _skip_type(self, writer: AvroType, path: str) -> None:
        kind = writer.kind
        if id(writer) in self._empty:
            # Calls of it could be exponentially many, and no byte of a datum would bound them.
            return
        if isinstance(writer, RecordType):
            if id(writer) in self._shared or self._depth > _CALL_NESTING:
                self._calls.append((self._emit(path, op.OP_CALL), writer, self._strict, self._checks_digits))
            else:
                self._skip_fields(writer, path)
        elif isinstance(writer, UnionType):
            self._skip_union(writer, path)
        elif isinstance(writer, (ArrayType, MapType)):
            self._skip_blocks(writer, path)
        elif isinstance(writer, EnumType):
            self._emit(path, op.OP_SKIP_ENUM, -1, len(writer.symbols))
        elif isinstance(writer, FixedType) or kind in {"float", "double"}:
            size = writer.size if isinstance(writer, FixedType) else _SIZES[kind]
            self._check_digits(writer, path)
            last = len(self.code) - 4
            if last >= self._barrier and self.code[last] == op.OP_SKIP_FIXED and self.code[last + 2] + size < 1 << 30:
                self.code[last + 2] += size
            else:
                self._emit(path, op.OP_SKIP_FIXED, -1, size)
        elif kind != "null":
            self._check_digits(writer, path)
            self._emit(path, (_SKIPS_STRICT if self._strict else _SKIPS)[kind])

    def _skip_union(self, writer: UnionType, path: str) -> None:
        kinds = [branch.kind for branch in writer.branches]
        if len(kinds) != 2 or kinds.count("null") != 1:
            self._branches(writer, path, lambda branch: self._skip(branch, path))
            return
        null = kinds.index("null")
        at = self._emit(path, op.OP_SKIP_NULLABLE, -1, null)
        self._skip(writer.branches[1 - null], path)
        self.code[at + 3] = self._label()

    def _skip_fields(self, writer: RecordType, path: str) -> None:
        for field in writer.fields:
            self._skip(field.type, field.name if path == "value" else f"{path}.{field.name}")

    def _skip_blocks(self, writer: ArrayType | MapType, path: str) -> None:
        value = writer.items if isinstance(writer, ArrayType) else writer.values
        size = min_size(value, self._sizes) + (0 if isinstance(writer, ArrayType) else 1)
        table = self._table([size, 0, 0 if self._strict else 1, 0])

        def item() -> None:
            if isinstance(writer, MapType):
                self._emit(path, op.OP_SKIP_STRING if self._strict else op.OP_SKIP_BYTES)
            self._skip(value, f"{path}[]")

        self._loop(path, -1, table, item)

    def _compile_calls(self) -> None:
        """Compile what was called, each record once for each way to look at it, until nothing new is."""
        starts: dict[tuple[int, bool, bool], int] = {}
        while self._calls:
            at, record, self._strict, self._checks_digits = self._calls.pop()
            key = id(record), self._strict, self._checks_digits
            if key not in starts:
                starts[key] = self._label()
                self._depth = 0
                assert isinstance(record, RecordType), record
                self._skip_fields(record, record.name)
                self._emit(record.name, op.OP_RETURN)
            self.code[at + 2] = starts[key]


_SKIPS: Final = {
    "boolean": op.OP_SKIP_BOOLEAN,
    "int": op.OP_SKIP_LONG,
    "long": op.OP_SKIP_LONG,
    "bytes": op.OP_SKIP_BYTES,
    "string": op.OP_SKIP_BYTES,
}
_SKIPS_STRICT: Final = _SKIPS | {"int": op.OP_SKIP_INT, "string": op.OP_SKIP_STRING}
_DECIMALS: Final = frozenset((_pa.decimal128(1).id, _pa.decimal256(1).id))


def best_branch(writer: AvroType, branches: list[AvroType]) -> int | None:
    """Return which of a reader's branches takes a writer's type: the same one, else by short name, else promoted."""
    for index, branch in enumerate(branches):
        if branch.kind == writer.kind and branch.label == writer.label:
            return index
    if isinstance(writer, NamedType):
        for index, branch in enumerate(branches):
            if isinstance(branch, NamedType) and branch.kind == writer.kind and names_match(branch, writer):
                return index
    for index, branch in enumerate(branches):
        if (writer.kind, branch.kind) in PROMOTIONS:
            return index
    return None


def min_size(node: AvroType, known: dict[int, tuple[AvroType, int]], depth: int = 0) -> int:
    """Return how many bytes a value takes at least; `known` keeps what was found of records.

    A record within itself counts as nothing, as does what lies very deep: the least is never more than the truth.
    """
    if isinstance(node, RecordType):
        found = known.get(id(node))
        if found is not None:
            return found[1]
        if depth > _SIZE_NESTING_MAX:
            return 0
        known[id(node)] = node, 0
        size = min(sum(min_size(field.type, known, depth + 1) for field in node.fields), 1 << 20)
        known[id(node)] = node, size
        return size
    if isinstance(node, FixedType):
        return min(node.size, 1 << 20)
    return _SIZES.get(node.kind, 1)


def _shared_records(root: AvroType) -> set[int]:
    """Return the ids of records that are met twice: those are skipped by calling the same instructions."""
    met: set[int] = set()
    shared: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, RecordType):
            if id(node) in met:
                shared.add(id(node))
                continue
            met.add(id(node))
        waiting += children(node)
    return shared


def _takes_nothing(node: AvroType) -> bool:
    return node.size == 0 if isinstance(node, FixedType) else node.kind == "null"


def _empty_records(root: AvroType) -> set[int]:
    """Return the ids of records whose values take no bytes. One that holds itself, whose values never end, is none."""
    unsure: dict[int, int] = {}  # fields that may take bytes, for each record
    holders: dict[int, list[int]] = {}  # the records that a record is a field of
    empty: list[int] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, RecordType):
            waiting += children(node)
            continue
        if id(node) in unsure:
            continue
        fields = [field.type for field in node.fields if not _takes_nothing(field.type)]
        unsure[id(node)] = len(fields)
        if not fields:
            empty.append(id(node))
        for type_ in fields:
            holders.setdefault(id(type_), []).append(id(node))
        waiting += children(node)
    for one in empty:
        for holder in holders.get(one, ()):
            unsure[holder] -= 1
            if not unsure[holder]:
                empty.append(holder)
    return set(empty)


def _within(slot: Slot) -> list[int]:
    """Return the columns that hold one value for each of this one's, itself among them."""
    found = [slot.index]
    if slot.kind in {op.KIND_STRUCT, op.KIND_UNION}:
        for child in slot.children:
            found += _within(child)
    return found
