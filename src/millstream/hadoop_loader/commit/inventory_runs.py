"""Sorted runs of files: what a checkpoint keeps of the inventory, readable by directory without reading all of it.

    block*      JSON lines in a zlib stream, about BLOCK_BYTES of lines each
    index       JSON in a zlib stream: [[first directory, position, stored bytes, bytes, crc32c], ...] by block
    trailer     index position (8), index bytes stored (8), crc32c of the index (4), magic (4); big-endian

Lines are in the order of directory and name. A line of directory and name alone says that the file was removed; it
hides the line an older run has. A name is given once and never again, so of one name there are two lines at most.
A million files are about 200 blocks: reading one table reads its blocks and the index.
"""

from __future__ import annotations

import heapq
import json
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from millstream.core.records import crc32c
from millstream.hadoop_loader.commit.errors import CorruptLogError
from millstream.hadoop_loader.commit.names import SEPARATOR
from millstream.hadoop_loader.filesystem import InputFile

BLOCK_BYTES: Final = 1024 * 1024
_MAGIC: Final = b"MSI1"
_TRAILER: Final = struct.Struct(">QQI4s")
_LEVEL: Final = 1

Line = list[Any]  # [directory, name, *columns], or [directory, name] for a removal
Key = tuple[str, str]


def key_of(line: Line) -> Key:
    """What lines are ordered by."""
    return line[0], line[1]


class InventoryRun(NamedTuple):
    """One run, as a checkpoint names it."""

    path: str
    lines: int
    length: int


class RunWriter:
    """Turns lines, given in order, into the bytes of a run, a block at a time."""

    def __init__(self) -> None:
        self.lines = 0
        self.length = 0
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._first = ""
        self._index: list[list[Any]] = []

    def add(self, line: Line) -> bytes:
        """Take a line; returns bytes to be written, usually none."""
        if not self._block:
            self._first = line[0]
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._block.append(text)
        self._block_bytes += len(text)
        self.lines += 1
        return self._end_block() if self._block_bytes >= BLOCK_BYTES else b""

    def finish(self) -> bytes:
        """The last block, index and trailer."""
        data = self._end_block() if self._block else b""
        index = zlib.compress(json.dumps(self._index, ensure_ascii=False).encode(), _LEVEL)
        trailer = _TRAILER.pack(self.length, len(index), crc32c(index), _MAGIC)
        self.length += len(index) + len(trailer)
        return data + index + trailer

    def _end_block(self) -> bytes:
        stored = zlib.compress(b"".join(self._block), _LEVEL)
        self._index.append([self._first, self.length, len(stored), self._block_bytes, crc32c(stored)])
        self.length += len(stored)
        self._block, self._block_bytes = [], 0
        return stored


def scan_run(open_file: Callable[[str], InputFile], run: InventoryRun, prefix: str) -> Iterator[Line]:
    """The lines of a run whose directory is `prefix` or below it ("" for all), in order."""
    with open_file(run.path) as file:
        if file.size != run.length:
            raise corrupt_run(run.path, f"{file.size} bytes instead of {run.length}")
        position, size, checksum, magic = _TRAILER.unpack(file.read_at(file.size - _TRAILER.size, _TRAILER.size))
        index_bytes = file.read_at(position, size) if magic == _MAGIC else b""
        if crc32c(index_bytes) != checksum:
            raise corrupt_run(run.path, "an index that does not fit its checksum")
        index = json.loads(zlib.decompress(index_bytes))
        # "/" is followed by "0": everything in or below the prefix lies between these two.
        end = prefix + "0"
        # The block before the first that begins behind the prefix may still hold some of it; so may its predecessors,
        # which begin with the same directory.
        firsts = [block[0] for block in index]
        start = max(0, bisect_right(firsts, prefix) - 1) if prefix else 0
        while start > 0 and firsts[start] == prefix:
            start -= 1
        for first, block_position, stored_size, size_bytes, block_checksum in index[start:]:
            if prefix and first >= end:
                return
            stored = file.read_at(block_position, stored_size)
            if crc32c(stored) != block_checksum:
                raise corrupt_run(run.path, f"a block at {block_position} that does not fit its checksum")
            for text in zlib.decompress(stored, bufsize=size_bytes).splitlines():
                line = json.loads(text)
                if not prefix or line[0] == prefix or line[0].startswith(prefix + "/"):
                    yield line


def merge_lines(newest_first: Iterable[Iterable[Line]], *, keep_removals: bool) -> Iterator[Line]:
    """Merge sorted lines; of equal keys the newest stays. Removals stay if an older run may hold what they hide."""

    def ranked(rank: int, lines: Iterable[Line]) -> Iterator[tuple[Key, int, Line]]:
        return ((key_of(line), rank, line) for line in lines)

    last: Key | None = None
    merged = heapq.merge(*(ranked(rank, lines) for rank, lines in enumerate(newest_first)), key=lambda item: item[:2])
    for key, _, line in merged:
        if key == last:
            continue
        last = key
        if keep_removals or len(line) > 2:
            yield line


def runs_to_merge(lengths: list[int]) -> int:
    """How many of the newest runs (given oldest first) are to become one, so that few runs are left and each line is
    rewritten few times: the newest is merged while the one before it is less than twice as long.
    """
    count, total = 1, lengths[-1] if lengths else 0
    while count < len(lengths) and lengths[-1 - count] < 2 * total:
        total += lengths[-1 - count]
        count += 1
    return count


def corrupt_run(path: str, what: str) -> CorruptLogError:
    """The error for a run that is not as it was written."""
    # Checkpoints share runs; those that may name this one have its number or a later one.
    first = path.rpartition("/")[2].partition(SEPARATOR)[0]
    return CorruptLogError(
        f"{path}: {what}; restore the file from a snapshot or a backup, or delete the checkpoints from {first} on if"
        " there is an older one, or the log's first entry: from there the log is then read anew"
    )
