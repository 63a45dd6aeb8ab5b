"""run_compaction: one compaction of a destination, from the claim to the report; it may run beside a load.

It has a claim of its own role, so two compactions never meet, and a load and a compaction only in the commit log: a
directory that got another file meanwhile is left as it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from millstream.hadoop_loader.commit import Role
from millstream.hadoop_loader.driver.claim_keeper import claimed
from millstream.hadoop_loader.driver.problems import outcome_in
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.telling import bring_catalogs_up_to_date
from millstream.hadoop_loader.tables.ownership import tables_of

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableState
    from millstream.hadoop_loader.compaction import DirectoryPlan, DirectoryResult
    from millstream.hadoop_loader.job import LoadJob

OnProgress = Callable[[int, int], None]
"""on_progress(bytes read so far, bytes to read)"""


@dataclass(slots=True)
class CompactionRun:
    """How a compaction went. Outcome LOADED: directories were compacted; NOTHING_NEW: none was worth it."""

    run_id: str
    job: str
    destination: str
    outcome: Outcome = Outcome.FAILED
    # Of the last entry that was committed.
    number: int | None = None
    wall_s: float = 0.0
    directories: list[DirectoryResult] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    # Nothing to be done at once.
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """What a command that made this run ends with."""
        return self.outcome.exit_code

    @property
    def done(self) -> list[DirectoryResult]:
        """The directories that were compacted."""
        return [one for one in self.directories if one.is_done]

    @property
    def bytes_before(self) -> int:
        """Of the files that were compacted."""
        return sum(one.bytes_before for one in self.done)

    @property
    def bytes_after(self) -> int:
        """Of the files they became."""
        return sum(one.bytes_after for one in self.done)

    @property
    def files_before(self) -> int:
        """How many they were."""
        return sum(one.files_before for one in self.done)

    @property
    def files_after(self) -> int:
        """How many they became."""
        return sum(one.files_after for one in self.done)

    @property
    def rows(self) -> int:
        """Rows in them afterwards."""
        return sum(one.rows for one in self.done)

    @property
    def rows_replaced(self) -> int:
        """Rows that later ones of the same key replaced."""
        return sum(one.rows_replaced for one in self.done)

    def totals(self) -> dict[str, Any]:
        """Return what it came to in all, as the report of the run has it that it follows."""
        return {
            "outcome": self.outcome.value,
            "wall_s": self.wall_s,
            "compacted_directories": len(self.done),
            "files_before": self.files_before,
            "files_after": self.files_after,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "rows": self.rows,
            "rows_replaced": self.rows_replaced,
        }

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "run_id": self.run_id,
            "job": self.job,
            "destination": self.destination,
            "exit_code": self.exit_code,
            "number": self.number,
            **self.totals(),
            "directories": [asdict(one) for one in self.directories],
            "errors": self.errors,
            "notes": self.notes,
        }


def run_compaction(
    job: LoadJob,
    *,
    tables: Collection[str] | None = None,
    stop: threading.Event | None = None,
    on_progress: OnProgress | None = None,
    surroundings: Surroundings | None = None,
) -> CompactionRun:
    """Compact the directories of the job's tables that are worth it, and return how it went.

    Setting `stop` ends it soon; directories that were committed by then stay compacted. Never raises for what it
    may meet, as `run_load`.
    """
    world, stop = surroundings or Surroundings(), stop or threading.Event()
    began = world.monotonic()
    run = CompactionRun(world.run_id(), job.name, job.destination.uri)
    with outcome_in(run), ExitStack() as stack:
        _run(stack, job, run, world, stop, tables, on_progress or _tell_nobody)
    run.wall_s = world.monotonic() - began
    return run


def _run(
    stack: ExitStack,
    job: LoadJob,
    run: CompactionRun,
    world: Surroundings,
    stop: threading.Event,
    tables: Collection[str] | None,
    on_progress: OnProgress,
) -> None:
    from millstream.hadoop_loader.compaction import CompactionReport, compact, plan_compaction

    filesystem = stack.enter_context(world.open_filesystem(job))
    log = world.commit_log(job, filesystem, stop=stop)

    def plan(state: TableState) -> list[DirectoryPlan]:
        own = tables_of(job, state, with_late=True).keys()
        return plan_compaction(state, job.compaction, tables=own if tables is None else own & set(tables))

    state = log.read()
    known = {key.rpartition("/")[0] for key in state.totals} & tables_of(job, state, with_late=True).keys()
    if unknown := sorted(set(tables or ()) - known):
        there = f"there are {', '.join(sorted(known))}" if known else "nothing was loaded yet"
        run.errors.append(f"{', '.join(unknown)}: no such table of this job at {job.destination.uri}; {there}")
        return
    plans = plan(state)
    if not plans and not log.cleaning_is_due(Role.COMPACT) and log.unapplied() is None:
        run.outcome = Outcome.NOTHING_NEW
        return
    claim = stack.enter_context(claimed(world, job, log, Role.COMPACT, run.run_id))
    told = log.clean(claim)
    if claim.state.number != state.number + 1:
        # The claim is not all that has happened since.
        plans = plan(claim.state)
    total, read = sum(plan.size_bytes for plan in plans), 0

    def handle_read(_plan: DirectoryPlan, size_bytes: int) -> None:
        nonlocal read
        read += size_bytes
        on_progress(read, total)

    report = CompactionReport(run.directories)
    try:
        compact(
            filesystem,
            log,
            claim,
            plans,
            job.compaction,
            job.encoding,
            stop=stop,
            on_progress=handle_read,
            report=report,
            workers=_workers(job),
            job=job.name,
        )
    finally:
        run.number = max((one.number for one in run.done), default=None)
    run.errors += [f"{one.directory}: {one.refused}" for one in report.directories if one.refused]
    run.notes += [f"left for the next time: {one.left}" for one in report.directories if one.left]
    if report.is_stopped and not run.done:
        run.outcome = Outcome.STOPPED
    elif run.errors or report.is_stopped:
        run.outcome = Outcome.PARTIAL if run.done else Outcome.FAILED
    else:
        run.outcome = Outcome.LOADED if run.done else Outcome.NOTHING_NEW
    told += log.clean(claim)
    run.notes += [f"cleaning: {sentence}" for sentence in dict.fromkeys(told)]
    if report.is_stopped:
        run.notes.append("stopped; what is left is for the next time")
    if run.done:
        problems, fails = bring_catalogs_up_to_date(job, filesystem, claim.state, run.run_id)
        if fails:
            run.errors += problems
            run.outcome = Outcome.PARTIAL
        else:
            run.notes += problems


def _workers(job: LoadJob) -> int:
    """How many directories are worked on at once: as the job says, but never more than this machine has cores."""
    cores = len(os.sched_getaffinity(0))
    return min(job.workers or cores, cores)


def _tell_nobody(_read: int, _total: int) -> None:
    """Progress that nobody asked for."""
