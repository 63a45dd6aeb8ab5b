"""What readers make of fetched records: rows for a table, and those that are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.hadoop_loader.tables import TableVersion
    from millstream.hadoop_loader.values.file_schema import FileSchema
    from millstream.hadoop_loader.writing import Datums
    from millstream.schemas.avro.headers import Field


class BadRow(NamedTuple):
    """A record that gives no row: its number among those fetched, and why."""

    row: int
    reason: str


class UnknownSchemaError(Exception):
    """A value (or key) names a writer's schema that the table was not merged with; nothing that was read counts."""

    def __init__(self, topic: str, schema_id: int, schema: str, field: Field = "value") -> None:
        super().__init__(f"topic {topic!r} has {field}s of schema {schema_id}, which is new")
        self.field: Field = field
        self.topic = topic
        self.schema_id = schema_id
        self.schema = schema


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows for one table, of one kind.

    `rows` says which record each is of, ascending; None for all of them in order. `columns` has those of
    `schema.parquet`, a row for each; None where no Parquet is written and no column is needed. `datums`, where Avro is
    written, has one for each record, or (`own_datums`) for each row.
    """

    table: TableVersion
    schema: FileSchema
    count: int
    rows: pa.Int64Array | None
    columns: pa.RecordBatch | None
    datums: Datums | None
    own_datums: bool = False
    # Rows of records without a value.
    are_tombstones: bool = False
