"""Parquet files encoded anew into larger ones: as they come, or sorted; rows that were replaced left out on wish.

The schema of the result is what all inputs have, with every column that any of them has; where one lacks a column, its
rows have nulls. Columns that Arrow reads as dictionaries become plain: in a Parquet file they are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.hadoop_loader.compaction.deduplication import Replaced
from millstream.hadoop_loader.compaction.outputs import CompactionError, Outputs
from millstream.hadoop_loader.compaction.sorting import ExternalSorter
from millstream.hadoop_loader.filesystem.arrow import arrow_input
from millstream.hadoop_loader.writing import ParquetFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millstream.hadoop_loader.commit import TableFile
    from millstream.hadoop_loader.compaction.planning import DirectoryPlan
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import ParquetSettings

BATCH_ROWS: Final = 64 << 10
"""Rows handled at a time where a row group is too large to be read whole."""


def merged_schema(filesystem: FileSystem, files: Sequence[TableFile]) -> pa.Schema:
    """Return the schema of all files together, in the order of the one with the most columns.

    Raises CompactionError where two do not agree: such files are of no one table.
    """
    schemas = []
    for file in files:
        with filesystem.open(file.path) as stored:
            schema = _plain_schema(pq.read_schema(arrow_input(stored)))
        if schema not in schemas:
            schemas.append(schema)
    schemas.sort(key=len, reverse=True)
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowInvalid as error:
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
    """Yield a file's rows in their order, as tables of `schema`; with `columns` only of those of it."""
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    with filesystem.open(file.path) as stored:
        # Row group by row group: Arrow would read ahead all it is asked for.
        parquet = pq.ParquetFile(arrow_input(stored), pre_buffer=True)
        if parquet.metadata.num_rows != file.rows:
            raise CompactionError(
                f"{file.path} has {parquet.metadata.num_rows} rows, and the commit log says {file.rows};"
                " `millstream load verify` tells what else is damaged"
            )
        wanted = [name for name in schema.names if name in parquet.schema_arrow.names]
        for index in range(parquet.num_row_groups):
            group = parquet.metadata.row_group(index)
            # Encoded columns may be much smaller than what they decode to; this is a guess at that.
            if 2 * group.total_byte_size > memory_bytes // 8:
                for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[index], columns=wanted):
                    yield conformed(pa.Table.from_batches([batch]), schema)
            else:
                yield conformed(parquet.read_row_group(index, columns=wanted), schema)
            check(sum(group.column(at).total_compressed_size for at in range(group.num_columns)))


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with the columns of `schema`, null where they had none."""
    if table.schema == schema:
        return table
    columns = []
    for field in schema:
        at = table.schema.get_field_index(field.name)
        if at < 0:
            columns.append(pa.nulls(table.num_rows, field.type))
        else:
            column = table.column(at)
            columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.table(columns, schema=schema)


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([_plain(field) for field in schema])


def _plain(field: pa.Field) -> pa.Field:
    """Return a field without dictionaries, and without what only describes the file it was read from."""
    type_ = field.type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    elif pa.types.is_struct(type_):
        type_ = pa.struct([_plain(child) for child in type_])
    elif pa.types.is_map(type_):
        type_ = pa.map_(_plain(type_.key_field), _plain(type_.item_field))
    elif pa.types.is_list(type_):
        type_ = pa.list_(_plain(type_.value_field))
    metadata = {key: value for key, value in (field.metadata or {}).items() if key != b"PARQUET:field_id"}
    return pa.field(field.name, type_, field.nullable, metadata or None)
