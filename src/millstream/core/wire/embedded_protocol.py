"""What consumers of the classic protocol tell each other inside JoinGroup and SyncGroup: topics and partitions.

The broker passes these bytes on and need not read them, but for two things: which topics a group reads (offsets of
others may be deleted), and moving a group between the classic and the consumer protocol (KIP-848). Both begin with an
int16 version.

Versions  0 topics   1 owned partitions (KIP-429)   2 generation of them (KIP-792)   3 rack (KIP-881)
"""

from __future__ import annotations

import struct as layouts
from typing import Final, TypeVar

from millstream.core.wire.codec import decode, encode
from millstream.core.wire.errors import WireError
from millstream.core.wire.fields import field, int32, message, struct

CONSUMER_PROTOCOL_TYPE: Final = "consumer"
EMBEDDED_VERSION_MAX: Final = 3

_NUMBER: Final = layouts.Struct(">h")
_T = TypeVar("_T")


@struct
class OwnedTopic:
    topic: str = ""
    partitions: list[int32] = field(factory=list)


@message(key=0, versions="0-3", flexible="none")
class Subscription:
    topics: list[str] = field(factory=list)
    user_data: bytes | None = None
    owned_partitions: list[OwnedTopic] = field(versions="1+", factory=list)
    generation_id: int32 = field(versions="2+", default=-1)
    rack_id: str | None = field(versions="3+", default=None)


@message(key=0, versions="0-3", flexible="none")
class ConsumerAssignment:
    assigned_partitions: list[OwnedTopic] = field(factory=list)
    user_data: bytes | None = None


def embedded_version(data: bytes) -> int:
    """Return the version that these bytes are written in; one that is newer than known reads as the newest known.

    Raises WireError.
    """
    if len(data) < _NUMBER.size:
        raise WireError(f"{len(data)} bytes of a consumer's protocol; they begin with an int16 version")
    (version,) = _NUMBER.unpack_from(data)
    if version < 0:
        raise WireError(f"version {version} of a consumer's protocol is negative")
    return int(min(version, EMBEDDED_VERSION_MAX))


def decode_subscription(data: bytes) -> Subscription:
    """Read what a consumer wants to read; raises WireError."""
    return _decode(Subscription, data)


def encode_subscription(subscription: Subscription, version: int) -> bytes:
    """Return a subscription as bytes."""
    return encode(subscription, version, _NUMBER.pack(version))


def decode_assignment(data: bytes) -> ConsumerAssignment:
    """Read what a consumer was assigned; no bytes at all are no partitions. Raises WireError."""
    return _decode(ConsumerAssignment, data) if data else ConsumerAssignment()


def encode_assignment(assignment: ConsumerAssignment, version: int) -> bytes:
    """Return an assignment as bytes."""
    return encode(assignment, version, _NUMBER.pack(version))


def _decode(kind: type[_T], data: bytes) -> _T:
    return decode(kind, embedded_version(data), data, _NUMBER.size)[0]
