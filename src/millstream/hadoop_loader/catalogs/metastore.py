"""Tables and partitions in a Hive metastore, over Thrift.

Each call is a reconciliation: the table is made or brought to its schema, partitions that lack are added, and those
of directories that expired are dropped. So a run that could not reach the metastore is made up for by the next one, and
two at once do no harm.

A name is ours where the loader's property and the table's own location say so. What others made, or what lies elsewhere
(another root, another table whose name comes to the same in Hive), is never altered: it is refused with what to do.

The Thrift client is the one that pyiceberg brings (extra `iceberg`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from millstream.core.security.sasl.mechanism import AuthenticationError
from millstream.hadoop_loader.catalogs import hive
from millstream.hadoop_loader.catalogs.thrift_sasl import authenticated, exchange_with
from millstream.hadoop_loader.job.destination import metastore_addresses

if TYPE_CHECKING:
    from thrift.transport.TTransport import TTransportBase

    from millstream.hadoop_loader.catalogs.known_tables import KnownTable
    from millstream.hadoop_loader.job import HiveSettings, KerberosSettings

DEADLINE_S: Final = 60.0
PARTITIONS_PER_CALL: Final = 500
# What an address has at least: one before it that stands for several machines waits for each of them.
_CONNECT_MIN_S: Final = 1.0

_FORMATS: Final = {
    "parquet": (
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
        "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
    ),
    "avro": (
        "org.apache.hadoop.hive.ql.io.avro.AvroContainerInputFormat",
        "org.apache.hadoop.hive.ql.io.avro.AvroContainerOutputFormat",
        "org.apache.hadoop.hive.serde2.avro.AvroSerDe",
    ),
}


class MetastoreError(Exception):
    """The metastore could not be reached, or refused; the message says what it was asked."""


class TableRefusedError(MetastoreError):
    """One table cannot be what it should be; the others may."""


class Metastore:
    """A connection to one metastore; one thread at a time."""

    def __init__(self, client: Any, settings: HiveSettings, root_uri: str) -> None:
        """Use `connected` to have one."""
        self._client = client
        self._settings = settings
        self._root_uri = root_uri

    def bring_up_to_date(
        self,
        table: KnownTable,
        directories: Collection[str],
        expired: Collection[str] = (),
        is_empty: Callable[[str], bool] = lambda _directory: True,
    ) -> int:
        """Have a table and the partitions of `directories` (below it), and none of those `expired` that are empty.

        Returns how many partitions were added. Raises TableRefusedError, also for what the metastore says of it.
        """
        from thrift.protocol.TProtocol import TProtocolException
        from thrift.Thrift import TException
        from thrift.transport.TTransport import TTransportException

        try:
            return self._bring_up_to_date(table, directories, expired, is_empty)
        except (TTransportException, TProtocolException):
            raise
        except TException as error:
            raise TableRefusedError(
                f"table {'.'.join(hive.full_name(table, self._settings))}: {_said(error)}"
            ) from error

    def _bring_up_to_date(
        self, table: KnownTable, directories: Collection[str], expired: Collection[str], is_empty: Callable[[str], bool]
    ) -> int:
        from hive_metastore.ttypes import AlreadyExistsException, NoSuchObjectException

        database, name = hive.full_name(table, self._settings)
        self._have_database(database)
        try:
            held = self._client.get_table(database, name)
        except NoSuchObjectException:
            try:
                self._client.create_table(self._table(table))
            except AlreadyExistsException:
                held = self._client.get_table(database, name)
            else:
                held = None
        columns = hive.data_columns(table)
        if held is not None:
            self._check_ours(table, held)
            columns = self._evolve(table, held)
        if not table.partition_keys:
            return 0
        names = set(self._client.get_partition_names(database, name, -1))
        self._drop_partitions(table, expired, names, is_empty)
        return self._add_partitions(table, directories, names, columns)

    def _check_ours(self, table: KnownTable, held: Any) -> None:
        """Raises TableRefusedError for a table that others made, or that shows something else."""
        name = ".".join(hive.full_name(table, self._settings))
        remedy = "set hive.table_prefix or hive.database, so that it is left alone"
        location = hive.location_of(self._root_uri, self._settings, table.path)
        at = None if held.sd is None else held.sd.location
        if at is None or _comparable(at) != _comparable(location):
            raise TableRefusedError(
                f"table {name} is at {at or 'no place of its own'}, not at {location}, and stays as it is: {remedy};"
                f" if the table root was moved, ALTER TABLE {name} SET LOCATION"
            )
        if hive.VERSION_PROPERTY not in (held.parameters or {}):
            raise TableRefusedError(
                f"table {name} was made by others, and stays as it is: {remedy}; to hand it over,"
                f" ALTER TABLE {name} SET TBLPROPERTIES ('{hive.VERSION_PROPERTY}'='0')"
            )

    def _have_database(self, database: str) -> None:
        from hive_metastore.ttypes import AlreadyExistsException, Database, NoSuchObjectException

        try:
            self._client.get_database(database)
        except NoSuchObjectException:
            try:
                self._client.create_database(Database(name=database, description="", parameters={}))
            except AlreadyExistsException:
                return

    def _table(self, table: KnownTable) -> Any:
        from hive_metastore.ttypes import FieldSchema, Table

        database, name = hive.full_name(table, self._settings)
        return Table(
            dbName=database,
            tableName=name,
            owner="millstream",
            tableType="EXTERNAL_TABLE",
            sd=self._storage(table, table.path, hive.data_columns(table)),
            partitionKeys=[FieldSchema(key.name, key.type, "") for key in hive.partition_columns(table)],
            parameters=hive.properties(table),
        )

    def _storage(self, table: KnownTable, path: str, columns: Iterable[hive.HiveColumn]) -> Any:
        from hive_metastore.ttypes import SerDeInfo, StorageDescriptor

        input_format, output_format, serde = _FORMATS[table.format]
        return StorageDescriptor(
            cols=_field_schemas(columns),
            location=hive.location_of(self._root_uri, self._settings, path),
            inputFormat=input_format,
            outputFormat=output_format,
            compressed=False,
            numBuckets=-1,
            serdeInfo=SerDeInfo(name="", serializationLib=serde, parameters={"serialization.format": "1"}),
            bucketCols=[],
            sortCols=[],
            parameters={},
        )

    def _evolve(self, table: KnownTable, held: Any) -> list[hive.HiveColumn]:
        """Give a table that is there its columns and properties, and its partitions the columns; return these."""
        from hive_metastore.ttypes import InvalidOperationException

        wanted = hive.properties(table)
        columns = _in_held_order(hive.data_columns(table), held.sd.cols)
        as_held = [hive.HiveColumn(one.name, one.type) for one in held.sd.cols]
        if columns == as_held and all(held.parameters.get(key) == value for key, value in wanted.items()):
            return columns
        held.parameters = {**held.parameters, **wanted}
        try:
            self._alter(held, columns)
        except InvalidOperationException:
            # As metastores are set up, no type takes the place of one that is read otherwise, and a struct that grew is
            # such a type. Readers of files go by names, so the places behind those that stay are given up first.
            self._alter(held, [new for new, _ in takewhile(_is_as_it_was, zip(columns, as_held, strict=False))])
            self._alter(held, columns)
        return columns

    def _alter(self, held: Any, columns: Collection[hive.HiveColumn]) -> None:
        from hive_metastore.ttypes import EnvironmentContext

        held.sd.cols = _field_schemas(columns)
        cascade = EnvironmentContext(properties={"CASCADE": "true"})
        self._client.alter_table_with_environment_context(held.dbName, held.tableName, held, cascade)

    def _drop_partitions(
        self, table: KnownTable, expired: Collection[str], held: Collection[str], is_empty: Callable[[str], bool]
    ) -> None:
        """Forget partitions whose directories hold nothing any more; their files are not touched."""
        from hive_metastore.ttypes import NoSuchObjectException

        database, name = hive.full_name(table, self._settings)
        for directory in sorted(expired):
            if _lowered(directory) not in held or not is_empty(directory):
                continue
            try:
                self._client.drop_partition(database, name, _values(directory), deleteData=False)
            except NoSuchObjectException:
                continue

    def _add_partitions(
        self, table: KnownTable, directories: Collection[str], held: Collection[str], columns: list[hive.HiveColumn]
    ) -> int:
        """Add directories that are not there yet, with the table's columns in their places: readers may go by these."""
        from hive_metastore.ttypes import Partition

        database, name = hive.full_name(table, self._settings)
        assert table.partition_keys is not None, table.name
        added = []
        for directory in sorted(directories):
            values = _values(directory)
            if len(values) != len(table.partition_keys) or _lowered(directory) in held:
                continue
            storage = self._storage(table, f"{table.path}/{directory}", columns)
            added.append(Partition(values=values, dbName=database, tableName=name, sd=storage, parameters={}))
        for start in range(0, len(added), PARTITIONS_PER_CALL):
            # Those that another has added meanwhile are no mistake.
            self._add(added[start : start + PARTITIONS_PER_CALL])
        return len(added)

    def _add(self, partitions: list[Any]) -> None:
        from hive_metastore.ttypes import AlreadyExistsException

        try:
            self._client.add_partitions(partitions)
        except AlreadyExistsException:
            for partition in partitions:
                try:
                    self._client.add_partition(partition)
                except AlreadyExistsException:
                    continue


