"""The datums of an Avro container, one by one, as Python's objects: for letters, and for whoever checks files.

Read by fastavro, which has no part in what the loader writes; blocks are unpacked here, as its zstandard is in Python's
own library only from 3.14 on. A block at a time is held.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.writing.containers import read_avro_header

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem.interface import InputFile

_SNAPPY_CRC_BYTES: Final = 4
# Two of Avro's longs.
_BLOCK_HEAD_BYTES_MAX: Final = 20


def read_datums(stored: InputFile) -> Iterator[Any]:
    """Yield the datums of a file, by its own schema. Raises ContainerError for what is no container."""
    import fastavro

    header = read_avro_header(stored)
    schema = fastavro.parse_schema(json.loads(header.schema))
    position = header.size
    while position < stored.size:
        # A block at a time: how many datums, how many bytes, the bytes, and the file's marker.
        head = io.BytesIO(stored.read_at(position, _BLOCK_HEAD_BYTES_MAX))
        count: Any = fastavro.schemaless_reader(head, "long", None)
        size: Any = fastavro.schemaless_reader(head, "long", None)
        position += head.tell()
        datums = io.BytesIO(_unpacked(header.codec, stored.read_at(position, size)))
        position += size + len(header.sync)
        for _ in range(count):
            yield fastavro.schemaless_reader(datums, schema, None)


def _unpacked(codec: str, block: bytes) -> bytes:
    if codec == "null":
        return block
    if codec == "deflate":
        return zlib.decompress(block, -15)
    if codec == "bzip2":
        return bz2.decompress(block)
    if codec == "xz":
        return lzma.decompress(block)
    import cramjam

    if codec == "snappy":
        return bytes(cramjam.snappy.decompress_raw(block[:-_SNAPPY_CRC_BYTES]))
    assert codec == "zstandard", codec
    return bytes(cramjam.zstd.decompress(block))
