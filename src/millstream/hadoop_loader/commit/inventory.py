"""Every visible file of a table root, in the order of directory and name, without holding them all in memory.

What changed since the last checkpoint is held as the entries that changed it, and decoded when somebody asks; from then
on as text in order, so that who asks for one table after the other decodes what is asked for. What the checkpoint has
is in sorted runs (`inventory_runs`), of which only the blocks that are asked for are read.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.commit.encoding import file_from_line, file_to_line
from millstream.hadoop_loader.commit.entries import Entry, TableFile
from millstream.hadoop_loader.commit.envelope import to_json
from millstream.hadoop_loader.commit.inventory_runs import (
    InventoryRun,
    Key,
    Line,
    corrupt_run,
    merge_lines,
    scan_run,
)
from millstream.hadoop_loader.filesystem import InputFile


def _opens_nothing(path: str) -> InputFile:
    raise AssertionError(f"{path}: an inventory without a file system has no runs")


class _Changes(NamedTuple):
    """What the first `entries` entries changed: a line's text by its key, and the keys in order."""

    entries: int
    lines: dict[Key, str]
    keys: list[Key]

    def with_(self, entries: Iterable[Entry]) -> _Changes:
        """These and what the next entries changed."""
        lines, count = dict(self.lines), self.entries
        for entry in entries:
            count += 1
            for added in entry.added:
                lines[added.file.directory, added.file.name] = to_json(file_to_line(added.file))
            for swap in entry.swaps:
                for file in swap.removed:
                    lines[file.directory, file.name] = to_json([file.directory, file.name])
                for file in swap.files:
                    lines[file.directory, file.name] = to_json(file_to_line(file))
        return _Changes(count, lines, sorted(lines))

    def under(self, prefix: str) -> Iterator[Line]:
        """The lines in a directory and below, in order."""
        # "/" is followed by "0": everything in or below the prefix lies between these two.
        start = bisect_left(self.keys, (prefix, ""))
        end = bisect_left(self.keys, (prefix + "0", "")) if prefix else len(self.keys)
        keys = self.keys[start:end]
        return (json.loads(self.lines[key]) for key in keys if _is_under(key[0], prefix))


@dataclass(slots=True)
class Inventory:
    """The files at one number; owned by its TableState."""

    # The checkpoint's runs, oldest first, and how to open them.
    runs: tuple[InventoryRun, ...] = ()
    open_file: Callable[[str], InputFile] = _opens_nothing
    # Entries since the checkpoint that added or removed files, oldest first.
    entries: list[Entry] = field(default_factory=list)
    # Of some of the first entries, and of all of them once somebody has asked.
    _changes: _Changes = field(default=_Changes(0, {}, []), repr=False)

    def fold(self, entry: Entry) -> None:
        """Take in what an entry did to files; nothing is decoded yet."""
        if entry.files_changed:
            self.entries.append(entry)

    @property
    def changes(self) -> int:
        """Lines that `changed_lines` would give, at most."""
        return sum(entry.files_changed for entry in self.entries)

    def under(self, prefix: str = "") -> Iterator[TableFile]:
        """The files in `prefix` (a directory relative to the root; "" for all) and below, by directory and name.

        Raises FileNotFoundError if the checkpoint it stands on has been cleaned away since the state was read.
        """
        newest_first = [self._changed_lines(prefix), *(self._scan(run, prefix) for run in reversed(self.runs))]
        return (file_from_line(line, names.INVENTORY) for line in merge_lines(newest_first, keep_removals=False))

    def in_directory(self, directory: str) -> list[TableFile]:
        """The files of one directory, those below it left out."""
        return [file for file in self.under(directory) if file.directory == directory]

    def merged_lines(self, newest_runs: int) -> Iterator[Line]:
        """What the next checkpoint's new run holds if it takes in that many of the newest runs.

        Raises CorruptLogError if one of them is damaged or not there.
        """
        kept = len(self.runs) - newest_runs
        assert kept >= 0, f"{newest_runs} of {len(self.runs)} runs"
        scanned = (self._scan_there(run) for run in reversed(self.runs[kept:]))
        return merge_lines([self._changed_lines(""), *scanned], keep_removals=kept > 0)

    def _scan(self, run: InventoryRun, prefix: str) -> Iterator[Line]:
        return scan_run(self.open_file, run, prefix)

    def _scan_there(self, run: InventoryRun) -> Iterator[Line]:
        try:
            yield from self._scan(run, "")
        except FileNotFoundError as error:
            raise corrupt_run(run.path, "is not there") from error

    def _changed_lines(self, prefix: str) -> Iterator[Line]:
        if self._changes.entries < len(self.entries):
            self._changes = self._changes.with_(self.entries[self._changes.entries :])
        return self._changes.under(prefix)


def _is_under(directory: str, prefix: str) -> bool:
    return not prefix or directory == prefix or directory.startswith(prefix + "/")