def _in_held_order(columns: list[hive.HiveColumn], held: Iterable[Any]) -> list[hive.HiveColumn]:
    """Return columns as a table has them that is there, and behind those what it lacks: where fields are added before
    others, or writers order them anew, columns keep their places.
    """
    places = {one.name: place for place, one in enumerate(held)}
    return sorted(columns, key=lambda column: places.get(column.name, len(places)))


def _field_schemas(columns: Iterable[hive.HiveColumn]) -> list[Any]:
    from hive_metastore.ttypes import FieldSchema

    return [FieldSchema(column.name, column.type, "") for column in columns]


def _is_as_it_was(pair: tuple[hive.HiveColumn, hive.HiveColumn]) -> bool:
    column, held = pair
    return column == held


def _values(directory: str) -> list[str]:
    """Return the values of a directory's partition."""
    return [unquote(part.partition("=")[2]) for part in directory.split("/")]


def _comparable(location: str) -> tuple[str, str, str]:
    """Return a location without what says nothing: `file:/x` is `file:///x`, HDFS's own port need not stand there."""
    address = urlsplit(location)
    scheme = address.scheme.lower() or "file"
    where = address.netloc.lower()
    if scheme == "hdfs":
        where = where.removesuffix(":8020")
    return scheme, where, address.path.rstrip("/")


