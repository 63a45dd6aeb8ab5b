"""A worker is killed before or after one of its acts on the destination: another one takes its split, and the run ends
as if nothing had been.

`make test` takes a seeded sample of acts, `make soak` all of them.
"""

from __future__ import annotations

import json
import random
import re
import threading
from pathlib import Path
from typing import Final

import pytest
from tests.support import killed_worker
from tests.support.raw_topics import RawTopic, assert_held, run_inline

from millstream.hadoop_loader.driver import LoadReport, Outcome, run_load
from millstream.hadoop_loader.driver.compacting import CompactionRun, run_compaction
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.engines.local import LocalEngine
from millstream.hadoop_loader.filesystem import FileSystem, open_filesystem
from millstream.hadoop_loader.job import CompactionSettings, DestinationSettings, LoadJob, Partitioning
from millstream.testing import TestBroker
from millstream.testing.faulty_filesystem import FaultyFileSystem
from millstream.testing.hdfs import MiniHdfs

pytestmark = [pytest.mark.timeout(3600), pytest.mark.slow]

RECORDS: Final = 200
SEED: Final = 20260101
SAMPLE: Final = 3
SAMPLE_ON_HDFS: Final = 1


class Kills:
    """Runs of one topic, each into a root of its own, each with a worker that is killed at one act."""

    def __init__(self, bootstrap: str, uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bootstrap = bootstrap
        self._uri = uri
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._topic = RawTopic(bootstrap, uri)
        self._topic.send(RECORDS)

    def run(self, act: int, when: str) -> tuple[LoadReport, LoadJob, Path]:
        """Run once; returns the folder with what the workers told, too."""
        name = f"{when}-{act}"
        folder = self._folder / name
        folder.mkdir(parents=True)
        told = json.dumps({"act": act, "when": when, "folder": str(folder)})
        self._monkeypatch.setenv(killed_worker.VARIABLE, told)
        self._topic.uri = f"{self._uri}/{name}"
        job = self._topic.job(
            changes={
                "destination": DestinationSettings(uri=self._topic.uri, formats=frozenset({"avro", "parquet"})),
                "partitioning": Partitioning(kind="time", pattern="daily"),
            }
        )

        return run_load(job, surroundings=Surroundings(open_engine=open_killed)), job, folder

    def acts(self) -> int:
        """How many acts a worker makes of which nobody kills any."""
        report, _, folder = self.run(0, "after")
        assert (report.outcome, report.failed_attempts) == (Outcome.LOADED, 0)
        assert_held(self._topic, "avro", "parquet")
        return len((folder / "acts").read_text().splitlines())

    def check(self, act: int, when: str) -> None:
        """Run, and see that it cost nothing but an attempt."""
        report, job, folder = self.run(act, when)
        where = f"{when} act {act}: {(folder / 'killed').read_text()}"
        assert (report.outcome, report.errors) == (Outcome.LOADED, []), where
        assert report.failed_attempts == 1, where
        assert report.rows == RECORDS, where
        assert_held(self._topic, "avro", "parquet")
        assert verify_destination(job, deep=True).findings == [], where


def open_killed(job: LoadJob) -> LocalEngine:
    return LocalEngine(job.workers, worker_module=killed_worker.__name__)


def check_points(kills: Kills, sample: int | None) -> None:
    acts = kills.acts()
    points = [(act, when) for act in range(1, acts + 1) for when in ("before", "after")]
    for act, when in points if sample is None else random.Random(SEED).sample(points, sample):
        kills.check(act, when)


def test_a_killed_worker_costs_an_attempt(
    millstream_broker_session: TestBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soak: bool
) -> None:
    kills = Kills(
        millstream_broker_session.bootstrap_servers, (tmp_path / "lake").as_uri(), tmp_path / "told", monkeypatch
    )
    check_points(kills, None if soak else SAMPLE)


@pytest.mark.hdfs
def test_a_killed_worker_costs_an_attempt_on_hdfs(
    millstream_broker_session: TestBroker,
    hdfs: MiniHdfs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    soak: bool,
) -> None:
    uri = f"{hdfs.uri}/{'-'.join(tmp_path.parts[-2:])}"
    kills = Kills(millstream_broker_session.bootstrap_servers, uri, tmp_path / "told", monkeypatch)
    check_points(kills, None if soak else SAMPLE_ON_HDFS)


def test_a_worker_killed_while_a_compaction_works(
    millstream_broker_session: TestBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside it, in the same directory: the files of earlier runs become one, and what the new attempt has is added."""
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")
    job = topic.job(changes={"compaction": CompactionSettings(open_directories=True, files_min=2)})
    for _ in range(2):
        topic.send(RECORDS)
        assert run_inline(job).outcome is Outcome.LOADED
    topic.send(RECORDS)
    told = {"act": 3, "when": "before", "folder": str(tmp_path)}
    monkeypatch.setenv(killed_worker.VARIABLE, json.dumps(told))
    works, goes_on = threading.Event(), threading.Event()
    compactions: list[CompactionRun] = []

    def wait_in_a_file(act: str) -> None:
        if re.match("write _millstream/staging", act):
            works.set()
            assert goes_on.wait(120)

    def open_waiting(job: LoadJob) -> FileSystem:
        filesystem = open_filesystem(job.destination.uri, job.destination.filesystem)
        return FaultyFileSystem(filesystem, before_call=wait_in_a_file)

    def compact() -> None:
        compactions.append(run_compaction(job, surroundings=Surroundings(open_filesystem=open_waiting)))

    compacting = threading.Thread(target=compact)
    compacting.start()
    try:
        assert works.wait(120)
        report = run_load(job, surroundings=Surroundings(open_engine=open_killed))
    finally:
        goes_on.set()
        compacting.join()

    assert (tmp_path / "killed").exists()
    assert (report.outcome, report.errors, report.failed_attempts) == (Outcome.LOADED, [], 1)
    (compaction,) = compactions
    assert (compaction.outcome, compaction.errors, compaction.files_before) == (Outcome.LOADED, [], 2)
    assert_held(topic)
    assert verify_destination(job, deep=True).findings == []
