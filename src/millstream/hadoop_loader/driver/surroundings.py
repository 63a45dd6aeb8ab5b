"""What a run takes from the world: the destination, topics, workers, clocks, chance. Tests give their own.

Settings that turn out to be wrong only here (an address that no Hadoop configuration explains, a trust store that is
gone) are problems of the job, and raised as such.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import uuid4

from millstream.core.config import ConfigError
from millstream.hadoop_loader.commit import CommitLog, CommitSettings
from millstream.hadoop_loader.engines import Engine, open_engine
from millstream.hadoop_loader.filesystem import FileSystem, open_filesystem
from millstream.hadoop_loader.job import JobError, Problem
from millstream.hadoop_loader.source import SourceSnapshot, read_source

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import ClaimRecord, TableState
    from millstream.hadoop_loader.job import LoadJob


class StoppedError(Exception):
    """The run was told to stop, while nothing of it was visible."""


def _open_destination(job: LoadJob) -> FileSystem:
    try:
        return open_filesystem(job.destination.uri, job.destination.filesystem)
    except ValueError as error:
        problem = Problem("destination", f'"{job.destination.uri}"', str(error), "see the destination's settings")
        raise JobError([problem], origin=f"job {job.name}") from error


def look_at_topics(job: LoadJob, state: TableState) -> SourceSnapshot:
    """What the job's topics hold now. Raises KafkaError, WireError, JobError."""
    try:
        return read_source(job.source, state.positions, state.topics)
    except ConfigError as error:
        problem = Problem("source", "", str(error), "see source.client, and the files it names")
        raise JobError([problem], origin=f"job {job.name}") from error


def _new_run_id() -> str:
    return uuid4().hex


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """See the module; the defaults are the real ones."""

    open_filesystem: Callable[[LoadJob], FileSystem] = _open_destination
    open_engine: Callable[[LoadJob], Engine] = open_engine
    commit_settings: CommitSettings = field(default_factory=CommitSettings)
    monotonic: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    random: random.Random = field(default_factory=random.SystemRandom)
    run_id: Callable[[], str] = _new_run_id
    owner: Callable[[], str] = _this_process

    def settings(self, job: LoadJob) -> CommitSettings:
        """The commit log's numbers, with what the job says of them."""
        return replace(self.commit_settings, snapshot_retention_s=job.destination.snapshot_retention_s)

    def commit_log(
        self,
        job: LoadJob,
        filesystem: FileSystem,
        *,
        stop: threading.Event | None = None,
        tell: Callable[[str], None] = lambda _sentence: None,
    ) -> CommitLog:
        """The log of the job's destination. With `stop` set its `claim` raises StoppedError where it has to wait.

        A commit that has begun is brought to its end: whether its entry is there has to be known. `tell` is told what
        is waited for.
        """
        stop = stop or threading.Event()
        settings = self.settings(job)

        def watch_wait(seconds: float) -> None:
            if stop.wait(seconds):
                raise StoppedError

        def on_watch(record: ClaimRecord) -> None:
            timeout_s = settings.claim_timeout_s
            tell(f"{record.owner} claimed the destination: watching for {timeout_s:g} s whether it is still at work")

        return CommitLog(
            filesystem,
            settings,
            monotonic=self.monotonic,
            wait=time.sleep,
            watch_wait=watch_wait,
            on_watch=on_watch,
            now_ms=lambda: round(self.wall_clock() * 1000),
            random=self.random,
        )
