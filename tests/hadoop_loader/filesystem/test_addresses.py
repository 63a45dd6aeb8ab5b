"""Addresses, settings and Hadoop conf directories: what is opened, and what a mistake is answered with."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from millstream.hadoop_loader.filesystem import (
    FileSystem,
    FileSystemError,
    FileSystemSettings,
    KerberosSettings,
    NameService,
    UnavailableError,
    open_filesystem,
)
from millstream.hadoop_loader.filesystem.hadoop_conf import namenodes, read_properties
from millstream.testing.kafka import free_ports

SITE = """<?xml version="1.0"?>
<configuration>
  <property><name>dfs.ha.namenodes.lake</name><value>nn1, nn2</value></property>
  <property><name>dfs.namenode.rpc-address.lake.nn1</name><value> one:8020 </value></property>
  <property><name>dfs.namenode.rpc-address.lake.nn2</name><value>two:8020</value><final>true</final></property>
  <property><name>dfs.namenode.http-address.lake.nn1</name><value>one:9870</value></property>
  <property><name>dfs.namenode.http-address.lake.nn2</name><value>two:9870</value></property>
  <property><name>empty</name></property>
</configuration>
"""


@pytest.fixture(autouse=True)
def _no_hadoop_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_CONF_DIR", "HADOOP_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("file:///data/lake", "file:///data/lake"),
        ("file:///data/lake/", "file:///data/lake"),
        ("file:///with%20blank", "file:///with%20blank"),
        ("file:/data/lake", "file:///data/lake"),
        ("/data/lake", "file:///data/lake"),
        ("hdfs://host:8020/lake/", "hdfs://host:8020/lake"),
        ("hdfs://host:8020", "hdfs://host:8020"),
        ("webhdfs://host:9870/lake", "webhdfs://host:9870/lake"),
        ("swebhdfs://host:9871/lake", "swebhdfs://host:9871/lake"),
    ],
)
def test_an_address_is_opened_without_being_connected_to(given: str, uri: str) -> None:
    with open_filesystem(given) as filesystem:
        assert filesystem.uri == uri
        assert isinstance(filesystem, FileSystem)


def test_a_path_alone_is_local_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_filesystem("lake") as filesystem:
        filesystem.make_directory("")
    assert (tmp_path / "lake").is_dir()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("s3://bucket/lake", "no such kind of destination; use file://, hdfs://"),
        ("file://host/lake", "three slashes"),
        ("hdfs:///lake", "names no host; write hdfs://HOST:PORT/PATH"),
        ("hdfs://host:8020/lake?a=b", r"no '\?' or '#'"),
        ("hdfs://host:8020/a/../b", "an empty part, '.' or '..'"),
        ("webhdfs://ann:secret@host:9870/", "a user has a setting of its own"),
        ("hdfs://lake/x", "neither a port nor a name service that the job or its Hadoop conf directory describes"),
        ("webhdfs://lake/x", "neither a port nor a name service that the job or its Hadoop conf directory describes"),
    ],
)
def test_an_address_of_nothing_is_refused_with_what_to_write(given: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as raised:
        open_filesystem(given)
    assert "secret" not in str(raised.value)


def test_name_services_come_from_a_conf_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hdfs-site.xml").write_text(SITE)
    settings = FileSystemSettings(hadoop_conf_directory=str(tmp_path))
    for scheme in ("hdfs", "webhdfs"):
        open_filesystem(f"{scheme}://lake/x", settings).close()
    properties = read_properties(settings)
    assert namenodes(properties, "lake", "rpc") == ["one:8020", "two:8020"]
    assert namenodes(properties, "lake", "http") == ["one:9870", "two:9870"]
    assert namenodes(properties, "lake", "https") == []
    assert namenodes(properties, "other", "rpc") == []
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    open_filesystem("hdfs://lake/x").close()


def test_settings_stand_over_the_conf_directory(tmp_path: Path) -> None:
    (tmp_path / "hdfs-site.xml").write_text(SITE)
    settings = FileSystemSettings(
        hadoop_conf_directory=str(tmp_path),
        nameservices=(
            NameService(name="lake", rpc_addresses=("three:8020",), http_addresses=("three:9870", "four:9870")),
        ),
        properties=(("dfs.client.use.datanode.hostname", "true"),),
        kerberos=KerberosSettings(principal="etl@EXAMPLE.ORG", keytab="etl.keytab"),
    )
    properties = read_properties(settings)
    assert namenodes(properties, "lake", "rpc") == ["three:8020"]
    assert namenodes(properties, "lake", "http") == ["three:9870", "four:9870"]
    assert properties["dfs.client.use.datanode.hostname"] == "true"
    assert properties["hadoop.security.authentication"] == "kerberos"


def test_a_conf_directory_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither core-site.xml nor hdfs-site.xml"):
        open_filesystem("hdfs://lake/x", FileSystemSettings(hadoop_conf_directory=str(tmp_path)))
    (tmp_path / "core-site.xml").write_text("<configuration>")
    with pytest.raises(ValueError, match=r"core-site.xml is no XML file"):
        open_filesystem("hdfs://lake/x", FileSystemSettings(hadoop_conf_directory=str(tmp_path)))


def test_settings_travel_to_workers() -> None:
    settings = FileSystemSettings(
        deadline_s=5,
        nameservices=(NameService(name="lake", rpc_addresses=("one:8020",)),),
        kerberos=KerberosSettings(principal="etl@EXAMPLE.ORG", cache="FILE:/run/cache"),
    )
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(pickle.loads(pickle.dumps(settings)))


def test_where_nobody_listens_the_message_says_so() -> None:
    (port,) = free_ports(1)
    service = NameService(name="lake", rpc_addresses=(f"127.0.0.1:{port}",))
    settings = FileSystemSettings(deadline_s=0.5, nameservices=(service,))
    for uri in (f"hdfs://127.0.0.1:{port}/x", "hdfs://lake/x"):
        with open_filesystem(uri, settings) as lake, pytest.raises(UnavailableError) as raised:
            lake.status("file")
        assert f"no answer within 0.5 s (127.0.0.1:{port}: Connection refused); see that" in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "package"), [("hdfs://namenode:8020/lake", "hdfs_native"), ("webhdfs://namenode:9870/lake", "hdfs")]
)
def test_a_missing_client_is_told_with_the_extra_that_has_it(
    uri: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("native", "webhdfs", "webhdfs_servers"):
        monkeypatch.delitem(sys.modules, f"millstream.hadoop_loader.filesystem.{module}", raising=False)
    # What importlib makes of None in there is the error of a package that is not installed.
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FileSystemError, match=rf"{package}.* is not there; pip install 'millstream\[hdfs\]'"):
        open_filesystem(uri)
