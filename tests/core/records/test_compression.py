"""Each codec there and back, against other implementations, cut, damaged, and as a bomb."""

from __future__ import annotations

import contextlib
import gzip
import random
import struct
import subprocess
import sys

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.core.records import (
    Compression,
    CorruptRecordError,
    DecompressedTooLargeError,
    compress,
    decompress,
)

CODECS = [codec for codec in Compression if codec is not Compression.NONE]
each_codec = pytest.mark.parametrize("codec", CODECS)
TEXT = b"a line of a log, much like the others\n" * 5000


@given(data=st.binary(max_size=2000) | st.integers(0, 200_000).map(bytes), codec=st.sampled_from(Compression))
def test_there_and_back(data: bytes, codec: Compression) -> None:
    assert decompress(codec, compress(codec, data), size_bytes_max=len(data)) == data


@each_codec
@pytest.mark.parametrize("level", [1, 3, 9, None])
def test_levels(codec: Compression, level: int | None) -> None:
    assert decompress(codec, compress(codec, memoryview(TEXT), level), size_bytes_max=10**6) == TEXT


@each_codec
@pytest.mark.parametrize("size", [1, 1000, 65_535, 65_536, 65_537, 1_000_000])
def test_the_bound_is_exact(codec: Compression, size: int) -> None:
    packed = compress(codec, bytes(size))

    assert decompress(codec, packed, size_bytes_max=size) == bytes(size)
    with pytest.raises(DecompressedTooLargeError, match=f"more than {size - 1} bytes"):
        decompress(codec, packed, size_bytes_max=size - 1)


def test_without_a_codec_the_bound_holds_too() -> None:
    assert bytes(decompress(Compression.NONE, b"abc", size_bytes_max=3)) == b"abc"
    with pytest.raises(DecompressedTooLargeError):
        decompress(Compression.NONE, b"abc", size_bytes_max=2)


@each_codec
def test_streams_that_follow_each_other(codec: Compression) -> None:
    assert decompress(codec, compress(codec, TEXT) + compress(codec, b"tail"), size_bytes_max=10**6) == TEXT + b"tail"
    with pytest.raises(DecompressedTooLargeError):
        decompress(codec, compress(codec, TEXT) + compress(codec, b"tail"), size_bytes_max=len(TEXT) + 3)


@each_codec
def test_a_stream_cut_anywhere_is_corrupt(codec: Compression) -> None:
    packed = compress(codec, TEXT[:20_000])
    # A cut between two chunks leaves a shorter valid stream: xerial has no end mark, and no client sends a part.
    ends = {16} if codec is Compression.SNAPPY else set()
    for cut in range(len(packed)):
        if cut not in ends:
            with pytest.raises(CorruptRecordError):
                decompress(codec, packed[:cut], size_bytes_max=10**6)


