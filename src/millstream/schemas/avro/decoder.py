"""Avro values to Arrow: `AvroDecoder`, one for each reader's schema.

    decoder = AvroDecoder(registry)                      # or a mapping of ids, or a function
    decoded = decoder.decode(batch.column("value"))
    decoded.batch, decoded.rows, decoded.errors

Each writer's schema is compiled when its id is first met, into one program that all of them share (`program.py`); so a
call is one pass of the kernel over the values, in their order, whoever wrote them. Threads may share a decoder: calls
follow each other, those that look a schema up among them, so threads that want to decode at once have one each.
"""

from __future__ import annotations

import sys
import threading
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Protocol
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from millstream.schemas._kernels import opcodes as op
from millstream.schemas._kernels.avro_decoding import NOT_NUMBERED, decode_datums
from millstream.schemas.avro.columns import ColumnBuffers, DecodedTooLargeError, Estimates
from millstream.schemas.avro.headers import Field, HeaderNames, header_numbers
from millstream.schemas.avro.layout import Layout, UnsupportedSchemaError
from millstream.schemas.avro.program import INSTRUCTIONS_MAX, Program
from millstream.schemas.parsing import InvalidSchemaError, ParsedSchema, SchemaType
from millstream.schemas.parsing.avro import AvroSchema, parse_avro

Framing = Literal["confluent", "none"]
OnRecursion = Literal["refuse", "binary"]

SIZE_BYTES_MAX: Final = 1 << 32
EMPTY_ITEMS_MAX: Final = 4_096
"""Items of arrays that take no bytes (nulls, empty records), believed in one datum."""
WRITERS_MAX: Final = 256
"""Writers' schemas compiled at a time; over it all are dropped."""
UNKNOWN_IDS_MAX: Final = 1_024
"""Ids remembered that no schema was found for; over it all are forgotten."""
UNKNOWN_KEPT_S: Final = 30.0
"""How long an id is believed to have no schema."""
FAILED_LOOKUPS_MAX: Final = 64
"""Ids without a schema looked up in one call: whoever sends values can make up as many as they like."""

_TABLES_MAX: Final = 4_000_000  # ints, of all programs together
_POOL_BYTES_MAX: Final = 16 << 20

_JOINED_BYTES_MAX: Final = 2**31 - 1
_BAD_ROWS: Final = 1_024
NO_SIZES: Final = array("q")
_NO_NUMBERS: Final = array("i")

SENTENCES: Final = {
    op.BAD_TRUNCATED: "the value ends within it",
    op.BAD_VARINT: "its number takes more than 64 bits",
    op.BAD_INT: "its number takes more than 32 bits",
    op.BAD_BOOLEAN: "its byte is neither 0 nor 1",
    op.BAD_SIZE: "its size is negative or beyond the end of the value",
    op.BAD_TEXT: "it is not UTF-8",
    op.BAD_BRANCH: "the union has no such branch",
    op.BAD_SYMBOL: "the writer's enum has no such symbol",
    op.BAD_READER_SYMBOL: "the reader's enum lacks the symbol, and has no default",
    op.BAD_COUNT: "it has more items than there are bytes for",
    op.BAD_EMPTY_ITEMS: "it has too many items without bytes",
    op.BAD_BLOCK: "its block is not as long as it says",
    op.BAD_DEPTH: "it lies too deep",
    op.BAD_DECIMAL: "it has more digits than its precision",
    op.BAD_RANGE: "the time is out of range",
    op.BAD_TRAILING: "bytes are left behind the datum",
    op.BAD_FRAMING: "the value does not begin with a zero byte and a schema id",
}


