"""A secured HDFS in a Kerberos realm of its own: keytabs, caches, fresh tickets, and what a stranger is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.filesystem_kit import get, names, put
from tests.support.kerberos import REALM
from tests.support.secured_hdfs import Secured, secured_hdfs

from millstream.hadoop_loader.filesystem import (
    AccessDeniedError,
    open_filesystem,
)

pytestmark = [pytest.mark.hdfs, pytest.mark.kerberos]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, hadoop_folder: Path) -> Iterator[Secured]:
    with secured_hdfs(tmp_path_factory.mktemp("secured"), hadoop_folder) as made:
        yield made


@pytest.fixture(params=["hdfs", "webhdfs"])
def uri(request: pytest.FixtureRequest, secured: Secured) -> str:
    """By RPC and over HTTP."""
    return f"{secured.hdfs.uri if request.param == 'hdfs' else secured.hdfs.webhdfs_uri}/lake"


def test_a_keytab_opens_the_door(secured: Secured, uri: str) -> None:
    with open_filesystem(uri, secured.settings(keytab=str(secured.loader))) as lake:
        lake.make_directory("a/b")
        put(lake, "a/b/file", b"x" * (2 << 20))
        lake.rename("a/b/file", "a/file")
        assert len(get(lake, "a/file")) == 2 << 20
        assert lake.delete("a", recursive=True)


def test_a_ticket_cache_that_somebody_else_fills_does_too(secured: Secured, uri: str) -> None:
    cache = f"FILE:{secured.folder}/kept-by-another"
    subprocess.run(["kinit", "-c", cache, "-k", "-t", str(secured.loader), f"loader@{REALM}"], check=True, timeout=60)
    with open_filesystem(uri, secured.settings(cache=cache)) as lake:
        put(lake, "cached", b"x")
        assert lake.delete("cached")


def test_tickets_are_got_anew(secured: Secured, uri: str) -> None:
    log = secured.folder / "realm" / "kdc.log"

    def asked() -> int:
        return sum(line.count("AS_REQ") for line in log.read_text().splitlines() if "loader@" in line)

    with open_filesystem(uri, secured.settings(keytab=str(secured.loader), renewal_s=0.0)) as lake:
        before = asked()
        names(lake)
        names(lake)
        first = asked()
        assert first > before
        if uri.startswith("hdfs:"):
            assert first >= before + 2


def test_a_stranger_is_told_what_to_look_at(secured: Secured, uri: str) -> None:
    other = secured.realm.add(f"stranger-{uri[:3]}")
    with (
        open_filesystem(uri, secured.settings(keytab=str(other))) as lake,
        pytest.raises(AccessDeniedError, match="look at the principal with its keytab"),
    ):
        lake.status("")


WRITE_AND_READ: Final = """
import sys
from tests.support.filesystem_kit import get, put
from millstream.hadoop_loader.filesystem import FileSystemSettings, open_filesystem
with open_filesystem(sys.argv[1], FileSystemSettings(deadline_s=20, hadoop_conf_directory=sys.argv[2])) as lake:
    put(lake, "written", b"x" * 100_000)
    print(len(get(lake, "written")), lake.delete("written"))
"""
SECURE: Final = """<configuration><property>
<name>hadoop.security.authentication</name><value>kerberos</value>
</property></configuration>"""


@pytest.mark.parametrize("has", ["a ticket", "a delegation token", "neither"])
def test_a_job_that_names_no_principal_is_whom_its_surroundings_say(secured: Secured, tmp_path: Path, has: str) -> None:
    """As tasks on YARN have it: a variable names a file with a token, and there is neither keytab nor cache."""
    (tmp_path / "core-site.xml").write_text(SECURE)
    cache, token = secured.realm.environment["KRB5CCNAME"], tmp_path / "token"
    environment = dict(os.environ)
    if has != "neither":
        ticket = ["-k", "-t", str(secured.loader), f"loader@{REALM}"]
        subprocess.run(["kinit", "-c", cache, *ticket], check=True, timeout=60)
    if has == "a delegation token":
        secured.hdfs.run("org.apache.hadoop.hdfs.tools.DelegationTokenFetcher", str(token))
        subprocess.run(["kdestroy", "-c", cache], check=True, timeout=60)
        environment["HADOOP_TOKEN_FILE_LOCATION"] = str(token)
    try:
        done = subprocess.run(
            [sys.executable, "-c", WRITE_AND_READ, f"{secured.hdfs.uri}/lake", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
        )
    finally:
        if has == "a ticket":
            subprocess.run(["kdestroy", "-c", cache], check=True, timeout=60)

    assert done.stdout.split() == ([] if has == "neither" else ["100000", "True"]), done.stderr
    assert (done.returncode == 0) == (has != "neither"), done.stderr
