"""LoadService: runs jobs by their schedules until it is told to stop. What `millstream load serve` is made of.

A thread for each job waits until it is due and runs it there; a run's own work is done by its engine's processes. Jobs
that load into the same root take turns, as the root has one claim for loads. A job's file is read anew for each run, so
that a change of it, or a rotated secret, needs no restart; one that was made wrong is told, and the last run stands.

Stopping: jobs that wait end at once; a run has `stop_grace_s` of its job to come to its end, then its own stop is
set and it leaves what it staged to the next run.
"""

from __future__ import annotations

import datetime
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.job import JobError, LoadJob, Problem, ScheduleSettings, read_resolved
from millstream.hadoop_loader.schedule.scheduled_job import JobState, ScheduledJob

if TYPE_CHECKING:
    from millstream.hadoop_loader.driver.observer import Observer
    from millstream.hadoop_loader.driver.progress import RunProgress
    from millstream.hadoop_loader.driver.report import LoadReport

_log: Final = logging.getLogger(__name__)

# A wait looks at the clock so often: it may be set, and a suspended machine wakes up late.
LOOK_S: Final = 10.0
# A clock that loses more than this was set back; less is how clocks are kept right. One that gains was set forward, or
# the machine slept: then what is due runs sooner, which does no harm.
CLOCK_SET_S: Final = 5.0
# After its stop was set a run has so long to end.
END_S: Final = 60.0
EXIT_JOB_WRONG: Final = 2
EXIT_STOPPED: Final = 130
JOB_WRONG: Final = "job wrong"

Run = Callable[[LoadJob, threading.Event, "Observer"], "LoadReport"]
"""Runs a job until its end, or until the event is set; the observer is told how it goes."""


def scheduled(path: Path, environ: Mapping[str, str]) -> tuple[LoadJob, ScheduleSettings]:
    """Read a job file that has a schedule, and look its secrets up. Raises JobError."""
    job = read_resolved(path, environ)
    if job.schedule is None:
        remedy = 'give [schedule] with cron = "*/15 * * * *" or every_s = "15 min"; `millstream load run` needs none'
        raise JobError([Problem("schedule", "", "there is none, and serve runs jobs by it", remedy)], origin=str(path))
    return job, job.schedule


