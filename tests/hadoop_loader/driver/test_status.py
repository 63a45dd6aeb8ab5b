"""What `status` and `verify` say of a destination somebody has meddled with, and what a plan shows before a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.loads import FIRST_MS, STEP_MS, Events, assert_same, job_for

from millstream.hadoop_loader.commit import Role
from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver.claim_keeper import claimed
from millstream.hadoop_loader.driver.compacting import run_compaction
from millstream.hadoop_loader.driver.dry_run import plan_load
from millstream.hadoop_loader.driver.status import status_of
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.job import Partitioning

pytestmark = pytest.mark.from_kafka(soak=True)

NewEvents = Callable[..., Events]


@pytest.mark.from_kafka
def test_a_plan_is_what_the_run_does(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events()
    events.send(300)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))

    planned = plan_load(job)

    assert (planned.offsets, planned.exit_code, len(planned.ranges)) == (300, 0, 3)
    assert list(tmp_path.iterdir()) == []  # nothing was claimed
    assert run_load(job).audit["offsets"] == 300
    assert plan_load(job).offsets == 0
    events.send(30)
    lag = status_of(job)
    assert [(topic.topic, topic.lag) for topic in lag.topics] == [(events.topic, 30)]
    # The last minute of the first 300 is in one partition, the farthest behind is two before.
    newest_s = (FIRST_MS + 297 * STEP_MS) / 1000
    an_hour_later = Surroundings(wall_clock=lambda: newest_s + 3600)
    assert status_of(job, surroundings=an_hour_later).topics[0].lag_age_s == 3600
    left_out = status_of(job, offline=True).topics[0]
    assert (left_out.lag, left_out.lag_age_s) == (None, None)


def test_whatever_was_changed_by_hand_is_found(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=2)
    events.send(400)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="time", pattern="hourly"))
    run_load(job)
    files = sorted((tmp_path / events.topic / "parquet").rglob("*.parquet"))
    lost, cut, flipped = files[:3]
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    (cut.parent / "added.parquet").write_bytes(b"x")
    (tmp_path / events.topic / "parquet" / "elsewhere").mkdir()
    (tmp_path / events.topic / "parquet" / "elsewhere" / "stray.parquet").write_bytes(b"x")
    # One of a directory that lacks nothing else, and one of a directory that lacks a file.
    success = next((tmp_path / events.topic / "avro").rglob("_SUCCESS"))
    for mark in (success, lost.parent / "_SUCCESS"):
        mark.unlink()

    shallow = [finding.what for finding in verify_destination(job).findings]
    deep = [finding.what for finding in verify_destination(job, deep=True).findings]

    for name, sentence in (
        (lost.name, "is not there"),
        (cut.name, "bytes, the log says"),
        ("added.parquet", "is in no entry of the log"),
        ("stray.parquet", "is in no entry of the log"),
        (success.parent.relative_to(tmp_path).as_posix(), "has no _SUCCESS"),
        (lost.parent.relative_to(tmp_path).as_posix(), "has no _SUCCESS"),
    ):
        assert any(name in what and sentence in what for what in shallow), (name, shallow)
    assert not any(flipped.name in what for what in shallow)
    assert any(flipped.name in what and "checksum" in what for what in deep)

    repaired = verify_destination(job, repair=True)
    assert repaired.repaired == [success.relative_to(tmp_path).as_posix()]
    assert success.exists()
    assert not (lost.parent / "_SUCCESS").exists()
    assert [finding.what for finding in repaired.findings] == [what for what in shallow if "avro" not in what]
    remedies = [finding.remedy for finding in repaired.findings if "_SUCCESS" in finding.what]
    assert remedies == ["mend its files first: it would say that all rows are there"]


def test_a_run_that_is_at_work_or_was_killed_is_told(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events()
    events.send(3)
    job = job_for(events, tmp_path)
    run_load(job)
    assert "last claimed by" in status_of(job, offline=True).headline
    world = Surroundings()

    with world.open_filesystem(job) as lake, claimed(world, job, world.commit_log(job, lake), Role.LOAD, "run"):
        beside = status_of(job, offline=True)

    assert re.search(r", claimed by .+ since 20.+: a run is at work, or was killed$", beside.headline)
    assert re.fullmatch(r".+ \(entry 3, not given back\)", beside.claims["load"])
    assert "last claimed by" in status_of(job, offline=True).headline


def test_tombstones_among_rows_share_no_offset(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    events.send(5)
    events.send_raw(None)
    events.send(5)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))
    assert run_load(job).rows == 11

    assert verify_destination(job).findings == []


def test_a_compaction_leaves_the_rows_what_they_are(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=2)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="time", pattern="hourly"))
    for _ in range(2):
        events.send(200)
        assert run_load(job).outcome is Outcome.LOADED

    compacted = run_compaction(job)

    assert (compacted.outcome, compacted.errors) == (Outcome.LOADED, [])
    assert compacted.files_after < compacted.files_before
    assert_same(events, tmp_path, "avro", "parquet")
    assert verify_destination(job, deep=True).findings == []
    assert run_compaction(job).outcome is Outcome.NOTHING_NEW
    assert [(line.kind, line.entries > 1) for line in status_of(job).runs][-1] == ("compact", True)
    events.send(100)
    assert run_load(job).rows == 100
    assert_same(events, tmp_path, "avro", "parquet")