class BadDatum(NamedTuple):
    """A value that could not be decoded: its row, why, and the schema it names (None where it names none).

    A GUID where the value's headers name its schema so.
    """

    row: int
    reason: str
    schema_id: int | UUID | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of values.

    `rows` says for each row of `batch` which value it was (int64), None where all are there in order. What is neither
    there nor in `errors` was null: a tombstone has no datum.
    """

    batch: pa.RecordBatch
    rows: pa.Int64Array | None = None
    errors: list[BadDatum] = field(default_factory=list)


class TooManyUnknownIdsError(ValueError):
    """A call had values of more schema ids without a schema than are looked up; the ids are remembered for a while."""


class SchemaSource(Protocol):
    """What knows schemas by id: a RegistryClient. For GUIDs in headers it has `schema_by_guid` as well."""

    def schema(self, schema_id: int, /) -> ParsedSchema:
        """Return a schema; raises KeyError, or an error that is no outage, where there is none."""


Schemas = (
    Callable[[int], ParsedSchema | str]
    | Callable[[int | UUID], ParsedSchema | str]
    | Mapping[int, ParsedSchema | str]
    | Mapping[UUID, ParsedSchema | str]
    | Mapping[int | UUID, ParsedSchema | str]
    | SchemaSource
)


class AvroDecoder:
    """Decodes values into record batches of one Arrow schema, that of the reader's."""

    def __init__(
        self,
        schemas: Schemas | None = None,
        reader_schema: ParsedSchema | str | None = None,
        *,
        writer_schema: ParsedSchema | str | None = None,
        framing: Framing = "confluent",
        on_union: Literal["struct", "dense_union"] = "struct",
        on_recursion: OnRecursion = "refuse",
        size_bytes_max: int = SIZE_BYTES_MAX,
        empty_items_max: int = EMPTY_ITEMS_MAX,
        columns: bool = True,
        checks_digits: bool = False,
    ) -> None:
        """Decode to the columns of `reader_schema`; without it, to those of the first writer's schema met.

        `schemas` knows the writers' by the id that Confluent's framing puts before a datum, or by a GUID in headers;
        with framing "none" values are bare datums of `writer_schema` (or of the reader's). `size_bytes_max` bounds the
        columns of one call. With `columns` off datums are only validated, and batches have none. `checks_digits`: a
        decimal with more digits than its writer's schema says is bad also where the reader's allows more, or bytes; as
        it is where datums are only validated.
        Raises UnsupportedSchemaError for a schema that Arrow has no type for, InvalidSchemaError.
        """
        if framing not in {"confluent", "none"}:
            raise ValueError(f"framing is 'confluent' or 'none', not {framing!r}")
        if on_union not in {"struct", "dense_union"}:
            raise ValueError(f"on_union is 'struct' or 'dense_union', not {on_union!r}")
        if on_recursion not in {"refuse", "binary"}:
            raise ValueError(f"on_recursion is 'refuse' or 'binary', not {on_recursion!r}")
        # Held for a whole call: the kernel reads programs that the next schema met makes longer.
        self._lock = threading.RLock()
        self._framed = framing == "confluent"
        self._find = lookup_of(schemas)
        # Looking up costs nothing there, and who fills it may do so at any time.
        self._is_mapping = schemas is None or isinstance(schemas, Mapping)
        self._dense_unions = on_union == "dense_union"
        self._raw_recursion = on_recursion == "binary"
        self._size_bytes_max = size_bytes_max
        self._empty_items_max = empty_items_max
        self._has_columns = columns
        self._checks_digits = checks_digits
        self._reader: AvroSchema | None = None
        self._layout: Layout | None = None
        self._program: Program | None = None
        self._estimates: Estimates | None = None
        # Numbers of schemas and where their programs begin: ids, and negative ones for what headers have. With bare
        # datums there is one, of number 0.
        self._ids = array("i")
        self._starts = array("i")
        self._names = HeaderNames()
        # Numbers that no schema was found for: why, and until when that is believed.
        self._unknown: dict[int, tuple[str, float]] = {}
        self._writer = None if writer_schema is None else as_avro(writer_schema)
        if reader_schema is not None:
            self._become(as_avro(reader_schema))
        elif not self._framed:
            if self._writer is None:
                raise ValueError("bare datums need the schema they were written with")
            self._become(self._writer)
        elif not columns:
            self._drop_writers()

    @property
    def schema(self) -> pa.Schema | None:
        """The columns; None until the first schema is met, where no reader's was given."""
        return None if self._layout is None else self._layout.schema

    def decode(
        self,
        values: pa.Array | pa.ChunkedArray,
        headers: pa.Array | pa.ChunkedArray | None = None,
        *,
        field: Field = "value",
    ) -> Decoded:
        """Decode `binary`, `large_binary` or `binary_view` values.

        `headers`, a list of structs of key and value for each row as a consumer has them, name the schemas of values
        without a prefix; `field` says whose name counts there.

        A value that cannot be decoded is reported, with its row, and leaves nothing behind in the batch. Raises
        DecodedTooLargeError where the columns would take more than their bound, and what looking a schema up raises
        when nobody could answer, TooManyUnknownIdsError where over FAILED_LOOKUPS_MAX ids had no schema.
        """
        data, positions, sizes = located(values)
        return self.decode_located(data, positions, sizes, headers, field=field)

    def decode_located(
        self,
        data: Any,
        positions: Any,
        sizes: Any = NO_SIZES,
        headers: pa.Array | pa.ChunkedArray | None = None,
        *,
        field: Field = "value",
    ) -> Decoded:
        """Decode values that lie in `data` at `positions` (int64s), of `sizes`, negative for null.

        Without sizes each ends where the next begins, and positions have one more. As `decode` else.
        """
        stop = len(sizes) or max(0, len(positions) - 1)
        if headers is not None and len(headers) != stop:
            raise ValueError(f"{len(headers)} rows of headers are not for {stop} values")
        with self._lock:
            if self._is_mapping:
                self._unknown.clear()
            numbers = _NO_NUMBERS
            if headers is not None and self._framed:
                if self._names.is_full:
                    self._forget_names()
                numbers = header_numbers(headers, field, self._names)
            run = _Run(self, data, positions, sizes, numbers, stop)
            while not run.is_over:
                run.go_on()
            return run.finish()

    def _become(self, reader: AvroSchema) -> None:
        self._reader = reader
        if not self._has_columns:
            self._drop_writers()
            return
        self._layout = Layout(reader.root, dense_unions=self._dense_unions, raw_recursion=self._raw_recursion)
        self._estimates = Estimates(self._layout)
        self._drop_writers()

    def _drop_writers(self) -> None:
        self._program = Program(self._layout, strict=not self._has_columns, checks_digits=self._checks_digits)
        self._ids, self._starts = array("i"), array("i")
        if not self._framed:
            writer = self._writer or self._reader
            assert writer is not None
            self._add(0, writer)

    def _forget_names(self) -> None:
        """Give the numbers of GUIDs anew: nothing may be known by an old one."""
        self._names = HeaderNames()
        self._unknown.clear()
        if self._program is not None:
            self._drop_writers()

    def _add(self, number: int, writer: AvroSchema) -> None:
        """Compile a writer's schema for values of its number."""
        if self._program is None:
            self._become(writer)
        assert self._program is not None
        program = self._program
        if (
            len(self._ids) >= WRITERS_MAX
            or len(program.code) > 4 * INSTRUCTIONS_MAX // 2
            or len(program.tables) > _TABLES_MAX
            or len(program.pool) > _POOL_BYTES_MAX
        ):
            self._drop_writers()
        start = self._program.add(writer.root, bare_bytes=self._framed)
        self._ids, self._starts = self._ids + array("i", [number]), self._starts + array("i", [start])

    def _why_unknown(self, number: int) -> str | None:
        reason, until = self._unknown.get(number, (None, 0.0))
        return reason if time.monotonic() < until else None

    def _remember_unknown(self, number: int, reason: str) -> None:
        if len(self._unknown) >= UNKNOWN_IDS_MAX:
            self._unknown.clear()
        self._unknown[number] = reason, time.monotonic() + UNKNOWN_KEPT_S


