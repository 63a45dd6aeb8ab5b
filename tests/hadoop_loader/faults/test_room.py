"""HDFS has no room for a block, or no quota, before a load or in the middle of it: the run says so, nothing half is
seen, and once there is room the next run finishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.hdfs_room import BLOCK_BYTES, Room
from tests.support.inline_engine import InlineEngine
from tests.support.killed_run import QUICK
from tests.support.raw_topics import RawTopic, assert_held, run_inline

from millstream.hadoop_loader.driver import LoadReport, Outcome, run_load
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.engines import AttemptFinished, EngineEvent
from millstream.hadoop_loader.filesystem import (
    FileSystem,
    FileSystemSettings,
    UnavailableError,
    open_filesystem,
)
from millstream.hadoop_loader.job import DestinationSettings, LoadJob
from millstream.testing import TestBroker
from millstream.testing.hdfs import MiniHdfs

pytestmark = [pytest.mark.hdfs, pytest.mark.timeout(600)]

RECORDS: Final = 600
SIZE: Final = 1_700  # bytes of a value: a partition is a split of its own
# What a run says, by what there is too little of.
REMEDIES: Final = {"room": "free space or add disks", "bytes": "raise the quota", "names": "raise the quota"}


class Lake:
    """A topic whose first records are loaded, and as many again to load."""

    def __init__(self, topic: RawTopic, hdfs: MiniHdfs, room: Room) -> None:
        self.topic = topic
        self._room = room
        self._hdfs = hdfs
        self._path = f"/{topic.uri.rpartition('/')[2]}"
        settings = DestinationSettings(
            uri=topic.uri, formats=frozenset({"avro", "parquet"}), deadline_s=30.0, block_size_bytes=BLOCK_BYTES
        )
        self.job: LoadJob = topic.job(changes={"destination": settings})
        self._send(1)
        assert run_inline(self.job).rows == topic.partitions
        self.before = topic.rows()
        self._send(RECORDS)

    def take(self, what: str) -> None:
        """From now on there is too little of it."""
        match what:
            case "room":
                self._room.take()
            case "bytes":
                self._hdfs.set_quota(self._path, space_bytes=1 << 20)
            case "names":
                self._hdfs.set_quota(self._path, names=1)

    def give_back(self, what: str) -> None:
        """There is enough of it."""
        match what:
            case "room":
                self._room.give_back()
            case "bytes":
                self._hdfs.set_quota(self._path, space_bytes=1 << 50)
            case "names":
                self._hdfs.set_quota(self._path, names=1 << 30)

    def assert_refused(self, report: LoadReport, what: str) -> None:
        """The run failed, and said so; readers see what they saw before."""
        assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
        assert all(self.topic.uri in error for error in report.errors), report.errors
        assert any(REMEDIES[what] in error for error in report.errors), report.errors
        assert self.topic.rows() == self.before
        assert self.topic.rows("avro") == self.before

    def assert_finishes(self) -> None:
        """The next run loads all that the failed one did not."""
        report = run_inline(self.job, commit_settings=QUICK)
        assert (report.outcome, report.rows, report.errors) == (Outcome.LOADED, RECORDS * self.topic.partitions, [])
        assert_held(self.topic, "avro", "parquet")
        assert verify_destination(self.job, deep=True).findings == []

    def _send(self, count: int) -> None:
        for partition in range(self.topic.partitions):
            self.topic.send(count, partition=partition, size=SIZE)


@pytest.fixture(scope="module")
def hdfs(hadoop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniHdfs]:
    """An HDFS of this file's own: a NameNode asks for the room of each block that a killed writer began, too, for as
    long as twenty minutes and as large as the block that it is asked for.
    """
    with MiniHdfs(tmp_path_factory.mktemp("hdfs-room"), jars=hadoop_folder) as hdfs:
        yield hdfs


@pytest.fixture
def lake(millstream_broker_session: TestBroker, hdfs: MiniHdfs, tmp_path: Path) -> Iterator[Lake]:
    uri = f"{hdfs.uri}/{'-'.join(tmp_path.parts[-2:])}"
    with Room(hdfs) as room:
        yield Lake(RawTopic(millstream_broker_session.bootstrap_servers, uri, partitions=2), hdfs, room)


def test_without_room_a_run_begins_nothing(lake: Lake, hdfs: MiniHdfs) -> None:
    lake.take("room")
    lake.assert_refused(run_inline(lake.job, commit_settings=QUICK), "room")
    settings = FileSystemSettings(deadline_s=1.0, block_size_bytes=BLOCK_BYTES)
    with (
        open_filesystem(hdfs.webhdfs_uri, settings) as over_http,
        pytest.raises(UnavailableError, match="none has room for a block"),
    ):
        over_http.create("no-room")
    lake.give_back("room")
    lake.assert_finishes()


class BetweenSplits(InlineEngine):
    """Calls `act` once, when the first split has ended and there are more."""

    def __init__(self, job: LoadJob, filesystem: FileSystem, act: Callable[[], None]) -> None:
        super().__init__(job, filesystem)
        self._left = [act]

    def events(self, timeout_s: float) -> list[EngineEvent]:
        told = super().events(timeout_s)
        if self._left and self._waiting and any(isinstance(one, AttemptFinished) for one in told):
            self._left.pop()()
        return told


@pytest.mark.parametrize("what", list(REMEDIES))
def test_what_runs_out_in_the_middle_leaves_nothing_half_done(lake: Lake, what: str) -> None:
    opened: list[FileSystem] = []
    taken: list[str] = []

    def take() -> None:
        lake.take(what)
        taken.append(what)

    def open_one(job: LoadJob) -> FileSystem:
        opened.append(open_filesystem(job.destination.uri, job.destination.filesystem))
        return opened[0]

    def open_engine(job: LoadJob) -> InlineEngine:
        return BetweenSplits(job, opened[0], take)

    world = Surroundings(open_filesystem=open_one, open_engine=open_engine, commit_settings=QUICK)
    report = run_load(lake.job, surroundings=world)

    assert taken == [what]
    lake.assert_refused(report, what)
    lake.give_back(what)
    lake.assert_finishes()
