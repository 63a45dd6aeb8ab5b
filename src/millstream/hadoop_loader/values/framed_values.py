"""JSON and Protobuf under a registry's schemas, and JSON of a schema that the job gives: values to columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.values.generations import split_by_table, tables_of
from millstream.hadoop_loader.values.json_objects import JsonObjects
from millstream.hadoop_loader.values.located import FRAMED_SIZE, NO_ID, locate, schema_ids, without_prefix
from millstream.hadoop_loader.values.plain_values import PlainValues
from millstream.hadoop_loader.values.registered import RegisteredSchemas
from millstream.hadoop_loader.values.rows import BadRow, TableRows
from millstream.hadoop_loader.values.typed_json import TypedJson
from millstream.schemas.avro import JsonDecoder

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.hadoop_loader.values.fetched import Fetched
    from millstream.hadoop_loader.values.plain_values import Parse
    from millstream.schemas.avro.decoder import Decoded
    from millstream.schemas.client import RegistryClient


def framed_parse(job: LoadJob, table: TableVersion, registry: RegistryClient | None) -> Callable[[pa.Schema], Parse]:
    """Return what makes the parser of a job's JSON or Protobuf values, given the columns."""

    def make(columns: pa.Schema) -> Parse:
        if job.value.format == "json":
            return JsonParse(columns, table, registry, is_framed=job.value.framing == "registry")
        from millstream.hadoop_loader.values.protobuf_values import ProtobufParse

        return ProtobufParse(columns, table, registry, job)

    return make


class FramedValues:
    """Reads JSON or Protobuf values of one topic, each for the generation of its table that has its schema."""

    def __init__(self, job: LoadJob, table: TableVersion, registry: RegistryClient | None) -> None:
        self._version = table
        self._by_message = job.value.format == "protobuf"
        self._tables = tables_of(table, framed=job.value.framing == "registry")
        self._readers = {one.name: PlainValues(job, one, framed_parse(job, one, registry)) for one in self._tables}

    def read(self, fetched: Fetched, bad: list[BadRow]) -> Iterator[TableRows]:
        """Yield the rows of records that have a value. Raises UnknownSchemaError, RegistryError."""
        if len(self._tables) == 1:
            yield from self._readers[self._tables[0].name].read(fetched, bad)
            return
        for table, rows in split_by_table(self._version, self._tables, fetched, by_message=self._by_message):
            yield from self._readers[table.name].read(fetched, bad, rows)


class Schemas:
    """Holds the ids that values name against the schemas that the table was merged with."""

    def __init__(self, table: TableVersion, registry: RegistryClient | None) -> None:
        self._table = table
        self._registered = RegisteredSchemas(registry, "json")

    def rows_by_id(self, values: pa.Array, bad: list[BadRow]) -> dict[int, pa.Int64Array]:
        """Return the rows of each id that the table has; notes those without one. Raises UnknownSchemaError."""
        ids = schema_ids(locate(values))
        unnamed = pc.and_(pc.is_null(ids), pc.is_valid(values))
        bad += [BadRow(row, NO_ID) for row in pc.indices_nonzero(unnamed).to_pylist()]
        found: dict[int, pa.Int64Array] = {}
        for schema_id in ids.drop_null().unique().to_pylist():
            rows = pc.indices_nonzero(pc.equal(ids, schema_id)).cast(pa.int64())
            is_known = schema_id in self._table.writers
            reason = None if is_known else self._registered.why_unusable(self._table.topic, schema_id)
            if reason is None:
                found[schema_id] = rows
            else:
                bad += [BadRow(row, reason) for row in rows.to_pylist()]
        return found


class JsonParse:
    """JSON objects to columns."""

    def __init__(
        self, columns: pa.Schema, table: TableVersion, registry: RegistryClient | None, *, is_framed: bool
    ) -> None:
        # What an object lacks is null.
        self._columns = columns
        plain = JsonDecoder(pa.schema([field.with_nullable(True) for field in columns]))
        self._schemas: Schemas | None = None
        self._decode: Callable[[pa.Array], Decoded]
        if is_framed:
            # Such tables have nothing but what JSON has.
            self._schemas, self._decode = Schemas(table, registry), plain.decode
        else:
            assert table.parquet_avro_schema is not None, table.name
            self._decode = TypedJson(plain, JsonObjects(table.parquet_avro_schema)).decode

    def __call__(self, values: pa.Array, bad: list[BadRow]) -> tuple[pa.RecordBatch, pa.Int64Array | None]:
        """Parse the values that are there."""
        rows: pa.Int64Array | None = None
        if self._schemas is not None:
            by_id = self._schemas.rows_by_id(values, bad)
            rows = pa.concat_arrays([pa.array([], pa.int64()), *by_id.values()])
            rows = rows.take(pc.array_sort_indices(rows))
            values = without_prefix(values, rows, FRAMED_SIZE)
        decoded = self._decode(values)
        bad += [
            BadRow(error.row if rows is None else rows[error.row].as_py(), error.reason) for error in decoded.errors
        ]
        if decoded.rows is not None:
            rows = decoded.rows if rows is None else rows.take(decoded.rows)
        return self._checked(decoded.batch, rows, bad)

    def _checked(
        self, batch: pa.RecordBatch, rows: pa.Int64Array | None, bad: list[BadRow]
    ) -> tuple[pa.RecordBatch, pa.Int64Array | None]:
        """Take out rows that lack what must be there."""
        whole: pa.Array | None = None
        for field, column in zip(self._columns, batch.columns, strict=True):
            if field.nullable or not column.null_count:
                continue
            valid = pc.is_valid(column)
            lacking = pc.indices_nonzero(pc.invert(valid) if whole is None else pc.and_not(whole, valid))
            bad += [
                BadRow(row if rows is None else rows[row].as_py(), f"the object has no {field.name!r}")
                for row in lacking.to_pylist()
            ]
            whole = valid if whole is None else pc.and_(whole, valid)
        if whole is not None:
            places = pc.indices_nonzero(whole).cast(pa.int64())
            rows = places if rows is None else rows.take(places)
            batch = batch.take(places)
        return pa.RecordBatch.from_arrays(batch.columns, schema=self._columns), rows
