"""Splits as tasks of a Spark job: `engine = "spark"`, on any cluster PySpark 4 reaches (extra `spark`).

All splits that are handed over at once are one Spark job with a task each. A task runs a split as a local worker does,
in the executor's own Python, and its result comes back by an accumulator as soon as it has ended, so that the driver
need not wait for the slowest one before it tries one again. What a task meets is its result; only the loss of an
executor is a failure to Spark, which then runs the task again, as it may run a slow one twice (speculation): each has a
staging folder of its own, and one of them is counted.

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
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.engines.engine import (
    AttemptFailed,
    AttemptFinished,
    AttemptProgressed,
    EngineError,
    EngineEvent,
)
from millstream.hadoop_loader.engines.task_runner import TaskRunner
from millstream.hadoop_loader.splits import Progress, SplitTask

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    from millstream.hadoop_loader.job import LoadJob

SHIP: Final = "spark.millstream.ship"
_ARCHIVE: Final = "millstream_package"
_SHIPPED_SUFFIXES: Final = (".py", ".so", ".pyd")
_JOIN_S: Final = 30.0
_PYTHON_UNSET: Final = "python3"  # what PySpark takes where nobody said which


# The folders of archives that were sent, by the application they were sent to: it takes one, once.
_sent: dict[str, tempfile.TemporaryDirectory[str]] = {}


class SparkEngine:
    """Runs splits on a Spark session; owned by the driver's thread."""

    def __init__(self, session: SparkSession, workers: int | None = None, *, stops_session: bool = False) -> None:
        """Run on `session`, which is stopped with the engine if `stops_session`. Raises EngineError."""
        self._session = session
        self._stops_session = stops_session
        self._context = _context_of(session)
        _choose_python(self._context)
        self._workers = workers or max(1, self._context.defaultParallelism)
        self._group = f"millstream-{os.urandom(8).hex()}"
        self._wakes = threading.Condition()
        # What the jobs' threads tell; guarded by _wakes.
        self._failed: list[AttemptFailed] = []
        self._broken: str | None = None
        self._threads: list[threading.Thread] = []
        # Attempts that were handed over and have not ended. Invariant: one event ends each.
        self._running: set[tuple[int, int]] = set()
        self._results: Any = None
        self._results_seen = 0
        self._is_stopped = False

    @classmethod
    def for_job(cls, job: LoadJob) -> SparkEngine:
        """Run on the session there is, or on one made as the job says. Raises EngineError."""
        try:
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise EngineError(
                "the engine `spark` needs PySpark: install the extra `spark` (pip install 'millstream[spark]')"
            ) from error
        active = SparkSession.getActiveSession()
        if active is not None:
            return cls(active, job.workers)
        builder = SparkSession.builder.appName(f"millstream load {job.name}")
        if job.spark.master is not None:
            builder = builder.master(job.spark.master)
        for name, value in job.spark.config.items():
            builder = builder.config(name, value if isinstance(value, str) else value.reveal())
        try:
            session = builder.getOrCreate()
        except Exception as error:
            raise EngineError(f"no Spark session could be had: {_sentence(error)}; see [spark] in the job") from error
        return cls(session, job.workers, stops_session=True)

    @property
    def workers(self) -> int:
        """How many splits run at once, as far as Spark says so."""
        return self._workers

    def submit(self, tasks: Sequence[SplitTask]) -> None:
        """Run these as one Spark job. Raises EngineError."""
        assert not self._is_stopped, "the engine was stopped"
        if not tasks:
            return
        if self._results is None:
            from pyspark.accumulators import AddingAccumulatorParam

            self._results = self._context.accumulator([], AddingAccumulatorParam([]))
            self._ship()
        self._running |= {(task.split.number, task.attempt) for task in tasks}
        thread = threading.Thread(target=self._run_job, args=(tuple(tasks),), name="spark-job", daemon=True)
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
        for thread in self._threads:
            thread.join(_JOIN_S)
        if self._stops_session:
            sent = _sent.pop(self._context.applicationId, None)
            with suppress(Exception):
                self._session.stop()
            if sent is not None:
                sent.cleanup()

    def _has_news(self) -> bool:
        return bool(self._failed) or self._broken is not None or len(self._results.value) > self._results_seen

    def _take_results(self) -> list[AttemptFinished | AttemptFailed]:
        if self._results is None:
            return []
        new = self._results.value[self._results_seen :]
        self._results_seen += len(new)
        return [pickle.loads(data) for data in new]  # noqa: S301  made by our own tasks

    def _run_job(self, tasks: Sequence[SplitTask]) -> None:
        """Run one Spark job to its end; runs on a thread of its own."""
        error: str | None = None
        try:
            self._context.setJobGroup(self._group, "millstream load", interruptOnCancel=True)
            pickled = [pickle.dumps(task) for task in tasks]
            self._context.parallelize(pickled, len(pickled)).foreachPartition(_task_function(self._results))
        except Exception as failure:  # noqa: BLE001  whatever Spark says, its tasks have come to nothing
            error = _sentence(failure)
        with self._wakes:
            # Results come before the job's end; what has none by now was lost with its executor.
            for task in tasks:
                self._failed.append(
                    AttemptFailed(
                        task.split.number,
                        task.attempt,
                        error or "Spark gave no result of its task",
                        "WorkerDied",
                        is_retriable=True,
                    )
                )
            if error is not None and _is_gone(self._context):
                self._broken = f"the Spark session has ended: {error}"
            self._wakes.notify_all()

    def _ship(self) -> None:
        """Send this package to executors on other machines, or in processes of their own."""
        master = self._context.master or ""
        wanted = self._context.getConf().get(SHIP, "true")
        is_local = master == "local" or master.startswith("local[")
        if wanted == "false" or is_local or self._context.applicationId in _sent:
            return
        import millstream

        package = Path(next(iter(millstream.__path__)))
        folder = _sent[self._context.applicationId] = tempfile.TemporaryDirectory(prefix="millstream-spark-")
        path = Path(folder.name) / f"{_ARCHIVE}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in sorted(package.rglob("*")):
                if file.suffix in _SHIPPED_SUFFIXES or file.name == "py.typed":
                    archive.write(file, Path("millstream") / file.relative_to(package))
        self._context.addArchive(f"{path}#{_ARCHIVE}")


def _task_function(results: Any) -> Callable[[Iterable[bytes]], None]:
    """Return what a task runs.

    It is a function within a function, so that it travels by value: the package it imports is found only once it has
    put the archive's folder first.
    """
    archive = _ARCHIVE

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
        _runner = TaskRunner()
    task: SplitTask = pickle.loads(pickled)  # noqa: S301  made by our own driver
    context = TaskContext.get()
    number = 0 if context is None else context.attemptNumber()
    return pickle.dumps(
        _runner.run(task, threading.Event(), _tell_nobody, staging=f"{task.staging}-{number}" if number else None)
    )


def _tell_nobody(progress: AttemptProgressed) -> None:
    """Spark brings results only: progress is told with them."""


def _context_of(session: SparkSession) -> SparkContext:
    try:
        return session.sparkContext
    except Exception as error:
        raise EngineError(
            "this Spark session has no context of its own (Spark Connect): start the job with spark-submit, or set "
            "spark.master"
        ) from error


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


def _is_gone(context: SparkContext) -> bool:
    try:
        return bool(context._jsc.sc().isStopped())
    except Exception:  # noqa: BLE001  whoever can't be asked any more is gone
        return True


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


def _sentence(error: Exception) -> str:
    """What Spark says, without the stack of two languages below it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("at ", "An error occurred", ":"))]
    return (told or lines or [type(error).__name__])[0][:500]
