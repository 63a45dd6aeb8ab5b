"""A topic's reader: what a job says of values, to the reader that does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from millstream.hadoop_loader.values.avro_values import AvroValues
from millstream.hadoop_loader.values.plain_values import PlainValues, RawParse
from millstream.hadoop_loader.values.rows import BadRow, TableRows

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.hadoop_loader.values.fetched import Fetched
    from millstream.schemas.client import RegistryClient


class ValueReader(Protocol):
    """Reads the values of one topic."""

    def read(self, fetched: Fetched, bad: list[BadRow], /) -> Iterator[TableRows]:
        """Yield rows of the records that have a value; note those that cannot be read. Raises UnknownSchemaError."""
        ...


def value_reader(
    job: LoadJob, table: TableVersion, registry: RegistryClient | None, *, needs_columns: bool
) -> ValueReader:
    """Return the reader of a topic's values; `needs_columns`: a partitioner looks at fields."""
    if job.value.format == "avro":
        return AvroValues(job, table, registry, needs_columns=needs_columns)
    if job.value.format == "raw" or (job.value.framing == "none" and table.avro_schema is None):
        return PlainValues(job, table, RawParse)
    from millstream.hadoop_loader.values.framed_values import FramedValues

    return FramedValues(job, table, registry)
