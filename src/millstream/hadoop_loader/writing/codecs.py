"""The codecs of Avro's blocks, as its specification has them.

    null        as it is
    deflate     RFC 1951, without zlib's header and checksum
    snappy      raw snappy, and behind it the CRC-32 of what was compressed, big-endian
    zstandard   one frame, RFC 8878         bzip2, xz   as the tools of those names write

A codec belongs to one thread at a time.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa

Compress = Callable[[memoryview], Any]

_DEFLATE_LEVEL: Final = 6
_XZ_LEVEL_MAX: Final = 9


def block_codec(name: str, level: int | None) -> Compress:
    """Return what compresses a block; the result is any buffer, valid as long as it is held."""
    return _MAKERS[name](level)


def _null(_level: int | None) -> Compress:
    return lambda block: block


def _deflate(level: int | None) -> Compress:
    chosen = _DEFLATE_LEVEL if level is None else min(level, 9)

    def compress(block: memoryview) -> Any:
        deflater = zlib.compressobj(chosen, zlib.DEFLATED, -15)
        return deflater.compress(block) + deflater.flush()

    return compress


def _snappy(_level: int | None) -> Compress:
    codec = pa.Codec("snappy")
    return lambda block: bytes(codec.compress(block, asbytes=True)) + zlib.crc32(block).to_bytes(4, "big")


def _zstandard(level: int | None) -> Compress:
    compress: Compress = pa.Codec("zstd", compression_level=level).compress
    return compress


def _bzip2(level: int | None) -> Compress:
    chosen = 9 if level is None else min(level, 9)
    return lambda block: bz2.compress(block, chosen)


def _xz(level: int | None) -> Compress:
    preset = None if level is None else min(level, _XZ_LEVEL_MAX)
    return lambda block: lzma.compress(block, preset=preset)


_MAKERS: Final[dict[str, Callable[[int | None], Compress]]] = {
    "null": _null,
    "deflate": _deflate,
    "snappy": _snappy,
    "zstandard": _zstandard,
    "bzip2": _bzip2,
    "xz": _xz,
}
