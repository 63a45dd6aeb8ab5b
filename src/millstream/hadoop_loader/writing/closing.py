"""The end of a file: written out, synced, closed, and looked at again before anybody is told of it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.hadoop_loader.writing.avro_file import MAGIC, AvroFile
from millstream.hadoop_loader.writing.parquet_file import ParquetFile

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem import FileSystem

_PARQUET_MAGIC: Final = b"PAR1"
_FOOTER: Final = struct.Struct("<I4s")


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
        _check_parquet(filesystem, path, expected, file.rows)
    else:
        _check_avro(filesystem, path, expected, file.sync)


def _check_parquet(filesystem: FileSystem, path: str, size: int, rows: int) -> None:
    with filesystem.open(path) as stored:
        length, magic = _FOOTER.unpack(stored.read_at(size - _FOOTER.size, _FOOTER.size))
        if magic != _PARQUET_MAGIC or length > size - _FOOTER.size - len(_PARQUET_MAGIC):
            raise DamagedFileError(f"{filesystem.uri}/{path} does not end as a Parquet file")
        footer = stored.read_at(size - _FOOTER.size - length, length + _FOOTER.size)
    try:
        found = pq.read_metadata(pa.BufferReader(_PARQUET_MAGIC + footer)).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedFileError(f"{filesystem.uri}/{path} has a footer that cannot be read: {error}") from error
    if found != rows:
        raise DamagedFileError(f"{filesystem.uri}/{path} has {found} rows, where {rows} were written")


def _check_avro(filesystem: FileSystem, path: str, size: int, sync: bytes) -> None:
    with filesystem.open(path) as stored:
        if stored.read_at(0, len(MAGIC)) != MAGIC or stored.read_at(size - len(sync), len(sync)) != sync:
            raise DamagedFileError(f"{filesystem.uri}/{path} does not begin and end as an Avro file")
