"""Parquet files encoded anew into larger ones: as they come, or sorted; rows that were replaced left out on wish.

The schema of the result is what all inputs have, with every column that any of them has; where one lacks a column, its
rows have nulls. What Arrow reads as a dictionary from some files only becomes plain: for others it is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.core._kernels.crc32c import crc32c
from millstream.hadoop_loader.commit.arrow_schemas import unified
from millstream.hadoop_loader.compaction.deduplication import Replaced
from millstream.hadoop_loader.compaction.outputs import CompactionError, Outputs
from millstream.hadoop_loader.compaction.sorting import ExternalSorter
from millstream.hadoop_loader.filesystem.arrow import arrow_input
from millstream.hadoop_loader.values.tombstones import absent
from millstream.hadoop_loader.writing import ParquetFile
from millstream.hadoop_loader.writing.containers import ContainerError, read_parquet_footer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millstream.hadoop_loader.commit import TableFile
    from millstream.hadoop_loader.compaction.planning import DirectoryPlan
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import ParquetSettings

CHECKED_BYTES: Final = 8 << 20
"""Bytes read at a time of a file that is too large to be read whole, while they are summed up."""

# Of the memory, what is read, or decoded, in one piece.
_WHOLE_SHARE: Final = 8
BATCH_ROWS: Final = 64 << 10
"""Rows handled at a time where a row group is too large to be read whole."""


def merged_schema(filesystem: FileSystem, files: Sequence[TableFile]) -> pa.Schema:
    """Return the schema of all files together, in the order of the one with the most columns.

    Raises CompactionError where two do not agree: such files are of no one table.
    """
    schemas: list[pa.Schema] = []
    for file in files:
        schema = _bare(_footer(filesystem, file).schema.to_arrow_schema())
        if schema not in schemas:
            schemas.append(schema)
    schemas.sort(key=len, reverse=True)
    try:
        return _with_gaps(unified(schemas), schemas)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CompactionError(
            f"{files[0].directory}: its files have columns that do not go together: {error}; leave it as it is"
        ) from error


def rewrite_parquet(
    filesystem: FileSystem,
    plan: DirectoryPlan,
    outputs: Outputs,
    settings: ParquetSettings,
    *,
    sort_by: str | None,
    replaced: Replaced | None,
    memory_bytes: int,
    check: Callable[[int], None],
) -> None:
    """Encode all rows anew to `outputs`; `check` is told of bytes read, and may raise.

    Raises CompactionError for a column to sort by that is not there or has no order.
    """
    schema = merged_schema(filesystem, plan.files)
    start = 0

    def write(table: pa.Table, sources: Sequence[TableFile]) -> None:
        for batch in table.to_batches():
            writer = outputs.writer(lambda: ParquetFile(outputs.create, schema, settings), sources)
            assert isinstance(writer, ParquetFile), writer
            writer.append(batch)

    if sort_by is None:
        for file in plan.files:
            for table in tables_of(filesystem, file, schema, memory_bytes, check):
                kept = table if replaced is None else replaced.left_out_of(table, start)
                start += table.num_rows
                write(kept, (file,))
        outputs.end()
        return
    check_sortable(schema, sort_by, plan.directory)
    with ExternalSorter([(sort_by, "ascending")], memory_bytes=memory_bytes) as sorter:
        for file in plan.files:
            for table in tables_of(filesystem, file, schema, memory_bytes, check):
                sorter.add(table if replaced is None else replaced.left_out_of(table, start))
                start += table.num_rows
        for table in sorter.sorted():
            # A table for all rows at once would be one buffer too much.
            for at in range(0, table.num_rows, BATCH_ROWS):
                write(table.slice(at, BATCH_ROWS), plan.files)
    outputs.end()


def check_sortable(schema: pa.Schema, column: str, directory: str) -> None:
    """Raises CompactionError for a column that rows cannot be sorted by."""
    if column not in schema.names:
        raise CompactionError(f"{directory} has no column {column!r} to sort by; it has {', '.join(schema.names)}")
    type_ = schema.field(column).type
    if pa.types.is_nested(type_) or pa.types.is_null(type_):
        raise CompactionError(f"{directory}: the column {column!r} is {type_}, which has no order; sort by another")


def tables_of(
    filesystem: FileSystem,
    file: TableFile,
    schema: pa.Schema,
    memory_bytes: int,
    check: Callable[[int], None],
    columns: list[str] | None = None,
) -> Iterator[pa.Table]:
    """Yield a file's rows in their order, as tables of `schema`; with `columns` only of those of it.

    All bytes are held against the log's checksum before the first row. Raises CompactionError for a damaged file.
    """
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    with filesystem.open(file.path) as stored:
        if file.length <= memory_bytes // _WHOLE_SHARE:
            # One call of the file system instead of some for each column.
            data = stored.read_at(0, stored.size)
            _check_sum(file, crc32c(data))
            parquet = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        else:
            # Once more, and first: what is damaged must not get a fresh checksum. Pages have none that Arrow looks at.
            checksum = 0
            for position in range(0, stored.size, CHECKED_BYTES):
                checksum = crc32c(stored.read_at(position, CHECKED_BYTES), checksum)
            _check_sum(file, checksum)
            parquet = pq.ParquetFile(arrow_input(stored), pre_buffer=True)
        if parquet.metadata.num_rows != file.rows:
            raise _damaged(file, f"it has {parquet.metadata.num_rows} rows, and the commit log says {file.rows}")
        wanted = [name for name in schema.names if name in parquet.schema_arrow.names]
        for index in range(parquet.num_row_groups):
            group = parquet.metadata.row_group(index)
            # Row group by row group, as Arrow reads ahead all it is asked for. Encoded columns may be much smaller than
            # what they decode to; twice is a guess at that.
            is_whole = 2 * group.total_byte_size <= memory_bytes // _WHOLE_SHARE
            for table in _row_group(parquet, file, index, wanted, is_whole=is_whole):
                yield conformed(table, schema)
            check(sum(group.column(at).total_compressed_size for at in range(group.num_columns)))


def _row_group(
    parquet: pq.ParquetFile, file: TableFile, index: int, columns: list[str], *, is_whole: bool
) -> Iterator[pa.Table]:
    """Yield a row group's rows, in one table or in several. Raises CompactionError for what Arrow cannot read."""
    try:
        if is_whole:
            yield parquet.read_row_group(index, columns=columns, use_threads=False)
        else:
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[index], columns=columns):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(file, f"its row group {index} cannot be read: {error}") from error


