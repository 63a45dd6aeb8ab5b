"""Which directories are worth compacting: pure, from the state of the commit log."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from millstream.hadoop_loader.commit.names import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Collection

    from millstream.hadoop_loader.commit import TableFile, TableState
    from millstream.hadoop_loader.job import CompactionSettings


@dataclass(frozen=True, slots=True)
class DirectoryPlan:
    """A closed directory whose files are to become fewer; `files` in the order of their partitions and offsets."""

    directory: str  # relative to the root
    table: str
    format: str
    below: str  # the directory below TABLE/FORMAT
    files: tuple[TableFile, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.length for file in self.files)

    @property
    def rows(self) -> int:
        """Of all files."""
        return sum(file.rows for file in self.files)


def plan_compaction(
    state: TableState, settings: CompactionSettings, *, tables: Collection[str] | None = None
) -> list[DirectoryPlan]:
    """Return what to compact, in the order of directories' names; only of `tables`, where they are given.

    Directories with others of the table below them are left out, as they cannot be replaced as a whole: a partitioning
    that became finer leaves such behind.
    """
    plans: list[DirectoryPlan] = []
    outer = _with_others_below(state)
    for directory, group in groupby(state.files.under(), key=lambda file: file.directory):
        table, _, rest = directory.partition("/")
        format_, _, below = rest.partition("/")
        if (tables is not None and table not in tables) or not state.is_closed(directory):
            continue
        if directory in outer:
            continue
        files = sorted(group, key=lambda file: (file.topic, file.partition, file.first_offset, file.name))
        if is_worth_it(files, settings):
            plans.append(DirectoryPlan(directory, table, format_, below, tuple(files)))
    return plans


def _with_others_below(state: TableState) -> set[str]:
    """Return the directories that have some of the table, open or closed, below them; relative to the root."""
    found: set[str] = set()
    for held in (state.open, state.closed):
        for key, directories in held.items():
            for below in directories:
                parent = f"{key}/{below}" if below else key
                while parent != key:
                    parent = parent.rpartition("/")[0]
                    found.add(parent)
    return found


def is_worth_it(files: Collection[TableFile], settings: CompactionSettings) -> bool:
    """Whether files of one directory would become fewer: they are smaller than they should be, and not all of one
    compaction, which has made of them what it could."""
    wanted = max(1, -(-sum(file.length for file in files) // settings.target_file_size_bytes))
    if len(files) < max(2, settings.files_min) or len(files) <= wanted:
        return False
    return any(file.partition >= 0 for file in files) or len({_number_of(file.name) for file in files}) > 1


def _number_of(name: str) -> str:
    """Return the part of a file's name that says which entry brought it."""
    return name.rpartition(SEPARATOR)[2]
