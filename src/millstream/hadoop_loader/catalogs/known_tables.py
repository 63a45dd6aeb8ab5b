"""What is to be told of the tables of a root: each with its schema and its directories, as of one number of the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from millstream.hadoop_loader.commit.names import LATE_SUFFIX
from millstream.hadoop_loader.source.topics import loads_topic
from millstream.hadoop_loader.tables import all_tables
from millstream.hadoop_loader.values.file_schema import file_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.hadoop_loader.commit import TableState
    from millstream.hadoop_loader.job import LoadJob, Partitioning

_VALUES_DIVIDER: Final = "="


@dataclass(frozen=True, slots=True)
class KnownTable:
    """A table in one format; `name` is its directory's, with `.late` for late records.

    `columns` are those of its Parquet files, `avro_schema` what its Avro files are read with. `partition_keys` are the
    names before the `=` of its directories; () where it has none, None where directories have other names.
    """

    topic: str
    name: str
    format: str
    version: int
    columns: pa.Schema
    avro_schema: str
    partition_keys: tuple[str, ...] | None

    @property
    def path(self) -> str:
        """Its directory, relative to the root."""
        return f"{self.name}/{self.format}"


def known_tables(job: LoadJob, state: TableState, topics: frozenset[str] | None = None) -> Iterator[KnownTable]:
    """Yield the job's tables that have files, or had until they expired; only of `topics`, where they are given."""
    keys = partition_keys(job.partitioning)
    for topic in sorted(set(state.topics.values())):
        if not loads_topic(job.source, topic) or (topics is not None and topic not in topics):
            continue
        for table in all_tables(state.schemas.get(topic), topic):
            schema = file_schema(job, table)
            # The schema for rows without a value reads the others as well.
            text = schema.avro_tombstones if job.tombstones == "row" else schema.avro
            for suffix in ("", LATE_SUFFIX):
                for format_ in ("avro", "parquet"):
                    name = f"{table.name}{suffix}"
                    if f"{name}/{format_}" in state.totals:
                        yield KnownTable(topic, name, format_, table.version, schema.parquet, text, keys)


def partition_keys(partitioning: Partitioning) -> tuple[str, ...] | None:
    """Return the names of partition columns that directories have; None where a directory is no `name=value`."""
    if partitioning.kind == "none":
        return ()
    if partitioning.kind == "kafka":
        return ("partition",)
    if partitioning.kind == "fields":
        return tuple(partitioning.fields)
    keys = [*partitioning.fields]
    for part in partitioning.time_pattern.split("/"):
        name, divider, _ = part.partition(_VALUES_DIVIDER)
        if not divider or not name or "%" in name:
            return None
        keys.append(name)
    return tuple(keys)
