"""What serializers of every schema type share: which schema, under which subject, and where its id goes.

A serializer prepares once per (topic, field, kind of value): it finds subject and id and makes a writer; what is
prepared serves every record after that, without a request. The preparing is written as steps (see client.calls), so
that a blocking and an awaiting serializer are the same thing.
"""

from __future__ import annotations

import math
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from millstream.schemas.client import AsyncRegistryClient, RegistryClient, RegistryError
from millstream.schemas.client.cache import BoundedCache
from millstream.schemas.client.calls import RegistryCalls, SchemaLike, Steps
from millstream.schemas.parsing import ParsedSchema, SchemaType, parse
from millstream.schemas.serdes.context import Context, add_header, checked_field, context_of, from_kafka_python
from millstream.schemas.serdes.errors import SerializationError
from millstream.schemas.serdes.framing import HEADER_NAMES, MessagePath, SchemaId, prefix
from millstream.schemas.serdes.subjects import SubjectName, strategy_of

PREPARED_MAX: Final = 1_000
LATEST_TTL_S: Final = 300.0

# Writes a value: what stands in the record behind the prefix.
Writer = Callable[[Any], bytes]


class Registry(Protocol):
    """Either client: what a serde needs of it itself."""

    @property
    def calls(self) -> RegistryCalls: ...


R = TypeVar("R", bound=Registry)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that records of one kind need; `expires` is when the latest version is asked for again."""

    schema_id: SchemaId
    prefix: bytes
    write: Writer
    expires: float = math.inf


class _Found(NamedTuple):
    schema_id: int
    guid: str | None
    # None: the one that was given.
    schema: ParsedSchema | None
    expires: float = math.inf


class Serialization(Generic[R]):
    """A serializer but for the calling: `Serializer` blocks, `AsyncSerializer` awaits.

    `schema` is a ParsedSchema or the text of one; None: that of `schema_id`, or the subject's latest version. With
    `auto_register` it is registered where it is new, otherwise it must be there. With `use_latest_version` values are
    written with the latest version, asked for again every `latest_ttl_s`. `id_in` is "prefix", or "header": a GUID in
    the record's headers. `field` is what is serialized where the caller does not say: "value" or "key".
    """

    type: ClassVar[SchemaType]
    _kafka_python_name: ClassVar[str] = "Serializer"

    def __init__(
        self,
        registry: R,
        schema: ParsedSchema | str | None = None,
        *,
        field: str = "value",
        strategy: str | SubjectName = "topic",
        auto_register: bool = True,
        use_latest_version: bool = False,
        schema_id: int | None = None,
        normalize: bool = False,
        id_in: str = "prefix",
        latest_ttl_s: float = LATEST_TTL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if id_in not in {"prefix", "header"}:
            raise ValueError(f"id_in is {id_in!r}: 'prefix' or 'header'")
        if use_latest_version and schema_id is not None:
            raise ValueError("use_latest_version and schema_id exclude each other")
        self._registry = registry
        self._schema = parse(self.type, schema) if isinstance(schema, str) else schema
        if self._schema is not None and self._schema.type is not self.type:
            raise ValueError(f"a schema of type {self._schema.type} is nothing for {type(self).__name__}")
        self._field = checked_field(field)
        self._subject_name = strategy_of(strategy)
        self._auto_register = auto_register
        self._use_latest_version = use_latest_version
        self._schema_id = schema_id
        self._normalize = normalize
        self._in_header = id_in == "header"
        self._latest_ttl_s = latest_ttl_s
        self._clock = clock
        self._prepared: BoundedCache[Hashable, Prepared] = BoundedCache(PREPARED_MAX)
        known_to_kafka_python(type(self), self._kafka_python_name)

    def close(self) -> None:
        """Nothing to close: the registry's client belongs to its maker."""

    # What a type has of its own

    def _kind_of(self, value: Any) -> Hashable:  # noqa: ARG002
        """What decides on the schema besides topic and field."""
        return None

    @abstractmethod
    def _writer(self, schema: ParsedSchema | None, kind: Hashable) -> tuple[Writer, MessagePath | None]:
        """Return what writes values with `schema`, and the path to the message for Protobuf. Raises ValueError.

        None: with the one that was registered for this kind.
        """

    def _schema_steps(self, context: Context, kind: Hashable) -> Steps[SchemaLike | None]:  # noqa: ARG002
        """Return the schema to register."""
        return self._schema
        yield  # a generator, without steps of its own

    def _name(self, kind: Hashable) -> str | None:  # noqa: ARG002
        return None if self._schema is None else self._schema.name

    # Preparing

    def _steps(self, context: Context, kind: Hashable, stale: Prepared | None) -> Steps[Prepared]:
        """Find or make the schema of values of this kind. Raises SerializationError, or RegistryError for an outage."""
        try:
            prepared = yield from self._prepare(context, kind)
        except (RegistryError, ValueError) as error:
            if not (isinstance(error, RegistryError) and error.is_outage):
                raise SerializationError(
                    str(error), topic=context.topic, field=context.field, schema_id=self._schema_id
                ) from error
            # A registry that is away stops nobody who has what he needs.
            if stale is None:
                raise
            prepared = Prepared(stale.schema_id, stale.prefix, stale.write, self._clock() + self._latest_ttl_s)
        return self._prepared.put((context.topic, context.field, kind), prepared)

    def _prepare(self, context: Context, kind: Hashable) -> Steps[Prepared]:
        schema_id, guid, schema, expires = yield from self._find(context, kind)
        if schema is not None and schema.type is not self.type:
            raise ValueError(f"schema {schema_id} is of type {schema.type}, not {self.type}")
        write, path = self._writer(schema, kind)
        if not self._in_header:
            return Prepared(schema_id, prefix(schema_id, path), write, expires)
        if guid is None:
            raise ValueError(f"the registry gives no GUID for schema {schema_id}: use id_in='prefix'")
        return Prepared(schema_id, prefix(UUID(guid), path), write, expires)

    def _find(self, context: Context, kind: Hashable) -> Steps[_Found]:
        calls = self._registry.calls
        if self._schema_id is not None:
            schema = yield from calls.schema(self._schema_id)
            guid = (yield from self._guid_of(self._schema_id)) if self._in_header else None
            return _Found(self._schema_id, guid, schema)
        subject = self._subject_name(context.topic, context.field, self._name(kind))
        given = yield from self._schema_steps(context, kind)
        if self._use_latest_version or given is None:
            latest = yield from calls.version(subject, "latest")
            return _Found(latest.id, latest.guid, latest.schema, self._clock() + self._latest_ttl_s)
        # What is there already is written as it was given: the registry holds the same, if in other words.
        schema_id = None
        if self._auto_register:
            schema_id = yield from calls.register(subject, given, normalize=self._normalize)
        if schema_id is not None and not self._in_header:
            return _Found(schema_id, None, None)
        found = yield from calls.lookup(subject, given, normalize=self._normalize)
        return _Found(found.id, found.guid, None)

    def _guid_of(self, schema_id: int) -> Steps[str | None]:
        versions = yield from self._registry.calls.versions_of(schema_id)
        if not versions:
            return None
        found = yield from self._registry.calls.version(versions[0].subject, versions[0].version)
        return found.guid

    # Writing

    def _is_current(self, prepared: Prepared | None) -> bool:
        return prepared is not None and (prepared.expires == math.inf or self._clock() < prepared.expires)

    def _written(self, prepared: Prepared, value: Any, context: Context) -> bytes:
        try:
            data = prepared.write(value)
            if not self._in_header:
                return prepared.prefix + data
            add_header(context.headers, HEADER_NAMES[context.field], prepared.prefix)
        except SerializationError:
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
            raise SerializationError(
                str(error) or type(error).__name__,
                topic=context.topic,
                field=context.field,
                schema_id=prepared.schema_id,
            ) from error
        return data


