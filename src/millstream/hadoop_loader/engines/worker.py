"""A worker process of the local engine: `python -m millstream.hadoop_loader.engines.worker FD`.

FD is one end of a socket pair, pickled messages both ways:

    to the worker    a SplitTask: run it       STOP: end what runs, then the process
    from it          READY                     then AttemptProgressed... and one AttemptFinished or AttemptFailed a task

The other end is held by the driver alone, so a driver that goes, however it went, is an end of file here: the process
ends at once, wherever its task is, and what it staged is a lower epoch's that the next driver deletes. Signals of a
terminal (Ctrl-C) go to the driver, which says what becomes of its workers.

The main thread runs tasks, a thread of its own listens: a task is told to stop, or ends with the driver, in the middle.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.engines.engine import AttemptProgressed
from millstream.hadoop_loader.engines.task_runner import TaskRunner

if TYPE_CHECKING:
    from millstream.hadoop_loader.splits import SplitTask

READY: Final = "ready"
STOP: Final = "stop"
EXIT_ORPHANED: Final = 75


def serve(file_descriptor: int, runner: TaskRunner) -> None:
    """Have `runner` run tasks from the socket until told to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection: Connection[Any, Any] = Connection(file_descriptor)
    tasks: SimpleQueue[SplitTask | None] = SimpleQueue()
    stop = threading.Event()
    sending = threading.Lock()

    def listen() -> None:
        try:
            while (message := connection.recv()) != STOP:
                tasks.put(message)
        except (EOFError, OSError):
            # Nobody is left who could commit what the task makes, and a writer must not close its files as if whole.
            os._exit(EXIT_ORPHANED)
        stop.set()
        tasks.put(None)

    def tell(message: object) -> None:
        with sending:
            connection.send(message)

    def tell_progress(progress: AttemptProgressed) -> None:
        # Where nobody listens any more, `listen` ends the process.
        with suppress(OSError):
            tell(progress)

    threading.Thread(target=listen, name="engine-listener", daemon=True).start()
    tell(READY)
    while (task := tasks.get()) is not None:
        tell(runner.run(task, stop, tell_progress))
        del task
    runner.close()


if __name__ == "__main__":
    from millstream.hadoop_loader.running.without_pandas import hide_pandas

    hide_pandas()
    serve(int(sys.argv[1]), TaskRunner())
