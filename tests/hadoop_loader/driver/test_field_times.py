"""Whole runs whose directories are named by a field and its time: what is closed by what, and what is late."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
from tests.support.inline_engine import InlineEngine
from tests.support.loads import FIRST_MS
from tests.support.split_runs import Record, SplitTopic

from millstream.hadoop_loader.driver import run_load
from millstream.hadoop_loader.driver.report import LoadReport, Outcome
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.filesystem import open_filesystem
from millstream.hadoop_loader.job import LateSettings, LoadJob, Partitioning, ValueSettings
from millstream.testing import TestBroker

SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "Event",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "at", "type": "string"},
            {"name": "kind", "type": "string"},
        ],
    }
)
NOW_MS = FIRST_MS + 365 * 86_400_000


def loaded(job: LoadJob) -> LoadReport:
    def engine(job: LoadJob) -> InlineEngine:
        return InlineEngine(job, open_filesystem(job.destination.uri, job.destination.filesystem))

    return run_load(job, surroundings=Surroundings(open_engine=engine))


def event(number: int, at: str, kind: str = "a") -> Record:
    value = json.dumps({"id": number, "at": at, "kind": kind}).encode()
    return Record(value, timestamp_ms=NOW_MS)


def ids(folder: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        directory = file.parent.relative_to(folder).as_posix()
        found.setdefault(directory, []).extend(pq.read_table(file)["id"].to_pylist())
    return found


def test_old_events_that_come_now_close_nothing_before_their_own_time(
    millstream_broker_session: TestBroker, tmp_path: Path
) -> None:
    topic = SplitTopic(millstream_broker_session.bootstrap_servers, "field-times", tmp_path)
    job = topic.job(
        formats={"parquet"},
        value=ValueSettings(format="json", framing="none", schema=SCHEMA),
        partitioning=Partitioning(kind="time", pattern="hour=%Y-%m-%d-%H", timestamp="at", fields=("kind",)),
        late=LateSettings(close_after_s=0),
        workers=1,
    )
    files = tmp_path / topic.name / "parquet"

    topic.send([event(1, "2026-01-01T00:10Z"), event(2, "2026-01-01T01:10Z", "b")])
    first = loaded(job)
    assert (first.outcome, first.rows) == (Outcome.LOADED, 2), first.errors
    assert sorted(first.closed_directories) == [f"{topic.name}/parquet/kind=a/hour=2026-01-01-00"]

    topic.send([event(3, "2026-01-01T01:20Z", "b"), event(4, "2026-01-01T00:20Z"), event(5, "2026-01-01T02:00Z")])
    second = loaded(job)
    assert (second.outcome, second.rows) == (Outcome.LOADED, 3), second.errors
    assert sorted(second.closed_directories) == [f"{topic.name}/parquet/kind=b/hour=2026-01-01-01"]

    closed, later = "kind=a/hour=2026-01-01-00", "kind=b/hour=2026-01-01-01"
    assert ids(files) == {closed: [1], later: [2, 3], "kind=a/hour=2026-01-01-02": [5]}
    assert ids(tmp_path / f"{topic.name}.late" / "parquet") == {closed: [4]}
    marked = {mark.parent.relative_to(files).as_posix() for mark in files.rglob("_SUCCESS")}
    assert marked == {closed, later}


def test_a_misspelt_field_leaves_its_topic_out_before_anything_is_read(
    millstream_broker_session: TestBroker, tmp_path: Path
) -> None:
    topic = SplitTopic(millstream_broker_session.bootstrap_servers, "field-misspelt", tmp_path)
    topic.send([event(1, "2026-01-01T00:10Z")])
    job = topic.job(
        value=ValueSettings(format="json", framing="none", schema=SCHEMA),
        partitioning=Partitioning(kind="fields", fields=("knd",)),
        workers=1,
    )

    report = loaded(job)

    assert (report.outcome, report.rows, report.audit.get("bad", 0)) == (Outcome.FAILED, 0, 0)
    (reason,) = [one.reason for one in report.topics]
    said = 'partitioning.fields has "knd": the values have no such field; did you mean kind?'
    assert reason == f"table field-misspelt: {said}"
    assert not list(tmp_path.rglob("*.parquet"))
    assert not list(tmp_path.rglob("_dead_letters/*/*"))