class _Run:
    """One call of a decoder, which may take several of the kernel."""

    def __init__(self, decoder: AvroDecoder, data: Any, positions: Any, sizes: Any, numbers: Any, stop: int) -> None:
        self._decoder = decoder
        self._values = data, positions, sizes, numbers
        self._stop = stop
        self._row = 0
        self._done = 0
        self._columns: ColumnBuffers | None = None
        self._rows = pa.allocate_buffer(8 * stop)
        self._rows_view = memoryview(self._rows).cast("B").cast("q")
        self._bad = array("q", bytes(8 * 4 * min(_BAD_ROWS, stop)))
        self._errors: list[BadDatum] = []
        self._failed_lookups = 0

    @property
    def is_over(self) -> bool:
        return self._row == self._stop

    def go_on(self) -> None:
        """Run the kernel until it needs something."""
        decoder = self._decoder
        table = array("q")
        if decoder._layout is not None:
            if self._columns is None:
                self._columns = self._make_columns(self._stop - self._row)
            table = self._columns.table
        program = decoder._program
        data, positions, sizes, numbers = self._values
        self._row, self._done, bad, ended = decode_datums(
            data,
            positions,
            sizes,
            numbers,
            self._row,
            self._stop,
            1 if decoder._framed else 0,
            decoder._ids,
            decoder._starts,
            array("i") if program is None else program.code,
            array("i") if program is None else program.tables,
            b"" if program is None else program.pool,
            table,
            self._done,
            self._rows_view,
            self._bad,
            decoder._empty_items_max,
        )
        for at in range(0, 4 * bad, 4):
            row, reason, position, address = self._bad[at : at + 4]
            self._errors.append(BadDatum(row, self._sentence(reason, position, address), self._id_at(row)))
        if ended == _NO_ROOM:
            assert self._columns is not None
            try:
                self._columns.grow()
            except DecodedTooLargeError as error:
                if self._done:
                    raise
                alone = str(error) if self._stop - self._row == 1 else self._why_not_alone()
                if alone is None:
                    raise
                # Alone it is too large, so it will be for ever.
                self._reject(alone)
        elif ended == _UNKNOWN_ID:
            self._learn_schema()

    def finish(self) -> Decoded:
        """Return the batch."""
        decoder, rows = self._decoder, self._done
        layout = decoder._layout
        if layout is None:
            batch = pa.RecordBatch.from_arrays([], schema=pa.schema([]))
        else:
            assert decoder._estimates is not None
            columns = self._columns or self._make_columns(0)
            decoder._estimates.learn(columns.table, rows)
            arrays = columns.arrays(rows)
            if arrays:
                batch = pa.RecordBatch.from_arrays(arrays, schema=layout.schema)
            else:
                # Rows without columns: only a struct knows how many.
                batch = pa.RecordBatch.from_struct_array(pa.Array.from_buffers(pa.struct([]), rows, [None]))
        places = None
        if rows != self._stop:
            places = pa.Array.from_buffers(pa.int64(), rows, [None, self._rows.slice(0, 8 * rows)], 0)
        return Decoded(batch, places, self._errors)

    def _make_columns(self, rows: int) -> ColumnBuffers:
        decoder = self._decoder
        assert decoder._layout is not None
        assert decoder._estimates is not None
        return ColumnBuffers(
            decoder._layout,
            rows,
            decoder._estimates,
            input_bytes=len(self._values[0]),
            size_bytes_max=decoder._size_bytes_max,
        )

    def _learn_schema(self) -> None:
        """Find and compile the schema that the current row names."""
        number = self._number_at(self._row)
        assert number is not None, self._row
        name = self._id_at(self._row)
        if number > _INT32_MAX:
            self._reject(f"no schema has the id {name}")
            return
        if name is None:
            self._reject("the header names no schema: it holds neither an id nor a GUID")
            return
        reason = self._decoder._why_unknown(number)
        if reason is None:
            if self._failed_lookups >= FAILED_LOOKUPS_MAX and not self._decoder._is_mapping:
                raise TooManyUnknownIdsError(
                    f"the values have more than {FAILED_LOOKUPS_MAX} schema ids without a schema, {name} may be"
                    " another; decode fewer values at once"
                )
            reason = self._look_up(number, name)
            if reason is None:
                return
            self._failed_lookups += 1
            self._decoder._remember_unknown(number, reason)
        self._reject(reason)

    def _look_up(self, number: int, name: int | UUID) -> str | None:
        """Have the schema compiled; return why that cannot be."""
        decoder = self._decoder
        try:
            found = decoder._find(name)
        except LookupError:
            return f"schema {name} is not known"
        except Exception as error:
            # A registry's: what it refuses is the value's fault, what it cannot answer is nobody's.
            if not isinstance(error, (InvalidSchemaError, UnsupportedSchemaError)) and getattr(
                error, "is_outage", True
            ):
                raise
            return f"schema {name} cannot be used: {error}"
        try:
            decoder._add(number, as_avro(found))
        except (InvalidSchemaError, UnsupportedSchemaError) as error:
            if isinstance(error, UnsupportedSchemaError) and decoder._program is None:
                raise
            return f"schema {name} cannot be used: {error}"
        return None

    def _why_not_alone(self) -> str | None:
        """Return why the current row cannot be decoded, None where only the room kept for others was in its way."""
        alone = _Run(self._decoder, *self._values, self._row + 1)
        alone._row = self._row
        while not alone.is_over:
            alone.go_on()
        return alone._errors[0].reason if alone._errors else None

    def _reject(self, reason: str) -> None:
        """Report the current row, and go on behind it."""
        self._errors.append(BadDatum(self._row, reason, self._id_at(self._row)))
        self._row += 1

    def _sentence(self, reason: int, position: int, address: int) -> str:
        program = self._decoder._program
        path = ""
        if program is not None and reason != op.BAD_FRAMING:
            path = program.path_at(address)
        said = SENTENCES.get(reason)
        if said is None:
            assert program is not None
            said = program.reason_at(address)
        where = f"{path}: " if path and reason != op.BAD_TRAILING else ""
        return f"{where}{said} (byte {position} of the value)"

    def _id_at(self, row: int) -> int | UUID | None:
        """Return what names the value's schema."""
        number = self._number_at(row)
        if number is not None and number < 0:
            return self._decoder._names.guid(number)
        return number if number is None or number <= _INT32_MAX else number - (1 << 32)

    def _number_at(self, row: int) -> int | None:
        """Return the number of the value's schema, as the kernel has it."""
        if not self._decoder._framed:
            return None
        data, positions, sizes, numbers = self._values
        if len(numbers) and numbers[row] != NOT_NUMBERED:
            return int(numbers[row])
        start = positions[row]
        size = sizes[row] if len(sizes) else positions[row + 1] - start
        prefix = bytes(data[start : start + min(size, 5)])
        return int.from_bytes(prefix[1:], "big") if len(prefix) == 5 and prefix[0] == 0 else None


