"""Values that become columns first: JSON, Protobuf, and bytes as they are. Avro is encoded from the columns.

    raw        one column of bytes; one of text for JSON without a schema, where what is no UTF-8 is bad
    json       objects to the columns of the table's schema; members that it lacks are left out
    protobuf   messages to the same, by protobuf's own library and so a record at a time: some 50,000 a second

JSON and Protobuf under a registry are framed as Avro is, and the table's schema is the Avro schema that the registered
ones stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.tables.parquet import encoded_avro_schema
from millstream.hadoop_loader.values.file_schema import file_schema, tail_batch, tail_encoder
from millstream.hadoop_loader.values.located import locate
from millstream.hadoop_loader.values.metadata import extra_arrays
from millstream.hadoop_loader.values.rows import BadRow, TableRows
from millstream.hadoop_loader.writing.avro_file import Datums
from millstream.schemas.avro import AvroEncoder, EncodeError
from millstream.schemas.parsing.avro import parse_avro
from millstream.schemas.parsing.avro_types import RecordType

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.hadoop_loader.values.fetched import Fetched


class Parse(Protocol):
    """Makes columns of values; returns which values they are of (None: all), and notes bad ones."""

    def __call__(self, values: pa.Array, bad: list[BadRow], /) -> tuple[pa.RecordBatch, pa.Int64Array | None]: ...


class PlainValues:
    """Reads the values of one topic by columns; one thread at a time."""

    def __init__(self, job: LoadJob, table: TableVersion, parse: Callable[[pa.Schema], Parse]) -> None:
        self._table = table
        self._schema = file_schema(job, table)
        self._to_avro = "avro" in job.destination.formats
        self._parse = parse(self._schema.value_columns)
        self._tail_encoder = tail_encoder(self._schema) if self._schema.extras else None
        self._encoder = AvroEncoder(encoded_avro_schema(self._schema.value_avro), on_recursion="binary")
        self._defaults = _defaults(self._schema.value_columns, self._encoder.schema, table)

    def read(self, fetched: Fetched, bad: list[BadRow], only: pa.Int64Array | None = None) -> Iterator[TableRows]:
        """Yield the rows of `only` these records that have a value. Raises UnknownSchemaError, RegistryError."""
        found: list[BadRow] = []
        columns, rows = self._parsed(fetched.value_column if only is None else fetched.value_column.take(only), found)
        encoded = None
        if self._to_avro and columns.num_rows:
            columns, rows, encoded = self._encoded(columns, rows, found)
        if only is not None:
            found = [BadRow(only[one.row].as_py(), one.reason) for one in found]
            rows = only if rows is None else only.take(rows)
        bad += found
        if not columns.num_rows:
            return
        schema = self._schema
        extras = extra_arrays(schema.extras, fetched)
        if rows is not None:
            extras = [extra.take(rows) for extra in extras]
        datums = None
        if encoded is not None:
            made = locate(encoded)
            datums = Datums(made.data, made.positions, made.sizes)
            if self._tail_encoder is not None:
                tails = locate(self._tail_encoder.encode(tail_batch(schema, extras)))
                datums = datums._replace(tails=tails.data, tail_ends=tails.positions)
        batch = pa.RecordBatch.from_arrays([*columns.columns, *extras], schema=schema.parquet)
        yield TableRows(self._table, schema, columns.num_rows, rows, batch, datums, own_datums=True)

    def _parsed(self, values: pa.Array, bad: list[BadRow]) -> tuple[pa.RecordBatch, pa.Int64Array | None]:
        """Parse values; those that were written before a field was added have its default."""
        columns, rows = self._parse(values, bad)
        for number, default in self._defaults.items():
            column = columns.column(number)
            if column.null_count:
                columns = columns.set_column(number, columns.schema.field(number), pc.fill_null(column, default))
        return columns, rows

    def _encoded(
        self, columns: pa.RecordBatch, rows: pa.Int64Array | None, bad: list[BadRow]
    ) -> tuple[pa.RecordBatch, pa.Int64Array | None, pa.BinaryArray | None]:
        """Return the columns that Avro holds, which values they are of, and their datums (None: there are none).

        A column may lack what Avro has to have: a field within another that was added, or one whose default is of no
        simple type. Such values are bad, and found one by one, as they are few or too many for the topic to go on.
        """
        try:
            return columns, rows, self._encoder.encode(columns)
        except EncodeError as error:
            if error.fault is None:
                raise
        places = []
        for place in range(columns.num_rows):
            try:
                self._encoder.encode(columns.slice(place, 1))
            except EncodeError as error:
                bad.append(BadRow(place if rows is None else rows[place].as_py(), error.fault or str(error)))
            else:
                places.append(place)
        held = pa.array(places, pa.int64())
        columns, rows = columns.take(held), held if rows is None else rows.take(held)
        return columns, rows, self._encoder.encode(columns) if places else None


def _defaults(columns: pa.Schema, in_avro: pa.Schema, table: TableVersion) -> dict[int, pa.Scalar]:
    """Return, by number, what columns have that may lack what Avro has to have: of fields that were added.

    A default that Arrow does not make of JSON as it stands is left out.
    """
    root = None if table.avro_schema is None else parse_avro(table.avro_schema).root
    found: dict[int, pa.Scalar] = {}
    if isinstance(root, RecordType):
        for number, field in enumerate(columns):
            # Parquet alone has a column for a record without fields.
            if field.name not in root.by_name or not field.nullable or in_avro.field(field.name).nullable:
                continue
            with suppress(pa.ArrowException, TypeError, ValueError):
                found[number] = pa.scalar(root.by_name[field.name].default, field.type)
    return found


class RawParse:
    """Bytes, or text, as one column."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema

    def __call__(self, values: pa.Array, bad: list[BadRow]) -> tuple[pa.RecordBatch, pa.Int64Array | None]:
        """Take the values that are there."""
        rows = None
        if values.null_count:
            rows = pc.indices_nonzero(pc.is_valid(values)).cast(pa.int64())
            values = values.take(rows)
        type_ = self._schema.field(0).type
        if values.type != type_:
            try:
                values = values.cast(type_)
            except pa.ArrowInvalid:
                values, rows = _texts(values, rows, bad)
        return pa.RecordBatch.from_arrays([values], schema=self._schema), rows


def _texts(values: pa.Array, rows: pa.Int64Array | None, bad: list[BadRow]) -> tuple[pa.StringArray, pa.Int64Array]:
    """Return those values that are UTF-8, and which records they are of."""
    texts: list[str] = []
    kept: list[int] = []
    for index, value in enumerate(values.to_pylist()):
        row = index if rows is None else rows[index].as_py()
        try:
            texts.append(value.decode())
        except UnicodeDecodeError as error:
            bad.append(BadRow(row, f"the value is no UTF-8: byte {error.start}"))
        else:
            kept.append(row)
    return pa.array(texts, pa.string()), pa.array(kept, pa.int64())
