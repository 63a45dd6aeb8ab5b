"""TableVersion: what a worker has to know of the table that a topic's values go to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from millstream.hadoop_loader.tables.keys import KeyColumn

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TableVersion:
    """One table (a generation of a topic's) with its schema as it stands; picklable, and never changed.

    `avro_schema` is the reader's schema that values are read with (Avro JSON, the greatest of all its writers'), None
    where the values have no schema: raw bytes, or JSON without one. `parquet_avro_schema` is the same for the columns
    of Parquet files: what not every reader of Parquet knows is left out of it, as `parquet.py` says.

    `writers` are the schemas whose values belong here, by number (`writers.py`: their id, and the message of Protobuf);
    those of JSON and Protobuf as the Avro schemas they stand for, their own texts in `sources`. Writers that only
    another generation can read are in one of `others`, newest first: `table_of` finds the right one for a value's.
    """

    topic: str
    name: str
    generation: int = 1
    # How often the schema of this generation was changed, and that of keys.
    version: int = 1
    avro_schema: str | None = None
    writers: Mapping[int, str] = field(default_factory=dict)
    sources: Mapping[int, SourceSchema] = field(default_factory=dict)
    others: tuple[TableVersion, ...] = ()
    # The column of keys, where only the registry has their schemas: the same for all tables of the topic.
    key: KeyColumn = field(default_factory=KeyColumn)

    @property
    def parquet_avro_schema(self) -> str | None:
        """The reader's schema for columns of Parquet files."""
        if self.avro_schema is None:
            return None
        from millstream.hadoop_loader.tables.parquet import parquet_avro_schema

        return parquet_avro_schema(self.avro_schema)

    def arrow_schema(self) -> pa.Schema | None:
        """Return the columns of Parquet files, those of values alone; None where values have no schema."""
        text = self.parquet_avro_schema
        if text is None:
            return None
        from millstream.hadoop_loader.tables.parquet import arrow_schema

        return arrow_schema(text)

    def tables(self) -> Iterator[TableVersion]:
        """This table and the other generations that still take values."""
        yield self
        yield from self.others

    def table_of(self, number: int) -> TableVersion | None:
        """Return the table that a writer's values go to; None for one that has to be merged first."""
        return next((table for table in self.tables() if number in table.writers), None)

    def passes_through(self, schema_id: int) -> bool:
        """Whether datums of a writer's schema are, byte for byte, datums of `avro_schema`."""
        from millstream.hadoop_loader.tables.parquet import is_same_encoding

        written = self.writers.get(schema_id)
        return written is not None and self.avro_schema is not None and is_same_encoding(written, self.avro_schema)


@dataclass(frozen=True, slots=True)
class SourceSchema:
    """A writer's schema as the registry has it: `type` AVRO, JSON or PROTOBUF; what it refers to, by name.

    `message` is the full name of the one that the writer's values are, None for the first.
    """

    type: str
    text: str
    references: Mapping[str, str] = field(default_factory=dict)
    message: str | None = None
