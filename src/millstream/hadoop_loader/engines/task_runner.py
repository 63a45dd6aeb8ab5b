"""What every worker does with a task, wherever it runs: open what the job names once, run the split, tell how it went.

A TaskRunner lives as long as its process, and keeps between the tasks of one job the destination and the registry's
client, which are open, and the memory that splits are read with, whose pages need not be cleared again. It never raises
for what a task met: that is an AttemptFailed, which has to reach the driver from anywhere.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from millstream.core.metrics.process import peak_memory_bytes
from millstream.hadoop_loader.engines.engine import AttemptFailed, AttemptFinished, AttemptProgressed

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.running import ReadingBuffers
    from millstream.hadoop_loader.splits import Progress, SplitTask
    from millstream.schemas.client import RegistryClient

# Of processes that run tasks. Arrow takes memory as C programs do there: its own choice, mimalloc, holds nearly as much
# again as is in use where row groups of tens of megabytes come and go, and clears pages that it has just given back.
# By itself the GNU C library has up to eight arenas a core, a thread's free memory lying in its own, and gives the end
# of an arena back and takes it anew as row groups go and come: with two arenas and one bound for both, a worker takes
# some hundredths less CPU and no more memory. numpy, which pyarrow loads where it is installed, starts as many threads
# as there are processors, which wait for work by spinning; nothing here multiplies matrices.
WORKER_ENVIRONMENT: Final = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}
PROGRESS_INTERVAL_S: Final = 0.25  # a worker tells at most so often
STALL_S: Final = 600.0  # a worker that has told nothing for so long hangs, unless its job has it wait for longer
DETAIL_CHARACTERS_MAX: Final = 8_000

Tell = Callable[[AttemptProgressed], None]


class TaskRunner:
    """Runs tasks one after the other; owned by the thread that calls `run`."""

    def __init__(self, *, keeps_buffers: bool = True) -> None:
        """`keeps_buffers`: False where the process waits for tasks of who knows what, and its memory is others'."""
        self._keeps_buffers = keeps_buffers
        # What is open, and for which job; another job's task closes it.
        self._job: LoadJob | None = None
        self._filesystem: FileSystem | None = None
        self._registry: RegistryClient | None = None
        # Those of the last task, unless it failed.
        self._buffers: ReadingBuffers | None = None

    def run(
        self, task: SplitTask, stop: threading.Event, tell: Tell, *, staging: str | None = None
    ) -> AttemptFinished | AttemptFailed:
        """Run one task; `stop` ends it early, as a failure. Never raises but for what ends the process anyway.

        `staging` is a folder to make and use in place of the task's, where something else than the driver runs a task
        twice.
        """
        from millstream.hadoop_loader.running import ReadingBuffers, run_split

        reporter = _Reporter(task, tell)
        try:
            self._open(task.job)
            assert self._filesystem is not None
            if staging is not None:
                self._filesystem.make_child(staging)
                task = replace(task, staging=staging)
            buffers, self._buffers = self._buffers or ReadingBuffers(), None
            result = run_split(
                task,
                self._filesystem,
                registry=self._registry,
                stop=stop,
                on_progress=reporter.handle_progress,
                buffers=buffers,
            )
            reporter.flush()
            if self._keeps_buffers:
                self._buffers = buffers
        except Exception as error:  # noqa: BLE001  whatever it was, the driver decides on it
            return failure(task, error)
        return AttemptFinished(result, peak_memory_bytes())

    def close(self) -> None:
        """Close what is open."""
        if self._registry is not None:
            self._registry.close()
        if self._filesystem is not None:
            self._filesystem.close()
        self._job = self._filesystem = self._registry = self._buffers = None

    def _open(self, job: LoadJob) -> None:
        if self._job == job:
            return
        from millstream.hadoop_loader.filesystem import open_filesystem

        self.close()
        self._filesystem = open_filesystem(job.destination.uri, job.destination.filesystem)
        self._registry = None if job.registry is None else job.registry.client()
        self._job = job


class _Reporter:
    """Adds up progress per partition, and tells it now and then."""

    def __init__(self, task: SplitTask, tell: Tell) -> None:
        self._task = task
        self._tell = tell
        self._pending: dict[tuple[str, int], Progress] = {}
        self._due_at = 0.0

    def handle_progress(self, progress: Progress) -> None:
        key = (progress.topic, progress.partition)
        before = self._pending.get(key)
        if before is not None:
            progress = type(progress)(
                progress.topic,
                progress.partition,
                progress.next_offset,
                before.rows + progress.rows,
                before.bytes + progress.bytes,
            )
        self._pending[key] = progress
        if time.monotonic() >= self._due_at:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self._tell(AttemptProgressed(self._task.split.number, self._task.attempt, tuple(self._pending.values())))
            self._pending.clear()
        self._due_at = time.monotonic() + PROGRESS_INTERVAL_S


def failure(task: SplitTask, error: Exception) -> AttemptFailed:
    """Return what the driver is told of an exception that ended a task."""
    sentence = str(error) or type(error).__name__
    detail = "".join(traceback.format_exception(error))[-DETAIL_CHARACTERS_MAX:]
    return AttemptFailed(
        task.split.number,
        task.attempt,
        sentence,
        type(error).__name__,
        is_retriable(error),
        topic=getattr(error, "topic", None),
        detail=detail,
    )


def is_retriable(error: Exception) -> bool:
    """Whether another attempt may do better: not where access, space or quota is missing, or the job is wrong."""
    from millstream.hadoop_loader.filesystem import AccessDeniedError, QuotaExceededError, StorageFullError
    from millstream.hadoop_loader.job import JobError

    if isinstance(error, (AccessDeniedError, QuotaExceededError, StorageFullError, JobError)):
        return False
    return bool(getattr(error, "is_retriable", True))


def stall_bound_s(job: LoadJob) -> float:
    """Return how long a worker of the job may be silent.

    Twice the longest of what it waits for in one go: a missed deadline has to reach the driver as the sentence it is.
    """
    waits = [job.destination.deadline_s, job.source.timeout_s]
    if job.registry is not None:
        waits.append(job.registry.timeout_s)
    waits += [
        float(value) / 1000
        for name, value in job.source.client.items()
        if name.endswith(".timeout.ms") and isinstance(value, str) and value.isdecimal()
    ]
    return max(STALL_S, 2 * max(waits))
