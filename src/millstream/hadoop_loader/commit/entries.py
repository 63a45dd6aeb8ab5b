"""What the commit log says: its entries, and the drafts that become entries once they have a number.

An entry is published once and never changes. Its number is its place in the order of everything that ever happened to
the table root; nothing is ordered by a clock (`at_ms` is for people).

    claim     a driver owns `role` from here on, with an epoch higher than any before
    load      offsets moved, files added, directories closed, schemas changed
    compact   whole directories, or single files of open ones, replaced by fewer, larger files with the same records
    abort     nothing: it takes the number so that a late rename cannot
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from millstream.hadoop_loader.splits import FileKind, StagedFile


class EntryKind(StrEnum):
    """What an entry does."""

    CLAIM = "claim"
    LOAD = "load"
    COMPACT = "compact"
    ABORT = "abort"


class Role(StrEnum):
    """What a claim entitles to. One driver of each role may work at a time."""

    LOAD = "load"
    COMPACT = "compact"


class Position(NamedTuple):
    """Where the next run goes on in a partition: the next offset, and the leader epoch of the record before (or -1)."""

    offset: int
    leader_epoch: int = -1


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file that readers see, as the log describes it; `directory` is relative to the root."""

    directory: str  # "orders/parquet/day=2013-01-01", "orders.late/avro/...", "_dead_letters/orders"
    name: str
    topic: str
    topic_id: str
    partition: int  # -1: compacted, of many partitions
    first_offset: int
    last_offset: int
    rows: int
    length: int
    checksum: str  # "crc32c:%08x" of its bytes
    min_timestamp_ms: int  # -1 if no record in it has one
    max_timestamp_ms: int
    kind: FileKind = FileKind.DATA
    # Files of one entry with the same one have the same columns. 0: of a compaction, or not known.
    schema_version: int = 0

    @property
    def path(self) -> str:
        """Its path, relative to the root."""
        return f"{self.directory}/{self.name}"


class AddedFile(NamedTuple):
    """A file of a load, and where it was staged."""

    file: TableFile
    staged: str


@dataclass(frozen=True, slots=True)
class DirectorySwap:
    """A closed directory replaced whole: `staged` takes its place, the old one goes to trash/NUMBER/DIRECTORY.

    Or, if not `is_whole`, files of an open directory, where others may come at any time: those `removed` go to
    trash/NUMBER/DIRECTORY one by one, and then those in `staged` to their places.
    """

    directory: str
    staged: str
    removed: tuple[TableFile, ...]  # what was in it, or the part of it that goes
    files: tuple[TableFile, ...]  # what is in it afterwards, or comes to it
    is_whole: bool = True


class Totals(NamedTuple):
    """How much a table has in one format, or by how much an entry changed that."""

    files: int = 0
    rows: int = 0
    bytes: int = 0

    def plus(self, other: Totals, sign: int = 1) -> Totals:
        """The sum with `other`, or with -1 the difference."""
        return Totals(self.files + sign * other.files, self.rows + sign * other.rows, self.bytes + sign * other.bytes)


Positions = Mapping[str, Mapping[int, Position]]  # by topic id and partition
Watermarks = Mapping[str, Mapping[int, int]]  # by topic id and partition: the highest record time seen, in ms


@dataclass(frozen=True, slots=True)
class Entry:
    """One published entry. What is empty was not changed by it."""

    number: int
    kind: EntryKind
    role: Role
    epoch: int
    run_id: str
    owner: str
    base: int  # number of the state it was decided on
    at_ms: int
    # Of the call that published it: a run that tries twice at one number can tell which of its entries is there.
    token: str = ""
    cluster_id: str = ""
    topics: Mapping[str, str] = field(default_factory=dict)  # topic id -> name
    positions: Positions = field(default_factory=dict)
    watermarks: Watermarks = field(default_factory=dict)
    opened: tuple[str, ...] = ()  # directories, relative to the root, that got their first files
    closed: tuple[str, ...] = ()  # directories, relative to the root
    marks_success: bool = False  # whether `closed` directories get a _SUCCESS
    schemas: Mapping[str, Any] = field(default_factory=dict)  # topic -> its new document
    report: Mapping[str, Any] = field(default_factory=dict)
    totals: Mapping[str, Totals] = field(default_factory=dict)  # "TABLE/FORMAT", "_dead_letters/TOPIC" -> the change
    files_changed: int = 0  # files added and removed
    added: Iterable[AddedFile] = ()
    swaps: Iterable[DirectorySwap] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadDraft:
    """What a load wants to commit. Positions move also where only gaps were read; `closed` are directories relative to
    the root (`table_directory`), may hold files of this draft, and get a _SUCCESS with `marks_success`. Documents in
    `schemas` replace the topic's last one.
    """

    cluster_id: str = ""
    topics: Mapping[str, str] = field(default_factory=dict)
    positions: Positions = field(default_factory=dict)
    watermarks: Watermarks = field(default_factory=dict)
    files: tuple[StagedFile, ...] = ()
    closed: tuple[str, ...] = ()
    marks_success: bool = True
    schemas: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactedDirectory:
    """One directory's replacement: `staged` is a directory below Claim.staging that holds `files` and nothing else.

    `replaced` are the names of the files whose records are in it: all that the state had of `directory`. If another
    file has come since, the directory is left as it is. Of an open directory (`is_whole` False) they are some of its
    files: the others stay where they are, and if one of these has gone since, all are left.
    """

    directory: str  # relative to the root
    staged: str
    files: tuple[StagedFile, ...]
    replaced: tuple[str, ...]
    is_whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactDraft:
    """What a compaction wants to commit: directories, each replaced whole or in part."""

    directories: tuple[CompactedDirectory, ...]
    report: Mapping[str, Any] = field(default_factory=dict)