class Serializer(Serialization[RegistryClient]):
    """A serializer that blocks for the registry, at the first record of a kind; for any thread.

    Three ways to call it, whichever client it is for:

        serializer(value, topic="flights", field="key", headers=headers)     ours; only the value is always needed
        serializer(value, SerializationContext("flights", MessageField.VALUE))     confluent-kafka
        serializer.serialize("flights", headers, value)                      kafka-python, as its value_serializer

    None stays None: a tombstone. Raises SerializationError, or RegistryError for an outage.
    """

    def __call__(
        self,
        value: Any,
        context: Any = None,
        /,
        *,
        topic: str | None = None,
        field: str | None = None,
        headers: Any = None,
    ) -> bytes | None:
        return self._serialize(value, context_of(context, topic, field, headers, self._field))

    def serialize(self, *arguments: Any) -> bytes | None:
        """kafka-python's interface: (topic, headers, value), in older versions (topic, value)."""
        value, context = from_kafka_python(arguments, self._field)
        return self._serialize(value, context)

    def _serialize(self, value: Any, context: Context) -> bytes | None:
        if value is None:
            return None
        kind = self._kind_of(value)
        prepared = self._prepared.get((context.topic, context.field, kind))
        if prepared is None or not self._is_current(prepared):
            prepared = self._registry.run(self._steps(context, kind, prepared))
        return self._written(prepared, value, context)


class AsyncSerializer(Serialization[AsyncRegistryClient]):
    """A serializer for asyncio: `await serializer(value, topic="flights")`."""

    async def __call__(
        self,
        value: Any,
        context: Any = None,
        /,
        *,
        topic: str | None = None,
        field: str | None = None,
        headers: Any = None,
    ) -> bytes | None:
        if value is None:
            return None
        found = context_of(context, topic, field, headers, self._field)
        kind = self._kind_of(value)
        prepared = self._prepared.get((found.topic, found.field, kind))
        if prepared is None or not self._is_current(prepared):
            prepared = await self._registry.run(self._steps(found, kind, prepared))
        return self._written(prepared, value, found)


def known_to_kafka_python(kind: type, interface: str) -> None:
    """Have kafka-python, where the program uses it, take `kind` for what it is: it wraps whatever it does not know."""
    module = sys.modules.get("kafka.serializer")
    if module is not None:
        getattr(module, interface).register(kind)
