"""Splits as tasks of a Spark job: `engine = "spark"`, on any cluster PySpark 4 reaches (extra `spark`).

All splits that are handed over at once are one Spark job with a task each; one that was tried before is a job of its
own. A task runs a split as a local worker does, in the executor's own Python, and its result comes back by an
accumulator as soon as it has ended, so that the driver need not wait for the slowest one before it tries one again.
What a task meets is its result; only the loss of an executor is a failure to Spark, which then runs the task again, as
it may run a slow one twice (speculation): each has a staging folder of its own, and one of them is counted. A task that
Spark has lost too often ends its whole job: it alone has failed, the others were lost with it (`is_own=False`).

Nothing is waited for without a bound. A task that tells nothing for as long as a local worker may be silent ends its
executor's Python, which is a loss to Spark; where Spark has nothing at all at work for IDLE_S, as no executor is
granted, that is an EngineError.

What has to be on the executors:

    this package, kernels included     sent along as an archive, unless the session sets spark.millstream.ship=false
    its dependencies                   in the executors' Python (spark.pyspark.python): installed, or packed with it
                                       and sent along (spark.archives)
    the job with its secrets           within the tasks, as text: turn on spark.network.crypto.enabled or spark.ssl
    who they are to HDFS               a keytab they can read, or the delegation token Spark has for them on YARN

Nothing is kept on an executor but open connections, for as long as Spark reuses its Python.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from millstream.hadoop_loader.engines.engine import (
    AttemptFailed,
    AttemptFinished,
    AttemptProgressed,
    EngineError,
    EngineEvent,
)
from millstream.hadoop_loader.engines.spark_session import (
    ARCHIVE,
    Release,
    context_of,
    is_gone,
    sentence_of,
    ship_package,
    use_session,
)
from millstream.hadoop_loader.engines.task_runner import TaskRunner, stall_bound_s
from millstream.hadoop_loader.splits import Progress, SplitTask

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    from millstream.hadoop_loader.job import LoadJob

IDLE_TIMEOUT: Final = "spark.millstream.idle.timeout.s"
IDLE_S: Final = 600.0
EXIT_STALLED: Final = 76
JOBS_MAX: Final = 128
"""Spark jobs at a time: each has a thread here, and one in the JVM."""
_LOOK_S: Final = 5.0
_JOIN_S: Final = 30.0
_PYTHON_UNSET: Final = "python3"  # what PySpark takes where nobody said which
_LOST_TASK: Final = re.compile(r"\bTask (\d+) in stage [\d.]+ failed \d+ times")


class SparkEngine:
    """Runs splits on a Spark session; owned by the driver's thread."""

    def __init__(self, session: SparkSession, workers: int | None = None, *, release: Release | None = None) -> None:
        """Run on `session`; `release` is called when the engine is stopped. Raises EngineError."""
        self._context = context_of(session)
        self._release = release
        _choose_python(self._context)
        self._workers = workers or max(1, self._context.defaultParallelism)
        self._idle_s = _seconds(self._context, IDLE_TIMEOUT, IDLE_S)
        self._group = f"millstream-{os.urandom(8).hex()}"
        self._wakes = threading.Condition()
        # What the jobs' threads tell; guarded by _wakes.
        self._failed: list[AttemptFailed] = []
        self._broken: str | None = None
        self._threads: list[threading.Thread] = []
        # The tasks of each job that no thread has begun; None ends a thread.
        self._jobs: SimpleQueue[tuple[SplitTask, ...] | None] = SimpleQueue()
        self._jobs_open = 0  # handed over and not ended; guarded by _wakes
        # Attempts that were handed over and have not ended. Invariant: one event ends each.
        self._running: set[tuple[int, int]] = set()
        self._results: Any = None
        self._results_seen = 0
        # When Spark had something at work for the last time, and when that was looked for.
        self._at_work_at = self._looked_at = time.monotonic()
        self._is_stopped = False

    @classmethod
    def for_job(cls, job: LoadJob) -> SparkEngine:
        """Run on the session there is, or on one made as the job says. Raises EngineError."""
        session, release = use_session(job)
        try:
            return cls(session, job.workers, release=release)
        except BaseException:
            release()
            raise

    @property
    def workers(self) -> int:
        """How many splits run at once, as far as Spark says so."""
        return self._workers

    def submit(self, tasks: Sequence[SplitTask]) -> None:
        """Run these: together what is new, alone what was tried before. Raises EngineError."""
        assert not self._is_stopped, "the engine was stopped"
        if not tasks:
            return
        if self._results is None:
            from pyspark.accumulators import AddingAccumulatorParam

            self._results = self._context.accumulator([], AddingAccumulatorParam([]))
            ship_package(self._context)
        if not self._running:
            self._at_work_at = time.monotonic()
        self._running |= {(task.split.number, task.attempt) for task in tasks}
        new = tuple(task for task in tasks if not task.attempt)
        jobs = [*([new] if new else []), *((task,) for task in tasks if task.attempt)]
        with self._wakes:
            self._jobs_open += len(jobs)
            threads = min(JOBS_MAX, self._workers + 1, self._jobs_open)
        for job in jobs:
            self._jobs.put(job)
        while len(self._threads) < threads:
            thread = threading.Thread(target=self._run_jobs, name="spark-jobs", daemon=True)
            self._threads.append(thread)
            thread.start()

    def events(self, timeout_s: float) -> list[EngineEvent]:
        """Return what happened, waiting up to `timeout_s` for the first event. Raises EngineError."""
        with self._wakes:
            if self._running and not self._has_news():
                self._wakes.wait(timeout_s)
            if self._broken is not None:
                raise EngineError(self._broken)
            failed, self._failed = self._failed, []
        self._check_at_work()
        told: list[EngineEvent] = []
        for event in [*self._take_results(), *failed]:
            key = _attempt_of(event)
            if key not in self._running:
                continue
            self._running.discard(key)
            if isinstance(event, AttemptFinished):
                told.append(_progress_of(event))
            told.append(event)
        return told

    def stop(self) -> None:
        """Cancel what runs, and stop the session if it is ours."""
        if self._is_stopped:
            return
        self._is_stopped = True
        # The cluster may be gone, with all that could be cancelled.
        with suppress(Exception):
            self._context.cancelJobGroup(self._group)
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._release is not None:
            self._release()

    def _has_news(self) -> bool:
        return bool(self._failed) or self._broken is not None or len(self._results.value) > self._results_seen

    def _take_results(self) -> list[AttemptFinished | AttemptFailed]:
        if self._results is None:
            return []
        new = self._results.value[self._results_seen :]
        self._results_seen += len(new)
        return [pickle.loads(data) for data in new]  # noqa: S301  made by our own tasks

    def _check_at_work(self) -> None:
        """Raise EngineError where Spark has had nothing at work for too long, and there is something to do."""
        now = time.monotonic()
        if not self._running or now - self._looked_at < min(_LOOK_S, self._idle_s / 2):
            return
        self._looked_at = now
        # Another job's tasks in the same session do as well: ours wait for them.
        try:
            tracker = self._context.statusTracker()
            stages = (tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds())
            is_at_work = any(stage is not None and stage.numActiveTasks for stage in stages)
        except Exception as error:
            raise EngineError(f"the Spark session has ended: {sentence_of(error)}") from error
        if is_at_work:
            self._at_work_at = now
        elif now - self._at_work_at > self._idle_s:
            raise EngineError(
                f"Spark has had no task at work for {self._idle_s:g} s: it is granted no executor (look at the "
                f"cluster's queue, and at what an executor asks for), or {IDLE_TIMEOUT} is too short"
            )

    def _run_jobs(self) -> None:
        """Run Spark jobs, one after the other, until the engine stops; runs on a thread of its own."""
        while (tasks := self._jobs.get()) is not None and not self._is_stopped:
            self._run_job(tasks)

    def _run_job(self, tasks: Sequence[SplitTask]) -> None:
        error: str | None = None
        lost: int | None = None
        try:
            # Of the jobs that this thread starts.
            self._context.setJobGroup(self._group, "millstream load", interruptOnCancel=True)
            pickled = [pickle.dumps(task) for task in tasks]
            self._context.parallelize(pickled, len(pickled)).foreachPartition(_task_function(self._results))
        except Exception as failure:  # noqa: BLE001  whatever Spark says, its tasks have come to nothing
            error = sentence_of(failure)
            lost = _lost_task(str(failure))
        with self._wakes:
            self._jobs_open -= 1
            # Results come before the job's end; what has none by now was lost with its executor.
            for number, task in enumerate(tasks):
                self._failed.append(
                    AttemptFailed(
                        task.split.number,
                        task.attempt,
                        error or "Spark gave no result of its task",
                        "WorkerDied",
                        is_retriable=True,
                        is_own=error is None or len(tasks) == 1 or number == lost,
                    )
                )
            if error is not None and is_gone(self._context):
                self._broken = f"the Spark session has ended: {error}"
            self._wakes.notify_all()


