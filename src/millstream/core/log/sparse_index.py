"""Searching a sorted index file of fixed-size entries without mapping it or reading much of it.

A probe reads one page of entries. The first probe is guessed by interpolation, since offsets grow nearly evenly with
the entries, then the range is halved; a lookup in the index of a full 1 GB segment so costs one or two small reads.
Mapping would be as fast, but a cold page would then stop the event loop in a place where nobody can tell.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

PAGE_ENTRIES: Final = 256

# read(size, position) -> bytes of the index file; raises BlockingIOError where it must not wait.
Read = Callable[[int, int], bytes]


def last_at_or_before(read: Read, entry: struct.Struct, count: int, key: int) -> tuple[int, ...] | None:
    """Return the last of `count` entries whose first field is <= key, or None where there is none."""
    size = entry.size
    unpack = entry.unpack_from
    low, high = 0, count  # entries before low are <= key, those from high on are > key
    low_key, high_key = -1, -1  # keys at low - 1 and high, once seen
    best: tuple[int, ...] | None = None
    interpolate = True
    while low < high:
        if high - low <= PAGE_ENTRIES:
            first = low
        elif interpolate and high_key > low_key >= 0:
            guess = low + (high - low) * (key - low_key) // (high_key - low_key)
            first = min(max(guess - PAGE_ENTRIES // 2, low), high - PAGE_ENTRIES)
        elif high_key < 0:
            first = high - PAGE_ENTRIES  # the end first: most reads are near it, and its key starts the interpolation
            low_key = max(low_key, 0)
        else:
            first = (low + high - PAGE_ENTRIES) // 2
        interpolate = not interpolate or high_key < 0
        page_count = min(PAGE_ENTRIES, high - first)
        page = read(page_count * size, first * size)
        page_count = len(page) // size
        if not page_count:
            return best
        first_entry = unpack(page, 0)
        if first_entry[0] > key:
            high, high_key = first, first_entry[0]
            continue
        inner_low, inner_high = 1, page_count
        while inner_low < inner_high:
            middle = (inner_low + inner_high) // 2
            if unpack(page, middle * size)[0] <= key:
                inner_low = middle + 1
            else:
                inner_high = middle
        best = unpack(page, (inner_low - 1) * size)
        if inner_low < page_count:
            return best
        low, low_key = first + page_count, best[0]
    return best
