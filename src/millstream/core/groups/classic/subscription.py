"""What a member of protocol type `consumer` subscribes to, read out of the metadata it joined with.

    version  int16
    topics   int32 count, each an int16 length and UTF-8
    ...      user data, owned partitions and more by version: not read here

Every version begins so (ConsumerProtocolSubscription), and to the coordinator the rest is the clients' own business.
"""

from __future__ import annotations

import struct
from typing import Final

_HEAD: Final = struct.Struct(">hi")
_LENGTH: Final = struct.Struct(">h")


def subscribed_topics(metadata: bytes) -> set[str] | None:
    """Return the topics; None for bytes that are not a subscription: any member may send what it likes."""
    if len(metadata) < _HEAD.size:
        return None
    version, count = _HEAD.unpack_from(metadata)
    position = _HEAD.size
    if version < 0 or not 0 <= count <= (len(metadata) - position) // _LENGTH.size:
        return None
    topics = set()
    for _ in range(count):
        if position + _LENGTH.size > len(metadata):
            return None
        (length,) = _LENGTH.unpack_from(metadata, position)
        position += _LENGTH.size
        name = metadata[position : position + length] if length >= 0 else b""
        if len(name) != length:
            return None
        position += length
        try:
            topics.add(name.decode())
        except UnicodeDecodeError:
            return None
    return topics