def _task_function(results: Any) -> Callable[[Iterable[bytes]], None]:
    """Return what a task runs.

    It is a function within a function, so that it travels by value: the package it imports is found only once it has
    put the archive's folder first.
    """
    archive = ARCHIVE

    def run_tasks(pickled: Iterable[bytes]) -> None:
        import sys
        from pathlib import Path

        from pyspark import SparkFiles

        shipped = Path(SparkFiles.getRootDirectory()) / archive
        if shipped.is_dir() and str(shipped) not in sys.path:
            sys.path.insert(0, str(shipped))
        from millstream.hadoop_loader.engines.spark import run_pickled

        for one in pickled:
            results.add([run_pickled(one)])

    return run_tasks


# One for each Python of an executor, which Spark uses again for the next task.
_runner: TaskRunner | None = None


def run_pickled(pickled: bytes) -> bytes:
    """Run a task on an executor; return its end, pickled."""
    from pyspark import TaskContext

    global _runner  # noqa: PLW0603  the process is Spark's, nothing else in it could own the runner
    if _runner is None:
        _runner = TaskRunner(keeps_buffers=False)
    task: SplitTask = pickle.loads(pickled)  # noqa: S301  made by our own driver
    context = TaskContext.get()
    number = 0 if context is None else context.attemptNumber()
    staging = f"{task.staging}-{number}" if number else None
    with Watchdog(stall_bound_s(task.job)) as watchdog:
        return pickle.dumps(_runner.run(task, threading.Event(), watchdog.handle_progress, staging=staging))


