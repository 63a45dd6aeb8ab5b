"""Entries to bytes and back, and the lines that describe a file, which entries and the inventory share.

The small parts of an entry are one line in its section `changes`; files and replaced directories are a line each in
`files`, decoded only when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from millstream.hadoop_loader.commit import envelope
from millstream.hadoop_loader.commit.entries import (
    AddedFile,
    DirectorySwap,
    Entry,
    EntryKind,
    Position,
    Role,
    TableFile,
    Totals,
)
from millstream.hadoop_loader.commit.envelope import Section
from millstream.hadoop_loader.commit.errors import CorruptLogError
from millstream.hadoop_loader.splits import FileKind

_SECTIONS: Final = frozenset({"changes", "files", "swaps"})
# What a line or a header that this version does not know ends in, where it is taken apart.
UNKNOWN: Final = (KeyError, ValueError, TypeError)

# Fields of a file's line, behind its directory and name. New ones go to the end.
_COLUMNS: Final = (
    "topic",
    "topic_id",
    "partition",
    "first_offset",
    "last_offset",
    "rows",
    "length",
    "checksum",
    "min_timestamp_ms",
    "max_timestamp_ms",
    "kind",
    "schema_version",
)


def file_to_line(file: TableFile) -> list[Any]:
    """A file as a JSON array."""
    return [file.directory, file.name, *(getattr(file, column) for column in _COLUMNS)]


def file_from_line(line: list[Any], path: str) -> TableFile:
    """The file of a JSON array in the file at `path`. Raises CorruptLogError."""
    fields = dict(zip(("directory", "name", *_COLUMNS), line, strict=False))
    try:
        fields["kind"] = FileKind(fields["kind"])
        return TableFile(**fields)
    except UNKNOWN as error:
        raise envelope.of_newer_version(path, f"{'/'.join(map(str, line[:2]))}: {error!r}") from error


class _Added:
    """The files a load added, decoded while they are iterated over."""

    def __init__(self, section: Section, path: str) -> None:
        self._section = section
        self._path = path

    def __iter__(self) -> Iterator[AddedFile]:
        for staged, *line in self._section:
            yield AddedFile(file_from_line(line, self._path), staged)


class _Swaps:
    """The directories a compaction replaced, decoded while they are iterated over."""

    def __init__(self, section: Section, path: str) -> None:
        self._section = section
        self._path = path

    def __iter__(self) -> Iterator[DirectorySwap]:
        for line in self._section:
            yield _swap_from_line(line, self._path)


def _swap_from_line(line: list[Any], path: str) -> DirectorySwap:
    try:
        # Entries of before open directories were compacted say nothing of `is_whole`.
        directory, staged, removed, files, *is_whole = line
        before = tuple(file_from_line(file, path) for file in removed)
        return DirectorySwap(directory, staged, before, tuple(file_from_line(file, path) for file in files), *is_whole)
    except UNKNOWN as error:
        raise envelope.of_newer_version(path, f"{line[0]}: {error!r}") from error


def _nested(values: Mapping[str, Mapping[int, Any]]) -> dict[str, list[list[Any]]]:
    # JSON has only texts as keys: partitions go into arrays.
    return {
        topic_id: [
            [partition, *value] if isinstance(value, tuple) else [partition, value]
            for partition, value in partitions.items()
        ]
        for topic_id, partitions in values.items()
    }


def positions_to_json(positions: Mapping[str, Mapping[int, Position]]) -> dict[str, list[list[int]]]:
    """Positions as arrays of partition, offset and leader epoch."""
    return _nested(positions)


def positions_from_json(given: Mapping[str, list[list[int]]]) -> dict[str, dict[int, Position]]:
    """The inverse of positions_to_json."""
    return {
        topic_id: {partition: Position(offset, epoch) for partition, offset, epoch in lines}
        for topic_id, lines in given.items()
    }


def watermarks_to_json(watermarks: Mapping[str, Mapping[int, int]]) -> dict[str, list[list[int]]]:
    """Watermarks as arrays of partition and milliseconds."""
    return _nested(watermarks)


def watermarks_from_json(given: Mapping[str, list[list[int]]]) -> dict[str, dict[int, int]]:
    """The inverse of watermarks_to_json."""
    return {topic_id: dict(map(tuple, lines)) for topic_id, lines in given.items()}  # type: ignore[arg-type]


def encode_entry(entry: Entry) -> bytes:
    """The bytes to be published."""
    header = {
        "number": entry.number,
        "kind": entry.kind,
        "role": entry.role,
        "epoch": entry.epoch,
        "run_id": entry.run_id,
        "owner": entry.owner,
        "base": entry.base,
        "at_ms": entry.at_ms,
        "token": entry.token,
        "cluster_id": entry.cluster_id,
        "totals": entry.totals,
        "files_changed": entry.files_changed,
        "marks_success": entry.marks_success,
    }
    changes = {
        "topics": entry.topics,
        "positions": positions_to_json(entry.positions),
        "watermarks": watermarks_to_json(entry.watermarks),
        "opened": entry.opened,
        "closed": entry.closed,
        "schemas": entry.schemas,
        "report": entry.report,
    }
    sections: dict[str, Any] = {}
    if any(changes.values()):
        sections["changes"] = [changes]
    if entry.kind is EntryKind.LOAD:
        sections["files"] = ([added.staged, *file_to_line(added.file)] for added in entry.added)
    if entry.kind is EntryKind.COMPACT:
        sections["swaps"] = (
            [
                swap.directory,
                swap.staged,
                list(map(file_to_line, swap.removed)),
                list(map(file_to_line, swap.files)),
                swap.is_whole,
            ]
            for swap in entry.swaps
        )
    return envelope.encode(header, sections)


def decode_entry(data: bytes, path: str, number: int) -> Entry:
    """The entry in a file read whole. Raises CorruptLogError, also if it is another number's."""
    header, sections = envelope.decode(data, path)
    if header.get("number") != number:
        raise CorruptLogError(f"{path}: holds entry {header.get('number')}; it was moved there by hand: move it back")
    envelope.check_sections(path, sections, _SECTIONS)
    try:
        return _entry(header, sections, number, path)
    except UNKNOWN as error:
        raise envelope.of_newer_version(path, repr(error)) from error


def _entry(header: Mapping[str, Any], sections: Mapping[str, Section], number: int, path: str) -> Entry:
    changes: dict[str, Any] = next(iter(sections["changes"])) if "changes" in sections else {}
    return Entry(
        number=number,
        kind=EntryKind(header["kind"]),
        role=Role(header["role"]),
        epoch=header["epoch"],
        run_id=header["run_id"],
        owner=header["owner"],
        base=header["base"],
        at_ms=header["at_ms"],
        token=header["token"],
        cluster_id=header["cluster_id"],
        totals={key: Totals(*values) for key, values in header["totals"].items()},
        files_changed=header["files_changed"],
        topics=changes.get("topics", {}),
        positions=positions_from_json(changes.get("positions", {})),
        watermarks=watermarks_from_json(changes.get("watermarks", {})),
        opened=tuple(changes.get("opened", ())),
        closed=tuple(changes.get("closed", ())),
        marks_success=header["marks_success"],
        schemas=changes.get("schemas", {}),
        report=changes.get("report", {}),
        added=_Added(sections["files"], path) if "files" in sections else (),
        swaps=_Swaps(sections["swaps"], path) if "swaps" in sections else (),
    )
