"""Which partition of `__consumer_offsets` keeps a group: Java's String.hashCode, as every Kafka tool computes it."""

from __future__ import annotations

from typing import Final

GROUP_TOPIC: Final = "__consumer_offsets"


def java_hash(text: str) -> int:
    """Return Java's hash of a string as a signed int32; it runs over UTF-16 code units."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for high, low in zip(units[::2], units[1::2], strict=True):
        value = (31 * value + (high << 8 | low)) & 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def partition_for(group_id: str, partition_count: int) -> int:
    """Return the partition that keeps a group."""
    # Kafka takes the hash's absolute value, and 0 for the one value that has none.
    value = java_hash(group_id)
    return (0 if value == -(1 << 31) else abs(value)) % partition_count