class LoadService:
    """Runs scheduled jobs; `tell` gets a sentence about each thing that happens."""

    def __init__(
        self,
        paths: Sequence[Path],
        run: Run,
        *,
        environ: Mapping[str, str],
        parallel: int | None = None,
        tell: Callable[[str], None] = _log.info,
        on_no_report: Callable[[str, str, int], None] = lambda _name, _outcome, _exit_code: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
        chance: random.Random | None = None,
    ) -> None:
        """Read the job files; secrets are looked up in `environ`, `parallel` bounds the runs at a time.

        `on_no_report` is told the name, outcome and exit code of runs that came to no report: the job's file is wrong.
        Raises JobError with the problems of all files.
        """
        self.lock = threading.Lock()
        self._run = run
        self._environ = environ
        self._tell = tell
        self._on_no_report = on_no_report
        self._clock = clock
        self._monotonic = monotonic
        self._wait = wait
        self._slots = threading.Semaphore(parallel if parallel is not None else max(1, len(paths)))
        self._roots: dict[str, threading.Lock] = {}
        self._jobs: list[_JobThread] = []
        # The jobs as their files were when the service began; each run reads its own anew.
        self.jobs_at_start: list[LoadJob] = []
        problems: list[Problem] = []
        names: dict[str, Path] = {}
        for path in paths:
            try:
                job, settings = scheduled(path, environ)
            except JobError as error:
                problems += [replace(problem, origin=problem.origin or error.origin) for problem in error.problems]
                continue
            if job.name in names:
                what, remedy = f"{names[job.name]} has the same name", "give each job a name of its own"
                problems.append(Problem("name", f'"{job.name}"', what, remedy, origin=str(path)))
            names[job.name] = path
            state = ScheduledJob(job.name, settings, now_s=clock(), chance=chance or random.Random())
            self._jobs.append(_JobThread(self, path, job, state))
            self.jobs_at_start.append(job)
        if problems:
            raise JobError(problems, origin="these jobs")

    @property
    def jobs(self) -> list[ScheduledJob]:
        """The jobs; read them under `lock`."""
        return [thread.state for thread in self._jobs]

    @property
    def names(self) -> list[str]:
        """The jobs' names, as their files are given."""
        return [thread.state.name for thread in self._jobs]

    @property
    def is_alive(self) -> bool:
        """Whether each job is still looked after."""
        return all(thread.is_alive() for thread in self._jobs)

    @property
    def at_work(self) -> dict[str, RunProgress]:
        """How far the runs are that are at work now, by job."""
        with self.lock:
            return {thread.state.name: thread.progress for thread in self._jobs if thread.progress is not None}

    def as_json(self) -> dict[str, Any]:
        """Return the states of all jobs, and how far the run of each is that is at work."""
        with self.lock:
            return {
                "jobs": [
                    {**thread.state.as_json(), "run": None if thread.progress is None else thread.progress.as_json()}
                    for thread in self._jobs
                ]
            }

    def serve(self, stop: threading.Event) -> int:
        """Run jobs until `stop` is set, and return an exit code: 0, or 130 where a run had to be left."""
        for thread in self._jobs:
            thread.start()
        stop.wait()
        with self.lock:
            running = [job.name for job in self.jobs if job.state is JobState.RUNNING]
        self._tell(f"stopping; {', '.join(running)} may come to its end" if running else "stopping")
        for thread in self._jobs:
            thread.stop.set()
        stopped_s = time.monotonic()
        left: list[_JobThread] = []
        # Each has its own grace: the shortest is over first.
        for thread in sorted(self._jobs, key=lambda one: one.stop_grace_s):
            thread.join(max(0.0, stopped_s + thread.stop_grace_s - time.monotonic()))
            if thread.is_alive():
                self._tell(f"{thread.state.name}: its run is left, uncommitted; the next one begins where it began")
                thread.run_stop.set()
                left.append(thread)
        deadline = time.monotonic() + END_S
        for thread in left:
            thread.join(max(0.0, deadline - time.monotonic()))
        return EXIT_STOPPED if left else 0

    def wait_until_due(self, state: ScheduledJob, stop: threading.Event) -> bool:
        """Wait until a job is due; return False when it is to stop instead."""
        now_s, passed_s = self._clock(), self._monotonic()
        while not stop.is_set():
            left_s = state.due_s - now_s
            if left_s <= 0:
                return True
            self._wait(stop, min(left_s, LOOK_S))
            before_s, passed_before_s = now_s, passed_s
            now_s, passed_s = self._clock(), self._monotonic()
            set_by_s = (now_s - before_s) - (passed_s - passed_before_s)
            if set_by_s < -CLOCK_SET_S:
                with self.lock:
                    state.handle_clock_set_back(now_s, set_by_s)
                self._tell(
                    f"{state.name}: the clock was set back by {-set_by_s:.0f} s; next run {_moment(state.due_s)}"
                )
        return False

    def run_once(self, thread: _JobThread) -> None:
        """Run a job that is due, in turn with those of the same root."""
        state = thread.state
        try:
            job, settings = scheduled(thread.path, self._environ)
        except JobError as error:
            with self.lock:
                state.handle_started(self._clock())
                sentences = tuple(str(problem) for problem in error.problems)
                state.handle_ended(self._clock(), JOB_WRONG, EXIT_JOB_WRONG, sentences)
            self._on_no_report(state.name, JOB_WRONG, EXIT_JOB_WRONG)
            self._tell(f"{state.name}: not run, next run {_moment(state.due_s)}: {error}")
            return
        root = self._roots.setdefault(job.destination.uri, threading.Lock())
        if not self._take(root, thread.stop):
            return
        try:
            if not self._take(self._slots, thread.stop):
                return
            try:
                self._run_now(thread, job, settings)
            finally:
                self._slots.release()
        finally:
            root.release()

    def _run_now(self, thread: _JobThread, job: LoadJob, settings: ScheduleSettings) -> None:
        from millstream.hadoop_loader.driver.progress import RunProgress
        from millstream.hadoop_loader.driver.rounds import has_more

        state, progress = thread.state, RunProgress()
        is_unapplied = more = False
        has_report = True
        thread.stop_grace_s = settings.stop_grace_s
        with self.lock:
            state.update(settings, self._clock())
            state.handle_started(self._clock())
            thread.progress = progress
        try:
            report = self._run(job, thread.run_stop, progress)
            outcome, exit_code, sentences = report.outcome.value, report.exit_code, tuple(report.errors)
            is_unapplied = report.is_unapplied
            told = f"{outcome}, {report.rows:,} rows in {report.wall_s:.1f} s" if report.rows else outcome
            more = has_more(job, report)
        except JobError as error:
            outcome, exit_code, has_report = JOB_WRONG, EXIT_JOB_WRONG, False
            sentences = tuple(str(problem) for problem in error.problems)
            told = "not run"
        except Exception as error:  # noqa: BLE001  one job's trouble is not that of the others
            _log.exception("the run of %s ended in an error that is none of a load's", state.name)
            outcome, exit_code, sentences = "failed", 1, (f"{type(error).__name__}: {error}",)
            told, has_report = "failed", False
        if not has_report:
            self._on_no_report(state.name, outcome, exit_code)
        with self.lock:
            thread.progress = None
            state.handle_ended(self._clock(), outcome, exit_code, sentences, is_unapplied=is_unapplied, has_more=more)
            due_s = state.due_s
        told_next = "the rest follows at once" if more and due_s <= self._clock() else f"next run {_moment(due_s)}"
        self._tell(f"{state.name}: {told}; {told_next}")
        for sentence in sentences:
            self._tell(f"{state.name}: {sentence}")

    def _take(self, lock: threading.Lock | threading.Semaphore, stop: threading.Event) -> bool:
        while not stop.is_set():
            if lock.acquire(timeout=0.5):
                return True
        return False


class _JobThread(threading.Thread):
    """Looks after one job. `stop` ends its waiting, `run_stop` its run."""

    def __init__(self, service: LoadService, path: Path, job: LoadJob, state: ScheduledJob) -> None:
        super().__init__(name=f"load-{state.name}", daemon=True)
        self.path = path
        self.state = state
        self.stop = threading.Event()
        self.run_stop = threading.Event()
        # Of its run, while there is one. Guarded by the service's lock.
        self.progress: RunProgress | None = None
        self.stop_grace_s = job.schedule.stop_grace_s if job.schedule is not None else 0.0
        self._service = service

    def run(self) -> None:
        while self._service.wait_until_due(self.state, self.stop):
            self._service.run_once(self)
        with self._service.lock:
            self.state.handle_stopped()


def _moment(at_s: float) -> str:
    if at_s == float("inf"):
        return "never"
    return datetime.datetime.fromtimestamp(at_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")
