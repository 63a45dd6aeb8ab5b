"""Directories compacted through the commit log: the same rows in fewer files, sorted or de-duplicated on wish."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.support.table_roots import TOPIC, TableRoot, avro_bytes, parquet_bytes

from millstream.hadoop_loader.commit import Role, Snapshot
from millstream.hadoop_loader.compaction import CompactionReport, compact, compact_directory, plan_compaction
from millstream.hadoop_loader.filesystem import FileSystemSettings, LocalFileSystem, open_filesystem
from millstream.hadoop_loader.filesystem.local import LocalInputFile
from millstream.hadoop_loader.job import CompactionSettings, EncodingSettings
from millstream.hadoop_loader.job.files import ParquetSettings
from millstream.hadoop_loader.splits import FileKind
from millstream.testing.hdfs import MiniHdfs

ENCODING = EncodingSettings()
SETTINGS = CompactionSettings()
USER = {
    "type": "record",
    "name": "User",
    "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": "string"}],
}
LATER_USER = {**USER, "fields": [*USER["fields"], {"name": "age", "type": "int", "default": 7}]}


@pytest.fixture
def root(tmp_path: Path) -> TableRoot:
    return TableRoot(tmp_path / "root")


def compacted(
    root: TableRoot, settings: CompactionSettings = SETTINGS, encoding: EncodingSettings = ENCODING
) -> CompactionReport:
    claim = root.claim(Role.COMPACT)
    plans = plan_compaction(claim.state, settings)
    report = compact(root.filesystem, root.log, claim, plans, settings, encoding, stop=threading.Event())
    claim.release()
    return report


def rows_of(paths: list[Path]) -> Counter[str]:
    """The multiset of rows of files, whatever their format."""
    found: Counter[str] = Counter()
    for path in paths:
        rows: Iterator[Any] | list[Any]
        if path.suffix == ".avro":
            with path.open("rb") as file:
                rows = list(fastavro.reader(file))
        else:
            rows = pq.read_table(path).to_pylist()
        found.update(json.dumps(row, default=str, sort_keys=True) for row in rows)
    return found


def users(start: int, count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"user {number}", **more} for number in range(start, start + count)]


def test_avro_files_are_joined_block_by_block(root: TableRoot) -> None:
    root.load([(0, "avro", avro_bytes(USER, users(0, 3_000)), 3_000), (1, "avro", avro_bytes(USER, users(0, 10)), 10)])
    root.load([(0, "avro", avro_bytes(USER, users(3_000, 1), codec="null"), 1)])
    root.load([(1, "avro", avro_bytes(LATER_USER, users(10, 400, age=3)), 400)])
    before = rows_of(root.paths("avro"))

    report = compacted(root)

    assert report.as_json()["files_after"] == 3, "one for each schema and codec"
    assert rows_of(root.paths("avro")) == before
    assert compacted(root).directories == [], "what is compacted is left alone"
    files = list(root.log.read().files.under(TOPIC))
    assert sum(file.rows for file in files) == 3_411
    assert {file.name for file in files} == {path.name for path in root.paths("avro")}


def test_avro_files_end_at_the_target(root: TableRoot) -> None:
    contents = avro_bytes(USER, users(0, 60_000), codec="null", block_bytes=4_000)
    root.load([(partition, "avro", contents, 60_000) for partition in range(4)])
    before = rows_of(root.paths("avro"))

    settings = replace(SETTINGS, target_file_size_bytes=2 << 20)
    report = compacted(root, settings)

    sizes = [path.stat().st_size for path in root.paths("avro")]
    assert report.directories, sizes
    assert max(sizes) <= settings.target_file_size_bytes
    assert len(sizes) < 4
    assert rows_of(root.paths("avro")) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2] + b"\x00" + data[len(data) // 2 + 1 :],
        lambda data: b"PAR1" + data[4:],
        lambda data: data + data[-16:],
    ],
)
def test_damaged_avro_is_told_of_and_left_as_it_is(root: TableRoot, damage: Any) -> None:
    contents = avro_bytes(USER, users(0, 2_000))
    root.load([(0, "avro", contents, 2_000), (1, "avro", contents, 2_000)])
    path = root.paths("avro")[1]
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)

    report = compacted(root)

    assert path.name in report.directories[0].refused
    assert path.read_bytes() == damaged
    assert len(root.paths("avro")) == 2


def orders(start: int, count: int, seed: int = 1, **more: Any) -> pa.Table:
    chosen = random.Random(seed)
    columns = {
        "id": pa.array(range(start, start + count), pa.int64()),
        "amount": pa.array([chosen.random() for _ in range(count)]),
        "kind": pa.array([chosen.choice("abc") for _ in range(count)]).dictionary_encode(),
        "tags": pa.array([[chosen.choice("xyz")] * chosen.randrange(3) for _ in range(count)]),
    }
    return pa.table({**columns, **more})


def test_parquet_files_become_one_of_all_columns(root: TableRoot) -> None:
    inner = pa.array([{"a": 1, "b": "x"}] * 50)
    root.load([(0, "parquet", parquet_bytes(orders(0, 100, inner=pa.array([{"a": 1}] * 100))), 100)])
    root.load([(0, "parquet", parquet_bytes(orders(100, 50, inner=inner, note=pa.array(["n"] * 50))), 50)])
    before = [row for path in root.paths("parquet") for row in pq.read_table(path).to_pylist()]

    report = compacted(root)

    assert report.as_json()["files_after"] == 1
    (path,) = root.paths("parquet")
    after = pq.read_table(path).to_pylist()
    for row in before:
        row.setdefault("note", None)
        row["inner"].setdefault("b", None)
    assert after == before, "in the order of partitions and offsets"


def test_a_column_that_came_later_is_null_in_the_rows_before_it(root: TableRoot) -> None:
    before = pa.schema([pa.field("inner", pa.struct([pa.field("a", pa.int32(), nullable=False)]), nullable=False)])
    inner = pa.struct([pa.field("a", pa.int32(), nullable=False), pa.field("b", pa.int32(), nullable=False)])
    offset = pa.field("_kafka_offset", pa.int64(), nullable=False)
    place = pa.field("place", pa.struct([pa.field("x", pa.int32(), nullable=False)]), nullable=False)
    after = pa.schema([pa.field("inner", inner, nullable=False), offset, place])
    first = pa.Table.from_pylist([{"inner": {"a": 1}}], schema=before)
    second = pa.Table.from_pylist([{"inner": {"a": 2, "b": 3}, "_kafka_offset": 1, "place": {"x": 4}}], schema=after)
    root.load([(0, "parquet", parquet_bytes(first), 1)])
    root.load([(0, "parquet", parquet_bytes(second), 1)])

    report = compacted(root)

    assert report.as_json()["refused"] == {}
    (path,) = root.paths("parquet")
    found = pq.read_table(path)
    assert found.to_pylist() == [
        {"inner": {"a": 1, "b": None}, "_kafka_offset": None, "place": None},
        {"inner": {"a": 2, "b": 3}, "_kafka_offset": 1, "place": {"x": 4}},
    ]
    assert not found.schema.field("inner").nullable, "what all files have stays as it was"


def damage_a_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    data[at : at + 16] = b"\xff" * 16
    path.write_bytes(data)


def damage_a_value(path: Path) -> None:
    """Change what Parquet alone has no sum of."""
    before = pq.read_table(path)
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(0)
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    after = pq.read_table(path)
    assert after.num_rows == before.num_rows
    assert not after.equals(before)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_a_page, "the file is damaged"),
        (damage_a_value, "its bytes are not those that were written"),
        (Path.unlink, "gone, though the commit log has it"),
    ],
)
def test_a_file_that_cannot_be_read_keeps_no_other_directory(root: TableRoot, damage: Any, said: str) -> None:
    # Too large to be read whole and held against the log's checksum.
    rows = orders(0, 60_000)
    contents = parquet_bytes(rows.select(["id", "amount"]), use_dictionary=False, compression="none")
    settings = replace(SETTINGS)
    object.__setattr__(settings, "memory_bytes", len(contents))
    for directory in ("day=1", "day=2"):
        files = [(partition, "parquet", contents, rows.num_rows) for partition in range(2)]
        root.load(files, directory=directory)
    name = root.paths("parquet")[1].name
    damage(root.paths("parquet")[1])

    report = compacted(root, settings)

    refused = {one.directory: one.refused for one in report.directories}
    assert list(refused) == ["orders/parquet/day=1", "orders/parquet/day=2"]
    assert name in refused["orders/parquet/day=1"]
    assert said in refused["orders/parquet/day=1"]
    assert refused["orders/parquet/day=2"] == ""
    assert len(root.paths("parquet", "day=2")) == 1


def test_parquet_is_sorted_over_the_whole_directory_in_little_memory(root: TableRoot) -> None:
    tables = [orders(0, 30_000, seed) for seed in range(6)]
    root.load([(seed, "parquet", parquet_bytes(one, row_group_size=5_000), 30_000) for seed, one in enumerate(tables)])
    before = rows_of(root.paths("parquet"))
    encoding = EncodingSettings(parquet=ParquetSettings(row_group_bytes=1 << 20))
    settings = replace(SETTINGS, sort_by="amount", target_file_size_bytes=1 << 20)
    pool = pa.default_memory_pool()
    held = pool.bytes_allocated()

    # Far below what a job may say, so that a small directory has to spill.
    object.__setattr__(settings, "memory_bytes", 8 << 20)
    report = compacted(root, settings, encoding)

    assert len(root.paths("parquet")) == report.as_json()["files_after"] > 1
    assert rows_of(root.paths("parquet")) == before
    ranges = []
    for index in range(len(root.paths("parquet"))):
        (path,) = [one for one in root.paths("parquet") if f"+c{index}+" in one.name]
        metadata = pq.read_metadata(path)
        at = metadata.schema.names.index("amount")
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(at).statistics
            ranges.append((statistics.min, statistics.max))
    assert ranges == sorted(ranges)
    assert all(left[1] <= right[0] for left, right in pairwise(ranges)), "row groups do not overlap"
    assert pool.bytes_allocated() - held < 8 << 20


def test_of_rows_with_one_key_the_latest_is_kept(root: TableRoot) -> None:
    chosen = random.Random(9)
    files = []
    expected: dict[tuple[int, int | None, str], tuple[int, int]] = {}
    for number in range(6):
        partition = number % 2
        keys = [chosen.choice([None, *range(40)]) for _ in range(500)]
        kinds = [chosen.choice("ab") for _ in range(500)]
        start = number // 2 * 500
        table = pa.table(
            {
                "key": pa.array(keys, pa.int32()),
                "kind": kinds,
                "value": pa.array([chosen.randrange(10**9) for _ in keys]),
                "_kafka_partition": pa.array([partition] * 500, pa.int32()),
                "_kafka_offset": pa.array(range(start, start + 500), pa.int64()),
            }
        )
        files.append((partition, "parquet", parquet_bytes(table), 500))
        for row in table.to_pylist():
            name = partition, row["key"], row["kind"]
            expected[name] = max(expected.get(name, (-1, 0)), (row["_kafka_offset"], row["value"]))
    root.load(files)

    report = compacted(root, replace(SETTINGS, deduplicate_by=("key", "kind"), sort_by="value"))

    (path,) = root.paths("parquet")
    found = pq.read_table(path)
    assert {
        (row["_kafka_partition"], row["key"], row["kind"]): (row["_kafka_offset"], row["value"])
        for row in found.to_pylist()
    } == expected
    assert report.directories[0].rows_replaced == 3_000 - len(expected)
    assert pc.equal(found["value"], found["value"].take(pc.sort_indices(found["value"]))).to_pylist().count(False) == 0


def placed(partition: int, start: int, keys: list[int | None], **more: Any) -> pa.Table:
    """Rows of a partition, from an offset on."""
    columns = {
        "key": pa.array(keys, pa.int32()),
        "_kafka_partition": pa.array([partition] * len(keys), pa.int32()),
        "_kafka_offset": pa.array(range(start, start + len(keys)), pa.int64()),
    }
    return pa.table({**columns, **more})


def test_rows_without_a_key_are_like_no_other(root: TableRoot) -> None:
    first = placed(0, 0, [None, 1, None], other=pa.array([None, "a", "b"]))
    second = placed(0, 3, [None, 1, None], other=pa.array([None, "a", "b"]))
    root.load([(0, "parquet", parquet_bytes(first), 3), (0, "parquet", parquet_bytes(second), 3)])

    compacted(root, replace(SETTINGS, deduplicate_by=("key", "other")))

    (path,) = root.paths("parquet")
    assert pq.read_table(path)["_kafka_offset"].to_pylist() == [0, 3, 4, 5], "the rows of null and null are tombstones"


def test_rows_of_a_topic_made_anew_replace_none_of_the_old_ones(root: TableRoot) -> None:
    old, new = placed(0, 1_000_000, [1, 1, 2]), placed(0, 0, [1, 2, 2])
    root.load([(0, "parquet", parquet_bytes(old), 3)])
    root.load([(0, "parquet", parquet_bytes(new), 3)], topic_id="bmV3bmV3bmV3bmV3bmV3bg")
    settings = replace(SETTINGS, deduplicate_by=("key",))

    compacted(root, settings)

    (path,) = root.paths("parquet")
    found = pq.read_table(path)
    assert Counter(zip(found["key"].to_pylist(), found["_kafka_offset"].to_pylist(), strict=True)) == Counter(
        [(1, 1_000_001), (2, 1_000_002), (1, 0), (2, 2)]
    )
    root.load([(0, "parquet", parquet_bytes(placed(0, 6, [1])), 1)], topic_id="bmV3bmV3bmV3bmV3bmV3bg")
    assert "before and after it was created anew" in compacted(root, settings).directories[0].refused
    assert compacted(root).as_json()["rows"] == 5, "without it nothing keeps them"


def test_what_cannot_be_done_is_said_and_the_rest_goes_on(root: TableRoot) -> None:
    contents = parquet_bytes(orders(0, 10))
    root.load([(0, "parquet", contents, 10), (0, "parquet", contents, 10)])
    root.load([(0, "avro", avro_bytes(USER, users(0, 5)), 5), (1, "avro", avro_bytes(USER, users(0, 5)), 5)])

    report = compacted(root, replace(SETTINGS, deduplicate_by=("id",)))

    refused = {one.directory: one.refused for one in report.directories}
    assert refused["orders/avro/day=1"] == ""
    assert "put 'partition' into metadata_columns" in refused["orders/parquet/day=1"]
    by_list = compacted(root, replace(SETTINGS, sort_by="tags"))
    assert "has no order" in by_list.directories[0].refused
    nowhere = compacted(root, replace(SETTINGS, sort_by="when"))
    assert "has no column 'when'" in nowhere.directories[0].refused
    assert root.staged() == []
    assert len(root.paths("parquet")) == 2


def test_open_directories_and_single_files_are_left_alone(root: TableRoot) -> None:
    contents = parquet_bytes(orders(0, 10))
    root.load([(0, "parquet", contents, 10), (1, "parquet", contents, 10)], closed=False)
    root.load([(0, "parquet", contents, 10)], directory="day=2")

    assert compacted(root).directories == []


OPEN = replace(SETTINGS, open_directories=True, target_file_size_bytes=1 << 20)


def test_small_files_of_an_open_directory_become_larger_ones(root: TableRoot) -> None:
    large = pa.table({"id": range(70_000)})
    contents = parquet_bytes(large, use_dictionary=False, compression="none")
    assert OPEN.target_file_size_bytes <= 2 * len(contents)
    small = parquet_bytes(pa.table({"id": range(10)}))
    root.load([(0, "parquet", contents, large.num_rows)], closed=False)
    (kept,) = root.paths("parquet")
    written = kept.stat().st_mtime_ns
    sizes: list[int] = []
    for _ in range(16):
        root.load([(0, "parquet", small, 10), (1, "parquet", small, 10)], closed=False)
        before = rows_of([path for path in root.paths("parquet") if path != kept])
        sizes += [one.bytes_before for one in compacted(root, OPEN).directories]
        assert rows_of([path for path in root.paths("parquet") if path != kept]) == before

    assert kept.stat().st_mtime_ns == written, "what is large is left alone"
    assert len(root.paths("parquet")) <= 6
    assert sum(sizes) <= 32 * len(small) * 8, "a row is encoded again when its file has grown, not in each round"
    state = root.log.read()
    assert not state.is_closed(f"{TOPIC}/parquet/day=1")
    assert {file.name for file in state.files.under(TOPIC)} == {path.name for path in root.paths("parquet")}
    assert state.totals[f"{TOPIC}/parquet"].rows == large.num_rows + 320


def test_late_records_are_compacted_and_dead_letters_are_not(root: TableRoot) -> None:
    late = [(partition, "parquet", parquet_bytes(orders(0, 10)), 10) for partition in range(2)]
    letters = [(partition, "avro", avro_bytes(USER, users(0, 5)), 5) for partition in range(2)]
    root.load(late, closed=False, kind=FileKind.LATE)
    root.load(letters, closed=False, kind=FileKind.DEAD_LETTERS)

    report = compacted(root, OPEN)

    assert [one.directory for one in report.directories] == ["orders.late/parquet/day=1"]
    assert report.as_json()["refused"] == {}
    assert len(list((root.folder / "orders.late/parquet/day=1").iterdir())) == 1


def test_a_reader_of_an_open_directory_keeps_its_number(root: TableRoot) -> None:
    for start in (0, 10):
        root.load([(0, "parquet", parquet_bytes(pa.table({"id": range(start, start + 10)})), 10)], closed=False)
    number = root.log.read().number
    pinned = Snapshot(LocalFileSystem(str(root.folder)))
    seen = pinned.dataset(TOPIC)

    assert compacted(root, OPEN).as_json()["files_after"] == 1
    root.load([(0, "parquet", parquet_bytes(pa.table({"id": range(20, 30)})), 10)], closed=False)

    assert sorted(seen.to_table()["id"].to_pylist()) == list(range(20))
    assert sorted(Snapshot(LocalFileSystem(str(root.folder)), number).dataset(TOPIC).to_table()["id"].to_pylist()) == (
        list(range(20))
    )
    assert sorted(Snapshot(LocalFileSystem(str(root.folder))).dataset(TOPIC).to_table()["id"].to_pylist()) == (
        list(range(30))
    )


def test_files_that_come_to_an_open_directory_meanwhile_stay(root: TableRoot) -> None:
    contents = parquet_bytes(orders(0, 10))
    files = [(0, "parquet", contents, 10), (1, "parquet", contents, 10)]
    root.load(files, closed=False)
    claim = root.claim(Role.COMPACT)
    plans = plan_compaction(claim.state, OPEN)
    root.load([(2, "parquet", contents, 10)], closed=False)

    report = compact(root.filesystem, root.log, claim, plans, OPEN, ENCODING, stop=threading.Event())

    assert report.as_json()["refused"] == {}
    assert len(root.paths("parquet")) == 2
    assert sum(rows_of(root.paths("parquet")).values()) == 30
    # Closed meanwhile: it is complete for its readers, and stays so at any moment.
    root.load(files, closed=False)
    plans = plan_compaction(root.log.read(), OPEN)
    root.load([(3, "parquet", contents, 10)])
    report = compact(root.filesystem, root.log, claim, plans, OPEN, ENCODING, stop=threading.Event())
    claim.release()

    assert "it was closed while it was compacted" in report.directories[0].left
    assert report.directories[0].refused == ""
    assert sum(rows_of(root.paths("parquet")).values()) == 60
    assert compacted(root, OPEN).as_json()["files_after"] == 1


def test_incarnations_of_a_topic_stay_apart_in_open_directories(root: TableRoot) -> None:
    contents = parquet_bytes(orders(0, 10))
    for topic_id in ("", "bmV3bmV3bmV3bmV3bmV3bg"):
        root.load([(0, "parquet", contents, 10), (1, "parquet", contents, 10)], closed=False, topic_id=topic_id)

    report = compacted(root, OPEN)

    assert [one.files_before for one in report.directories] == [2, 2]
    assert len({file.topic_id for file in root.log.read().files.under(TOPIC)}) == 2


class MeetingFileSystem(LocalFileSystem):
    """Opens the first file of each directory only when that of another is opened too."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._barrier = threading.Barrier(2)
        self._seen: set[str] = set()

    def open(self, path: str) -> LocalInputFile:
        directory = path.rpartition("/")[0]
        if directory.startswith(TOPIC) and directory not in self._seen:
            self._seen.add(directory)
            self._barrier.wait(30)
        return super().open(path)


