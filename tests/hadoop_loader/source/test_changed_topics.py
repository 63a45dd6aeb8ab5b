"""Whole loads of topics that are not as they were: a log that was cut, a driver that was faster."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from millstream import Admin, Producer
from millstream.hadoop_loader.commit import LoadDraft, Role
from millstream.hadoop_loader.commit.entries import Position
from millstream.hadoop_loader.driver import run_load
from millstream.hadoop_loader.driver.report import LoadReport, Outcome
from millstream.hadoop_loader.driver.sharing import cut_offset
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.job import (
    DestinationSettings,
    LoadJob,
    Partitioning,
    SourceSettings,
    ValueSettings,
)
from millstream.hadoop_loader.source import read_source
from millstream.testing import TestBroker

_numbers = itertools.count()


class Topic:
    """A topic of one partition with numbers in it, and jobs that load it."""

    def __init__(self, bootstrap: str, root: Path) -> None:
        self.name = f"changed-{os.getpid()}-{next(_numbers)}"
        self._bootstrap = bootstrap
        self._root = root
        self._sent = 0
        with Admin(bootstrap) as admin:
            admin.create_topic(self.name, partitions=1)

    def send(self, count: int) -> None:
        with Producer(self._bootstrap) as producer:
            for number in range(self._sent, self._sent + count):
                producer.send(self.name, b"%d" % number)
            producer.flush()
        self._sent += count

    def job(self, **settings: Any) -> LoadJob:
        return LoadJob(
            name="changed",
            workers=1,
            source=SourceSettings(bootstrap_servers=self._bootstrap, topics=(self.name,), **settings),
            value=ValueSettings(format="raw"),
            partitioning=Partitioning(kind="none"),
            destination=DestinationSettings(uri=self._root.as_uri()),
        )

    def rows(self) -> list[int]:
        files = (self._root / self.name / "parquet").rglob("*.parquet")
        return sorted(int(value) for file in files for value in pq.read_table(file)["value"].to_pylist())


@pytest.fixture
def topic(millstream_broker_session: TestBroker, tmp_path: Path) -> Topic:
    return Topic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")


def commit_position(job: LoadJob, position: Position) -> None:
    """Commit it as a load would that read so far."""
    surroundings = Surroundings()
    snapshot = read_source(job.source, {}, {})
    (now,) = snapshot.topics.values()
    with surroundings.open_filesystem(job) as filesystem:
        filesystem.make_directory("")
        log = surroundings.commit_log(job, filesystem)
        claim = log.claim(Role.LOAD, owner="a test", run_id="loaded-more")
        topics, positions = {now.topic_id: now.name}, {now.topic_id: {0: position}}
        log.commit(claim, LoadDraft(cluster_id=snapshot.cluster_id, topics=topics, positions=positions))
        claim.release()


def test_a_log_that_was_cut_below_the_position(topic: Topic) -> None:
    topic.send(5)
    commit_position(topic.job(), Position(8, 0))

    stopped = run_load(topic.job())
    assert stopped.outcome is Outcome.FAILED
    assert "loaded up to 8, and from 5 on its log is another" in stopped.errors[0]

    # Nothing to load yet; the position goes back all the same, or what comes at offsets 5 to 7 would be lost.
    assert run_load(topic.job(truncated="continue")).errors == []
    with Surroundings().open_filesystem(topic.job()) as lake:
        state = Surroundings().commit_log(topic.job(), lake).read()
    [topic_id] = state.topics
    assert cut_offset(state, topic.name, topic_id, 0) == 5
    topic.send(6)
    report = run_load(topic.job())
    assert (report.outcome, report.rows) == (Outcome.LOADED, 6)
    assert topic.rows() == [5, 6, 7, 8, 9, 10]


def test_a_driver_that_was_faster_is_no_cut_log(topic: Topic) -> None:
    topic.send(5)
    others: list[LoadReport] = []

    def owner() -> str:
        # Asked for between the look at the topic and the claim: another driver loads more than was seen.
        topic.send(7)
        others.append(run_load(topic.job()))
        return "the slower one"

    slower = run_load(topic.job(truncated="continue"), surroundings=Surroundings(owner=owner))

    assert [other.rows for other in others] == [12]
    assert (slower.outcome, slower.errors) == (Outcome.NOTHING_NEW, [])
    assert topic.rows() == list(range(12))


def test_a_stopped_topic_beside_others_is_partly_done_whether_or_not_those_had_more(topic: Topic) -> None:
    topic.send(3)
    job = topic.job()
    job = replace(job, source=replace(job.source, topics=(topic.name, "nowhere")))

    runs = [run_load(job) for _ in range(2)]

    assert [(each.outcome, each.rows) for each in runs] == [(Outcome.PARTIAL, 3), (Outcome.PARTIAL, 0)]
    assert all("there is no topic 'nowhere'" in each.errors[0] for each in runs)
    assert run_load(replace(job, source=replace(job.source, topics=("nowhere",)))).outcome is Outcome.FAILED
