"""Publishing an entry: a temporary file, whole and synced, renamed to its number without ever replacing one.

Whether a rename took effect is settled by reading the number. If nothing is there, an `abort` takes it, so that a
rename that is still on its way arrives at a name that is taken. Temporary names begin with the number they are for:
once that is taken, by whomever, nobody can need them.

A segment's directory is made by whoever publishes its first number, and checked afterwards: if the log has a later one,
this process slept while the segment was filled, covered and removed, and must not bring a number back.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.commit.checkpoints import write_file
from millstream.hadoop_loader.commit.decisions import Settled, settle
from millstream.hadoop_loader.commit.encoding import encode_entry
from millstream.hadoop_loader.commit.entries import Entry, EntryKind
from millstream.hadoop_loader.commit.errors import CorruptLogError, FencedError, UnsettledError
from millstream.hadoop_loader.commit.reading import LogReader
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemError, UnknownOutcomeError

WRITE_ATTEMPTS: Final = 3
SETTLE_ATTEMPTS: Final = 10
SETTLE_WAIT_S: Final = 2.0


class Publisher:
    """Publishes entries; keeps nothing between them."""

    def __init__(
        self, filesystem: FileSystem, reader: LogReader, *, wait: Callable[[float], None], random: random.Random
    ) -> None:
        self._filesystem = filesystem
        self._reader = reader
        self._wait = wait
        self._random = random

    def publish(self, entry: Entry) -> Settled:
        """PUBLISHED, or CONFLICT if the number is another's (it may be our own abort).

        Raises FencedError if the log has moved on so far that the number's segment is gone, UnsettledError if the
        outcome could not be found out, FileSystemError if for certain nothing was published.
        """
        if entry.number == 1 or entry.number % names.ENTRIES_PER_SEGMENT == 0:
            self._make_segment(entry.number)
        temporaries = [self._write(entry)]
        outcome = self._settled(entry, self._rename(temporaries[0], entry.number), temporaries)
        for temporary in temporaries:
            # The number is taken: nothing can come of them any more.
            with suppress(FileSystemError, OSError):
                self._filesystem.delete(temporary)
        return outcome

    def _settled(self, entry: Entry, is_certain: bool, temporaries: list[str]) -> Settled:
        if is_certain:
            temporaries.clear()
            return Settled.PUBLISHED
        who = (entry.role, entry.epoch, entry.run_id, entry.owner)
        abort = Entry(entry.number, EntryKind.ABORT, *who, entry.base, entry.at_ms, entry.token)
        last: Exception | None = None
        for attempt in range(SETTLE_ATTEMPTS):
            if attempt:
                self._wait(SETTLE_WAIT_S)
            try:
                outcome = settle(entry, self._reader.entry(entry.number))
                if outcome is not Settled.ABSENT:
                    return outcome
                temporaries.append(self._write(abort))
                if self._rename(temporaries[-1], entry.number):
                    return Settled.CONFLICT
            except (FileSystemError, OSError, CorruptLogError) as error:
                last = error
        raise UnsettledError(
            f"{self._filesystem.uri}: whether entry {entry.number} was published is not known yet"
            f" ({last or 'nothing is there'}); run again when the file system answers, nothing has been cleaned"
        ) from last

    def _write(self, entry: Entry) -> str:
        data = encode_entry(entry)
        for attempt in range(WRITE_ATTEMPTS):
            nonce = f"{self._random.getrandbits(48):012x}"
            name = names.SEPARATOR.join((names.number_name(entry.number), entry.run_id, nonce))
            path = f"{names.PUBLISHING}/{name}"
            try:
                write_file(self._filesystem, path, data)
            except (UnknownOutcomeError, FileExistsError):
                # What may or may not come of this file, nobody will rename it.
                if attempt == WRITE_ATTEMPTS - 1:
                    raise
            else:
                return path
        raise AssertionError("the last attempt returns or raises")

    def _rename(self, temporary: str, number: int) -> bool:
        # True: published for certain. False: look at the number, for even a refusal may be the answer to a second
        # sending of a rename that took effect at the first.
        try:
            self._filesystem.rename(temporary, names.entry_path(number))
        except FileNotFoundError as error:
            try:
                is_too_late = self._filesystem.status(names.segment_path(names.segment_of(number))) is None
            except (FileSystemError, OSError):
                return False
            if is_too_late:
                raise self._too_late(number) from error
            return False
        except (FileExistsError, UnknownOutcomeError):
            return False
        return True

    def _make_segment(self, number: int) -> None:
        segment = names.segment_of(number)
        path = names.segment_path(segment)
        with suppress(FileExistsError):
            self._filesystem.make_child(path)
        listed = [names.parse_number(status.name) or 0 for status in self._reader.list(names.LOG)]
        if max(listed) > segment:
            with suppress(FileSystemError):
                self._filesystem.delete(path)  # not recursively: if it is the old segment after all, it stays
            raise self._too_late(number)

    def _too_late(self, number: int) -> FencedError:
        return FencedError(
            f"{self._filesystem.uri}: the log has gone far beyond {number} since this run last looked; run again"
        )
