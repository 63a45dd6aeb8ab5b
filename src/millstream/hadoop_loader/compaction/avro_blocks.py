"""Avro files joined by their blocks: nothing is decompressed or decoded.

A container file's blocks say how many datums and bytes they have and end with the sync marker of their file. So blocks
of files with equal schema and codec may stand in one file, if each gets that file's marker. The first input's marker
is taken, so that its bytes go over as they are.

Inputs of other schemas (the table has evolved) or codecs go into files of their own, in the order they are first met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core._kernels.crc32c import crc32c
from millstream.hadoop_loader.compaction.outputs import CompactionError, Outputs
from millstream.hadoop_loader.writing.avro_file import MAGIC, SYNC_SIZE, header
from millstream.hadoop_loader.writing.checked_output import CheckedOutput

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableFile
    from millstream.hadoop_loader.compaction.planning import DirectoryPlan
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.filesystem.interface import InputFile, OutputFile

CHUNK_BYTES: Final = 4 << 20
"""Bytes read at a time; a block larger than that is read whole."""

_HEADER_BYTES: Final = 64 << 10
_VARINT_BYTES_MAX: Final = 10
_BLOCK_HEAD_BYTES_MAX: Final = 2 * _VARINT_BYTES_MAX


class AvroHeader(NamedTuple):
    """What a container file begins with; `size` in bytes."""

    schema: str
    codec: str
    sync: bytes
    size: int


class JoinedAvroFile:
    """A container file made of others' blocks; one thread at a time."""

    def __init__(self, create: Callable[[], OutputFile], begin: AvroHeader) -> None:
        self.output = CheckedOutput(create)
        self.rows = 0
        self.sync = begin.sync
        self.output.write(header(begin.schema, begin.codec, begin.sync))

    @property
    def size_bytes(self) -> int:
        """Of the file as it is."""
        return self.output.size_bytes

    def finish(self) -> None:
        """Do nothing: blocks are whole."""


def join_avro(
    filesystem: FileSystem,
    plan: DirectoryPlan,
    outputs: Outputs,
    *,
    block_bytes_max: int,
    check: Callable[[int], None],
) -> None:
    """Copy the blocks of all files to `outputs`; `check` is told of bytes read, and may raise.

    Raises CompactionError for files that are no container files, or not those the log has.
    """
    groups: dict[tuple[str, str], list[tuple[TableFile, AvroHeader]]] = {}
    for file in plan.files:
        with filesystem.open(file.path) as stored:
            begin = read_header(stored)
        groups.setdefault((begin.schema, begin.codec), []).append((file, begin))
    for members in groups.values():
        for file, begin in members:
            with filesystem.open(file.path) as stored:
                _copy(stored, file, begin, members[0][1], outputs, block_bytes_max, check)
        outputs.end()


def _copy(
    stored: InputFile,
    file: TableFile,
    begin: AvroHeader,
    first: AvroHeader,
    outputs: Outputs,
    block_bytes_max: int,
    check: Callable[[int], None],
) -> None:
    checksum = crc32c(stored.read_at(0, begin.size))
    rows = 0
    for chunk, blocks in _chunks(stored, begin, block_bytes_max):
        checksum = crc32c(chunk, checksum)
        writer = outputs.writer(lambda: JoinedAvroFile(outputs.create, first), (file,), len(chunk))
        count = sum(block.datums for block in blocks)
        if begin.sync == first.sync:
            writer.output.write(chunk)
        else:
            for block in blocks:
                writer.output.write(chunk[block.start : block.end])
                writer.output.write(first.sync)
        writer.rows += count
        rows += count
        check(len(chunk))
    if rows != file.rows or f"crc32c:{checksum:08x}" != file.checksum:
        raise CompactionError(
            f"{file.path} is not what the commit log says: {rows} rows with checksum crc32c:{checksum:08x}, and it"
            f" has {file.rows} with {file.checksum}; `millstream load verify` tells what else is damaged"
        )


class _Block(NamedTuple):
    datums: int
    start: int  # in its chunk
    end: int  # of its bytes, where the marker begins


def _chunks(stored: InputFile, begin: AvroHeader, block_bytes_max: int) -> Iterator[tuple[memoryview, list[_Block]]]:
    """Yield the blocks of a file, some whole ones at a time."""
    position, wanted = begin.size, CHUNK_BYTES
    while position < stored.size:
        data = memoryview(stored.read_at(position, min(wanted, stored.size - position)))
        blocks: list[_Block] = []
        at = 0
        wanted = CHUNK_BYTES
        while at < len(data):
            head = _block_head(data, at)
            if head is None:
                if len(data) - at >= _BLOCK_HEAD_BYTES_MAX or position + len(data) >= stored.size:
                    raise _damaged(stored, position + at, "no count and size of a block stand there")
                break
            count, start, size = head
            end = start + size
            if count < 0 or size < 0 or size > block_bytes_max:
                raise _damaged(stored, position + at, f"a block says it has {count} datums in {size} bytes")
            if end + SYNC_SIZE > len(data):
                if position + end + SYNC_SIZE > stored.size:
                    raise _damaged(stored, position + at, "the file ends within a block")
                wanted = max(CHUNK_BYTES, end + SYNC_SIZE - at)
                break
            if data[end : end + SYNC_SIZE] != begin.sync:
                raise _damaged(stored, position + end, "a block does not end with the file's marker")
            blocks.append(_Block(count, at, end))
            at = end + SYNC_SIZE
        if blocks:
            yield data[:at], blocks
        position += at


def read_header(stored: InputFile) -> AvroHeader:
    """Return what a container file begins with. Raises CompactionError for what is none."""
    size = _HEADER_BYTES
    while True:
        data = stored.read_at(0, min(size, stored.size))
        if data[: len(MAGIC)] != MAGIC:
            raise _damaged(stored, 0, "it does not begin as an Avro file")
        try:
            return _parsed_header(data)
        except IndexError:
            if size >= stored.size:
                raise _damaged(stored, 0, "it ends within its header") from None
            size *= 8


def _parsed_header(data: bytes) -> AvroHeader:
    """Raises IndexError where the header goes on behind `data`."""
    entries: dict[bytes, bytes] = {}
    at = len(MAGIC)
    while True:
        count, at = _varint(data, at)
        if count == 0:
            break
        if count < 0:
            _, at = _varint(data, at)
        for _ in range(abs(count)):
            key, at = _sized(data, at)
            entries[key], at = _sized(data, at)
    if at + SYNC_SIZE > len(data):
        raise IndexError(at)
    return AvroHeader(
        entries[b"avro.schema"].decode(),
        entries.get(b"avro.codec", b"null").decode(),
        data[at : at + SYNC_SIZE],
        at + SYNC_SIZE,
    )


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _varint(data, at)
    if size < 0 or at + size > len(data):
        raise IndexError(at)
    return data[at : at + size], at + size


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return a zigzag number and where it ends. Raises IndexError behind the end."""
    raw = shift = 0
    while True:
        byte = data[at]
        at += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return raw >> 1 ^ -(raw & 1), at
        shift += 7


def _block_head(data: memoryview, at: int) -> tuple[int, int, int] | None:
    """Return the count of a block's datums, where its bytes begin, and how many they are."""
    try:
        count, at = _varint(data, at)
        size, at = _varint(data, at)
    except IndexError:
        return None
    return count, at, size


def _damaged(stored: InputFile, position: int, sentence: str) -> CompactionError:
    return CompactionError(
        f"{stored.path}, byte {position}: {sentence}; the file is damaged, `millstream load verify` tells what else is"
    )
