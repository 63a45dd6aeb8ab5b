"""Avro values: decoded to columns where Parquet or a partitioner wants them, and passed through to Avro files.

A datum goes into an Avro file as it came where its writer's schema is the file's; it is looked at first, every byte,
by the decoder or, where no column is needed, by the validator: one bad datum would end every reader of the file there.
What was written with an older schema is decoded to the table's and encoded anew. Both can be of one fetch; then all of
it is encoded anew, since that is rare and the order of rows is kept.

Who reads with the table's schema has the fields of later writers only if it was merged with them. So a schema that the
table does not know ends the reading (UnknownSchemaError): the driver merges it, and the split is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.tables.parquet import encoded_avro_schema
from millstream.hadoop_loader.values.fetched import Fetched
from millstream.hadoop_loader.values.file_schema import FileSchema, file_schema, tail_batch, tail_encoder
from millstream.hadoop_loader.values.generations import UNFRAMED_ID, split_by_table, tables_of
from millstream.hadoop_loader.values.located import (
    FRAMED_SIZE,
    NO_ID,
    Located,
    chosen,
    decoded_in_parts,
    locate,
    schema_ids,
)
from millstream.hadoop_loader.values.metadata import extra_arrays
from millstream.hadoop_loader.values.registered import RegisteredSchemas
from millstream.hadoop_loader.values.rows import BadRow, TableRows
from millstream.hadoop_loader.writing.avro_file import Datums
from millstream.schemas.avro import AvroDecoder, AvroEncoder
from millstream.schemas.avro.decoder import Decoded

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.schemas.client import RegistryClient


class AvroValues:
    """Reads the values of one topic; one thread at a time."""

    def __init__(
        self, job: LoadJob, table: TableVersion, registry: RegistryClient | None, *, needs_columns: bool
    ) -> None:
        """`needs_columns`: whether a partitioner looks at fields, also where no Parquet is written."""
        self._version = table
        self._registered = RegisteredSchemas(registry, "avro")
        self._framed = job.value.framing == "registry"
        self._tables = [
            _TableReader(job, one, self._find, framed=self._framed, needs_columns=needs_columns)
            for one in tables_of(table, framed=self._framed)
            if one.avro_schema is not None
        ]

    def read(self, fetched: Fetched, bad: list[BadRow]) -> Iterator[TableRows]:
        """Yield the rows of records that have a value. Raises UnknownSchemaError, RegistryError."""
        if not self._tables:
            # Nothing is known yet: the first schema that is met says what the table is to begin with.
            bad += self._find_first(fetched)
            return
        if len(self._tables) == 1:
            yield from self._tables[0].read(fetched, None, bad)
            return
        readers = {reader.table.name: reader for reader in self._tables}
        tables = [reader.table for reader in self._tables]
        for table, rows in split_by_table(self._version, tables, fetched):
            yield from readers[table.name].read(fetched, rows, bad)

    def _find(self, schema_id: int) -> str:
        """Return a writer's schema that the table was merged with."""
        for table in self._version.tables():
            if schema_id in table.writers:
                return table.writers[schema_id]
        raise self._registered.unknown(self._version.topic, schema_id)

    def _find_first(self, fetched: Fetched) -> Iterator[BadRow]:
        """Yield why each value has no schema; raises UnknownSchemaError for the first that has one."""
        ids = schema_ids(fetched.values)
        for row in fetched.value_rows().to_pylist():
            schema_id = ids[row].as_py()
            reason = NO_ID if schema_id is None else self._registered.why_unusable(self._version.topic, schema_id)
            yield BadRow(row, reason)


