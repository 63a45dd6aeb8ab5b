"""Records without a value, as rows of nothing but the key and the metadata columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as pt

from millstream.hadoop_loader.values.file_schema import file_schema, tail_batch, tail_encoder
from millstream.hadoop_loader.values.located import ints, locate
from millstream.hadoop_loader.values.metadata import extra_arrays
from millstream.hadoop_loader.values.rows import TableRows
from millstream.hadoop_loader.writing.avro_file import Datums

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.hadoop_loader.values.fetched import Fetched


def absent(count: int, type_: pa.DataType) -> pa.Array:
    """Return a column of nulls that Parquet's writer takes: what must not be null within a struct has to be there."""
    if not pt.is_struct(type_):
        return pa.nulls(count, type_)
    fields = [
        absent(count, field.type) if field.nullable else pa.array([_nothing(field.type)] * count, field.type)
        for field in type_
    ]
    return pa.StructArray.from_arrays(fields, fields=list(type_), mask=pa.repeat(True, count))


def _nothing(type_: pa.DataType) -> Any:
    """Return some value of a type; nobody ever sees it."""
    if pt.is_struct(type_):
        return {field.name: None if field.nullable else _nothing(field.type) for field in type_}
    if pt.is_list(type_) or pt.is_map(type_):
        return []
    if pt.is_string(type_) or pt.is_dictionary(type_):
        return ""
    if pt.is_binary(type_) or pt.is_fixed_size_binary(type_):
        return bytes(type_.byte_width if pt.is_fixed_size_binary(type_) else 0)
    return False if pt.is_boolean(type_) else 0


class Tombstones:
    """Makes rows of the null values of one topic; they go to its newest table."""

    def __init__(self, job: LoadJob, table: TableVersion) -> None:
        self._table = table
        self._schema = file_schema(job, table)
        self._to_avro = "avro" in job.destination.formats
        self._tail_encoder = tail_encoder(self._schema) if self._schema.extras else None

    def read(self, fetched: Fetched, rows: pa.Int64Array) -> TableRows:
        """Return the rows of these records, whose values are null."""
        count, schema = len(rows), self._schema
        extras = [extra.take(rows) for extra in extra_arrays(schema.extras, fetched)]
        nothing = [absent(count, field.type) for field in schema.value_columns]
        columns = pa.RecordBatch.from_arrays([*nothing, *extras], schema=schema.parquet_tombstones)
        datums = None
        if self._to_avro:
            datum = schema.null_datum
            same = pa.repeat(pa.scalar(0, pa.int64()), count)
            datums = Datums(datum, ints(same), ints(pa.repeat(pa.scalar(len(datum), pa.int64()), count)))
            if self._tail_encoder is not None:
                tails = locate(self._tail_encoder.encode(tail_batch(schema, extras)))
                datums = datums._replace(tails=tails.data, tail_ends=tails.positions)
        return TableRows(self._table, schema, count, rows, columns, datums, own_datums=True, are_tombstones=True)
