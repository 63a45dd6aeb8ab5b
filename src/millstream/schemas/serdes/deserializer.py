"""What deserializers of every schema type share: finding the schema that a record names, and reading with it."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic
from uuid import UUID

from millstream.schemas.client import AsyncRegistryClient, RegistryClient, RegistryError
from millstream.schemas.client.cache import BoundedCache
from millstream.schemas.client.calls import Steps
from millstream.schemas.parsing import ParsedSchema, SchemaType, parse
from millstream.schemas.serdes.context import Context, checked_field, context_of, from_kafka_python
from millstream.schemas.serdes.errors import DeserializationError
from millstream.schemas.serdes.framing import Framed, MessagePath, SchemaId, header_value, read_indexes, read_prefix
from millstream.schemas.serdes.serializer import LATEST_TTL_S, PREPARED_MAX, R, known_to_kafka_python
from millstream.schemas.serdes.subjects import SubjectName, strategy_of

# Reads what stands in a record behind the prefix.
Reader = Callable[[bytes], Any]

# What readers raise for bytes that are no value of their schema; anything else is a mistake of ours.
BAD_VALUE: Final = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    MemoryError,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """How records with one schema are read; `expires` is when the latest version is asked for again."""

    read: Reader
    expires: float = math.inf


class Deserialization(Generic[R]):
    """A deserializer but for the calling: `Deserializer` blocks, `AsyncDeserializer` awaits.

    `reader_schema` is what values are read as (a ParsedSchema or text); None: as they were written. With
    `use_latest_version` it is the subject's latest version, asked for again every `latest_ttl_s`. The id of the
    writer's schema is taken from the record's headers where one is there, and otherwise from its first bytes.
    """

    type: ClassVar[SchemaType]
    _kafka_python_name: ClassVar[str] = "Deserializer"
    _has_indexes: ClassVar[bool] = False
    # Whether the writer's schema is needed to read a value.
    _needs_schema: bool = True

    def __init__(
        self,
        registry: R,
        reader_schema: ParsedSchema | str | None = None,
        *,
        field: str = "value",
        strategy: str | SubjectName = "topic",
        use_latest_version: bool = False,
        latest_ttl_s: float = LATEST_TTL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if use_latest_version and reader_schema is not None:
            raise ValueError("use_latest_version and reader_schema exclude each other")
        self._registry = registry
        self._reader_schema = parse(self.type, reader_schema) if isinstance(reader_schema, str) else reader_schema
        self._field = checked_field(field)
        self._subject_name = strategy_of(strategy)
        self._use_latest_version = use_latest_version
        self._latest_ttl_s = latest_ttl_s
        self._clock = clock
        self._resolved: BoundedCache[tuple[object, ...], Resolved] = BoundedCache(PREPARED_MAX)
        known_to_kafka_python(type(self), self._kafka_python_name)

    def close(self) -> None:
        """Nothing to close: the registry's client belongs to its maker."""

    @abstractmethod
    def _reader(self, writer: ParsedSchema, reader: ParsedSchema | None, path: MessagePath | None) -> Reader:
        """Return what reads values written with `writer`. Raises ValueError."""

    def _framed(self, data: bytes, context: Context) -> tuple[Framed, MessagePath | None]:
        """Return the schema of a record and where its value begins. Raises DeserializationError."""
        try:
            header = header_value(context.headers, context.field)
            if header is None:
                framed = read_prefix(data)
                if not self._has_indexes:
                    return framed, None
                path, start = read_indexes(data, framed.start)
                return Framed(framed.schema_id, start), path
            framed = read_prefix(header)
            in_header = read_indexes(header, framed.start)[0] if self._has_indexes else None
            return Framed(framed.schema_id, 0), in_header
        except ValueError as error:
            raise self._error(str(error), context, None) from error

    def _key(self, framed: Framed, path: MessagePath | None, context: Context) -> tuple[object, ...]:
        if self._use_latest_version:
            return framed.schema_id, path, context.topic, context.field
        return framed.schema_id, path

    def _steps(
        self, key: tuple[object, ...], schema_id: SchemaId, path: MessagePath | None, context: Context
    ) -> Steps[Resolved]:
        """Find the schemas of a record. Raises DeserializationError, or RegistryError for an outage."""
        stale = self._resolved.get(key)
        try:
            resolved = yield from self._resolve(schema_id, path, context)
        except (RegistryError, ValueError) as error:
            if not (isinstance(error, RegistryError) and error.is_outage):
                raise self._error(str(error), context, schema_id) from error
            if stale is None:
                raise
            resolved = Resolved(stale.read, self._clock() + self._latest_ttl_s)
        return self._resolved.put(key, resolved)

    def _resolve(self, schema_id: SchemaId, path: MessagePath | None, context: Context) -> Steps[Resolved]:
        calls = self._registry.calls
        if isinstance(schema_id, UUID):
            writer = yield from calls.schema_by_guid(schema_id)
        else:
            writer = yield from calls.schema(schema_id)
        if writer.type is not self.type:
            raise ValueError(f"the schema is of type {writer.type}, not {self.type}")
        if not self._use_latest_version:
            return Resolved(self._reader(writer, self._reader_schema, path))
        subject = self._subject_name(context.topic, context.field, writer.name)
        latest = yield from calls.version(subject, "latest")
        return Resolved(self._reader(writer, latest.schema, path), self._clock() + self._latest_ttl_s)

    def _is_current(self, resolved: Resolved) -> bool:
        return resolved.expires == math.inf or self._clock() < resolved.expires

    def _read(self, resolved: Resolved, data: bytes, framed: Framed, context: Context) -> Any:
        try:
            return resolved.read(data[framed.start :] if framed.start else data)
        except BAD_VALUE as error:
            raise self._error(str(error) or type(error).__name__, context, framed.schema_id) from error

    def _error(self, reason: str, context: Context, schema_id: SchemaId | None) -> DeserializationError:
        return DeserializationError(reason, topic=context.topic, field=context.field, schema_id=schema_id)


