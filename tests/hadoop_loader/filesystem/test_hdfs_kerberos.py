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
from tests.support.kerberos import REALM, Realm

from millstream.hadoop_loader.filesystem import (
    AccessDeniedError,
    FileSystemError,
    FileSystemSettings,
    KerberosSettings,
    open_filesystem,
)
from millstream.testing.hdfs import MiniHdfs

pytestmark = [pytest.mark.hdfs, pytest.mark.kerberos]


class Secured:
    """The HDFS with its realm, and the superuser's keytab, whom the NameNode runs as."""

    def __init__(self, folder: Path, realm: Realm, jars: Path) -> None:
        self.folder = folder
        self.realm = realm
        service, web = realm.add("hdfs/localhost"), realm.add("HTTP/127.0.0.1")
        self.loader = realm.add("loader")
        secret = folder / "signature"
        secret.write_text("of this test only")
        principals = {
            "dfs.namenode.kerberos.principal": f"hdfs/localhost@{REALM}",
            "dfs.datanode.kerberos.principal": f"hdfs/localhost@{REALM}",
            "hadoop.http.authentication.kerberos.principal": f"HTTP/127.0.0.1@{REALM}",
            "dfs.namenode.kerberos.internal.spnego.principal": f"HTTP/127.0.0.1@{REALM}",
        }
        self.service = service
        self.hdfs = MiniHdfs(
            folder / "hdfs",
            properties={
                **principals,
                "hadoop.security.authentication": "kerberos",
                "hadoop.security.auth_to_local": "DEFAULT",
                "hadoop.http.authentication.signature.secret.file": str(secret),
                "dfs.namenode.keytab.file": str(service),
                "dfs.datanode.keytab.file": str(service),
                "hadoop.http.filter.initializers": "org.apache.hadoop.hdfs.web.AuthFilterInitializer",
                "hadoop.http.authentication.type": "kerberos",
                "hadoop.http.authentication.kerberos.keytab": str(web),
                "dfs.block.access.token.enable": "true",
                # A DataNode proves who it is by a port below 1024, or by TLS, unless it is being tested.
                "ignore.secure.ports.for.testing": "true",
            },
            more_jvm_options=(f"-Djava.security.krb5.conf={realm.config}",),
            environment=realm.environment,
            jars=jars,
            probe=self.probe,
        )

    def probe(self) -> None:
        """Write a file as the superuser, and make room for the loader."""
        who = KerberosSettings(principal=f"hdfs/localhost@{REALM}", keytab=str(self.service))
        settings = FileSystemSettings(deadline_s=10, kerberos=who)
        try:
            with open_filesystem(self.hdfs.uri, settings) as root:
                root.make_directory("lake")
                root.delete("lake/probe")
                put(root, "lake/probe")
                root.set_attributes("lake", owner="loader")
        except FileSystemError as error:
            raise OSError(str(error)) from error

    def settings(self, **kerberos: object) -> FileSystemSettings:
        """Those of the principal `loader`."""
        given = {"principal": f"loader@{REALM}", **kerberos}
        return FileSystemSettings(kerberos=KerberosSettings(**given))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, hadoop_folder: Path) -> Iterator[Secured]:
    """A secured HDFS; this process is in its realm too."""
    folder = tmp_path_factory.mktemp("secured")
    with pytest.MonkeyPatch.context() as patch, Realm(folder / "realm") as realm:
        for name, value in realm.environment.items():
            patch.setenv(name, value)
        made = Secured(folder, realm, hadoop_folder)
        with made.hdfs:
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