def test_directories_are_compacted_side_by_side(tmp_path: Path) -> None:
    root = TableRoot(tmp_path, MeetingFileSystem(str(tmp_path)))
    contents = parquet_bytes(orders(0, 10))
    for day in range(4):
        root.load([(partition, "parquet", contents, 10) for partition in range(2)], directory=f"day={day}")
    root.paths("parquet", "day=2")[0].write_bytes(contents[:-1])
    claim = root.claim(Role.COMPACT)

    plans = plan_compaction(claim.state, SETTINGS)
    report = compact(root.filesystem, root.log, claim, plans, SETTINGS, ENCODING, stop=threading.Event(), workers=2)
    claim.release()

    assert [one.directory.rpartition("=")[2] for one in report.directories] == ["0", "1", "2", "3"]
    assert [bool(one.refused) for one in report.directories] == [False, False, True, False]
    assert [len(root.paths("parquet", f"day={day}")) for day in range(4)] == [1, 1, 2, 1]
    assert root.staged() == []


def test_a_directory_that_grew_meanwhile_is_left_for_the_next_time(root: TableRoot) -> None:
    contents = parquet_bytes(orders(0, 10))
    root.load([(0, "parquet", contents, 10), (1, "parquet", contents, 10)])
    claim = root.claim(Role.COMPACT)
    plans = plan_compaction(claim.state, SETTINGS)
    root.load([(2, "parquet", contents, 10)])

    report = compact(root.filesystem, root.log, claim, plans, SETTINGS, ENCODING, stop=threading.Event())
    claim.release()

    assert "its files have changed since" in report.directories[0].left
    assert (report.directories[0].refused, report.as_json()["directories"]) == ("", 0)
    assert root.staged() == [], "what nobody will commit is not kept"
    assert sum(rows_of(root.paths("parquet")).values()) == 30
    assert compacted(root).as_json()["files_before"] == 3


