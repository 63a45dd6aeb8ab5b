"""Dead letters read back: what could not be read, as it came, from the Avro files below `_dead_letters`.

Which files were replayed is in the commit log, in the document REPLAYED + topic: the entry that brings the rows says so
too, and one entry is all or nothing. The files stay where they are, as a record of what happened.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.commit.names import DEAD_LETTERS, dead_letters_directory

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableFile, TableState
    from millstream.hadoop_loader.filesystem import FileSystem

# No topic's name has a slash.
REPLAYED: Final = "_dead_letters/"
_SNAPPY_CRC_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that could not be read, and why not."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    error: str


def letter_topics(state: TableState) -> list[str]:
    """The topics that ever had dead letters, by name."""
    return sorted(key.removeprefix(f"{DEAD_LETTERS}/") for key in state.totals if key.startswith(f"{DEAD_LETTERS}/"))


def letter_files(state: TableState, topic: str) -> list[TableFile]:
    """The files of a topic's dead letters that were not replayed, by name."""
    replayed = set(replayed_files(state, topic))
    return [file for file in state.files.under(dead_letters_directory(topic)) if file.name not in replayed]


def waiting_letters(state: TableState) -> dict[str, int]:
    """How many letters were not replayed, by topic."""
    return {topic: sum(file.rows for file in letter_files(state, topic)) for topic in letter_topics(state)}


def replayed_files(state: TableState, topic: str) -> list[str]:
    """The names of the files whose letters were replayed."""
    document = state.schemas.get(f"{REPLAYED}{topic}") or {}
    names: list[str] = document.get("replayed", [])
    return names


def replayed_document(state: TableState, topic: str, files: list[TableFile]) -> dict[str, Any]:
    """The topic's document once these files were replayed."""
    return {"replayed": sorted({*replayed_files(state, topic), *(file.name for file in files)})}


def read_letters(filesystem: FileSystem, path: str) -> Iterator[DeadLetter]:
    """Yield the letters of one file. Raises FileNotFoundError, FileSystemError, ContainerError for a damaged file."""
    import fastavro

    from millstream.hadoop_loader.writing.containers import read_avro_header

    with filesystem.open(path) as stored:
        header = read_avro_header(stored)
        blocks = io.BytesIO(stored.read_at(header.size, stored.size - header.size))
    schema = fastavro.parse_schema(json.loads(header.schema))
    end = blocks.seek(0, io.SEEK_END)
    blocks.seek(0)
    while blocks.tell() < end:
        count: Any = fastavro.schemaless_reader(blocks, "long", None)
        packed: Any = fastavro.schemaless_reader(blocks, "bytes", None)
        blocks.seek(len(header.sync), io.SEEK_CUR)
        datums = io.BytesIO(_unpacked(header.codec, packed))
        for _ in range(count):
            yield _letter(fastavro.schemaless_reader(datums, schema, None))


def _letter(datum: Any) -> DeadLetter:
    return DeadLetter(
        datum["topic"],
        datum["partition"],
        datum["offset"],
        _milliseconds(datum["timestamp"]),
        datum["key"],
        datum["value"],
        tuple((header["key"], header["value"]) for header in datum["headers"] or ()),
        datum["error"],
    )


def _milliseconds(time: Any) -> int:
    if time is None:
        return -1
    return time if isinstance(time, int) else round(time.timestamp() * 1000)


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
