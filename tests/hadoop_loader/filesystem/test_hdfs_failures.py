"""HDFS away, silent or without disks: what a caller is told within its deadline, and what is there afterwards."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.filesystem_kit import get, names, put

from millstream.hadoop_loader.filesystem import (
    FileSystem,
    FileSystemError,
    FileSystemSettings,
    OutputFile,
    UnavailableError,
    UnknownOutcomeError,
    open_filesystem,
)
from millstream.testing.hdfs import MiniHdfs
from millstream.testing.kafka import wait_until

pytestmark = pytest.mark.hdfs

DEADLINE_S = 2.0
# A machine that does much else may hold a thread up; what is never waited for is what HDFS' clients take by themselves.
LATE_S = 25.0


@pytest.fixture(params=["hdfs", "webhdfs"])
def uri(request: pytest.FixtureRequest, hdfs: MiniHdfs, tmp_path: Path) -> str:
    """The address of a directory that no other test has, by RPC and over HTTP."""
    base = hdfs.uri if request.param == "hdfs" else hdfs.webhdfs_uri
    return f"{base}/{'-'.join(tmp_path.parts[-2:])}"


@pytest.fixture
def lake(uri: str) -> Iterator[FileSystem]:
    """That directory, opened by one who is patient."""
    with open_filesystem(uri, FileSystemSettings(deadline_s=120)) as filesystem:
        filesystem.make_directory("")
        yield filesystem


@pytest.fixture
def hasty(uri: str) -> Iterator[FileSystem]:
    """The same directory, opened by one who is not."""
    with open_filesystem(uri, FileSystemSettings(deadline_s=DEADLINE_S)) as filesystem:
        yield filesystem


def fill(file: OutputFile, seconds: float) -> None:
    """Write for so long: some megabytes are on their way before anybody hears that nobody takes them."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        file.write(b"x" * (4 << 20))


def test_an_act_without_an_answer_may_take_effect_later(hdfs: MiniHdfs, lake: FileSystem, hasty: FileSystem) -> None:
    put(lake, "staging", b"entry")
    hasty.rename("staging", "staged")  # it is connected, and knows whom to
    hdfs.pause_namenode()
    started = time.monotonic()
    with pytest.raises(UnknownOutcomeError, match=r"entry: .*within 2 s"):
        hasty.rename("staged", "entry")
    with pytest.raises(UnavailableError, match="within 2 s"):
        hasty.status("entry")
    assert time.monotonic() - started < LATE_S
    hdfs.resume_namenode()
    wait_until(lambda: lake.status("entry"), 60.0, "the rename to take effect after all")
    assert names(hasty) == ["entry"]
    assert get(hasty, "entry") == b"entry"


def test_a_namenode_that_is_gone_is_waited_for_until_the_deadline(
    hdfs: MiniHdfs, lake: FileSystem, hasty: FileSystem
) -> None:
    put(lake, "staged", b"entry")
    put(lake, "other", b"other")
    writing = hasty.create("writing")
    writing.write(b"x" * (2 << 20))
    hdfs.kill_namenode()
    started = time.monotonic()
    with pytest.raises((UnknownOutcomeError, UnavailableError), match="refused") as given_up:
        hasty.rename("other", "lost")
    with pytest.raises(UnavailableError, match="run again"):
        hasty.list("")
    with pytest.raises((UnknownOutcomeError, UnavailableError)):
        writing.close()
    writing.abandon()
    assert time.monotonic() - started < LATE_S
    with ThreadPoolExecutor(1) as pool:
        renamed = pool.submit(lake.rename, "staged", "entry")
        hdfs.start_namenode()
        renamed.result(120)
    assert get(lake, "entry") == b"entry"
    # The client goes on trying what nobody waits for any more: only what never began has no effect.
    (there,) = {"other", "lost"} & set(names(lake))
    assert there == "other" or given_up.type is UnknownOutcomeError
    put(hasty, "new", b"new")
    assert get(hasty, "new") == b"new"


def test_a_datanode_that_dies_breaks_the_file_and_no_other(hdfs: MiniHdfs, lake: FileSystem, hasty: FileSystem) -> None:
    put(lake, "whole", b"whole")
    broken = hasty.create("broken")
    broken.write(b"x" * (2 << 20))
    hdfs.kill_datanode()
    started = time.monotonic()
    with pytest.raises(FileSystemError):
        fill(broken, LATE_S)
    with pytest.raises(ValueError, match="broken"):
        broken.write(b"more")
    broken.abandon()
    with pytest.raises(UnavailableError):
        get(hasty, "whole")
    assert time.monotonic() - started < LATE_S
    reading = threading.Event()

    def read() -> bytes:
        with lake.open("whole") as file:
            reading.set()
            return file.read_at(0, 5)

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(read)
        assert reading.wait(60)
        hdfs.start_datanode()
        assert found.result(120) == b"whole"
    put(lake, "again", b"again")
    assert get(lake, "again") == b"again"


def test_blocks_that_had_no_place_when_a_file_was_opened_are_found_once_they_have_one(
    hdfs: MiniHdfs, lake: FileSystem, tmp_path: Path
) -> None:
    put(lake, "whole", b"whole")
    path = f"/{'-'.join(tmp_path.parts[-2:])}/whole"

    def has_no_place() -> bool:
        answer = json.loads(hdfs.request("GET", path, "op=GET_BLOCK_LOCATIONS"))
        return not any(block["locations"] for block in answer["LocatedBlocks"]["locatedBlocks"])

    assert not has_no_place()
    hdfs.kill_datanode()
    wait_until(has_no_place, 60.0, "the NameNode to give the DataNode up")
    with lake.open("whole") as file, ThreadPoolExecutor(1) as pool:
        found = pool.submit(file.read_at, 0, 5)
        hdfs.start_datanode()
        assert found.result(120) == b"whole"
        assert file.read_at(1, 3) == b"hol"
