"""What the commands of `millstream load` have in common: the job file, how it is read, how signals stop a run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from millstream.cli.output import err

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob

EXIT_JOB_WRONG: Final = 2

JobFile = Annotated[
    Path, typer.Argument(metavar="JOB.toml", help="What to load, from where, to where.", show_default=False)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary, errors only.")]
MetricsFile = Annotated[
    Path | None,
    typer.Option(
        "--metrics-file", metavar="FILE", help="Write Prometheus metrics there, instead of the job's metrics_file."
    ),
]


def job_of(path: Path) -> LoadJob | int:
    """Read a job file and look its secrets up; print what is wrong with it and return the exit code otherwise."""
    from millstream.hadoop_loader.job import JobError, read_resolved

    try:
        return read_resolved(path, os.environ)
    except JobError as error:
        err().print(f"millstream: {error}", markup=False, soft_wrap=True)
        return EXIT_JOB_WRONG


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set while the block runs; the second signal ends the process as ever.

    The handler only starts a thread: it interrupts the thread that may hold the event's lock.
    """
    stop = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        threading.Thread(target=stop.set, name="stop", daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
