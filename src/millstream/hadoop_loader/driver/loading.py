"""Runs the splits of one run on an engine: tasks out, events in, until nothing is left or the run has to end.

What is decided is decided in `attempts.py` and `schemas.py`; here it is done: staging folders are made under the claim,
tasks are handed out, schemas that nobody knew are merged before the next attempts are.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from millstream.hadoop_loader.driver.attempts import Attempts
from millstream.hadoop_loader.driver.observer import Observer
from millstream.hadoop_loader.driver.surroundings import StoppedError
from millstream.hadoop_loader.engines.engine import AttemptFailed, AttemptFinished, AttemptProgressed
from millstream.hadoop_loader.source import read_cut_topics
from millstream.hadoop_loader.splits import DirectoryNames, SplitTask

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Claim
    from millstream.hadoop_loader.driver.claim_keeper import ClaimKeeper
    from millstream.hadoop_loader.driver.schemas import RunSchemas
    from millstream.hadoop_loader.engines.engine import Engine
    from millstream.hadoop_loader.job import LoadJob

POLL_S: Final = 0.2


@dataclass(slots=True)
class Loading:
    """One run's splits on one engine; owned by the driver's thread."""

    job: LoadJob
    claim: Claim
    keeper: ClaimKeeper
    engine: Engine
    attempts: Attempts
    schemas: RunSchemas
    observer: Observer
    stop: threading.Event
    attempts_made: int = 0
    peak_memory_bytes: int = 0
    monotonic: Callable[[], float] = time.monotonic
    # When the first split of a result began, and the last one ended.
    _began: float = math.inf
    _ended: float = -math.inf
    # By table, of those that splits have gone to so far: a schema may bring a table that was left long ago.
    _closed_directories: dict[str, DirectoryNames] = field(default_factory=dict)

    @property
    def splits_s(self) -> float:
        """From the first split's first fetch to the last one's last close; the start of workers is not in it."""
        return max(0.0, self._ended - self._began)

    def run(self) -> None:
        """Run every split to its end. Raises StoppedError, FencedError, EngineError, and what staging may."""
        job = self.job.for_workers()
        while True:
            tasks = [
                SplitTask(
                    job=job,
                    split=split,
                    attempt=attempt,
                    staging=self.claim.staging(split.number, attempt),
                    run_id=self.claim.run_id,
                    tables={one.topic: self.schemas.tables[one.topic] for one in split.ranges},
                    closed_directories=self._closed(topics={one.topic for one in split.ranges}),
                    rate_shares=self.attempts.shares(split.number, self.engine.workers),
                )
                for split, attempt in self.attempts.take()
            ]
            self.attempts_made += len(tasks)
            self.engine.submit(tasks)
            if self.attempts.is_done:
                self._give_up_cut_topics()
                return
            events = self.engine.events(POLL_S)
            if self.stop.is_set():
                raise StoppedError
            self.keeper.check()
            if not events:
                self.observer.handle_waiting()
            for event in events:
                self._handle(event)

    def _handle(self, event: AttemptProgressed | AttemptFinished | AttemptFailed) -> None:
        if isinstance(event, AttemptProgressed):
            self.observer.handle_progressed(event)
            return
        given_up = set(self.attempts.given_up)
        if isinstance(event, AttemptFinished):
            self.observer.handle_finished(event)
            self._ended = self.monotonic()
            self._began = min(self._began, self._ended - event.result.wall_s)
            self.peak_memory_bytes = max(self.peak_memory_bytes, event.peak_memory_bytes)
            announced = len(self.schemas.announcements)
            for topic, reason in self.schemas.learn(self.attempts.handle_finished(event.result)).items():
                self.attempts.give_up([topic], reason)
            for sentence in self.schemas.announcements[announced:]:
                self.observer.handle_note(sentence)
        else:
            self.observer.handle_failed(event)
            parts = self.attempts.handle_failed(event)
            if parts:
                self.observer.handle_divided(event.split, parts)
                self.observer.handle_note(
                    f"split {event.split} failed for good and names no topic: each of its {len(parts)} is tried alone"
                )
        for topic in self.attempts.given_up.keys() - given_up:
            self.observer.handle_note(f"{topic} is given up in this run: {self.attempts.given_up[topic]}")

    def _closed(self, topics: set[str]) -> dict[str, DirectoryNames]:
        names = {table.name for topic in topics for table in self.schemas.tables[topic].tables()}
        for name in names - self._closed_directories.keys():
            self._closed_directories[name] = DirectoryNames(self.claim.state.closed_directories(name))
        return {name: self._closed_directories[name] for name in names}

    def _give_up_cut_topics(self) -> None:
        """Leave out topics whose pieces were not read from one log."""
        for topic, sentence in read_cut_topics(self.job.source, self.attempts.reads()).items():
            self.attempts.give_up([topic], sentence)
            self.observer.handle_note(f"{topic} is given up in this run: {sentence}")