@given(data=st.binary(max_size=300), codec=st.sampled_from(CODECS), where=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_damage_raises_or_gives_bytes_within_the_bound(data: bytes, codec: Compression, where: int, bit: int) -> None:
    packed = bytearray(compress(codec, data))
    packed[where % len(packed)] ^= 1 << bit
    with contextlib.suppress(CorruptRecordError):
        assert len(decompress(codec, packed, size_bytes_max=1000)) <= 1000


@given(data=st.binary(max_size=100), codec=st.sampled_from(CODECS))
def test_random_bytes(data: bytes, codec: Compression) -> None:
    with contextlib.suppress(CorruptRecordError):
        assert len(decompress(codec, data, size_bytes_max=1000)) <= 1000


def test_other_writers() -> None:
    assert decompress(Compression.GZIP, gzip.compress(TEXT) + b"\0\0\0", size_bytes_max=10**6) == TEXT
    raw = bytes(cramjam.snappy.compress_raw(TEXT))
    assert decompress(Compression.SNAPPY, raw, size_bytes_max=10**6) == TEXT
    with pytest.raises(DecompressedTooLargeError):
        decompress(Compression.SNAPPY, raw, size_bytes_max=len(TEXT) - 1)
    linked = bytes(cramjam.lz4.compress(TEXT))
    assert decompress(Compression.LZ4, linked, size_bytes_max=10**6) == TEXT


def test_lz4_blocks_are_independent_as_java_demands() -> None:
    flags = compress(Compression.LZ4, TEXT)[4]
    assert flags >> 6 == 1
    assert flags & 0x20


@pytest.mark.parametrize(("flags", "block_bytes"), [("40", 1 << 16), ("50", 1 << 18), ("60", 1 << 20), ("70", 1 << 22)])
def test_lz4_frames_with_blocks_of_each_size(flags: str, block_bytes: int) -> None:
    """Made here block by block, one of them stored; a decoder of streams reads the same."""
    check = {"40": "82", "50": "fb", "60": "51", "70": "73"}[flags]
    data = (TEXT * (block_bytes // len(TEXT) + 2))[: block_bytes + 1000]
    frame = bytes.fromhex(f"04224d1860{flags}{check}")
    for block in (data[:1000], data[1000:]):
        packed = bytes(cramjam.lz4.compress_block(block, store_size=False))
        frame += struct.pack("<I", len(packed)) + packed
    frame += struct.pack("<I", 0x80000005) + b"plain" + bytes(4)

    assert bytes(cramjam.lz4.decompress(frame)) == data + b"plain"
    assert decompress(Compression.LZ4, frame, size_bytes_max=len(data) + 5) == data + b"plain"
    with pytest.raises(DecompressedTooLargeError):
        decompress(Compression.LZ4, frame, size_bytes_max=len(data) + 4)
    # A header, a block's size, a block's bytes, the end: what is wrong is wrong for both.
    for damaged in (frame[:6] + b"\0" + frame[7:], frame[:7] + b"\xff" + frame[8:], frame[:-1] + b"\1", frame[:-4]):
        with pytest.raises(CorruptRecordError):
            decompress(Compression.LZ4, damaged, size_bytes_max=2 * len(data))


def test_lz4_frames_are_those_of_other_clients() -> None:
    """Their flags are Java's: a decoder of streams reads them, and bytes that do not shrink are stored."""
    for data in (b"", b"a", TEXT, random.Random(1).randbytes(70_000)):
        frame = compress(Compression.LZ4, data)
        assert frame[:7].hex() == "04224d18604082"
        assert len(frame) <= len(data) + 7 + 4 * (len(data) // 65_536 + 2)
        assert bytes(cramjam.lz4.decompress(frame)) == data


def test_snappy_chunks_that_lie() -> None:
    head = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    for size in (-1, 0, 5, 2**31 - 1):
        with pytest.raises(CorruptRecordError, match="a chunk of"):
            decompress(Compression.SNAPPY, head + struct.pack(">i", size) + b"abcd", size_bytes_max=1000)
    # Raw snappy begins with its own size: one that claims 4 GB must not get them.
    with pytest.raises(DecompressedTooLargeError):
        decompress(Compression.SNAPPY, b"\xff\xff\xff\xff\x0f" + bytes(100), size_bytes_max=10**6)


BOMB = """
import sys
from millstream.core.metrics.process import peak_memory_bytes
from millstream.core.records import Compression, DecompressedTooLargeError, compress, decompress
codec, bound = Compression[sys.argv[1]], int(sys.argv[2])
packed = sys.stdin.buffer.read()
decompress(codec, compress(codec, b"warm" * 100_000), size_bytes_max=400_000)
before = peak_memory_bytes()
try:
    decompress(codec, packed, size_bytes_max=bound)
except DecompressedTooLargeError:
    print(peak_memory_bytes() - before)
"""


@each_codec
def test_a_bomb_costs_its_bound(codec: Compression) -> None:
    """400 MB of zeros, opened with a bound of 8 MB in a process of its own: its peak grows by little more than that."""
    bound = 8 * 1024 * 1024
    packed = compress(codec, bytes(400_000_000))

    run = subprocess.run(
        [sys.executable, "-c", BOMB, codec.name, str(bound)], input=packed, capture_output=True, check=True, timeout=60
    )

    # zstd's own window is at most 8 MB at the levels that clients use.
    assert int(run.stdout) < 2 * bound + 4 * 1024 * 1024
