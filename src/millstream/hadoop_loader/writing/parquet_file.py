"""A Parquet file: rows are buffered as Arrow until they make a row group, which is encoded in one go.

Encoding many rows at once costs least, and gives pages and dictionaries of their full size; the price is memory, which
`OpenFiles` bounds. The file is begun with the first row group, and what is seen of its rows says how each column is
encoded: by a dictionary where values repeat themselves; numbers that lie close to those before them by their
differences (DELTA_BINARY_PACKED), which leaves less to compress. Measured on ten columns, dictionaries for all of them
cost a quarter more time than these, for a larger file. Numbers that repeat themselves and lie close get a
dictionary where it takes clearly fewer bits: a thousand ids of nine digits become a third as large, a few codes less
than half.

A few thousand values may hardly repeat themselves where hundreds of thousands do: what there is to draw from is
reckoned from how many of them were alike, and believed where a larger sample says the same. Where most values are few
and the others endless, it says more, and a dictionary would be full before it is of use.

Of wide rows that go to many files each file gets a few at a time, and Arrow takes more for a column of them than is in
it. So a few such batches are put together to one.

What encoding needs besides is bounded by the rows' width: wide values are looked at by fewer, and go to the encoder a
few at a time, as it ends a page only between two of its batches. Each batch of a column costs the encoder calls and
allocations, so of narrow ones it gets more than its own usual number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from millstream.hadoop_loader.writing.checked_output import CheckedOutput

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem import OutputFile
    from millstream.hadoop_loader.job import ParquetSettings

# Rows of the first row group that are looked at, and how many of them may be distinct for a dictionary to pay.
SAMPLED_ROWS: Final = 4_096
# Of columns whose values may be long no more than this is looked at.
SAMPLED_BYTES: Final = 1 << 20
# Values of a column that are encoded between two looks at its page's size, at most.
_BATCH_VALUES: Final = 4_096
# What a column of a batch takes beside its values: Arrow's objects, and the least room of its buffers. With glibc that
# is 700 bytes for numbers, 950 for texts.
_COLUMN_BYTES: Final = 800
# More batches are put together where they take more beside their values than for them.
_SMALL_BATCHES_MAX: Final = 4
DISTINCT_SHARE_MAX: Final = 0.3
# Of a second sample, for what hardly repeats itself in the first one; and how much more there may be to draw from then.
_RESAMPLED: Final = 4
_POPULATION_GROWTH_MAX: Final = 1.5
# Of a dictionary that is reckoned with. Arrow gives one up at twice as many.
DICTIONARY_BYTES_MAX: Final = 512 * 1024
_RATIO_FIRST: Final = 0.4
_DELTA: Final = "DELTA_BINARY_PACKED"
# A dictionary has to take less than this of the bits that differences take: for as many it costs a quarter more time.
_INDEX_BITS_SHARE: Final = 0.75
_DELTA_WIDTH_MIN: Final = 32
_DELTA_ROWS_MIN: Final = 128
# Arrow's.
_DELTA_BLOCK_VALUES: Final = 128


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
        self._batch_bytes = _COLUMN_BYTES * sum(map(_column_count, schema.types))
        # Bytes of the file for each byte buffered, of the row groups so far.
        self._ratio = 1.0 if settings.codec == "none" else _RATIO_FIRST

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
        elif (count := len(self._batches)) > _SMALL_BATCHES_MAX and count * self._batch_bytes > self._buffered_bytes:
            self._batches = self._buffered().combine_chunks().to_batches()

    def _buffered(self) -> pa.Table:
        # Of several dictionaries in a row group Arrow would encode but the first as one.
        return pa.Table.from_batches(self._batches, self._schema).unify_dictionaries()

    def end_row_group(self) -> None:
        """Encode and write what is buffered."""
        if not self._batches:
            return
        table = self._buffered()
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

    def abandon(self, *, delete: bool = True) -> bool:
        """Give the file up, as CheckedOutput does."""
        if self._writer is not None:
            # Or it would write a footer when it is collected, and tell the worker's log that it could not.
            self._writer.is_open = False
        return self.output.abandon(delete=delete)

    def _open(self, sample: pa.Table) -> pq.ParquetWriter:
        settings = self._settings
        options: dict[str, Any] = {}
        if settings.codec != "none" and settings.level is not None and settings.codec in {"zstd", "gzip", "brotli"}:
            options["compression_level"] = settings.level
        return pq.ParquetWriter(
            self.output,
            self._schema,
            compression=settings.codec,
            **self._encodings(sample),
            write_statistics=settings.statistics,
            data_page_size=settings.page_bytes,
            write_batch_size=max(1, min(_BATCH_VALUES, settings.page_bytes // _widest_bytes(sample))),
            **options,
        )

    def _encodings(self, rows: pa.Table) -> dict[str, Any]:
        """Return how columns are encoded, as ParquetWriter takes it."""
        settings = self._settings
        columns = sample(rows)
        close = {path: bits for _, path, values in columns if (bits := difference_bits(values)) is not None}
        chosen = set(settings.dictionary_columns)
        if not settings.dictionary:
            repeating = []
        elif chosen:
            repeating = [path for name, path, _ in columns if name in chosen or path in chosen]
        else:
            repeating = [path for _, path, values in columns if repeats(values, close.get(path))]
            others = [column for column in columns if column.path not in close and column.path not in repeating]
            repeating += repeating_later(rows, others)
        encodings = {path: _DELTA for path in close if path not in repeating}
        return {"use_dictionary": repeating or False, "column_encoding": encodings or None}


def _column_count(type_: pa.DataType) -> int:
    """How many arrays a column consists of."""
    return 1 + sum(_column_count(type_.field(index).type) for index in range(type_.num_fields))


def _row_bytes(table: pa.Table) -> int:
    """Bytes of a row in memory, on the average."""
    return max(1, int(table.nbytes) // max(1, int(table.num_rows)))


def _widest_bytes(table: pa.Table) -> int:
    """Bytes of a value of the widest column, on the average."""
    return max(1, max((int(column.nbytes) for column in table.columns), default=1) // max(1, int(table.num_rows)))


class Leaf(NamedTuple):
    """A leaf column: the name of its field, its path in Parquet's words, and its values."""

    name: str
    path: str
    values: pa.Array


