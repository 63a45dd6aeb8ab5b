"""What a driver does next, decided from what it saw: pure, so that each rule of the protocol is one small function.

The shell (`publishing`, `applying`, `log`) makes the calls and asks here what their outcomes mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from enum import Enum

from millstream.hadoop_loader.commit.entries import (
    AddedFile,
    CompactDraft,
    CompactedDirectory,
    DirectorySwap,
    Entry,
    EntryKind,
    LoadDraft,
    Role,
    TableFile,
    Totals,
)
from millstream.hadoop_loader.commit.errors import CommitError
from millstream.hadoop_loader.commit.names import SUCCESS, compacted_name, final_directory, final_name
from millstream.hadoop_loader.commit.state import ClaimRecord, TableState, totals_key
from millstream.hadoop_loader.filesystem import NAME_BYTES_MAX
from millstream.hadoop_loader.splits import FileKind, StagedFile


class Settled(Enum):
    """What became of a publish, as told by what is at its number."""

    PUBLISHED = "ours is there"
    CONFLICT = "another's is there"
    ABSENT = "nothing is there: a rename may still arrive, until an abort takes the number"


def settle(mine: Entry, found: Entry | None) -> Settled:
    """Decide by run id and token: numbers are never used again, and a call that publishes has a token of its own."""
    if found is None:
        return Settled.ABSENT
    assert found.number == mine.number, f"{found.number} is not {mine.number}"
    is_mine = (found.run_id, found.token, found.kind) == (mine.run_id, mine.token, mine.kind)
    return Settled.PUBLISHED if is_mine else Settled.CONFLICT


def fenced_by(role: Role, epoch: int, state: TableState) -> ClaimRecord | None:
    """The later claim that took the role over, if there is one."""
    claim = state.claims.get(role)
    return claim if claim is not None and claim.epoch > epoch else None


class Watched(Enum):
    """What watching a claim's counter came to."""

    WAIT = "it has not moved, but not for long enough"
    HELD = "it moved: its owner is at work"
    FREE = "it stood still long enough, or was given back"


class ClaimWatch:
    """Watches one claim's counter on the watcher's own monotonic clock; no two machines' clocks are ever compared."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._first: tuple[Collection[str], float] | None = None

    def observe(self, counters: Collection[str], now_s: float) -> Watched:
        """Take in the counter's names as just listed; none means that the owner gave the claim back."""
        if not counters:
            return Watched.FREE
        if self._first is None:
            self._first = counters, now_s
        names, since_s = self._first
        if names != counters:
            return Watched.HELD
        return Watched.FREE if now_s - since_s >= self._timeout_s else Watched.WAIT


class Moved(Enum):
    """What a rename of an apply has come to, as told by both of its ends."""

    DONE = "target is there as listed"
    AGAIN = "source is there, target is not"
    OTHER = "something else is at the target"
    LOST = "neither is there"


def judge_move(*, source_is_there: bool, target_length: int | None, listed_length: int) -> Moved:
    """Judge a file's move. The source must have been looked at before the target, else a move in between looks lost."""
    if target_length is not None:
        return Moved.DONE if target_length == listed_length else Moved.OTHER
    return Moved.AGAIN if source_is_there else Moved.LOST


def judge_swap(*, staged_is_there: bool, target_lengths: dict[str, int] | None, swap: DirectorySwap) -> Moved:
    """Judge whether a compacted directory is in place, from lengths by name of what is there (None: no directory).

    An empty directory is one that a load's late act made again; that it holds only _SUCCESS is the same. Where the
    compacted one has no files either, such a stray is as good, and is left: another driver may have put it there.
    """
    if target_lengths is None:
        return Moved.AGAIN if staged_is_there else Moved.LOST
    if all(target_lengths.get(file.name) == file.length for file in swap.files):
        return Moved.DONE
    if set(target_lengths) <= {SUCCESS}:
        return Moved.AGAIN if staged_is_there else Moved.LOST
    return Moved.OTHER