_NO_ROOM: Final = 1
_UNKNOWN_ID: Final = 2
_INT32_MAX: Final = 2**31 - 1


def as_avro(schema: ParsedSchema | str) -> AvroSchema:
    """Return a parsed Avro schema. Raises InvalidSchemaError."""
    if isinstance(schema, str):
        return parse_avro(schema)
    if not isinstance(schema, AvroSchema):
        raise InvalidSchemaError(f"an Avro schema is needed, and this is one of {SchemaType(schema.type).value}")
    return schema


def located(values: pa.Array | pa.ChunkedArray) -> tuple[memoryview, memoryview, Any]:
    """Return values as (data, positions, sizes) for the kernel; sizes only where there are nulls."""
    if isinstance(values, pa.ChunkedArray):
        if values.nbytes > _JOINED_BYTES_MAX and not isinstance(values.type, pa.ExtensionType):
            # Offsets of 32 bits would not do for all of it.
            values = values.cast(pa.large_binary())
        values = values.combine_chunks()
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_binary_view(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.large_binary())
    if pa.types.is_binary(values.type) or pa.types.is_string(values.type):
        kind, width = pa.int32(), 4
    elif pa.types.is_large_binary(values.type) or pa.types.is_large_string(values.type):
        kind, width = pa.int64(), 8
    else:
        raise TypeError(f"values of Avro are binary, not {values.type}")
    _validity, offsets, content = values.buffers()
    data = memoryview(b"" if content is None else content).cast("B")
    if len(values) == 0 or offsets is None:
        return data, memoryview(array("q", [0])), NO_SIZES
    assert sys.byteorder == "little" or width == 8
    first = values.offset * width
    ends = pa.Array.from_buffers(kind, len(values) + 1, [None, offsets.slice(first, (len(values) + 1) * width)], 0)
    positions = memoryview(ends.cast(pa.int64()).buffers()[1]).cast("B").cast("q")
    if not values.null_count:
        return data, positions, NO_SIZES
    sizes = pc.fill_null(pc.binary_length(values).cast(pa.int64()), -1)
    return data, positions, memoryview(sizes.buffers()[1]).cast("B").cast("q")[sizes.offset :]


def lookup_of(schemas: Schemas | None) -> Callable[[Any], ParsedSchema | str]:
    """Return what finds schemas by id or GUID; raises LookupError, or the error of a registry, where there is none."""
    if schemas is None:
        schemas = {}
    if isinstance(schemas, Mapping):
        return schemas.__getitem__
    if callable(schemas):
        return schemas
    source = schemas

    def find(name: int | UUID) -> ParsedSchema | str:
        if not isinstance(name, UUID):
            return source.schema(name)
        by_guid: Callable[[UUID], ParsedSchema] | None = getattr(source, "schema_by_guid", None)
        if by_guid is None:
            raise KeyError(name)
        return by_guid(name)

    return find
