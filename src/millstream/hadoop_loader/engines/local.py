"""Worker processes on this machine, fed over socket pairs; the default engine.

A worker is started when there is a task for it, and kept for the next ones. One that dies (killed, out of memory, a
crash in compiled code) is an AttemptFailed of its task, and the next task starts another. One of which nothing was
heard for `stall_s` is killed: everything it waits for has a deadline below that. Workers that die, or hang, before they
could take a task, START_FAILURES_MAX in a row, are an EngineError with what they printed.

The driver's thread waits for no worker without a bound, or a frozen one would hold up the others' events and the run's
end: each worker has a thread that sends and one that receives (tasks and results may be larger than what a socket
holds), and a worker that does not even end when it is killed, as it hangs in the kernel, is left to itself.

The engine bounds nothing inside of a worker: the task's job says what memory it may take (`worker_memory`), and the
peak is told with every result.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, cast

from millstream.hadoop_loader.engines.engine import (
    AttemptFailed,
    AttemptFinished,
    AttemptProgressed,
    EngineError,
    EngineEvent,
)
from millstream.hadoop_loader.engines.task_runner import STALL_S, WORKER_ENVIRONMENT
from millstream.hadoop_loader.engines.worker import READY, STOP

if TYPE_CHECKING:
    from millstream.hadoop_loader.splits import SplitTask

WORKER_MODULE: Final = "millstream.hadoop_loader.engines.worker"
START_S: Final = 120.0  # within so long a worker has to be ready
START_FAILURES_MAX: Final = 3
STOP_GRACE_S: Final = 10.0
_KILL_S: Final = 5.0  # a process that was killed ends at once, unless the kernel holds it
_OUTPUT_SHOWN_BYTES: Final = 4_000
_SETTLE_S: Final = 5.0  # a process whose socket is closed has ended, or is about to


class LocalEngine:
    """Runs splits on worker processes; owned by the driver's thread."""

    def __init__(
        self,
        workers: int | None = None,
        *,
        stall_s: float = STALL_S,
        start_s: float = START_S,
        worker_module: str = WORKER_MODULE,
    ) -> None:
        """Plan for `workers` processes, by default one for each core this process may use; none is started yet."""
        self._worker_module = worker_module
        self._start_s = start_s
        self._workers_max = workers or len(os.sched_getaffinity(0))
        self._stall_s = stall_s
        # Invariant: at most _workers_max; one without a task is idle.
        self._workers: list[_Worker] = []
        # What they tell, each in its own order; None behind the last of one.
        self._inbox: SimpleQueue[tuple[_Worker, object]] = SimpleQueue()
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
        told: list[EngineEvent] = []
        with suppress(Empty):
            worker, message = self._inbox.get(timeout=timeout_s if self._workers else 0)
            while True:
                told += self._handle(worker, message)
                worker, message = self._inbox.get_nowait()
        for worker in list(self._workers):
            allowed_s = self._silence_allowed_s(worker)
            if time.monotonic() - worker.heard_at > allowed_s:
                told += self._bury(worker, f"nothing was heard of its worker for {allowed_s:g} s")
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
            self._workers.append(_Worker(self._worker_module, self._inbox))
            starting += 1

    def _silence_allowed_s(self, worker: _Worker) -> float:
        if not worker.is_ready:
            return self._start_s
        return math.inf if worker.task is None else self._stall_s

    def _handle(self, worker: _Worker, message: object) -> Sequence[EngineEvent]:
        """Take in what a worker told, or that it will tell nothing any more (None)."""
        if worker not in self._workers:
            return ()  # its end was told already
        if message is None:
            return self._bury(worker, None)
        if message == READY:
            worker.is_ready = True
            self._start_failures = 0
            return ()
        if not isinstance(message, AttemptProgressed):
            worker.task = None
        return (cast("AttemptProgressed | AttemptFinished | AttemptFailed", message),)

    def _bury(self, worker: _Worker, reason: str | None) -> list[AttemptFailed]:
        """Take a worker that died, or is to die, from the list; return the failure of its task, if it had one."""
        self._workers.remove(worker)
        code = worker.end(_SETTLE_S if reason is None else 0.0)
        output = worker.output
        task = worker.task
        if not worker.is_ready:
            self._start_failures += 1
            if self._start_failures >= START_FAILURES_MAX:
                how = _ending(code) if reason is None else f"not ready within {self._start_s:g} s"
                raise EngineError(
                    f"worker processes end before they can work ({how}); the last one printed: "
                    f"{output.strip() or 'nothing'}"
                )
        if task is None:
            return []
        sentence = reason or f"its worker, process {worker.pid}, {_ending(code)}"
        return [
            AttemptFailed(task.split.number, task.attempt, sentence, "WorkerDied", is_retriable=True, detail=output)
        ]


class _Worker:
    """One process, its end of the socket, and the task it runs."""

    def __init__(self, module: str, inbox: SimpleQueue[tuple[_Worker, object]]) -> None:
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
                env={**WORKER_ENVIRONMENT, **os.environ},
            )
        except OSError as error:
            ours.close()
            self._output.close()
            raise EngineError(f"a worker process could not be started: {error}") from error
        finally:
            theirs.close()
        self.pid = self._process.pid
        # Two descriptors of one socket: a connection cannot be shut down, and threads wait in it.
        self._socket = ours.dup()
        self._connection: Connection[Any, Any] = Connection(ours.detach())
        # Messages on their way to it, pickled; None ends the thread that sends them.
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._inbox = inbox
        self.is_ready = False
        self.task: SplitTask | None = None
        self.heard_at = time.monotonic()
        # The end of what it printed, once it has ended.
        self.output = ""
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def give(self, task: SplitTask) -> None:
        """Have it run the task, as soon as it reads it."""
        self.task = task
        self.heard_at = time.monotonic()
        self._outbox.put(pickle.dumps(task))

    def ask_to_stop(self) -> None:
        """Have it end what it does, and itself."""
        self._outbox.put(pickle.dumps(STOP))

    def hang_up(self) -> None:
        """End all talk with it, as the end of this process would."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self, grace_s: float) -> int | None:
        """Wait for its end up to `grace_s`, then kill it; return its exit code, None if it does not even end then."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        if self._process.poll() is None:
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_S)
        self._outbox.put(None)
        self.hang_up()
        for thread in self._threads:
            thread.join()
        self._connection.close()
        self._socket.close()
        with self._output as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _OUTPUT_SHOWN_BYTES))
            self.output = file.read().decode(errors="replace")
        return self._process.returncode

    def _send(self) -> None:
        # That it has ended meanwhile shows when its socket is read.
        with suppress(OSError):
            while (message := self._outbox.get()) is not None:
                self._connection.send_bytes(message)

    def _receive(self) -> None:
        try:
            with suppress(EOFError, OSError):
                while True:
                    message = self._connection.recv()
                    self.heard_at = time.monotonic()
                    self._inbox.put((self, message))
        finally:
            self._inbox.put((self, None))


def _ending(code: int | None) -> str:
    if code is None:
        return "was killed, and does not end"
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = "; is there too little memory?" if -code == signal.SIGKILL else ""
        return f"was ended by signal {name}{hint}"
    return f"ended with exit code {code}"
