"""Bounded memory for bytes that clients make us hold: frames on their way in, responses on their way out.

A pool is a number, charged as bytes really arrive and never by what a length field announces. A large frame is received
straight into a FrameBuffer: an anonymous mapping of the frame's size whose pages come into being as they are written,
so an announced 100 MB that never arrives costs an address range. Used buffers are kept for the next frame, within
RETAINED_SIZE_BYTES_MAX, since fresh pages cost more than the copy into them. Owned by the event loop.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Final

CHARGE_SIZE_BYTES: Final = 64 * 1024  # a growing frame is charged in steps of this
FRAME_BUFFER_SIZE_BYTES_MIN: Final = 64 * 1024
RETAINED_SIZE_BYTES_MAX: Final = 16 * 1024 * 1024

_MAP_NORESERVE: Final = 0x4000


class FrameBuffer:
    """Memory for one large frame: `view[:size]` is the frame, `view[:filled]` what has arrived of it."""

    __slots__ = ("charged", "filled", "size", "view")

    def __init__(self, view: memoryview, size: int) -> None:
        self.view = view
        self.size = size
        self.filled = 0
        # Bytes of the pool this frame holds. Invariant: filled <= charged.
        self.charged = 0


class MemoryPool:
    """A bound on bytes held at once.

    `handle_pressure` is called when a charge does not fit; it returns whether it made room (by closing a connection).
    """

    __slots__ = ("_handle_pressure", "_retained", "_retained_size_bytes", "_waiters", "size_bytes_max", "used_bytes")

    def __init__(self, size_bytes_max: int, handle_pressure: Callable[[], bool] | None = None) -> None:
        self.size_bytes_max = size_bytes_max
        # Invariant: 0 <= used_bytes. It passes size_bytes_max by `charge` only, or by one charge that alone is larger.
        self.used_bytes = 0
        self._handle_pressure = handle_pressure
        # Mappings for the next frames, by size; their pages are resident, which is what makes them worth keeping.
        self._retained: dict[int, list[memoryview]] = {}
        self._retained_size_bytes = 0
        self._waiters: list[Callable[[], None]] = []

    @property
    def free_bytes(self) -> int:
        return max(0, self.size_bytes_max - self.used_bytes)

    def try_charge(self, size_bytes: int) -> bool:
        """Take bytes from the pool; false where there is no room and none could be made."""
        while self.used_bytes + size_bytes > self.size_bytes_max and self.used_bytes:
            if self._handle_pressure is None or not self._handle_pressure():
                return False
        self.used_bytes += size_bytes
        return True

    def charge(self, size_bytes: int) -> None:
        """Take bytes that are held already, whether there is room or not."""
        self.used_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Give bytes back; those who wait for room are called once each."""
        self.used_bytes -= size_bytes
        assert self.used_bytes >= 0, f"{size_bytes} bytes more were given back than taken"
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter()

    def when_released(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when bytes next come back."""
        self._waiters.append(callback)

    def allocate(self, size: int) -> FrameBuffer:
        """Return memory for a frame of `size` bytes, uncharged; `try_charge_frame` charges it as it fills."""
        capacity = max(FRAME_BUFFER_SIZE_BYTES_MIN, 1 << (size - 1).bit_length())
        retained = self._retained.get(capacity)
        if retained:
            self._retained_size_bytes -= capacity
            return FrameBuffer(retained.pop(), size)
        mapping = mmap.mmap(-1, capacity, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        return FrameBuffer(memoryview(mapping), size)

    def try_charge_frame(self, frame: FrameBuffer) -> bool:
        """Charge what has arrived of a frame since it was last charged, in whole steps; false where there is no
        room.
        """
        missing = frame.filled - frame.charged
        if missing <= 0:
            return True
        step = -(-missing // CHARGE_SIZE_BYTES) * CHARGE_SIZE_BYTES
        if not self.try_charge(step):
            return False
        frame.charged += step
        return True

    def free(self, frame: FrameBuffer, *, reusable: bool = True) -> None:
        """Give a frame's memory back. Not `reusable` where somebody, a writer thread say, may still read from it."""
        capacity = len(frame.view)
        if reusable and self._retained_size_bytes + capacity <= RETAINED_SIZE_BYTES_MAX:
            self._retained.setdefault(capacity, []).append(frame.view)
            self._retained_size_bytes += capacity
        charged, frame.charged = frame.charged, 0
        self.release(charged)
