"""Fetched records of one partition to rows of files: read, placed in directories, late ones and bad ones apart.

Everything here is on whole batches. Rows are numbers of records within the batch; what is asked of only some of them is
taken by such numbers, and where all are meant, as most often, nothing is taken at all.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.partitioning import LATEST_MS, Group, partitioner
from millstream.hadoop_loader.partitioning.partitioner import Batch, Unplaced
from millstream.hadoop_loader.running.dead_letters import SCHEMA, DeadLetters
from millstream.hadoop_loader.running.errors import TopicUnreadableError
from millstream.hadoop_loader.splits import FileKind
from millstream.hadoop_loader.values import BadRow, TableRows, UnknownSchemaError, ValueReader, value_reader
from millstream.hadoop_loader.values.fetched import Fetched
from millstream.hadoop_loader.values.header_ids import HeaderIds
from millstream.hadoop_loader.values.keys import DECODED_FORMATS, KeyReader
from millstream.hadoop_loader.values.located import ints
from millstream.hadoop_loader.values.tombstones import Tombstones
from millstream.hadoop_loader.writing import FileKey, OpenFiles, Rows, datum_bytes

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.running.range_state import RangeState
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.schemas.client import RegistryClient


class Sorter:
    """Puts records of all topics of a split into files; one thread at a time."""

    def __init__(
        self,
        job: LoadJob,
        tables: Mapping[str, TableVersion],
        closed_directories: Mapping[str, Container[str]],
        registry: RegistryClient | None,
        files: OpenFiles,
    ) -> None:
        self._job = job
        self._tables = tables
        self._closed = closed_directories
        self._registry = registry
        self._files = files
        self._formats = sorted(job.destination.formats)
        self._partitioner = partitioner(job.partitioning)
        self._readers: dict[str, ValueReader] = {}
        self._tombstones: dict[str, Tombstones] = {}
        self._dead_letters = DeadLetters()
        self._reads_keys = job.key.format in DECODED_FORMATS
        self._key_readers: dict[str, KeyReader] = {}
        is_framed = job.value.framing == "registry" and job.value.format != "raw"
        self._header_ids = HeaderIds(registry, job.value.format, "value") if is_framed else None
        # Why the keys of some of the fetched records cannot be read, by row.
        self._bad_keys: dict[int, str] = {}

    def sort(self, state: RangeState, fetched: Fetched) -> None:
        """Put records into files, and count them. Raises UnknownSchemaError, TopicUnreadableError, FileSystemError."""
        bad: list[BadRow] = []
        topic = state.wanted.topic
        if self._reads_keys:
            with _blamed_on(topic):
                fetched.read_keys, self._bad_keys = self._key_reader(topic).read(fetched)
        if self._header_ids is not None:
            with _blamed_on(topic):
                framed = self._header_ids.framed(fetched)
            if framed is not None:
                fetched.frame(framed[0])
                bad += [BadRow(row, reason) for row, reason in framed[1].items()]
        if fetched.has_nulls:
            self._sort_tombstones(state, fetched, bad)
        for rows in self._read(topic, fetched, bad):
            self._place(state, fetched, rows, bad)
        if bad:
            self._bury(state, fetched, bad)
        state.bytes += fetched.size_bytes
        by_field = self._partitioner.goes_by_field
        newest_ms = self._partitioner.take_newest_ms() if by_field else _newest_ms(fetched.times)
        state.max_timestamp_ms = max(state.max_timestamp_ms, newest_ms)

    def _read(self, topic: str, fetched: Fetched, bad: list[BadRow]) -> Iterator[TableRows]:
        # What is raised while a caller has the rows is not of this topic alone: files are written then.
        with _blamed_on(topic):
            yield from self._reader(topic).read(fetched, bad)

    def _reader(self, topic: str) -> ValueReader:
        reader = self._readers.get(topic)
        if reader is None:
            reader = self._readers[topic] = value_reader(
                self._job, self._tables[topic], self._registry, needs_columns=self._partitioner.needs_columns
            )
        return reader

    def _key_reader(self, topic: str) -> KeyReader:
        reader = self._key_readers.get(topic)
        if reader is None:
            reader = self._key_readers[topic] = KeyReader(self._job, self._tables[topic], self._registry)
        return reader

    def _sort_tombstones(self, state: RangeState, fetched: Fetched, bad: list[BadRow]) -> None:
        rows = fetched.null_rows()
        state.tombstones += len(rows)
        if self._job.tombstones == "skip":
            state.tombstones_left_out += len(rows)
        elif self._job.tombstones == "dead_letters":
            bad += [BadRow(row, "the value is null") for row in rows.to_pylist()]
        else:
            topic = state.wanted.topic
            reader = self._tombstones.get(topic)
            if reader is None:
                reader = self._tombstones[topic] = Tombstones(self._job, self._tables[topic])
            with _blamed_on(topic):
                read = reader.read(fetched, rows)
            self._place(state, fetched, read, bad)

    def _place(self, state: RangeState, fetched: Fetched, rows: TableRows, bad: list[BadRow]) -> None:
        """Put rows of one table into the files of their directories."""
        offsets, times = fetched.offsets, fetched.times
        if rows.rows is not None:
            offsets, times = offsets.take(rows.rows), times.take(rows.rows)
        unplaced: list[Unplaced] = []
        schema = rows.table.avro_schema
        batch = Batch(rows.count, times, state.wanted.partition, rows.columns, rows.are_tombstones, schema)
        closed = self._closed.get(rows.table.name, frozenset())
        refused = self._with_bad_keys(rows)
        per_datum = None if rows.datums is None else datum_bytes(rows.datums)
        for directory, group in self._groups(state.wanted.topic, batch, unplaced):
            if refused:
                placed = pa.array(range(rows.count), pa.int64()) if group is None else group
                group = placed.filter(pc.invert(pc.is_in(placed, value_set=pa.array(list(refused), pa.int64()))))
                if not len(group):
                    continue
            is_late, policy = directory in closed, self._job.late.policy
            if is_late and policy == "dead_letters":
                late = range(rows.count) if group is None else group.to_pylist()
                unplaced += [Unplaced(row, f"it is late: {directory} is closed") for row in late]
                continue
            kind = FileKind.LATE if is_late and policy == "separate" else FileKind.DATA
            for format_ in self._formats:
                key = FileKey(
                    kind,
                    rows.table.name,
                    state.wanted.topic,
                    state.wanted.topic_id,
                    state.wanted.partition,
                    directory,
                    format_,
                    rows.are_tombstones,
                    rows.table.version,
                )
                self._write(key, rows, group, offsets, times, per_datum)
            count = rows.count if group is None else len(group)
            state.rows += count
            state.late += count if is_late else 0
        for row, reason in (dict(unplaced) | refused).items():
            bad.append(BadRow(row if rows.rows is None else rows.rows[row].as_py(), reason))

    def _groups(self, topic: str, batch: Batch, unplaced: list[Unplaced]) -> Iterator[Group]:
        with _blamed_on(topic):
            yield from self._partitioner.groups(batch, unplaced)

    def _with_bad_keys(self, rows: TableRows) -> dict[int, str]:
        """Return which of these rows, by their numbers among them, have a key that cannot be read, and why."""
        if not self._bad_keys:
            return {}
        if rows.rows is None:
            return {row: reason for row, reason in self._bad_keys.items() if row < rows.count}
        places = pc.index_in(pa.array(list(self._bad_keys), pa.int64()), value_set=rows.rows).to_pylist()
        return {
            place: reason for place, reason in zip(places, self._bad_keys.values(), strict=True) if place is not None
        }

    def _write(
        self,
        key: FileKey,
        rows: TableRows,
        group: pa.Int64Array | None,
        offsets: pa.Int64Array,
        times: pa.Int64Array,
        per_datum: float | None,
    ) -> None:
        if group is not None:
            offsets, times = offsets.take(group), times.take(group)
        if key.format == "parquet":
            columns = rows.columns
            assert columns is not None, key
            if group is not None:
                columns = columns.take(group)
            self._files.append(key, columns.schema, Rows(offsets, times, columns))
            return
        chosen = group
        if rows.rows is not None and not rows.own_datums:
            chosen = rows.rows if group is None else rows.rows.take(group)
        schema = rows.schema.avro_tombstones if rows.are_tombstones else rows.schema.avro
        self._files.append(key, schema, Rows(offsets, times, None, rows.datums, ints(chosen), per_datum))

    def _bury(self, state: RangeState, fetched: Fetched, bad: list[BadRow]) -> None:
        """Put bad records into dead letters."""
        state.bad += len(bad)
        if self._job.bad_records.policy == "skip":
            return
        wanted = state.wanted
        key = FileKey(FileKind.DEAD_LETTERS, wanted.topic, wanted.topic, wanted.topic_id, wanted.partition, "", "avro")
        self._files.append(key, SCHEMA, self._dead_letters.rows(fetched, sorted(bad)))


@contextmanager
def _blamed_on(topic: str) -> Iterator[None]:
    """Give what reading raises the topic whose records were read: the others of the split are not to suffer for it."""
    try:
        yield
    except (UnknownSchemaError, MemoryError):
        raise
    except Exception as error:
        sentence = str(error) or type(error).__name__
        raise TopicUnreadableError(topic, sentence, getattr(error, "is_retriable", True)) from error


def _newest_ms(times: pa.Int64Array) -> int:
    """Return the latest of records' times that a calendar has, -1 if none is: of microseconds, nothing is closed."""
    newest = pc.max(times).as_py()
    if newest > LATEST_MS:
        newest = pc.max(times.filter(pc.less_equal(times, LATEST_MS))).as_py()
    return -1 if newest is None else newest
