"""Encoding a message with one very long list piece by piece, so that its maker may pause between the pieces.

The generated encoders write a message in one call. Here the same encoder writes the message with a few items of the
list at a time; what stands before the list's count and behind its last item is the same each time, and kept once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from millstream.core.wire.codec import encode
from millstream.core.wire.fields import Message
from millstream.core.wire.runtime import varint_bytes

# Items of one call of the encoder: a compact count of them is one byte.
ITEMS_PER_PIECE_MAX: Final = 100
_COUNT_SIZE: Final = 4

assert len(varint_bytes(ITEMS_PER_PIECE_MAX + 1)) == 1, ITEMS_PER_PIECE_MAX


class ListEncoder:
    """Encodes `message`, whose array of structs `name` is given by `add`; what it holds in that array is dropped.

    An item with a long list of its own is encoded by a ListEncoder `within` this one, and its body is added.
    """

    def __init__(self, message: object, name: str, version: int, *, within: ListEncoder | None = None) -> None:
        assert isinstance(message, Message), f"{message!r} was not declared by @message"
        self._message = message
        self._name = name
        self._version = version
        self._within = within
        self._count = 0
        self._pieces: list[bytes] = []
        (field,) = (field for field in message.__wire__.fields if field.name == name)
        empty, one = self._encoded([]), self._encoded([field.struct_class()()])
        # The two differ first in the count, or in its lowest byte.
        differs = next(index for index, (left, right) in enumerate(zip(empty, one, strict=False)) if left != right)
        self._flexible: bool = version in message.__wire__.flexible if within is None else within._flexible
        self._count_size = 1 if self._flexible else _COUNT_SIZE
        self._start = differs + 1 - self._count_size
        self._before = empty[: self._start]
        self._behind = empty[self._start + self._count_size :]

    def add(self, items: Sequence[object]) -> None:
        """Encode the next items; the list is not kept."""
        for start in range(0, len(items), ITEMS_PER_PIECE_MAX):
            self._pieces.append(self._encoded_items(items[start : start + ITEMS_PER_PIECE_MAX]))
        self._count += len(items)

    def add_body(self, body: bytes) -> None:
        """Take the next item from an encoder that was made for it within this one."""
        self._pieces.append(body)
        self._count += 1

    def body(self) -> bytes:
        """The whole message, or item."""
        count = varint_bytes(self._count + 1) if self._flexible else self._count.to_bytes(_COUNT_SIZE, "big")
        return b"".join((self._before, count, *self._pieces, self._behind))

    def _encoded(self, items: Sequence[object]) -> bytes:
        setattr(self._message, self._name, items)
        if self._within is not None:
            return self._within._encoded_items((self._message,))
        return encode(self._message, self._version)

    def _encoded_items(self, items: Sequence[object]) -> bytes:
        whole = self._encoded(items)
        return whole[self._start + self._count_size : len(whole) - len(self._behind)]
