"""The files open in one worker: rows in, staged files out, within a bound of memory.

    append -> a file for each key (table, partition, directory, format), opened when its first rows come
    a limit reached -> closed          over the bound -> the one that holds most ends its row group, or is closed

Files are closed on threads of their own: the last row group is encoded, the file synced and read back there, while the
next rows are decoded. What a file that is being closed holds counts until it is closed, and `append` waits where that
is too much. The rest belongs to the thread that calls; an error of a thread is raised by the next call. Hundreds of
files may be waited for, each for seconds: the caller is told of each, or it would look as if it hung.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.filesystem import UnavailableError, UnknownOutcomeError
from millstream.hadoop_loader.splits import FileKind, StagedFile
from millstream.hadoop_loader.writing.avro_file import NOTHING, AvroFile, Datums
from millstream.hadoop_loader.writing.closing import close_file
from millstream.hadoop_loader.writing.limits import Extent, rows_that_fit
from millstream.hadoop_loader.writing.parquet_file import ParquetFile

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import EncodingSettings, FileLimits

OPEN_FILES_MAX: Final = 512
"""Files open at a time; over it the one is closed that was written to longest ago."""
CLOSING_THREADS: Final = 2
CLOSING_MAX: Final = 64
"""Files that wait to be closed; `append` waits with them."""
# What an open file takes beside what it buffers: the file system gathers small writes.
_FILE_BYTES: Final = 1024 * 1024
# A buffer as large as this makes a row group worth its name.
_ROW_GROUP_BYTES_MIN: Final = 4 * 1024 * 1024


class FileKey(NamedTuple):
    """What rows of one file have in common."""

    kind: FileKind
    table: str
    topic: str
    topic_id: str
    partition: int
    directory: str
    format: str
    # Files of rows without a value have another schema.
    are_tombstones: bool = False
    # Of the table's schema; one attempt has one of each table.
    schema_version: int = 0


class Rows(NamedTuple):
    """Rows for one file, in the order of their offsets: `columns` for Parquet, `datums` for Avro."""

    offsets: pa.Int64Array
    times: pa.Int64Array  # ms
    columns: pa.RecordBatch | None = None
    datums: Datums | None = None
    # Which of the datums, as int64s; empty: all of them.
    datum_rows: Any = NOTHING
    # What a datum takes on the average (`datum_bytes`), where the caller has rows of the same datums for many files.
    bytes_per_datum: float | None = None


@dataclass(slots=True)
class _Open:
    key: FileKey
    path: str
    file: AvroFile | ParquetFile
    first_offset: int
    last_offset: int = -1
    min_ms: int | None = None
    max_ms: int | None = None

    @property
    def held_bytes(self) -> int:
        return self.file.buffered_bytes + (_FILE_BYTES if self.file.output.is_made else 0)

    @property
    def extent(self) -> Extent:
        return Extent(self.file.rows, self.file.size_bytes, self.min_ms, self.max_ms)


class OpenFiles:
    """See the module's text."""

    def __init__(
        self,
        filesystem: FileSystem,
        staging: str,
        *,
        limits: FileLimits,
        encoding: EncodingSettings,
        memory_bytes_max: int,
        open_files_max: int = OPEN_FILES_MAX,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_closed` is called in the caller's thread for each file that was closed; what it raises ends the call."""
        self._filesystem = filesystem
        self._staging = staging
        self._limits = limits
        self._encoding = encoding
        self._memory_bytes_max = memory_bytes_max
        self._open_files_max = open_files_max
        self._on_closed = on_closed
        # By when they were written to last.
        self._open: OrderedDict[FileKey, _Open] = OrderedDict()
        self._held_bytes = 0
        # The files being closed, and what each holds. Invariant: len(_closing) <= CLOSING_MAX once `append` returns.
        self._closing: deque[tuple[Future[StagedFile], int, _Open]] = deque()
        self._closing_bytes = 0
        self._closed: list[StagedFile] = []
        self._executor = ThreadPoolExecutor(CLOSING_THREADS, "millstream-closing")
        self._count = 0
        # The most that was ever held, for reports and tests.
        self.peak_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Memory of open files and of those being closed."""
        return self._held_bytes + self._closing_bytes

    def append(self, key: FileKey, schema: str | pa.Schema, rows: Rows) -> None:
        """Add rows; `schema` is that of the file, as its format has it. Raises FileSystemError, DamagedFileError."""
        self._collect()
        count, at = len(rows.offsets), 0
        per_row = _bytes_per_row(key, rows)
        while at < count:
            entry = self._open.get(key) or self._begin(key, schema, rows.offsets[at].as_py())
            self._open.move_to_end(key)
            size = rows_that_fit(self._limits, entry.extent, rows.times.slice(at), per_row)
            if size:
                self._write(entry, rows, at, size)
                at += size
            if at < count or _is_full(self._limits, entry.extent):
                self._close(entry)
                self._wait_for_room()
        self._keep_to_bounds()

    def finish(self) -> list[StagedFile]:
        """Close every file; return all of them in the order of their paths. Where it raises, `abandon` is to follow."""
        for entry in list(self._open.values()):
            self._close(entry)
            self._wait_for_room()
        while self._closing:
            self._take_closed()
        self._executor.shutdown()
        return sorted(self._closed, key=lambda staged: staged.path)

    def abandon(self, on_abandoned: Callable[[], None] = lambda: None) -> None:
        """Give up what is not closed; `on_abandoned` is called for each such file. May be called again.

        What was made is deleted as long as the file system answers; else it is left to who cleans staging, as each call
        would wait for its deadline.
        """
        self._executor.shutdown(wait=True, cancel_futures=True)
        given_up = [entry for closed, _, entry in self._closing if closed.cancelled()]
        answers = True
        for entry in [*given_up, *self._open.values()]:
            answers = entry.file.abandon(delete=answers) and answers
            on_abandoned()
        self._open.clear()
        self._closing.clear()
        self._held_bytes = self._closing_bytes = 0

    def _begin(self, key: FileKey, schema: str | pa.Schema, first_offset: int) -> _Open:
        self._count += 1
        path = f"{self._staging}/{self._count:06}.{key.format}"

        def create() -> Any:
            return self._filesystem.create(path)

        file: AvroFile | ParquetFile
        if isinstance(schema, str):
            file = AvroFile(create, schema, self._encoding.avro)
        else:
            file = ParquetFile(create, schema, self._encoding.parquet)
        entry = self._open[key] = _Open(key, path, file, first_offset)
        self._held_bytes += entry.held_bytes
        return entry

    def _write(self, entry: _Open, rows: Rows, at: int, size: int) -> None:
        before = entry.held_bytes
        if isinstance(entry.file, ParquetFile):
            assert rows.columns is not None, entry.key
            entry.file.append(rows.columns.slice(at, size))
        else:
            assert rows.datums is not None, entry.key
            entry.file.append(rows.datums, at, at + size, rows.datum_rows)
        self._held_bytes += entry.held_bytes - before
        # Rows come in the order of their offsets, but those of tombstones before the others of their batch.
        entry.first_offset = min(entry.first_offset, rows.offsets[at].as_py())
        entry.last_offset = max(entry.last_offset, rows.offsets[at + size - 1].as_py())
        ends = pc.min_max(rows.times.slice(at, size))
        least, greatest = ends["min"].as_py(), ends["max"].as_py()
        entry.min_ms = least if entry.min_ms is None else min(entry.min_ms, least)
        entry.max_ms = greatest if entry.max_ms is None else max(entry.max_ms, greatest)
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)

    def _close(self, entry: _Open) -> None:
        """Have a file closed on a thread."""
        del self._open[entry.key]
        held = entry.held_bytes
        self._held_bytes -= held
        self._closing_bytes += held
        self._closing.append((self._executor.submit(self._closed_file, entry), held, entry))

    def _closed_file(self, entry: _Open) -> StagedFile:
        try:
            close_file(self._filesystem, entry.path, entry.file)
        except (UnavailableError, UnknownOutcomeError):
            entry.file.abandon(delete=False)
            raise
        except BaseException:
            entry.file.abandon()
            raise
        key, output = entry.key, entry.file.output
        assert entry.min_ms is not None, entry.path
        assert entry.max_ms is not None, entry.path
        return StagedFile(
            path=entry.path,
            table=key.table,
            directory=key.directory,
            format=key.format,
            topic=key.topic,
            topic_id=key.topic_id,
            partition=key.partition,
            first_offset=entry.first_offset,
            last_offset=entry.last_offset,
            rows=entry.file.rows,
            length=output.size_bytes,
            checksum=output.checksum,
            min_timestamp_ms=entry.min_ms,
            max_timestamp_ms=entry.max_ms,
            kind=key.kind,
            schema_version=key.schema_version,
        )

    def _keep_to_bounds(self) -> None:
        while len(self._open) > self._open_files_max:
            self._close(next(iter(self._open.values())))
        while self._held_bytes > self._memory_bytes_max and self._open:
            largest = max(self._open.values(), key=lambda entry: entry.held_bytes)
            file = largest.file
            if isinstance(file, ParquetFile) and file.buffered_bytes >= _ROW_GROUP_BYTES_MIN:
                before = largest.held_bytes
                file.end_row_group()
                self._held_bytes += largest.held_bytes - before
            else:
                self._close(largest)
        self._wait_for_room()

    def _wait_for_room(self) -> None:
        while len(self._closing) > CLOSING_MAX or (self._closing and self.held_bytes > self._memory_bytes_max):
            self._take_closed()

    def _collect(self) -> None:
        while self._closing and self._closing[0][0].done():
            self._take_closed()

    def _take_closed(self) -> None:
        closed, held, _ = self._closing.popleft()
        self._closing_bytes -= held
        self._closed.append(closed.result())
        self._on_closed()


def _bytes_per_row(key: FileKey, rows: Rows) -> float:
    """Return what a row adds to a file, about: half of what it takes in memory."""
    count = len(rows.offsets)
    if key.format == "parquet":
        assert rows.columns is not None, key
        return float(rows.columns.nbytes) / count * 0.5
    assert rows.datums is not None, key
    return (datum_bytes(rows.datums) if rows.bytes_per_datum is None else rows.bytes_per_datum) * 0.5


def datum_bytes(datums: Datums) -> float:
    """Return what a datum takes, on the average of all values at hand.

    Which of them are chosen makes little difference, and their buffer may hold many more.
    """
    data, positions, sizes, _, tails, _ = datums
    if len(sizes):
        total: int = pc.sum(pa.Array.from_buffers(pa.int64(), len(sizes), [None, pa.py_buffer(sizes)])).as_py()
        return float(max(total, 0) + len(tails)) / len(sizes)
    count = max(len(positions) - 1, 1)
    size = positions[count] - positions[0] if len(positions) > 1 else len(data)
    return float(size + len(tails)) / count


def _is_full(limits: FileLimits, file: Extent) -> bool:
    return (limits.rows is not None and file.rows >= limits.rows) or file.bytes >= limits.bytes
