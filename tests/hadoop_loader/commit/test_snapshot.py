"""dataset(): one number of the log, whatever is compacted, cleaned or being applied."""

from __future__ import annotations

import gc
import random
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.commit_simulation import TOPIC, Clock, World
from tests.support.table_roots import TableRoot, parquet_bytes

from millstream.hadoop_loader.commit import (
    CommitLog,
    CommitSettings,
    CompactDraft,
    CompactedDirectory,
    LoadDraft,
    Position,
    Role,
    Snapshot,
    dataset,
    names,
)
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemSettings, open_filesystem
from millstream.hadoop_loader.filesystem.arrow import arrow_output
from millstream.hadoop_loader.splits import StagedFile
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import FaultyFileSystem
from millstream.testing.kafka import wait_until

DIRECTORY = "orders/parquet/day=1"


class Loads:
    """A table root on the local disk, with one driver after the other."""

    def __init__(self, root: Path) -> None:
        self.uri = root.as_uri()
        self.clock = Clock()
        self.filesystem = open_filesystem(self.uri, FileSystemSettings())
        self._runs = 0

    def log(self, filesystem: FileSystem | None = None) -> CommitLog:
        return CommitLog(
            filesystem or self.filesystem,
            CommitSettings(snapshot_retention_s=3_600),
            monotonic=self.clock.monotonic,
            wait=self.clock.wait,
            now_ms=self.clock.now_ms,
            random=random.Random(self._runs),
        )

    def run(self, table: pa.Table, first: int, *, role: Role = Role.LOAD, filesystem: FileSystem | None = None) -> int:
        self._runs += 1
        log = self.log(filesystem)
        claim = log.claim(role, owner="test", run_id=f"run-{self._runs}")
        staging = claim.staging(0, 0)
        path = f"{staging}/part-0"
        with self.filesystem.create(path) as file:
            pq.write_table(table, arrow_output(file))
        with self.filesystem.open(path) as written:
            length = written.size
        staged = StagedFile(
            path=path,
            table="orders",
            directory="day=1",
            format="parquet",
            topic="orders",
            topic_id="b3JkZXJz",
            partition=0 if role is Role.LOAD else -1,
            first_offset=first,
            last_offset=first + len(table) - 1,
            rows=len(table),
            length=length,
            checksum="crc32c:00000000",
            min_timestamp_ms=-1,
            max_timestamp_ms=-1,
        )
        if role is Role.LOAD:
            draft = LoadDraft(
                files=(staged,),
                positions={"b3JkZXJz": {0: Position(first + len(table))}},
                closed=(DIRECTORY,),
            )
            number = log.commit(claim, draft).number
        else:
            replaced = tuple(file.name for file in claim.state.files.in_directory(DIRECTORY))
            whole = CompactedDirectory(directory=DIRECTORY, staged=staging, files=(staged,), replaced=replaced)
            number = log.commit(claim, CompactDraft(directories=(whole,))).number
        claim.release()
        return number


@pytest.fixture
def loads(tmp_path: Path) -> Loads:
    return Loads(tmp_path / "lake")


def test_a_dataset_stays_at_its_number_through_loads_and_a_compaction(loads: Loads) -> None:
    loads.run(pa.table({"id": [0, 1]}), 0)
    second = loads.run(pa.table({"id": [2, 3], "name": ["c", "d"]}), 2)
    pinned = dataset(loads.uri, "orders")
    assert pinned.schema.names == ["id", "name"]

    compacted = loads.run(pa.table({"id": [0, 1, 2, 3], "name": [None, None, "c", "d"]}), 0, role=Role.COMPACT)
    loads.run(pa.table({"id": [4], "name": ["e"]}), 4)

    assert pinned.to_table().sort_by("id").to_pydict() == {"id": [0, 1, 2, 3], "name": [None, None, "c", "d"]}
    assert dataset(loads.uri, "orders", number=second).to_table() == pinned.to_table()
    after = dataset(loads.uri, "orders", number=compacted)
    assert len(after.files) == 1
    assert after.to_table().num_rows == 4
    assert dataset(loads.uri, "orders").count_rows() == 5


def test_the_last_reference_to_a_dataset_ends_its_threads(loads: Loads) -> None:
    loads.run(pa.table({"id": [0, 1]}), 0)

    def calls() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == f"calls of {loads.uri}"]

    before = len(calls())
    pinned = dataset(loads.uri, "orders")
    assert pinned.to_table().num_rows == 2
    assert len(calls()) > before

    del pinned
    gc.collect()
    with pytest.raises(LookupError):
        dataset(loads.uri, "no such table")

    wait_until(lambda: len(calls()) == before, 30.0, "threads to end")


