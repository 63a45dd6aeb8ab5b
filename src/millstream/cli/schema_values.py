"""Keys and values of records as JSON text, by the schemas of a registry: what `consume` prints and `produce` reads.

The JSON is plain: a union's value stands alone, without the name of its branch. What JSON lacks is text: bytes by their
numbers as characters (as in Avro's own JSON), times by ISO 8601, decimals by their digits. What is printed can be read
again.
"""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from millstream.cli.errors import CommandError
from millstream.cli.registry_options import ValueFormat
from millstream.core.client.consumer import ConsumerRecord

if TYPE_CHECKING:
    from millstream.schemas import AsyncRegistryClient, ParsedSchema, SchemaType


class JsonText(bytes):
    """Bytes that are JSON: shown inside JSON as what they say."""

    __slots__ = ()


class DecodedRecord(NamedTuple):
    """A record with key and value as they are printed."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any


class RecordDecoder:
    """Makes JSON of what serializers wrote; `key` and `value` say which of them they are."""

    def __init__(self, registry: AsyncRegistryClient, key: ValueFormat, value: ValueFormat) -> None:
        self._registry = registry
        self._formats = {"key": key, "value": value}
        self._deserializers: dict[SchemaType, Any] = {}

    async def decoded(self, record: ConsumerRecord) -> DecodedRecord:
        """Return the record with JSON in it. Raises CommandError, which says where the record is."""
        from millstream.schemas import DeserializationError

        try:
            key = await self._field("key", record.key, record)
            value = await self._field("value", record.value, record)
        except DeserializationError as error:
            reason = f"the {error}"
            raise CommandError(f"{record.topic}-{record.partition}, offset {record.offset}: {reason}") from error
        return DecodedRecord(
            record.topic, record.partition, record.offset, record.timestamp, key, value, record.headers
        )

    async def _field(self, field: str, data: bytes | memoryview | None, record: ConsumerRecord) -> bytes | None:
        wanted = self._formats[field]
        if data is None or wanted is ValueFormat.bytes:
            return None if data is None else bytes(data)
        deserializer = await self._deserializer(wanted, field, bytes(data), record)
        found = await deserializer(data, topic=record.topic, field=field, headers=record.headers)
        return JsonText(json.dumps(found, default=_shown, ensure_ascii=False).encode())

    async def _deserializer(self, wanted: ValueFormat, field: str, data: bytes, record: ConsumerRecord) -> Any:
        from millstream.schemas import SchemaType

        if wanted is ValueFormat.auto:
            kind = (await self._schema(data, field, record)).type
        else:
            kind = SchemaType(wanted.upper())
        if kind not in self._deserializers:
            self._deserializers[kind] = _deserializer(kind, self._registry)
        return self._deserializers[kind]

    async def _schema(self, data: bytes, field: str, record: ConsumerRecord) -> ParsedSchema:
        """Return the schema a key or value names. Raises DeserializationError, RegistryError."""
        from millstream.schemas import DeserializationError
        from millstream.schemas.serdes.framing import header_value, read_prefix

        try:
            schema_id = read_prefix(header_value(record.headers, field) or data).schema_id
        except ValueError as error:
            raise DeserializationError(str(error), topic=record.topic, field=field, schema_id=None) from error
        if isinstance(schema_id, int):
            return await self._registry.schema(schema_id)
        return await self._registry.schema_by_guid(schema_id)


class LineEncoder:
    """Makes what a serializer writes of a line's JSON."""

    def __init__(self, serializer: Any, parse: Callable[[Any], Any], topic: str, field: str) -> None:
        self._serializer = serializer
        self._parse = parse
        self._topic = topic
        self._field = field

    async def __call__(self, text: bytes | None) -> bytes | None:
        """Return the bytes. Raises CommandError, SerializationError, RegistryError."""
        if text is None:
            return None
        try:
            value = self._parse(json.loads(text))
        except ValueError as error:
            shown = text[:80].decode(errors="replace")
            raise CommandError(f"the {self._field} {shown!r} does not fit the schema: {error}") from error
        encoded: bytes | None = await self._serializer(value, topic=self._topic, field=self._field)
        return encoded


async def line_encoder(
    registry: AsyncRegistryClient, wanted: ValueFormat, topic: str, field: str, schema_text: str | None
) -> LineEncoder:
    """Return what encodes with the subject's latest schema, or with `schema_text` after registering it."""
    from millstream.schemas import AsyncAvroSerializer, AsyncJsonSerializer, AsyncProtobufSerializer, SchemaType
    from millstream.schemas.client import SchemaText

    subject = f"{topic}-{field}"
    if schema_text is None:
        found = await registry.latest(subject)
        schema_id, schema = found.id, found.schema
    else:
        kind = SchemaType.AVRO if wanted is ValueFormat.auto else SchemaType(wanted.upper())
        schema_id = await registry.register(subject, SchemaText(kind, schema_text))
        schema = await registry.schema(schema_id)
    if wanted not in {ValueFormat.auto, schema.type.lower()}:
        raise CommandError(f"the schema of {subject} is of type {schema.type.lower()}, not {wanted}")
    if schema.type is SchemaType.AVRO:
        return LineEncoder(AsyncAvroSerializer(registry, schema_id=schema_id), _avro_values(schema), topic, field)
    if schema.type is SchemaType.JSON:
        return LineEncoder(AsyncJsonSerializer(registry, schema_id=schema_id), lambda value: value, topic, field)
    return LineEncoder(AsyncProtobufSerializer(registry, schema_id=schema_id), _messages(schema), topic, field)


