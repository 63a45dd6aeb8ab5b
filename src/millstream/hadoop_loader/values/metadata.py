"""Key and metadata columns: what a row has beside its value.

    _kafka_topic           string                    _kafka_timestamp_type   int, 0 the producer's time, 1 the broker's
    _kafka_partition       int                       _kafka_key              bytes, as they came
    _kafka_offset          long                      _kafka_headers          array of {key: string, value: bytes}
    _kafka_timestamp       timestamp-millis          _kafka_leader_epoch     int, -1 where it is not known
    _kafka_schema_id       int, null where the value names none

The key, where the job wants it read, is one column more, before these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from millstream.hadoop_loader.values.keys import DECODED_FORMATS, avro_type_of, key_schema, key_type
from millstream.hadoop_loader.values.located import schema_ids

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.hadoop_loader.values.fetched import Fetched

PREFIX: Final = "_kafka_"
KEY_COLUMN: Final = "key"

_TIME: Final = pa.timestamp("ms", tz="UTC")
_HEADER: Final = pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.binary())])
_HEADERS: Final = pa.list_(pa.field("item", _HEADER, nullable=False))
_HEADER_RECORD: Final = {
    "type": "record",
    "name": "KafkaHeader",
    "namespace": "millstream",
    "fields": [{"name": "key", "type": "string"}, {"name": "value", "type": ["null", "bytes"], "default": None}],
}


@dataclass(frozen=True, slots=True)
class ExtraColumn:
    """A column behind those of the value: of what it is made (`source`), and its types."""

    source: str
    field: pa.Field
    avro_type: Any

    @property
    def avro_field(self) -> dict[str, Any]:
        """As a field of the file's record."""
        field = {"name": self.field.name, "type": self.avro_type}
        return {**field, "default": None} if self.field.nullable else field


def _column(source: str, type_: pa.DataType, avro: Any, *, nullable: bool = False) -> ExtraColumn:
    return ExtraColumn(
        source, pa.field(f"{PREFIX}{source}", type_, nullable=nullable), ["null", avro] if nullable else avro
    )


METADATA: Final[Mapping[str, ExtraColumn]] = {
    column.source: column
    for column in (
        _column("topic", pa.string(), "string"),
        _column("partition", pa.int32(), "int"),
        _column("offset", pa.int64(), "long"),
        _column("timestamp", _TIME, {"type": "long", "logicalType": "timestamp-millis"}),
        _column("timestamp_type", pa.int32(), "int"),
        _column("key", pa.binary(), "bytes", nullable=True),
        _column("headers", _HEADERS, {"type": "array", "items": _HEADER_RECORD}),
        _column("leader_epoch", pa.int32(), "int"),
        _column("schema_id", pa.int32(), "int", nullable=True),
    )
}
_KEYS: Final[Mapping[str, tuple[pa.DataType, Any]]] = {
    "raw": (pa.binary(), "bytes"),
    "json": (pa.string(), "string"),
}


def extra_columns(job: LoadJob, table: TableVersion) -> tuple[ExtraColumn, ...]:
    """Return the columns that a job wants behind those of a table's values."""
    columns = [METADATA[name] for name in job.metadata_columns]
    if job.key.format in DECODED_FORMATS:
        schema = key_schema(job, table)
        if schema is None:
            return tuple(columns)
        type_ = key_type(job, schema)
        avro = avro_type_of(type_)
    elif job.key.format in _KEYS:
        type_, avro = _KEYS[job.key.format]
        avro = ["null", avro]
    else:
        return tuple(columns)
    columns.insert(0, ExtraColumn("read_key", pa.field(job.key.column or KEY_COLUMN, type_), avro))
    return tuple(columns)


def extra_arrays(extras: tuple[ExtraColumn, ...], fetched: Fetched) -> list[pa.Array]:
    """Return the extra columns of fetched records, a row for each."""
    return [_array(extra, fetched) for extra in extras]


def _array(extra: ExtraColumn, fetched: Fetched) -> pa.Array:
    if extra.source == "schema_id":
        return schema_ids(fetched.values)
    if extra.source == "read_key" and fetched.read_keys is not None:
        return fetched.read_keys
    if extra.source in ("key", "read_key"):
        column = fetched.column("key")
    elif extra.source == "headers":
        column = fetched.headers
    else:
        column = fetched.places.column(extra.source)
    if extra.source == "topic":
        return column.dictionary_decode()
    # A key that is no text is kept as far as it is one: rows are not bad for their keys.
    if extra.source == "read_key" and pa.types.is_string(extra.field.type):
        try:
            return column.cast(pa.string())
        except pa.ArrowInvalid:
            decoded = [None if key is None else key.decode(errors="replace") for key in column.to_pylist()]
            return pa.array(decoded, pa.string())
    return column if column.type == extra.field.type else column.cast(extra.field.type)
