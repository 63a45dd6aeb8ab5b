"""Telling Hive and Iceberg of what the commit log has, after a commit.

What one table is refused for is told and keeps no other from being brought up to date; a catalog that is away is asked
no further. All of it is made up for by the next call.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Final

from millstream.core._kernels.crc32c import crc32c
from millstream.hadoop_loader.catalogs import hive
from millstream.hadoop_loader.catalogs.known_tables import KnownTable, known_tables
from millstream.hadoop_loader.commit.names import LATE_SUFFIX
from millstream.hadoop_loader.filesystem import FileSystemError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from millstream.hadoop_loader.commit import TableState
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import HiveSettings, LoadJob

SCRIPTS: Final = "_hive"
"""Directory of a table that has its statements for Hive; readers of the table leave names with `_` out."""


class CatalogError(Exception):
    """A catalog was not told, and the job wants its run to fail then; the next run makes up for it."""


def tell_catalogs(
    job: LoadJob, filesystem: FileSystem, state: TableState, *, topics: frozenset[str] | None = None
) -> list[str]:
    """Bring what the job names (Hive's scripts, a metastore, Iceberg) to `state`; return what could not be done.

    Raises CatalogError, all having been tried, where Hive was not told and the job's `hive.fail` wants that.
    """
    if job.hive is None and job.iceberg is None:
        return []
    tables = list(known_tables(job, state, topics))
    problems = [] if job.hive is None else _tell_hive(job, job.hive, filesystem, state, tables)
    fails = bool(problems) and job.hive is not None and job.hive.fail
    if job.iceberg is not None:
        problems += _tell_iceberg(job, filesystem, state, tables)
    if fails:
        raise CatalogError("; ".join(problems))
    return problems


def _tell_hive(
    job: LoadJob, settings: HiveSettings, filesystem: FileSystem, state: TableState, tables: Iterable[KnownTable]
) -> list[str]:
    formats = {settings.format} if len(job.destination.formats) > 1 else job.destination.formats
    told = [table for table in tables if table.format in formats]
    problems: list[str] = []
    wanted: list[KnownTable] = []
    without_names = _without_names(filesystem, settings, told)
    for table in told:
        if table.partition_keys is None:
            problems.append(f"Hive: directories of {table.name} are no name=value; take a pattern as in 'dt=%Y-%m-%d'")
            continue
        if (other := without_names.get(table.name)) is not None:
            database, name = hive.full_name(table, settings)
            problems.append(
                f"Hive: table {table.name} would be {database}.{name}, as {other} is already; Hive is not told of it:"
                " load it by a job of its own with another hive.table_prefix"
            )
            continue
        try:
            _write_script(filesystem, table, hive.script(table, settings, filesystem.uri))
        except ValueError as error:
            problems.append(f"Hive: table {table.name}: {error}")
            continue
        except UnavailableError:
            # It would be so for the others, each after a deadline.
            raise
        except (FileSystemError, OSError) as error:
            problems.append(f"Hive: the script of table {table.name} was not written: {error}")
        wanted.append(table)
    if settings.metastore_uri is not None and wanted:
        problems += _tell_metastore(job, settings, filesystem, state, wanted)
    return problems


def _without_names(filesystem: FileSystem, settings: HiveSettings, tables: Iterable[KnownTable]) -> dict[str, str]:
    """Return the tables whose name in Hive is another's, and whose: the one that has scripts keeps it."""
    meeting: dict[tuple[str, str], list[str]] = defaultdict(list)
    for table in tables:
        meeting[hive.full_name(table, settings)].append(table.name)
    found: dict[str, str] = {}
    for names in meeting.values():
        if len(names) > 1:
            first = next((name for name in names if filesystem.status(f"{name}/{SCRIPTS}") is not None), names[0])
            found |= {name: first for name in names if name != first}
    return found


def _tell_metastore(
    job: LoadJob, settings: HiveSettings, filesystem: FileSystem, state: TableState, tables: Iterable[KnownTable]
) -> list[str]:
    from millstream.hadoop_loader.catalogs.metastore import MetastoreError, TableRefusedError, connected

    problems: list[str] = []
    try:
        with connected(settings, filesystem.uri, job.destination.kerberos) as metastore:
            for table in tables:
                prefix = f"{table.path}/"
                files = state.files.under(table.path)
                directories = {file.directory.removeprefix(prefix) for file in files if file.directory != table.path}
                # Late records are for directories that were closed, and expire with them.
                of_rows = f"{table.name.removesuffix(LATE_SUFFIX)}/{table.format}"
                expired = (state.closed.get(table.path) or state.closed.get(of_rows, set())) - directories
                try:
                    metastore.bring_up_to_date(table, directories, expired, partial(_is_empty, filesystem, table.path))
                except TableRefusedError as error:
                    problems.append(f"Hive: {error}")
    except MetastoreError as error:
        problems.append(f"Hive: {error}")
    return problems


def _is_empty(filesystem: FileSystem, path: str, directory: str) -> bool:
    """Whether a directory holds no data: a load beside this may have brought late records since the state was read."""
    try:
        return all(status.name.startswith("_") for status in filesystem.list(f"{path}/{directory}"))
    except FileNotFoundError:
        return True


def _write_script(filesystem: FileSystem, table: KnownTable, text: str) -> None:
    """Write a table's statements to a name of their own, once; one that a crash left half written is written anew."""
    data = text.encode()
    directory = f"{table.name}/{SCRIPTS}"
    path = f"{directory}/{table.format}-{table.version:04}-{crc32c(data):08x}.sql"
    status = filesystem.status(path)
    if status is not None:
        if status.length == len(data):
            return
        filesystem.delete(path)
    filesystem.make_directory(directory)
    try:
        with filesystem.create(path) as file:
            file.write(data)
    except FileExistsError:
        return


def _tell_iceberg(job: LoadJob, filesystem: FileSystem, state: TableState, tables: Iterable[KnownTable]) -> list[str]:
    from millstream.hadoop_loader.catalogs.iceberg import CatalogAwayError, IcebergError, IcebergTables

    assert job.iceberg is not None, job.name
    problems: list[str] = []
    try:
        catalog = IcebergTables(job.iceberg, filesystem)
    except IcebergError as error:
        return [f"Iceberg: {error}"]
    try:
        for table in tables:
            if table.format != "parquet":
                continue
            try:
                catalog.commit(table, state.files.under(table.path), state.number)
            except IcebergError as error:
                problems.append(f"Iceberg: {error}")
                if isinstance(error, CatalogAwayError):
                    break
    finally:
        catalog.close()
    return problems
