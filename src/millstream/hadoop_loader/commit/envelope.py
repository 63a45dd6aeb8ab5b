"""The bytes of an entry or a checkpoint: a header people can read, sections that may be large, a checksum over all.

    millstream-log 1\\n
    {JSON: what it is, and "sections": [[name, stored bytes, bytes], ...]}\\n
    the sections one after the other, each JSON lines in a zlib stream
    crc32c:XXXXXXXX\\n                   of everything before this line

A section's lines are decoded one at a time when somebody iterates over them, so an entry of 40,000 files costs the
memory of its compressed bytes until then, and of one line at a time after. `head -2` shows an operator what a file is.

A newer version may add names to an object (the header, the line of changes or of a state), and columns at the end of a
file's line, for what an older one does well without; all else that is new (a layout, a kind, a section, a column of any
other line) an older one refuses.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from millstream.core.records import crc32c
from millstream.hadoop_loader.commit.errors import CorruptLogError

_MAGIC_OF_ANY: Final = b"millstream-log "
_MAGIC: Final = _MAGIC_OF_ANY + b"1\n"
_TRAILER: Final = b"crc32c:%08x\n"
TRAILER_SIZE_BYTES: Final = len(_TRAILER % 0)
# What one entry or checkpoint may have on disk, and what it may claim to hold: 10 M files, far beyond one run.
SIZE_BYTES_MAX: Final = 512 * 1024 * 1024
SECTION_BYTES_MAX: Final = 4 * 1024 * 1024 * 1024
_LEVEL: Final = 1  # the fastest: these are written once, and read some hundred times
_CHUNK_BYTES: Final = 256 * 1024


def to_json(value: Any) -> str:
    """Compact JSON, with non-ASCII letters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Section:
    """Lines of JSON in a zlib stream, decoded while they are iterated over; any number of times."""

    stored: bytes
    size_bytes: int

    def __iter__(self) -> Iterator[Any]:
        stream = zlib.decompressobj()
        rest = b""
        taken = 0
        data = self.stored
        while data or rest:
            chunk = stream.decompress(data, _CHUNK_BYTES)
            data = stream.unconsumed_tail
            taken += len(chunk)
            if taken > self.size_bytes:
                raise CorruptLogError(f"a section holds more than the {self.size_bytes} bytes it announces")
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield json.loads(line)
            if not chunk and not data:
                break
        if rest or taken != self.size_bytes:
            raise CorruptLogError(f"a section ends after {taken} of {self.size_bytes} bytes")


def encode(header: Mapping[str, Any], sections: Mapping[str, Iterable[Any]]) -> bytes:
    """The file's bytes. Each section's items become one line each."""
    listed = []
    stored: list[bytes] = []
    for name, items in sections.items():
        stream = zlib.compressobj(_LEVEL)
        size = 0
        parts = []
        for item in items:
            line = to_json(item).encode() + b"\n"
            size += len(line)
            parts.append(stream.compress(line))
        parts.append(stream.flush())
        body = b"".join(parts)
        listed.append([name, len(body), size])
        stored.append(body)
    data = b"".join([_MAGIC, to_json({**header, "sections": listed}).encode(), b"\n", *stored])
    assert len(data) < SIZE_BYTES_MAX, f"{header}: {len(data)} bytes"
    return data + _TRAILER % crc32c(data)


def decode(data: bytes, path: str) -> tuple[dict[str, Any], dict[str, Section]]:
    """Header and sections of a file read whole from `path`. Raises CorruptLogError if it isn't what was written."""
    body, trailer = data[:-TRAILER_SIZE_BYTES], data[-TRAILER_SIZE_BYTES:]
    if data.startswith(_MAGIC_OF_ANY) and not data.startswith(_MAGIC) and trailer == _TRAILER % crc32c(body):
        raise of_newer_version(path, data[: len(_MAGIC)].decode(errors="replace").strip())
    if not data.startswith(_MAGIC) or trailer != _TRAILER % crc32c(body):
        raise CorruptLogError(
            f"{path}: {len(data)} bytes that do not fit their checksum; restore the file from a snapshot or a backup"
        )
    try:
        return _split(body)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptLogError(f"{path}: {error}, though its checksum fits; another program wrote it") from error


def of_newer_version(path: str, what: object) -> CorruptLogError:
    """The error for what this version cannot read, though all of its bytes are there."""
    return CorruptLogError(f"{path}: {what}: written by a newer version of millstream; use that one here")


def check_sections(path: str, found: Iterable[str], known: Container[str]) -> None:
    """Raise CorruptLogError for a section this version does not know: whoever leaves one out reads something else."""
    for name in found:
        if name not in known:
            raise of_newer_version(path, f"has a section {name}")


def _split(body: bytes) -> tuple[dict[str, Any], dict[str, Section]]:
    end = body.index(b"\n", len(_MAGIC))
    header = json.loads(body[len(_MAGIC) : end])
    position = end + 1
    sections = {}
    for name, stored, size in header.pop("sections"):
        if not 0 <= stored <= len(body) - position or not 0 <= size <= SECTION_BYTES_MAX:
            raise ValueError(f"section {name} of {stored} bytes")
        sections[name] = Section(body[position : position + stored], size)
        position += stored
    if position != len(body):
        raise ValueError(f"{len(body) - position} bytes behind the last section")
    return header, sections
