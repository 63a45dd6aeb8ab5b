"""A real HDFS in a Kerberos realm of its own, with a directory `lake` in which whoever is in the realm may write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.filesystem_kit import put
from tests.support.kerberos import REALM, Realm

from millstream.hadoop_loader.filesystem import (
    FileSystemError,
    FileSystemSettings,
    KerberosSettings,
    open_filesystem,
)
from millstream.testing.hdfs import MiniHdfs


@contextmanager
def secured_hdfs(folder: Path, jars: Path) -> Iterator[Secured]:
    """Run one; this process is in its realm too."""
    with pytest.MonkeyPatch.context() as patch, Realm(folder / "realm") as realm:
        for name, value in realm.environment.items():
            patch.setenv(name, value)
        made = Secured(folder, realm, jars)
        with made.hdfs:
            yield made


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
                root.set_attributes("lake", owner="loader", permission=0o777)
        except FileSystemError as error:
            raise OSError(str(error)) from error

    def settings(self, **kerberos: object) -> FileSystemSettings:
        """Those of the principal `loader`."""
        given = {"principal": f"loader@{REALM}", **kerberos}
        return FileSystemSettings(kerberos=KerberosSettings(**given))  # type: ignore[arg-type]