def test_files_of_one_load_may_be_of_two_versions_of_the_schema(tmp_path: Path) -> None:
    # A split ends by the first version, another one meets a schema that brings a column.
    root = TableRoot(tmp_path)
    wide, narrow = pa.table({"id": [0], "name": ["a"]}), pa.table({"id": [1]})
    files = [(partition, "parquet", parquet_bytes(one), 1) for partition, one in enumerate((wide, narrow))]
    root.load(files, schema_versions=(2, 1))

    found = dataset(tmp_path.as_uri(), "orders").to_table()

    assert found.sort_by("id").to_pydict() == {"id": [0, 1], "name": ["a", None]}


def test_columns_that_are_dictionaries_in_some_files_are_read_as_values(loads: Loads) -> None:
    def table(letters: list[str], *, is_dictionary: bool) -> pa.Table:
        plain = pa.array(letters)
        values = plain.dictionary_encode() if is_dictionary else plain
        offsets = pa.array(range(len(letters) + 1), pa.int32())
        lists = pa.ListArray.from_arrays(offsets, values)
        keys = pa.array(["k"] * len(letters))
        return pa.table(
            {
                "kind": values,
                "kinds": lists,
                "of": pa.StructArray.from_arrays([values], ["kind"]),
                "map": pa.MapArray.from_arrays(offsets, keys, values),
            }
        )

    loads.run(table(["a", "b"], is_dictionary=True), 0)
    loads.run(table(["c"], is_dictionary=False), 2)
    rows = dataset(loads.uri, "orders").to_table().sort_by("kind").to_pylist()
    assert rows == [{"kind": one, "kinds": [one], "of": {"kind": one}, "map": [("k", one)]} for one in "abc"]


def test_a_half_applied_compaction_is_not_seen_yet(loads: Loads) -> None:
    loads.run(pa.table({"id": [0]}), 0)
    before = loads.run(pa.table({"id": [1]}), 1)

    def die_behind_the_first_rename(act: str) -> None:
        if act.startswith(f"rename {DIRECTORY} -> {names.TRASH}"):
            faulty.is_dead = True
            raise SimulatedCrashError(act)

    faulty = FaultyFileSystem(loads.filesystem, after_act=die_behind_the_first_rename)
    with pytest.raises(SimulatedCrashError):
        loads.run(pa.table({"id": [0, 1]}), 0, role=Role.COMPACT, filesystem=faulty)

    assert not (Path(loads.filesystem.root) / DIRECTORY).exists()  # type: ignore[attr-defined]
    with Snapshot(loads.filesystem) as snapshot:
        assert snapshot.number >= before
        assert snapshot.dataset("orders").to_table().sort_by("id")["id"].to_pylist() == [0, 1]
        with pytest.raises(FileNotFoundError, match="neither in its place nor in trash"):
            snapshot.open(f"{DIRECTORY}/never-there.parquet")


def test_a_compaction_while_a_file_is_looked_for_hides_it_from_nobody() -> None:
    world = World(produced=9, formats=("avro",), late_records=False)
    world.driver().run(Role.LOAD)
    calls: list[str] = []

    def compact(call: str) -> None:
        calls.append(call)
        if len(calls) == 1:
            assert world.driver().run(Role.COMPACT) is not None

    filesystem = FaultyFileSystem(world.disk)
    snapshot = Snapshot(filesystem)
    path = next(file.path for file in snapshot.files(TOPIC, "avro"))
    filesystem.before_call = compact
    with snapshot.open(path) as file:
        assert file.size > 0

    # Trash is listed only for what is not in its place.
    assert calls[:2] == [f"open {path}", f"list {names.TRASH}"]


def test_what_there_is_not(loads: Loads) -> None:
    with pytest.raises(LookupError, match="no Parquet files at number 0"):
        dataset(loads.uri, "orders")
    loads.run(pa.table({"id": [0]}), 0)
    with pytest.raises(LookupError, match="the log ends at 2, before 9"):
        dataset(loads.uri, "orders", number=9)
    with pytest.raises(ValueError, match="pyarrow makes datasets of Parquet"):
        dataset(loads.uri, "orders", "avro")
