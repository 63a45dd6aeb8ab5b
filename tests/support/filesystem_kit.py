"""What every file system must do: subclass `FileSystemConformance` and give it the fixture `lake`, an empty root."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from millstream.hadoop_loader.filesystem import (
    DirectoryNotEmptyError,
    FileSystem,
    OutputFile,
    arrow_input,
    arrow_output,
)
from millstream.hadoop_loader.filesystem.output import CHUNK_BYTES

# Names that Hive, schedulers and people make.
ODD_NAMES: Final = [
    "day=2026-01-31",
    "a b",
    "50%",
    "100%25",
    "a+b",
    "a#b",
    "a?b",
    "a&b=c",
    "täglich",
    "'\"",
    "~",
    "a;b",
]
RIVALS: Final = 8


def put(lake: FileSystem, path: str, data: bytes = b"x") -> None:
    """Write a whole file."""
    with lake.create(path) as file:
        file.write(data)


def get(lake: FileSystem, path: str) -> bytes:
    """Read a whole file."""
    with lake.open(path) as file:
        return file.read_at(0, file.size)


def names(lake: FileSystem, path: str = "") -> list[str]:
    """The names in a directory, in the order they are listed."""
    return [status.name for status in lake.list(path)]


class FileSystemConformance:
    """The interface's promises, one by one."""

    def test_a_file_is_read_as_it_was_written(self, lake: FileSystem) -> None:
        draw = random.Random(7)
        pieces = [
            draw.randbytes(size) for size in (1, 0, 100, CHUNK_BYTES - 102, 5, 3 * CHUNK_BYTES + 7, 11, CHUNK_BYTES)
        ]
        with lake.create("file") as file:
            for number, piece in enumerate(pieces):
                form = (bytes, bytearray, memoryview, pa.py_buffer)[number % 4]
                assert file.write(form(piece)) == len(piece)
            assert file.size_bytes == sum(map(len, pieces))
        data = b"".join(pieces)
        status = lake.status("file")
        assert status is not None
        assert (status.length, status.is_directory, status.path) == (len(data), False, "file")
        assert status.modified_ms > 1_700_000_000_000
        with lake.open("file") as opened:
            assert opened.size == len(data)
            for position, size in ((0, 10), (CHUNK_BYTES - 3, 7), (len(data) - 4, 4), (0, len(data))):
                assert opened.read_at(position, size) == data[position : position + size]
            assert opened.read_at(len(data) - 2, 100) == data[-2:]
            assert opened.read_at(len(data), 1) == b""
            assert opened.read_at(len(data) + 9, 1) == b""

    def test_a_buffer_may_be_used_again_after_write(self, lake: FileSystem) -> None:
        for size in (10, 2 * CHUNK_BYTES):
            buffer = bytearray(b"a" * size)
            with lake.create(f"file-{size}") as file:
                file.write(buffer)
                buffer[:] = b"b" * size
                file.write(buffer)
            assert get(lake, f"file-{size}") == b"a" * size + b"b" * size

    def test_an_empty_file_is_a_file(self, lake: FileSystem) -> None:
        lake.create("empty").close()
        assert get(lake, "empty") == b""
        assert names(lake) == ["empty"]

    def test_synced_bytes_are_counted_before_the_file_is_closed(self, lake: FileSystem) -> None:
        file = lake.create("file")
        for part in (b"one", b"two", b"t" * CHUNK_BYTES):
            file.write(part)
            file.sync()
            status = lake.status("file")
            assert status is not None
            assert status.length == file.size_bytes
        file.sync()
        file.close()
        file.close()
        assert len(get(lake, "file")) == 6 + CHUNK_BYTES

    def test_nothing_is_written_to_a_file_that_is_ended(self, lake: FileSystem) -> None:
        closed, abandoned = lake.create("closed"), lake.create("abandoned")
        closed.close()
        abandoned.abandon()
        for file in (closed, abandoned):
            with pytest.raises(ValueError, match="nothing can be written"):
                file.write(b"x")
            with pytest.raises(ValueError, match="nothing can be written"):
                file.sync()
        with pytest.raises(ValueError, match="nothing can be written"):
            abandoned.close()
        closed.abandon()
        assert names(lake) == ["closed"]

    def test_an_error_among_the_writes_leaves_no_file(self, lake: FileSystem) -> None:
        def fail_after(size: int) -> None:
            with lake.create("file") as file:
                file.write(b"x" * size)
                raise KeyError(size)

        for size in (3, 2 * CHUNK_BYTES):
            with pytest.raises(KeyError):
                fail_after(size)
        assert names(lake) == []

    def test_create_makes_no_parent_and_replaces_nothing(self, lake: FileSystem) -> None:
        put(lake, "file", b"first")
        lake.make_directory("directory")
        for taken in ("file", "directory"):
            with pytest.raises(FileExistsError):
                lake.create(taken)
        with pytest.raises(FileNotFoundError):
            lake.create("absent/file")
        with pytest.raises(NotADirectoryError):
            lake.create("file/file")
        assert get(lake, "file") == b"first"
        assert names(lake) == ["directory", "file"]

    def test_one_of_many_creates_a_file(self, lake: FileSystem) -> None:
        def create(_: int) -> OutputFile | None:
            try:
                return lake.create("claim")
            except FileExistsError:
                return None

        with ThreadPoolExecutor(RIVALS) as pool:
            made = [file for file in pool.map(create, range(RIVALS)) if file is not None]
        assert len(made) == 1
        made[0].close()

    def test_rename_moves_files_and_directories(self, lake: FileSystem) -> None:
        lake.make_directory("a/inner")
        lake.make_directory("b")
        put(lake, "a/inner/file", b"data")
        lake.rename("a/inner/file", "b/file")
        lake.rename("a/inner", "b/inner")
        lake.rename("b", "c")
        assert names(lake) == ["a", "c"]
        assert names(lake, "a") == []
        assert names(lake, "c") == ["file", "inner"]
        assert get(lake, "c/file") == b"data"

    def test_rename_replaces_nothing_and_moves_into_nothing(self, lake: FileSystem) -> None:
        put(lake, "file", b"file")
        put(lake, "other", b"other")
        for directory in ("full", "empty", "source"):
            lake.make_directory(directory)
        put(lake, "full/kept", b"kept")
        put(lake, "source/inner", b"inner")
        for source in ("other", "source"):
            for target in ("file", "full", "empty"):
                with pytest.raises(FileExistsError):
                    lake.rename(source, target)
        for itself in ("file", "full"):
            with pytest.raises(FileExistsError):
                lake.rename(itself, itself)
        assert names(lake) == ["empty", "file", "full", "other", "source"]
        assert [names(lake, path) for path in ("empty", "full", "source")] == [[], ["kept"], ["inner"]]
        assert (get(lake, "file"), get(lake, "other")) == (b"file", b"other")

    def test_rename_needs_its_source_and_the_parent_of_its_target(self, lake: FileSystem) -> None:
        put(lake, "file")
        with pytest.raises(FileNotFoundError):
            lake.rename("absent", "target")
        with pytest.raises(FileNotFoundError):
            lake.rename("file", "absent/file")
        with pytest.raises(NotADirectoryError):
            lake.rename("file", "file/file")
        assert names(lake) == ["file"]

    def test_one_of_many_renames_to_a_name(self, lake: FileSystem) -> None:
        for number in range(RIVALS):
            put(lake, f"mine-{number}", b"%d" % number)

        def publish(number: int) -> bool:
            try:
                lake.rename(f"mine-{number}", "entry")
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(RIVALS) as pool:
            won = [number for number, result in enumerate(pool.map(publish, range(RIVALS))) if result]
        assert len(won) == 1
        assert get(lake, "entry") == b"%d" % won[0]
        assert len(names(lake)) == RIVALS

    def test_directories_are_made_with_their_parents_or_without(self, lake: FileSystem) -> None:
        lake.make_directory("a/b/c")
        lake.make_directory("a/b/c")
        lake.make_child("a/b/d")
        assert names(lake, "a/b") == ["c", "d"]
        with pytest.raises(FileExistsError):
            lake.make_child("a/b/d")
        with pytest.raises(FileNotFoundError):
            lake.make_child("a/absent/d")
        put(lake, "file")
        with pytest.raises(FileExistsError):
            lake.make_child("file")
        with pytest.raises((FileExistsError, NotADirectoryError)):
            lake.make_directory("file")
        with pytest.raises((FileExistsError, NotADirectoryError)):
            lake.make_directory("file/below/it")
        status = lake.status("a/b")
        assert status is not None
        assert (status.is_directory, status.length, status.path, status.name) == (True, 0, "a/b", "b")

    def test_what_is_not_there_has_no_status(self, lake: FileSystem) -> None:
        put(lake, "file")
        assert lake.status("absent") is None
        assert lake.status("absent/below") is None
        assert lake.status("file/below") is None
        with pytest.raises(FileNotFoundError):
            lake.list("absent")
        with pytest.raises(NotADirectoryError):
            lake.list("file")
        with pytest.raises(FileNotFoundError):
            lake.open("absent")
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            lake.open("file/below")
        lake.make_directory("directory")
        with pytest.raises(IsADirectoryError):
            lake.open("directory")

    def test_the_root_is_a_directory_like_any(self, lake: FileSystem) -> None:
        lake.make_directory("")
        root = lake.status("")
        assert root is not None
        assert (root.is_directory, root.path) == (True, "")
        assert lake.list("") == []
        assert not lake.uri.endswith("/")

    def test_odd_names_stay_what_they_are(self, lake: FileSystem) -> None:
        for name in ODD_NAMES:
            lake.make_child(name)
            put(lake, f"{name}/{name}", name.encode())
            lake.rename(f"{name}/{name}", f"{name}/{name}.moved")
        assert names(lake) == sorted(ODD_NAMES)
        for name in ODD_NAMES:
            assert [status.path for status in lake.list(name)] == [f"{name}/{name}.moved"]
            assert get(lake, f"{name}/{name}.moved") == name.encode()

    def test_paths_outside_the_root_are_refused(self, lake: FileSystem) -> None:
        for path in ("/absolute", "a//b", "a/", "../sibling", "a/../../b", "."):
            with pytest.raises(ValueError, match="no relative path"):
                lake.status(path)
            with pytest.raises(ValueError, match="no relative path"):
                lake.rename("file", path)

    def test_delete_says_whether_something_was_there(self, lake: FileSystem) -> None:
        lake.make_directory("directory/inner")
        put(lake, "directory/inner/file")
        put(lake, "file")
        with pytest.raises(DirectoryNotEmptyError, match="recursively"):
            lake.delete("directory")
        assert lake.delete("file")
        assert not lake.delete("file")
        assert not lake.delete("absent/file")
        assert lake.delete("directory/inner", recursive=True)
        assert lake.delete("directory")
        assert names(lake) == []

    def test_a_directory_of_many_is_listed_whole_and_in_order(self, lake: FileSystem) -> None:
        wanted = [f"child-{number:04}" for number in range(120)]
        with ThreadPoolExecutor(RIVALS) as pool:
            for _ in pool.map(lambda name: lake.make_child(f"{name}"), reversed(wanted)):
                pass
        assert names(lake) == wanted

    def test_threads_read_one_file_at_a_time(self, lake: FileSystem) -> None:
        data = random.Random(3).randbytes(2 * CHUNK_BYTES)
        put(lake, "file", data)
        draw = random.Random(4)
        ranges = [(draw.randrange(len(data)), draw.randrange(200_000)) for _ in range(40)]
        with lake.open("file") as file, ThreadPoolExecutor(RIVALS) as pool:
            for (position, size), part in zip(ranges, pool.map(lambda r: file.read_at(*r), ranges), strict=True):
                assert part == data[position : position + size]

    def test_a_file_is_read_in_a_row_and_out_of_it(self, lake: FileSystem) -> None:
        data = random.Random(5).randbytes(700_000)
        put(lake, "file", data)
        with lake.open("file") as file:
            for start in (0, 400_000):
                parts = [file.read_at(position, 50_000) for position in range(start, start + 300_000, 50_000)]
                assert b"".join(parts) == data[start : start + 300_000]
            assert file.read_at(699_990, 50) == data[-10:]
            assert file.read_at(10, 20) == data[10:30]
            assert file.read_at(30, 699_000) == data[30:699_030]
        with pytest.raises(ValueError, match="closed"):
            file.read_at(0, 1)

    def test_parquet_goes_through_arrow(self, lake: FileSystem) -> None:
        table = pa.table({"id": range(200_000), "name": [f"name {number}" for number in range(200_000)]})
        with lake.create("file.parquet") as file:
            sink = arrow_output(file)
            with pq.ParquetWriter(sink, table.schema) as writer:
                writer.write_table(table, row_group_size=30_000)
            sink.close()
        with lake.open("file.parquet") as opened:
            assert pq.read_table(arrow_input(opened), pre_buffer=True).equals(table)
            names_only = pq.ParquetFile(arrow_input(opened)).read_row_group(2, columns=["name"])
            assert pc.equal(names_only["name"], table["name"].slice(60_000, 30_000)).to_pylist() == [True] * 30_000