class _TableReader:
    """Reads values for one generation of the table."""

    def __init__(
        self,
        job: LoadJob,
        table: TableVersion,
        find: Callable[[int], str],
        *,
        framed: bool,
        needs_columns: bool,
    ) -> None:
        assert table.avro_schema is not None, table.name
        self.table = table
        self._schema: FileSchema = file_schema(job, table)
        self._framed = framed
        self._find = find
        self._to_avro = "avro" in job.destination.formats
        self._to_columns = "parquet" in job.destination.formats or needs_columns
        # Ids met so far of writers whose datums are not those of the file; while there are none, nothing is compared.
        self._others: set[int] = set()
        framing: dict[str, Any] = {"framing": "confluent" if framed else "none"}
        if not framed:
            framing["writer_schema"] = table.writers.get(UNFRAMED_ID, table.avro_schema)
        # Made when the first value has to be encoded anew, or has something put behind it.
        self._recoding: tuple[AvroDecoder, AvroEncoder] | None = None
        self._tail_encoder: AvroEncoder | None = None
        schemas = self._met if framed else None
        if self._to_columns:
            self._decoder = AvroDecoder(
                schemas, table.parquet_avro_schema, on_recursion="binary", checks_digits=True, **framing
            )
        else:
            self._decoder = AvroDecoder(schemas, columns=False, **framing)
        self._schemas, self._framing = schemas, framing
        if not framed and self._to_avro and framing["writer_schema"] != table.avro_schema:
            self._others.add(UNFRAMED_ID)

    def _met(self, schema_id: int) -> str:
        """Return a writer's schema, on behalf of a decoder that meets it first."""
        text = self._find(schema_id)
        if self._to_avro and not self.table.passes_through(schema_id):
            self._others.add(schema_id)
        return text

    def read(self, fetched: Fetched, only: pa.Int64Array | None, bad: list[BadRow]) -> Iterator[TableRows]:
        """Yield the rows of `only` these records."""
        values = fetched.values
        rows, columns = self._looked_at(values, only, bad)
        datums, own = None, False
        if self._to_avro and self._others and self._has_others(values, rows):
            rows, columns, datums = self._recoded(values, rows, columns, bad)
            own = True
        count = fetched.length if rows is None else len(rows)
        if not count:
            return
        extras = extra_arrays(self._schema.extras, fetched)
        picked = extras if rows is None else [extra.take(rows) for extra in extras]
        if datums is not None:
            datums = self._with_tails(datums, picked)
        elif self._to_avro:
            skip = FRAMED_SIZE if self._framed else 0
            datums = self._with_tails(Datums(values.data, values.positions, values.sizes, skip), extras)
        if columns is not None:
            columns = pa.RecordBatch.from_arrays([*columns.columns, *picked], schema=self._schema.parquet)
        yield TableRows(self.table, self._schema, count, rows, columns, datums, own)

    def _looked_at(
        self, values: Located, only: pa.Int64Array | None, bad: list[BadRow]
    ) -> tuple[pa.Int64Array | None, pa.RecordBatch | None]:
        """Return which values are datums (None: all), and their columns where they are wanted."""
        where = values if only is None else chosen(values, only)
        decoder = self._decoder

        def decode(start: int, stop: int) -> Decoded:
            return decoder.decode_located(where.data, where.positions[start:stop], where.sizes[start:stop])

        decoded = decoded_in_parts(decode, 0, where.length)
        columns = decoded.batch if self._to_columns else None
        if only is None:
            bad += [BadRow(error.row, error.reason) for error in decoded.errors]
            return decoded.rows, columns
        bad += [BadRow(only[error.row].as_py(), error.reason) for error in decoded.errors]
        return (only if decoded.rows is None else only.take(decoded.rows)), columns

    def _has_others(self, values: Located, rows: pa.Int64Array | None) -> bool:
        """Whether any of these values was written with a schema that is not the file's."""
        if not self._framed:
            return True
        ids = schema_ids(values)
        if rows is not None:
            ids = ids.take(rows)
        return bool(pc.any(pc.is_in(ids, pa.array(sorted(self._others), pa.int32()))).as_py())

    def _recoded(
        self, values: Located, rows: pa.Int64Array | None, columns: pa.RecordBatch | None, bad: list[BadRow]
    ) -> tuple[pa.Int64Array | None, pa.RecordBatch | None, Datums]:
        """Return datums of the table's schema, made anew, with the rows and columns that they are of."""
        if self._recoding is None:
            assert self.table.avro_schema is not None
            # What Parquet's readers do not know is kept as it is there, and in datums that are passed through.
            text = encoded_avro_schema(self.table.avro_schema)
            self._recoding = (
                AvroDecoder(self._schemas, text, on_recursion="binary", **self._framing),
                AvroEncoder(text, on_recursion="binary"),
            )
        decoder, encoder = self._recoding
        plain = columns
        if columns is None or self.table.parquet_avro_schema != self.table.avro_schema:
            where = values if rows is None else chosen(values, rows)
            decoded = decoder.decode_located(where.data, where.positions, where.sizes)
            plain = decoded.batch
            bad += [
                BadRow(error.row if rows is None else rows[error.row].as_py(), error.reason) for error in decoded.errors
            ]
            if decoded.rows is not None:
                columns = None if columns is None else columns.take(decoded.rows)
                rows = decoded.rows if rows is None else rows.take(decoded.rows)
        made = locate(encoder.encode(plain))
        return rows, columns, Datums(made.data, made.positions, made.sizes)

    def _with_tails(self, datums: Datums, extras: list[pa.Array]) -> Datums:
        """Put the trailing fields behind datums: a record's datum is those of its fields, one by one."""
        if not extras:
            return datums
        if self._tail_encoder is None:
            self._tail_encoder = tail_encoder(self._schema)
        tails = locate(self._tail_encoder.encode(tail_batch(self._schema, extras)))
        return datums._replace(tails=tails.data, tail_ends=tails.positions)
