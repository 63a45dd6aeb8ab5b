"""What a job says of directories, to groups of a batch's rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.filesystem import NAME_BYTES_MAX
from millstream.hadoop_loader.partitioning import field_directories
from millstream.hadoop_loader.partitioning.grouping import grouped
from millstream.hadoop_loader.partitioning.time_directories import TimeDirectories

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import Partitioning

RECORD_TIME: Final = "record"
NO_TIMESTAMP: Final = -1  # Kafka's, of records whose producer gave none
_UTF8_BYTES_MAX: Final = 4  # of one character


class Group(NamedTuple):
    """Rows of one directory, ascending; `rows` is None for all of them."""

    directory: str
    rows: pa.Int64Array | None


class Unplaced(NamedTuple):
    """A row that no directory is for, and why."""

    row: int
    reason: str


class Batch(NamedTuple):
    """What a partitioner looks at: record times (int64, ms) and, where it `needs_columns`, the columns."""

    row_count: int
    times: pa.Array
    partition: int
    columns: pa.RecordBatch | None


class Partitioner:
    """Groups rows by directory. `fields` are the columns it looks at."""

    fields: tuple[str, ...] = ()

    @property
    def needs_columns(self) -> bool:
        """Whether it looks at fields of values."""
        return bool(self.fields)

    def groups(self, batch: Batch, unplaced: list[Unplaced]) -> Iterator[Group]:  # noqa: ARG002
        """Yield the directories of a batch with their rows; notes those that cannot be placed."""
        yield Group("", None)

    def end_ms(self, directory: str) -> int | None:  # noqa: ARG002
        """Return the instant a directory ends at; None where it never does."""
        return None


class _ByKafkaPartition(Partitioner):
    def groups(self, batch: Batch, unplaced: list[Unplaced]) -> Iterator[Group]:  # noqa: ARG002
        yield Group(f"partition={batch.partition}", None)


class _ByTime(Partitioner):
    def __init__(self, pattern: str, zone: str, timestamp: str) -> None:
        self._directories = TimeDirectories(pattern, zone)
        self._timestamp = timestamp
        if timestamp != RECORD_TIME:
            self.fields = (timestamp,)

    def groups(self, batch: Batch, unplaced: list[Unplaced]) -> Iterator[Group]:
        times = _known(batch.times) if self._timestamp == RECORD_TIME else self._field_times(batch, unplaced)
        if times is None:
            return
        codes, names = self._directories.codes(times)
        if codes is None:
            yield Group(names[0], None)
            return
        if codes.null_count:
            what = "the record" if self._timestamp == RECORD_TIME else f"the field {self._timestamp!r}"
            reason = f"{what} has no time that names a directory"
            unplaced += [Unplaced(row, reason) for row in pc.indices_nonzero(pc.is_null(codes)).to_pylist()]
        for code, rows in grouped(codes, len(names)):
            yield Group(names[code], rows)

    def end_ms(self, directory: str) -> int | None:
        return self._directories.end_ms(directory)

    def _field_times(self, batch: Batch, unplaced: list[Unplaced]) -> pa.Array | None:
        column = _column(batch, self._timestamp, unplaced)
        if column is None:
            return None
        type_ = column.type
        if pa.types.is_timestamp(type_):
            # Seconds become milliseconds, and what is finer is cut.
            return column.cast(pa.timestamp("ms", type_.tz), safe=False).cast(pa.int64())
        if pa.types.is_date(type_):
            return column.cast(pa.timestamp("ms")).cast(pa.int64())
        if pa.types.is_integer(type_):
            return column.cast(pa.int64())
        unplaced += [
            Unplaced(row, f"the field {self._timestamp!r} is {type_}, no time") for row in range(batch.row_count)
        ]
        return None


def _known(times: pa.Array) -> pa.Array:
    """The records' times, null where Kafka's -1 says that there is none."""
    has_none = pc.equal(times, NO_TIMESTAMP)
    return pc.if_else(has_none, pa.scalar(None, times.type), times) if pc.any(has_none).as_py() else times


class _ByFields(Partitioner):
    def __init__(self, fields: tuple[str, ...]) -> None:
        self.fields = fields

    def groups(self, batch: Batch, unplaced: list[Unplaced]) -> Iterator[Group]:
        columns: list[tuple[str, pa.Array]] = []
        for name in self.fields:
            column = _column(batch, name, unplaced)
            if column is None:
                return
            if pa.types.is_nested(column.type):
                unplaced += [
                    Unplaced(row, f"the field {name!r} is {column.type}, which names no directory")
                    for row in range(batch.row_count)
                ]
                return
            columns.append((name, column))
        codes, directories = field_directories.codes(columns)
        for code, rows in [(0, None)] if codes is None else grouped(codes, len(directories)):
            reason = self._why_no_name(directories[code])
            if reason is None:
                yield Group(directories[code], rows)
            else:
                refused = range(batch.row_count) if rows is None else rows.to_pylist()
                unplaced += [Unplaced(row, reason) for row in refused]

    def _why_no_name(self, directory: str) -> str | None:
        """Return why no file system would make a directory, or None."""
        if len(directory) <= NAME_BYTES_MAX // _UTF8_BYTES_MAX:
            return None
        for field, name in zip(self.fields, directory.split("/"), strict=True):
            size_bytes = len(name.encode())
            if size_bytes > NAME_BYTES_MAX:
                most = f"a directory's has {NAME_BYTES_MAX} at the most"
                return f"the field {field!r} makes a name of {size_bytes} bytes, and {most}"
        return None


def partitioner(settings: Partitioning) -> Partitioner:
    """Return the partitioner of a job."""
    if settings.kind == "kafka":
        return _ByKafkaPartition()
    if settings.kind == "time":
        return _ByTime(settings.time_pattern, settings.zone, settings.timestamp)
    if settings.kind == "fields":
        return _ByFields(settings.fields)
    return Partitioner()


def _column(batch: Batch, name: str, unplaced: list[Unplaced]) -> pa.Array | None:
    """Return a column, of structs by names with dots; without it no row can be placed."""
    assert batch.columns is not None, name
    column: Any = batch.columns
    for part in [name] if name in batch.columns.schema.names else name.split("."):
        type_ = column.schema if isinstance(column, pa.RecordBatch) else column.type
        names = type_.names if isinstance(column, pa.RecordBatch) or pa.types.is_struct(type_) else []
        if part not in names:
            unplaced += [Unplaced(row, f"there is no field {name!r}") for row in range(batch.row_count)]
            return None
        column = column.column(part) if isinstance(column, pa.RecordBatch) else pc.struct_field(column, part)
    return column
