"""Deleting what nobody can need any more; only a claim's owner does it, and only what is certain to be dead.

    staging      of lower epochs of the claim's role: their owners are fenced, and their last entry was applied before
                 the claim could be published
    publishing   names whose number the log has: a rename from there can only fail
    renewals     counters of numbers before the claim that belong to no role's last claim
    applied      marks of entries that are not the last
    trash        of entries that others follow, untouched for snapshot_retention by the file system's own clock
    checkpoints  all but the newest two, once the one that follows is older than snapshot_retention: as long as it was
                 the newest, numbers were pinned that take it, however old it is. So readers have a number for as long
                 from when it was the last, and the log can be read without its newest checkpoint should that be damaged
    log          segments that all kept checkpoints cover, as old, but never the last one
    inventory    runs that no kept checkpoint names, as old, when a checkpoint is deleted

Directories are first renamed to `discarded`, so that they go at once: who still works in one finds its parent missing.
Nothing here is needed for a load to be right, so no error ends the run. What may not be deleted is told, and the rest
is done; a file system that does not answer ends the cleaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.commit.checkpoints import decode_checkpoint
from millstream.hadoop_loader.commit.claims import Claim
from millstream.hadoop_loader.commit.entries import Role
from millstream.hadoop_loader.commit.errors import CorruptLogError
from millstream.hadoop_loader.commit.reading import LogReader
from millstream.hadoop_loader.filesystem import (
    FileStatus,
    FileSystem,
    FileSystemError,
    UnavailableError,
    UnknownOutcomeError,
)

CHECKPOINTS_KEPT: Final = 2
# What is told of one cleaning; of ten thousand files that may not be deleted one says as much as all.
PROBLEMS_MAX: Final = 5


class Cleaner:
    """Cleans one root for one claim."""

    def __init__(self, filesystem: FileSystem, reader: LogReader, retention_s: float) -> None:
        self._filesystem = filesystem
        self._reader = reader
        self._retention_ms = int(retention_s * 1000)

    def clean(self, claim: Claim) -> list[str]:
        """Delete what is dead, and return what could not be, and why."""
        if not claim.last_is_applied:
            return []
        problems: list[str] = []
        works = (
            self._empty_discarded,
            self._clean_staging,
            self._clean_small_files,
            self._clean_trash,
            self._clean_log,
        )
        for work in works:
            try:
                work(claim, problems)
            except (UnavailableError, UnknownOutcomeError) as error:
                problems.append(str(error))
                break
            except (FileSystemError, OSError, CorruptLogError) as error:
                problems.append(str(error))
        told = problems[:PROBLEMS_MAX]
        return told if len(told) == len(problems) else [*told, f"and {len(problems) - len(told)} more like these"]

    def is_due(self, role: Role, now_ms: int) -> bool:
        """Whether something of the role, or of both, is past its time by `now_ms`."""
        before_ms = now_ms - self._retention_ms
        if any(
            self._is_of(role, status) and self._reader.list(status.path)
            for status in self._old(names.STAGING, before_ms)
        ):
            return True
        return any(self._old(directory, before_ms) for directory in (names.TRASH, names.DISCARDED))

    def _old(self, directory: str, before_ms: int) -> list[FileStatus]:
        return [status for status in self._reader.list(directory) if status.modified_ms <= before_ms]

    @staticmethod
    def _is_of(role: Role, status: FileStatus) -> bool:
        return status.name.partition("-")[2] == role

    def _clean_staging(self, claim: Claim, problems: list[str]) -> None:
        def is_dead(status: FileStatus) -> bool:
            epoch = status.name.partition("-")[0]
            return self._is_of(claim.role, status) and epoch.isdigit() and int(epoch) < claim.epoch

        _each(self._discard, filter(is_dead, self._reader.list(names.STAGING)), problems)

    def _clean_small_files(self, claim: Claim, problems: list[str]) -> None:
        end = claim.state.number
        live = {(record.number, record.run_id) for record in claim.state.claims.values()}

        def is_dead_counter(status: FileStatus) -> bool:
            number = names.parse_number(status.name)
            run_id = status.name.split(names.SEPARATOR)[1:2]
            return number is not None and number < claim.number and (number, *run_id) not in live

        def is_past(status: FileStatus) -> bool:
            number = names.parse_number(status.name)
            return number is not None and number < end

        # The other role may be at a checkpoint under an earlier number; it then goes without that checkpoint.
        _each(self._delete, filter(is_past, self._reader.list(names.PUBLISHING)), problems)
        _each(self._delete, filter(is_dead_counter, self._reader.list(names.RENEWALS)), problems)
        _each(self._delete, filter(is_past, self._reader.list(names.APPLIED)), problems)

    def _clean_trash(self, claim: Claim, problems: list[str]) -> None:
        before_ms = self._server_time_ms(claim) - self._retention_ms

        def discard_if_old(status: FileStatus) -> None:
            if self._newest_change_ms(status) <= before_ms:
                self._discard(status)

        def is_dead(status: FileStatus) -> bool:
            number = names.parse_number(status.name)
            return number is not None and number <= claim.state.number

        # What was made lately needs no look into it, as deep as it may be.
        _each(discard_if_old, filter(is_dead, self._old(names.TRASH, before_ms)), problems)

    def _clean_log(self, claim: Claim, problems: list[str]) -> None:
        now_ms = self._server_time_ms(claim)

        def is_old(status: FileStatus) -> bool:
            return now_ms - status.modified_ms >= self._retention_ms

        listed = self._numbered(names.CHECKPOINTS)
        old = 0
        # Its own age says nothing: a root may have been quiet for days, and what is loaded now stands on it.
        while old < len(listed) - CHECKPOINTS_KEPT and is_old(listed[old + 1]):
            self._filesystem.delete(listed[old].path)
            old += 1
        kept = listed[old:]
        if len(kept) < CHECKPOINTS_KEPT:
            return
        covered = names.parse_number(kept[0].name) or 0
        segments = self._numbered(names.LOG)
        last_segment = names.segment_of(claim.state.number)
        for status in segments:
            segment = names.parse_number(status.name) or 0
            is_covered = (segment + 1) * names.ENTRIES_PER_SEGMENT - 1 <= covered
            # In order, and never the last: the end of the log is found by a listing.
            if not (segment < last_segment and is_covered and is_old(status)):
                break
            self._discard(status)
        if old:
            # Only then can a run have lost the last checkpoint that names it.
            runs = self._numbered(names.INVENTORY)
            aged = [status for status in runs if is_old(status) and (names.parse_number(status.name) or 0) < covered]
            self._clean_inventory(kept, aged, problems)

    def _clean_inventory(self, kept: Iterable[FileStatus], old: Iterable[FileStatus], problems: list[str]) -> None:
        named: set[str] = set()
        for status in kept:
            number = names.parse_number(status.name)
            assert number is not None, status
            state = decode_checkpoint(self._reader.read_file(status.path), status.path, number, self._filesystem.open)
            named.update(run.path for run in state.files.runs)
        _each(self._delete, (status for status in old if status.path not in named), problems)

    def _numbered(self, directory: str) -> list[FileStatus]:
        return [status for status in self._reader.list(directory) if names.parse_number(status.name) is not None]

    def _server_time_ms(self, claim: Claim) -> int:
        # When the claim was published, by the clock that also stamps what is compared with it; no other machine's.
        status = self._filesystem.status(names.entry_path(claim.number))
        return 0 if status is None else status.modified_ms

    def _newest_change_ms(self, status: FileStatus) -> int:
        # A rename into a directory changes that directory: the parent of what was put into trash shows when.
        newest = status.modified_ms
        for child in self._filesystem.list(status.path):
            if child.is_directory:
                newest = max(newest, self._newest_change_ms(child))
        return newest

    def _discard(self, status: FileStatus) -> None:
        target = f"{names.DISCARDED}/{status.path.replace('/', names.SEPARATOR)}"
        with suppress(FileNotFoundError):
            self._filesystem.rename(status.path, target)
        self._filesystem.delete(target, recursive=True)

    def _delete(self, status: FileStatus) -> None:
        self._filesystem.delete(status.path, recursive=status.is_directory)

    def _empty_discarded(self, _claim: Claim, problems: list[str]) -> None:
        _each(self._delete, self._reader.list(names.DISCARDED), problems)


def _each(act: Callable[[FileStatus], None], dead: Iterable[FileStatus], problems: list[str]) -> None:
    """Do away with each: one that may not be deleted keeps none of the others. Raises where there is no answer."""
    for status in dead:
        try:
            act(status)
        except (UnavailableError, UnknownOutcomeError):
            raise
        except (FileSystemError, OSError) as error:
            problems.append(str(error))