def _deserializer(kind: SchemaType, registry: AsyncRegistryClient) -> Any:
    from millstream.schemas import AsyncAvroDeserializer, AsyncJsonDeserializer, AsyncProtobufDeserializer, SchemaType

    if kind is SchemaType.AVRO:
        return AsyncAvroDeserializer(registry)
    if kind is SchemaType.JSON:
        return AsyncJsonDeserializer(registry, validate=False)
    return AsyncProtobufDeserializer(registry)


def _shown(value: Any) -> Any:
    """Return what JSON has for a value that it lacks."""
    if isinstance(value, (bytes, bytearray)):
        return value.decode("latin-1")
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import Message

    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True)
    raise TypeError(f"{type(value).__name__} {value!r} has no form in JSON")


def _messages(schema: ParsedSchema) -> Callable[[Any], Any]:
    from google.protobuf.json_format import ParseDict, ParseError
    from google.protobuf.message_factory import GetMessageClass

    from millstream.schemas.serdes.protobuf import message_at

    kind = GetMessageClass(message_at(schema, (0,)))

    def parse(value: Any) -> Any:
        try:
            return ParseDict(value, kind())
        except ParseError as error:
            raise ValueError(str(error)) from error

    return parse


def _avro_values(schema: ParsedSchema) -> Callable[[Any], Any]:
    """Return a function from plain JSON to what fastavro writes with `schema`."""
    from millstream.schemas.serdes.avro import parsed_by_fastavro

    parsed = parsed_by_fastavro(schema)
    named: dict[str, Any] = {}
    _collect(parsed, named)
    return lambda value: _from_json(parsed, value, named)


def _collect(schema: Any, named: dict[str, Any]) -> None:
    """Find the types that have names; a schema's text nests no deeper than a parsed one may."""
    if isinstance(schema, list):
        for branch in schema:
            _collect(branch, named)
    elif isinstance(schema, dict):
        if "name" in schema and schema.get("type") in {"record", "error", "enum", "fixed"}:
            named[schema["name"]] = schema
        for inner in (schema.get("items"), schema.get("values"), *(one["type"] for one in schema.get("fields", ()))):
            _collect(inner, named)


def _from_json(schema: Any, value: Any, named: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return _branch_value(schema, value, named)
    if isinstance(schema, str):
        if schema in named:
            return _from_json(named[schema], value, named)
        return value.encode("latin-1") if schema == "bytes" and isinstance(value, str) else value
    kind = schema["type"]
    if "logicalType" in schema and (convert := _LOGICAL.get(schema["logicalType"])) is not None:
        return convert(value)
    if kind in {"record", "error"} and isinstance(value, dict):
        types = {field["name"]: field["type"] for field in schema["fields"]}
        return {
            name: _from_json(types[name], inner, named) if name in types else inner for name, inner in value.items()
        }
    if kind == "array" and isinstance(value, list):
        return [_from_json(schema["items"], inner, named) for inner in value]
    if kind == "map" and isinstance(value, dict):
        return {name: _from_json(schema["values"], inner, named) for name, inner in value.items()}
    if kind in {"fixed", "bytes"} and isinstance(value, str):
        return value.encode("latin-1")
    return _from_json(kind, value, named) if isinstance(kind, (list, dict)) else value


def _branch_value(branches: list[Any], value: Any, named: Mapping[str, Any]) -> Any:
    """Return the value as the first branch takes it that can; as it is where none can: the writer refuses it."""
    for branch in branches:
        try:
            converted = _from_json(branch, value, named)
        except (ValueError, TypeError):
            continue
        if _fits(branch, converted, named):
            return converted
    return value


def _fits(schema: Any, value: Any, named: Mapping[str, Any]) -> bool:
    """Whether a value may be one of `schema`, by what can be seen without looking into it."""
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    kind = schema if isinstance(schema, str) else schema["type"]
    if not isinstance(schema, str):
        if schema.get("logicalType") in _LOGICAL and not isinstance(value, str):
            return not isinstance(value, (bool, dict, list))
        if kind in {"record", "error"}:
            fields = schema["fields"]
            needed = {field["name"] for field in fields if "default" not in field}
            return isinstance(value, dict) and needed <= value.keys() <= {field["name"] for field in fields}
        if kind == "enum":
            return value in schema["symbols"]
        if kind == "fixed":
            return isinstance(value, bytes) and len(value) == schema["size"]
    if isinstance(value, bool):
        return bool(kind == "boolean")
    return isinstance(value, _PYTHON_TYPES.get(kind, ()))


def _time_of(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: parse(value) if isinstance(value, str) else value


def _decimal(value: Any) -> decimal.Decimal:
    try:
        return decimal.Decimal(str(value))
    except decimal.InvalidOperation as error:
        raise ValueError(f"{value!r} is no number") from error


_LOGICAL: Mapping[str, Callable[[Any], Any]] = {
    "timestamp-millis": _time_of(datetime.datetime.fromisoformat),
    "timestamp-micros": _time_of(datetime.datetime.fromisoformat),
    "local-timestamp-millis": _time_of(datetime.datetime.fromisoformat),
    "local-timestamp-micros": _time_of(datetime.datetime.fromisoformat),
    "date": _time_of(datetime.date.fromisoformat),
    "time-millis": _time_of(datetime.time.fromisoformat),
    "time-micros": _time_of(datetime.time.fromisoformat),
    "decimal": _decimal,
}

_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "null": (type(None),),
    "int": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "string": (str,),
    "bytes": (bytes,),
    "array": (list,),
    "map": (dict,),
}
