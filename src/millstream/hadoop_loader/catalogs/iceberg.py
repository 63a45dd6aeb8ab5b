"""Tables of Iceberg over the Parquet files of the commit log, through pyiceberg.

The log decides what is in a table; Iceberg is told. Each call is a reconciliation with one number of the log: the
table's schema is brought to the log's, files that the log has and the table lacks are added, files that a compaction
replaced are deleted, all in one transaction whose snapshot carries the number. A number that is there already, or an
earlier one, changes nothing: so a repeated call does no harm, and a call that was missed is made up for by the next.

As files that the log lacks are deleted, a table is touched only where it is ours: properties that it gets when it is
made say of which root, and of which table there, since `.` and `_` are one in the catalog's names.

Files have no field ids, so the table has a name mapping; it is not partitioned, its files carry the statistics that
readers skip by. Footers are read through the loader's file system: pyiceberg need not reach the data, only the catalog
and the place for its own metadata.

pyiceberg waits for a catalog as long as that likes. Here each call has `deadline_s`: a run holds its claim while it
tells catalogs, and one that hangs would keep every later run away. A call that was left may still take effect; the
number in its snapshot says so to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.hadoop_loader.filesystem.arrow import arrow_input
from millstream.hadoop_loader.filesystem.deadlines import Deadlines

if TYPE_CHECKING:
    from millstream.hadoop_loader.catalogs.known_tables import KnownTable
    from millstream.hadoop_loader.commit import TableFile
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import IcebergSettings
    from millstream.hadoop_loader.job.secret import Secret

NUMBER_PROPERTY: Final = "millstream.commit"
"""Of a snapshot: the number of the commit log that it shows."""
ROOT_PROPERTY: Final = "millstream.root"
"""Of a snapshot: the table root that the number is of. Of a table: the root that it shows."""
TABLE_PROPERTY: Final = "millstream.table"
"""Of a table: the name that it has in its root."""
NAME_MAPPING_PROPERTY: Final = "schema.name-mapping.default"
COMMIT_ATTEMPTS: Final = 5
# Calls at a time, those that were left included.
_CALLS_MAX: Final = 4

T = TypeVar("T")


class IcebergError(Exception):
    """The catalog could not be reached, or refused; the message says what it was asked."""


class CatalogAwayError(IcebergError):
    """The catalog, or where its metadata lies, did not answer in time: the other tables need not be tried."""


class IcebergTables:
    """The tables of one job in one catalog; one thread at a time."""

    def __init__(self, settings: IcebergSettings, filesystem: FileSystem) -> None:
        """Open the catalog. Raises IcebergError."""
        try:
            from pyiceberg.catalog import load_catalog
        except ImportError as error:
            raise IcebergError("Iceberg needs the extra `iceberg`: pip install 'millstream[iceberg]'") from error
        self._settings = settings
        self._filesystem = filesystem
        properties = {key: _text(value) for key, value in settings.properties.items()}
        self._deadlines = Deadlines(f"catalog {settings.catalog!r}", settings.deadline_s, _CALLS_MAX)
        try:
            self._catalog = self._asked(lambda: load_catalog(settings.catalog, **properties))
        except Exception as error:
            self._deadlines.close()
            if isinstance(error, IcebergError):
                raise
            raise IcebergError(f"catalog {settings.catalog!r}: {error}; see iceberg.properties") from error

    def close(self) -> None:
        """Give up connections."""
        close = getattr(self._catalog, "close", None)
        if close is not None:
            with suppress(IcebergError):
                self._asked(close)
        self._deadlines.close()

    def _asked(self, call: Callable[[], T]) -> T:
        """Return what a call to the catalog, or to where its metadata lies, comes to. Raises CatalogAwayError."""
        try:
            return self._deadlines.read("", call)
        except FileSystemError as error:
            raise CatalogAwayError(
                f"catalog {self._settings.catalog!r}: {error.what}; see that it answers; the next run tells it all"
            ) from error

    def identifier(self, table: KnownTable) -> str:
        """Return a table's name in the catalog."""
        name = f"{self._settings.table_prefix}{table.name}".replace(".", "_")
        return f"{self._settings.namespace}.{name}"

    def commit(self, table: KnownTable, files: Iterable[TableFile], number: int) -> bool:
        """Show `files`, all there are at `number`; return False where the table did so before. Raises IcebergError."""
        from pyiceberg.exceptions import CommitFailedException

        wanted = {f"{self._filesystem.uri}/{file.path}": file for file in files}
        identifier = self.identifier(table)
        try:
            for _ in range(COMMIT_ATTEMPTS):
                held = self._table(identifier, table)
                self._check_ours(held, table, identifier)
                if self._number_of(held) >= number:
                    return False
                try:
                    self._commit(held, table, wanted, number)
                except CommitFailedException:
                    # Another has committed to the table: what is to be done is looked at anew.
                    continue
                return True
        except IcebergError:
            raise
        except Exception as error:
            raise IcebergError(f"table {identifier} of catalog {self._settings.catalog!r}: {error}") from error
        raise IcebergError(f"table {identifier}: others committed {COMMIT_ATTEMPTS} times in a row; the next run tries")

    def _table(self, identifier: str, known: KnownTable) -> Any:
        from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError

        with suppress(NoSuchTableError):
            return self._asked(lambda: self._catalog.load_table(identifier))
        self._asked(lambda: self._catalog.create_namespace_if_not_exists(self._settings.namespace))
        properties = self._properties_of(known)
        try:
            return self._asked(
                lambda: self._catalog.create_table(identifier, _optional(known.columns), properties=properties)
            )
        except TableAlreadyExistsError:
            return self._asked(lambda: self._catalog.load_table(identifier))

    def _properties_of(self, table: KnownTable) -> dict[str, str]:
        return {ROOT_PROPERTY: self._filesystem.uri, TABLE_PROPERTY: table.name}

    def _check_ours(self, held: Any, table: KnownTable, identifier: str) -> None:
        """Raises IcebergError for a table that shows something else, or that others made."""
        remedy = "set iceberg.table_prefix or iceberg.namespace, so that it is left alone"
        root = held.properties.get(ROOT_PROPERTY)
        if root is None:
            # Made before the properties were: ours if it shows our files, and no others.
            start = f"{self._filesystem.uri}/{table.path}/"
            paths = [file.file_path for file in self._shown_files(held)]
            if not paths or not all(path.startswith(start) for path in paths):
                raise IcebergError(f"table {identifier} is not of this root, others made it: {remedy}")
        elif root != self._filesystem.uri:
            raise IcebergError(f"table {identifier} is not of this root, it shows {root}: {remedy}")
        elif held.properties.get(TABLE_PROPERTY) != table.name:
            shown = held.properties.get(TABLE_PROPERTY)
            raise IcebergError(f"table {identifier} shows {shown}, not {table.name}, which has that name too: {remedy}")

    def _number_of(self, held: Any) -> int:
        """Return the latest number of this root that a snapshot shows, -1 for none."""
        for snapshot in reversed(held.metadata.snapshots):
            summary = {} if snapshot.summary is None else snapshot.summary.additional_properties
            if summary.get(ROOT_PROPERTY) == self._filesystem.uri:
                return int(summary[NUMBER_PROPERTY])
        return -1

    def _shown_files(self, held: Any) -> list[Any]:
        return self._asked(lambda: [task.file for task in held.scan().plan_files()])

    def _commit(self, held: Any, table: KnownTable, wanted: dict[str, TableFile], number: int) -> None:
        shown = {file.file_path: file for file in self._shown_files(held)}
        removed = [file for path, file in shown.items() if path not in wanted]
        added = [(path, file) for path, file in wanted.items() if path not in shown]
        transaction = held.transaction()
        with transaction.update_schema() as update:
            update.union_by_name(_optional(table.columns))
        if NAME_MAPPING_PROPERTY not in transaction.table_metadata.properties:
            mapping = transaction.table_metadata.schema().name_mapping.model_dump_json()
            transaction.set_properties({NAME_MAPPING_PROPERTY: mapping})
        if ROOT_PROPERTY not in transaction.table_metadata.properties:
            transaction.set_properties(self._properties_of(table))
        said = {NUMBER_PROPERTY: str(number), ROOT_PROPERTY: self._filesystem.uri}
        # Footers are the file system's, which has a deadline for each of them.
        data_files = list(self._data_files(transaction.table_metadata, added))

        def write_manifests() -> None:
            updating = transaction.update_snapshot(snapshot_properties=said)
            with updating.overwrite() if removed else updating.fast_append() as snapshot:
                for file in removed:
                    snapshot.delete_data_file(file)
                for data_file in data_files:
                    snapshot.append_data_file(data_file)

        self._asked(write_manifests)
        self._asked(transaction.commit_transaction)

    def _data_files(self, metadata: Any, files: list[tuple[str, TableFile]]) -> Iterator[Any]:
        """Yield what Iceberg wants to know of files, from their footers."""
        from pyiceberg.io.pyarrow import (
            compute_statistics_plan,
            data_file_statistics_from_parquet_metadata,
            parquet_path_to_id_mapping,
        )
        from pyiceberg.manifest import DataFile, DataFileContent, FileFormat

        schema = metadata.schema()
        plan = compute_statistics_plan(schema, metadata.properties)
        mapping = parquet_path_to_id_mapping(schema)
        for path, file in files:
            with self._filesystem.open(file.path) as stored:
                footer = pq.read_metadata(arrow_input(stored))
            statistics = data_file_statistics_from_parquet_metadata(
                parquet_metadata=footer, stats_columns=plan, parquet_column_mapping=mapping
            )
            yield DataFile.from_args(
                content=DataFileContent.DATA,
                file_path=path,
                file_format=FileFormat.PARQUET,
                partition=statistics.partition(metadata.spec(), schema),
                file_size_in_bytes=file.length,
                sort_order_id=None,
                spec_id=metadata.default_spec_id,
                equality_ids=None,
                key_metadata=None,
                **statistics.to_serialized_dict(),
            )


def _optional(schema: pa.Schema) -> pa.Schema:
    """Return columns that may all be missing, down to the innermost: earlier files lack what came later."""
    return pa.schema([_optional_field(field) for field in schema])


def _optional_field(field: pa.Field) -> pa.Field:
    type_ = field.type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_uint32(type_):
        type_ = pa.int64()
    elif pa.types.is_struct(type_):
        type_ = pa.struct([_optional_field(child) for child in type_])
    elif pa.types.is_map(type_):
        type_ = pa.map_(
            pa.field("key", _optional_field(type_.key_field).type, nullable=False), _optional_field(type_.item_field)
        )
    elif pa.types.is_list(type_):
        type_ = pa.list_(_optional_field(type_.value_field))
    elif pa.types.is_timestamp(type_):
        # Iceberg's own is in microseconds, and reads those in milliseconds.
        type_ = pa.timestamp("us", type_.tz)
    return pa.field(field.name, type_, nullable=True)


def _text(value: str | Secret) -> str:
    text = value if isinstance(value, str) else value.text
    assert text is not None, "the job was not resolved"
    return text
