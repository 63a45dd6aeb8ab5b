"""The receiving half of a connection: bytes in, whole frames out to be handled.

    frame    int32 length, then that many bytes: a request header, then the request's body

All connections of a loop receive into one scratch buffer, so that an idle one holds no memory. What is left of a chunk
after its whole frames are handled, an incomplete frame's beginning, is copied to memory charged to the pool, and put
in front of the next chunk. A large frame moves to a buffer of its own, into which the rest of it is received directly
and from which its batches are written. Frames that may not be handled yet stay here, and the socket unread.

Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import struct
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from millstream.core.broker.connections import Connections
    from millstream.core.broker.memory_pool import FrameBuffer

# The scratch buffer of a loop, and how much of it one read fills: all of it only where the frames are not small. More
# at a time means fewer and larger writes, of which each has its price; but small frames would hold the loop for long.
SCRATCH_SIZE_BYTES: Final = 256 * 1024
CHUNK_SIZE_BYTES: Final = 64 * 1024
SMALL_FRAME_SIZE_BYTES_MAX: Final = 4096
# After a large frame the next one is expected large as well: only its beginning is read into scratch memory.
BULK_START_SIZE_BYTES: Final = 4096
# An incomplete frame gets a buffer of its own once this much of it has arrived, if it does not fit a chunk.
FRAME_BUFFER_START_SIZE_BYTES: Final = 4096

_LENGTH: Final = struct.Struct(">i")
_LENGTH_SIZE: Final = _LENGTH.size


class FrameReceiver(asyncio.BufferedProtocol, ABC):
    """Finds frames in received bytes; `Connection` handles them.

    Whoever handles is given `_process(data, end)` for the frames of a chunk, which returns where the first one lies
    that was not handled, and `_process_frame(frame)` for a large one.
    """

    __slots__ = (
        "_bulk",
        "_chunk_size",
        "_connections",
        "_frame",
        "_held_frame",
        "_kept",
        "_reading",
        "_scratch",
        "_transport",
        "closed",
        "last_active_ns",
        "unfinished_since_ns",
    )

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._scratch = connections.scratch
        self._transport: asyncio.Transport | None = None
        self.closed = False
        # When the last bytes came.
        self.last_active_ns = 0
        # When the unfinished frame began; 0 where there is none.
        self.unfinished_since_ns = 0
        # Bytes received and not handled: the beginning of an incomplete frame, or whole frames while blocked. Charged.
        self._kept = b""
        # The large frame being received, and a whole one that waits for its turn.
        self._frame: FrameBuffer | None = None
        self._held_frame: FrameBuffer | None = None
        self._bulk = False
        # How much of the scratch buffer the next read may fill. The whole where the last chunk was full and began with
        # a frame that is not small.
        self._chunk_size = CHUNK_SIZE_BYTES
        self._reading = True

    # What handles the frames.

    @abstractmethod
    def _process(self, data: memoryview, end: int) -> int:
        """Handle the whole frames in data[:end] as far as they may be now; return where the first unhandled byte is."""

    @abstractmethod
    def _process_frame(self, frame: FrameBuffer) -> None:
        """Handle one large frame, or hold it until it may be."""

    @abstractmethod
    def _is_blocked(self) -> bool:
        """Whether the next request must wait for something."""

    @abstractmethod
    def _handle_kept(self) -> None:
        """Whole frames were kept, and the socket is not read: go on with them if nothing blocks that any more."""

    @abstractmethod
    def _continue(self) -> None:
        """Go on with kept frames, then with reading, if nothing blocks that any more."""

    @abstractmethod
    def _drop(self, reason: str) -> None:
        """End the connection at once, for a reason that is logged."""

    # The transport's callbacks.

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  the transport calls it so
        frame = self._frame
        if frame is not None:
            return frame.view[frame.filled : frame.size]
        kept = self._kept
        if kept:
            size = len(kept)
            self._scratch[:size] = kept
            end = BULK_START_SIZE_BYTES if self._bulk and size < BULK_START_SIZE_BYTES else self._chunk_size
            return self._scratch[size:end]
        return self._scratch[: BULK_START_SIZE_BYTES if self._bulk else self._chunk_size]

    def buffer_updated(self, nbytes: int) -> None:
        frame = self._frame
        if frame is None:
            end = len(self._kept) + nbytes
            if end >= CHUNK_SIZE_BYTES and _LENGTH.unpack_from(self._scratch, 0)[0] > SMALL_FRAME_SIZE_BYTES_MAX:
                self._chunk_size = SCRATCH_SIZE_BYTES
            else:
                self._chunk_size = CHUNK_SIZE_BYTES
            position = self._process(self._scratch, end)
            if position < end:
                self._keep(self._scratch, position, end)
            elif self._kept:
                self._set_kept(b"")
                self.unfinished_since_ns = 0
            return
        frame.filled += nbytes
        if frame.filled > frame.charged and not self._charge(frame):
            return
        if frame.filled == frame.size and not self.closed:
            self._frame = None
            self.unfinished_since_ns = 0
            self._process_frame(frame)

    # Input that has to wait.

    def _keep(self, data: memoryview, position: int, end: int) -> None:
        """Keep what could not be handled: an incomplete frame's beginning, or frames that wait for their turn."""
        size = end - position
        if size >= FRAME_BUFFER_START_SIZE_BYTES:
            frame_size = _LENGTH.unpack_from(data, position)[0] + _LENGTH_SIZE
            if frame_size > size and (frame_size > CHUNK_SIZE_BYTES or size > CHUNK_SIZE_BYTES // 4):
                self._set_kept(b"")
                self._start_frame(frame_size, data[position:end])
                return
            if frame_size <= size:
                self._set_kept(bytes(data[position:end]))
                self._pause_reading()
                self._handle_kept()
                return
        elif size >= _LENGTH_SIZE and _LENGTH.unpack_from(data, position)[0] + _LENGTH_SIZE <= size:
            self._set_kept(bytes(data[position:end]))
            self._pause_reading()
            self._handle_kept()
            return
        self._set_kept(bytes(data[position:end]))
        if not self.unfinished_since_ns:
            self.unfinished_since_ns = self.last_active_ns

    def _start_frame(self, size: int, beginning: memoryview) -> None:
        frame = self._connections.pool.allocate(size)
        frame.view[: len(beginning)] = beginning
        frame.filled = len(beginning)
        self._frame = frame
        if not self.unfinished_since_ns:
            self.unfinished_since_ns = self.last_active_ns
        self._charge(frame)

    def _charge(self, frame: FrameBuffer) -> bool:
        """Charge what has arrived of a frame; false where the connection has ended over it."""
        charged = self._connections.pool.try_charge_frame(frame)
        if self.closed:
            # It was this one that had to make room: the frame has been given back, and was charged again since.
            self._connections.pool.free(frame, reusable=False)
            return False
        if not charged:
            self._drop("no memory is left for its requests")
        return charged

    def _set_kept(self, kept: bytes) -> None:
        """Replace the kept bytes, and what they are charged."""
        pool = self._connections.pool
        before, self._kept = len(self._kept), b""
        if before:
            pool.release(before)
        if not kept:
            return
        if pool.try_charge(len(kept)):
            if self.closed:
                pool.release(len(kept))
            else:
                self._kept = kept
        elif not self.closed:
            self._drop("no memory is left for its requests")

    def _process_kept(self) -> None:
        if self.closed or self._reading or self._is_blocked():
            return
        frame, self._held_frame = self._held_frame, None
        if frame is not None:
            self._process_frame(frame)
            if self._held_frame is None and not self.closed:
                self._continue()
            return
        kept = self._kept
        data = memoryview(bytearray(kept))
        position = self._process(data, len(kept))
        if self.closed:
            return
        self._reading = True
        if position < len(kept):
            self._keep(data, position, len(kept))
        else:
            self._set_kept(b"")
            self.unfinished_since_ns = 0
        # `_keep` pauses where whole frames are left; the transport is paused as yet in either case.
        if self._reading:
            self._reading = False
            self._resume_reading()

    def _pause_reading(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    @property
    def unfinished_size_bytes(self) -> int:
        """What has arrived of an incomplete frame."""
        return self._frame.filled if self._frame is not None else len(self._kept)

    def _release_input(self) -> None:
        """Give back all memory of frames that will not be handled any more."""
        pool = self._connections.pool
        if self._kept:
            pool.release(len(self._kept))
            self._kept = b""
        for frame in (self._frame, self._held_frame):
            if frame is not None:
                pool.free(frame, reusable=False)
        self._frame = self._held_frame = None
