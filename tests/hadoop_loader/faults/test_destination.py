"""The destination fails while a load writes to it, and comes back: HDFS is killed, no quota, no room, no driver left.

After each the files hold the topic's records, each once, and no reader of plain directories has seen anything else.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.killed_run import QUICK, kill_points, killed
from tests.support.raw_topics import RawTopic, Row, assert_held, run_inline

from millstream.hadoop_loader.commit import CommitSettings
from millstream.hadoop_loader.driver import LoadReport, Outcome, run_load
from millstream.hadoop_loader.driver.compacting import run_compaction
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, Partitioning
from millstream.testing import TestBroker
from millstream.testing.hdfs import MiniHdfs
from millstream.testing.kafka import wait_until

pytestmark = pytest.mark.timeout(900)

RECORDS: Final = 300
SEED: Final = 20260101
KILLS: Final = 2
DEADLINE_S: Final = 5.0
# Runs that may fail before one has to do: a NameNode that has just come back takes nothing for a while.
TRIES: Final = 12


@pytest.fixture
def topic(millstream_broker_session: TestBroker, hdfs: MiniHdfs, tmp_path: Path) -> RawTopic:
    """A topic that is loaded to HDFS."""
    return RawTopic(
        millstream_broker_session.bootstrap_servers, f"{hdfs.uri}/{'-'.join(tmp_path.parts[-2:])}", partitions=2
    )


def job_of(topic: RawTopic, **changes: Any) -> LoadJob:
    """A job with short deadlines and some directories."""
    formats = frozenset({"parquet", "avro"})
    return topic.job(
        changes={
            "destination": DestinationSettings(uri=topic.uri, formats=formats, deadline_s=DEADLINE_S),
            "partitioning": Partitioning(kind="time", pattern="hourly"),
            "split_attempts": 2,
            **changes,
        }
    )


def send(topic: RawTopic, count: int = RECORDS) -> None:
    for partition in range(topic.partitions):
        topic.send(count, partition=partition)


def settled(job: LoadJob) -> LoadReport:
    """Run until a run does its work, as a schedule would."""
    for _ in range(TRIES):
        report = run_inline(job, commit_settings=QUICK)
        if report.outcome in (Outcome.LOADED, Outcome.NOTHING_NEW):
            return report
    raise AssertionError(report.errors)


@pytest.mark.hdfs
@pytest.mark.parametrize("daemon", ["namenode", "datanode"])
def test_hdfs_is_killed_in_the_middle_and_comes_back(topic: RawTopic, hdfs: MiniHdfs, daemon: str) -> None:
    send(topic)
    job = job_of(topic)
    assert run_inline(job).rows == 2 * RECORDS
    send(topic)

    def bring_back() -> None:
        time.sleep(1.0)
        hdfs.start_namenode(wait=False) if daemon == "namenode" else hdfs.start_datanode(wait=False)

    back = threading.Thread(target=bring_back)

    def kill() -> None:
        hdfs.kill_namenode() if daemon == "namenode" else hdfs.kill_datanode()
        back.start()

    def look() -> None:
        assert_none_doubled(topic.rows(missing_ok=True, deadline_s=DEADLINE_S))

    with Reader(look, but=FileSystemError) as reader:
        run_inline(job, in_the_middle=kill)
        back.join()
        hdfs.restore()
        settled(job)
        seen = reader.looks
        wait_until(lambda: reader.error or reader.looks > seen, 60.0, "a reader to see what is there")
    assert reader.error is None, reader.error
    assert_held(topic)
    assert verify_destination(job, deep=True).findings == []


@pytest.mark.hdfs
def test_a_quota_leaves_nothing_half_done(topic: RawTopic, hdfs: MiniHdfs) -> None:
    send(topic)
    job = job_of(topic)
    assert run_inline(job).rows == 2 * RECORDS
    before = topic.rows()
    send(topic)
    path = "/" + topic.uri.rpartition("/")[2]
    hdfs.set_quota(path, names=1)

    refused = run_inline(job, commit_settings=QUICK)
    assert (refused.outcome, refused.exit_code) == (Outcome.FAILED, 1)
    assert "quota" in " ".join(refused.errors).lower()
    assert topic.rows() == before

    # Enough for files in staging, not for the directories that the entry names: it is published, and applied later.
    told: list[str] = []
    for names in (60, 90, 105):
        hdfs.set_quota(path, names=names)
        told += run_inline(job, commit_settings=QUICK).errors
        assert not topic.rows() - topic.shown()
    assert any("not fully applied" in error for error in told), told
    hdfs.set_quota(path, names=100_000)
    settled(job)
    assert_held(topic)
    assert verify_destination(job, deep=True).findings == []


@pytest.mark.slow
@pytest.mark.hdfs
@pytest.mark.timeout(3600)
def test_a_driver_killed_on_hdfs_is_repaired_by_the_next_run(topic: RawTopic, tmp_path: Path, soak: bool) -> None:
    send(topic, 20)
    points = kill_points("load", job_of(topic), None if soak else KILLS, SEED)
    for number, (act, when) in enumerate(points):
        each = RawTopic(topic.bootstrap, f"{topic.uri}-{number}", partitions=1)
        each.send(40)
        job = job_of(each)
        was_killed = killed("load", job, tmp_path, act, when)
        if was_killed:
            assert not each.rows() - each.shown()
        settled(job)
        assert_held(each)
        assert verify_destination(job).findings == []
        if soak and not was_killed:
            break  # that was behind its last act


def test_a_disk_without_room_leaves_nothing_half_done(
    millstream_broker_session: TestBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake", partitions=2)
    send(topic)
    job = job_of(topic)
    write = os.write
    left = 0

    def write_while_there_is_room(descriptor: int, data: Any) -> int:
        nonlocal left
        inside = Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(tmp_path / "lake")
        if inside and left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, bytes(data)[: left if inside else None])
        left -= written if inside else 0
        return written

    monkeypatch.setattr(os, "write", write_while_there_is_room)
    told = 0
    for left in (0, 5_000, 40_000, 70_000):  # noqa: B007  the writer counts it down
        report = run_inline(job, commit_settings=QUICK)
        if report.outcome not in (Outcome.LOADED, Outcome.NOTHING_NEW):
            assert any("room" in error or "space" in error for error in report.errors), report.errors
            told += 1
        assert not topic.rows() - topic.shown()
    assert told
    left = 1 << 30

    settled(job)
    assert_held(topic)
    assert verify_destination(job, deep=True).findings == []


def test_clocks_that_jump_change_nothing(millstream_broker_session: TestBroker, tmp_path: Path) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake", partitions=2)
    chance = random.Random(SEED)

    def jumping() -> float:
        # Years back and forth, between any two looks.
        return time.time() + chance.choice((-1, 1)) * chance.randrange(10**9)

    closed: list[int] = []
    for _ in range(4):
        send(topic, 90)
        report = run_inline(job_of(topic), wall_clock=jumping, commit_settings=CommitSettings())
        assert (report.outcome, report.errors, report.rows) == (Outcome.LOADED, [], 180)
        closed.append(len(report.closed_directories))
    assert any(closed)
    assert_held(topic)
    assert verify_destination(job_of(topic), deep=True).findings == []


def assert_none_doubled(rows: Counter[Row]) -> None:
    doubled = [row for row, count in rows.items() if count > 1]
    assert not doubled, doubled[:3]


class Reader:
    """Looks at plain directories all the time: never a row twice, never a file that cannot be read.

    A look that ends in an error of the kind `but`, since the destination is away, does not count.
    """

    def __init__(self, look: Callable[[], object], *, but: type[Exception] | tuple[()] = ()) -> None:
        self._look = look
        self._but = but
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.looks = 0
        self.error: Exception | None = None

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._look()
            except self._but:
                continue
            except Exception as error:
                self.error = error
                return
            self.looks += 1

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_loads_beside_compactions_and_readers(millstream_broker_session: TestBroker, tmp_path: Path) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake", partitions=2)
    job = job_of(topic)
    send(topic, 30)
    run_inline(job)
    over = threading.Event()
    compacted: list[int] = []
    errors: list[str] = []

    def look() -> None:
        assert_none_doubled(topic.rows(missing_ok=True))

    def compact() -> None:
        while not over.is_set():
            run = run_compaction(job)
            compacted.append(run.files_before)
            errors.extend(run.errors)

    compacting = threading.Thread(target=compact)
    with Reader(look) as reader:
        compacting.start()
        for _ in range(5):
            send(topic, 60)
            # Two at once: one of them loads, the other one is told who does.
            others: list[LoadReport] = []
            other = threading.Thread(target=lambda told=others: told.append(run_load(job)))
            other.start()
            mine = run_inline(job)
            other.join()
            outcomes = {mine.outcome, others[0].outcome}
            assert outcomes <= {Outcome.LOADED, Outcome.CLAIMED, Outcome.NOTHING_NEW}, (mine.errors, others[0].errors)
            assert Outcome.LOADED in outcomes
        over.set()
        compacting.join()
    assert reader.error is None, reader.error
    assert reader.looks
    assert errors == []
    assert sum(compacted)
    assert run_inline(job).outcome is Outcome.NOTHING_NEW
    assert_held(topic)
    assert verify_destination(job, deep=True).findings == []