def _footer(filesystem: FileSystem, file: TableFile) -> pq.FileMetaData:
    with filesystem.open(file.path) as stored:
        try:
            return read_parquet_footer(stored)
        except ContainerError as error:
            raise _damaged(file, str(error)) from error


def _check_sum(file: TableFile, found: int) -> None:
    if f"crc32c:{found:08x}" != file.checksum:
        raise _damaged(file, "its bytes are not those that were written")


def _damaged(file: TableFile, sentence: str) -> CompactionError:
    return CompactionError(f"{file.path}: {sentence}; the file is damaged, `millstream load verify` tells what else is")


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with the columns of `schema`, null where they had none."""
    if table.schema == schema:
        return table
    columns = []
    for field in schema:
        at = table.schema.get_field_index(field.name)
        if at < 0:
            columns.append(absent(table.num_rows, field.type))
        else:
            column = table.column(at)
            columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.table(columns, schema=schema)


def _with_gaps(merged: pa.Schema, schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return `merged` with every column nullable that one of `schemas` lacks."""
    return pa.schema(_nullable_where_lacking(list(merged), [list(schema) for schema in schemas]))


def _nullable_where_lacking(fields: list[pa.Field], held: list[list[pa.Field]]) -> list[pa.Field]:
    found = []
    for field in fields:
        alike = [one for those in held for one in those if one.name == field.name]
        if len(alike) < len(held):
            field = field.with_nullable(True)
        if pa.types.is_struct(field.type):
            inner = [list(one.type) for one in alike if pa.types.is_struct(one.type)]
            field = field.with_type(pa.struct(_nullable_where_lacking(list(field.type), inner)))
        found.append(field)
    return found


def _bare(schema: pa.Schema) -> pa.Schema:
    """Return the columns without what only describes the file they were read from."""
    fields = []
    for field in schema:
        kept = {key: value for key, value in (field.metadata or {}).items() if key != b"PARQUET:field_id"}
        fields.append(field.with_metadata(kept or None))
    return pa.schema(fields)
