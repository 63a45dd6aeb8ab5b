"""As much of the ranges as one run may load (`source.run_bytes_max`): every partition gets its share.

All partitions are filled up to one level, like water over an uneven ground: small ones are taken whole, of large ones
an equal amount each. So a hot partition never keeps the others waiting, and no partition is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from millstream.hadoop_loader.splits import OffsetRange


def take_share(ranges: Sequence[OffsetRange], bytes_max: int) -> list[OffsetRange]:
    """Return the beginnings of `ranges`, about `bytes_max` bytes in all, and at least one offset of each."""
    if sum(each.estimated_bytes for each in ranges) <= bytes_max:
        return list(ranges)
    left = bytes_max
    level = 0.0
    remaining = len(ranges)
    for size in sorted(each.estimated_bytes for each in ranges):
        level = left / remaining
        if size > level:
            break
        left -= size
        remaining -= 1
    return [_beginning(each, level) for each in ranges]


def _beginning(given: OffsetRange, bytes_max: float) -> OffsetRange:
    if given.estimated_bytes <= bytes_max:
        return given
    share = bytes_max / given.estimated_bytes
    offsets = max(1, int((given.end_offset - given.start_offset) * share))
    return replace(
        given, end_offset=given.start_offset + offsets, estimated_bytes=max(1, round(given.estimated_bytes * share))
    )