def load_entry(draft: LoadDraft, state: TableState, *, envelope: Entry) -> Entry:
    """The load entry of a draft; `envelope` has its number and who publishes it.

    Raises CommitError for a path that no file system takes: the entry could be published, and never applied.
    """
    added = tuple(
        AddedFile(_placed(file, final_directory(file), final_name(file, envelope.number)), file.path)
        for file in draft.files
    )
    twice = [path for path, count in Counter(one.file.path for one in added).items() if count > 1]
    if twice:
        raise CommitError(f"two files of one draft would both become {twice[0]}: nothing was published")
    for one in added:
        if any(len(name.encode()) > NAME_BYTES_MAX for name in one.file.path.split("/")):
            raise CommitError(
                f"{one.file.path}: a name in it is over {NAME_BYTES_MAX} bytes; nothing was published: partition"
                " otherwise, or leave the topic out"
            )
    totals: dict[str, Totals] = {}
    for one in added:
        key = totals_key(one.file.directory)
        totals[key] = totals.get(key, Totals()).plus(Totals(1, one.file.rows, one.file.length))
    return replace(
        envelope,
        kind=EntryKind.LOAD,
        cluster_id=draft.cluster_id,
        topics=draft.topics,
        positions=draft.positions,
        watermarks=draft.watermarks,
        opened=tuple(
            sorted(
                {
                    one.file.directory
                    for one in added
                    if one.file.kind is FileKind.DATA
                    and not state.is_open(one.file.directory)
                    and not state.is_closed(one.file.directory)
                }
            )
        ),
        closed=draft.closed,
        marks_success=draft.marks_success,
        schemas=draft.schemas,
        report=draft.report,
        totals=totals,
        files_changed=len(added),
        added=added,
    )


def swap_of(directory: CompactedDirectory, listed: list[TableFile], number: int) -> DirectorySwap:
    """The swap that puts a compacted directory in the place of what it replaces of `listed`, which is all that the
    state has in it; its files are named for entry `number`."""
    files = tuple(
        _placed(file, directory.directory, compacted_name(file, index, number))
        for index, file in enumerate(directory.files)
    )
    replaced = set(directory.replaced)
    removed = tuple(file for file in listed if file.directory == directory.directory and file.name in replaced)
    return DirectorySwap(directory.directory, directory.staged, removed, files, directory.is_whole)


def why_not_swapped(
    directory: CompactedDirectory, state: TableState, listed: list[TableFile], present: Collection[str] | None
) -> str | None:
    """Why a directory has to stay as it is, or None: `listed` is what the state has in it, `present` what is there.

    Nothing that the compaction has not read may go to trash: not a late file, not a directory below, not a stranger's.
    Files that go one by one (of an open directory) must all be there, and whatever else is stays. A directory that was
    closed meanwhile says by its _SUCCESS that it is complete at any time, and so is only replaced whole, or emptied.
    """
    replaced = set(directory.replaced)
    if not directory.is_whole:
        if directory.files and state.is_closed(directory.directory):
            return "it was closed while it was compacted"
        if not replaced <= {file.name for file in listed if file.directory == directory.directory}:
            return "its files have changed since they were compacted"
        if present is None or not replaced <= set(present):
            return "it lacks files that the log has"
        return None
    if not state.is_closed(directory.directory):
        return "it is not closed"
    if any(file.directory != directory.directory for file in listed):
        return "it has directories of the table below it"
    if {file.name for file in listed} != replaced:
        return "its files have changed since it was compacted"
    if present is None or set(present) - {SUCCESS} != replaced:
        return "it holds other files than the log says"
    return None


def compact_entry(draft: CompactDraft, swaps: tuple[DirectorySwap, ...], *, envelope: Entry) -> Entry:
    """The compact entry of those directories of a draft that can be replaced."""
    totals: dict[str, Totals] = {}
    changes = [(file, -1) for swap in swaps for file in swap.removed]
    changes += [(file, 1) for swap in swaps for file in swap.files]
    for file, sign in changes:
        key = totals_key(file.directory)
        totals[key] = totals.get(key, Totals()).plus(Totals(1, file.rows, file.length), sign)
    return replace(
        envelope,
        kind=EntryKind.COMPACT,
        report=draft.report,
        totals=totals,
        files_changed=len(changes),
        swaps=swaps,
    )


def _placed(file: StagedFile, directory: str, name: str) -> TableFile:
    return TableFile(
        directory=directory,
        name=name,
        topic=file.topic,
        topic_id=file.topic_id,
        partition=file.partition,
        first_offset=file.first_offset,
        last_offset=file.last_offset,
        rows=file.rows,
        length=file.length,
        checksum=file.checksum,
        min_timestamp_ms=file.min_timestamp_ms,
        max_timestamp_ms=file.max_timestamp_ms,
        kind=file.kind,
        schema_version=file.schema_version,
    )