def leaves(table: pa.Table, long_values: int | None = None) -> list[Leaf]:
    """Return each leaf column.

    Of columns whose values may be long only the first `long_values` rows, where that is given.
    """
    found: list[Leaf] = []

    def walk(name: str, path: str, values: pa.Array) -> None:
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        if pa.types.is_struct(values.type):
            for index, field in enumerate(values.type):
                walk(name, f"{path}.{field.name}", values.field(index))
        # Flattened: the children of a slice are those of all that it was cut from.
        elif pa.types.is_map(values.type):
            pairs = pa.struct([values.type.key_field, values.type.item_field])
            entries = values.cast(pa.list_(pa.field("entries", pairs, nullable=False))).flatten()
            walk(name, f"{path}.key_value.key", entries.field(0))
            walk(name, f"{path}.key_value.value", entries.field(1))
        elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            walk(name, f"{path}.list.element", values.flatten())
        else:
            found.append(Leaf(name, path, values))

    for name, column in zip(table.column_names, table.columns, strict=True):
        walk(name, name, (column if _is_short(column.type) else column.slice(0, long_values)).combine_chunks())
    return found


def sample(rows: pa.Table, times: int = 1) -> list[Leaf]:
    """Return the first of the rows' values, so many times the usual number."""
    return leaves(rows.slice(0, times * SAMPLED_ROWS), times * max(1, SAMPLED_BYTES // _row_bytes(rows)))


def _is_short(type_: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(type_) or pa.types.is_dictionary(type_))


def repeats(values: pa.Array, difference_bits: float | None = None) -> bool:
    """Whether a dictionary of these pays: enough of them are alike, and it takes less than their differences."""
    if pa.types.is_dictionary(values.type):
        return True
    if pa.types.is_boolean(values.type) or pa.types.is_null(values.type):
        return False
    count = len(values) - values.null_count
    distinct: int = pc.count_distinct(values).as_py() if count else 0
    if difference_bits is not None and (distinct - 1).bit_length() >= _INDEX_BITS_SHARE * difference_bits:
        return False
    return bool(distinct <= DISTINCT_SHARE_MAX * count)


def repeating_later(rows: pa.Table, sampled: Sequence[Leaf]) -> list[str]:
    """Return the paths of sampled columns that repeat themselves in all of the rows, though not in so few."""
    if rows.num_rows <= SAMPLED_ROWS:
        return []
    first = {leaf.path: found for leaf in sampled if (found := _population(leaf.values)) is not None}
    # Of wide rows fewer were looked at, so this reckons with fewer than there are, and finds rather none.
    first = {path: found for path, found in first.items() if found.repeats_in(rows.num_rows / SAMPLED_ROWS)}
    if not first:
        return []
    names = {leaf.name for leaf in sampled if leaf.path in first}
    return [
        leaf.path
        for leaf in sample(rows.select(sorted(names)), _RESAMPLED)
        if leaf.path in first
        and (found := _population(leaf.values)) is not None
        and found.size <= _POPULATION_GROWTH_MAX * first[leaf.path].size
    ]


class _Population(NamedTuple):
    """What values seem to be drawn from: how many there are of it, of how many bytes, and how many were drawn."""

    size: float
    value_bytes: float
    drawn: int

    def repeats_in(self, times: float) -> bool:
        """Whether a dictionary pays for so many times the values that were drawn."""
        expected = self.size * -math.expm1(-times * self.drawn / self.size)
        fits = expected * self.value_bytes <= DICTIONARY_BYTES_MAX
        return fits and expected <= DISTINCT_SHARE_MAX * times * self.drawn


def _population(values: pa.Array) -> _Population | None:
    """Return what values seem to be drawn from, each of it as often as another; None where no two are alike.

    Of N values, n draws have N * (1 - exp(-n / N)) different ones: it is solved for N.
    """
    if pa.types.is_boolean(values.type) or pa.types.is_null(values.type):
        return None
    count = len(values) - values.null_count
    distinct = pc.count_distinct(values).as_py() if count else 0
    if distinct >= count:
        return None
    least, most = float(distinct), float(count) ** 2
    while most - least > 1:
        size = (least + most) / 2
        if size * -math.expm1(-count / size) < distinct:
            least = size
        else:
            most = size
    return _Population(most, values.nbytes / count, count)


def difference_bits(values: pa.Array) -> float | None:
    """Return how many bits say by how much whole numbers differ from those before them; None for more than half of all.

    On the average: the encoding has a width for each block, so numbers in runs, such as those of the small files that a
    compaction puts together, lie close though some jumps between them are wide.
    """
    type_ = values.type
    if not (pa.types.is_integer(type_) or pa.types.is_timestamp(type_) or pa.types.is_date32(type_)):
        return None
    width = type_.bit_width
    if width < _DELTA_WIDTH_MIN or pa.types.is_unsigned_integer(type_):
        return None
    numbers = values.drop_null().view(pa.int64() if width == 64 else pa.int32()).cast(pa.int64())
    if len(numbers) < _DELTA_ROWS_MIN:
        return None
    differences = pc.subtract(numbers[1:], numbers[:-1])
    widths: list[int] = []
    for at in range(0, len(differences), _DELTA_BLOCK_VALUES):
        ends = pc.min_max(differences.slice(at, _DELTA_BLOCK_VALUES))
        widths.append((ends["max"].as_py() - ends["min"].as_py()).bit_length())
    bits = sum(widths) / len(widths)
    return bits if bits <= width // 2 else None
