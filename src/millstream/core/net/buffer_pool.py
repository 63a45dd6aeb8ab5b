"""Buffers that are used again once nothing looks at them any more.

Fresh memory costs more than what is put there: the system clears each page at its first touch and takes it back when a
large buffer is freed, which for an answer of some megabytes takes longer than the copy out of the socket.

A buffer is free when the pool alone refers to it, which CPython's reference count tells: every memoryview, and every
Arrow array made of one, counts. So nobody gives a buffer back, and none that is still looked at can be overwritten.

Each is a mapping of its own and not of the heap: it begins with a page, its pages are there once something was put into
them, and all of them are gone when it is.
"""

from __future__ import annotations

import mmap
import sys
import threading
from typing import Final

BUFFERS_MAX: Final = 64
CAPACITY_MIN: Final = 64 * 1024
# A buffer is given out for at least this part of its bytes.
WASTE_MAX: Final = 4
# Capacities are rounded up to so many steps between two powers of two: buffers of about the same size fit each other.
_STEPS: Final = 4
_PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class BufferPool:
    """At most `size_bytes_max` of buffers, in use or free; what does not fit is made and not kept. For any thread."""

    def __init__(self, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        self._lock = threading.Lock()
        # Those used last are at the end. Invariant: their sizes add up to _held_bytes <= _size_bytes_max.
        self._buffers: list[mmap.mmap] = []
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the buffers that are kept, free or not."""
        return self._held_bytes

    def find(self, size_bytes: int) -> mmap.mmap | None:
        """Return a free buffer of at least `size_bytes`, the smallest there is; None without one. It holds anything."""
        with self._lock:
            return self._find(size_bytes)

    def take(self, size_bytes: int) -> mmap.mmap:
        """Return a buffer of at least `size_bytes`, a new one where none is free. It holds anything.

        Raises MemoryError.
        """
        with self._lock:
            found = self._find(size_bytes)
            if found is None:
                found = _made(_capacity(size_bytes))
                self._keep(found)
            return found

    def clear(self) -> None:
        """Keep none of them any more; those in use stay as they are for those who use them."""
        with self._lock:
            self._buffers.clear()
            self._held_bytes = 0

    def _find(self, size_bytes: int) -> mmap.mmap | None:
        buffers = self._buffers
        best = -1
        # One that is far larger would be held whole, by whoever keeps a little of it.
        most = WASTE_MAX * max(size_bytes, CAPACITY_MIN)
        for index in range(len(buffers)):
            size = len(buffers[index])
            fits = size_bytes <= size <= most and (best < 0 or size < len(buffers[best]))
            if fits and sys.getrefcount(buffers[index]) == _FREE_COUNT:
                best = index
        if best < 0:
            return None
        found = buffers.pop(best)
        buffers.append(found)
        return found

    def _keep(self, made: mmap.mmap) -> None:
        """Keep a new buffer, in the place of free ones where there is no room; not at all where that is not enough."""
        buffers = self._buffers
        index = 0
        while index < len(buffers) and not self._has_room(len(made)):
            if sys.getrefcount(buffers[index]) == _FREE_COUNT:
                self._held_bytes -= len(buffers.pop(index))
            else:
                index += 1
        if self._has_room(len(made)):
            buffers.append(made)
            self._held_bytes += len(made)

    def _has_room(self, size_bytes: int) -> bool:
        return len(self._buffers) < BUFFERS_MAX and self._held_bytes + size_bytes <= self._size_bytes_max


def _capacity(size_bytes: int) -> int:
    step = max((1 << size_bytes.bit_length()) >> 1, CAPACITY_MIN * _STEPS) // _STEPS
    return max(-(-size_bytes // step) * step, CAPACITY_MIN)


def _made(size_bytes: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, size_bytes, flags=_PRIVATE)
    except OSError as error:
        raise MemoryError(f"no {size_bytes:,} bytes can be had for a buffer: {error.strerror}") from error


def _count_of_free() -> int:
    """How many references Python counts where a list alone refers to a buffer."""
    buffers = [mmap.mmap(-1, mmap.PAGESIZE, flags=_PRIVATE)]
    return sys.getrefcount(buffers[0])


_FREE_COUNT: Final = _count_of_free()
