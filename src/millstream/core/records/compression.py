"""The codecs of record batches, with a bound on what comes out.

    gzip     RFC 1952; members may follow each other, and what follows them is ignored, as Java's GZIPInputStream does
    snappy   xerial's framing: a header of 16 bytes (magic, version, compatible version), then chunks of int32 size and
             raw snappy; whole streams may follow each other. Some clients send raw snappy, known by the missing magic
    lz4      LZ4 frames, with independent blocks (Java's clients read no others)
    zstd     RFC 8878 frames

A batch of some hundred bytes can claim to hold gigabytes. Output goes straight into a mapping as large as the bound
whose pages cost nothing until they are written, so a bomb costs its bound at most, and then raises. Codecs run with the
GIL released.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Any, Final

import cramjam

from millstream.core.records.errors import CorruptRecordError, DecompressedTooLargeError
from millstream.core.records.header import Buffer, Compression

# Kafka's defaults for compression.gzip.level, compression.lz4.level and compression.zstd.level. Its lz4 takes the fast
# compressor at 9, which is level 1 of the C library, and the slow ones at any other level.
GZIP_LEVEL_DEFAULT: Final = -1
LZ4_LEVEL_DEFAULT: Final = 9
ZSTD_LEVEL_DEFAULT: Final = 3

_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = struct.Struct(">8sii")
_XERIAL_CHUNK: Final = struct.Struct(">i")
_XERIAL_BLOCK_BYTES: Final = 32 * 1024

# Headers of LZ4 frames as Kafka's clients write them, and the most that a block of each holds: independent blocks, no
# checksums (the batch has one), no sizes. The last byte is a checksum of the two before it.
_LZ4_PLAIN: Final = {
    bytes.fromhex("04224d18604082"): 64 * 1024,
    bytes.fromhex("04224d186050fb"): 256 * 1024,
    bytes.fromhex("04224d18606051"): 1024 * 1024,
    bytes.fromhex("04224d18607073"): 4 * 1024 * 1024,
}
_LZ4_PLAIN_HEADER, *_ = _LZ4_PLAIN
_LZ4_HEADER_SIZE: Final = len(_LZ4_PLAIN_HEADER)
_LZ4_SIZE: Final = struct.Struct("<I")
_LZ4_STORED: Final = 1 << 31  # a block that is as it was
_LZ4_END: Final = bytes(4)

# What is tried before a mapping: most batches fit, and need no system call.
_SMALL_OUTPUT_BYTES: Final = 64 * 1024
_STEP_BYTES: Final = 64 * 1024

# How cramjam says that the output has no room left.
_NO_ROOM: Final = "failed to write whole buffer"


def compress(codec: Compression, data: Buffer, level: int | None = None) -> bytes:
    """Return `data` compressed as Kafka's clients expect it; `level` is the codec's own, None its default in Kafka."""
    if codec is Compression.NONE:
        return bytes(data)
    if codec is Compression.GZIP:
        # wbits 31: a gzip header around it.
        compressor = zlib.compressobj(GZIP_LEVEL_DEFAULT if level is None else level, zlib.DEFLATED, 31)
        return compressor.compress(data) + compressor.flush()
    if codec is Compression.SNAPPY:
        return _compress_xerial(data)
    if codec is Compression.LZ4:
        if level is None or level == LZ4_LEVEL_DEFAULT:
            return _compress_lz4(data)
        frame = cramjam.lz4.Compressor(level=level, content_checksum=False, block_linked=False)
        frame.compress(bytes(data))
        return bytes(frame.finish())
    return bytes(cramjam.zstd.compress(data, level=ZSTD_LEVEL_DEFAULT if level is None else level))


def decompress(codec: Compression, data: Buffer, *, size_bytes_max: int) -> memoryview:
    """Return what `data` holds, at most `size_bytes_max` bytes.

    Raises DecompressedTooLargeError where it would be more, CorruptRecordError where it can't be read.
    """
    if codec is Compression.NONE:
        if len(data) > size_bytes_max:
            raise _too_large(codec, size_bytes_max)
        return memoryview(data)
    small = bytearray(min(size_bytes_max, max(4 * len(data), 1024), _SMALL_OUTPUT_BYTES))
    size = decompress_into(codec, data, small)
    if size is None and len(small) < size_bytes_max:
        # One byte more, as an empty mapping is none; `room` keeps to the bound.
        room = memoryview(mmap.mmap(-1, size_bytes_max + 1))[:size_bytes_max]
        size = decompress_into(codec, data, room)
        if size is not None:
            return room[:size]
    if size is None:
        raise _too_large(codec, size_bytes_max)
    return memoryview(small)[:size]


def decompress_into(codec: Compression, data: Buffer, output: bytearray | memoryview) -> int | None:
    """Put what compressed `data` holds at the start of `output` and return its size, None where there is no room.

    What lies in `output` then is of no use. Raises CorruptRecordError where the data can't be read.
    """
    if not len(data):
        raise CorruptRecordError(f"no bytes are no {codec.name.lower()} stream")
    return _FILL[codec](data, output)


def _too_large(codec: Compression, size_bytes_max: int) -> DecompressedTooLargeError:
    return DecompressedTooLargeError(f"{codec.name.lower()} data holds more than {size_bytes_max} bytes")


# Each of these fills `output` from its start and returns how far, or None where there is no room.


def _gunzip(data: Buffer, output: bytearray | memoryview) -> int | None:
    room = memoryview(output)
    filled = 0
    rest: Any = data
    while True:
        member = zlib.decompressobj(31)
        while not member.eof:
            try:
                # One byte beyond the room tells a stream that just fits from one that goes on.
                piece = member.decompress(rest, min(_STEP_BYTES, len(room) - filled + 1))
            except zlib.error as error:
                raise CorruptRecordError(f"gzip: {error}") from error
            if filled + len(piece) > len(room):
                return None
            room[filled : filled + len(piece)] = piece
            filled += len(piece)
            rest = member.unconsumed_tail
            if not piece and not rest and not member.eof:
                raise CorruptRecordError("gzip: the stream is cut off")
        rest = member.unused_data
        if rest[:2] != b"\x1f\x8b":
            return filled


def _unsnap(data: Buffer, output: bytearray | memoryview) -> int | None:
    view, room = memoryview(data), memoryview(output)
    if bytes(view[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _unsnap_raw(view, room)
    filled, position = 0, 0
    while position < len(view):
        if bytes(view[position : position + len(_XERIAL_MAGIC)]) == _XERIAL_MAGIC:
            position += _XERIAL_HEADER.size
            if position > len(view):
                raise CorruptRecordError("snappy: the stream's header is cut off", position)
            continue
        if len(view) - position < _XERIAL_CHUNK.size:
            raise CorruptRecordError("snappy: a chunk's size is cut off", position)
        (size,) = _XERIAL_CHUNK.unpack_from(view, position)
        position += _XERIAL_CHUNK.size
        if not 0 < size <= len(view) - position:
            raise CorruptRecordError(f"snappy: a chunk of {size} bytes in {len(view) - position}", position)
        made = _unsnap_raw(view[position : position + size], room[filled:])
        if made is None:
            return None
        filled += made
        position += size
    return filled


def _unsnap_raw(data: memoryview, room: memoryview) -> int | None:
    try:
        if cramjam.snappy.decompress_raw_len(data) > len(room):
            return None
        # cramjam refuses an empty output, and an empty block is one byte.
        return cramjam.snappy.decompress_raw_into(data, room) if len(room) else 0
    except cramjam.DecompressionError as error:
        raise CorruptRecordError(str(error)) from error


def _unlz4(data: Buffer, output: bytearray | memoryview) -> int | None:
    filled = _unlz4_plain(memoryview(data), memoryview(output))
    return _fill(cramjam.lz4.decompress_into, "lz4", data, output) if filled is None else filled


def _unlz4_plain(view: memoryview, room: memoryview) -> int | None:
    """Decompress one plain frame block by block, each to its place; None where it is not one, is damaged, or too large.

    A stream's decoder copies every byte through buffers of its own, which takes a quarter of its time.
    """
    block_bytes_max = _LZ4_PLAIN.get(bytes(view[:_LZ4_HEADER_SIZE]))
    if block_bytes_max is None:
        return None
    filled, position, end = 0, _LZ4_HEADER_SIZE, len(view) - _LZ4_SIZE.size
    while position < end:
        (size,) = _LZ4_SIZE.unpack_from(view, position)
        position += _LZ4_SIZE.size
        is_stored, size = size & _LZ4_STORED, size & ~_LZ4_STORED
        if not 0 < size <= min(block_bytes_max, end - position):
            return None
        block = view[position : position + size]
        position += size
        if is_stored:
            if size > len(room) - filled:
                return None
            room[filled : filled + size] = block
            filled += size
            continue
        try:
            filled += cramjam.lz4.decompress_block_into(
                block, room[filled:], output_len=min(block_bytes_max, len(room) - filled)
            )
        except cramjam.DecompressionError:
            return None
    return filled if position == end and view[end:] == _LZ4_END else None


def _unzstd(data: Buffer, output: bytearray | memoryview) -> int | None:
    return _fill(cramjam.zstd.decompress_into, "zstd", data, output)


def _fill(decompress_into: Any, name: str, data: Buffer, output: bytearray | memoryview) -> int | None:
    try:
        return int(decompress_into(data, output))
    except cramjam.DecompressionError as error:
        if _NO_ROOM in str(error):
            return None
        raise CorruptRecordError(f"{name}: {error}") from error


def _compress_xerial(data: Buffer) -> bytes:
    view = memoryview(data)
    parts = [_XERIAL_HEADER.pack(_XERIAL_MAGIC, 1, 1)]
    for start in range(0, len(view), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(view[start : start + _XERIAL_BLOCK_BYTES]))
        parts += (_XERIAL_CHUNK.pack(len(block)), block)
    return b"".join(parts)


def _compress_lz4(data: Buffer) -> bytes:
    """Return a plain frame, as `_unlz4_plain` reads it, made by the fast compressor."""
    view = memoryview(data)
    parts: list[Any] = [_LZ4_PLAIN_HEADER]
    for start in range(0, len(view), _LZ4_PLAIN[_LZ4_PLAIN_HEADER]):
        block = view[start : start + _LZ4_PLAIN[_LZ4_PLAIN_HEADER]]
        packed = cramjam.lz4.compress_block(block, store_size=False)
        if len(packed) < len(block):
            parts += (_LZ4_SIZE.pack(len(packed)), packed)
        else:
            parts += (_LZ4_SIZE.pack(len(block) | _LZ4_STORED), block)
    parts.append(_LZ4_END)
    return b"".join(parts)


_FILL: Final = {
    Compression.GZIP: _gunzip,
    Compression.SNAPPY: _unsnap,
    Compression.LZ4: _unlz4,
    Compression.ZSTD: _unzstd,
}
