"""Schemas as parsed things: Avro, JSON Schema and Protobuf text, checked and in the form a registry stores.

`parse` gives a ParsedSchema of the wanted type; the libraries a type needs are imported with its first schema.
Everything is bounded: SCHEMA_SIZE_BYTES_MAX for a text with its references, NESTING_DEPTH_MAX for what it holds.
"""

from millstream.schemas.parsing.parsed_schema import (
    NESTING_DEPTH_MAX,
    SCHEMA_SIZE_BYTES_MAX,
    InvalidSchemaError,
    ParsedSchema,
    Reference,
    SchemaType,
    parse,
)

__all__ = [
    "NESTING_DEPTH_MAX",
    "SCHEMA_SIZE_BYTES_MAX",
    "InvalidSchemaError",
    "ParsedSchema",
    "Reference",
    "SchemaType",
    "parse",
]
