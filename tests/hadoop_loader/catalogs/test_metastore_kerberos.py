"""A real Hive metastore that asks for Kerberos, in a realm of its own: by keytab, by cache, and as a stranger."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.hive_metastore import HiveMetastore
from tests.support.kerberos import REALM, Realm

from millstream.hadoop_loader.catalogs.metastore import MetastoreError, connected
from millstream.hadoop_loader.job import HiveSettings, KerberosSettings

pytestmark = pytest.mark.kerberos

LOADER = f"loader@{REALM}"


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    folder = tmp_path_factory.mktemp("metastore-realm")
    with pytest.MonkeyPatch.context() as patch, Realm(folder) as made:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture(scope="module")
def uri(realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    properties = {
        "hadoop.security.authentication": "kerberos",
        "hive.metastore.sasl.enabled": "true",
        "hive.metastore.kerberos.keytab.file": str(realm.add("hive/localhost")),
        "hive.metastore.kerberos.principal": f"hive/localhost@{REALM}",
    }
    folder = tmp_path_factory.mktemp("metastore")
    options = [f"-Djava.security.krb5.conf={realm.config}"]
    with HiveMetastore(folder, properties=properties, jvm_options=options) as running:
        yield running.uri.replace("127.0.0.1", "localhost")


def databases(settings: HiveSettings, kerberos: KerberosSettings | None) -> list[str]:
    with connected(settings, "file:///lake", kerberos) as metastore:
        metastore._have_database("lake")
        return list(metastore._client.get_all_databases())


def test_who_asks_is_proven_by_keytab_and_by_cache(realm: Realm, uri: str, tmp_path: Path) -> None:
    keytab = str(realm.add("loader"))
    settings = HiveSettings(metastore_uri=uri, kerberos_service="hive")
    assert "lake" in databases(settings, KerberosSettings(principal=LOADER, keytab=keytab))

    cache = f"FILE:{tmp_path}/cache"
    subprocess.run(["kinit", "-c", cache, "-k", "-t", keytab, LOADER], check=True, timeout=60)
    assert "lake" in databases(settings, KerberosSettings(principal=LOADER, cache=cache))

    with pytest.raises(MetastoreError, match="No Kerberos credentials available"):
        databases(settings, None)
    subprocess.run(["kinit", "-k", "-t", keytab, LOADER], check=True, timeout=60)
    assert "lake" in databases(settings, None)


def test_a_service_that_is_not_the_metastore_s(uri: str, realm: Realm) -> None:
    keytab = str(realm.add("other"))
    settings = HiveSettings(metastore_uri=uri, kerberos_service="hdfs")
    with pytest.raises(MetastoreError, match="Kerberos does not vouch for hdfs/localhost"):
        databases(settings, KerberosSettings(principal=f"other@{REALM}", keytab=keytab))
