"""Answers whose records go from the page cache to the socket, past the transport, as far as the socket takes them.

The rest becomes bytes for the transport, which knows how to wait: order, backpressure and the bounds on what is unsent
are its and the connection's as ever. The transport must hold nothing unsent, or these bytes would overtake it. Owned by
the event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from millstream.core.log import FileRegion

# What stands before a region waits for its first bytes, so that both leave in one packet.
_HEAD_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_MORE

Part = bytes | memoryview | FileRegion
MemoryPart = bytes | memoryview


def send_regions(transport: asyncio.Transport, parts: Sequence[Part]) -> list[MemoryPart]:
    """Send `parts` in order up to the last region; return what is left to be written. Raises LogDirectoryError."""
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0 or transport.is_closing() or transport.get_write_buffer_size():
        return in_memory(parts)
    # The transport's own descriptor, lent: `detach` gives it back without closing it.
    lent = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    start = 0
    try:
        for index, part in enumerate(parts):
            if not isinstance(part, FileRegion):
                continue
            head = b"".join(in_memory(parts[start:index]))
            sent = _send(lent, head)
            if sent < len(head):
                return [memoryview(head)[sent:], *in_memory(parts[index:])]
            sent = part.send(descriptor)
            start = index + 1
            if sent < len(part):
                return [part.read(sent), *in_memory(parts[start:])]
    finally:
        lent.detach()
    return in_memory(parts[start:])


def in_memory(parts: Sequence[Part]) -> list[MemoryPart]:
    """Return the parts with the regions read. Raises LogDirectoryError."""
    return [part.read() if isinstance(part, FileRegion) else part for part in parts]


def _send(lent: socket.socket, head: bytes) -> int:
    if not head:
        return 0
    try:
        return lent.send(head, _HEAD_FLAGS)
    except OSError:
        return 0  # no room, or the peer is gone, which the transport will meet as well
