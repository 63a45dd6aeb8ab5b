"""Directories closed by hand, and emptied for their age: what is loaded, compacted and read before and afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from tests.support.inline_engine import InlineEngine
from tests.support.loads import FIRST_MS, Events, assert_same, job_for, local_rows
from tests.support.table_roots import TableRoot

from millstream.hadoop_loader import dataset
from millstream.hadoop_loader.catalogs.iceberg import IcebergTables
from millstream.hadoop_loader.commit import CommitSettings
from millstream.hadoop_loader.driver.compacting import run_compaction
from millstream.hadoop_loader.driver.directories import close_directories, expire_directories
from millstream.hadoop_loader.driver.load import run_load
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.filesystem import LocalFileSystem, open_filesystem
from millstream.hadoop_loader.job import (
    DestinationSettings,
    IcebergSettings,
    LateSettings,
    LoadJob,
    Partitioning,
    SourceSettings,
    ValueSettings,
)
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import Fault, FaultyFileSystem, LateActs
from millstream.testing.memory_filesystem import MemoryFileSystem

HOUR_MS = 3_600_000


def inline(job: LoadJob) -> InlineEngine:
    return InlineEngine(job, open_filesystem(job.destination.uri, job.destination.filesystem))


# Splits run in this process: nothing here is about workers.
WORLD = Surroundings(open_engine=inline)


def small(job: LoadJob) -> LoadJob:
    """Files of few rows, so that there is something to compact."""
    return replace(job, limits=replace(job.limits, rows=4))


def test_a_directory_of_fields_is_closed_by_hand_and_compacted_and_what_comes_then_is_late(
    new_events: Callable[..., Events], tmp_path: Path
) -> None:
    events = new_events(partitions=1)
    events.send(140)
    job = small(job_for(events, tmp_path, partitioning=Partitioning(kind="fields", fields=("user",))))
    assert run_load(job, surroundings=WORLD).outcome is Outcome.LOADED
    assert run_compaction(job).outcome is Outcome.NOTHING_NEW

    listed = close_directories(job, dry_run=True)
    assert len(listed.directories) == 14
    wrong = close_directories(job, directories=["user=nobody"])
    assert (wrong.outcome, wrong.number) == (Outcome.FAILED, None)
    assert "user=nobody is no open directory of this job; there are user=user-0, user=user-1" in wrong.errors[0]

    closed = close_directories(job, tables=[events.topic], directories=["user=user-3"])

    assert (closed.outcome, closed.errors) == (Outcome.LOADED, [])
    assert closed.directories == [f"{events.topic}/{format_}/user=user-3" for format_ in ("avro", "parquet")]
    assert all((tmp_path / directory / "_SUCCESS").exists() for directory in closed.directories)
    for name in ("user=user-3", f"{events.topic}/avro/user=user-3"):
        assert close_directories(job, directories=[name]).outcome is Outcome.NOTHING_NEW
    assert close_directories(job, tables=[events.topic], dry_run=True).directories == sorted(
        set(listed.directories) - set(closed.directories)
    )
    events.send(7)
    (topic,) = run_load(job, surroundings=WORLD).topics
    assert (topic.rows, topic.late_rows) == (7, 1)
    compacted = run_compaction(job)
    assert (compacted.outcome, [one.directory for one in compacted.done]) == (Outcome.LOADED, closed.directories)
    assert_same(events, tmp_path, "avro", "parquet")
    assert verify_destination(job, deep=True).findings == []


def expiring_job(events: Events, root: Path, tmp_path: Path) -> LoadJob:
    warehouse = tmp_path / "warehouse"
    warehouse.mkdir()
    return job_for(
        events,
        root,
        late=LateSettings(close_after_s=0),
        iceberg=IcebergSettings(
            namespace="lake",
            properties={"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": warehouse.as_uri()},
        ),
    )


def test_old_directories_are_emptied_and_readers_of_a_number_still_find_them(
    new_events: Callable[..., Events], tmp_path: Path
) -> None:
    events = new_events(partitions=1)
    events.send(60 * 5)  # five hours
    root = tmp_path / "root"
    job = expiring_job(events, root, tmp_path)
    loaded = run_load(job, surroundings=WORLD)
    assert loaded.number is not None
    assert len(loaded.closed_directories) == 8
    tables = IcebergTables(job.iceberg, LocalFileSystem(str(root))) if job.iceberg is not None else None
    assert tables is not None
    name = f"lake.{events.topic}"
    assert tables._catalog.load_table(name).scan().to_arrow().num_rows == 300

    two_hours_ms = FIRST_MS + 2 * HOUR_MS
    foreseen = expire_directories(job, before_ms=two_hours_ms, dry_run=True)
    expired = expire_directories(job, before_ms=two_hours_ms)

    assert (expired.outcome, expired.errors) == (Outcome.LOADED, [])
    assert expired.directories == foreseen.directories == sorted(expired.directories)
    assert (len(expired.directories), expired.rows) == (4, 240)
    for format_ in ("avro", "parquet"):
        ids = {row[2] for row in local_rows(root, events.topic, format_)[format_]}
        assert ids == set(range(120, 300))
    assert dataset(root.as_uri(), events.topic).count_rows() == 180
    assert dataset(root.as_uri(), events.topic, number=loaded.number).count_rows() == 300
    assert tables._catalog.load_table(name).scan().to_arrow().num_rows == 180
    tables.close()
    files = f"{root}/{events.topic}/parquet/**/*.parquet"
    found = duckdb.connect().execute(f"SELECT count(*), min(id) FROM read_parquet('{files}')").fetchall()
    assert found == [(180, 120)]
    assert verify_destination(job, deep=True).findings == []
    assert expire_directories(job, before_ms=two_hours_ms).outcome is Outcome.NOTHING_NEW

    # Nothing of it is loaded again; what comes for it is late.
    assert run_load(job, surroundings=WORLD).outcome is Outcome.NOTHING_NEW
    events.next_id = 0
    events.send(1)
    (topic,) = run_load(job, surroundings=WORLD).topics
    assert (topic.rows, topic.late_rows) == (1, 1)


@pytest.mark.parametrize("clock_is_ahead", [False, True])
def test_a_job_s_retention_follows_the_clock_and_the_records(
    new_events: Callable[..., Events], tmp_path: Path, clock_is_ahead: bool
) -> None:
    events = new_events(partitions=1)
    events.send(60 * 5)
    settings = {"formats": frozenset({"parquet"}), "retention_s": 3 * 3600.0}
    job = job_for(events, tmp_path, late=LateSettings(close_after_s=0), destination=settings)
    # Either the newest record or the clock says how late it is: whichever is earlier.
    hours = 1000 if clock_is_ahead else 4
    world = replace(WORLD, wall_clock=lambda: (FIRST_MS + hours * HOUR_MS) / 1000)

    report = run_load(job, surroundings=world)

    assert (report.outcome, report.errors) == (Outcome.LOADED, [])
    assert "expired 1 directory with 60 rows" in report.announcements
    left = {path.name for path in (tmp_path / events.topic / "parquet").rglob("hour=*") if any(path.glob("*.parquet"))}
    assert left == {"hour=01", "hour=02", "hour=03", "hour=04"}


FAULTS = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.LATE, Fault.LOST, Fault.ANSWER_LOST)
DIRECTORIES = [f"year=2026/month=01/day=0{day}" for day in (1, 2, 3)]
LATER_MS = FIRST_MS + 2 * 24 * HOUR_MS


def expired_with(folder: Path, fault: Fault | None, act: int) -> int:
    """Expire two of three days with a fault at one act, then again without; return how many acts there were."""
    root = TableRoot(folder, MemoryFileSystem())
    for directory in DIRECTORIES:
        root.load([(0, "avro", b"rows", 2), (1, "avro", b"more rows", 3)], directory=directory)
    job = LoadJob(
        name="orders",
        source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("orders",)),
        value=ValueSettings(format="raw"),
        destination=DestinationSettings(uri="file:///lake", formats=frozenset({"avro"})),
        partitioning=Partitioning(kind="time", pattern="daily"),
    )
    late = LateActs(act)
    faulty = FaultyFileSystem(root.filesystem, {} if fault is None else {act: fault}, late=late)
    after = FaultyFileSystem(root.filesystem, late=late)
    quick = CommitSettings(claim_timeout_s=0.001)
    with suppress(SimulatedCrashError):
        expire_directories(
            job,
            before_ms=LATER_MS,
            surroundings=Surroundings(open_filesystem=lambda _job: faulty, commit_settings=quick),
        )
    world = Surroundings(open_filesystem=lambda _job: after, commit_settings=quick)
    # The second begins while late acts are on their way, the third when all of them have arrived.
    expire_directories(job, before_ms=LATER_MS, surroundings=world)
    late.flush()
    last = expire_directories(job, before_ms=LATER_MS, surroundings=world)
    assert (last.outcome, last.errors) == (Outcome.NOTHING_NEW, []), (fault, act, faulty.journal[act - 1 :])

    state = root.log.read()
    assert {file.directory for file in state.files.under()} == {f"orders/avro/{DIRECTORIES[2]}"}
    assert state.totals["orders/avro"].rows == 5
    assert root.log.unapplied() is None
    for directory in DIRECTORIES:
        names = {status.name for status in root.filesystem.list(f"orders/avro/{directory}")}
        assert (names == {"_SUCCESS"}) == (directory != DIRECTORIES[2]), (fault, act, names)
    return faulty.acts


def test_an_expiry_that_dies_or_is_not_answered_at_any_act_is_completed_by_the_next(tmp_path: Path) -> None:
    acts = expired_with(tmp_path, None, 0)
    assert acts > 10
    for fault in FAULTS:
        for act in range(1, acts + 1):
            expired_with(tmp_path, fault, act)
