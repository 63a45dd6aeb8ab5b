"""Child processes with one lifetime: started in order, kept running, stopped in the other order.

A child that cannot be started the first time ends the whole; one that ends by itself later is started again, after a
pause that doubles with each failure in a row. One that fails FAILURES_MAX times in a row ends the whole: something is
wrong that another start does not mend, and whoever supervises this process has to hear of it. SIGTERM and SIGINT stop
the children, last started first. A child sees the end of this process, however it came, and ends as well.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from millstream.cli.child import ChildProcess, ChildStartError
from millstream.cli.errors import CommandError

PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0
FAILURES_MAX: Final = 8
# A child that ran for so long was well: its next end is the first one in a row.
WELL_AFTER_S: Final = 60.0
_LOOK_S: Final = 0.5
_SIGNALS_READ: Final = 4096

Start = Callable[[Callable[[], bool]], ChildProcess]
"""start(is_wanted): start the child, and give up when it is not wanted any more. Raises ChildStartError."""


@dataclass(slots=True)
class Restarts:
    """How often a child has failed in a row, and when it is due again. Times are seconds of one clock."""

    failures: int = 0
    # None while it does not run.
    started_at: float | None = None
    due_at: float = 0.0

    def note_start(self, now: float) -> None:
        """It runs."""
        self.started_at = now

    def note_end(self, now: float) -> None:
        """It ended, or was not to be started. Raises CommandError once that has happened too often."""
        if self.started_at is not None and now - self.started_at >= WELL_AFTER_S:
            self.failures = 0
        self.started_at = None
        self.failures += 1
        if self.failures >= FAILURES_MAX:
            raise CommandError(f"it failed {self.failures} times in a row")
        self.due_at = now + min(PAUSE_FIRST_S * 2 ** (self.failures - 1), PAUSE_MAX_S)


@dataclass(slots=True)
class Child:
    """One of the processes; `process` is None while it waits to be started again."""

    name: str
    start: Start
    process: ChildProcess | None = None
    restarts: Restarts = field(default_factory=Restarts)


class Supervisor:
    """See the module; runs on the main thread."""

    def __init__(self, children: Sequence[Child], say: Callable[[str], None]) -> None:
        self._children = list(children)
        self._say = say
        self._is_wanted = True

    def run(self) -> int:
        """Run until told to stop; return the exit code. Raises CommandError for what can't be mended."""
        with self._signals() as woken:
            try:
                for child in self._children:
                    if not self._is_wanted:
                        break
                    self._start_first(child)
                while self._is_wanted:
                    if select.select([woken], [], [], _LOOK_S)[0]:
                        os.read(woken, _SIGNALS_READ)
                    for child in self._children:
                        self._look_after(child)
            finally:
                self._stop_all()
        return 0

    def _start_first(self, child: Child) -> None:
        try:
            child.process = child.start(lambda: self._is_wanted)
        except ChildStartError as error:
            if self._is_wanted:
                raise CommandError(str(error)) from error
            return
        child.restarts.note_start(time.monotonic())
        self._tell(f"{child.name} serves on {child.process.serving_on}, process {child.process.pid}")

    def _look_after(self, child: Child) -> None:
        if not self._is_wanted:
            return
        now = time.monotonic()
        if child.process is not None:
            if child.process.is_running:
                return
            code = child.process.kill()
            self._tell(f"{child.name} has ended with code {code}; it is started again")
            child.process = None
            self._note_end(child)
        elif now >= child.restarts.due_at:
            try:
                child.process = child.start(lambda: self._is_wanted)
            except ChildStartError as error:
                if self._is_wanted:
                    self._tell(f"{child.name} did not start: {error}")
                    self._note_end(child)
            else:
                child.restarts.note_start(time.monotonic())
                self._tell(f"{child.name} serves again on {child.process.serving_on}, process {child.process.pid}")

    def _note_end(self, child: Child) -> None:
        try:
            child.restarts.note_end(time.monotonic())
        except CommandError as error:
            raise CommandError(f"{child.name} can't be kept running: {error}") from error

    def _stop_all(self) -> None:
        for child in reversed(self._children):
            if child.process is not None:
                child.process.stop()
                self._tell(f"{child.name} has stopped")

    def _tell(self, line: str) -> None:
        # Nobody may be reading any more (`millstream up | head -2`), and the children run on.
        with suppress(OSError):
            self._say(line)

    @contextmanager
    def _signals(self) -> Iterator[int]:
        """Handle the signals of a child's end and of ours; gives a file that can be read once one has come.

        Handlers interrupt this thread wherever it is, so they take no lock, nor call what takes one (threading.Event).
        """

        def stop(_number: int, _frame: object) -> None:
            self._is_wanted = False

        def wake(_number: int, _frame: object) -> None:
            """Nothing: that there is a handler has the signal's number written to the pipe."""

        woken, waking = os.pipe()
        # Its end for writing must not block; a full pipe wakes as well.
        os.set_blocking(waking, False)
        waking_before = signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGCHLD: wake}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield woken
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(waking_before)
            os.close(waking)
            os.close(woken)