def _said(error: Exception) -> str:
    """Return what an error of Thrift says."""
    return getattr(error, "message", None) or str(error) or type(error).__name__


def _lowered(directory: str) -> str:
    """Return a directory as the metastore names its partition: keys in lower case."""
    pairs = (part.partition("=") for part in directory.split("/"))
    return "/".join(f"{name.lower()}={value}" for name, _, value in pairs)


@contextmanager
def connected(
    settings: HiveSettings, root_uri: str, kerberos: KerberosSettings | None = None, *, deadline_s: float = DEADLINE_S
) -> Iterator[Metastore]:
    """Connect to the first metastore of a job that answers. Raises MetastoreError, also for what is done with it.

    `kerberos` says who asks a metastore that wants to know.
    """
    try:
        from hive_metastore.ThriftHiveMetastore import Client
        from thrift.protocol import TBinaryProtocol
        from thrift.Thrift import TException
    except ImportError as error:
        raise MetastoreError("a metastore needs the extra `iceberg`: pip install 'millstream[iceberg]'") from error
    assert settings.metastore_uri is not None, settings
    address, transport = _first_that_answers(settings, kerberos, deadline_s)
    try:
        yield Metastore(Client(TBinaryProtocol.TBinaryProtocol(transport)), settings, root_uri)
    except (TException, OSError, EOFError) as error:
        raise MetastoreError(f"{address}: {_said(error)}") from error
    finally:
        transport.close()


def _first_that_answers(
    settings: HiveSettings, kerberos: KerberosSettings | None, deadline_s: float
) -> tuple[str, TTransportBase]:
    """Try the addresses in turn; return that of the first that takes us in, with an open connection to it.

    All of them have one deadline together, of which each gets an equal part of what those before it have left.
    """
    from thrift.Thrift import TException
    from thrift.transport import TSocket, TTransport

    # All that it logs of connections it raises as well; one that fails is nothing to tell of if the next one answers.
    logging.getLogger(TSocket.__name__).setLevel(logging.CRITICAL)
    problems: list[str] = []
    addresses = metastore_addresses(settings.metastore_uri or "")
    ends = time.monotonic() + deadline_s
    for host, port in addresses:
        address = f"thrift://{host}:{port}"
        socket = TSocket.TSocket(host, port)
        part_s = (ends - time.monotonic()) / (len(addresses) - len(problems))
        socket.setTimeout(max(_CONNECT_MIN_S, part_s) * 1000)
        try:
            socket.open()
            transport: TTransportBase
            if settings.kerberos_service is None:
                transport = TTransport.TBufferedTransport(socket)
            else:
                transport = authenticated(socket, exchange_with(settings.kerberos_service, host, kerberos))
        except (TException, OSError, EOFError, AuthenticationError) as error:
            socket.close()
            problems.append(f"{address}: {_said(error)}")
        else:
            socket.setTimeout(deadline_s * 1000)
            return address, transport
    raise MetastoreError("; ".join(problems))
