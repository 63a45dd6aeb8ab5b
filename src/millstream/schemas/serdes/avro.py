"""Avro values, one by one: fastavro writes and reads them with schemas that are parsed once.

A value is what fastavro takes and gives: a dict for a record, datetime, Decimal and UUID for logical types. For whole
batches there is `schemas.avro`, at a hundred times the speed.

A schema that is nothing but "bytes" is the one exception to Avro's encoding: its values stand in the record as they
are, without a length, as in Confluent's serializers.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Generic

from millstream.schemas.parsing import ParsedSchema, SchemaType
from millstream.schemas.parsing.avro import AvroSchema
from millstream.schemas.serdes.deserializer import AsyncDeserializer, Deserialization, Deserializer, Reader
from millstream.schemas.serdes.framing import MessagePath
from millstream.schemas.serdes.serializer import AsyncSerializer, R, Serialization, Serializer, Writer


class _AvroSerialization(Serialization[R], Generic[R]):
    """Writes Avro; see Serialization for the rest.

    `to_dict` makes what fastavro takes of a value. `strict` refuses a record with fields that the schema lacks, or that
    lacks one without a default; otherwise the former are left out and the latter are null where that can be.
    `validate` also finds numbers over their type's range, which fastavro writes; it takes as long again.
    """

    type: ClassVar[SchemaType] = SchemaType.AVRO

    def __init__(
        self,
        registry: R,
        schema: ParsedSchema | str | None = None,
        *,
        to_dict: Callable[[Any], Any] | None = None,
        strict: bool = True,
        validate: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(registry, schema, **settings)
        self._to_dict = to_dict
        self._strict = strict
        self._validate = validate

    def _writer(self, schema: ParsedSchema | None, kind: Hashable) -> tuple[Writer, None]:  # noqa: ARG002
        from fastavro import schemaless_writer
        from fastavro.validation import ValidationError, validate

        to_dict, strict, checked = self._to_dict, self._strict, self._validate
        schema = self._schema if schema is None else schema
        assert schema is not None, "what was not given was fetched"
        parsed = parsed_by_fastavro(schema)
        if is_plain_bytes(parsed):
            return (bytes if to_dict is None else lambda value: bytes(to_dict(value))), None

        def write(value: Any) -> bytes:
            out = io.BytesIO()
            datum = value if to_dict is None else to_dict(value)
            if checked:
                try:
                    validate(datum, parsed, strict=strict)
                except ValidationError as error:
                    raise ValueError("; ".join(str(one) for one in error.errors)) from error
            schemaless_writer(out, parsed, datum, strict_allow_default=strict)
            return out.getvalue()

        return write, None


class AvroSerializer(_AvroSerialization[Any], Serializer):
    """Values to Avro, blocking."""


class AsyncAvroSerializer(_AvroSerialization[Any], AsyncSerializer):
    """Values to Avro, awaited."""


class _AvroDeserialization(Deserialization[R], Generic[R]):
    """Reads Avro; see Deserialization for the rest.

    `from_dict` makes something of what fastavro gives. `return_record_name` gives a record inside a union as (name,
    record), so that like ones can be told apart.
    """

    type: ClassVar[SchemaType] = SchemaType.AVRO

    def __init__(
        self,
        registry: R,
        reader_schema: ParsedSchema | str | None = None,
        *,
        from_dict: Callable[[Any], Any] | None = None,
        return_record_name: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(registry, reader_schema, **settings)
        self._from_dict = from_dict
        self._return_record_name = return_record_name

    def _reader(self, writer: ParsedSchema, reader: ParsedSchema | None, path: MessagePath | None) -> Reader:  # noqa: ARG002
        from fastavro import schemaless_reader
        from fastavro.read import SchemaResolutionError

        from_dict, return_record_name = self._from_dict, self._return_record_name
        written = parsed_by_fastavro(writer)
        wanted = None if reader is None or reader == writer else parsed_by_fastavro(reader)
        if is_plain_bytes(written):
            return (lambda data: data) if from_dict is None else from_dict

        def read(data: bytes) -> Any:
            stream = io.BytesIO(data)
            try:
                value = schemaless_reader(stream, written, wanted, return_record_name=return_record_name)
            except SchemaResolutionError as error:
                raise ValueError(str(error)) from error
            left = len(data) - stream.tell()
            if left:
                raise ValueError(f"{left} bytes are left behind the value: it was written with another schema")
            return value if from_dict is None else from_dict(value)

        return read


class AvroDeserializer(_AvroDeserialization[Any], Deserializer):
    """Avro to values, blocking."""


class AsyncAvroDeserializer(_AvroDeserialization[Any], AsyncDeserializer):
    """Avro to values, awaited."""


def parsed_by_fastavro(schema: ParsedSchema) -> Any:
    """Return the schema as fastavro wants it, what it refers to written out. Raises ValueError."""
    from fastavro import parse_schema
    from fastavro.schema import SchemaParseException, UnknownType

    assert isinstance(schema, AvroSchema), f"{schema} is not of type AVRO"
    try:
        return parse_schema(json.loads(schema.expanded_text))
    except (SchemaParseException, UnknownType) as error:
        raise ValueError(f"fastavro cannot use the schema: {error}") from error


def is_plain_bytes(parsed: Any) -> bool:
    """Whether a schema is nothing but bytes."""
    return parsed == "bytes" or (isinstance(parsed, dict) and parsed.get("type") == "bytes")