def test_what_can_never_be_replaced_is_not_worked_on(root: TableRoot) -> None:
    contents = parquet_bytes(orders(0, 10))
    files = [(0, "parquet", contents, 10), (1, "parquet", contents, 10)]
    # Months became days: a month cannot go to trash with the days in it.
    root.load(files, directory="month=1")
    root.load(files, directory="month=1/day=1")
    root.load(files, directory="month=2")
    root.paths("parquet", "month=2")[0].with_name("strange.parquet").write_bytes(b"not ours")
    read: list[int] = []
    claim = root.claim(Role.COMPACT)

    plans = plan_compaction(claim.state, SETTINGS)
    report = compact(
        root.filesystem,
        root.log,
        claim,
        plans,
        SETTINGS,
        ENCODING,
        stop=threading.Event(),
        on_progress=lambda plan, _: read.append(len(plan.files)),
    )
    claim.release()

    assert [plan.below for plan in plans] == ["month=1/day=1", "month=2"]
    assert report.directories[0].refused == ""
    assert "strange.parquet is not in the commit log" in report.directories[1].refused
    assert len(read) == 2, "of the other directory nothing was read"


@pytest.mark.hdfs
def test_on_hdfs(tmp_path: Path, hdfs: MiniHdfs) -> None:
    with open_filesystem(f"{hdfs.uri}/compaction", FileSystemSettings(deadline_s=30)) as remote:
        root = TableRoot(tmp_path, remote)
        for partition in range(3):
            contents = avro_bytes(USER, users(partition * 100, 100))
            table = parquet_bytes(orders(partition * 100, 100))
            root.load([(partition, "avro", contents, 100), (partition, "parquet", table, 100)])

        report = compacted(root, replace(SETTINGS, sort_by="id"))

        assert report.as_json()["refused"] == {}
        assert report.as_json()["files_after"] == 2
        for file in root.log.read().files.under(TOPIC):
            copy = tmp_path / f"copy.{file.name.rpartition('.')[2]}"
            with remote.open(file.path) as stored:
                copy.write_bytes(stored.read_at(0, stored.size))
            assert sum(rows_of([copy]).values()) == file.rows == 300


