"""Two NameNodes, with TLS: the active one is killed in the middle of the work, and nobody has to be told."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.certificates import make_certificates
from tests.support.filesystem_kit import get, names, put

from millstream.hadoop_loader.filesystem import (
    FileSystemSettings,
    NameService,
    UnavailableError,
    UnknownOutcomeError,
    open_filesystem,
)
from millstream.testing.hdfs import NAMESERVICE, MiniHdfs
from millstream.testing.kafka import free_ports

pytestmark = [pytest.mark.hdfs, pytest.mark.timeout(600)]


_TLS_SITE = """<?xml version="1.0"?>
<configuration>
  <property><name>ssl.server.keystore.type</name><value>pkcs12</value></property>
  <property><name>ssl.server.keystore.location</name><value>{keystore}</value></property>
  <property><name>ssl.server.keystore.password</name><value>of these tests</value></property>
  <property><name>ssl.server.keystore.keypassword</name><value>of these tests</value></property>
</configuration>
"""


class Pair(NamedTuple):
    """An HDFS with two NameNodes, which answer over HTTPS too."""

    hdfs: MiniHdfs
    https_addresses: tuple[str, ...]
    authority: Path


@pytest.fixture(scope="module")
def whole_pair(tmp_path_factory: pytest.TempPathFactory, hadoop_folder: Path) -> Iterator[Pair]:
    """Started once for this module."""
    folder = tmp_path_factory.mktemp("hdfs-pair")
    certificates = make_certificates(folder / "tls")
    keystore = folder / "server.p12"
    command = ["openssl", "pkcs12", "-export", "-in", str(certificates.server), "-out", str(keystore)]
    subprocess.run([*command, "-passout", "pass:of these tests"], check=True, capture_output=True, timeout=60)
    first, second, datanode = free_ports(3)
    addresses = (f"127.0.0.1:{first}", f"127.0.0.1:{second}")
    properties = {
        "dfs.http.policy": "HTTP_AND_HTTPS",
        "dfs.datanode.https.address": f"127.0.0.1:{datanode}",
        f"dfs.namenode.https-address.{NAMESERVICE}.nn1": addresses[0],
        f"dfs.namenode.https-address.{NAMESERVICE}.nn2": addresses[1],
    }
    hdfs = MiniHdfs(folder / "hdfs", ha=True, properties=properties, jars=hadoop_folder)
    for conf in ("conf", "conf-nn1", "conf-nn2"):
        (hdfs.folder / conf).mkdir(parents=True)
        (hdfs.folder / conf / "ssl-server.xml").write_text(_TLS_SITE.format(keystore=keystore))
    with hdfs:
        yield Pair(hdfs, addresses, certificates.authority)


@pytest.fixture
def pair(whole_pair: Pair) -> MiniHdfs:
    """The HDFS alone."""
    return whole_pair.hdfs


def settings(pair: MiniHdfs, scheme: str, deadline_s: float = 120.0) -> FileSystemSettings:
    """By RPC the conf directory names the NameNodes, over HTTP the job does."""
    if scheme == "hdfs":
        return FileSystemSettings(deadline_s=deadline_s, hadoop_conf_directory=str(pair.conf_directory))
    service = NameService(name=NAMESERVICE, rpc_addresses=pair.rpc_addresses, http_addresses=pair.http_addresses)
    return FileSystemSettings(deadline_s=deadline_s, nameservices=(service,))


def test_https_is_spoken_to_namenodes_and_datanodes_alike(whole_pair: Pair) -> None:
    conf, authority = str(whole_pair.hdfs.conf_directory), str(whole_pair.authority)
    with open_filesystem(
        f"swebhdfs://{NAMESERVICE}/secret", FileSystemSettings(hadoop_conf_directory=conf, ca_file=authority)
    ) as lake:
        lake.make_directory("")
        put(lake, "file", b"x" * (2 << 20))
        assert len(get(lake, "file")) == 2 << 20
    address = whole_pair.https_addresses[0]
    with (
        open_filesystem(f"swebhdfs://{address}/secret", FileSystemSettings(deadline_s=5)) as lake,
        pytest.raises(UnavailableError, match="check ca_file and the certificate"),
    ):
        lake.status("file")


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
