"""A file of metrics for the node exporter's textfile collector, which any number of processes add their runs to.

    FILE          the text of all jobs that name it, whole at any time
    .FILE.new     the next text, until it takes FILE's place
    .FILE.lock    locked by who reads FILE, counts a run and writes it anew; it stays

The file is what counts: each run is added to what it says then, so that counters grow from run to run, and a run that
fails leaves there when one last ended well. A run by hand beside `serve` takes nothing back that way, and neither do
jobs that have one file.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from millstream.hadoop_loader.driver.metrics import LoadMetrics

LOCK_WAIT_S: Final = 10.0
"""Who has the lock reads and writes one small file: it hangs after that, and the run's metrics are not written."""
_LOOK_S: Final = 0.01


def add_run(
    path: Path,
    job: str,
    count: Callable[[LoadMetrics], None],
    *,
    former: Path | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Have `count` add a run of a job to what the file says. Raises OSError, and then it is not counted, or `former`
    still has the job.

    `former` is the file that the job named before: its numbers go on in the new one, and leave that.
    """
    with _alone(path, monotonic, wait):
        metrics = LoadMetrics()
        metrics.take_over(path)
        if former is not None and not metrics.has(job):
            metrics.take_over(former, job)
        count(metrics)
        metrics.write(path)
    if former is not None:
        # The node exporter shows neither of two files that have the same series.
        leave(former, job, monotonic=monotonic, wait=wait)


def leave(
    path: Path,
    job: str,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Take a job, which does not name the file any more, out of it. Raises OSError, and then nothing is changed."""
    if not path.exists():
        return
    with _alone(path, monotonic, wait):
        metrics = LoadMetrics()
        metrics.take_over(path)
        metrics.forget(job)
        metrics.write(path)


@contextmanager
def _alone(path: Path, monotonic: Callable[[], float], wait: Callable[[float], None]) -> Iterator[None]:
    """Keep other processes, and threads, from the file for as long as the block runs."""
    name, flags = path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_CLOEXEC
    try:
        # NFS locks what may be written alone.
        lock = os.open(name, os.O_RDWR | flags, 0o644)
    except PermissionError:
        # Who may lock it need not be who made it.
        lock = os.open(name, os.O_RDONLY | flags, 0o644)
    try:
        deadline_s = monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if monotonic() >= deadline_s:
                    said = f"another process has held its lock for {LOCK_WAIT_S:g} s"
                    raise BlockingIOError(error.errno, said) from None
                wait(_LOOK_S)
        yield
    finally:
        os.close(lock)
