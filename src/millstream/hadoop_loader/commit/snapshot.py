"""What a table root holds at one number, for readers who want exactly that, whatever is loaded or compacted meanwhile.

A reader of plain directories may miss a directory for the moment in which a compaction replaces it, and sees new files
come while it reads. A Snapshot is pinned to a number of the log: it lists that number's files and finds them, where a
later compaction has moved them, in trash; for as long as snapshot_retention keeps them there.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.commit.entries import TableFile
from millstream.hadoop_loader.commit.reading import LogReader
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemSettings, InputFile, open_filesystem
from millstream.hadoop_loader.filesystem.arrow import arrow_input
from millstream.hadoop_loader.filesystem.interface import ClosedAtEnd
from millstream.hadoop_loader.splits import FileKind

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

_THREADS = 8


def dataset(
    uri: str,
    table: str,
    format: str = "parquet",  # noqa: A002  the word everybody uses for it
    *,
    number: int | None = None,
    with_late: bool = False,
    schema: pa.Schema | None = None,
    settings: FileSystemSettings | None = None,
) -> ds.Dataset:
    """A pyarrow dataset of a table's Parquet files at `number` of the log of the table root `uri` (None: now).

    It stays what it is while more is loaded and compacted. `with_late` adds the late records. `schema` is by default
    what all the table's files come to together. Raises LookupError if the log has no longer what `number` takes, and
    for a table without files; ValueError for Avro, of which pyarrow makes no datasets: use `Snapshot.open`.
    """
    if format != "parquet":
        raise ValueError(f"{format!r}: pyarrow makes datasets of Parquet; use Snapshot(...).files and .open for Avro")
    filesystem = open_filesystem(uri, settings or FileSystemSettings())
    try:
        snapshot = Snapshot(filesystem, number)
    except BaseException:
        filesystem.close()
        raise
    # Who has the dataset holds nothing that could be closed: its last reference gives up threads and connections.
    weakref.finalize(snapshot, filesystem.close).atexit = False
    return snapshot.dataset(table, with_late=with_late, schema=schema)


class Snapshot(ClosedAtEnd):
    """One number of a log, and its files. Any thread may use it; it owns the file system it was given."""

    def __init__(self, filesystem: FileSystem, number: int | None = None) -> None:
        """`number` None: the last number all of whose files are in their places."""
        self._filesystem = filesystem
        self._reader = LogReader(filesystem, _THREADS)
        read = self._reader.read(number)
        if number is None and read.last is not None and not self._reader.is_applied(read.last):
            # What is being applied right now is half here: the number before it is all there, if partly in trash.
            read = self._reader.read(read.last.number - 1)
        self.state = read.state
        self.number = read.state.number

    def files(self, table: str, format_: str, *, with_late: bool = False) -> Iterator[TableFile]:
        """The files of a table in one format, by directory and name."""
        yield from self.state.files.under(names.table_directory(table, format_))
        if with_late:
            yield from self.state.files.under(names.table_directory(table, format_, kind=FileKind.LATE))

    def open(self, path: str) -> InputFile:
        """Open a file by its path at this number: in its place, or in the trash of the compaction that replaced it."""
        # The second look at its place is for a rename there between the first and the look into trash.
        for place in chain((path,), self._in_trash(path), (path,)):
            try:
                return self._filesystem.open(place)
            except FileNotFoundError:
                continue
        raise FileNotFoundError(
            f"{self._filesystem.uri}/{path}: neither in its place nor in trash; if number {self.number} is older than"
            " snapshot_retention, take a newer one"
        )

    def dataset(self, table: str, *, with_late: bool = False, schema: pa.Schema | None = None) -> ds.Dataset:
        """The Parquet files of a table as a pyarrow dataset; see the function `dataset`."""
        import pyarrow.dataset as ds

        files = list(self.files(table, "parquet", with_late=with_late))
        if not files:
            raise LookupError(f"{self._filesystem.uri}: table {table} has no Parquet files at number {self.number}")
        return ds.dataset(
            [file.path for file in files],
            filesystem=_arrow_filesystem(self),
            format="parquet",
            schema=schema or self._schema(files),
        )

    def close(self) -> None:
        """Give up the file system."""
        self._filesystem.close()

    def _in_trash(self, path: str) -> Iterator[str]:
        # A generator: trash is listed only once the file was not found in its place.
        for status in self._reader.list(names.TRASH):
            number = names.parse_number(status.name)
            if number is not None and number > self.number:
                yield names.trash_path(number, path)

    def _schema(self, files: list[TableFile]) -> pa.Schema:
        # The files of one load have their table's schema as it was at some time; a compacted file has its directory's.
        one_of_each = {
            file.path if file.partition < 0 else (file.name.rpartition(names.SEPARATOR)[2], file.schema_version): file
            for file in files
        }
        import pyarrow.parquet as pq

        from millstream.hadoop_loader.commit.arrow_schemas import unified

        def read(file: TableFile) -> pa.Schema:
            with self.open(file.path) as opened:
                return pq.read_schema(arrow_input(opened)).remove_metadata()

        return unified(list(dict.fromkeys(self._reader.in_parallel(read, one_of_each.values()))))


def _arrow_filesystem(snapshot: Snapshot) -> Any:
    from pyarrow.fs import PyFileSystem

    from millstream.hadoop_loader.commit.arrow_snapshot import SnapshotHandler

    return PyFileSystem(SnapshotHandler(snapshot))
