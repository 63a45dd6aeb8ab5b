"""What a compaction needs before its entry can be published: names with the entry's number, and room in trash.

Both depend on the number, which is certain only once the entry is there: after a conflict they are made again for the
next one. All of it happens below the claim's staging and in trash, where no reader looks.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Final

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.commit.applying import mark
from millstream.hadoop_loader.commit.decisions import compact_entry, swap_of, why_not_swapped
from millstream.hadoop_loader.commit.entries import CompactDraft, CompactedDirectory, DirectorySwap, Entry
from millstream.hadoop_loader.commit.errors import CompactionConflictError, FencedError
from millstream.hadoop_loader.commit.reading import LogReader
from millstream.hadoop_loader.commit.state import TableState
from millstream.hadoop_loader.filesystem import FileSystem, UnknownOutcomeError, parent_of

_ATTEMPTS: Final = 5


class CompactionStager:
    """Begins compactions of one root."""

    def __init__(self, filesystem: FileSystem, reader: LogReader) -> None:
        self._filesystem = filesystem
        self._reader = reader

    def begin(self, draft: CompactDraft) -> StagedCompaction:
        """One draft on its way to an entry."""
        return StagedCompaction(self._filesystem, self._reader, draft)


class StagedCompaction:
    """A compaction draft and how its files are called at the moment."""

    def __init__(self, filesystem: FileSystem, reader: LogReader, draft: CompactDraft) -> None:
        self._filesystem = filesystem
        self._reader = reader
        self._draft = draft
        # Where each staged file is now, by directory and index.
        self._paths = {
            (directory.directory, index): file.path
            for directory in draft.directories
            for index, file in enumerate(directory.files)
        }
        directories = sorted(directory.directory for directory in draft.directories)
        for one, following in pairwise(directories):
            assert one != following, f"{one} twice in one draft"

    def entry(self, state: TableState, envelope: Entry) -> Entry:
        """The entry for the number in `envelope`, of the directories that still have what was compacted."""
        swaps: list[DirectorySwap] = []
        left_out: dict[str, str] = {}
        for directory in self._draft.directories:
            listed = list(state.files.under(directory.directory))
            present = self._present(directory.directory)
            reason = why_not_swapped(directory, state, listed, present)
            if reason is not None:
                left_out[directory.directory] = reason
                continue
            assert present is not None
            swap = swap_of(directory, listed, envelope.number)
            self._prepare(directory, swap, has_success=names.SUCCESS in present, number=envelope.number)
            swaps.append(swap)
        if not swaps:
            reasons = "; ".join(f"{directory}: {reason}" for directory, reason in left_out.items())
            raise CompactionConflictError(f"{self._filesystem.uri}: nothing is left to replace ({reasons})")
        entry = compact_entry(self._draft, tuple(swaps), envelope=envelope)
        return replace(entry, report={**entry.report, "left_out": left_out}) if left_out else entry

    def _present(self, directory: str) -> set[str] | None:
        try:
            return {status.name for status in self._filesystem.list(directory)}
        except FileNotFoundError:
            return None

    def _prepare(self, directory: CompactedDirectory, swap: DirectorySwap, *, has_success: bool, number: int) -> None:
        for index, file in enumerate(swap.files):
            path = f"{directory.staged}/{file.name}"
            self._rename(self._paths[directory.directory, index], path)
            self._paths[directory.directory, index] = path
        if has_success and directory.is_whole:
            mark(self._filesystem, f"{directory.staged}/{names.SUCCESS}")
        trash = names.trash_path(number, directory.directory)
        self._filesystem.make_directory(parent_of(trash) if directory.is_whole else trash)

    def _rename(self, source: str, target: str) -> None:
        for _ in range(_ATTEMPTS):
            try:
                self._filesystem.rename(source, target)
            except (FileExistsError, FileNotFoundError, UnknownOutcomeError) as error:
                # The source before the target: what moves in between must not look lost.
                source_is_there = self._filesystem.status(source) is not None
                if self._filesystem.status(target) is not None:
                    return
                if not source_is_there:
                    raise FencedError(f"{source} is gone: a later compaction took over and cleaned up") from error
            else:
                return
        raise UnknownOutcomeError("a rename was not answered", uri=self._filesystem.uri, path=source)
