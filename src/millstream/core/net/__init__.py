"""Framing and correlation (sans-I/O), and one asyncio shell around them.

`FrameReader` cuts a byte stream into frames, `Correlator` matches the answers to the requests in flight, `Connection`
feeds both from a socket. Nothing here knows what a broker or a topic is.
"""

from millstream.core.net.addresses import Address, canonical_addresses, parse_address, parse_bootstrap
from millstream.core.net.buffer_pool import BufferPool
from millstream.core.net.connection import (
    Connection,
    ConnectionClosedError,
    ConnectionTimeoutError,
    SocketSettings,
    TlsFailedError,
)
from millstream.core.net.correlation import Correlator, Pending
from millstream.core.net.framing import FRAME_BYTES_MAX, FrameError, FrameReader, frame

__all__ = [
    "FRAME_BYTES_MAX",
    "Address",
    "BufferPool",
    "Connection",
    "ConnectionClosedError",
    "ConnectionTimeoutError",
    "Correlator",
    "FrameError",
    "FrameReader",
    "Pending",
    "SocketSettings",
    "TlsFailedError",
    "canonical_addresses",
    "frame",
    "parse_address",
    "parse_bootstrap",
]
