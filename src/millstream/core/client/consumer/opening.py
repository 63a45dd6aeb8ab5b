"""Opening fetched batches: what is compressed becomes uncompressed batches, what nobody is to see is left out.

Runs of uncompressed batches stay where they are. Compressed ones are decompressed one behind the other into an arena,
each behind a copy of its header that names no codec any more; an arena begins with room for what such data usually
holds, and the next one with more. They come from a pool where one is given. Control batches, and those of aborted
transactions (KIP-98), are in no region.

Pure, and for a worker thread: it takes as long as decompressing does, mostly without the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer.errors import CorruptBatchError
from millstream.core.net import BufferPool
from millstream.core.records import (
    DECOMPRESSED_BYTES_MAX,
    HEADER_SIZE,
    BatchHeader,
    Compression,
    CorruptRecordError,
    DecompressedTooLargeError,
    RecordColumns,
    decompress_into,
    read_header,
)
from millstream.core.records.header import CODEC_MASK, CONTROL_BIT, LENGTH_END

_ABORT_MARKER: Final = 0
# An arena's first room, as a multiple of the compressed bytes. Pages that are not written to cost nothing.
_USUAL_RATIO: Final = 8
_ARENA_BYTES_MIN: Final = 64 * 1024


class Region(NamedTuple):
    """Whole uncompressed batches, back to back, in buffer[start:end]."""

    buffer: memoryview
    start: int
    end: int


class Opened(NamedTuple):
    """How far opening came: the position and offset reached, and the transactions aborted from there on."""

    regions: list[Region]
    position: int
    next_offset: int
    aborted: list[tuple[int, int]]
    opened_bytes: int
    record_count: int


class _Arena:
    """Takes opened batches one behind the other; `regions` gets what was put in when it is full or flushed."""

    def __init__(self, regions: list[Region], pool: BufferPool | None) -> None:
        self._regions = regions
        self._pool = pool
        self._room = memoryview(b"")
        self._end = 0
        self.opened_bytes = 0

    @property
    def is_empty(self) -> bool:
        return self._end == 0

    def add(self, header: BatchHeader, payload: memoryview, room_bytes: int) -> None:
        """Decompress a batch. Raises CorruptRecordError."""
        codec = _codec(header)
        while True:
            start = self._end + HEADER_SIZE
            size = None
            if start < len(self._room):
                size = decompress_into(codec, payload, self._room[start:])
            if size is not None:
                break
            self._make_room(room_bytes, codec)
        opened = header._replace(
            batch_length=HEADER_SIZE - LENGTH_END + size, attributes=header.attributes & ~CODEC_MASK
        )
        self._room[self._end : start] = opened.pack()
        self._end = start + size
        self.opened_bytes += HEADER_SIZE + size

    def flush(self) -> None:
        """Make a region of what is there, and begin a new arena."""
        if self._end:
            self._regions.append(Region(self._room[: self._end], 0, self._end))
        self._room, self._end = memoryview(b""), 0

    def _make_room(self, room_bytes: int, codec: Compression) -> None:
        if self._end:
            size = max(len(self._room), room_bytes)
        elif len(self._room) > DECOMPRESSED_BYTES_MAX:
            raise DecompressedTooLargeError(f"{codec.name.lower()} data holds more than {DECOMPRESSED_BYTES_MAX} bytes")
        else:
            size = max(4 * len(self._room), room_bytes)
        self.flush()
        size = min(size, DECOMPRESSED_BYTES_MAX + HEADER_SIZE)
        self._room = memoryview(self._pool.take(size) if self._pool is not None else bytearray(size))[:size]


def open_batches(
    tp: TopicPartition,
    data: memoryview,
    offset: int,
    aborted: Sequence[tuple[int, int]],
    size_bytes_max: int | None,
    pool: BufferPool | None = None,
) -> Opened:
    """Open the whole batches of `data` until what was made of them takes so many bytes, one batch at least.

    `aborted` is (first offset, producer id) of each aborted transaction, ascending. Raises CorruptBatchError where the
    first batch with records cannot be opened; one further on is where it stops.
    """
    regions: list[Region] = []
    arena = _Arena(regions, pool)
    pending = list(aborted)
    aborting: dict[int, int] = {}
    position, next_offset, record_count, run_start = 0, offset, 0, 0
    bound = len(data) * _USUAL_RATIO if size_bytes_max is None else size_bytes_max
    while position < len(data):
        header = read_header(data, position)
        end = position + header.size_bytes
        while pending and pending[0][0] <= header.last_offset:
            first, producer_id = pending.pop(0)
            aborting[producer_id] = first
        is_control = bool(header.attributes & CONTROL_BIT)
        is_compressed = bool(header.attributes & CODEC_MASK) and not is_control
        is_left_out = is_control or (header.is_transactional and header.producer_id in aborting)
        if is_compressed or is_left_out:
            if run_start < position:
                regions.append(Region(data, run_start, position))
            run_start = end
        else:
            arena.flush()
        if is_control and _marker_type(data[position:end]) == _ABORT_MARKER:
            aborting.pop(header.producer_id, None)
        if is_compressed and not is_left_out:
            # Room for what is left, as far as the bound lets it be opened now.
            room_bytes = max(min((len(data) - position) * _USUAL_RATIO, bound + bound // 4), _ARENA_BYTES_MIN)
            try:
                arena.add(header, data[position + HEADER_SIZE : end], room_bytes)
            except CorruptRecordError as error:
                if not regions and arena.is_empty:
                    raise CorruptBatchError(
                        tp,
                        max(header.base_offset, offset),
                        header.last_offset + 1,
                        f"its {_codec_name(header)} batch cannot be opened: {error}",
                    ) from error
                run_start = position
                break
        if not is_control:
            # A count below 0 is damage, found when the batch is located; it takes nothing from the others' counts.
            record_count += max(header.count, 0)
        position, next_offset = end, header.last_offset + 1
        if size_bytes_max is not None and arena.opened_bytes >= size_bytes_max:
            break
    if run_start < position:
        regions.append(Region(data, run_start, position))
    arena.flush()
    still = sorted((first, producer_id) for producer_id, first in aborting.items())
    return Opened(regions, position, next_offset, [*still, *pending], arena.opened_bytes, record_count)


def _codec(header: BatchHeader) -> Compression:
    try:
        return header.compression
    except ValueError as error:
        raise CorruptRecordError(f"no codec has the number {header.attributes & CODEC_MASK}") from error


def _codec_name(header: BatchHeader) -> str:
    number = header.attributes & CODEC_MASK
    return Compression(number).name.lower() if number in set(Compression) else f"codec {number}"


def _marker_type(batch: memoryview) -> int:
    """Return a control batch's kind: the int16 behind the version in its one record's key; -1 for what is none."""
    columns = RecordColumns(1)
    opened = bytearray(batch)
    opened[22] &= 0xFF ^ CONTROL_BIT
    columns.locate(opened, check_crc=False)
    if columns.count != 1 or columns.key_sizes[0] < 4:
        return -1
    at = columns.key_positions[0]
    return int.from_bytes(opened[at + 2 : at + 4], "big")
