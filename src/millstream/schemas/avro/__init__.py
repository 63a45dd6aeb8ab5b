"""Avro and Arrow: values decoded to columns, columns encoded to values.

layout.py      the Arrow columns of an Avro schema, and the table of types    defaults.py  defaults as datums
program.py     a (writer, reader) pair of schemas compiled for the kernel     columns.py   the buffers it fills
decoder.py     AvroDecoder: values to a record batch, bad ones reported
validating.py  AvroValidator: the same without columns                        writing.py   a schema compiled to write
encoder.py     AvroEncoder: a table to values
"""

from millstream.schemas.avro.columns import DecodedTooLargeError
from millstream.schemas.avro.decoder import AvroDecoder, BadDatum, Decoded, TooManyUnknownIdsError
from millstream.schemas.avro.encoder import AvroEncoder, EncodeError
from millstream.schemas.avro.json_values import JsonDecoder
from millstream.schemas.avro.layout import UnsupportedSchemaError
from millstream.schemas.avro.translation import arrow_to_avro_schema, avro_to_arrow_schema
from millstream.schemas.avro.validating import AvroValidator, Validated, validate_datums

__all__ = [
    "AvroDecoder",
    "AvroEncoder",
    "AvroValidator",
    "BadDatum",
    "Decoded",
    "DecodedTooLargeError",
    "EncodeError",
    "JsonDecoder",
    "TooManyUnknownIdsError",
    "UnsupportedSchemaError",
    "Validated",
    "arrow_to_avro_schema",
    "avro_to_arrow_schema",
    "validate_datums",
]
