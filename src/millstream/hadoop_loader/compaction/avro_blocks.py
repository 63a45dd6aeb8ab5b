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
from millstream.hadoop_loader.writing.avro_file import SYNC_SIZE, header
from millstream.hadoop_loader.writing.checked_output import CheckedOutput
from millstream.hadoop_loader.writing.containers import AvroHeader, ContainerError, read_avro_header, varint_at

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableFile
    from millstream.hadoop_loader.compaction.planning import DirectoryPlan
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.filesystem.interface import InputFile, OutputFile

CHUNK_BYTES: Final = 4 << 20
"""Bytes read at a time; a block larger than that is read whole."""

_VARINT_BYTES_MAX: Final = 10
_BLOCK_HEAD_BYTES_MAX: Final = 2 * _VARINT_BYTES_MAX


class JoinedAvroFile:
    """A container file made of others' blocks; one thread at a time."""

    def __init__(self, create: Callable[[], OutputFile], begin: AvroHeader) -> None:
        self.output = CheckedOutput(create)
        self.rows = 0
        self.sync = begin.sync
        try:
            self.output.write(header(begin.schema, begin.codec, begin.sync))
        except BaseException:
            self.output.abandon()
            raise

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
            try:
                begin = read_avro_header(stored)
            except ContainerError as error:
                raise _damaged(stored, 0, str(error)) from error
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


def _block_head(data: memoryview, at: int) -> tuple[int, int, int] | None:
    """Return the count of a block's datums, where its bytes begin, and how many they are."""
    try:
        count, at = varint_at(data, at)
        size, at = varint_at(data, at)
    except IndexError:
        return None
    return count, at, size


def _damaged(stored: InputFile, position: int, sentence: str) -> CompactionError:
    return CompactionError(
        f"{stored.path}, byte {position}: {sentence}; the file is damaged, `millstream load verify` tells what else is"
    )
