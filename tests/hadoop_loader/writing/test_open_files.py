"""Files of rows: what goes in comes out, by readers that are not ours; limits, memory, damage."""

from __future__ import annotations

import gc
import json
from array import array
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import duckdb
import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.loads import SCHEMA_1

from millstream.core._kernels.crc32c import crc32c
from millstream.hadoop_loader.filesystem import (
    FileSystem,
    FileSystemSettings,
    UnknownOutcomeError,
    open_filesystem,
)
from millstream.hadoop_loader.job import AvroSettings, EncodingSettings, FileLimits, ParquetSettings
from millstream.hadoop_loader.splits import FileKind, StagedFile
from millstream.hadoop_loader.values.located import locate
from millstream.hadoop_loader.writing import DamagedFileError, Datums, FileKey, OpenFiles, Rows
from millstream.hadoop_loader.writing.limits import Extent, rows_that_fit
from millstream.hadoop_loader.writing.parquet_file import leaves
from millstream.schemas.avro import AvroEncoder
from millstream.testing.kafka import wait_until

ENCODER = AvroEncoder(SCHEMA_1)
MB = 2**20


def key(format_: str, partition: int = 0, directory: str = "") -> FileKey:
    return FileKey(FileKind.DATA, "t", "t", "id", partition, directory, format_)


def rows_of(first: int, count: int, format_: str, *, text: str = "user", times: Sequence[int] | None = None) -> Rows:
    """Rows with running ids, which are their offsets."""
    numbers = list(range(first, first + count))
    columns = pa.RecordBatch.from_pydict(
        {"id": numbers, "user": [f"{text}-{number}" for number in numbers], "amount": [None] * count},
        schema=ENCODER.schema,
    )
    offsets = pa.array(numbers, pa.int64())
    milliseconds = offsets if times is None else pa.array(times, pa.int64())
    if format_ == "parquet":
        return Rows(offsets, milliseconds, columns)
    made = locate(ENCODER.encode(columns))
    return Rows(offsets, milliseconds, datums=Datums(made.data, made.positions, made.sizes))


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]
    with path.open("rb") as file:
        return list(fastavro.reader(file))  # type: ignore[arg-type]


def schema_of(format_: str) -> Any:
    return SCHEMA_1 if format_ == "avro" else ENCODER.schema


@pytest.fixture
def filesystem(tmp_path: Path) -> FileSystem:
    (tmp_path / "staging").mkdir()
    return open_filesystem(f"file://{tmp_path}", FileSystemSettings())


def opened(filesystem: FileSystem, *, memory_bytes_max: int = 64 * MB, **given: Any) -> OpenFiles:
    encoding = EncodingSettings(
        parquet=given.pop("parquet", ParquetSettings()), avro=given.pop("avro", AvroSettings(block_bytes=1024))
    )
    return OpenFiles(
        filesystem,
        "staging",
        limits=FileLimits(**given.pop("limits", {})),
        encoding=encoding,
        memory_bytes_max=memory_bytes_max,
        **given,
    )


def check(staged: StagedFile, root: Path) -> list[dict[str, Any]]:
    """Hold a file to what is said of it; return its rows."""
    path = root / staged.path
    data = path.read_bytes()
    assert staged.length == len(data)
    assert staged.checksum == f"crc32c:{crc32c(data):08x}"
    found = read(path)
    assert staged.rows == len(found)
    assert (staged.first_offset, staged.last_offset) == (found[0]["id"], found[-1]["id"])
    return found


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard", "bzip2", "xz"])
def test_every_codec_of_avro_is_read_by_others(codec: str, filesystem: FileSystem, tmp_path: Path) -> None:
    files = opened(filesystem, avro=AvroSettings(codec=codec, level=3, block_bytes=1024))
    files.append(key("avro"), SCHEMA_1, rows_of(0, 500, "avro"))
    files.append(key("avro"), SCHEMA_1, rows_of(500, 3, "avro", text="x" * 5000))
    (staged,) = files.finish()
    found = check(staged, tmp_path)
    assert [row["id"] for row in found] == list(range(503))
    assert found[-1]["user"] == "x" * 5000 + "-502"


