"""Claims: the right to commit under one role, and the counter that shows that its owner is at work.

The counter is an empty file whose name is raised, `renewals/NUMBER+RUN+COUNT`: one rename each time, and a listing
shows it. It is made before the claim is published under NUMBER, so a claim whose counter is missing has been given
back. Nothing is decided by it but whether to wait: what fences is the log alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.commit.decisions import ClaimWatch, Watched, fenced_by
from millstream.hadoop_loader.commit.entries import Entry, Role
from millstream.hadoop_loader.commit.errors import ClaimedError, FencedError
from millstream.hadoop_loader.commit.reading import LogReader
from millstream.hadoop_loader.commit.state import ClaimRecord, TableState
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemError, UnknownOutcomeError

_POLLS_PER_TIMEOUT: Final = 30
_MAKE_ATTEMPTS: Final = 3
PROBE: Final = "_millstream-probe"


class Counter:
    """One claim's counter file, raised by its owner. Any thread may call it."""

    def __init__(self, filesystem: FileSystem, reader: LogReader, number: int, run_id: str) -> None:
        self._filesystem = filesystem
        self._reader = reader
        self._prefix = counter_prefix(number, run_id)
        self._lock = threading.Lock()
        # The count last seen in the file's name.
        self._count = 0

    def make(self) -> None:
        """Make the file; there already is fine."""
        with suppress(FileExistsError):
            self._filesystem.create(self._path(self._count)).close()

    def raise_(self) -> bool:
        """Raise the count; False if there is no file any more, as after a later claim cleaned up."""
        with self._lock:
            try:
                self._filesystem.rename(self._path(self._count), self._path(self._count + 1))
            except (FileNotFoundError, FileExistsError, UnknownOutcomeError):
                # An earlier one whose outcome was unknown may have taken effect since.
                found = counters_of(self._reader, self._prefix)
                if found:
                    self._count = max(int(name.rpartition(names.SEPARATOR)[2]) for name in found)
                return bool(found)
            self._count += 1
            return True

    def remove(self) -> None:
        """Give the claim back."""
        with self._lock:
            for name in counters_of(self._reader, self._prefix):
                self._filesystem.delete(f"{names.RENEWALS}/{name}")

    def _path(self, count: int) -> str:
        return f"{names.RENEWALS}/{self._prefix}{count}"


class Claim:
    """The right to commit under one role, until a later claim of it is published. Made by CommitLog.claim.

    `renew` may be called by any thread; all else belongs to the one that commits.
    """

    def __init__(
        self, filesystem: FileSystem, reader: LogReader, state: TableState, entry: Entry, counter: Counter
    ) -> None:
        self._filesystem = filesystem
        self._reader = reader
        self._counter = counter
        self.role: Role = entry.role
        self.epoch = entry.epoch
        self.number = entry.number
        self.run_id = entry.run_id
        self.owner = entry.owner
        # As of the last entry this claim has seen; moved on by commit. Invariant: state.number == last.number.
        self.state = state
        self.last = entry
        # Whether every rename of `last` is known to be done.
        self.last_is_applied = True
        # Whether an entry of this claim may still be on its way. Nothing is published under it any more then: the
        # next claim finds out, and takes its number.
        self.is_unsettled = False

    @property
    def staging_directory(self) -> str:
        """The directory of this claim's epoch, made with the claim."""
        return names.staging_path(self.epoch, self.role)

    def renew(self) -> None:
        """Raise the counter; call it every `renewal_interval_s` from a thread. FencedError once taken over."""
        if self._counter.raise_():
            return
        self.check_fenced(self._reader.read().state)
        self._counter.make()

    def staging(self, split: int, attempt: int) -> str:
        """Make the directory for one attempt at a split, and return its path. FencedError once taken over."""
        path = f"{self.staging_directory}/{split}-{attempt}"
        try:
            make_child(self._filesystem, path)
        except FileNotFoundError as error:
            raise FencedError(
                f"{path}: the staging directory of epoch {self.epoch} is gone: a later run took over"
            ) from error
        return path

    def probe(self, directories: Iterable[str]) -> None:
        """Try a rename from staging to each directory (relative to the root; made if need be), and take it back.

        Raises what the file system says, such as that an encryption zone or a mount lies between.
        """
        for directory in directories:
            self._filesystem.make_directory(directory)
            source, target = f"{self.staging_directory}/{PROBE}", f"{directory}/{PROBE}"
            with suppress(FileExistsError):
                self._filesystem.create(source).close()
            try:
                self._filesystem.rename(source, target)
            except FileExistsError:
                # A probe that died here has shown the same, and left its file.
                self._filesystem.delete(source)
            self._filesystem.delete(target)

    def check_fenced(self, state: TableState) -> None:
        """Raise FencedError if `state` has a later claim of the role."""
        later = fenced_by(self.role, self.epoch, state)
        if later is not None:
            raise FencedError(
                f"{later.owner} (run {later.run_id}) took {self.role} over from {self.owner} with epoch {later.epoch};"
                " this run stops, and what it had not committed is done again"
            )

    def release(self) -> None:
        """Give the role back at once, so that the next driver need not watch for `claim_timeout_s`."""
        with suppress(FileSystemError, OSError):
            self._counter.remove()


def counter_prefix(number: int, run_id: str) -> str:
    """What the names of a claim's counter begin with."""
    return names.SEPARATOR.join((names.number_name(number), run_id, ""))


def counters_of(reader: LogReader, prefix: str) -> tuple[str, ...]:
    """The names of a claim's counter, as listed: one, or none."""
    return tuple(status.name for status in reader.list(names.RENEWALS) if status.name.startswith(prefix))


def watch(
    reader: LogReader,
    record: ClaimRecord,
    timeout_s: float,
    *,
    monotonic: Callable[[], float],
    wait: Callable[[float], None],
) -> bool:
    """Watch the last claim of a role until it may be taken over; True if that took time. ClaimedError if it moves."""
    watching = ClaimWatch(timeout_s)
    prefix = counter_prefix(record.number, record.run_id)
    waited = False
    while True:
        watched = watching.observe(counters_of(reader, prefix), monotonic())
        if watched is Watched.FREE:
            return waited
        if watched is Watched.HELD:
            raise ClaimedError(record.role, record.owner, record.run_id)
        wait(timeout_s / _POLLS_PER_TIMEOUT)
        waited = True


def make_child(filesystem: FileSystem, path: str) -> None:
    """Make a directory in one that is there; there already is fine, and so is not knowing at first."""
    for attempt in range(_MAKE_ATTEMPTS):
        try:
            with suppress(FileExistsError):
                filesystem.make_child(path)
        except UnknownOutcomeError:
            if attempt == _MAKE_ATTEMPTS - 1:
                raise
        else:
            return
