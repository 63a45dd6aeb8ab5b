"""What `status` and `verify` say of a destination somebody has meddled with, and what a plan shows before a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.loads import Events, assert_same, job_for

from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver.compacting import run_compaction
from millstream.hadoop_loader.driver.dry_run import plan_load
from millstream.hadoop_loader.driver.status import status_of
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.job import Partitioning

NewEvents = Callable[..., Events]


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
    assert status_of(job, offline=True).topics[0].lag is None


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
    success = next((tmp_path / events.topic).rglob("_SUCCESS"))
    success.unlink()

    shallow = [finding.what for finding in verify_destination(job).findings]
    deep = [finding.what for finding in verify_destination(job, deep=True).findings]

    for name, sentence in (
        (lost.name, "is not there"),
        (cut.name, "bytes, the log says"),
        ("added.parquet", "is in no entry of the log"),
        ("stray.parquet", "is in no entry of the log"),
        (success.parent.name, "has no _SUCCESS"),
    ):
        assert any(name in what and sentence in what for what in shallow), (name, shallow)
    assert not any(flipped.name in what for what in shallow)
    assert any(flipped.name in what and "checksum" in what for what in deep)


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
