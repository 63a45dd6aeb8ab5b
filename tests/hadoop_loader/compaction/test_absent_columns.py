"""Columns that a file lacks, among those of files that have them: nulls that Parquet's writer takes."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.hadoop_loader.compaction.parquet_rows import conformed


def test_a_record_that_was_added_is_null_in_older_rows() -> None:
    inner = pa.struct([pa.field("x", pa.int64(), nullable=False), pa.field("y", pa.string(), nullable=False)])
    schema = pa.schema([pa.field("id", pa.int64()), pa.field("added", inner)])
    written = io.BytesIO()

    pq.write_table(conformed(pa.table({"id": [1, 2]}), schema), written)

    assert pq.read_table(written).to_pylist() == [{"id": 1, "added": None}, {"id": 2, "added": None}]
