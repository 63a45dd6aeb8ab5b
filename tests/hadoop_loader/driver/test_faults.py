"""Whatever a destination does to a run, and wherever it is killed: the next run makes the files what the topic is.

The driver and its splits run in this process on a destination that fails at one act (an act is a call that may change
it): crashes before and after it, time-outs that take effect later or never. `make test` takes a seeded sample of acts
and faults, `make soak` all of them. A second part kills real processes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.inline_engine import InlineEngine
from tests.support.killed_run import QUICK, kill_points, killed
from tests.support.loads import Events, assert_same, job_for

from millstream.hadoop_loader.commit import CommitSettings
from millstream.hadoop_loader.driver import LoadReport, Outcome, run_load
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.filesystem import FileSystem, open_filesystem
from millstream.hadoop_loader.job import LoadJob, Partitioning
from millstream.hadoop_loader.job.files import CompactionSettings, FileLimits
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import Fault, FaultyFileSystem, LateActs

NewEvents = Callable[..., Events]
SEED = 20260101
SAMPLE = 8
KILLS = 3


class World:
    """A destination on this disk, behind faults; splits run inline."""

    def __init__(self, late: LateActs) -> None:
        self.late = late
        self.filesystem: FaultyFileSystem | None = None

    def run(self, job: LoadJob, faults: Mapping[int, Fault] | None = None) -> LoadReport | None:
        """Run; None where the process "crashed"."""

        def open_faulty(job: LoadJob) -> FileSystem:
            inner = open_filesystem(job.destination.uri, job.destination.filesystem)
            self.filesystem = FaultyFileSystem(inner, faults, late=self.late)
            return self.filesystem

        def open_inline(job: LoadJob) -> InlineEngine:
            assert self.filesystem is not None
            return InlineEngine(job, self.filesystem)

        # Renewals would be acts at any time: here the claim outlives the run without.
        settings = CommitSettings(claim_timeout_s=0.2, renewal_interval_s=3_600)
        surroundings = Surroundings(
            open_filesystem=open_faulty, open_engine=open_inline, commit_settings=settings, random=random.Random(1)
        )
        try:
            return run_load(job, surroundings=surroundings)
        except SimulatedCrashError:
            return None


def job_of(events: Events, root: Path, **changes: Any) -> LoadJob:
    return job_for(events, root, partitioning=Partitioning(kind="kafka"), split_attempts=2, **changes)


@pytest.fixture
def acts(new_events: NewEvents, tmp_path: Path) -> tuple[int, Events]:
    """How many acts a run of the topic takes, and the topic."""
    events = new_events(partitions=2)
    events.send(40)
    world = World(LateActs(0))
    assert world.run(job_of(events, tmp_path / "without faults")) is not None
    assert world.filesystem is not None
    return world.filesystem.acts, events


def chosen(acts: int, soak: bool) -> Iterator[tuple[int, Fault]]:
    points = [(act, fault) for act in range(1, acts + 1) for fault in Fault]
    yield from points if soak else random.Random(SEED).sample(points, SAMPLE)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_fault_is_repaired_by_the_next_run(acts: tuple[int, Events], tmp_path: Path, soak: bool) -> None:
    count, events = acts
    for act, fault in chosen(count, soak):
        root = tmp_path / f"{act}-{fault.name}"
        job, world = job_of(events, root), World(LateActs(act))

        first = world.run(job, {act: fault})
        assert first is None or not fault.name.startswith("CRASH"), f"{act} of {count}: nothing crashed"
        # What the first run sent may arrive among the acts of the second, and what is left behind it.
        second = world.run(job)
        world.late.flush()
        last = world.run(job)

        where = f"{fault.value} at act {act} of {count}; the second run: {second}"
        assert last is not None, where
        assert last.outcome in (Outcome.LOADED, Outcome.NOTHING_NEW), (where, last.errors)
        assert_same(events, root, "avro", "parquet")
        assert verify_destination(job).findings == [], where


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_a_killed_driver_is_repaired_by_the_next_run(new_events: NewEvents, tmp_path: Path, soak: bool) -> None:
    events = new_events(partitions=2)
    events.send(200)

    def job_to(root: Path) -> LoadJob:
        # With a compaction behind the load, of directories that never close.
        compaction = CompactionSettings(after_runs=True, open_directories=True)
        return job_of(events, root, limits=FileLimits(rows=30), compaction=compaction)

    for act, when in kill_points("load", job_to(tmp_path / "not killed"), None if soak else KILLS, SEED):
        root = tmp_path / f"{act}-{when}"
        job = job_to(root)
        before = {child.pid for child in psutil.Process().children(recursive=True)}

        was_killed = killed("load", job, tmp_path, act, when)

        report = run_load(job, surroundings=Surroundings(commit_settings=QUICK))
        assert report.outcome in (Outcome.LOADED, Outcome.NOTHING_NEW), (act, when, report.errors)
        assert_same(events, root, "avro", "parquet")
        assert verify_destination(job).findings == []
        left = {child.pid for child in psutil.Process().children(recursive=True)} - before
        assert not left, f"{when} act {act}: workers {left} outlived their driver"
        if soak and not was_killed:
            break  # that was behind its last act
