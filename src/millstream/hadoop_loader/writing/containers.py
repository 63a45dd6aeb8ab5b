"""What finished files say of themselves: an Avro container's header at its start, a Parquet file's footer at its end.

    Avro      "Obj" 1 | map of metadata, in blocks of a count and its entries | sync marker, 16 bytes
    Parquet   ... | footer | its length, 4 bytes little-endian | "PAR1"

Read with one call where they are of the usual size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.hadoop_loader.writing.avro_file import MAGIC, SYNC_SIZE

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem.interface import InputFile

_READ_BYTES: Final = 64 << 10
_PARQUET_MAGIC: Final = b"PAR1"
_TAIL_SIZE: Final = 4 + len(_PARQUET_MAGIC)


class ContainerError(ValueError):
    """A file that is not whole, or of another format; the message says what was found, and not in which file."""


class AvroHeader(NamedTuple):
    """What a container file begins with; `size` in bytes."""

    schema: str
    codec: str
    sync: bytes
    size: int


def read_avro_header(stored: InputFile) -> AvroHeader:
    """Return what a container file begins with. Raises ContainerError for what is none."""
    size = _READ_BYTES
    while True:
        data = stored.read_at(0, min(size, stored.size))
        if data[: len(MAGIC)] != MAGIC:
            raise ContainerError("it does not begin as an Avro file")
        try:
            return _parsed_header(data)
        except IndexError:
            if size >= stored.size:
                raise ContainerError("it ends within its header") from None
            size *= 8


def read_parquet_footer(stored: InputFile) -> pq.FileMetaData:
    """Return what a Parquet file says at its end. Raises ContainerError for what is none."""
    size = min(_READ_BYTES, stored.size)
    tail = stored.read_at(stored.size - size, size)
    length = int.from_bytes(tail[-_TAIL_SIZE : -len(_PARQUET_MAGIC)], "little") + _TAIL_SIZE
    if tail[-len(_PARQUET_MAGIC) :] != _PARQUET_MAGIC or length > stored.size - len(_PARQUET_MAGIC):
        raise ContainerError("it does not end as a Parquet file")
    if length > size:
        tail = stored.read_at(stored.size - length, length)
    try:
        return pq.read_metadata(pa.BufferReader(_PARQUET_MAGIC + tail[-length:]))
    except (pa.ArrowInvalid, OSError) as error:
        raise ContainerError(f"its footer cannot be read: {error}") from error


def _parsed_header(data: bytes) -> AvroHeader:
    """Raises IndexError where the header goes on behind `data`."""
    entries: dict[bytes, bytes] = {}
    at = len(MAGIC)
    while True:
        count, at = varint_at(data, at)
        if count == 0:
            break
        if count < 0:
            _, at = varint_at(data, at)
        for _ in range(abs(count)):
            key, at = _sized(data, at)
            entries[key], at = _sized(data, at)
    if at + SYNC_SIZE > len(data):
        raise IndexError(at)
    if b"avro.schema" not in entries:
        raise ContainerError("its header has no schema")
    return AvroHeader(
        entries[b"avro.schema"].decode(),
        entries.get(b"avro.codec", b"null").decode(),
        data[at : at + SYNC_SIZE],
        at + SYNC_SIZE,
    )


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = varint_at(data, at)
    if size < 0 or at + size > len(data):
        raise IndexError(at)
    return data[at : at + size], at + size


def varint_at(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return a zigzag number and where it ends. Raises IndexError behind the end."""
    raw = shift = 0
    while True:
        byte = data[at]
        at += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return raw >> 1 ^ -(raw & 1), at
        shift += 7
