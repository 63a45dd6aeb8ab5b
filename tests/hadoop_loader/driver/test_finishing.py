"""What a run does behind its commit, and what it says where something of that, or all of it, fails."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.inline_engine import InlineEngine
from tests.support.loads import Events, assert_same, job_for

from millstream import Admin
from millstream.hadoop_loader import catalogs
from millstream.hadoop_loader.commit import CommitSettings, TableState
from millstream.hadoop_loader.driver import LoadReport, Outcome, finishing, run_load
from millstream.hadoop_loader.driver.compacting import CompactionRun, run_compaction
from millstream.hadoop_loader.driver.directories import close_directories
from millstream.hadoop_loader.driver.finishing import Finishing
from millstream.hadoop_loader.driver.metrics import LoadMetrics
from millstream.hadoop_loader.driver.reporting import REPORTS_KEPT, write_local
from millstream.hadoop_loader.driver.status import status_of
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.filesystem import FileSystem, QuotaExceededError, open_filesystem
from millstream.hadoop_loader.job import (
    CompactionSettings,
    DestinationSettings,
    FileLimits,
    HiveSettings,
    LoadJob,
    Partitioning,
    SourceSettings,
)
from millstream.testing.faulty_filesystem import FaultyFileSystem

NewEvents = Callable[..., Events]
QUICK = CommitSettings(claim_timeout_s=1.0, renewal_interval_s=0.2)


def inline(job: LoadJob) -> InlineEngine:
    return InlineEngine(job, open_filesystem(job.destination.uri, job.destination.filesystem))


INLINE = Surroundings(open_engine=inline)


def refusing(pattern: str, *, nth: int = 1) -> Surroundings:
    """A destination that says, at the nth act whose name matches and from then on, that a quota is used up."""
    seen = 0

    def refuse(name: str) -> None:
        nonlocal seen
        if re.match(pattern, name):
            seen += 1
            if seen >= nth:
                raise QuotaExceededError("the quota of names is used up", uri="file:///lake", path=name)

    def open_refusing(job: LoadJob) -> FileSystem:
        inner = open_filesystem(job.destination.uri, job.destination.filesystem)
        return FaultyFileSystem(inner, before_call=refuse)

    return Surroundings(open_filesystem=open_refusing, commit_settings=QUICK)


def test_an_entry_that_cannot_be_applied_counts(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=2)
    events.send(40)
    job = job_for(
        events, tmp_path, partitioning=Partitioning(kind="kafka"), source={"group": f"loads of {events.topic}"}
    )
    metrics = LoadMetrics()

    report = run_load(
        job, observer=metrics, surroundings=refusing(rf"rename _millstream/staging\S+ -> {events.topic}/", nth=3)
    )

    assert (report.outcome, report.exit_code, report.is_unapplied, report.rows) == (Outcome.PARTIAL, 3, True, 40)
    assert report.number is not None
    assert "the quota of names is used up; raise the quota" in report.errors[0]
    assert f'rows_total{{job="events",topic="{events.topic}"}} 40' in metrics.text()
    assert f'unapplied_entry{{job="events"}} {report.number}' in metrics.text()
    assert (tmp_path / f"_millstream/reports/{report.number:012d}.json").exists()
    with Admin(events.bootstrap) as admin:
        told = admin.list_group_offsets([f"loads of {events.topic}"])[f"loads of {events.topic}"]
    assert isinstance(told, dict)
    assert sorted(committed.offset for committed in told.values()) == [20, 20]
    assert [f"entry {report.number}" in one.what for one in status_of(job).red] == [True]

    finished = run_load(job, observer=metrics)

    assert (finished.outcome, finished.number, finished.errors) == (Outcome.NOTHING_NEW, None, [])
    assert f'rows_total{{job="events",topic="{events.topic}"}} 40' in metrics.text()
    assert 'unapplied_entry{job="events"} 0' in metrics.text()
    assert_same(events, tmp_path, "avro", "parquet")
    assert status_of(job).red == []


def test_catalogs_are_told_of_what_they_missed_though_nothing_is_new(
    new_events: NewEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    problems: list[str] = []

    def tell(_job: LoadJob, _filesystem: FileSystem, state: TableState) -> list[str]:
        told.append(state.reports[-1]["number"])
        return list(problems)

    monkeypatch.setattr(catalogs, "tell_catalogs", tell)
    events = new_events(partitions=2)
    events.send(40)
    job = replace(
        job_for(events, tmp_path, partitioning=Partitioning(kind="kafka"), hive=HiveSettings()),
        compaction=CompactionSettings(open_directories=True, files_min=2),
        limits=FileLimits(rows=4),
    )

    def run(world: Surroundings = INLINE) -> LoadReport:
        told.clear()
        return run_load(job, surroundings=world)

    # An entry that could not be applied is told by the run that applies it.
    unapplied = run(replace(refusing(rf"rename _millstream/staging\S+ -> {events.topic}/", nth=3), open_engine=inline))
    assert (unapplied.is_unapplied, told) == (True, [])
    assert (run().outcome, told) == (Outcome.NOTHING_NEW, [unapplied.number])
    assert (run().outcome, told) == (Outcome.NOTHING_NEW, [])

    # A compaction that could not tell.
    problems.append("Iceberg: it is away")
    compacted = run_compaction(job)
    assert (compacted.outcome, compacted.errors, compacted.notes) == (Outcome.LOADED, [], problems)
    assert run().announcements == problems
    problems.clear()
    assert (run().outcome, told) == (Outcome.NOTHING_NEW, [compacted.directories[-1].number])
    assert (run().outcome, told) == (Outcome.NOTHING_NEW, [])

    # What is no run's.
    closed = close_directories(job, directories=["partition=0"])
    assert (run().outcome, told) == (Outcome.NOTHING_NEW, [closed.number])
    assert (run().outcome, told) == (Outcome.NOTHING_NEW, [])


def test_a_directory_whose_mark_cannot_be_made_yet_is_closed(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    events.send(3)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="kafka"))
    assert run_load(job).outcome is Outcome.LOADED

    closed = close_directories(job, surroundings=refusing(r"create \S+_SUCCESS"))

    assert (closed.outcome, closed.exit_code, closed.directories) == (Outcome.PARTIAL, 3, [])
    assert closed.number is not None
    assert "the quota of names is used up; raise the quota" in closed.errors[0]
    assert not list(tmp_path.rglob("_SUCCESS"))
    again = close_directories(job, directories=["partition=0"])
    assert (again.outcome, again.errors) == (Outcome.NOTHING_NEW, [])
    assert len(list(tmp_path.rglob("_SUCCESS"))) == 2


def test_what_is_past_its_time_goes_though_nothing_is_new(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=2)  # two files a directory
    events.send(150)
    job = job_for(events, tmp_path, destination={"snapshot_retention_s": 0.0, "formats": frozenset({"avro"})})
    assert run_load(job).outcome is Outcome.LOADED
    assert run_compaction(replace(job, destination=replace(job.destination, snapshot_retention_s=3_600.0))).done
    trash, staging = tmp_path / "_millstream/trash", tmp_path / "_millstream/staging"
    assert list(trash.iterdir())

    told = run_load(job, surroundings=refusing(r"rename _millstream/trash/")).announcements

    assert [sentence for sentence in told if sentence.startswith("cleaning: ") and "quota" in sentence]
    assert run_load(job).announcements == []
    assert list(trash.iterdir()) == []
    number = status_of(job, offline=True).number
    assert run_load(job).outcome is Outcome.NOTHING_NEW
    assert status_of(job, offline=True).number == number, "what was cleaned needs no claim any more"
    assert list(staging.glob("*-load/*")) == []
    assert verify_destination(job).findings == []


def test_status_knows_of_runs_that_committed_nothing(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    job = job_for(events, tmp_path)
    away = replace(job, source=SourceSettings(bootstrap_servers="127.0.0.1:9", topics=job.source.topics, timeout_s=1.0))
    events.send(5)
    assert run_load(job).outcome is Outcome.LOADED

    assert [run_load(away).outcome for _ in range(2)] == [Outcome.FAILED] * 2

    [red] = status_of(job, offline=True).red
    assert "the last 2 runs" in red.what
    assert "127.0.0.1:9" in red.what
    assert run_load(job).outcome is Outcome.NOTHING_NEW
    assert status_of(job, offline=True).red == []


def test_positions_are_told_to_a_group_again_though_nothing_is_new(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=2)
    events.send(20)
    job = job_for(events, tmp_path)
    run_load(job)
    group = f"loads {events.topic}"

    assert run_load(replace(job, source=replace(job.source, group=group))).outcome is Outcome.NOTHING_NEW

    with Admin(events.bootstrap) as admin:
        told = admin.list_group_offsets([group])[group]
    assert isinstance(told, dict)
    assert {tp.partition: committed.offset for tp, committed in told.items()} == {0: 10, 1: 10}


def raw_job(root: Path) -> LoadJob:
    return LoadJob.loads(
        f"""
        name = "raw"
        source.bootstrap_servers = "127.0.0.1:9"
        source.topics = ["t"]
        source.timeout_s = 1
        value = {{ format = "raw" }}
        destination.uri = "{root.as_uri()}"
        """
    )


def finishing_of(job: LoadJob) -> Finishing:
    report = LoadReport("run", job.name, job.destination.uri, outcome=Outcome.LOADED, number=7)
    return Finishing(job, Surroundings(), report, report.announcements.append, threading.Event())


def test_a_compaction_that_fails_behind_a_run_leaves_it_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = raw_job(tmp_path)
    failed = CompactionRun("run", job.name, job.destination.uri, outcome=Outcome.FAILED, errors=["no room; free some"])
    claimed = replace(failed, outcome=Outcome.CLAIMED)

    def break_down(*_: object, **__: object) -> None:
        raise AssertionError("7 rows of 8")

    told = []
    for result in (lambda *_, **__: failed, lambda *_, **__: claimed, break_down):
        monkeypatch.setattr(finishing, "run_compaction", result)
        one = finishing_of(job)
        one.compact()
        told.append((one.report.outcome, one.report.errors))

    assert told == [
        (Outcome.PARTIAL, ["compaction: no room; free some"]),
        (Outcome.LOADED, []),  # another compaction is at work: no failure
        (Outcome.PARTIAL, ["compaction: AssertionError: 7 rows of 8"]),
    ]


def test_the_reports_of_a_job_are_bounded(tmp_path: Path) -> None:
    report = LoadReport("abcdefghij", "flights", "file:///lake", started="2026-01-01T00:00:00+00:00")
    for name in ("flights-eu-20250101T000000+0000-abcdefgh.json", "flights-notes.json"):
        (tmp_path / name).write_text("of somebody else")
    old = [tmp_path / f"flights-20250101T{second:06d}+0000-abcdefgh.json" for second in range(REPORTS_KEPT + 2)]
    for path in old:
        path.write_text("{}")

    written = write_local(tmp_path, report)

    kept = sorted(tmp_path.glob("flights-2*.json"))
    assert kept == [*old[3:], written]
    assert len(list(tmp_path.iterdir())) == REPORTS_KEPT + 2


def test_settings_that_prove_wrong_at_work_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("HADOOP_HOME", raising=False)
    job = raw_job(tmp_path / "lake")
    gone = replace(
        job,
        source=replace(
            job.source,
            client={"security.protocol": "SSL", "ssl.truststore.location": str(tmp_path / "gone.pem")},
        ),
    )
    unknown = replace(job, destination=DestinationSettings(uri="hdfs://cluster1/lake"))

    for wrong, sentence in ((gone, "gone.pem"), (unknown, "cluster1")):
        report = run_load(wrong)
        assert (report.outcome, report.exit_code) == (Outcome.FAILED, 1)
        assert sentence in report.errors[0]
        assert run_compaction(unknown).outcome is Outcome.FAILED
    assert any("gone.pem" in one.what for one in status_of(gone).red)
    assert any("gone.pem" in one.what for one in verify_destination(gone).findings)


def test_a_package_that_is_lacking_is_named_with_its_extra(tmp_path: Path) -> None:
    def without_it(_job: LoadJob) -> FileSystem:
        raise ModuleNotFoundError("No module named 'gssapi'", name="gssapi.raw")

    report = run_load(raw_job(tmp_path), surroundings=Surroundings(open_filesystem=without_it))

    assert report.outcome is Outcome.FAILED
    assert "pip install 'millstream[kerberos]'" in report.errors[0]


def test_nothing_loaded_is_nothing_to_verify(tmp_path: Path) -> None:
    verified = verify_destination(raw_job(tmp_path / "not made yet"), offline=True)

    assert verified.headline.endswith("nothing was ever loaded here")
    assert verified.exit_code == 0
