"""What `native.h` does, in Python: the kernels import these when they run interpreted.

Same names, same arguments, same results; buffers are anything that can be indexed and sliced into bytes.
"""

from __future__ import annotations

import sys
import time
from typing import Any

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reflected


def _make_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _make_table()


def crc_of(data: Any, start: int, end: int, crc: int) -> int:
    """Return the checksum of data[start:end], carried on from `crc` (0 to begin)."""
    table = _TABLE
    crc ^= 0xFFFFFFFF
    for byte in bytes(data[start:end]):
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


crc_by_table_of = crc_of


def crc_in_hardware() -> int:
    """Return 0: no instruction is used here."""
    return 0


def find_bad_crc(data: Any, start: int, end: int) -> int:
    """Return where the first of the whole batches in data[start:end] lies whose checksum is wrong, or `end`."""
    while start < end:
        following = start + 12 + load_int32(data, start + 8)
        if load_uint32(data, start + 17) != crc_of(data, start + 21, following, 0):
            return start
        start = following
    return end


def load_int64(data: Any, position: int) -> int:
    """Return the big-endian int64 at `position`."""
    return int.from_bytes(bytes(data[position : position + 8]), "big", signed=True)


def load_uint32(data: Any, position: int) -> int:
    """Return the big-endian uint32 at `position`."""
    return int.from_bytes(bytes(data[position : position + 4]), "big")


def load_int32(data: Any, position: int) -> int:
    """Return the big-endian int32 at `position`."""
    return int.from_bytes(bytes(data[position : position + 4]), "big", signed=True)


def load_int16(data: Any, position: int) -> int:
    """Return the big-endian int16 at `position`."""
    return int.from_bytes(bytes(data[position : position + 2]), "big", signed=True)


def store_int32(data: Any, position: int, number: int) -> None:
    """Write the low 32 bits of `number` big-endian at `position`."""
    data[position : position + 4] = (number & 0xFFFFFFFF).to_bytes(4, "big")


def store_int64(data: Any, position: int, number: int) -> None:
    """Write the low 64 bits of `number` big-endian at `position`."""
    data[position : position + 8] = (number & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")


def store_native_int32(data: Any, position: int, number: int) -> None:
    """Write the low 32 bits of `number` at `position` in the machine's own order of bytes."""
    data[position : position + 4] = (number & 0xFFFFFFFF).to_bytes(4, sys.byteorder)


def read_varint(data: Any, cursor: list[int], end: int) -> int:
    """Return the zigzag varint at cursor[0] and move the cursor behind it, or to end + 1 where it doesn't end there."""
    position, raw = cursor[0], 0
    cursor[0] = end + 1
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            cursor[0] = position
            raw &= 0xFFFFFFFFFFFFFFFF
            return (raw >> 1) ^ -(raw & 1)
    return 0


def skip_sized(data: Any, cursor: list[int], end: int, size_min: int) -> int:
    """Pass over a varint and that many bytes behind it; return the size.

    Below size_min, or where the bytes go beyond `end`, the cursor moves to end + 1.
    """
    size = read_varint(data, cursor, end)
    if size < 0:
        if size < size_min:
            cursor[0] = end + 1
    elif size > end - cursor[0]:
        cursor[0] = end + 1
    else:
        cursor[0] += size
    return size


def read_plain_record(*_: Any) -> bool:
    """Return False: in Python the careful way is as quick for the usual record as for any other."""
    return False


def add_int64(left: int, right: int) -> int:
    """Return the sum, wrapped around to 64 bits as Java's are."""
    total = (left + right) & 0xFFFFFFFFFFFFFFFF
    return total - (1 << 64) if total >> 63 else total


def hash_key(data: Any, position: int, size: int, secret0: int, secret1: int, hashed: list[int]) -> None:
    """Put the 128 bits of SipHash-1-3 over `size` bytes into `hashed`, as two signed numbers."""
    hashed[:] = sip_hash(bytes(data[position : position + size]), secret0, secret1, rounds=(1, 3))


def prefetch_words(words: Any, at: int) -> None:
    """Do nothing: only the compiled one can have a line of memory fetched ahead."""


def sip_hash(data: bytes, secret0: int, secret1: int, *, rounds: tuple[int, int]) -> tuple[int, int]:
    """Return the 128 bits of SipHash with so many rounds a word and at the end, as two signed numbers."""
    mask = 0xFFFFFFFFFFFFFFFF
    state = [
        secret0 & mask ^ 0x736F6D6570736575,
        secret1 & mask ^ 0x646F72616E646F6D ^ 0xEE,
        secret0 & mask ^ 0x6C7967656E657261,
        secret1 & mask ^ 0x7465646279746573,
    ]
    whole = len(data) & ~7
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        state[3] ^= word
        _sip_rounds(state, rounds[0])
        state[0] ^= word
    hashed = []
    for index, tweak in ((2, 0xEE), (1, 0xDD)):
        state[index] ^= tweak
        _sip_rounds(state, rounds[1])
        half = state[0] ^ state[1] ^ state[2] ^ state[3]
        hashed.append(half - (1 << 64) if half >> 63 else half)
    return hashed[0], hashed[1]


def _sip_rounds(state: list[int], count: int) -> None:
    mask = 0xFFFFFFFFFFFFFFFF

    def rotated(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & mask

    v0, v1, v2, v3 = state
    for _ in range(count):
        v0 = (v0 + v1) & mask
        v1 = rotated(v1, 13) ^ v0
        v0 = rotated(v0, 32)
        v2 = (v2 + v3) & mask
        v3 = rotated(v3, 16) ^ v2
        v0 = (v0 + v3) & mask
        v3 = rotated(v3, 21) ^ v0
        v2 = (v2 + v1) & mask
        v1 = rotated(v1, 17) ^ v2
        v2 = rotated(v2, 32)
    state[:] = v0, v1, v2, v3


def copy_bytes(target: Any, position: int, source: Any, start: int, end: int) -> None:
    """Copy source[start:end] to target[position:]; the regions may overlap."""
    target[position : position + end - start] = bytes(source[start:end])


def store_varint(data: Any, position: int, number: int) -> int:
    """Write `number` as a zigzag varint at `position`; return where it ends."""
    raw = (number << 1 ^ number >> 63) & 0xFFFFFFFFFFFFFFFF
    while raw > 0x7F:
        data[position] = raw & 0x7F | 0x80
        position += 1
        raw >>= 7
    data[position] = raw
    return position + 1


def varint_size(number: int) -> int:
    """Return how many bytes `number` takes as a zigzag varint."""
    raw = (number << 1 ^ number >> 63) & 0xFFFFFFFFFFFFFFFF
    return max(1, -(-raw.bit_length() // 7))


def murmur2_of(data: Any, size: int) -> int:
    """Return the 32-bit MurmurHash2 (A. Appleby) with Kafka's seed, unsigned."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    whole = size & ~3
    value = 0x9747B28C ^ size
    for position in range(0, whole, 4):
        word = int.from_bytes(bytes(data[position : position + 4]), "little") * multiplier & mask
        value = value * multiplier & mask ^ (word ^ word >> 24) * multiplier & mask
    if whole < size:
        value = (value ^ int.from_bytes(bytes(data[whole:size]), "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15


def now_ms() -> int:
    """Return the milliseconds since 1970 by the system's clock."""
    return time.time_ns() // 1_000_000


def resize(buffer: bytearray, size: int) -> None:
    """Make `buffer` so many bytes long."""
    if size < len(buffer):
        del buffer[size:]
    else:
        buffer.extend(bytes(size - len(buffer)))
