"""[destination], [hive], [iceberg]: where files go, in which formats, and who is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from millstream.hadoop_loader.filesystem.settings import FileSystemSettings, NameService
from millstream.hadoop_loader.filesystem.settings import KerberosSettings as FileSystemKerberos
from millstream.hadoop_loader.job.secret import Secret
from millstream.hadoop_loader.job.setting import DEADLINE_S_MAX, setting

_METASTORE_PORT: Final = 9083


def metastore_addresses(uris: str) -> tuple[tuple[str, int], ...]:
    """Host and port of each metastore in `thrift://HOST:PORT,...`. ValueError says which of them is none."""
    addresses = []
    for uri in map(str.strip, uris.split(",")):
        parts = urlsplit(uri)
        try:
            port = parts.port or _METASTORE_PORT
        except ValueError:
            port = 0
        if parts.scheme != "thrift" or not parts.hostname or not port or parts.path.strip("/"):
            raise ValueError(f'"{uri}" is no address of a metastore')
        addresses.append((parts.hostname, port))
    return tuple(addresses)


def _parse_permission(given: Any) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    try:
        return int(str(given), 8)
    except ValueError:
        raise ValueError('write the octal digits as text, as in "640", or as 0o640') from None


def _parse_nameservices(given: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping) or not all(
        isinstance(hosts, list) and hosts and all(isinstance(host, str) for host in hosts) for hosts in given.values()
    ):
        raise ValueError('write the NameNodes of each, as in nameservices.cluster1 = ["nn1:8020", "nn2:8020"]')
    return {str(name): tuple(hosts) for name, hosts in given.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class KerberosSettings:
    """Who the loader is to a secured HDFS; tickets from a keytab are renewed while a run goes on."""

    principal: str = setting("The principal.", example='"loader@EXAMPLE.ORG"')
    keytab: str | None = setting("Its keytab; tickets are got from it.", default=None)
    cache: str | None = setting(
        "A ticket cache that something else keeps fresh; with a keytab, where its tickets are put.", default=None
    )
    renewal_s: float = setting("How often a fresh ticket is got from the keytab.", default=3600.0, at_least=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSettings:
    """The table root, and the file system it is on."""

    uri: str = setting(
        "The table root: `file:///DIR` (or `/DIR`), `hdfs://NAMENODE:8020/DIR`, `hdfs://NAMESERVICE/DIR` or"
        " `webhdfs://NAMENODE:9870/DIR` (`swebhdfs` with TLS). One commit log there serves all topics of the job.",
        example='"hdfs://cluster1/warehouse/raw"',
    )
    formats: frozenset[str] = setting(
        "`avro`, `parquet` or both, from one read.",
        default=frozenset({"parquet"}),
        choices=("avro", "parquet"),
        example='["avro", "parquet"]',
    )
    table_names: Mapping[str, str] = setting(
        "Names of tables that are not called as their topic: a regular expression (RE2) over whole names of topics, and"
        " the table's name, in which `\\1` is what the first group matched; the first that matches counts. A table"
        " keeps the name that it began with.",
        default_factory=dict,
        kind="table",
        example="{ 'prod[.](.+)' = '\\1', audit-log = \"audit\" }",
    )
    deadline_s: float = setting(
        "How long the file system may take for one call; a call that takes longer may still take effect, and the commit"
        " protocol finds out whether it did.",
        default=60.0,
        at_least=1,
        at_most=DEADLINE_S_MAX,
    )
    replication: int | None = setting(
        "Copies of each block; the cluster's default otherwise.", default=None, at_least=1, at_most=512
    )
    block_size_bytes: int | None = setting(
        "Block size of the files; the cluster's default otherwise.", default=None, at_least=2**20
    )
    permission: int | None = setting(
        "Permission of new files, in octal digits; the cluster's umask decides otherwise.",
        default=None,
        parse=_parse_permission,
        kind="octal text",
        at_least=0,
        at_most=0o7777,
        example='"640"',
    )
    directory_permission: int | None = setting(
        "Permission of new directories.",
        default=None,
        parse=_parse_permission,
        kind="octal text",
        at_least=0,
        at_most=0o7777,
        example='"750"',
    )
    owner: str | None = setting("Owner of files and directories (a superuser's right on HDFS).", default=None)
    group: str | None = setting("Group of files and directories.", default=None)
    user: str | None = setting("Who to be on an HDFS without Kerberos; the process's user otherwise.", default=None)
    hadoop_conf_directory: str | None = setting(
        "Directory with `core-site.xml` and `hdfs-site.xml`; nameservices (HA) and client settings are read there.",
        default=None,
    )
    nameservices: Mapping[str, tuple[str, ...]] = setting(
        "HA nameservices without a Hadoop conf directory: the NameNodes of each, with their RPC ports.",
        default_factory=dict,
        parse=_parse_nameservices,
        kind="table",
        example='{ cluster1 = ["nn1:8020", "nn2:8020"] }',
    )
    nameservices_http: Mapping[str, tuple[str, ...]] = setting(
        "The same for `webhdfs://` and `swebhdfs://`: the NameNodes with their HTTP ports.",
        default_factory=dict,
        parse=_parse_nameservices,
        kind="table",
        example='{ cluster1 = ["nn1:9870", "nn2:9870"] }',
    )
    properties: Mapping[str, str] = setting(
        "Further Hadoop client properties of `hdfs://`, by their own names, over those of the conf directory.",
        default_factory=dict,
        kind="table",
        example='{ dfs.client.use.datanode.hostname = "true" }',
    )
    ca_location: str | None = setting("Of `swebhdfs://`: PEM file of the authorities to trust.", default=None)
    kerberos: KerberosSettings | None = setting("Who to be on a secured HDFS.", default=None)
    success_files: bool = setting(
        "Whether an empty `_SUCCESS` marks each closed directory, for Oozie, Airflow and Hive.", default=True
    )
    snapshot_retention_s: float = setting(
        "How long what was replaced or has expired is kept in the trash, for readers that hold a snapshot.",
        default=24 * 3600.0,
        at_least=0,
    )
    retention_s: float | None = setting(
        "Closed directories of time that ended longer ago are emptied after a run, late records of that time and dead"
        " letters as old with them; all is kept otherwise. Counted from now, or from the topic's newest record where"
        " that is earlier.",
        default=None,
        at_least=3600,
        example='"90 d"',
    )

    @property
    def filesystem(self) -> FileSystemSettings:
        """What `open_filesystem` takes beside the URI."""
        names = [*self.nameservices, *(name for name in self.nameservices_http if name not in self.nameservices)]
        return FileSystemSettings(
            deadline_s=self.deadline_s,
            replication=self.replication,
            block_size_bytes=self.block_size_bytes,
            permission=self.permission,
            directory_permission=self.directory_permission,
            owner=self.owner,
            group=self.group,
            hadoop_conf_directory=self.hadoop_conf_directory,
            nameservices=tuple(
                NameService(
                    name=name,
                    rpc_addresses=self.nameservices.get(name, ()),
                    http_addresses=self.nameservices_http.get(name, ()),
                )
                for name in names
            ),
            properties=tuple(self.properties.items()),
            user=self.user,
            kerberos=None
            if self.kerberos is None
            else FileSystemKerberos(
                principal=self.kerberos.principal,
                keytab=self.kerberos.keytab,
                cache=self.kerberos.cache,
                renewal_s=self.kerberos.renewal_s,
            ),
            ca_file=self.ca_location,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HiveSettings:
    """Tables for Hive, Spark SQL and Trino: DDL beside each table, and partitions registered in a metastore."""

    database: str = setting("Database of the tables.", default="default")
    table_prefix: str = setting("Put before each table's name.", default="")
    format: str = setting(
        "Which format the tables are over, where the job writes both.", default="parquet", choices=("avro", "parquet")
    )
    metastore_uri: str | None = setting(
        "The metastore's Thrift address, or those of several with commas between them, of which the first that answers"
        " is asked; tables are created and partitions added after each commit.",
        default=None,
        example='"thrift://metastore:9083"',
    )
    kerberos_service: str | None = setting(
        "Service name of a metastore that asks for Kerberos, most often `hive` (extra `kerberos`). Who asks is said by"
        " `destination.kerberos`, else by the ticket cache of the process.",
        default=None,
    )
    location_uri: str | None = setting(
        "How readers call the table root, where that differs from `destination.uri`.", default=None
    )
    fail: bool = setting(
        "Whether a run fails when the metastore does not take a partition; otherwise that is reported, and done by the"
        " next run.",
        default=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IcebergSettings:
    """Parquet files are also committed to Iceberg tables (extra `iceberg`)."""

    catalog: str = setting("Name of the catalog.", default="default")
    namespace: str = setting("Namespace of the tables.", default="default")
    table_prefix: str = setting("Put before each table's name.", default="")
    properties: Mapping[str, str | Secret] = setting(
        "pyiceberg's properties of the catalog, by their own names; secrets are references.",
        default_factory=dict,
        kind="table",
        example='{ type = "sql", uri = "sqlite:////var/lib/catalog.db" }',
    )
    deadline_s: float = setting(
        "How long the catalog may take for one call; what it was not told then, the next run tells it.",
        default=60.0,
        at_least=0.1,
        at_most=DEADLINE_S_MAX,
    )
