"""A destination whose acts crash the process, or time out and take effect later, at the act a test names.

An act is any call that may change the file system: create, write, sync, close, rename, make_directory, make_child,
delete, set_attributes. They are counted from 1 over all files; `Fault(act, kind)` says what is to happen at one:

    CRASH_BEFORE, CRASH_AFTER      the process is dead: SimulatedCrashError, at that call and at every later one
    LATE                           UnknownOutcomeError now; the act takes effect just before some later act
    LOST                           UnknownOutcomeError, and it never takes effect
    ANSWER_LOST                    UnknownOutcomeError, and it has taken effect
    REFUSED                        UnavailableError: nothing has happened, and nothing will

Late acts are kept in a `LateActs`, which drivers in one simulation share: what the first one sent may arrive among the
acts of the second. Reads never fail here unless the process is dead.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Self, TypeVar

from millstream.hadoop_loader.filesystem import (
    FileStatus,
    FileSystem,
    FileSystemError,
    InputFile,
    OutputFile,
    UnavailableError,
    UnknownOutcomeError,
)
from millstream.hadoop_loader.filesystem.interface import ClosedAtEnd
from millstream.testing.faulty_disk import SimulatedCrashError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

T = TypeVar("T")


class Fault(StrEnum):
    """What happens at an act."""

    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    LATE = "times out, then takes effect"
    LOST = "times out, and never takes effect"
    ANSWER_LOST = "takes effect, then times out"
    REFUSED = "refused"


class LateActs:
    """Acts that timed out and have not taken effect yet, over all drivers of one simulation."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._waiting: list[tuple[int, Callable[[], object]]] = []
        # While set, nothing arrives but by `flush`.
        self.is_held = False
        # How many have arrived.
        self.arrived = 0

    def add(self, act: Callable[[], object]) -> None:
        """Have `act` take effect a few acts later, or many."""
        acts = self._random.choice((0, 1, 2, 3, 5, 8, 13, 40))
        self._waiting.append((acts, act))

    def step(self) -> None:
        """One act is about to happen: whatever is due happens before it."""
        if self.is_held:
            return
        due = [act for left, act in self._waiting if left <= 0]
        self._waiting = [(left - 1, act) for left, act in self._waiting if left > 0]
        for act in due:
            self._run(act)

    def flush(self) -> None:
        """Everything that is on its way arrives."""
        waiting, self._waiting = self._waiting, []
        for _, act in waiting:
            self._run(act)

    def _run(self, act: Callable[[], object]) -> None:
        self.arrived += 1
        # Its sender has long given up, and may have abandoned the file: whatever the answer is, nobody hears it.
        with suppress(FileSystemError, OSError, ValueError):
            act()


def _do_nothing(name: str) -> None:
    del name


class FaultyFileSystem(ClosedAtEnd):
    """A FileSystem over another, for one driver; see the module's text."""

    def __init__(
        self,
        inner: FileSystem,
        faults: Mapping[int, Fault] | None = None,
        *,
        late: LateActs | None = None,
        before_call: Callable[[str], None] | None = None,
        after_act: Callable[[str], None] | None = None,
    ) -> None:
        """`before_call` gets the name of every act and read: a simulation switches drivers there. `after_act` gets that
        of every act that took effect at once: a simulation looks there.
        """
        self.uri = inner.uri
        self._inner = inner
        self._faults = dict(faults or {})
        self._late = late or LateActs(0)
        self.before_call = before_call or _do_nothing
        self._after_act = after_act or _do_nothing
        self._lock = threading.Lock()
        # Acts begun so far, and what each was: "rename a -> b".
        self.acts = 0
        self.journal: list[str] = []
        self.is_dead = False

    def create(self, path: str) -> OutputFile:
        """An act."""
        return _FaultyOutputFile(self, path, self._act(f"create {path}", lambda: self._inner.create(path)))

    def open(self, path: str) -> InputFile:
        """A read."""
        self._begin(f"open {path}")
        return self._inner.open(path)

    def rename(self, source: str, target: str) -> None:
        """An act."""
        self._act(f"rename {source} -> {target}", lambda: self._inner.rename(source, target))

    def make_directory(self, path: str) -> None:
        """An act."""
        self._act(f"make_directory {path}", lambda: self._inner.make_directory(path))

    def make_child(self, path: str) -> None:
        """An act."""
        self._act(f"make_child {path}", lambda: self._inner.make_child(path))

    def status(self, path: str) -> FileStatus | None:
        """A read."""
        self._begin(f"status {path}")
        return self._inner.status(path)

    def list(self, path: str) -> list[FileStatus]:
        """A read."""
        self._begin(f"list {path}")
        return self._inner.list(path)

    def delete(self, path: str, recursive: bool = False) -> bool:
        """An act."""
        return self._act(f"delete {path}", lambda: self._inner.delete(path, recursive))

    def set_attributes(
        self,
        path: str,
        *,
        permission: int | None = None,
        owner: str | None = None,
        group: str | None = None,
        replication: int | None = None,
    ) -> None:
        """An act."""
        self._act(
            f"set_attributes {path}",
            lambda: self._inner.set_attributes(
                path, permission=permission, owner=owner, group=group, replication=replication
            ),
        )

    def close(self) -> None:
        """Close what is below."""
        self._inner.close()

    def _begin(self, name: str) -> None:
        if not self.is_dead:
            self.before_call(name)
        if self.is_dead:
            raise SimulatedCrashError("the process has died")

    def _act(self, name: str, act: Callable[[], T]) -> T:
        self._begin(name)
        with self._lock:
            self.acts += 1
            self.journal.append(name)
            fault = self._faults.get(self.acts)
            self._late.step()
        if fault is None:
            done = act()
            self._after_act(name)
            return done
        if fault is Fault.CRASH_BEFORE:
            self._die(name)
        if fault is Fault.REFUSED:
            raise UnavailableError(f"{name} was refused", uri=self.uri)
        if fault is Fault.LATE:
            self._late.add(act)
        elif fault is not Fault.LOST:
            with suppress(FileSystemError, OSError):
                act()
            self._after_act(name)
        if fault is Fault.CRASH_AFTER:
            self._die(name)
        raise UnknownOutcomeError(f"{name} was not answered", uri=self.uri)

    def _die(self, name: str) -> None:
        self.is_dead = True
        raise SimulatedCrashError(name)


class _FaultyOutputFile:
    """A file whose write, sync and close are acts."""

    def __init__(self, filesystem: FaultyFileSystem, path: str, inner: OutputFile) -> None:
        self.path = path
        self._filesystem = filesystem
        self._inner = inner

    @property
    def size_bytes(self) -> int:
        """Bytes taken so far."""
        return self._inner.size_bytes

    @size_bytes.setter
    def size_bytes(self, value: int) -> None:
        self._inner.size_bytes = value

    def write(self, data: Buffer, /) -> int:
        """An act."""
        held = bytes(data)
        return self._filesystem._act(f"write {self.path}", lambda: self._inner.write(held))

    def sync(self) -> None:
        """An act."""
        self._filesystem._act(f"sync {self.path}", self._inner.sync)

    def close(self) -> None:
        """An act."""
        self._filesystem._act(f"close {self.path}", self._inner.close)

    def abandon(self) -> bool:
        """An act that never raises, unless the process is dead."""
        try:
            return self._filesystem._act(f"abandon {self.path}", self._inner.abandon)
        except (UnavailableError, UnknownOutcomeError):
            return False
        except (FileSystemError, OSError):
            return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif kind is not SimulatedCrashError:
            self.abandon()
