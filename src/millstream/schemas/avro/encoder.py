"""Arrow to Avro values: `AvroEncoder`, for producers.

    encoder = AvroEncoder(schema, schema_id=7)
    producer.send_batch("flights", {"value": encoder.encode(table)})

Columns are matched with the schema's fields by name, and cast to the types of `layout.py` where that loses nothing but
digits of a float: doubles and decimals are rounded to it, and refused where it would be infinite. A field that the
table lacks takes its default, or null. Unions of several types are written from the structs that
decoding makes of them. An encoder belongs to one thread at a time.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from millstream.schemas._kernels import opcodes as op
from millstream.schemas._kernels.avro_encoding import encode_datums
from millstream.schemas.avro.decoder import Framing, OnRecursion, as_avro
from millstream.schemas.avro.layout import Layout, Slot
from millstream.schemas.avro.unwrapping import unwrapped
from millstream.schemas.avro.validating import AvroValidator
from millstream.schemas.avro.writing import WriteProgram
from millstream.schemas.parsing import ParsedSchema
from millstream.schemas.parsing.avro import AvroSchema
from millstream.schemas.parsing.avro_types import EnumType, FixedType, RecordType, UnionType

_INT32_MAX: Final = 2**31 - 1
_PROGRAMS_MAX: Final = 16  # Arrow schemas whose programs are kept
_NO_ROOM: Final = 1
_REASONS: Final = {
    2: "is null, and the schema has no null there",
    3: "has a value that the schema has no symbol or branch for",
    4: "is a decimal that takes more bytes than the schema's fixed",
    5: "has lists too deep in each other",
    6: "has values of several branches, of which a union has one",
}


class EncodeError(ValueError):
    """A table cannot be written by the schema; the message says which column, and in which row.

    Where a value is at fault, `fault` says what is wrong with it, without its row; else it is None.
    """

    def __init__(self, message: str, fault: str | None = None) -> None:
        super().__init__(message)
        self.fault = fault


class AvroEncoder:
    """Encodes tables as values of one schema."""

    def __init__(
        self,
        schema: ParsedSchema | str,
        schema_id: int | None = None,
        *,
        framing: Framing | None = None,
        on_recursion: OnRecursion = "refuse",
    ) -> None:
        """Write datums of `schema`, behind Confluent's prefix with `schema_id`, or bare ones where that is None.

        What holds itself is refused, or with "binary" written from the columns of datums that decoding makes of it.
        Raises UnsupportedSchemaError where Arrow has no type for the schema, InvalidSchemaError.
        """
        if framing is None:
            framing = "none" if schema_id is None else "confluent"
        if (framing == "confluent") != (schema_id is not None):
            raise ValueError("Confluent's framing needs a schema id, and bare datums have none")
        self._root = as_avro(schema).root
        if on_recursion not in {"refuse", "binary"}:
            raise ValueError(f"on_recursion is 'refuse' or 'binary', not {on_recursion!r}")
        self._layout = Layout(self._root, raw_recursion=on_recursion == "binary")
        # What looks at datums before they are written, by the column's number.
        self._validators = {slot.index: _validator(slot) for slot in self._layout.slots if slot.is_raw}
        self._prefix = b"" if schema_id is None else b"\0" + schema_id.to_bytes(4, "big")
        self._programs: dict[tuple[pa.DataType, bool], WriteProgram] = {}
        self._bytes_per_row = 64.0

    @property
    def schema(self) -> pa.Schema:
        """The columns that are written as they are; others are cast to them."""
        return self._layout.schema

    def encode(self, data: pa.Table | pa.RecordBatch | pa.Array | pa.ChunkedArray) -> pa.BinaryArray:
        """Return a value for each row; a schema that is no record takes an array instead of a table.

        Raises EncodeError where a column is missing or does not fit, or all of it takes 2 GiB or more.
        """
        rows = len(data) if isinstance(data, (pa.Array, pa.ChunkedArray)) else data.num_rows
        column = self._as_array(data)
        sources = _Sources(len(self._layout.slots), self._validators)
        if isinstance(self._root, RecordType):
            for field, slot in zip(self._root.fields, self._layout.fields, strict=True):
                index = _index(column.type, field.name, slot.path)
                if index >= 0:
                    sources.add(slot, column.field(index))
        else:
            sources.add(self._layout.fields[0], column)
        program = self._program(column.type, checked=sources.has_unexpected_null)
        return self._run(program, sources, rows)

    def _as_array(self, data: Any) -> pa.Array:
        """Return the rows as one array, of structs where the schema is a record."""
        if not isinstance(self._root, RecordType):
            if not isinstance(data, (pa.Array, pa.ChunkedArray)):
                if data.num_columns != 1:
                    raise EncodeError(
                        f"the schema is {self._root.label}, so one column is needed, not {data.num_columns}"
                    )
                data = data.column(0)
            return _whole(data)
        if isinstance(data, (pa.Array, pa.ChunkedArray)):
            data = unwrapped(_whole(data), pa.null())
            if not pa.types.is_struct(data.type):
                raise EncodeError(f"a table is needed for the record {self._root.full_name}, not {data.type}")
            if data.null_count:
                raise EncodeError(f"a row {_REASONS[2]}: take the nulls out")
            return data
        names = {field.name for field in self._root.fields}
        # What the schema has no field for may well be too much for one array.
        wanted = [index for index, name in enumerate(data.schema.names) if name in names]
        if isinstance(data, pa.RecordBatch):
            return (data.select(wanted) if wanted else data).to_struct_array()
        if not wanted:
            return pa.Array.from_buffers(pa.struct([]), data.num_rows, [None])
        columns = [_whole(data.column(index)) for index in wanted]
        return pa.StructArray.from_arrays(columns, fields=[data.schema.field(index) for index in wanted])

    def _program(self, type_: pa.DataType, *, checked: bool) -> WriteProgram:
        key = type_, checked
        program = self._programs.get(key)
        if program is None:
            if len(self._programs) >= _PROGRAMS_MAX:
                self._programs.clear()
            try:
                program = WriteProgram(self._root, self._layout, type_, self._prefix, checked=checked)
            except ValueError as error:
                raise EncodeError(str(error)) from error
            self._programs[key] = program
        return program

    def _run(self, program: WriteProgram, sources: _Sources, rows: int) -> pa.BinaryArray:
        for at, path in program.reads.items():
            if not sources.table[at]:
                raise EncodeError(f"{path} has no values to write")  # The kernel would read at address 0.
        size = min(int(rows * self._bytes_per_row * 1.05) + 64, _INT32_MAX)
        out = pa.allocate_buffer(size, resizable=True)
        offsets = pa.allocate_buffer(4 * (rows + 1))
        offsets_view = memoryview(offsets).cast("B").cast("i")
        offsets_view[0] = 0
        row = 0
        while row < rows:
            view = memoryview(out).cast("B")
            row, ended, address = encode_datums(
                sources.table,
                row,
                rows,
                program.code,
                program.tables,
                program.pool,
                len(self._prefix),
                view,
                offsets_view,
            )
            view.release()
            if ended == _NO_ROOM:
                if out.size >= _INT32_MAX:
                    raise EncodeError(f"the values take 2 GiB or more; encode fewer than {rows} rows at once")
                out.resize(min(2 * out.size + 64, _INT32_MAX))
            elif ended:
                path, reason = program.paths[address // 4], _REASONS[ended]
                raise EncodeError(f"{path} of row {row} {reason}", fault=f"{path} {reason}")
        used = offsets_view[rows]
        if rows:
            self._bytes_per_row = max(used / rows, 0.9 * self._bytes_per_row)
        if out.size - used > out.size // 4:
            out.resize(used, shrink_to_fit=True)
        return pa.Array.from_buffers(pa.binary(), rows, [None, offsets, out.slice(0, used)], 0)


class _Sources:
    """The columns of one call, as the kernel has them, and what keeps their memory."""

    def __init__(self, count: int, validators: dict[int, AvroValidator]) -> None:
        self._validators = validators
        self.table = array("q", bytes(8 * op.SOURCE_FIELDS * count))
        # Whether a column that the schema has no null for holds some; they may lie where a parent is null, and be none.
        self.has_unexpected_null = False
        self._kept: list[Any] = []

    def add(self, slot: Slot, column: pa.Array) -> None:
        """Take a column in, cast where needed."""
        column = unwrapped(column, slot.type)
        if slot.kind == op.KIND_NULL:
            if column.null_count < len(column):
                raise EncodeError(f"{slot.path} has values, and the schema has only null there")
            return
        if slot.kind == op.KIND_STRUCT:
            self._struct(slot, column)
        elif slot.kind == op.KIND_LIST:
            self._list(slot, column)
        elif isinstance(slot.node, EnumType) and not slot.is_raw:
            self._enum(slot, slot.node, column)
        else:
            self._leaf(slot, column)

    def _leaf(self, slot: Slot, column: pa.Array) -> None:
        target = slot.type
        if isinstance(target, pa.UuidType):
            target = target.storage_type
        column = _cast(column, target, slot)
        if slot.is_raw:
            for bad in self._validators[slot.index].validate(column).errors[:1]:
                raise EncodeError(f"{slot.path} holds no datum of {slot.node.label}: {bad.reason}")
        buffers = column.buffers()
        at = self._validity(slot, column, buffers[0])
        if slot.kind == op.KIND_BITS:
            self._set(at + op.SOURCE_DATA, buffers[1])
            self.table[at + op.SOURCE_BITS_START] = column.offset
        elif slot.kind == op.KIND_FIXED:
            self._set(at + op.SOURCE_DATA, buffers[1], column.offset * slot.width)
        else:
            self._set(at + op.SOURCE_OFFSETS, buffers[1], 4 * column.offset)
            self._set(at + op.SOURCE_DATA, buffers[2])

    def _enum(self, slot: Slot, node: EnumType, column: pa.Array) -> None:
        if not isinstance(column, pa.DictionaryArray):
            column = _cast(column, pa.string(), slot).dictionary_encode()
        known = {symbol: number for number, symbol in enumerate(node.symbols)}
        symbols = array("i", [known.get(symbol, -1) for symbol in column.dictionary.to_pylist()])
        numbers = _cast(column.indices, pa.int32(), slot)
        buffers = numbers.buffers()
        at = self._validity(slot, numbers, buffers[0])
        self._set(at + op.SOURCE_DATA, buffers[1], 4 * numbers.offset)
        self._set(at + op.SOURCE_SYMBOLS, pa.py_buffer(symbols))
        self.table[at + op.SOURCE_SYMBOL_COUNT] = len(symbols)

    def _list(self, slot: Slot, column: pa.Array) -> None:
        child = slot.children[0]
        if not pa.types.is_list(column.type) and not pa.types.is_map(column.type):
            item = getattr(column.type, "value_type", None)
            if item is None:
                raise EncodeError(f"{slot.path} is {column.type}, and the schema has {slot.type} there")
            column = _cast(column, pa.list_(item), slot)
        if pa.types.is_map(slot.type) != pa.types.is_map(column.type):
            raise EncodeError(f"{slot.path} is {column.type}, and the schema has {slot.type} there")
        if column.values.type != child.type or child.holds_raw:
            # Items that no row has, beyond a slice or behind a null, must not fail their cast.
            column = _compacted(column)
        buffers = column.buffers()
        at = self._validity(slot, column, buffers[0])
        self._set(at + op.SOURCE_OFFSETS, buffers[1], 4 * column.offset)
        items = column.values
        if pa.types.is_map(column.type):
            for part, name in zip(child.children, (0, 1), strict=True):
                self.add(part, items.field(name))
        else:
            self.add(child, items)

    def _struct(self, slot: Slot, column: pa.Array) -> None:
        if not pa.types.is_struct(column.type):
            raise EncodeError(f"{slot.path} is {column.type}, and the schema has {slot.type} there")
        self._validity(slot, column, column.buffers()[0])
        names = [slot.type.field(index).name for index in range(slot.type.num_fields)]
        is_union = isinstance(slot.node, UnionType)
        if is_union:
            for field in column.type:
                if field.name not in names:
                    raise EncodeError(f"{slot.path} has the field {field.name}, and the union has no such branch")
        # Which branch of a union is meant is told by its being not null; in a null struct none is. And what lies in
        # null structs must not fail its cast.
        parts: list[pa.Array] | None = None
        for name, child in zip(names, slot.children, strict=True):
            index = _index(column.type, name, child.path)
            if index >= 0:
                part = column.field(index)
                if column.null_count and (is_union or part.type != child.type or child.holds_raw):
                    parts = column.flatten() if parts is None else parts
                    part = parts[index]
                self.add(child, part)
            elif isinstance(slot.node, FixedType):
                raise EncodeError(f"no column is named {child.path}, and a duration has all three")

    def _validity(self, slot: Slot, column: pa.Array, buffer: pa.Buffer | None) -> int:
        self._kept.append(column)
        if column.null_count and not slot.nullable:
            self.has_unexpected_null = True
        at = slot.index * op.SOURCE_FIELDS
        if buffer is not None and column.null_count:
            self.table[at + op.SOURCE_VALIDITY] = buffer.address
            self.table[at + op.SOURCE_VALIDITY_START] = column.offset
            self._kept.append(buffer)
        return at

    def _set(self, at: int, buffer: pa.Buffer | None, skipped: int = 0) -> None:
        if buffer is None or not buffer.address:
            # Only empty columns have none, but offsets are read even there.
            buffer = pa.py_buffer(bytes(16))
            skipped = 0
        self._kept.append(buffer)
        self.table[at] = buffer.address + skipped


def _validator(slot: Slot) -> AvroValidator:
    return AvroValidator(writer_schema=AvroSchema(slot.node, frozenset(), (), None), framing="none")


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    try:
        return column.combine_chunks()
    except pa.ArrowInvalid as error:
        raise EncodeError(f"the rows are too much for one array, encode fewer at once: {error}") from error


def _cast(column: pa.Array, target: pa.DataType, slot: Slot) -> pa.Array:
    if column.type == target:
        return column
    try:
        found = column.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise EncodeError(f"{slot.path} is {column.type}, and the schema has {target} there: {error}") from error
    if pa.types.is_floating(target) and (pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        infinite = pc.is_inf(found)
        if pa.types.is_floating(column.type):
            infinite = pc.and_not(infinite, pc.is_inf(column))
        if pc.any(infinite).as_py():
            raise EncodeError(f"{slot.path} is {column.type}, and has values beyond the range of the schema's {target}")
    return found


def _index(type_: pa.StructType, name: str, path: str) -> int:
    """Return which field of a struct has the name, -1 where none has."""
    found = type_.get_all_field_indices(name)
    if len(found) > 1:
        raise EncodeError(f"{len(found)} columns are named {path}")
    return found[0] if found else -1


def _compacted(column: pa.Array) -> pa.Array:
    """Return lists whose items are only those that a row has."""
    if not len(column):
        return pa.array([], column.type)
    offsets = column.offsets
    if not column.null_count and offsets[0].as_py() == 0 and offsets[-1].as_py() == len(column.values):
        return column
    try:
        return column.take(pc.indices_nonzero(pa.repeat(True, len(column))))
    except pa.ArrowNotImplementedError:
        return column
