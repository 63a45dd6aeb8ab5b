"""A response that a handler has encoded already, or kept from before, or encodes in slices since it is long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from millstream.core.cluster.slices import Slices
from millstream.core.wire import ListEncoder

if TYPE_CHECKING:
    from millstream.core.broker.direct_send import Part


class Encoded(NamedTuple):
    """The body of a response in the version that was asked for, without its header."""

    body: bytes


class EncodedParts(NamedTuple):
    """The same in parts, `head` and then the others, with how often each error code stands in it."""

    head: bytes
    others: Sequence[Part]
    error_codes: Mapping[int, int]


async def encoded_in_slices(response: object, name: str, items: Iterable[object], version: int) -> Encoded:
    """Encode a response whose array `name` has these many items; others run while they are made and encoded.

    Each is encoded as soon as it is made, and none is kept.
    """
    encoder = ListEncoder(response, name, version)
    slices = Slices()
    for item in items:
        encoder.add((item,))
        await slices.pause()
    return Encoded(encoder.body())
