"""A compaction from its look at the log to its end, beside loads that come in between."""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.support.table_roots import TableRoot, avro_bytes, parquet_bytes

from millstream.hadoop_loader import compaction
from millstream.hadoop_loader.commit import CommitSettings, TableState
from millstream.hadoop_loader.compaction import DirectoryPlan, plan_compaction
from millstream.hadoop_loader.driver import Outcome
from millstream.hadoop_loader.driver.compacting import run_compaction
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.filesystem import FileSystem
from millstream.hadoop_loader.job import (
    CompactionSettings,
    DestinationSettings,
    LoadJob,
    SourceSettings,
    ValueSettings,
)
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import FaultyFileSystem
from millstream.testing.memory_filesystem import MemoryFileSystem

JOB = LoadJob(
    name="orders",
    source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("orders",)),
    value=ValueSettings(format="raw"),
    destination=DestinationSettings(uri="file:///lake", formats=frozenset({"parquet"})),
    compaction=CompactionSettings(open_directories=True, files_min=2),
)
CONTENTS = parquet_bytes(pa.table({"id": range(10)}))
FILES = [(partition, "parquet", CONTENTS, 10) for partition in range(2)]


def on(filesystem: FileSystem) -> Surroundings:
    return Surroundings(open_filesystem=lambda _job: filesystem)


def test_a_compaction_looks_through_the_inventory_once_where_nothing_came_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what came between its look and its claim, it takes along."""
    root = TableRoot(tmp_path, MemoryFileSystem())
    planned: list[int] = []

    def plan(state: TableState, *given: Any, **named: Any) -> list[DirectoryPlan]:
        planned.append(state.number)
        return plan_compaction(state, *given, **named)

    monkeypatch.setattr(compaction, "plan_compaction", plan)
    root.load(FILES)
    compacted = run_compaction(JOB, surroundings=on(root.filesystem))
    assert (compacted.outcome, len(compacted.done), len(planned)) == (Outcome.LOADED, 1, 1)

    def another_loads(name: str) -> None:
        if name.startswith("create _millstream/renewals/") and len(planned) == 2:
            planned.append(0)
            root.load(FILES, directory="day=3")

    root.load(FILES, directory="day=2")
    faulty = FaultyFileSystem(root.filesystem, before_call=another_loads)
    compacted = run_compaction(JOB, surroundings=on(faulty))
    assert [one.directory.rpartition("=")[2] for one in compacted.done] == ["2", "3"]
    assert compacted.as_json()["number"] == root.log.read().number


def test_what_another_run_came_before_is_a_note_and_no_error(tmp_path: Path) -> None:
    root = TableRoot(tmp_path, MemoryFileSystem())
    root.load(FILES, closed=False)

    def another_closes(name: str) -> None:
        if re.match(r"create _millstream/staging/\S+-compact/\S+\.parquet", name) and len(closed) == 0:
            closed.append(name)
            root.load(FILES)

    closed: list[str] = []
    faulty = FaultyFileSystem(root.filesystem, before_call=another_closes)
    left = run_compaction(JOB, surroundings=on(faulty))

    assert (left.outcome, left.exit_code, left.errors, left.done) == (Outcome.NOTHING_NEW, 0, [], [])
    [note] = left.notes
    assert note.startswith("left for the next time: ")
    assert "it was closed while it was compacted" in note
    again = run_compaction(JOB, surroundings=on(root.filesystem))
    assert (again.outcome, again.files_before) == (Outcome.LOADED, 4)


def test_a_compaction_that_died_before_its_last_rename_is_brought_to_its_end_by_the_next(tmp_path: Path) -> None:
    root = TableRoot(tmp_path, MemoryFileSystem())
    root.load(FILES)

    def die(name: str) -> None:
        if re.match(r"rename _millstream/staging/\S+ -> orders/", name):
            faulty.is_dead = True

    faulty = FaultyFileSystem(root.filesystem, before_call=die)
    with pytest.raises(SimulatedCrashError):
        run_compaction(JOB, surroundings=on(faulty))
    assert root.log.unapplied() is not None

    quick = replace(on(root.filesystem), commit_settings=CommitSettings(claim_timeout_s=0.001))
    again = run_compaction(JOB, surroundings=quick)

    assert (again.outcome, again.errors) == (Outcome.NOTHING_NEW, [])
    assert root.log.unapplied() is None
    [file] = root.log.read().files.under("orders")
    assert file.rows == 20
    assert root.filesystem.status(file.path) is not None


class Loaded:
    """A finder that finds nothing, and sees which threads load modules of compaction."""

    def __init__(self) -> None:
        self.by: dict[str, threading.Thread] = {}

    def find_spec(self, name: str, *_: object) -> None:
        if name.startswith(f"{compaction.__name__}."):
            self.by[name] = threading.current_thread()


def test_what_threads_need_is_loaded_before_they_are_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = TableRoot(tmp_path, MemoryFileSystem())
    record = {"type": "record", "name": "Row", "fields": [{"name": "id", "type": "long"}]}
    avro = [(partition, "avro", avro_bytes(record, [{"id": 1}]), 1) for partition in range(2)]
    root.load([*FILES, *avro])
    loaded = Loaded()
    for name in ("avro_blocks", "parquet_rows"):
        monkeypatch.delitem(sys.modules, f"{compaction.__name__}.{name}", raising=False)
    monkeypatch.setattr(sys, "meta_path", [loaded, *sys.meta_path])

    assert len(run_compaction(JOB, surroundings=on(root.filesystem)).done) == 2

    assert f"{compaction.__name__}.avro_blocks" in loaded.by
    assert set(loaded.by.values()) == {threading.current_thread()}
