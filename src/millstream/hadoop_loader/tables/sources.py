"""Writers' schemas of any type as the Avro schemas that tables are made of."""

from __future__ import annotations

from functools import lru_cache

from millstream.hadoop_loader.tables.version import SourceSchema
from millstream.schemas.parsing import ParsedSchema, SchemaType
from millstream.schemas.parsing.avro import AvroSchema, parse_avro


def source_of(schema: ParsedSchema | str) -> SourceSchema:
    """Return what is kept of a writer's schema. Raises InvalidSchemaError."""
    if isinstance(schema, str):
        schema = parse_avro(schema)
    if isinstance(schema, AvroSchema):
        return SourceSchema(SchemaType.AVRO.value, schema.expanded_text)
    return SourceSchema(SchemaType(schema.type).value, schema.text, dict(schema.resolved))


def avro_of(source: SourceSchema) -> str:
    """Return the Avro schema that a writer's stands for. Raises UnsupportedSchemaError where no columns can be made."""
    return _avro_of(source.type, source.text, tuple(source.references.items()))


@lru_cache(maxsize=512)
def _avro_of(type_: str, text: str, references: tuple[tuple[str, str], ...]) -> str:  # noqa: ARG001
    from millstream.hadoop_loader.tables.parquet import arrow_schema
    from millstream.schemas.avro import UnsupportedSchemaError

    if type_ != SchemaType.AVRO:
        raise UnsupportedSchemaError(f"no table is made of a schema of type {type_} yet")
    arrow_schema(text)
    return text
