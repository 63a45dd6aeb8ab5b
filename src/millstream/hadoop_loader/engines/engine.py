"""What an engine is: tasks in, events out; every task ends in exactly one AttemptFinished or AttemptFailed.

    engine.submit(tasks)                 at once; the engine runs as many of them at a time as it has workers
    engine.events(timeout_s=0.5)         what has happened, in order; empty when nothing did in that time
    engine.stop()                        ends what runs; nothing is told of it any more

A worker that dies is an AttemptFailed of the task it ran, no error of the engine. EngineError is for what leaves no
worker at all: it cannot be started, the cluster is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.splits import Progress, SplitResult, SplitTask


class EngineError(Exception):
    """No worker can be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class AttemptProgressed:
    """What a running attempt has read since it told last. A failed attempt's progress was in vain."""

    split: int
    attempt: int
    progress: tuple[Progress, ...]


@dataclass(frozen=True, slots=True)
class AttemptFinished:
    """The attempt came to its end; its files are whole and staged."""

    result: SplitResult
    peak_memory_bytes: int = 0  # of the worker so far, what the interpreter and its libraries take included


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt came to nothing; what it staged is never named by anybody."""

    split: int
    attempt: int
    error: str  # a sentence
    error_type: str  # the exception's class, or "WorkerDied"
    is_retriable: bool  # False: another attempt would meet the same (no access, no space, a wrong job)
    topic: str | None = None  # where the failure is that of one topic of the split
    is_own: bool = True  # False: lost together with other splits, and nobody knows by whose fault
    detail: str = ""  # the traceback, or what a worker that died printed last


EngineEvent = AttemptProgressed | AttemptFinished | AttemptFailed


class Engine(Protocol):
    """Runs splits; owned by the driver's thread."""

    @property
    def workers(self) -> int:
        """How many splits run at once: the planner balances over so many."""

    def submit(self, tasks: Sequence[SplitTask]) -> None:
        """Run these, when a worker is free, in this order. Raises EngineError."""

    def events(self, timeout_s: float) -> list[EngineEvent]:
        """Return what happened, waiting up to `timeout_s` for the first event. Raises EngineError."""

    def stop(self) -> None:
        """End every worker, the tasks that run with them; nothing of this engine is left. May be called twice."""


def open_engine(job: LoadJob) -> Engine:
    """Return the engine the job asks for; no worker is started before the first task. Raises EngineError."""
    if job.engine == "spark":
        from millstream.hadoop_loader.engines.spark import SparkEngine

        return SparkEngine.for_job(job)
    from millstream.hadoop_loader.engines.local import LocalEngine
    from millstream.hadoop_loader.engines.task_runner import stall_bound_s

    return LocalEngine(job.workers, stall_s=stall_bound_s(job))
