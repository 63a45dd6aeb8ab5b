"""Writers' schemas of any type as the Avro schemas that tables are made of."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

from millstream.hadoop_loader.tables.version import SourceSchema
from millstream.hadoop_loader.tables.writers import FIRST_MESSAGE, path_of
from millstream.schemas.parsing import ParsedSchema, SchemaType, parse
from millstream.schemas.parsing.avro import AvroSchema, parse_avro

if TYPE_CHECKING:
    from millstream.schemas.parsing.json_schema import JsonSchema


def source_of(schema: ParsedSchema | str, number: int) -> SourceSchema:
    """Return what is kept of the schema of a writer. Raises InvalidSchemaError, UnsupportedSchemaError."""
    if isinstance(schema, str):
        schema = parse_avro(schema)
    if isinstance(schema, AvroSchema):
        return SourceSchema(SchemaType.AVRO.value, schema.expanded_text)
    message = None
    if (path := path_of(number)) != FIRST_MESSAGE:
        from millstream.schemas.protobuf import descriptor_at

        message = descriptor_at(schema, path).full_name
    return SourceSchema(SchemaType(schema.type).value, schema.text, dict(schema.resolved), message)


def avro_of(source: SourceSchema) -> str:
    """Return the Avro schema that a writer's stands for. Raises UnsupportedSchemaError where no columns can be made."""
    return _avro_of(source.type, source.text, tuple(source.references.items()), source.message)


def message_of(source: SourceSchema) -> str | None:
    """Return the full name of the message that a writer's values are; None where they are not of Protobuf."""
    if source.type != SchemaType.PROTOBUF:
        return None
    return source.message or _first_message(source.text, tuple(source.references.items()))


@lru_cache(maxsize=512)
def _first_message(text: str, references: tuple[tuple[str, str], ...]) -> str | None:
    return parse(SchemaType.PROTOBUF, text, resolved=dict(references)).name


@lru_cache(maxsize=512)
def _avro_of(type_: str, text: str, references: tuple[tuple[str, str], ...], message: str | None) -> str:
    from millstream.hadoop_loader.tables.parquet import arrow_schema

    if type_ == SchemaType.JSON:
        from millstream.hadoop_loader.tables.from_json_schema import avro_of_json_schema

        text = avro_of_json_schema(cast("JsonSchema", parse(type_, text, resolved=dict(references))))
    elif type_ == SchemaType.PROTOBUF:
        text = _avro_of_protobuf(parse(type_, text, resolved=dict(references)), message)
    arrow_schema(text)
    return text


def avro_of_text(format_: str, text: str, message: str | None = None) -> str:
    """Return the Avro schema of the schema a job gives: Avro for values of Avro and JSON, Protobuf with its message.

    Raises InvalidSchemaError, UnsupportedSchemaError.
    """
    if format_ == "protobuf":
        return _avro_of_protobuf(parse(SchemaType.PROTOBUF, text), message)
    return parse_avro(text).text


def _avro_of_protobuf(schema: ParsedSchema, message: str | None = None) -> str:
    """Return the Avro schema of a message, a file's first one unless named."""
    from millstream.schemas.avro import arrow_to_avro_schema
    from millstream.schemas.protobuf import protobuf_to_arrow_schema

    name = (message or schema.name or "Value").rpartition(".")[2]
    return arrow_to_avro_schema(protobuf_to_arrow_schema(schema, message, on_recursion="binary"), name)
