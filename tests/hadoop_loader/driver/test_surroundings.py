"""What waiting for another's claim looks like: it is told once, and a stop ends it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.support.table_roots import TableRoot

from millstream.hadoop_loader.commit import CommitSettings, Role
from millstream.hadoop_loader.driver.surroundings import StoppedError, Surroundings
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, SourceSettings, ValueSettings
from millstream.testing.memory_filesystem import MemoryFileSystem

JOB = LoadJob(
    name="orders",
    source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("orders",)),
    value=ValueSettings(format="raw"),
    destination=DestinationSettings(uri="file:///lake"),
)
WORLD = Surroundings(commit_settings=CommitSettings(claim_timeout_s=0.001))


def test_a_claim_that_is_watched_is_told_once(tmp_path: Path) -> None:
    root = TableRoot(tmp_path, MemoryFileSystem())
    root.claim(Role.LOAD)  # and is never heard of again
    told: list[str] = []

    log = WORLD.commit_log(JOB, root.filesystem, tell=told.append)
    log.claim(Role.LOAD, owner="me", run_id="mine").release()

    assert told == ["test claimed the destination: watching for 0.001 s whether it is still at work"]
    log.claim(Role.LOAD, owner="me", run_id="mine-too").release()
    assert len(told) == 1, "what was given back is not waited for"


def test_a_stop_ends_the_watching_of_a_claim(tmp_path: Path) -> None:
    root = TableRoot(tmp_path, MemoryFileSystem())
    root.claim(Role.LOAD)
    stop = threading.Event()
    stop.set()
    number = root.log.read().number

    with pytest.raises(StoppedError):
        WORLD.commit_log(JOB, root.filesystem, stop=stop).claim(Role.LOAD, owner="me", run_id="mine")

    assert root.log.read().number == number
