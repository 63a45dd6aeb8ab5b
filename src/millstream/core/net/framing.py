"""Frames: a Kafka connection is a stream of them in both directions.

    size   int32, big-endian   bytes that follow
    body   `size` bytes        a header and a message

`FrameReader` is sans-I/O: bytes in, whole frames out. It keeps the chunks of an unfinished frame as they arrived and
joins them once, so a frame of many megabytes costs one copy. Memory follows the bytes received, never the size
announced; a size beyond the bound is an error at its fourth byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from millstream.core.wire import Buffer, WireError

_SIZE: Final = struct.Struct(">i")
SIZE_BYTES: Final = _SIZE.size
FRAME_BYTES_MAX: Final = 256 * 1024 * 1024  # Kafka's socket.request.max.bytes is 100 MB; an answer may be a bit larger

assert SIZE_BYTES == 4, SIZE_BYTES


class FrameError(WireError):
    """The stream cannot be cut into frames; the connection has to be closed."""


def frame(parts: Iterable[Buffer]) -> list[Buffer]:
    """Return `parts` with their size put before them: one frame, without a copy."""
    body: list[Buffer] = list(parts)
    return [_SIZE.pack(sum(len(part) for part in body)), *body]


class FrameReader:
    """Cuts received bytes into frames of at most `size_bytes_max` each."""

    def __init__(self, size_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._size_bytes_max = size_bytes_max
        # Chunks of the frame being received, its size field included once that has been read off; `_held` is their sum.
        self._chunks: list[memoryview] = []
        self._held = 0
        # Size of the body being received, or -1 while the size field itself is incomplete.
        self._wanted = -1

    @property
    def held_bytes(self) -> int:
        """Bytes of the unfinished frame held so far."""
        return self._held

    def receive(self, data: bytes) -> list[memoryview]:
        """Take the next bytes of the stream; return the bodies of the frames they complete, in order.

        A body is a view: of `data` where the frame lies whole in it, else of its own memory. Raises FrameError.
        """
        frames: list[memoryview] = []
        rest = memoryview(data)
        while True:
            if self._wanted < 0:
                if self._held + len(rest) < SIZE_BYTES:
                    self._keep(rest)
                    return frames
                head, rest = self._take(rest, SIZE_BYTES)
                self._wanted = self._checked_size(head)
            if self._held + len(rest) < self._wanted:
                self._keep(rest)
                return frames
            body, rest = self._take(rest, self._wanted)
            self._wanted = -1
            frames.append(body)

    def _keep(self, rest: memoryview) -> None:
        if len(rest):
            self._chunks.append(rest)
            self._held += len(rest)

    def _take(self, rest: memoryview, size: int) -> tuple[memoryview, memoryview]:
        """Return the next `size` bytes, which are there, and what is left of `rest` behind them."""
        if not self._chunks:
            return rest[:size], rest[size:]
        used = size - self._held
        assert 0 <= used <= len(rest), f"{used} of {len(rest)}"
        joined = memoryview(b"".join((*self._chunks, rest[:used])))
        self._chunks.clear()
        self._held = 0
        return joined, rest[used:]

    def _checked_size(self, head: memoryview) -> int:
        size: int = _SIZE.unpack(head)[0]
        if size < 0:
            raise FrameError(f"a frame announces {size} bytes: the peer does not speak Kafka's protocol")
        if size > self._size_bytes_max:
            raise FrameError(
                f"a frame announces {size:,} bytes, more than the {self._size_bytes_max:,} allowed; "
                "is the peer a Kafka broker without TLS?"
            )
        return size
