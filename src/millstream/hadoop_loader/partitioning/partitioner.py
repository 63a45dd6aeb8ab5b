"""What a job says of directories, to groups of a batch's rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.filesystem import NAME_BYTES_MAX
from millstream.hadoop_loader.partitioning import field_directories
from millstream.hadoop_loader.partitioning.field_times import instants, is_time, known
from millstream.hadoop_loader.partitioning.grouping import Coding, below, grouped
from millstream.hadoop_loader.partitioning.time_directories import TimeDirectories
from millstream.schemas.parsing.avro import parse_avro
from millstream.schemas.parsing.avro_types import AvroType, RecordType, UnionType, logical_type

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
    # Rows of records without a value: no field of theirs says a time.
    are_tombstones: bool = False
    # Of the values, which says what the numbers of some columns mean; None where they have none.
    avro_schema: str | None = None


class Partitioner:
    """Groups rows by directory. `fields` are the columns it looks at."""

    fields: tuple[str, ...] = ()
    # Whether directories are named by a field's time, and not by when their records were sent.
    goes_by_field: bool = False

    @property
    def needs_columns(self) -> bool:
        """Whether it looks at fields of values."""
        return bool(self.fields)

    def groups(self, batch: Batch, unplaced: list[Unplaced]) -> Iterator[Group]:  # noqa: ARG002
        """Yield the directories of a batch with their rows; notes those that cannot be placed."""
        yield Group("", None)

    def take_newest_ms(self) -> int:
        """Return the latest of the fields' times that named a directory since this was last asked, -1 if none did."""
        return NO_TIMESTAMP

    def end_ms(self, directory: str) -> int | None:  # noqa: ARG002
        """Return the instant a directory ends at; None where it never does."""
        return None


class _ByKafkaPartition(Partitioner):
    def groups(self, batch: Batch, unplaced: list[Unplaced]) -> Iterator[Group]:  # noqa: ARG002
        yield Group(f"partition={batch.partition}", None)


class _ByPath(Partitioner):
    """By values of fields, by a time, or by the one within the other."""

    def __init__(self, settings: Partitioning) -> None:
        self._outer = settings.fields
        self._zone, self._unit = settings.zone, settings.timestamp_unit
        self._timestamp = settings.timestamp
        self._directories = TimeDirectories(settings.time_pattern, settings.zone) if settings.kind == "time" else None
        self.goes_by_field = self._directories is not None and self._timestamp != RECORD_TIME
        self.fields = (*self._outer, *([self._timestamp] if self.goes_by_field else []))
        self._newest_ms = NO_TIMESTAMP

    def groups(self, batch: Batch, unplaced: list[Unplaced]) -> Iterator[Group]:
        coding = self._coding(batch, unplaced)
        if coding is None:
            return
        codes, directories = coding
        for code, rows in [(0, None)] if codes is None else grouped(codes, len(directories)):
            reason = self._why_no_name(directories[code])
            if reason is None:
                yield Group(directories[code], rows)
            else:
                refused = range(batch.row_count) if rows is None else rows.to_pylist()
                unplaced += [Unplaced(row, reason) for row in refused]

    def take_newest_ms(self) -> int:
        newest, self._newest_ms = self._newest_ms, NO_TIMESTAMP
        return newest

    def end_ms(self, directory: str) -> int | None:
        if self._directories is None:
            return None
        depth = len(self._outer)
        return self._directories.end_ms("/".join(directory.split("/")[depth:]))

    def _coding(self, batch: Batch, unplaced: list[Unplaced]) -> Coding | None:
        """Return the directories of rows; None where none can be placed, which is noted."""
        columns: list[tuple[str, pa.Array]] = []
        for name in self._outer:
            column = _column(batch, name, unplaced)
            if column is None:
                return None
            if pa.types.is_nested(column.type):
                _refuse(batch, unplaced, f"the field {name!r} is {column.type}, which names no directory")
                return None
            columns.append((name, column))
        if self._directories is None:
            return field_directories.codes(columns)
        times = self._times(batch, unplaced)
        if times is None:
            return None
        codes, names = self._directories.codes(times)
        if codes is not None and codes.null_count:
            by_field = self.goes_by_field and not batch.are_tombstones
            what = f"the field {self._timestamp!r}" if by_field else "the record"
            reason = f"{what} has no time that names a directory"
            unplaced += [Unplaced(row, reason) for row in pc.indices_nonzero(pc.is_null(codes)).to_pylist()]
        if not names:
            return None
        return below(field_directories.codes(columns), (codes, names)) if columns else (codes, names)

    def _times(self, batch: Batch, unplaced: list[Unplaced]) -> pa.Int64Array | None:
        if not self.goes_by_field or batch.are_tombstones:
            return _sent(batch.times)
        column = _column(batch, self._timestamp, unplaced)
        if column is None:
            return None
        if not is_time(column.type):
            _refuse(batch, unplaced, f"the field {self._timestamp!r} is {column.type}, no time")
            return None
        is_local = pa.types.is_integer(column.type) and _is_local(batch.avro_schema, self._timestamp)
        times = known(instants(column, self._unit, self._zone, is_local=is_local))
        newest = pc.max(times).as_py()
        if newest is not None:
            self._newest_ms = max(self._newest_ms, newest)
        return times

    def _why_no_name(self, directory: str) -> str | None:
        """Return why no file system would make a directory, or None."""
        if not self._outer or len(directory) <= NAME_BYTES_MAX // _UTF8_BYTES_MAX:
            return None
        for field, name in zip(self._outer, directory.split("/"), strict=False):
            size_bytes = len(name.encode())
            if size_bytes > NAME_BYTES_MAX:
                most = f"a directory's has {NAME_BYTES_MAX} at the most"
                return f"the field {field!r} makes a name of {size_bytes} bytes, and {most}"
        return None