class Watchdog:
    """Ends this process where a task tells nothing for too long, as the driver ends a local worker.

    Spark brings results only, so that nobody else would notice; progress goes no further than here.
    """

    def __init__(self, bound_s: float) -> None:
        self._bound_s = bound_s
        self._heard_at = time.monotonic()
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="split-watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()

    def handle_progress(self, progress: AttemptProgressed) -> None:
        """The task lives."""
        del progress
        self._heard_at = time.monotonic()

    def _watch(self) -> None:
        while not self._is_over.wait(max(0.0, self._heard_at + self._bound_s - time.monotonic())):
            if time.monotonic() - self._heard_at >= self._bound_s:
                print(f"nothing was heard of the split for {self._bound_s:g} s", file=sys.stderr, flush=True)
                os._exit(EXIT_STALLED)


def _seconds(context: SparkContext, name: str, default: float) -> float:
    text = context.getConf().get(name, None)
    try:
        seconds = default if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise EngineError(f"{name} is {text!r}: give a number of seconds")
    return seconds


def _lost_task(message: str) -> int | None:
    """Return which task of a job Spark gave up, by its place among them."""
    found = _LOST_TASK.search(message)
    return None if found is None else int(found[1])


def _choose_python(context: SparkContext) -> None:
    """Have tasks run by the Python that the session names; on this machine by this one.

    `spark-submit` knows `spark.pyspark.python`, a session made within a process only PYSPARK_PYTHON.
    """
    if context.pythonExec != _PYTHON_UNSET:
        return
    named = context.getConf().get("spark.pyspark.python", None)
    if named is not None:
        context.pythonExec = named
    elif (context.master or "").startswith("local"):
        context.pythonExec = sys.executable


def _attempt_of(event: AttemptFinished | AttemptFailed) -> tuple[int, int]:
    if isinstance(event, AttemptFinished):
        return event.result.split, event.result.attempt
    return event.split, event.attempt


def _progress_of(event: AttemptFinished) -> AttemptProgressed:
    result = event.result
    return AttemptProgressed(
        result.split,
        result.attempt,
        tuple(Progress(read.topic, read.partition, read.next_offset, read.rows, read.bytes) for read in result.read),
    )
