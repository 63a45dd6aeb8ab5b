"""A response that a handler has encoded already, or kept from before, or encodes in slices since it is long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from millstream.core.cluster.slices import Slices
from millstream.core.wire import ListEncoder
from millstream.core.wire.long_list import ITEMS_PER_PIECE_MAX

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


class LongItem(NamedTuple):
    """An item with an array `name` of its own, which `items` gives one by one."""

    item: object
    name: str
    items: Iterable[object]


async def encoded_in_slices(response: object, name: str, items: Iterable[object], version: int) -> Encoded:
    """Encode a response whose array `name` has these many items; others run while they are made and encoded.

    Each is encoded as soon as it is made, and none is kept. A LongItem is one in pieces.
    """
    encoder = ListEncoder(response, name, version)
    slices = Slices()
    for item in items:
        if type(item) is LongItem:
            await _add_long_item(encoder, item, version, slices)
        else:
            encoder.add((item,))
        await slices.pause()
    return Encoded(encoder.body())


async def _add_long_item(encoder: ListEncoder, long: LongItem, version: int, slices: Slices) -> None:
    items = iter(long.items)
    piece = list(islice(items, ITEMS_PER_PIECE_MAX))
    if len(piece) < ITEMS_PER_PIECE_MAX:
        setattr(long.item, long.name, piece)
        encoder.add((long.item,))
        return
    inner = ListEncoder(long.item, long.name, version, within=encoder)
    while piece:
        inner.add(piece)
        await slices.pause()
        piece = list(islice(items, ITEMS_PER_PIECE_MAX))
    encoder.add_body(inner.body())
