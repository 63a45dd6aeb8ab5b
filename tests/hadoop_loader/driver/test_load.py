"""Whole runs, from a topic of Avro to files on a local disk: what the files hold is what the topic holds."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.support.inline_engine import InlineEngine
from tests.support.loads import SCHEMA_2, Events, assert_same, job_for, local_rows
from tests.support.registry import registry

from millstream import Admin, TopicPartition
from millstream.hadoop_loader import dataset
from millstream.hadoop_loader.driver import Outcome, load, run_load
from millstream.hadoop_loader.driver.compacting import CompactionRun, run_compaction
from millstream.hadoop_loader.driver.observer import Observer
from millstream.hadoop_loader.driver.status import status_of
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.engines import AttemptProgressed, Engine
from millstream.hadoop_loader.engines.local import LocalEngine
from millstream.hadoop_loader.filesystem import open_filesystem
from millstream.hadoop_loader.job import BadRecords, CompactionSettings, LoadJob, Partitioning, RegistrySettings
from millstream.hadoop_loader.splits import OffsetRange, Split
from millstream.testing import broker

pytestmark = pytest.mark.from_kafka(soak=True)

NewEvents = Callable[..., Events]
DAILY = Partitioning(kind="time", pattern="daily")


@pytest.mark.from_kafka
def test_each_run_loads_what_is_new(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events()
    events.send(3_000)
    job = job_for(events, tmp_path, partitioning=DAILY)

    first = run_load(job)
    assert (first.outcome, first.rows, first.errors) == (Outcome.LOADED, 3_000, [])
    assert_same(events, tmp_path, "avro", "parquet")

    nothing = run_load(job)
    assert (nothing.outcome, nothing.number) == (Outcome.NOTHING_NEW, None)

    events.send(500, SCHEMA_2)
    second = run_load(job)
    assert (second.outcome, second.rows) == (Outcome.LOADED, 500)
    assert any("country" in sentence for sentence in second.announcements)
    assert_same(events, tmp_path, "avro", "parquet")
    assert verify_destination(job).findings == []
    assert status_of(job).red == []


def test_splits_that_met_different_schemas_are_one_dataset(
    new_events: NewEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_for_each(ranges: Iterable[OffsetRange], **_: object) -> SimpleNamespace:
        return SimpleNamespace(splits=[Split(number, (one,)) for number, one in enumerate(ranges)])

    monkeypatch.setattr(load, "plan_splits", one_for_each)
    events = new_events(partitions=2)
    wide, narrow = events.framed(range(5), SCHEMA_2), events.framed(range(5, 10))
    events.send_raw(*wide, partition=0)
    events.send_raw(*narrow, partition=1)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))
    world = Surroundings(open_engine=lambda job: InlineEngine(job, open_filesystem(job.destination.uri)))

    report = run_load(job, surroundings=world)

    # The last schema is known from the start. The split that met the first one was run again, the other was not.
    assert (report.outcome, report.splits, report.attempts) == (Outcome.LOADED, 2, 3)
    found = dataset(tmp_path.as_uri(), events.topic).to_table().sort_by("id")
    assert found["country"].to_pylist() == [f"c{one % 3}" for one in range(5)] + [None] * 5
    assert_same(events, tmp_path, "avro", "parquet")


def test_a_report_is_kept_beside_the_log_and_where_the_job_says(new_events: NewEvents, tmp_path: Path) -> None:
    from millstream.hadoop_loader.job import ReportSettings

    events = new_events()
    events.send(30)
    job = job_for(events, tmp_path / "lake", report=ReportSettings(directory=str(tmp_path / "reports")))

    report = run_load(job)

    kept = json.loads((tmp_path / f"lake/_millstream/reports/{report.number:012d}.json").read_text())
    [told] = (tmp_path / "reports").iterdir()
    assert kept["run_id"] == json.loads(told.read_text())["run_id"] == report.run_id
    assert kept["audit"]["offsets"] == kept["audit"]["rows"] == 30
    assert [one["next_offset"] for one in kept["topics"][0]["partitions"]] == [10, 10, 10]
    heard: list[str] = []
    start = "the report was not written: report.directory"
    listening = type("Listening", (Observer,), {"handle_note": lambda _, sentence: heard.append(sentence)})
    run_load(replace(job, report=ReportSettings(directory=str(told))), observer=listening())
    assert heard == [f"{start}: {told}: file exists; see that the path can be made and written to"]


def test_a_table_is_called_as_the_job_says_and_keeps_its_name(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    events.send(60)
    named = {"table_names": {"events-(.*)": r"days.\1"}}
    table = events.topic.replace("events-", "days.")

    first = run_load(job_for(events, tmp_path, partitioning=DAILY, destination=named))
    events.send(60 * 24 * 2, SCHEMA_2)
    job = job_for(events, tmp_path, partitioning=DAILY)
    second = run_load(job)

    assert [(one.errors, one.topics[0].table) for one in (first, second)] == [([], table)] * 2
    assert local_rows(tmp_path, table, "avro", "parquet") == dict.fromkeys(("avro", "parquet"), events.rows())
    assert run_compaction(job).errors == []
    assert {one.table for one in status_of(job).tables} == {table}
    assert verify_destination(job, deep=True).findings == []
    assert not (tmp_path / events.topic).exists()


@pytest.mark.from_kafka
def test_directories_close_with_record_time(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=2)
    events.partitions = 1  # the other one never holds anything, and holds nothing back
    events.send(60 * 4)  # four hours, a record a minute
    job = job_for(events, tmp_path, destination={"formats": frozenset({"parquet"})})

    report = run_load(job)

    hours = tmp_path / events.topic / "parquet/year=2026/month=01/day=01"
    closed = sorted(path.parent.name for path in hours.rglob("_SUCCESS"))
    # The last record is of 03:59, and a directory closes an hour after its end.
    assert closed == ["hour=00", "hour=01"]
    assert len(report.closed_directories) == 2


def test_a_value_that_no_name_can_hold_is_a_bad_record(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    events.send(3)
    [value] = events.framed([7])
    events.send_raw(value.replace(b"\x0cuser-0", b"\xd8\x04" + b"x" * 300))  # Avro's lengths: 6, then 300
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="fields", fields=("user",)))

    first = run_load(job)
    events.send(2)
    second = run_load(job)

    assert [(one.outcome, one.rows, one.errors) for one in (first, second)] == [
        (Outcome.LOADED, 3, []),
        (Outcome.LOADED, 2, []),
    ]
    assert [one.audit["bad"] for one in (first, second)] == [1, 0]
    assert len(list((tmp_path / "_dead_letters" / events.topic).glob("*.avro"))) == 1


def test_the_last_day_of_the_calendar_is_a_day_like_others(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    events.send_raw(*events.framed([0, 253_402_214_400_000]))  # their id is the time: 1970-01-01 and 9999-12-31
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="time", pattern="daily", timestamp="id"))

    report = run_load(job)

    assert (report.outcome, report.rows, report.errors) == (Outcome.LOADED, 2, [])
    assert len(report.closed_directories) == 2  # of each format, and none of the year 9999
    assert all("year=1970" in directory for directory in report.closed_directories)


class KillsAWorker(Observer):
    """Kills a worker of the engine when it first tells of progress."""

    def __init__(self) -> None:
        self.engine: LocalEngine | None = None
        self.killed = 0

    def open_engine(self, job: LoadJob) -> Engine:
        self.engine = LocalEngine(job.workers)
        return self.engine

    def handle_progressed(self, event: AttemptProgressed) -> None:
        assert self.engine is not None
        if not self.killed:
            self.killed = self.engine.worker_pids()[0]
            os.kill(self.killed, signal.SIGKILL)


def test_a_killed_worker_costs_an_attempt(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events()
    events.send(6_000)
    killer = KillsAWorker()
    # Slow enough that the split is not over when its first progress is told.
    job = job_for(events, tmp_path, workers=1, partitioning=DAILY, source={"rate_limit_records_per_s": 6_000})

    report = run_load(job, observer=killer, surroundings=Surroundings(open_engine=killer.open_engine))

    assert killer.killed
    assert (report.outcome, report.rows, report.failed_attempts) == (Outcome.LOADED, 6_000, 1)
    assert_same(events, tmp_path, "avro", "parquet")


class WhenItLoads(Observer):
    """Does something once, when the run first tells of progress."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act: Callable[[], object] | None = act

    def handle_progressed(self, event: AttemptProgressed) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