@pytest.mark.parametrize("codec", ["zstd", "snappy", "gzip", "lz4", "brotli", "none"])
def test_every_codec_of_parquet_is_read_by_others(codec: str, filesystem: FileSystem, tmp_path: Path) -> None:
    files = opened(filesystem, parquet=ParquetSettings(codec=codec, row_group_rows=1000))
    for first in range(0, 5000, 500):
        files.append(key("parquet"), ENCODER.schema, rows_of(first, 500, "parquet", text=f"u{first}"))
    (staged,) = files.finish()
    check(staged, tmp_path)
    found = duckdb.connect().execute("select id, user from read_parquet(?)", [str(tmp_path / staged.path)]).fetchall()
    assert found == [(number, f"u{number // 500 * 500}-{number}") for number in range(5000)]
    assert pq.read_metadata(tmp_path / staged.path).num_row_groups == 5


def test_columns_are_encoded_by_what_is_in_them(filesystem: FileSystem, tmp_path: Path) -> None:
    count = 5000
    columns = pa.record_batch(
        {
            "running": pa.array(range(count), pa.int64()),
            # As of small files that are put together: runs, and far from each other.
            "runs": pa.array([number + number // 500 % 7 * 300_000 for number in range(count)], pa.int32()),
            "wild": pa.array([hash(str(number)) >> 1 for number in range(count)], pa.int64()),
            "few": pa.array([f"kind {number % 7}" for number in range(count)]),
            "texts": pa.array([f"text {number}" for number in range(count)]),
        }
    )
    offsets = pa.array(range(count), pa.int64())
    files = opened(filesystem)
    files.append(key("parquet"), columns.schema, Rows(offsets, offsets, columns))
    (staged,) = files.finish()
    group = pq.read_metadata(tmp_path / staged.path).row_group(0)
    encodings = {group.column(at).path_in_schema: set(group.column(at).encodings) for at in range(5)}
    assert "DELTA_BINARY_PACKED" in encodings["running"]
    assert "DELTA_BINARY_PACKED" in encodings["runs"]
    assert "RLE_DICTIONARY" in encodings["few"]
    for name in ("wild", "texts"):
        assert not encodings[name] & {"DELTA_BINARY_PACKED", "RLE_DICTIONARY"}, name
    assert pq.read_table(tmp_path / staged.path).equals(pa.table(columns))


@settings(deadline=None, max_examples=40)
@given(
    batches=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 2)), min_size=1, max_size=6),
    row_limit=st.none() | st.integers(1, 50),
    format_=st.sampled_from(["avro", "parquet"]),
    open_files_max=st.integers(1, 3),
)
def test_rows_in_files_are_those_put_in(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[tuple[int, int]],
    row_limit: int | None,
    format_: str,
    open_files_max: int,
) -> None:
    root = tmp_path_factory.mktemp("files")
    (root / "staging").mkdir()
    filesystem = open_filesystem(f"file://{root}", FileSystemSettings())
    files = opened(filesystem, limits={"rows": row_limit}, open_files_max=open_files_max)
    expected: dict[str, list[int]] = {}
    first = 0
    for count, directory in batches:
        files.append(key(format_, directory=str(directory)), schema_of(format_), rows_of(first, count, format_))
        expected.setdefault(str(directory), []).extend(range(first, first + count))
        first += count
    found: dict[str, list[int]] = {}
    for staged in files.finish():
        assert row_limit is None or staged.rows <= row_limit
        found.setdefault(staged.directory, []).extend(row["id"] for row in check(staged, root))
    assert found == expected


@given(
    times=st.lists(st.integers(0, 100), min_size=1, max_size=20),
    age=st.integers(1, 60),
    rows=st.none() | st.integers(1, 10),
    before=st.lists(st.integers(0, 100), max_size=5),
)
def test_limits_are_those_of_row_by_row(times: list[int], age: int, rows: int | None, before: list[int]) -> None:
    limits = FileLimits(rows=rows, age_s=age / 1000)
    held = list(before)[: rows or 5]
    file = Extent(len(held), 0, min(held, default=None), max(held, default=None))
    fitting = 0
    if max(held, default=0) - min(held, default=0) <= age:
        for time in times:
            together = [*held, time]
            if max(together) - min(together) > age or (rows is not None and len(together) > rows):
                break
            held = together
            fitting += 1
    if not file.rows:
        fitting = max(fitting, 1)
    assert rows_that_fit(limits, file, pa.array(times, pa.int64()), 1.0) == fitting


