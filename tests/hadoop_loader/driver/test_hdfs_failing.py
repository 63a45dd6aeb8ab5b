"""Runs into an HDFS that is taken away under them: after each, and one more run, the files hold what the topic holds.

One HDFS with two NameNodes serves all of this module. What fails, fails at a phase of the run; whether that run still
gets through is its own business, and so is how: what counts is what it says, and what is there in the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.loads import Events, assert_same, job_for

from millstream.hadoop_loader.commit import CommitSettings
from millstream.hadoop_loader.driver import LoadReport, Outcome, run_load
from millstream.hadoop_loader.driver.observer import Observer, Phase
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.filesystem import FileSystem, open_filesystem
from millstream.hadoop_loader.job import LoadJob, Partitioning
from millstream.testing.hdfs import NAMESERVICE, MiniHdfs

pytestmark = [pytest.mark.hdfs, pytest.mark.timeout(900)]

NewEvents = Callable[..., Events]
PATIENT_S = 100.0
HASTY_S = 3.0


class At(Observer):
    """Does something once, at the first time that a run comes to a phase, on the run's own thread."""

    def __init__(self, phase: Phase, action: Callable[[], object]) -> None:
        self.phase = phase
        self.action: Callable[[], object] | None = action

    def handle_phase(self, phase: Phase) -> None:
        if phase is self.phase and self.action is not None:
            action, self.action = self.action, None
            action()


class Lake:
    """A table root on the HDFS, and the jobs that load a topic into it."""

    def __init__(self, hdfs: MiniHdfs, events: Events, tmp_path: Path) -> None:
        self.hdfs = hdfs
        self.events = events
        self.folder = "-".join(tmp_path.parts[-2:])
        self.uri = f"{hdfs.uri}/{self.folder}"
        self._copy = tmp_path / "copy"

    def job(self, deadline_s: float = PATIENT_S, uri: str | None = None, user: str | None = None) -> LoadJob:
        destination = {
            "deadline_s": deadline_s,
            "user": user,
            "nameservices": {NAMESERVICE: self.hdfs.rpc_addresses},
            "nameservices_http": {NAMESERVICE: self.hdfs.http_addresses},
        }
        return job_for(self.events, uri or self.uri, destination=destination, partitioning=Partitioning(kind="kafka"))

    def open(self) -> FileSystem:
        return open_filesystem(self.uri, self.job().destination.filesystem)

    def assert_whole(self) -> None:
        """One more run, and then the files are what the topic is, and what the log says."""
        # A run that could not give its claim back is known to be dead when its counter stands still.
        quick = Surroundings(commit_settings=CommitSettings(claim_timeout_s=2, renewal_interval_s=0.5))
        report = run_load(self.job(), surroundings=quick)
        assert report.outcome in (Outcome.LOADED, Outcome.NOTHING_NEW), report.errors
        with self.open() as lake:
            copy(lake, "", self._copy)
        assert_same(self.events, self._copy, "avro", "parquet")
        assert verify_destination(self.job()).findings == []


def copy(lake: FileSystem, path: str, target: Path) -> None:
    """Copy a directory of a destination to this disk, without what is `_millstream`'s."""
    target.mkdir(parents=True, exist_ok=True)
    for status in lake.list(path):
        if status.name == "_millstream":
            continue
        if status.is_directory:
            copy(lake, status.path, target / status.name)
        else:
            with lake.open(status.path) as file:
                (target / status.name).write_bytes(file.read_at(0, file.size))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, hadoop_folder: Path) -> Iterator[MiniHdfs]:
    """An HDFS with two NameNodes."""
    with MiniHdfs(tmp_path_factory.mktemp("hdfs-pair"), ha=True, jars=hadoop_folder) as hdfs:
        yield hdfs


@pytest.fixture
def lake(pair: MiniHdfs, new_events: NewEvents, tmp_path: Path) -> Iterator[Lake]:
    """A table root with one run's records in it, and as many again to load."""
    pair.restore()
    made = Lake(pair, new_events(partitions=2), tmp_path)
    made.events.send(300)
    assert run_load(made.job()).outcome is Outcome.LOADED
    made.events.send(300)
    yield made
    pair.restore()


def meanwhile(*actions: Callable[[], object]) -> Callable[[], None]:
    """The first action now; the others, which may take their time, on a thread beside the run."""

    def act() -> None:
        actions[0]()
        threading.Thread(target=lambda: [action() for action in actions[1:]], daemon=True).start()

    return act


def test_a_namenode_that_comes_back_while_a_run_commits(lake: Lake) -> None:
    restarted = threading.Event()

    def restart() -> None:
        # It comes back as a standby, as it would in a pair.
        lake.hdfs.start_namenode()
        lake.hdfs.make_active(lake.hdfs.active)
        restarted.set()

    report = run_load(lake.job(), observer=At(Phase.COMMITTING, meanwhile(lake.hdfs.kill_namenode, restart)))
    assert restarted.wait(120)
    assert report.outcome in (Outcome.LOADED, Outcome.FAILED) or report.is_unapplied, report.errors
    if report.outcome is not Outcome.LOADED:
        assert_told(report, lake)
    lake.assert_whole()


def test_a_failover_in_the_middle_of_a_run(lake: Lake) -> None:
    done = threading.Event()
    (other,) = {"nn1", "nn2"} - {lake.hdfs.active}

    def fail_over() -> None:
        lake.hdfs.make_active(other)
        done.set()

    report = run_load(lake.job(), observer=At(Phase.LOADING, meanwhile(lake.hdfs.kill_namenode, fail_over)))
    assert done.wait(120)
    assert report.outcome is Outcome.LOADED, report.errors
    assert report.rows == 300
    lake.assert_whole()


def test_a_namenode_that_is_silent_while_a_run_commits(lake: Lake) -> None:
    report = run_load(lake.job(HASTY_S), observer=At(Phase.COMMITTING, lake.hdfs.pause_namenode))
    assert report.outcome is Outcome.FAILED
    assert_told(report, lake)
    # Whatever was sent is done now, late.
    lake.hdfs.resume_namenode()
    lake.assert_whole()


def test_datanodes_that_are_away_while_a_run_writes(lake: Lake) -> None:
    report = run_load(lake.job(HASTY_S), observer=At(Phase.LOADING, lake.hdfs.kill_datanode))
    assert report.outcome is Outcome.FAILED
    assert_told(report, lake)
    lake.hdfs.start_datanode()
    lake.assert_whole()


def test_a_full_quota_is_named_and_the_next_run_goes_on(lake: Lake) -> None:
    lake.hdfs.set_quota(f"/{lake.folder}", space_bytes=1 << 20)
    report = run_load(lake.job())
    assert report.outcome is Outcome.FAILED
    assert any("quota" in error and "raise the quota" in error for error in report.errors), report.errors
    lake.hdfs.set_quota(f"/{lake.folder}", space_bytes=1 << 40)
    lake.assert_whole()


def test_who_may_not_write_loads_nothing(lake: Lake) -> None:
    uri = f"{lake.hdfs.webhdfs_uri}/{lake.folder}"
    report = run_load(lake.job(uri=uri, user="mallory"))
    assert report.outcome is Outcome.FAILED
    assert any("mallory" in error and "right to write" in error for error in report.errors), report.errors
    lake.assert_whole()


def assert_told(report: LoadReport, lake: Lake) -> None:
    """The report names the destination."""
    assert report.errors
    assert any(lake.uri in error for error in report.errors), report.errors