def test_a_broker_that_dies_and_comes_back_costs_no_record(tmp_path: Path) -> None:
    with broker() as kafka, registry(kafka.bootstrap_servers) as schemas:
        events = Events(kafka.bootstrap_servers, schemas.url)
        events.send(4_000)
        job = job_for(events, tmp_path, partitioning=DAILY, source={"rate_limit_records_per_s": 4_000})

        def restart() -> None:
            kafka.kill()
            kafka.start()

        report = run_load(job, observer=WhenItLoads(restart))

        assert (report.outcome, report.rows, report.errors) == (Outcome.LOADED, 4_000, [])
        assert_same(events, tmp_path, "avro", "parquet")


@pytest.mark.parametrize("kind", ["time", "none"])
def test_loads_beside_a_compaction(new_events: NewEvents, tmp_path: Path, kind: str) -> None:
    events = new_events(partitions=2)
    # Directories of time are closed and then replaced whole; the other one never is, and loses and gets single files.
    job = job_for(
        events,
        tmp_path,
        partitioning=Partitioning(kind=kind, pattern="hourly"),
        compaction=CompactionSettings(open_directories=kind == "none"),
    )
    compacted: list[CompactionRun] = []
    done = threading.Event()

    def compact() -> None:
        while not done.is_set():
            compacted.append(run_compaction(job))

    thread = threading.Thread(target=compact)
    thread.start()
    try:
        for _ in range(3):
            events.send(240)
            report = run_load(job)
            assert (report.outcome, report.errors) == (Outcome.LOADED, [])
    finally:
        done.set()
        thread.join()

    assert {one.outcome for one in compacted} <= {Outcome.LOADED, Outcome.NOTHING_NEW}
    last = run_compaction(job)
    assert any(one.done for one in [*compacted, last])
    assert_same(events, tmp_path, "avro", "parquet")
    assert verify_destination(job, deep=True).findings == []