class Deserializer(Deserialization[RegistryClient]):
    """A deserializer that blocks for the registry, at the first record of a schema; for any thread.

    Three ways to call it, whichever client it is for:

        deserializer(data, topic="flights", field="key", headers=headers)    ours; only the bytes are always needed
        deserializer(data, SerializationContext("flights", MessageField.VALUE))    confluent-kafka
        deserializer.deserialize("flights", headers, data)                   kafka-python, as its value_deserializer

    None stays None: a tombstone. Raises DeserializationError, or RegistryError for an outage.
    """

    def __call__(
        self,
        data: bytes | memoryview | None,
        context: Any = None,
        /,
        *,
        topic: str | None = None,
        field: str | None = None,
        headers: Any = None,
    ) -> Any:
        return self._deserialize(data, context_of(context, topic, field, headers, self._field))

    def deserialize(self, *arguments: Any) -> Any:
        """kafka-python's interface: (topic, headers, data), in older versions (topic, data)."""
        data, context = from_kafka_python(arguments, self._field)
        return self._deserialize(data, context)

    def _deserialize(self, data: bytes | memoryview | None, context: Context) -> Any:
        if data is None:
            return None
        data = bytes(data)
        framed, path = self._framed(data, context)
        key = self._key(framed, path, context)
        resolved = self._resolved.get(key)
        if resolved is None or not self._is_current(resolved):
            resolved = self._registry.run(self._steps(key, framed.schema_id, path, context))
        return self._read(resolved, data, framed, context)


class AsyncDeserializer(Deserialization[AsyncRegistryClient]):
    """A deserializer for asyncio: `await deserializer(data, topic="flights")`."""

    async def __call__(
        self,
        data: bytes | memoryview | None,
        context: Any = None,
        /,
        *,
        topic: str | None = None,
        field: str | None = None,
        headers: Any = None,
    ) -> Any:
        if data is None:
            return None
        data = bytes(data)
        found = context_of(context, topic, field, headers, self._field)
        framed, path = self._framed(data, found)
        key = self._key(framed, path, found)
        resolved = self._resolved.get(key)
        if resolved is None or not self._is_current(resolved):
            resolved = await self._registry.run(self._steps(key, framed.schema_id, path, found))
        return self._read(resolved, data, framed, found)
