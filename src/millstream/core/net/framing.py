"""Frames: a Kafka connection is a stream of them in both directions.

    size   int32, big-endian   bytes that follow
    body   `size` bytes        a header and a message

`FrameReader` is sans-I/O: bytes in, whole frames out. It says where the next bytes are to be put, and once the size of
a large frame is known that is a buffer of the frame's own: the system's copy out of the socket is the only one. Such
buffers come from a pool, and go back by themselves when nothing looks at the frame any more. Fresh memory follows the
bytes received, never the size announced; a size beyond the bound is an error at its fourth byte.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from typing import Final

from millstream.core.net.buffer_pool import CAPACITY_MIN, BufferPool
from millstream.core.wire import Buffer, WireError

_SIZE: Final = struct.Struct(">i")
SIZE_BYTES: Final = _SIZE.size
FRAME_BYTES_MAX: Final = 256 * 1024 * 1024  # Kafka's socket.request.max.bytes is 100 MB; an answer may be a bit larger

# One system call's worth of small frames; what arrives of a large one with its size is copied, so not more than that.
_INTAKE_BYTES: Final = 16 * 1024
# The first room of a large frame, and how much more is made when that is full: one of the usual size never moves.
_BODY_BYTES_MIN: Final = 2 * 1024 * 1024
_GROWTH: Final = 8
# Buffers that a reader without a pool of others keeps.
_OWN_POOL_BYTES_MAX: Final = 4 * 1024 * 1024

assert SIZE_BYTES == 4, SIZE_BYTES


class FrameError(WireError):
    """The stream cannot be cut into frames; the connection has to be closed."""


def frame(parts: Iterable[Buffer]) -> list[Buffer]:
    """Return `parts` with their size put before them: one frame, without a copy."""
    body: list[Buffer] = list(parts)
    return [_SIZE.pack(sum(len(part) for part in body)), *body]


class FrameReader:
    """Cuts received bytes into frames of at most `size_bytes_max` each.

    Either `room` and `received` in turn, by who can receive into memory, or `receive`.
    """

    def __init__(self, size_bytes_max: int = FRAME_BYTES_MAX, pool: BufferPool | None = None) -> None:
        self._size_bytes_max = size_bytes_max
        self._pool = pool if pool is not None else BufferPool(_OWN_POOL_BYTES_MAX)
        # Where sizes and small frames arrive. No frame that is handed out lies in it.
        self._intake = bytearray(_INTAKE_BYTES)
        # The frame being received, its first `_wanted` bytes once that is known and they were not all there, room for
        # fewer where so many are not there yet; None between such.
        self._body: mmap.mmap | bytearray | None = None
        self._wanted = 0
        # Bytes in `_body`, or in `_intake` where there is none.
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the unfinished frame held so far."""
        return self._held

    def room(self) -> memoryview:
        """Return where the next bytes of the stream go, never empty; to be used before the next call, and let go of."""
        if self._body is None:
            return memoryview(self._intake)[self._held :]
        if self._held == len(self._body):
            grown = self._pool.take(min(self._wanted, _GROWTH * self._held))
            memoryview(grown)[: self._held] = memoryview(self._body)[: self._held]
            self._body = grown
        return memoryview(self._body)[self._held : self._wanted]

    def received(self, size: int) -> list[memoryview]:
        """Take it that so many bytes were put into `room`; return the bodies of the frames they complete, in order.

        Nothing else is put into a body's memory while a view of it is there. Raises FrameError.
        """
        self._held += size
        if self._body is None:
            return self._cut_intake()
        if self._held < self._wanted:
            return []
        body, self._body, self._held = memoryview(self._body)[: self._wanted].toreadonly(), None, 0
        return [body]

    def receive(self, data: Buffer) -> list[memoryview]:
        """Take the next bytes of the stream, as `received` does where they were put into `room`."""
        frames: list[memoryview] = []
        rest = memoryview(data)
        while rest:
            with self.room() as room:
                size = min(len(room), len(rest))
                room[:size] = rest[:size]
            frames += self.received(size)
            rest = rest[size:]
        return frames

    def _cut_intake(self) -> list[memoryview]:
        frames: list[memoryview] = []
        intake = memoryview(self._intake)
        position, end = 0, self._held
        while end - position >= SIZE_BYTES:
            size = self._checked_size(position)
            start = position + SIZE_BYTES
            position = start + size
            if position > end:
                have = end - start
                self._body = self._room_for(size, have)
                memoryview(self._body)[:have] = intake[start:end]
                self._wanted, self._held = size, have
                return frames
            frames.append(memoryview(bytes(intake[start:position])))
        self._held = end - position
        intake[: self._held] = bytes(intake[position:end])
        return frames

    def _room_for(self, size: int, have: int) -> mmap.mmap | bytearray:
        """Return the first room of a body of which so many bytes are there."""
        if size < CAPACITY_MIN:
            # Many of those may wait for the application: they leave the pool to large ones.
            return bytearray(size)
        found = self._pool.find(size)
        return found if found is not None else self._pool.take(min(size, max(_BODY_BYTES_MIN, _GROWTH * have)))

    def _checked_size(self, position: int) -> int:
        size: int = _SIZE.unpack_from(self._intake, position)[0]
        if size < 0:
            raise FrameError(f"a frame announces {size} bytes: the peer does not speak Kafka's protocol")
        if size > self._size_bytes_max:
            raise FrameError(
                f"a frame announces {size:,} bytes, more than the {self._size_bytes_max:,} allowed; "
                "is the peer a Kafka broker without TLS?"
            )
        return size
