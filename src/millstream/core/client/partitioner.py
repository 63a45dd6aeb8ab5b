"""Which partition a record goes to: by its key as Kafka's own clients choose it, else one partition per batch."""

from __future__ import annotations

import functools
from typing import Final

_MASK: Final = 0xFFFFFFFF
_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_KEYS_REMEMBERED: Final = 65_536


@functools.lru_cache(_KEYS_REMEMBERED)
def partition_of_key(key: bytes, partition_count: int) -> int:
    """Return the partition of a key: its 32-bit MurmurHash2 without the sign, modulo the count.

    The same as Java's, so that writers of both kinds put a key into one partition.
    """
    return (murmur2(key) & 0x7FFFFFFF) % partition_count


def murmur2(data: bytes) -> int:
    """Return the 32-bit MurmurHash2 of `data` with Kafka's seed, unsigned."""
    whole = len(data) & ~3
    value = _SEED ^ len(data)
    for position in range(0, whole, 4):
        word = int.from_bytes(data[position : position + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        value = value * _MULTIPLIER & _MASK ^ word
    if whole < len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    value = (value ^ value >> 13) * _MULTIPLIER & _MASK
    return value ^ value >> 15


class KeylessPartitioner:
    """Gives records without a key to one partition until `bytes_each` went there, then to the next: full batches."""

    def __init__(self, partition_count: int, *, bytes_each: int) -> None:
        self._partition_count = partition_count
        self._bytes_each = bytes_each
        self._partition = 0
        self._bytes = 0

    def partition(self, size_bytes: int) -> int:
        """Return the partition for a record of `size_bytes`."""
        if self._bytes >= self._bytes_each:
            self._bytes = 0
            self._partition = (self._partition + 1) % self._partition_count
        self._bytes += size_bytes
        return self._partition
