"""An Avro container file, made of datums that are there already.

    header   "Obj" 1, a map with avro.schema and avro.codec, the sync marker (16 bytes)
    blocks   the count of datums and the size of what follows (both varints), the datums compressed, the sync marker

Datums are copied into the block that is open, and a block that is full is compressed and written. So no more than one
block is held. A datum larger than a block gets one of its own.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa

from millstream.hadoop_loader._kernels.datums import gather_datums
from millstream.hadoop_loader.writing.checked_output import CheckedOutput
from millstream.hadoop_loader.writing.codecs import block_codec

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem import OutputFile
    from millstream.hadoop_loader.job import AvroSettings

MAGIC: Final = b"Obj\x01"
SYNC_SIZE: Final = 16
NOTHING: Final = array("q")
_BLOCK_BYTES_FIRST: Final = 16 * 1024
_RATIO_FIRST: Final = 0.5


class Datums(NamedTuple):
    """Datums in a buffer: those at `positions` (int64s), `skip` bytes into each value; `_kernels.datums` says how.

    `tails` and `tail_ends` are the bytes of trailing fields, one for each value, not for each datum chosen.
    """

    data: Any
    positions: Any
    sizes: Any = NOTHING
    skip: int = 0
    tails: Any = b""
    tail_ends: Any = NOTHING


class AvroFile:
    """One file being written; one thread at a time."""

    def __init__(
        self, create: Callable[[], OutputFile], schema: str, settings: AvroSettings, *, sync: bytes | None = None
    ) -> None:
        """`schema` is JSON. The sync marker is random, as it must not occur in the data."""
        self.output = CheckedOutput(create)
        self.rows = 0
        self.sync = sync or os.urandom(SYNC_SIZE)
        self._schema = schema
        self._codec = settings.codec
        self._compress = block_codec(settings.codec, settings.level)
        # Grows to its full size as it is filled: of many open files most hold little.
        self._block_bytes = settings.block_bytes
        self._block = bytearray(min(settings.block_bytes, _BLOCK_BYTES_FIRST))
        self._used = 0
        self._count = 0
        # The end of the last block, which is written with the beginning of the next one.
        self._pending_sync = b""
        # How much smaller blocks have become, lately.
        self._ratio = 1.0 if settings.codec == "null" else _RATIO_FIRST

    @property
    def buffered_bytes(self) -> int:
        """Memory held."""
        return len(self._block)

    @property
    def size_bytes(self) -> int:
        """Of the file if it were closed now, about."""
        return self.output.size_bytes + int(self._used * self._ratio)

    def append(self, datums: Datums, start: int, stop: int, rows: Any = NOTHING) -> None:
        """Add datums start to stop of those that `rows` chooses (int64s; empty: of all)."""
        at = start
        while at < stop:
            done, self._used = gather_datums(
                datums.data,
                datums.positions,
                datums.sizes,
                rows,
                at,
                stop,
                datums.skip,
                datums.tails,
                datums.tail_ends,
                self._block,
                self._used,
            )
            self._count += done - at
            at = done
            if at == stop:
                break
            if len(self._block) < self._block_bytes or not self._used:
                self._grow()
            else:
                self._end_block()
        self.rows += stop - start

    def finish(self) -> None:
        """Write the last block."""
        self._end_block()
        self._begin()
        self.output.write(self._pending_sync)
        self._block = bytearray()

    def abandon(self, *, delete: bool = True) -> bool:
        """Give the file up, as CheckedOutput does."""
        return self.output.abandon(delete=delete)

    def _begin(self) -> None:
        if not self.output.is_made:
            self.output.write(header(self._schema, self._codec, self.sync))

    def _grow(self) -> None:
        """Make the block larger: to its full size, or for a datum that is larger than any block, to twice its size."""
        size = len(self._block)
        larger = bytearray(min(4 * size, self._block_bytes) if size < self._block_bytes else 2 * size)
        larger[: self._used] = self._block[: self._used]
        self._block = larger

    def _end_block(self) -> None:
        if not self._count:
            return
        self._begin()
        with memoryview(self._block)[: self._used] as block:
            compressed = self._compress(block)
            size = compressed.size if isinstance(compressed, pa.Buffer) else len(compressed)
            self.output.write(self._pending_sync + varint(self._count) + varint(size))
            self.output.write(compressed)
        self._pending_sync = self.sync
        self._ratio = size / self._used if self._used else self._ratio
        self._used = self._count = 0


def header(schema: str, codec: str, sync: bytes) -> bytes:
    """Return the header of a container file."""
    assert len(sync) == SYNC_SIZE, len(sync)
    entries = {b"avro.schema": schema.encode(), b"avro.codec": codec.encode()}
    out = bytearray(MAGIC) + varint(len(entries))
    for key, value in entries.items():
        out += varint(len(key)) + key + varint(len(value)) + value
    return bytes(out + varint(0) + sync)


def varint(number: int) -> bytes:
    """Return a number that is not negative as Avro writes longs."""
    raw, out = number << 1, bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)