def test_what_a_killed_compaction_staged_is_no_trace_in_the_table(root: TableRoot) -> None:
    contents = parquet_bytes(orders(0, 10))
    root.load([(0, "parquet", contents, 10), (1, "parquet", contents, 10)])
    killed = root.claim(Role.COMPACT)
    (plan,) = plan_compaction(killed.state, SETTINGS)
    compact_directory(root.filesystem, plan, killed.staging(0, 0), SETTINGS, ENCODING, stop=threading.Event())
    killed.release()
    assert len(root.paths("parquet")) == 2

    claim = root.claim(Role.COMPACT)
    root.log.clean(claim)
    plans = plan_compaction(claim.state, SETTINGS)
    report = compact(root.filesystem, root.log, claim, plans, SETTINGS, ENCODING, stop=threading.Event())
    claim.release()

    assert report.as_json()["rows"] == 20
    assert len(root.paths("parquet")) == 1
    assert root.staged() == []


def test_a_stop_ends_it_without_a_trace(root: TableRoot) -> None:
    contents = parquet_bytes(orders(0, 10))
    root.load([(0, "parquet", contents, 10), (1, "parquet", contents, 10)])
    claim = root.claim(Role.COMPACT)
    stop = threading.Event()
    stop.set()

    report = compact(
        root.filesystem, root.log, claim, plan_compaction(claim.state, SETTINGS), SETTINGS, ENCODING, stop=stop
    )
    claim.release()

    assert report.is_stopped
    assert root.staged() == []
    assert len(root.paths("parquet")) == 2