def test_a_directory_that_never_closes_is_compacted_after_runs(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=2)
    settings = CompactionSettings(open_directories=True, after_runs=True)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"), compaction=settings)
    for _ in range(2):
        events.send(240)
        report = run_load(job)
        assert (report.outcome, report.errors) == (Outcome.LOADED, [])
        assert (report.compaction["compacted_directories"], report.compaction["files_after"]) == (2, 2)

    assert [len(list((tmp_path / events.topic / format_).iterdir())) for format_ in ("avro", "parquet")] == [1, 1]
    assert_same(events, tmp_path, "avro", "parquet")
    assert verify_destination(job, deep=True).findings == []


def test_one_driver_at_a_time(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events()
    events.send(3_000)
    job = job_for(events, tmp_path, partitioning=DAILY, source={"rate_limit_records_per_s": 3_000})
    second = Surroundings(owner=lambda: "somebody else")
    met: list[Outcome] = []

    def run_another() -> None:
        report = run_load(job, surroundings=second)
        met.append(report.outcome)
        assert "the first" in report.errors[0]

    first = run_load(job, observer=WhenItLoads(run_another), surroundings=Surroundings(owner=lambda: "the first"))

    assert met == [Outcome.CLAIMED]
    assert first.outcome is Outcome.LOADED
    assert_same(events, tmp_path, "avro", "parquet")


def test_a_stopped_run_leaves_nothing(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events()
    events.send(3_000)
    job = job_for(events, tmp_path, partitioning=DAILY, source={"rate_limit_records_per_s": 3_000})
    stop = threading.Event()

    stopped = run_load(job, observer=WhenItLoads(stop.set), stop=stop)

    assert (stopped.outcome, stopped.exit_code, stopped.number) == (Outcome.STOPPED, 130, None)
    assert not (tmp_path / events.topic).exists()
    assert run_load(job_for(events, tmp_path, partitioning=DAILY)).rows == 3_000
    assert_same(events, tmp_path, "avro", "parquet")


@pytest.mark.from_kafka
def test_a_topic_with_too_many_bad_records_is_left_out_alone(new_events: NewEvents, tmp_path: Path) -> None:
    good, bad = new_events(), new_events()
    good.send(300)
    bad.send(300)
    bad.send_raw(b"no Avro at all", b"\x00", b"\x00\x00\x00\x00\x01\xff", None)
    job = job_for([good, bad], tmp_path, bad_records=BadRecords(max_bad_records=2), partitioning=DAILY)

    report = run_load(job)

    assert (report.outcome, report.exit_code) == (Outcome.PARTIAL, 3)
    assert any(bad.topic in error and "max_bad_records" in error for error in report.errors)
    assert_same(good, tmp_path, "avro", "parquet")
    assert not (tmp_path / bad.topic).exists()
    assert not (tmp_path / "_dead_letters").exists()
    assert [one.what for one in status_of(job).red if bad.topic in one.what]

    allowed = run_load(job_for([good, bad], tmp_path, partitioning=DAILY))

    assert (allowed.outcome, allowed.rows, allowed.errors) == (Outcome.LOADED, 300 + 1, [])  # the null is a row
    assert allowed.audit["bad"] == 3
    assert len(list((tmp_path / "_dead_letters" / bad.topic).glob("*.avro"))) == 1


def test_an_empty_topic_named_like_anothers_late_records_is_left_out(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    events.send(20)
    named = Events(events.bootstrap, events.registry_url, f"{events.topic}.late", partitions=1)
    job = job_for([events, named], tmp_path, partitioning=DAILY)

    first = run_load(job)

    assert (first.outcome, first.rows) == (Outcome.PARTIAL, 20)
    assert f"{named.topic} is also where records of topic {events.topic} go" in first.errors[0]
    # It had no position then, so it is no topic that was loaded before either.
    named.send(20)
    assert named.topic in run_load(job).errors[0]
    assert not (tmp_path / named.topic).exists()
    assert_same(events, tmp_path, "parquet", "avro")


@pytest.mark.from_kafka
def test_a_recreated_topic_is_noticed(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events()
    events.send(300)
    job = job_for(events, tmp_path, partitioning=DAILY)
    assert run_load(job).outcome is Outcome.LOADED
    events.make_anew()
    events.send(30)

    refused = run_load(job)

    assert (refused.outcome, refused.exit_code) == (Outcome.FAILED, 1)
    assert "created anew" in refused.errors[0]
    followed = run_load(job_for(events, tmp_path, partitioning=DAILY, source={"recreated": "continue"}))
    assert (followed.outcome, followed.rows) == (Outcome.LOADED, 30)
    assert sorted((one.is_former, one.lag) for one in status_of(job).topics) == [(False, 0), (True, None)]


@pytest.mark.from_kafka
def test_what_retention_took_is_never_passed_over_silently(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    events.send(100)
    job = job_for(events, tmp_path, partitioning=DAILY)
    run_load(job)
    events.send(100)
    with Admin(events.bootstrap) as admin:
        admin.delete_records({TopicPartition(events.topic, 0): 150})

    refused = run_load(job)
    assert refused.outcome is Outcome.FAILED
    assert "50 offsets were deleted before they were loaded" in refused.errors[0]

    followed = run_load(job_for(events, tmp_path, partitioning=DAILY, source={"gaps": "continue"}))
    assert (followed.outcome, followed.rows) == (Outcome.LOADED, 50)
    assert followed.audit["lost_offsets"] == 50
    assert followed.topics[0].gaps == {"retention": 50}


def test_known_schemas_need_no_registry(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events()
    events.send(60)
    away = RegistrySettings(urls=("http://127.0.0.1:9",), timeout_s=1.0)

    lost = run_load(job_for(events, tmp_path, partitioning=DAILY, registry=away, split_attempts=1))
    assert lost.outcome is Outcome.FAILED
    assert "127.0.0.1:9" in lost.errors[0]

    assert run_load(job_for(events, tmp_path, partitioning=DAILY)).outcome is Outcome.LOADED
    events.send(60)
    assert run_load(job_for(events, tmp_path, partitioning=DAILY, registry=away)).outcome is Outcome.LOADED
    assert_same(events, tmp_path, "avro", "parquet")


@pytest.mark.from_kafka
def test_positions_are_told_to_a_group(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=2)
    events.send(20)

    run_load(job_for(events, tmp_path, partitioning=DAILY, source={"group": f"loads {events.topic}"}))

    with Admin(events.bootstrap) as admin:
        told = admin.list_group_offsets([f"loads {events.topic}"])[f"loads {events.topic}"]
    assert isinstance(told, dict)
    assert {tp.partition: committed.offset for tp, committed in told.items()} == {0: 10, 1: 10}


def test_a_cluster_that_is_away_is_a_sentence(tmp_path: Path) -> None:
    job = LoadJob.loads(
        f"""
        name = "away"
        source.bootstrap_servers = "127.0.0.1:9"
        source.topics = ["t"]
        source.timeout_s = 1
        value = {{ format = "raw" }}
        destination.uri = "{tmp_path.as_uri()}"
        """
    )

    report = run_load(job)

    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
    assert "127.0.0.1:9" in report.errors[0]
