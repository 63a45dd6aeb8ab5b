"""Why HttpFS is no destination, shown by a real one: what it answers to renames, and what becomes of a run."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.support.filesystem_kit import get, put
from tests.support.httpfs import HttpFs, httpfs_jars
from tests.support.raw_topics import RawTopic, run_inline

from millstream.hadoop_loader.driver import Outcome
from millstream.hadoop_loader.filesystem import (
    FileSystem,
    FileSystemError,
    FileSystemSettings,
    UnknownOutcomeError,
    open_filesystem,
)
from millstream.hadoop_loader.filesystem.webhdfs import WebHdfsFileSystem
from millstream.testing import TestBroker
from millstream.testing.hdfs import HdfsUnavailableError, MiniHdfs

pytestmark = [pytest.mark.hdfs, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def gateway(hdfs_of_session: MiniHdfs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpFs]:
    """HttpFS in front of the session's HDFS. Missing jars skip the test on a developer's machine only."""
    try:
        jars = httpfs_jars()
    except HdfsUnavailableError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    hdfs_of_session.restore()
    with HttpFs(tmp_path_factory.mktemp("httpfs"), hdfs_of_session, jars) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A directory of this test's own."""
    return "-".join(tmp_path.parts[-2:])


@pytest.fixture
def behind(hdfs: MiniHdfs, folder: str) -> Iterator[FileSystem]:
    """That directory as the HDFS has it, which the gateway stands before."""
    with open_filesystem(hdfs.uri, FileSystemSettings()) as root:
        root.make_directory(folder)
    with open_filesystem(f"{hdfs.uri}/{folder}", FileSystemSettings()) as filesystem:
        yield filesystem


@pytest.fixture
def lake(gateway: HttpFs, behind: FileSystem, folder: str) -> Iterator[WebHdfsFileSystem]:
    """The directory as an address would name it that is the gateway's."""
    assert behind.list("") == []
    with open_filesystem(f"webhdfs://{gateway.address}/{folder}", FileSystemSettings(deadline_s=30)) as filesystem:
        assert isinstance(filesystem, WebHdfsFileSystem)
        yield filesystem


def test_its_renames_say_yes_or_no_and_move_into_directories(gateway: HttpFs, behind: FileSystem, folder: str) -> None:
    def rename(source: str, target: str) -> tuple[int, Any]:
        answer = requests.put(
            f"http://{gateway.address}/webhdfs/v1/{folder}/{source}",
            params={
                "op": "RENAME",
                "destination": f"/{folder}/{target}",
                "renameoptions": "NONE",
                "user.name": getpass.getuser(),
            },
            timeout=30,
        )
        return answer.status_code, answer.json()

    put(behind, "one", b"1")
    put(behind, "other", b"2")
    behind.make_directory("taken")
    no = 200, {"boolean": False}
    assert [rename("one", "other"), rename("none", "new"), rename("one", "no-such/new")] == [no, no, no]
    assert get(behind, "other") == b"2"
    assert rename("one", "taken") == (200, {"boolean": True})
    assert get(behind, "taken/one") == b"1"


def test_its_creates_make_parents_unasked(gateway: HttpFs, behind: FileSystem, folder: str) -> None:
    answer = requests.put(
        f"http://{gateway.address}/webhdfs/v1/{folder}/no-such/file",
        params={"op": "CREATE", "data": "true", "createparent": "false", "user.name": getpass.getuser()},
        headers={"Content-Type": "application/octet-stream"},
        data=b"1",
        timeout=30,
    )
    assert answer.status_code == 201
    assert get(behind, "no-such/file") == b"1"


def test_it_is_refused_before_anything_is_written(lake: FileSystem, behind: FileSystem) -> None:
    acts: list[Callable[[], object]] = [lambda: lake.create("entry"), lambda: lake.rename("staged", "entry")]
    for act in acts:
        with pytest.raises(FileSystemError, match=r"HttpFS.*RENAME of nothing is no error; .*webhdfs://NAMENODE:9870"):
            act()
    assert behind.list("") == []


def test_its_creates_alone_tell_it_from_a_namenode(
    lake: WebHdfsFileSystem, behind: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a gateway that answers to renames what a NameNode does."""
    finds_nothing = lake._finds_nothing
    monkeypatch.setattr(
        lake, "_finds_nothing", lambda function, said: said.startswith("RENAME") or finds_nothing(function, said)
    )
    with pytest.raises(FileSystemError, match="CREATE makes the parent"):
        lake.create("entry")
    assert behind.list("") == []


def test_its_answer_to_a_rename_is_none(gateway: HttpFs, lake: WebHdfsFileSystem, behind: FileSystem) -> None:
    """As of a gateway that took the place of a NameNode in the middle of a run."""
    lake._proven.add(gateway.address)
    put(behind, "staged", b"1")
    put(behind, "entry", b"2")
    behind.make_directory("taken")
    with pytest.raises(FileSystemError, match="RENAME is answered") as raised:
        lake.rename("staged", "entry")
    assert type(raised.value) is FileSystemError
    with pytest.raises(UnknownOutcomeError, match="RENAME is answered"):
        lake.rename("staged", "taken")


def test_a_run_into_it_fails_and_writes_no_file(
    gateway: HttpFs, behind: FileSystem, folder: str, millstream_broker_session: TestBroker
) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, f"webhdfs://{gateway.address}/{folder}")
    topic.send(10)

    report = run_inline(topic.job())

    assert report.outcome is Outcome.FAILED
    assert any("no NameNode answers here" in error and topic.uri in error for error in report.errors), report.errors
    files = [one for one in _walk(behind, "") if not one.endswith("/")]
    assert files == []


def _walk(filesystem: FileSystem, path: str) -> Iterator[str]:
    for status in filesystem.list(path):
        yield status.path + "/" * status.is_directory
        if status.is_directory:
            yield from _walk(filesystem, status.path)
