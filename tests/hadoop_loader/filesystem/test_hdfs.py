"""HDFS by RPC and over HTTP, against the real one: the interface, attributes, and what stops a writer."""

from __future__ import annotations

import gc
import json
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.filesystem_kit import FileSystemConformance, get, names, put

from millstream.hadoop_loader.filesystem import (
    AccessDeniedError,
    FileSystem,
    FileSystemSettings,
    QuotaExceededError,
    open_filesystem,
)
from millstream.testing.hdfs import MiniHdfs

pytestmark = pytest.mark.hdfs

SCHEMES = ("hdfs", "webhdfs")


def root_uri(hdfs: MiniHdfs, scheme: str, folder: str) -> str:
    """The address of a directory by RPC or over HTTP."""
    return f"{hdfs.uri if scheme == 'hdfs' else hdfs.webhdfs_uri}/{folder}"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A directory's name that no other test has."""
    return "-".join(tmp_path.parts[-2:])


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    """By RPC, then over HTTP."""
    return str(request.param)


@pytest.fixture
def lake(hdfs: MiniHdfs, scheme: str, folder: str) -> Iterator[FileSystem]:
    """An empty directory of HDFS."""
    with open_filesystem(root_uri(hdfs, scheme, folder)) as filesystem:
        filesystem.make_directory("")
        yield filesystem


class TestHdfs(FileSystemConformance):
    """The interface's promises on HDFS, by both ways to it."""


def attributes(hdfs: MiniHdfs, path: str) -> dict[str, object]:
    """What the NameNode says of a path."""
    return dict(json.loads(hdfs.request("GET", path, "op=GETFILESTATUS"))["FileStatus"])


def test_new_files_and_directories_have_the_attributes_of_the_settings(
    hdfs: MiniHdfs, scheme: str, folder: str
) -> None:
    settings = FileSystemSettings(
        replication=2, block_size_bytes=1 << 20, permission=0o640, directory_permission=0o750, owner="ann", group="etl"
    )
    with open_filesystem(root_uri(hdfs, scheme, folder), settings) as lake:
        lake.make_directory("new/directory")
        lake.make_child("new/child")
        put(lake, "new/file")
        for path in ("", "/new", "/new/directory", "/new/child"):
            found = attributes(hdfs, f"/{folder}{path}")
            assert (found["owner"], found["group"], found["permission"]) == ("ann", "etl", "750"), path
        found = attributes(hdfs, f"/{folder}/new/file")
        assert (found["owner"], found["group"], found["permission"]) == ("ann", "etl", "640")
        assert (found["replication"], found["blockSize"]) == (2, 1 << 20)
        lake.set_attributes("new/file", permission=0o600, owner="bob", group="ops", replication=1)
        found = attributes(hdfs, f"/{folder}/new/file")
        assert (found["owner"], found["group"], found["permission"], found["replication"]) == ("bob", "ops", "600", 1)


def test_who_may_not_write_is_told_so(hdfs: MiniHdfs, scheme: str, folder: str) -> None:
    with open_filesystem(root_uri(hdfs, scheme, folder)) as lake:
        lake.make_directory("theirs")
        put(lake, "theirs/file", b"kept")
    with open_filesystem(root_uri(hdfs, scheme, folder), FileSystemSettings(user="mallory")) as lake:
        with pytest.raises(AccessDeniedError, match=r"theirs/new: .*mallory.*; give the job's user the right"):
            lake.create("theirs/new")
        with pytest.raises(AccessDeniedError):
            lake.make_directory("theirs/new")
        with pytest.raises(AccessDeniedError):
            lake.rename("theirs/file", "theirs/other")
        with pytest.raises(AccessDeniedError):
            lake.delete("theirs/file")
        assert get(lake, "theirs/file") == b"kept"


def test_a_process_is_one_user_at_a_time_by_rpc(hdfs: MiniHdfs, folder: str) -> None:
    with open_filesystem(root_uri(hdfs, "hdfs", folder), FileSystemSettings(user="ann")):
        with pytest.raises(ValueError, match="as 'ann' by this process, and cannot be as 'bob'"):
            open_filesystem(root_uri(hdfs, "hdfs", folder), FileSystemSettings(user="bob"))
        open_filesystem(root_uri(hdfs, "hdfs", folder), FileSystemSettings(user="ann")).close()
    open_filesystem(root_uri(hdfs, "hdfs", folder), FileSystemSettings(user="bob")).close()


def test_a_used_up_quota_of_space_breaks_the_file_and_is_named(lake: FileSystem, hdfs: MiniHdfs, folder: str) -> None:
    lake.make_directory("small")
    hdfs.set_quota(f"/{folder}/small", space_bytes=1 << 20)
    with pytest.raises(QuotaExceededError, match=r"small/file: .*quota.*; raise the quota"):
        put(lake, "small/file", b"x" * (4 << 20))
    assert names(lake, "small") == []


def test_a_used_up_quota_of_names_refuses_and_changes_nothing(lake: FileSystem, hdfs: MiniHdfs, folder: str) -> None:
    lake.make_directory("small")
    put(lake, "file", b"kept")
    hdfs.set_quota(f"/{folder}/small", names=2)
    lake.make_child("small/first")
    with pytest.raises(QuotaExceededError, match="quota"):
        lake.make_child("small/second")
    with pytest.raises(QuotaExceededError, match="quota"):
        lake.create("small/second")
    with pytest.raises(QuotaExceededError, match="quota"):
        lake.rename("file", "small/second")
    assert names(lake, "small") == ["first"]
    assert get(lake, "file") == b"kept"


def test_a_writer_that_is_dropped_does_not_end_its_file_as_if_whole(hdfs: MiniHdfs, folder: str) -> None:
    with open_filesystem(root_uri(hdfs, "hdfs", folder)) as lake:
        lake.make_directory("")
        file = lake.create("half")
        file.write(b"x" * (4 << 20))
        del file
        gc.collect()
        status = lake.status("half")
        assert status is not None
        # A block that nobody has closed counts for nothing.
        assert status.length == 0
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            hdfs.request("POST", f"/{folder}/half", "op=TRUNCATE&newlength=0", user="somebody-else")
        refused.value.close()
        assert lake.delete("half")


def test_a_writer_whose_file_is_gone_is_told_so(lake: FileSystem) -> None:
    lake.make_directory("staging")
    file = lake.create("staging/file")
    file.write(b"x" * (2 << 20))
    lake.delete("staging", recursive=True)
    with pytest.raises(FileNotFoundError):
        file.close()
    file.abandon()
    with pytest.raises(FileNotFoundError):
        lake.create("staging/other")
