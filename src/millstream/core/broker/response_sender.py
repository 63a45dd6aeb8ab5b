"""The sending half of a connection: answers in their order out to the transport, and what the client left unread.

Answers that become ready in one pass of the loop are collected and leave in one write. Every write is tried at once;
what the socket does not take the transport keeps, and says so by `pause_writing` (uvloop's does, with a limit of 0).
Until it is gone the memory that fetches charged for it stays charged.

Owned by the event loop.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, cast

from millstream.core.broker.direct_send import Part, in_memory, send_regions
from millstream.core.broker.frame_receiver import FrameReceiver
from millstream.core.log import REGION_SIZE_BYTES_MIN, FileRegion
from millstream.core.wire import KafkaError

if TYPE_CHECKING:
    from millstream.core.broker.connections import Connections

# A response up to this size is joined from its parts; larger ones are handed over as parts.
JOINED_SIZE_BYTES_MAX: Final = 16 * 1024
# More parts than this are joined whatever their size: one system call takes only so many.
PARTS_COUNT_MAX: Final = 64

_monotonic_ns: Final = time.monotonic_ns


class ResponseSender(FrameReceiver, ABC):
    """Sends what `Connection` has answered. The answers' bytes are put into `_out`, and `_flush` sends them."""

    __slots__ = (
        "_out",
        "_read_memory_bytes",
        "_unsent",
        "unsent_since_ns",
        "unsent_size_bytes",
    )

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._out: list[Part] = []
        # The transport holds bytes that the socket did not take.
        self._unsent = False
        self.unsent_since_ns = 0
        self.unsent_size_bytes = 0
        # Of the fetch memory, held by responses that are not sent yet.
        self._read_memory_bytes = 0

    @abstractmethod
    def _break_off(self, reason: str) -> None:
        """End the connection in the middle of an answer, so that the client does not take it for a whole one."""

    # The transport's callbacks.

    def pause_writing(self) -> None:
        self._unsent = True
        self.unsent_since_ns = _monotonic_ns()
        self.unsent_size_bytes = self._unsent_size()

    def resume_writing(self) -> None:
        self._unsent = False
        self.unsent_size_bytes = 0
        self._release_read_memory()
        self._continue()

    def _flush(self) -> None:
        out = self._out
        transport = self._transport
        if not out or transport is None:
            return
        self._out = []
        size = sum(map(len, out))
        parts = cast("list[bytes | memoryview]", out)
        if size > REGION_SIZE_BYTES_MIN and FileRegion in map(type, out):
            try:
                parts = in_memory(out) if self._unsent else send_regions(transport, out)
            except KafkaError as error:
                self._break_off(f"an answer to it could not be read: {error}")
                return
            size = sum(map(len, parts))
        if len(parts) == 1:
            transport.write(parts[0])
        elif size <= JOINED_SIZE_BYTES_MAX or len(parts) > PARTS_COUNT_MAX:
            transport.write(b"".join(parts))
        else:
            transport.writelines(parts)
        if self._read_memory_bytes and not self._unsent:
            self._release_read_memory()

    # What the client has not read.

    def stalled_ns(self, now_ns: int) -> int:
        """For how long the client has taken nothing of what was sent to it; 0 if nothing is unsent."""
        if not self._unsent:
            return 0
        size = self._unsent_size()
        if size != self.unsent_size_bytes:
            self.unsent_size_bytes = size
            self.unsent_since_ns = now_ns
        return now_ns - self.unsent_since_ns

    def hold_read_memory(self, size_bytes: int) -> None:
        """Keep bytes of the fetch memory, which the caller charged, until what is being answered has been sent."""
        self._read_memory_bytes += size_bytes

    def _unsent_size(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def _release_read_memory(self) -> None:
        size_bytes, self._read_memory_bytes = self._read_memory_bytes, 0
        if size_bytes:
            self._connections.read_memory.release(size_bytes)
