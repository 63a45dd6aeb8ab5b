"""A Parquet file: rows are buffered as Arrow until they make a row group, which is encoded in one go.

Encoding many rows at once costs least, and gives pages and dictionaries of their full size; the price is memory, which
`OpenFiles` bounds. The file is begun with the first row group: what is seen of its rows says which columns are worth a
dictionary. Measured on ten columns, a dictionary for all of them costs a quarter more time than for those that repeat
themselves, and makes the file larger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from millstream.hadoop_loader.writing.checked_output import CheckedOutput

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem import OutputFile
    from millstream.hadoop_loader.job import ParquetSettings

# Rows of the first row group that are looked at, and how many of them may be distinct for a dictionary to pay.
SAMPLED_ROWS: Final = 4_096
DISTINCT_SHARE_MAX: Final = 0.3
_RATIO_FIRST: Final = 0.4


class ParquetFile:
    """One file being written; one thread at a time."""

    def __init__(self, create: Callable[[], OutputFile], schema: pa.Schema, settings: ParquetSettings) -> None:
        self.output = CheckedOutput(create)
        self.rows = 0
        self._schema = schema
        self._settings = settings
        self._writer: pq.ParquetWriter | None = None
        self._batches: list[pa.RecordBatch] = []
        self._buffered_rows = 0
        self._buffered_bytes = 0
        # Bytes of the file for each byte buffered, of the row groups so far.
        self._ratio = _RATIO_FIRST

    @property
    def buffered_bytes(self) -> int:
        """Memory held."""
        return self._buffered_bytes

    @property
    def size_bytes(self) -> int:
        """Of the file if it were closed now, about."""
        return self.output.size_bytes + int(self._buffered_bytes * self._ratio)

    def append(self, batch: pa.RecordBatch) -> None:
        """Add rows, of the file's schema."""
        self.rows += batch.num_rows
        self._batches.append(batch)
        self._buffered_rows += batch.num_rows
        self._buffered_bytes += batch.nbytes
        settings = self._settings
        if self._buffered_bytes >= settings.row_group_bytes or self._buffered_rows >= settings.row_group_rows:
            self.end_row_group()

    def end_row_group(self) -> None:
        """Encode and write what is buffered."""
        if not self._batches:
            return
        table = pa.Table.from_batches(self._batches, self._schema)
        if self._writer is None:
            self._writer = self._open(table)
        before = self.output.size_bytes
        self._writer.write_table(table, row_group_size=self._settings.row_group_rows)
        if self._buffered_bytes:
            self._ratio = (self.output.size_bytes - before) / self._buffered_bytes
        self._batches = []
        self._buffered_rows = self._buffered_bytes = 0

    def finish(self) -> None:
        """Write the last row group and the footer."""
        self.end_row_group()
        if self._writer is None:
            self._writer = self._open(self._schema.empty_table())
        self._writer.close()

    def _open(self, sample: pa.Table) -> pq.ParquetWriter:
        settings = self._settings
        options: dict[str, Any] = {}
        if settings.codec != "none" and settings.level is not None and settings.codec in {"zstd", "gzip", "brotli"}:
            options["compression_level"] = settings.level
        return pq.ParquetWriter(
            self.output,
            self._schema,
            compression=settings.codec,
            use_dictionary=self._dictionary_columns(sample),
            write_statistics=settings.statistics,
            data_page_size=settings.page_bytes,
            **options,
        )

    def _dictionary_columns(self, sample: pa.Table) -> bool | list[str]:
        settings = self._settings
        if not settings.dictionary:
            return False
        if settings.dictionary_columns:
            chosen = set(settings.dictionary_columns)
            return [path for name, path, _ in leaves(sample) if name in chosen or path in chosen]
        return [path for _, path, values in leaves(sample.slice(0, SAMPLED_ROWS)) if repeats(values)]


def leaves(table: pa.Table) -> list[tuple[str, str, pa.Array]]:
    """Return each leaf column: the name of its field, its path in Parquet's words, and its values."""
    found: list[tuple[str, str, pa.Array]] = []

    def walk(name: str, path: str, values: pa.Array) -> None:
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        if pa.types.is_struct(values.type):
            for index, field in enumerate(values.type):
                walk(name, f"{path}.{field.name}", values.field(index))
        elif pa.types.is_map(values.type):
            walk(name, f"{path}.key_value.key", values.keys)
            walk(name, f"{path}.key_value.value", values.items)
        elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            walk(name, f"{path}.list.element", values.values)
        else:
            found.append((name, path, values))

    for name, column in zip(table.column_names, table.columns, strict=True):
        walk(name, name, column.combine_chunks())
    return found


def repeats(values: pa.Array) -> bool:
    """Whether a dictionary of these pays: enough of them are alike."""
    if pa.types.is_dictionary(values.type):
        return True
    if pa.types.is_boolean(values.type) or pa.types.is_null(values.type):
        return False
    count = len(values) - values.null_count
    distinct: int = pc.count_distinct(values).as_py() if count else 0
    return bool(distinct <= DISTINCT_SHARE_MAX * count)
