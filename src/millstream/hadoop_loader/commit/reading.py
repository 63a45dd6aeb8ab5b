"""Reading the log: from the newest checkpoint to its end, whoever cleans it meanwhile.

The end is what a listing of the last segment shows. A checkpoint below it is loaded and the entries between are folded
in. A file that was there in the listing and is gone when it is read means that a checkpoint newer than ours covers it:
the whole is read anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.commit.checkpoints import decode_checkpoint
from millstream.hadoop_loader.commit.encoding import decode_entry
from millstream.hadoop_loader.commit.entries import Entry, EntryKind
from millstream.hadoop_loader.commit.envelope import SIZE_BYTES_MAX
from millstream.hadoop_loader.commit.errors import CorruptLogError
from millstream.hadoop_loader.commit.state import TableState
from millstream.hadoop_loader.filesystem import FileStatus, FileSystem

READ_ATTEMPTS: Final = 5
# From so many calls on they are made by several threads: one answers in a millisecond or a hundred.
_CALLS_IN_TURN: Final = 4

A = TypeVar("A")
B = TypeVar("B")


class LogRead(NamedTuple):
    """The state at a number, and the entry of that number (None for an empty log)."""

    state: TableState
    last: Entry | None


class LogReader:
    """Reads one root's log; keeps nothing between calls. Any thread may use it."""

    def __init__(self, filesystem: FileSystem, threads: int) -> None:
        self._filesystem = filesystem
        self._threads = threads

    def read(self, number: int | None = None) -> LogRead:
        """The state at `number`, or at the end.

        Raises LookupError if the log has not yet or no longer what `number` takes, CorruptLogError if it lacks what its
        end takes.
        """
        for _ in range(READ_ATTEMPTS):
            try:
                end = self._end()
                if number is None or number <= end:
                    return self._read_at(end if number is None else number)
            except FileNotFoundError:
                continue
            raise LookupError(f"{self._filesystem.uri}: the log ends at {end}, before {number}")
        where = f"{self._filesystem.uri}/{names.LOG}"
        if number is None:
            raise CorruptLogError(
                f"{where}: lacks entries behind its last checkpoint; restore the files from a snapshot"
            )
        raise LookupError(f"{where}: lacks what number {number} takes: it is older than snapshot_retention")

    def entry(self, number: int) -> Entry | None:
        """Entry `number`, or None if there is none. Raises CorruptLogError."""
        path = names.entry_path(number)
        try:
            data = self.read_file(path)
        except FileNotFoundError:
            return None
        return decode_entry(data, path, number)

    def read_file(self, path: str) -> bytes:
        """A whole file; FileNotFoundError."""
        with self._filesystem.open(path) as file:
            if file.size > SIZE_BYTES_MAX:
                raise CorruptLogError(f"{path}: {file.size} bytes, more than anything the log writes")
            return file.read_at(0, file.size)

    def list(self, path: str) -> list[FileStatus]:
        """The children of a directory, none if it isn't there."""
        try:
            return self._filesystem.list(path)
        except FileNotFoundError:
            return []

    def is_applied(self, entry: Entry) -> bool:
        """Whether entry, the last of the log, needs nothing done any more."""
        if entry.kind not in {EntryKind.LOAD, EntryKind.COMPACT}:
            return True
        return self._filesystem.status(names.applied_path(entry.number)) is not None

    def in_parallel(self, work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """`work` of each, in order; by several threads if there are many. The first error ends it."""
        given = list(items)
        if self._threads == 1 or len(given) < _CALLS_IN_TURN:
            yield from map(work, given)
            return
        with ThreadPoolExecutor(self._threads, thread_name_prefix="commit") as threads:
            try:
                yield from threads.map(work, given)
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _end(self) -> int:
        # The highest number in the log, 0 if it is empty. FileNotFoundError if a segment went away since it was listed:
        # without it the log would look empty.
        segments = [status.path for status in self.list(names.LOG) if names.parse_number(status.name) is not None]
        # The last segment is empty between its making and its first entry; the one before it then has the end.
        for path in reversed(segments):
            numbers = [names.parse_number(status.name) for status in self._filesystem.list(path)]
            found = max((number for number in numbers if number is not None), default=0)
            if found:
                return found
        return 0

    def _read_at(self, number: int) -> LogRead:
        state = self._checkpoint(number)
        last: Entry | None = None
        for entry in self.in_parallel(self._entry_that_was_listed, range(state.number + 1, number + 1)):
            state.fold(entry)
            last = entry
        if last is None and number:
            # The checkpoint is at the very end. Segments are removed only behind the last one, so its entry is there.
            last = self.entry(number)
        return LogRead(state, last)

    def newest_checkpoint(self, number: int | None = None) -> int:
        """The number of the newest checkpoint (up to `number`), 0 if there is none."""
        found = (names.parse_number(status.name) for status in self.list(names.CHECKPOINTS))
        return max((one for one in found if one is not None and (number is None or one <= number)), default=0)

    def _checkpoint(self, number: int) -> TableState:
        newest = self.newest_checkpoint(number)
        if not newest:
            return TableState()
        path = names.checkpoint_path(newest)
        return decode_checkpoint(self.read_file(path), path, newest, self._filesystem.open)

    def _entry_that_was_listed(self, number: int) -> Entry:
        path = names.entry_path(number)
        return decode_entry(self.read_file(path), path, number)
