"""Applying an entry: what it lists becomes visible, by renames any number of drivers may repeat at once.

    load      make directories, rename each staged file to its final name, then write _SUCCESS where it closed one
    compact   rename the directory to trash/NUMBER/DIRECTORY, then the compacted one to its place; of an open one each
              file that was replaced to trash/NUMBER/DIRECTORY, and when all are there each new one to its place

A rename that failed or has an unknown outcome is judged by both of its ends. Neither there: the log is read again. With
later entries in it, others have applied this one and gone on; else a file is lost, and nothing is touched any more.
The directories in trash are made before the entry is published, never here: a driver that wakes up days later would
otherwise move today's directory into them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.commit.decisions import Moved, judge_move, judge_swap
from millstream.hadoop_loader.commit.entries import DirectorySwap, Entry, EntryKind
from millstream.hadoop_loader.commit.errors import LostFileError, UnappliedError
from millstream.hadoop_loader.commit.reading import LogReader
from millstream.hadoop_loader.filesystem import DirectoryNotEmptyError, FileSystem, FileSystemError, UnknownOutcomeError

ACT_ATTEMPTS: Final = 5


class _SupersededError(Exception):
    """The log has later entries: this one was applied by others."""


class Applier:
    """Applies entries; keeps nothing between them, and may run beside other drivers that apply the same one."""

    def __init__(self, filesystem: FileSystem, reader: LogReader) -> None:
        self._filesystem = filesystem
        self._reader = reader

    def apply(self, entry: Entry) -> None:
        """Make all of `entry` visible. Raises UnappliedError (go on later), LostFileError (touch nothing)."""
        if entry.kind not in {EntryKind.LOAD, EntryKind.COMPACT}:
            return
        try:
            if entry.kind is EntryKind.LOAD:
                self._apply_load(entry)
            else:
                self._apply_compact(entry)
        except _SupersededError:
            return
        except (FileSystemError, OSError) as error:
            raise UnappliedError(
                f"entry {entry.number} ({entry.kind} by {entry.owner}) is published and not fully applied:"
                f" {_said(error)}; the next run goes on with it"
            ) from error
        self._mark_applied(entry.number)

    def _apply_load(self, entry: Entry) -> None:
        added = list(entry.added)
        marked = entry.closed if entry.marks_success else ()
        for _ in self._reader.in_parallel(self._make_directory, sorted({one.file.directory for one in added})):
            pass
        self._move_all(entry, [(one.staged, one.file.path, one.file.length) for one in added])
        for _ in self._reader.in_parallel(lambda directory: self._mark_closed(entry, directory), sorted(marked)):
            pass

    def _move_all(self, entry: Entry, moves: Sequence[tuple[str, str, int]]) -> None:
        """Rename files: (source, target, length)."""
        for _ in self._reader.in_parallel(lambda move: self._move(entry, *move), moves):
            pass

    def _move(self, entry: Entry, source: str, target: str, length: int) -> None:
        def judge() -> Moved:
            source_is_there = self._filesystem.status(source) is not None
            found = self._filesystem.status(target)
            return judge_move(
                source_is_there=source_is_there,
                target_length=None if found is None else found.length,
                listed_length=length,
            )

        self._rename_until_done(entry, source, target, judge)

    def _apply_compact(self, entry: Entry) -> None:
        swaps = list(entry.swaps)
        for _ in self._reader.in_parallel(lambda swap: self._swap(entry, swap), [one for one in swaps if one.is_whole]):
            pass
        for swap in swaps:
            if not swap.is_whole:
                self._replace_files(entry, swap)

    def _replace_files(self, entry: Entry, swap: DirectorySwap) -> None:
        # No name is ever used again, so a driver that wakes up days later finds nothing to move. All of the old files
        # are gone before the first new one comes: a record may be missed for a moment, and is never seen twice.
        trash = names.trash_path(entry.number, swap.directory)
        away = [(file.path, f"{trash}/{file.name}", file.length) for file in swap.removed]
        into = [(f"{swap.staged}/{file.name}", file.path, file.length) for file in swap.files]
        for moves in (away, into):
            self._move_all(entry, moves)

    def _swap(self, entry: Entry, swap: DirectorySwap) -> None:
        trash = names.trash_path(entry.number, swap.directory)

        def judge_old() -> Moved:
            # Once the compacted directory has left staging, others have made both renames, perhaps days ago, and what
            # lies at its place is the new one. As long as trash has the old one, or no room any more, a rename fails.
            if self._filesystem.status(swap.staged) is None:
                return Moved.DONE
            old_is_there = self._filesystem.status(swap.directory) is not None
            if self._filesystem.status(trash) is not None:
                return Moved.DONE
            return Moved.AGAIN if old_is_there else Moved.LOST

        def judge_new() -> Moved:
            staged_is_there = self._filesystem.status(swap.staged) is not None
            lengths = self._lengths(swap.directory)
            judged = judge_swap(staged_is_there=staged_is_there, target_lengths=lengths, swap=swap)
            if judged is Moved.AGAIN and lengths is not None:
                self._remove_stray(swap.directory, lengths)
            if judged is Moved.DONE and staged_is_there and lengths is not None and names.SUCCESS not in lengths:
                # A stray in the place of an empty directory is as good as that one, but for its mark.
                self._mark_as(swap.staged, swap.directory)
            return judged

        if self._filesystem.status(swap.staged) is not None:
            self._rename_until_done(entry, swap.directory, trash, judge_old)
            self._rename_until_done(entry, swap.staged, swap.directory, judge_new)
        elif judge_new() is not Moved.DONE:
            raise self._lost(entry, swap.staged, swap.directory)

    def _rename_until_done(self, entry: Entry, source: str, target: str, judge: Callable[[], Moved]) -> None:
        for attempt in range(ACT_ATTEMPTS):
            try:
                self._filesystem.rename(source, target)
            except (FileExistsError, FileNotFoundError, UnknownOutcomeError) as error:
                judged = judge()
                if judged is Moved.DONE:
                    return
                if judged is not Moved.AGAIN:
                    raise self._lost(entry, source, target) from error
                if attempt == ACT_ATTEMPTS - 1:
                    raise UnappliedError(
                        f"entry {entry.number} is published and not fully applied: {source} does not become {target}"
                        f" ({error}); the next run goes on with it"
                    ) from error
            else:
                return

    def _lost(self, entry: Entry, source: str, target: str) -> Exception:
        # Who finds neither end, or a stranger at the target, looks at the log before it says so.
        if self._is_superseded(entry):
            return _SupersededError()
        return LostFileError(
            f"entry {entry.number}: {source} is gone and {self._filesystem.uri}/{target} is not what the entry lists;"
            " somebody moved or deleted files by hand: put them back (HDFS: .Trash or a snapshot) and run again;"
            " nothing was touched"
        )

    def _is_superseded(self, entry: Entry) -> bool:
        # Its number may have been cleaned away with its segment.
        return self._reader.entry(entry.number + 1) is not None or self._reader.entry(entry.number) is None

    def _lengths(self, directory: str) -> dict[str, int] | None:
        try:
            return {status.name: status.length for status in self._filesystem.list(directory)}
        except FileNotFoundError:
            return None

    def _remove_stray(self, directory: str, lengths: dict[str, int]) -> None:
        # A load's late make_directory came between the two renames; what is in it is at most a _SUCCESS.
        for name in lengths:
            self._filesystem.delete(f"{directory}/{name}")
        try:
            self._filesystem.delete(directory)
        except DirectoryNotEmptyError:
            # Another driver has put the compacted directory there since the look, and the mark may have been its own.
            if lengths:
                self._mark_success(directory)

    def _make_directory(self, path: str) -> None:
        self._again(lambda: self._filesystem.make_directory(path))

    def _mark_success(self, directory: str) -> None:
        path = f"{directory}/{names.SUCCESS}"

        self._again(lambda: mark(self._filesystem, path))

    def _mark_closed(self, entry: Entry, directory: str) -> None:
        try:
            self._mark_success(directory)
        except FileNotFoundError:
            # Either somebody deleted it for its emptiness, or this driver wakes up while a compaction replaces it: a
            # directory made then would say that it has all rows, and have none.
            if self._is_superseded(entry):
                raise _SupersededError from None
            self._make_directory(directory)
            self._mark_success(directory)

    def _mark_as(self, staged: str, directory: str) -> None:
        if self._filesystem.status(f"{staged}/{names.SUCCESS}") is not None:
            self._mark_success(directory)

    def _mark_applied(self, number: int) -> None:
        # Only spares the next run a look at every file: that it is missing is no failure.
        with suppress(FileSystemError, OSError):
            mark(self._filesystem, names.applied_path(number))

    @staticmethod
    def _again(act: Callable[[], None]) -> None:
        # For acts that may be repeated at will.
        for attempt in range(ACT_ATTEMPTS):
            try:
                return act()
            except UnknownOutcomeError:
                if attempt == ACT_ATTEMPTS - 1:
                    raise
        return None


def _said(error: Exception) -> str:
    if isinstance(error, FileExistsError) and error.filename2 is None:
        return f"{error.filename} is a file where a directory has to be: move it away"
    return str(error)


def mark(filesystem: FileSystem, path: str) -> None:
    """Make an empty file that says something by being there; that it is there already is fine.

    It is synced as entries are: else a power cut could keep what was published after it, and lose it for ever.
    """
    # Looked at first: HDFS refuses to create a file that a crash left open in a way of its own.
    if filesystem.status(path) is not None:
        return
    with suppress(FileExistsError):
        file = filesystem.create(path)
        file.sync()
        file.close()