@lru_cache(maxsize=256)
def _is_local(avro_schema: str | None, name: str) -> bool:
    """Whether numbers of a field are what a clock shows: columns have local timestamps in nanoseconds as numbers."""
    found = None if avro_schema is None else avro_type_at(avro_schema, name)
    logical = None if found is None else logical_type(found)
    return logical is not None and logical.name.startswith("local-timestamp-")


def _sent(times: pa.Array) -> pa.Array:
    """The records' times, null where Kafka's -1 says that there is none."""
    has_none = pc.equal(times, NO_TIMESTAMP)
    return pc.if_else(has_none, pa.scalar(None, times.type), times) if pc.any(has_none).as_py() else times


def _refuse(batch: Batch, unplaced: list[Unplaced], reason: str) -> None:
    unplaced += [Unplaced(row, reason) for row in range(batch.row_count)]


def partitioner(settings: Partitioning) -> Partitioner:
    """Return the partitioner of a job."""
    if settings.kind == "kafka":
        return _ByKafkaPartition()
    return _ByPath(settings) if settings.kind in ("time", "fields") else Partitioner()


def type_at(columns: pa.Schema, name: str) -> pa.DataType | None:
    """Return the type of a column, of structs by names with dots; None where there is none."""
    if name in columns.names:
        return columns.field(name).type
    first, *rest = name.split(".")
    type_ = columns.field(first).type if first in columns.names else None
    for part in rest:
        if type_ is None or not pa.types.is_struct(type_) or type_.get_field_index(part) < 0:
            return None
        type_ = type_.field(part).type
    return type_


def avro_type_at(schema: str, name: str) -> AvroType | None:
    """Return the type of a field in an Avro schema, by names with dots; None for what is no field of the values."""
    node: AvroType | None = parse_avro(schema).root
    for part in name.split("."):
        node = node.by_name[part].type if isinstance(node, RecordType) and part in node.by_name else None
        if isinstance(node, UnionType):
            others = [branch for branch in node.branches if branch.kind != "null"]
            node = others[0] if len(others) == 1 else None
    return node


def _column(batch: Batch, name: str, unplaced: list[Unplaced]) -> pa.Array | None:
    """Return a column as `type_at` finds it; without it no row can be placed."""
    assert batch.columns is not None, name
    columns: Any = batch.columns
    if type_at(columns.schema, name) is None:
        _refuse(batch, unplaced, f"there is no field {name!r}")
        return None
    if name in columns.schema.names:
        return columns.column(name)
    first, *rest = name.split(".")
    return pc.struct_field(columns.column(first), rest)
