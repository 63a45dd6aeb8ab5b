"""Two NameNodes: the active one is killed in the middle of the work, and nobody has to be told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.filesystem_kit import get, names, put

from millstream.hadoop_loader.filesystem import (
    FileSystemSettings,
    NameService,
    UnavailableError,
    UnknownOutcomeError,
    open_filesystem,
)
from millstream.testing.hdfs import NAMESERVICE, MiniHdfs

pytestmark = pytest.mark.hdfs


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, hadoop_folder: Path) -> Iterator[MiniHdfs]:
    """An HDFS with two NameNodes."""
    with MiniHdfs(tmp_path_factory.mktemp("hdfs-pair"), ha=True, jars=hadoop_folder) as hdfs:
        yield hdfs


def settings(pair: MiniHdfs, scheme: str, deadline_s: float = 120.0) -> FileSystemSettings:
    """By RPC the conf directory names the NameNodes, over HTTP the job does."""
    if scheme == "hdfs":
        return FileSystemSettings(deadline_s=deadline_s, hadoop_conf_directory=str(pair.conf_directory))
    service = NameService(name=NAMESERVICE, rpc_addresses=pair.rpc_addresses, http_addresses=pair.http_addresses)
    return FileSystemSettings(deadline_s=deadline_s, nameservices=(service,))


def test_calls_go_to_whoever_is_active(pair: MiniHdfs) -> None:
    lakes = [
        open_filesystem(f"{uri}/lake", settings(pair, scheme))
        for scheme, uri in (("hdfs", pair.uri), ("webhdfs", pair.webhdfs_uri))
    ]
    for number, lake in enumerate(lakes):
        lake.make_directory("")
        put(lake, f"before-{number}", b"before")
    writing = lakes[0].create("writing")
    writing.write(b"x" * (2 << 20))
    killed = pair.active
    pair.kill_namenode(killed)
    (other,) = {"nn1", "nn2"} - {killed}
    # While nobody is active, what begins waits; and whoever cannot wait learns no more than that.
    with open_filesystem(f"{pair.webhdfs_uri}/lake", settings(pair, "webhdfs", 1.0)) as hasty:
        with pytest.raises(UnavailableError):
            hasty.status("before-0")
        with pytest.raises((UnknownOutcomeError, UnavailableError)):
            hasty.make_child("never")
    with ThreadPoolExecutor(2) as pool:
        renames = [pool.submit(lake.rename, f"before-{number}", f"after-{number}") for number, lake in enumerate(lakes)]
        pair.make_active(other)
        for rename in renames:
            rename.result(120)
    writing.write(b"y" * (2 << 20))
    writing.close()
    assert len(get(lakes[1], "writing")) == 4 << 20
    # And back: the one that was killed comes up as standby.
    pair.start_namenode(killed)
    pair.fail_over()
    for number, lake in enumerate(lakes):
        put(lake, f"back-{number}", b"back")
        assert names(lake) == sorted(
            ["after-0", "after-1", "writing", *(f"back-{earlier}" for earlier in range(number + 1))]
        )
        lake.close()
