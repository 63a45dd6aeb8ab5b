"""Keys of Avro and Protobuf to one column: a struct of a record's fields, or what a schema without fields says.

Keys are read to the job's schema (`key.schema_file`, `key.schema`), so that the column has one type in all files
whatever keys come; where framing is `registry` each key names its writer's schema, and is resolved to it. A job that
gives none for keys of Avro has them read to the schema that the topic's keys have made up so far (`tables/keys.py`). A
key that cannot be read makes its record a bad one: its bytes are kept whole.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.tables.parquet import parquet_avro_schema
from millstream.hadoop_loader.values.header_ids import HeaderIds
from millstream.hadoop_loader.values.located import NO_ID, decoded_in_parts, locate, schema_ids
from millstream.hadoop_loader.values.registered import RegisteredSchemas, UnusableSchemaError
from millstream.schemas.avro import AvroDecoder, arrow_to_avro_schema
from millstream.schemas.parsing import SchemaType, parse

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.hadoop_loader.values.fetched import Fetched
    from millstream.schemas.client import RegistryClient

DECODED_FORMATS: Final = frozenset({"avro", "protobuf"})
# Nested records of the Avro column are named by it, so that they meet no name of the values'.
_NAME: Final = "KafkaKey"


def key_schema(job: LoadJob, table: TableVersion) -> str | None:
    """Return the schema that keys are read to: the job's, or what the topic's keys made up so far (None: nothing)."""
    if job.key.takes_registered_schemas:
        return table.key.schema
    assert job.key.schema is not None, "a job whose keys have a schema has its text, once it is resolved"
    return job.key.schema


def key_type(job: LoadJob, schema: str) -> pa.DataType:
    """Return the type of the column of keys read to a schema. Raises UnsupportedSchemaError, InvalidSchemaError."""
    columns, is_record = _decoded_columns(job.key.format, schema, job.key.message)
    fields = [_plain_field(field) for field in columns]
    return pa.struct(fields) if is_record else fields[0].type


def avro_type_of(type_: pa.DataType) -> Any:
    """Return the Avro type of a column that may be null."""
    document = json.loads(arrow_to_avro_schema(pa.schema([pa.field("key", type_)]), _NAME))
    return document["fields"][0]["type"]


class KeyReader:
    """Reads keys of one topic; one thread at a time."""

    def __init__(self, job: LoadJob, table: TableVersion, registry: RegistryClient | None) -> None:
        key = job.key
        self._table = table
        framed = key.framing == "registry"
        self._registered = RegisteredSchemas(registry, key.format, "key") if framed else None
        self._header_ids = HeaderIds(registry, key.format, "key") if framed else None
        framing: Any = "confluent" if framed else "none"
        schema = key_schema(job, table)
        # None: no schema of the topic's keys is known.
        self._type = None if schema is None else key_type(job, schema)
        self._decoder: Any = None
        if schema is None:
            return
        _, self._is_record = _decoded_columns(key.format, schema, key.message)
        if key.format == "avro":
            reader, writer = parquet_avro_schema(schema), None if framed else schema
            schemas = self._find if key.takes_registered_schemas else self._registered
            self._decoder = AvroDecoder(schemas, reader, writer_schema=writer, framing=framing, on_recursion="binary")
        else:
            from millstream.schemas.protobuf import ProtobufDecoder

            self._decoder = ProtobufDecoder(self._registered, schema, message=key.message, framing=framing)

    def read(self, fetched: Fetched) -> tuple[pa.Array | None, dict[int, str]]:
        """Return the column, null where a record has no key, and why rows have a key that cannot be read.

        There is no column while no schema of keys is known. Raises UnknownSchemaError where they have one that is new,
        RegistryError where the registry is away.
        """
        framed = None if self._header_ids is None else self._header_ids.framed(fetched)
        keys, reasons = (fetched.column("key"), dict[int, str]()) if framed is None else framed
        column = None
        if self._type is None:
            reasons |= self._find_first(keys)
        else:
            decoded = decoded_in_parts(lambda start, stop: self._decoder.decode(keys[start:stop]), 0, len(keys))
            columns = [_plain(each) for each in decoded.batch.columns]
            column = pa.StructArray.from_arrays(columns, fields=list(self._type)) if self._is_record else columns[0]
            if decoded.rows is not None:
                rows = pa.array(range(len(keys)), pa.int64())
                column = column.take(pc.index_in(rows, value_set=decoded.rows))
            reasons |= {error.row: error.reason for error in decoded.errors}
        return column, {row: f"its key: {reason}" for row, reason in reasons.items()}

    def _find(self, schema_id: int) -> str:
        """Return a schema that the column was made of."""
        assert self._registered is not None
        known = self._table.key
        if schema_id in known.writers:
            return known.writers[schema_id]
        if reason := self._why_not(schema_id):
            raise UnusableSchemaError(reason)
        raise self._registered.unknown(self._table.topic, schema_id)

    def _why_not(self, schema_id: int) -> str:
        """Return why the column takes no keys of a schema that is not one of its own; "" where it may."""
        known = self._table.key
        if schema_id in known.refused:
            return known.refused[schema_id].reason
        return f"the topic's keys are of {known.count} other schemas already" if known.is_full else ""

    def _find_first(self, keys: pa.Array) -> dict[int, str]:
        """Return why each key has no schema; raises UnknownSchemaError for the first that has one."""
        assert self._registered is not None
        ids = schema_ids(locate(keys))
        reasons = {}
        for row in pc.indices_nonzero(pc.is_valid(keys)).to_pylist():
            schema_id = ids[row].as_py()
            if schema_id is None:
                reasons[row] = NO_ID
            elif reason := self._why_not(schema_id):
                reasons[row] = f"schema {schema_id} cannot be used: {reason}"
            else:
                reasons[row] = self._registered.why_unusable(self._table.topic, schema_id)
        return reasons


@lru_cache(maxsize=64)
def _decoded_columns(format_: str, schema: str, message: str | None) -> tuple[pa.Schema, bool]:
    if format_ == "avro":
        reader = parquet_avro_schema(schema)
        columns = AvroDecoder({}, reader, on_recursion="binary").schema
        assert columns is not None, schema
        document = json.loads(reader)
        return columns, isinstance(document, dict) and document.get("type") == "record"
    from millstream.schemas.protobuf import protobuf_to_arrow_schema

    return protobuf_to_arrow_schema(parse(SchemaType.PROTOBUF, schema), message), True


def _plain(column: pa.Array) -> pa.Array:
    type_ = _plain_type(column.type)
    return column if column.type == type_ else column.cast(type_)


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(_plain_type(field.type)).with_nullable(True)


def _plain_type(type_: pa.DataType) -> pa.DataType:
    """A type without dictionaries, at any depth: what enums become is text. A key that is not there has no fields."""
    if pa.types.is_dictionary(type_):
        return type_.value_type
    if pa.types.is_struct(type_):
        return pa.struct([_plain_field(field) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_plain_type(type_.value_type)))
    if pa.types.is_map(type_):
        return pa.map_(type_.key_type, type_.item_field.with_type(_plain_type(type_.item_type)))
    return type_
