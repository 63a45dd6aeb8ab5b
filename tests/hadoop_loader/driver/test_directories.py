"""Directories closed by hand, and emptied for their age: what is loaded, compacted and read before and afterwards."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.support.inline_engine import InlineEngine
from tests.support.loads import FIRST_MS, Events, assert_same, job_for, local_rows
from tests.support.table_roots import TableRoot

from millstream.hadoop_loader import dataset
from millstream.hadoop_loader.catalogs.iceberg import IcebergTables
from millstream.hadoop_loader.commit import CommitSettings, Snapshot, publishing
from millstream.hadoop_loader.driver import directories
from millstream.hadoop_loader.driver.compacting import run_compaction
from millstream.hadoop_loader.driver.directories import DirectoryRun, close_directories, expire_directories
from millstream.hadoop_loader.driver.letters import waiting_letters
from millstream.hadoop_loader.driver.load import run_load
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.filesystem import (
    FileSystem,
    LocalFileSystem,
    UnavailableError,
    UnknownOutcomeError,
    open_filesystem,
)
from millstream.hadoop_loader.job import (
    DestinationSettings,
    IcebergSettings,
    LateSettings,
    LoadJob,
    Partitioning,
    SourceSettings,
    ValueSettings,
)
from millstream.hadoop_loader.splits import FileKind
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
DAYS = LoadJob(
    name="orders",
    source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("orders",)),
    value=ValueSettings(format="raw"),
    destination=DestinationSettings(uri="file:///lake", formats=frozenset({"avro"})),
    partitioning=Partitioning(kind="time", pattern="daily"),
)
QUICK = CommitSettings(claim_timeout_s=0.001)
ROWS = [(0, "avro", b"rows", 2), (1, "avro", b"more rows", 3)]


def three_days(folder: Path) -> TableRoot:
    """Three closed days, with late records and dead letters of the first one and of the last."""
    root = TableRoot(folder, MemoryFileSystem())
    for directory in DIRECTORIES:
        root.load(ROWS, directory=directory)
    for directory, at_ms in ((DIRECTORIES[0], FIRST_MS), (DIRECTORIES[2], LATER_MS)):
        root.load([(0, "avro", b"late", 1)], directory=directory, closed=False, kind=FileKind.LATE)
        root.load([(0, "avro", b"letters", 4)], closed=False, kind=FileKind.DEAD_LETTERS, at_ms=at_ms)
    return root


def world_of(filesystem: FileSystem) -> Surroundings:
    return Surroundings(open_filesystem=lambda _job: filesystem, commit_settings=QUICK)


def expire(root: TableRoot, filesystem: FileSystem | None = None, **options: Any) -> DirectoryRun:
    return expire_directories(
        DAYS, before_ms=LATER_MS, surroundings=world_of(filesystem or FaultyFileSystem(root.filesystem)), **options
    )


def assert_last_day_alone(root: TableRoot, what: object) -> None:
    """Assert that all but the last day is gone for readers, its late records and letters too, and that marks stay."""
    state = root.log.read()
    kept = {f"orders/avro/{DIRECTORIES[2]}", f"orders.late/avro/{DIRECTORIES[2]}", "_dead_letters/orders"}
    files = list(state.files.under())
    assert {file.directory for file in files} == kept
    assert {key: totals.rows for key, totals in state.totals.items()} == {
        "orders/avro": 5,
        "orders.late/avro": 1,
        "_dead_letters/orders": 4,
    }
    assert root.log.unapplied() is None
    there = {status.path for directory in kept for status in root.filesystem.list(directory)}
    assert there - {f"orders/avro/{DIRECTORIES[2]}/_SUCCESS"} == {file.path for file in files}, what
    assert root.filesystem.list(f"orders.late/avro/{DIRECTORIES[0]}") == []
    for directory in DIRECTORIES[:2]:
        assert {status.name for status in root.filesystem.list(f"orders/avro/{directory}")} == {"_SUCCESS"}, what


def expired_with(folder: Path, fault: Fault | None, act: int) -> int:
    """Expire two of three days with a fault at one act, then again without; return how many acts there were."""
    root = three_days(folder)
    late = LateActs(act)
    faulty = FaultyFileSystem(root.filesystem, {} if fault is None else {act: fault}, late=late)
    after = FaultyFileSystem(root.filesystem, late=late)
    with suppress(SimulatedCrashError):
        expire(root, faulty)
    # The second begins while late acts are on their way, the third when all of them have arrived.
    expire(root, after)
    late.flush()
    last = expire(root, after)
    assert (last.outcome, last.errors) == (Outcome.NOTHING_NEW, []), (fault, act, faulty.journal[act - 1 :])
    assert_last_day_alone(root, (fault, act))
    return faulty.acts


def test_an_expiry_that_dies_or_is_not_answered_at_any_act_is_completed_by_the_next(tmp_path: Path, soak: bool) -> None:
    every = list(product(FAULTS, range(1, expired_with(tmp_path, None, 0) + 1)))
    assert len(every) > 100
    for fault, act in every if soak else random.Random(7).sample(every, 50):
        expired_with(tmp_path, fault, act)


def test_late_records_and_dead_letters_expire_with_their_time(tmp_path: Path) -> None:
    root = three_days(tmp_path)
    number = root.log.read().number

    foreseen, expired = expire(root, dry_run=True), expire(root)

    assert (expired.outcome, expired.errors) == (Outcome.LOADED, [])
    assert (expired.directories, expired.rows) == (foreseen.directories, foreseen.rows)
    assert expired.directories == [
        f"orders.late/avro/{DIRECTORIES[0]}",
        *(f"orders/avro/{directory}" for directory in DIRECTORIES[:2]),
        "_dead_letters/orders",
    ]
    assert (expired.files, expired.rows) == (6, 15)
    assert_last_day_alone(root, "")
    assert waiting_letters(root.log.read()) == {"orders": 4}
    before = Snapshot(root.filesystem, number)
    for file in before.state.files.under():
        with before.open(file.path) as opened:
            assert opened.size == file.length


def test_an_entry_removes_a_bounded_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "RENAMES_PER_ENTRY", 2)
    root = TableRoot(tmp_path, MemoryFileSystem())
    for _ in range(5):
        root.load([(0, "avro", b"letters", 1)], closed=False, kind=FileKind.DEAD_LETTERS, at_ms=FIRST_MS)
    number = root.log.read().number

    expired = expire(root)

    assert (expired.outcome, expired.files, expired.directories) == (Outcome.LOADED, 5, ["_dead_letters/orders"])
    assert root.log.read().number == number + 1 + 3  # behind the claim
    assert not list(root.log.read().files.under())


def test_a_directory_made_late_in_the_place_of_an_expired_one_gets_its_mark(tmp_path: Path) -> None:
    root = three_days(tmp_path)
    place = f"orders/avro/{DIRECTORIES[0]}"

    def make_it(name: str) -> None:
        if re.fullmatch(rf"rename _millstream/staging/\S+ -> {place}", name):
            root.filesystem.make_directory(place)

    expired = expire(root, FaultyFileSystem(root.filesystem, before_call=make_it))

    assert (expired.outcome, expired.errors) == (Outcome.LOADED, [])
    assert_last_day_alone(root, "")


def test_an_expiry_is_stopped_between_two_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "DIRECTORIES_PER_ENTRY", 1)
    root = three_days(tmp_path)
    stop = threading.Event()

    def stop_behind_the_first(name: str) -> None:
        if name.startswith("rename _millstream/staging/"):
            stop.set()

    stopped = expire(root, FaultyFileSystem(root.filesystem, after_act=stop_behind_the_first), stop=stop)

    assert (stopped.outcome, stopped.errors) == (Outcome.PARTIAL, [])
    assert stopped.notes == ["stopped; what is left is for the next time"]
    assert 0 < len(stopped.directories) < 4
    again = expire(root, stop=stop)
    assert (again.outcome, again.number) == (Outcome.STOPPED, None)
    assert expire(root).outcome is Outcome.LOADED
    assert_last_day_alone(root, "")


def test_a_stop_does_not_keep_a_commit_from_being_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "SETTLE_WAIT_S", 0.001)
    root = three_days(tmp_path)
    stop = threading.Event()
    number = root.log.read().number + 2  # behind the claim
    entry = f"_millstream/log/000000000000/{number:012d}"
    looks = 0

    def lose_the_answer(name: str) -> None:
        # The rename takes effect, its answer is lost, and whether it is there cannot be asked at first.
        nonlocal looks
        if name.startswith("rename ") and name.endswith(entry) and not stop.is_set():
            source, _, target = name.removeprefix("rename ").partition(" -> ")
            root.filesystem.rename(source, target)
            stop.set()
            raise UnknownOutcomeError("no answer", uri="memory://")
        if stop.is_set() and name.endswith(f" {entry}"):
            looks += 1
            if looks == 1:
                raise UnavailableError("no answer", uri="memory://")

    expired = expire(root, FaultyFileSystem(root.filesystem, before_call=lose_the_answer), stop=stop)

    assert looks > 1
    assert (expired.outcome, expired.number, expired.errors) == (Outcome.LOADED, number, [])
    assert_last_day_alone(root, "")
