"""Records without a value, as rows of nothing but the key and the metadata columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from millstream.hadoop_loader.values.file_schema import file_schema, tail_batch, tail_encoder
from millstream.hadoop_loader.values.located import ints, locate
from millstream.hadoop_loader.values.metadata import extra_arrays
from millstream.hadoop_loader.values.rows import TableRows
from millstream.hadoop_loader.writing.avro_file import Datums

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.hadoop_loader.values.fetched import Fetched


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
        nothing = [pa.nulls(count, field.type) for field in schema.value_columns]
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
