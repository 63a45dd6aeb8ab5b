"""Worker processes on this machine, fed over socket pairs; the default engine.

A worker is started when there is a task for it, and kept for the next ones. One that dies (killed, out of memory, a
crash in compiled code) is an AttemptFailed of its task, and the next task starts another. One of which nothing was
heard for STALL_S is killed: everything it waits for has a deadline below that. Workers that die before they could take
a task, START_FAILURES_MAX in a row, are an EngineError with what they printed.

The engine bounds nothing inside of a worker: the task's job says what memory it may take (`worker_memory`), and the
peak is told with every result.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Final, cast

from millstream.hadoop_loader.engines.engine import (
    AttemptFailed,
    AttemptFinished,
    AttemptProgressed,
    EngineError,
    EngineEvent,
)
from millstream.hadoop_loader.engines.worker import READY, STOP

if TYPE_CHECKING:
    from millstream.hadoop_loader.splits import SplitTask

WORKER_MODULE: Final = "millstream.hadoop_loader.engines.worker"
STALL_S: Final = 600.0
START_FAILURES_MAX: Final = 3
STOP_GRACE_S: Final = 10.0
_OUTPUT_SHOWN_BYTES: Final = 4_000
_SETTLE_S: Final = 5.0  # a process whose socket is closed has ended, or is about to


class LocalEngine:
    """Runs splits on worker processes; owned by the driver's thread."""

    def __init__(
        self, workers: int | None = None, *, stall_s: float = STALL_S, worker_module: str = WORKER_MODULE
    ) -> None:
        """Plan for `workers` processes, by default one for each core this process may use; none is started yet."""
        self._worker_module = worker_module
        self._workers_max = workers or len(os.sched_getaffinity(0))
        self._stall_s = stall_s
        # Invariant: at most _workers_max; one without a task is idle.
        self._workers: list[_Worker] = []
        self._waiting: deque[SplitTask] = deque()
        self._start_failures = 0
        self._is_stopped = False

    @property
    def workers(self) -> int:
        """How many splits run at once."""
        return self._workers_max

    def worker_pids(self) -> list[int]:
        """The processes that run now, for whoever watches them."""
        return [worker.pid for worker in self._workers]

    def submit(self, tasks: Sequence[SplitTask]) -> None:
        """Run these, when a worker is free, in this order. Raises EngineError."""
        assert not self._is_stopped, "the engine was stopped"
        self._waiting.extend(tasks)
        self._assign()

    def events(self, timeout_s: float) -> list[EngineEvent]:
        """Return what happened, waiting up to `timeout_s` for the first event. Raises EngineError."""
        readable = {
            id(one) for one in wait([worker.connection for worker in self._workers], timeout_s if self._workers else 0)
        }
        told: list[EngineEvent] = []
        for worker in list(self._workers):
            if id(worker.connection) in readable:
                told += self._receive(worker)
            elif worker.task is not None and time.monotonic() - worker.heard_at > self._stall_s:
                told.append(self._bury(worker, f"nothing was heard of its worker for {self._stall_s:g} s"))
        self._assign()
        return told

    def stop(self) -> None:
        """End every worker, the tasks that run with them."""
        self._is_stopped = True
        self._waiting.clear()
        for worker in self._workers:
            worker.ask_to_stop()
        deadline = time.monotonic() + STOP_GRACE_S
        for worker in self._workers:
            worker.end(max(0.0, deadline - time.monotonic()))
        self._workers.clear()

    def _assign(self) -> None:
        for worker in self._workers:
            if worker.task is None and worker.is_ready and self._waiting:
                worker.give(self._waiting.popleft())
        # Those on their way take what waits as soon as they are ready.
        starting = sum(not worker.is_ready for worker in self._workers)
        while len(self._workers) < self._workers_max and starting < len(self._waiting):
            self._workers.append(_Worker(self._worker_module))
            starting += 1

    def _receive(self, worker: _Worker) -> Iterable[EngineEvent]:
        """Take all that the worker has told so far."""
        told: list[EngineEvent] = []
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                worker.heard_at = time.monotonic()
                if message == READY:
                    worker.is_ready = True
                    self._start_failures = 0
                    continue
                if not isinstance(message, AttemptProgressed):
                    worker.task = None
                told.append(cast("AttemptProgressed | AttemptFinished | AttemptFailed", message))
        except (EOFError, OSError):
            buried = self._bury(worker, None)
            if buried is not None:
                told.append(buried)
        return told

    def _bury(self, worker: _Worker, reason: str | None) -> Any:
        """Take a worker that died, or is to die, from the list; return the failure of its task, if it had one."""
        self._workers.remove(worker)
        code = worker.end(_SETTLE_S if reason is None else 0.0)
        output = worker.output
        task = worker.task
        if not worker.is_ready:
            self._start_failures += 1
            if self._start_failures >= START_FAILURES_MAX:
                raise EngineError(
                    f"worker processes end before they can work ({_ending(code)}); the last one printed: "
                    f"{output.strip() or 'nothing'}"
                )
        if task is None:
            return None
        sentence = reason or f"its worker, process {worker.pid}, {_ending(code)}"
        return AttemptFailed(task.split.number, task.attempt, sentence, "WorkerDied", is_retriable=True, detail=output)


class _Worker:
    """One process, its end of the socket, and the task it runs."""

    def __init__(self, module: str) -> None:
        ours, theirs = socket.socketpair()
        # Not inherited output: a progress display owns the terminal, and what a crash printed is wanted afterwards.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  closed by `end`
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
        except OSError as error:
            ours.close()
            self._output.close()
            raise EngineError(f"a worker process could not be started: {error}") from error
        finally:
            theirs.close()
        self.pid = self._process.pid
        self.connection: Connection[Any, Any] = Connection(ours.detach())
        self.is_ready = False
        self.task: SplitTask | None = None
        self.heard_at = time.monotonic()
        # The end of what it printed, once it has ended.
        self.output = ""

    def give(self, task: SplitTask) -> None:
        """Have it run the task. That it died meanwhile shows when its socket is read."""
        self.task = task
        self.heard_at = time.monotonic()
        with suppress(OSError):
            self.connection.send(task)

    def ask_to_stop(self) -> None:
        """Have it end what it does, and itself."""
        with suppress(OSError):
            self.connection.send(STOP)

    def end(self, grace_s: float) -> int:
        """Wait for its end up to `grace_s`, then kill it; return its exit code."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        self.connection.close()
        with self._output as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _OUTPUT_SHOWN_BYTES))
            self.output = file.read().decode(errors="replace")
        return code


def _ending(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = "; is there too little memory?" if -code == signal.SIGKILL else ""
        return f"was ended by signal {name}{hint}"
    return f"ended with exit code {code}"
