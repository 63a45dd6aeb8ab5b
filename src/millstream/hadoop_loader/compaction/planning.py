"""Which directories are worth compacting: pure, from the state of the commit log.

A closed directory is replaced as a whole, so all its files are of one plan. Of an open one, which gets more for as long
as the topic has records, some are: those that are not large yet. A file joins smaller ones only once they are together
half as large as it is, so that each round makes the file that a row is in larger by half at least; until it has half
the wanted size, from where on it is left alone. So how often a row is encoded grows with the logarithm of the wanted
size, and not with the rounds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING

from millstream.hadoop_loader.commit.names import DEAD_LETTERS, SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from millstream.hadoop_loader.commit import TableFile, TableState
    from millstream.hadoop_loader.job import CompactionSettings


@dataclass(frozen=True, slots=True)
class DirectoryPlan:
    """A directory whose files are to become fewer; `files` in the order of their partitions and offsets.

    They are all of a closed directory (`is_whole`), or some of an open one, of one incarnation of the topic.
    """

    directory: str  # relative to the root
    table: str
    format: str
    below: str  # the directory below TABLE/FORMAT
    files: tuple[TableFile, ...]
    is_whole: bool = True

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

    Open directories are there if the job says so; dead letters never: which of them were replayed is known by the names
    of their files. Closed ones with others of the table below them are left out, as they cannot be replaced as a whole:
    a partitioning that became finer leaves such behind.
    """
    plans: list[DirectoryPlan] = []
    outer = state.outer_directories()
    # In the order of the directories' names, of which a slash is a part.
    files_of = state.files.under
    chosen = (
        files_of() if tables is None else chain.from_iterable(map(files_of, sorted(tables, key=lambda one: f"{one}/")))
    )
    for directory, group in groupby(chosen, key=lambda file: file.directory):
        table, _, rest = directory.partition("/")
        format_, _, below = rest.partition("/")
        if table == DEAD_LETTERS:
            continue
        is_whole = state.is_closed(directory)
        if directory in outer if is_whole else not settings.open_directories:
            continue
        for files in [list(group)] if is_whole else _small_files(group, settings):
            if is_worth_it(files, settings):
                files.sort(key=lambda file: (file.topic, file.partition, file.first_offset, file.name))
                plans.append(DirectoryPlan(directory, table, format_, below, tuple(files), is_whole))
    return plans


def _small_files(files: Iterable[TableFile], settings: CompactionSettings) -> list[list[TableFile]]:
    """Return those of an open directory that are to be put together, by the topic's incarnation."""
    by_topic: defaultdict[str, list[TableFile]] = defaultdict(list)
    for file in files:
        if 2 * file.length < settings.target_file_size_bytes:
            by_topic[file.topic_id].append(file)
    for small in by_topic.values():
        small.sort(key=lambda file: file.length)
        total = sum(file.length for file in small)
        while small and small[-1].length > 2 * (total - small[-1].length):
            total -= small.pop().length
    return list(by_topic.values())


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