def test_a_file_of_many_bytes_is_closed(filesystem: FileSystem, tmp_path: Path) -> None:
    for format_ in ("avro", "parquet"):
        encodings: dict[str, Any] = {
            "parquet": ParquetSettings(row_group_rows=1000, codec="none"),
            "avro": AvroSettings(codec="null"),
        }
        files = opened(filesystem, limits={"bytes": 64 * 1024}, **encodings)
        for first in range(0, 20_000, 4000):
            files.append(key(format_), schema_of(format_), rows_of(first, 4000, format_))
        staged = files.finish()
        assert len(staged) > 3
        assert sum(one.rows for one in staged) == 20_000
        assert all(one.length < 3 * 64 * 1024 for one in staged)
        for one in staged:
            check(one, tmp_path)
            (tmp_path / one.path).unlink()


@pytest.mark.parametrize("format_", ["avro", "parquet"])
def test_memory_is_bounded_by_closing_the_largest(format_: str, filesystem: FileSystem, tmp_path: Path) -> None:
    bound = 2 * MB
    files = opened(filesystem, memory_bytes_max=bound, avro=AvroSettings(block_bytes=64 * 1024))
    one_batch = 0
    for first in range(0, 60_000, 1000):
        rows = rows_of(first, 1000, format_, text="a name that is long enough to count")
        one_batch = max(one_batch, rows.columns.nbytes if rows.columns is not None else 64 * 1024)
        directory = str(first // 1000 % 20)
        files.append(key(format_, directory=directory), schema_of(format_), rows)
        assert files.held_bytes <= bound
    assert files.peak_bytes <= bound + one_batch + MB
    staged = files.finish()
    assert sorted(row["id"] for one in staged for row in check(one, tmp_path)) == list(range(60_000))


def test_a_file_that_lost_its_end_is_noticed(filesystem: FileSystem, tmp_path: Path) -> None:
    class Shortening:
        """A file system whose files lose a byte when they are closed."""

        def __init__(self, inner: FileSystem) -> None:
            self._inner = inner
            self.uri = inner.uri

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def status(self, path: str) -> Any:
            whole = tmp_path / path
            whole.write_bytes(whole.read_bytes()[:-1])
            return self._inner.status(path)

    for format_ in ("avro", "parquet"):
        files = opened(Shortening(filesystem))
        files.append(key(format_), schema_of(format_), rows_of(0, 10, format_))
        with pytest.raises(DamagedFileError, match="bytes, where"):
            files.finish()
        files.abandon()


def test_an_error_of_a_closing_thread_reaches_the_caller(filesystem: FileSystem, tmp_path: Path) -> None:
    files = opened(filesystem, limits={"rows": 10})
    (tmp_path / "staging").rmdir()

    def append_for_long() -> None:
        for first in range(0, 1_000_000, 10):
            files.append(key("avro"), SCHEMA_1, rows_of(first, 10, "avro"))

    with pytest.raises(FileNotFoundError):
        append_for_long()
    files.abandon()


def test_the_caller_is_told_of_each_file_that_is_closed(filesystem: FileSystem) -> None:
    told: list[str] = []
    files = opened(filesystem, limits={"rows": 10}, on_closed=lambda: told.append("closed"))
    files.append(key("avro"), SCHEMA_1, rows_of(0, 35, "avro"))
    files.append(key("parquet"), ENCODER.schema, rows_of(0, 5, "parquet"))

    assert len(files.finish()) == len(told) == 5


def test_the_caller_is_told_of_each_file_that_is_given_up(filesystem: FileSystem) -> None:
    told: list[str] = []
    files = opened(filesystem)
    for partition in range(3):
        files.append(key("avro", partition), SCHEMA_1, rows_of(0, 500, "avro"))
    files.abandon(lambda: told.append("given up"))
    assert told == ["given up"] * 3


def test_a_selection_of_datums_with_trailing_fields(filesystem: FileSystem, tmp_path: Path) -> None:
    schema = json.loads(SCHEMA_1)
    schema["fields"].append({"name": "n", "type": "long"})
    rows = rows_of(0, 100, "avro")
    tails = locate(
        AvroEncoder('{"type": "record", "name": "T", "fields": [{"name": "n", "type": "long"}]}').encode(
            pa.record_batch({"n": pa.array(range(1000, 1100), pa.int64())})
        )
    )
    assert rows.datums is not None
    datums = rows.datums._replace(tails=tails.data, tail_ends=tails.positions)
    chosen = pa.array([3, 50, 99], pa.int64())
    files = opened(filesystem)
    files.append(key("avro"), json.dumps(schema), Rows(chosen, chosen, None, datums, array("q", [3, 50, 99])))
    (staged,) = files.finish()
    assert [(row["id"], row["n"]) for row in check(staged, tmp_path)] == [(3, 1003), (50, 1050), (99, 1099)]


def test_memory_is_bounded_where_every_row_is_a_file(filesystem: FileSystem, tmp_path: Path) -> None:
    bound = 64 * 1024
    files = opened(filesystem, memory_bytes_max=bound, avro=AvroSettings(block_bytes=16 * 1024), limits={"rows": 1})
    files.append(key("avro"), SCHEMA_1, rows_of(0, 300, "avro"))
    assert files.peak_bytes <= bound + 16 * 1024
    staged = files.finish()
    assert [row["id"] for one in staged for row in check(one, tmp_path)] == list(range(300))


def test_the_last_values_of_a_large_buffer_are_not_taken_for_large(filesystem: FileSystem, tmp_path: Path) -> None:
    rows = rows_of(0, 30, "avro")
    assert rows.datums is not None
    data = bytes(4 * MB) + bytes(rows.datums.data)
    starts = list(rows.datums.positions)
    positions = array("q", [4 * MB + start for start in starts])
    sizes = array("q", [end - start for start, end in pairwise(starts)])
    for placed in (Datums(data, positions), Datums(data, positions[:-1], sizes)):
        files = opened(filesystem, limits={"bytes": 64 * 1024})
        files.append(key("avro"), SCHEMA_1, rows._replace(datums=placed))
        (staged,) = files.finish()
        assert len(check(staged, tmp_path)) == 30
        (tmp_path / staged.path).unlink()


class Unreachable:
    """A file system whose files cannot be deleted for want of an answer; counts who tried."""

    def __init__(self, inner: FileSystem) -> None:
        self._inner = inner
        self.uri = inner.uri
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create(self, path: str) -> Any:
        file = self._inner.create(path)

        def give_up() -> None:
            self.asked.append(path)
            raise UnknownOutcomeError("no answer", uri=self.uri, path=path)

        file._give_up = give_up  # type: ignore[attr-defined]
        return file


@pytest.mark.parametrize("format_", ["avro", "parquet"])
def test_files_are_dropped_where_nobody_answers(
    format_: str, filesystem: FileSystem, capfd: pytest.CaptureFixture[str]
) -> None:
    unreachable = Unreachable(filesystem)
    files = opened(unreachable, parquet=ParquetSettings(row_group_rows=1000))
    for directory in range(20):
        files.append(key(format_, directory=str(directory)), schema_of(format_), rows_of(0, 1000, format_))
    files.abandon()
    assert len(unreachable.asked) == 1
    del files
    gc.collect()
    assert "ignored" not in capfd.readouterr().err


def test_files_whose_closing_never_began_are_deleted(filesystem: FileSystem, tmp_path: Path) -> None:
    held, may_go_on = Event(), Event()

    class Slow:
        """A file system that keeps whoever closes a file waiting."""

        def __init__(self, inner: FileSystem) -> None:
            self._inner = inner
            self.uri = inner.uri

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def status(self, path: str) -> Any:
            held.set()
            assert may_go_on.wait(30)
            return self._inner.status(path)

    files = opened(Slow(filesystem), limits={"rows": 200})
    for first in range(0, 2_000, 200):
        files.append(key("avro"), SCHEMA_1, rows_of(first, 200, "avro"))
    assert held.wait(30)
    assert len(list((tmp_path / "staging").iterdir())) == 10
    abandoning = Thread(target=files.abandon)
    abandoning.start()
    wait_until(lambda: sum(closed.cancelled() for closed, _, _ in files._closing) == 8, 30, "closings to be cancelled")
    may_go_on.set()
    abandoning.join(30)
    assert len(list((tmp_path / "staging").iterdir())) == 2


def test_a_slice_of_lists_is_looked_at_alone() -> None:
    lists = pa.array([[number] for number in range(10_000)], pa.list_(pa.int64()))
    maps = pa.array([[(str(number), number)] for number in range(10_000)], pa.map_(pa.string(), pa.int64()))
    table = pa.table({"lists": lists, "maps": maps}).slice(5_000, 3)
    found = {path: values.to_pylist() for _, path, values in leaves(table)}
    assert found == {
        "lists.list.element": [5000, 5001, 5002],
        "maps.key_value.key": ["5000", "5001", "5002"],
        "maps.key_value.value": [5000, 5001, 5002],
    }
