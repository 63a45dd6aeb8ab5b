"""Telling Hive and Iceberg of what the commit log has, after a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core._kernels.crc32c import crc32c
from millstream.hadoop_loader.catalogs import hive
from millstream.hadoop_loader.catalogs.known_tables import KnownTable, known_tables

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableState
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import LoadJob

SCRIPTS: Final = "_hive"
"""Directory of a table that has its statements for Hive; readers of the table leave names with `_` out."""


class CatalogError(Exception):
    """A catalog was not told, and the job wants its run to fail then; the next run makes up for it."""


def tell_catalogs(
    job: LoadJob, filesystem: FileSystem, state: TableState, *, topics: frozenset[str] | None = None
) -> list[str]:
    """Bring what the job names (Hive's scripts, a metastore, Iceberg) to `state`; return what could not be done.

    All of it is made up for by the next call. Raises CatalogError where the job's `hive.fail` wants that.
    """
    if job.hive is None and job.iceberg is None:
        return []
    tables = list(known_tables(job, state, topics))
    problems: list[str] = []
    if job.hive is not None:
        found = _tell_hive(job, filesystem, state, tables)
        if found and job.hive.fail:
            raise CatalogError("; ".join(found))
        problems += found
    if job.iceberg is not None:
        problems += _tell_iceberg(job, filesystem, state, tables)
    return problems


def _tell_hive(job: LoadJob, filesystem: FileSystem, state: TableState, tables: list[KnownTable]) -> list[str]:
    assert job.hive is not None, job.name
    formats = {job.hive.format} if len(job.destination.formats) > 1 else job.destination.formats
    problems: list[str] = []
    wanted: list[KnownTable] = []
    for table in tables:
        if table.format not in formats:
            continue
        if table.partition_keys is None:
            problems.append(f"Hive: directories of {table.name} are no name=value; take a pattern as in 'dt=%Y-%m-%d'")
            continue
        try:
            _write_script(filesystem, table, hive.script(table, job.hive, filesystem.uri))
        except ValueError as error:
            problems.append(f"Hive: table {table.name}: {error}")
            continue
        except OSError as error:
            problems.append(f"Hive: the script of table {table.name} was not written: {error}")
        wanted.append(table)
    if job.hive.metastore_uri is None or not wanted:
        return problems
    from millstream.hadoop_loader.catalogs.metastore import MetastoreError, connected

    try:
        with connected(job.hive, filesystem.uri) as metastore:
            for table in wanted:
                prefix = f"{table.path}/"
                files = state.files.under(table.path)
                directories = {file.directory.removeprefix(prefix) for file in files if file.directory != table.path}
                metastore.bring_up_to_date(table, directories)
    except MetastoreError as error:
        problems.append(f"Hive: {error}")
    return problems


def _write_script(filesystem: FileSystem, table: KnownTable, text: str) -> None:
    """Write a table's statements to a name of their own, once."""
    data = text.encode()
    directory = f"{table.name}/{SCRIPTS}"
    path = f"{directory}/{table.format}-{table.version:04}-{crc32c(data):08x}.sql"
    if filesystem.status(path) is not None:
        return
    filesystem.make_directory(directory)
    try:
        with filesystem.create(path) as file:
            file.write(data)
    except FileExistsError:
        return


def _tell_iceberg(job: LoadJob, filesystem: FileSystem, state: TableState, tables: list[KnownTable]) -> list[str]:
    from millstream.hadoop_loader.catalogs.iceberg import IcebergError, IcebergTables

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
    finally:
        catalog.close()
    return problems
