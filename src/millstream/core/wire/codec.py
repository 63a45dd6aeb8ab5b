"""Codecs made on first use: Python source for one class, one version and one direction, compiled with `exec`.

What the source does, and why it is fast enough in plain Python:

- Neighbouring fields of fixed width are one `struct` call. The length of what follows them rides along: a compact
  length is read as the one byte it nearly always is, and only a byte over 127 goes on to `unsigned_varint`.
- Nested structs and arrays are loops in the same function: no call per field, no constructor per object.
- Arrays of numbers are packed together with the fields around them, by a Struct chosen by their lengths.
- Record bytes are never copied: decoding gives views of the frame; encoding hands them to one final join, or leaves
  them as parts of their own (`encode_parts`).

Every length and count is held against the bytes present before anything is allocated for it, and the elements of a
request's arrays against REQUEST_ELEMENTS_MAX. What is malformed ends
in a WireError that names the field and the position; a table from the generated lines to the fields makes that free
until it happens. Unknown tagged fields are skipped. Bytes behind the message are the caller's business: decoding says
where it ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast

from millstream.core.wire.decoding import DecodeSource
from millstream.core.wire.encoding import EncodeSource
from millstream.core.wire.errors import WireError
from millstream.core.wire.fields import Message
from millstream.core.wire.runtime import Buffer

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class Decoder(Protocol[M_co]):
    """Reads one message at a position; returns it with the position behind it."""

    def __call__(self, data: Buffer, position: int = 0, /) -> tuple[M_co, int]: ...


class Encoder(Protocol):
    """Writes a message behind a prefix."""

    def __call__(self, message: object, prefix: Buffer = b"", /) -> bytes: ...


class PartsEncoder(Protocol):
    """Writes a message behind a prefix, as parts."""

    def __call__(self, message: object, prefix: Buffer = b"", /) -> list[Buffer]: ...


_Key: TypeAlias = tuple[type, int]
_DECODERS: Final[dict[_Key, Any]] = {}
_ENCODERS: Final[dict[_Key, Any]] = {}
_PARTS_ENCODERS: Final[dict[_Key, Any]] = {}


def decoder(cls: type[M], version: int) -> Decoder[M]:
    """The generated function (data, position=0) -> (message, position behind it); it raises WireError.

    Strings, bytes and numbers are copies; record bytes are views of `data`, which must outlive them.
    """
    made: Decoder[M] = _cached(_DECODERS, cls, version, lambda declared: DecodeSource(declared, version).function())
    return made


def encoder(cls: type, version: int) -> Encoder:
    """The generated function (message, prefix=b"") -> bytes: a prefix, such as a header, then the message, one join."""
    made: Encoder = _cached(
        _ENCODERS, cls, version, lambda declared: EncodeSource(declared, version, parts=False).function()
    )
    return made


def parts_encoder(cls: type, version: int) -> PartsEncoder:
    """Like `encoder`, but to a list of buffers in which large record bytes are parts of their own, uncopied."""
    made: PartsEncoder = _cached(
        _PARTS_ENCODERS, cls, version, lambda declared: EncodeSource(declared, version, parts=True).function()
    )
    return made


def decode(cls: type[M], version: int, data: Buffer, position: int = 0) -> tuple[M, int]:
    """Read a message at `position`; returns it with the position behind it. Raises WireError."""
    return decoder(cls, version)(data, position)


def encode(message: object, version: int, prefix: Buffer = b"") -> bytes:
    """The bytes of a message behind `prefix`; WireError if a field holds what can't be encoded.

    A field that the version does not have is left out.
    """
    return encoder(message.__class__, version)(message, prefix)


def encode_parts(message: object, version: int, prefix: Buffer = b"") -> list[Buffer]:
    """Like `encode`, as parts for a vectored write: record bytes from PART_SIZE_BYTES_MIN on aren't copied."""
    return parts_encoder(message.__class__, version)(message, prefix)


def _cached(made: dict[_Key, Any], cls: type, version: int, make: Callable[[type[Message]], Any]) -> Any:
    found = made.get((cls, version))
    if found is None:
        declared = cast("type[Message]", cls)
        assert issubclass(cls, Message), f"{cls.__name__} was not declared by @message"
        if version not in declared.__wire__.versions:
            raise WireError(f"{cls.__name__} has versions {declared.__wire__.versions}, not {version}")
        found = made[cls, version] = make(declared)
    return found
