"""What `native.h` does, in Python: the kernels import these when they run interpreted.

Same names, same arguments, same results; buffers are anything that can be indexed and sliced into bytes.
"""

from __future__ import annotations

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


def add_int64(left: int, right: int) -> int:
    """Return the sum, wrapped around to 64 bits as Java's are."""
    total = (left + right) & 0xFFFFFFFFFFFFFFFF
    return total - (1 << 64) if total >> 63 else total
