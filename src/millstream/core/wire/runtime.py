"""What generated codecs call: varints, tagged fields that are skipped, packers of fields around arrays, complaints.

A complaint is a ValueError here; the generated function turns it into a WireError that names field and position.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from millstream.core.wire.fields import SCALARS

Buffer: TypeAlias = bytes | bytearray | memoryview

# Arrays of numbers up to this length have a Struct made for their length, and kept: 13 lengths of one array, 13 ** 3
# of the three arrays in a partition's metadata.
PACKED_LENGTH_MAX: Final = 12
# Elements of all arrays of one request together. An element of three bytes can cost a hundred here, so the size of a
# frame does not bound the memory it takes decoded; this does: about 30 MB.
REQUEST_ELEMENTS_MAX: Final = 250_000
ONE_BYTE_VARINT_MAX: Final = 0x7F
UNSIGNED_VARINT_SIZE_MAX: Final = 5


def unsigned_varint(data: Buffer, position: int) -> tuple[int, int]:
    """Read an unsigned varint of at most 32 bits; returns it with the position behind it.

    Raises IndexError where the bytes end, ValueError where it is too long.
    """
    value = shift = 0
    for index in range(position, position + UNSIGNED_VARINT_SIZE_MAX):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte <= ONE_BYTE_VARINT_MAX:
            if value >= 1 << 32:
                break
            return value, index + 1
        shift += 7
    raise ValueError("the varint has more than 32 bits")


def varint_bytes(value: int) -> bytes:
    """An unsigned varint."""
    if value < 0:
        raise ValueError(f"{value} is no unsigned number")
    out = bytearray()
    while value > ONE_BYTE_VARINT_MAX:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def skip_tags(data: Buffer, position: int, end: int) -> int:
    """Return the position behind a section of tagged fields none of which is known (KIP-482)."""
    number, position = unsigned_varint(data, position)
    for _ in range(number):
        _, position = unsigned_varint(data, position)
        size, position = unsigned_varint(data, position)
        if size > end - position:
            raise overrun(size, end - position)
        position += size
    return position


def overrun(size: int, present: int) -> ValueError:
    """The complaint about a length."""
    return ValueError(f"a length of {size} bytes does not fit the {max(present, 0)} that are left")


def overcount(number: int, present: int) -> ValueError:
    """The complaint about the count of an array."""
    return ValueError(f"{number} elements can't be in the {max(present, 0)} bytes that are left")


def overcrowded() -> ValueError:
    """The complaint about a request of too many parts."""
    return ValueError(f"the request has more than {REQUEST_ELEMENTS_MAX} array elements; send several")


def bad_null() -> ValueError:
    """The complaint about a null."""
    return ValueError("it is null, which this version does not allow")


def bad_uuid(value: bytes) -> ValueError:
    """The complaint about an id that is not 16 bytes long; `struct` would pad or cut it without a word."""
    return ValueError(f"an id has 16 bytes, not {len(value)}")


class ArrayUnpackers(dict[int, Callable[[Buffer, int], tuple[Any, ...]]]):
    """Length of an array of numbers -> what unpacks it; kept for short arrays only."""

    def __init__(self, letter: str) -> None:
        super().__init__()
        self._letter = letter

    def __missing__(self, length: int) -> Callable[[Buffer, int], tuple[Any, ...]]:
        unpack = struct.Struct(f">{length}{self._letter}").unpack_from
        if length <= PACKED_LENGTH_MAX:
            self[length] = unpack
        return unpack


class RunPackers(dict[Any, Callable[..., bytes]]):
    """Length of the array in a run of fields, or lengths of its arrays -> what packs the run.

    Kept for short arrays only. `around` holds the struct letters before, between and behind the arrays. An array's
    count is the last letter before it; where `compact` it is one byte, which says no more than 126 elements, so that
    longer arrays are packed piece by piece.
    """

    def __init__(self, around: Sequence[Sequence[str]], elements: Sequence[str], *, compact: bool) -> None:
        super().__init__()
        assert len(around) == len(elements) + 1, f"{around} is not around {elements}"
        self._around, self._elements, self._compact = around, elements, compact

    def __missing__(self, key: Any) -> Callable[..., bytes]:
        lengths = key if isinstance(key, tuple) else (key,)
        if max(lengths) > PACKED_LENGTH_MAX:
            return lambda *values: self._pack(lengths, values)
        letters = "".join(self._around[0])
        for length, element, after in zip(lengths, self._elements, self._around[1:], strict=True):
            letters += f"{length}{element}" + "".join(after)
        packer = self[key] = struct.Struct(">" + letters).pack
        return packer

    def _pack(self, lengths: Sequence[int], values: Sequence[Any]) -> bytes:
        """Pack piece by piece, as a count may take more than the one byte that a struct letter can say."""
        parts, start = [], 0

        def piece(letters: str, size: int) -> bytes:
            nonlocal start
            start += size
            return struct.pack(">" + letters, *values[start - size : start])

        for letters, element, length in zip(self._around, self._elements, lengths, strict=False):
            before = letters[:-1] if self._compact else letters
            parts.append(piece("".join(before), sum(letter != "x" for letter in before)))
            if self._compact:
                parts.append(varint_bytes(values[start]))
                start += 1
            parts.append(piece(f"{length}{element}", length))
        parts.append(piece("".join(self._around[-1]), len(values) - start))
        return b"".join(parts)


def split(out: list[Buffer], large: list[int]) -> list[Buffer]:
    """Join what lies between the parts at the indexes in `large`, which stay as they are."""
    parts: list[Buffer] = []
    start = 0
    for index in large:
        parts += b"".join(out[start:index]), out[index]
        start = index + 1
    if start < len(out):
        parts.append(b"".join(out[start:]))
    return parts


ARRAY_UNPACKERS: Final = {letter: ArrayUnpackers(letter) for letter, _ in SCALARS.values()}
ONE_BYTE_VARINTS: Final = tuple(bytes([value]) for value in range(ONE_BYTE_VARINT_MAX + 1))
