"""The end of a file: written out, synced, closed, and looked at again before anybody is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.hadoop_loader.writing.avro_file import MAGIC, AvroFile
from millstream.hadoop_loader.writing.containers import ContainerError, read_parquet_footer
from millstream.hadoop_loader.writing.parquet_file import ParquetFile

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem import FileSystem


class DamagedFileError(OSError):
    """A file is not what was written to it: the file system has lost or changed something. Another attempt may do."""


def close_file(filesystem: FileSystem, path: str, file: AvroFile | ParquetFile) -> None:
    """Finish, sync and close a file, and check what is there now. Raises DamagedFileError, FileSystemError."""
    file.finish()
    output = file.output.file
    output.sync()
    output.close()
    expected = file.output.size_bytes
    status = filesystem.status(path)
    if status is None or status.length != expected:
        found = "is not there" if status is None else f"has {status.length} bytes"
        raise DamagedFileError(f"{filesystem.uri}/{path} {found}, where {expected} were written and closed")
    if isinstance(file, ParquetFile):
        _check_parquet(filesystem, path, file.rows)
    else:
        _check_avro(filesystem, path, expected, file.sync)


def _check_parquet(filesystem: FileSystem, path: str, rows: int) -> None:
    try:
        with filesystem.open(path) as stored:
            found = read_parquet_footer(stored).num_rows
    except ContainerError as error:
        raise DamagedFileError(f"{filesystem.uri}/{path}: {error}") from error
    if found != rows:
        raise DamagedFileError(f"{filesystem.uri}/{path} has {found} rows, where {rows} were written")


def _check_avro(filesystem: FileSystem, path: str, size: int, sync: bytes) -> None:
    with filesystem.open(path) as stored:
        if stored.read_at(0, len(MAGIC)) != MAGIC or stored.read_at(size - len(sync), len(sync)) != sync:
            raise DamagedFileError(f"{filesystem.uri}/{path} does not begin and end as an Avro file")
