"""Other libraries' codecs behind one face, for tests that hold ours against them.

A peer turns a message of ours into bytes by its own encoder, and bytes into a message of ours by its own decoder; what
it has no field for is an error here, so that nothing is left out on either side.
"""

from __future__ import annotations

import datetime
import io
import pkgutil
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol
from uuid import UUID

import kafka.protocol
from kafka.protocol.api_message import ApiMessage
from kafka.protocol.schemas.fields.codecs import BitField
from kio.index import load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode as KioErrorCode
from kio.serial import entity_reader, entity_writer

from millstream.core.wire import ZERO_UUID, Api, Message

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND: Final = datetime.timedelta(milliseconds=1)


class Peer(Protocol):
    """Another library's codec. `kind` is "request" or "response"."""

    name: str

    def encode(self, api: Api, kind: str, version: int, message: Message) -> bytes: ...

    def decode(self, api: Api, kind: str, version: int, data: bytes) -> Message: ...


class Kio:
    """kio: frozen dataclasses per API, version and direction; reads by a Rust extension, writes in Python."""

    name = "kio"

    def encode(self, api: Api, kind: str, version: int, message: Message) -> bytes:
        cls = self._schema(api, kind, version)
        out = io.BytesIO()
        entity_writer(cls)(out, self._theirs(cls, message, version))
        return out.getvalue()

    def decode(self, api: Api, kind: str, version: int, data: bytes) -> Message:
        found, size = entity_reader(self._schema(api, kind, version))(data, 0)
        assert size == len(data), f"kio read {size} of {len(data)} bytes"
        return self._ours(getattr(api, kind), found, version)

    @staticmethod
    def _schema(api: Api, kind: str, version: int) -> Any:
        return (load_request_schema if kind == "request" else load_response_schema)(api.key, version)

    def _theirs(self, cls: Any, message: Message, version: int) -> Any:
        theirs = {field.name: field for field in fields(cls)}
        values: dict[str, Any] = {}
        for field in message.__wire__.fields:
            if version not in field.versions:
                continue
            their = _their_field(theirs, field.name)
            value = getattr(message, field.name)
            if field.tag is not None and value is None and field.kind == "struct":
                continue  # not sent: kio's default
            if field.kind == "struct":
                inner = _struct_in(their.type)
                if field.is_array and value is not None:
                    value = tuple(self._theirs(inner, item, version) for item in value)
                elif value is not None:
                    value = self._theirs(inner, value, version)
            else:
                kind = their.metadata["kafka_type"]
                if field.is_array and value is not None:
                    value = tuple(_to_kio(kind, item) for item in value)
                else:
                    value = _to_kio(kind, value)
            values[their.name] = value
        return cls(**values)

    def _ours(self, cls: type[Message], found: Any, version: int) -> Message:
        theirs = {field.name: field for field in fields(found)}
        read: dict[str, Any] = {}
        for field in cls.__wire__.fields:
            if version not in field.versions:
                continue
            their = _their_field(theirs, field.name)
            value = getattr(found, their.name)
            if field.kind == "struct":
                inner = field.struct_class()
                if field.is_array and value is not None:
                    value = [self._ours(inner, item, version) for item in value]
                elif value is not None:
                    value = self._ours(inner, value, version)
                    if field.tag is not None and value == inner():
                        value = None  # kio shows its default for what was not sent
            elif field.is_array and value is not None:
                value = [_from_kio(item) for item in value]
            elif field.kind == "uuid":
                value = ZERO_UUID if value is None else value.bytes
            elif value is None and field.kind == "int64":
                value = -1  # an instant that is none
            else:
                value = _from_kio(value)
            read[field.name] = value
        return cls(**read)


def _their_field(theirs: dict[str, Any], name: str) -> Any:
    """kio's field of our name; it drops the unit where it has a type with one."""
    for candidate in (name, name.removesuffix("_ms"), name.removesuffix("_time_ms"), f"{name}_"):
        if candidate in theirs:
            return theirs[candidate]
    raise AssertionError(f"kio has no field {name}; it has {sorted(theirs)}")


def _struct_in(annotation: Any) -> Any:
    """The dataclass in `X`, `X | None`, `tuple[X, ...]` or `tuple[X, ...] | None`."""
    for part in getattr(annotation, "__args__", ()):
        if part not in (type(None), ...):
            return _struct_in(part)
    return annotation


def _to_kio(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "uuid":
        return UUID(bytes=value) if any(value) else None
    if kind == "error_code":
        return KioErrorCode(value)
    if kind.startswith("timedelta"):
        return value * _MILLISECOND
    if kind == "datetime_i64":
        return None if value == -1 else _EPOCH + value * _MILLISECOND
    return value


def _from_kio(value: Any) -> Any:
    match value:
        case datetime.datetime():
            return (value - _EPOCH) // _MILLISECOND
        case datetime.timedelta():
            return value // _MILLISECOND
        case _:
            return value


class KafkaPython:
    """kafka-python: classes with a codec compiled per version, in Python."""

    name = "kafka-python"

    def encode(self, api: Api, kind: str, version: int, message: Message) -> bytes:
        cls = _kafka_python_classes()[api.key, kind]
        encoded: bytes = bytes(self._theirs(cls, message, version).encode(version=version))
        return encoded

    def decode(self, api: Api, kind: str, version: int, data: bytes) -> Message:
        cls = _kafka_python_classes()[api.key, kind]
        # Its ApiVersionsResponse takes anything with an error for version 0, so the plain decoder is asked.
        found = ApiMessage.decode.__func__(cls, data, version=version)
        return self._ours(getattr(api, kind), found, version)

    def _theirs(self, cls: Any, message: Message, version: int) -> Any:
        values: dict[str, Any] = {}
        for field in message.__wire__.fields:
            if version not in field.versions:
                continue
            value = getattr(message, field.name)
            if field.tag is not None and value == (field.default if field.factory is None else []):
                continue
            their = _kafka_python_field(cls._struct.fields, field.name)
            if field.kind == "struct" and value is not None:
                if field.is_array:
                    value = [self._theirs(their.data_class, item, version) for item in value]
                else:
                    value = self._theirs(their.data_class, value, version)
            elif field.kind == "uuid":
                value = UUID(bytes=value)
            elif their.name == "authorized_operations":
                value = BitField.from_32_bit_field(value)
            values[their.name] = value
        return cls(version=version, **values)

    def _ours(self, cls: type[Message], found: Any, version: int) -> Message:
        read: dict[str, Any] = {}
        for field in cls.__wire__.fields:
            if version not in field.versions:
                continue
            their = _kafka_python_field(found._struct.fields, field.name)
            value = getattr(found, their.name)
            if field.kind == "struct" and value is not None:
                inner = field.struct_class()
                value = (
                    [self._ours(inner, item, version) for item in value]
                    if field.is_array
                    else self._ours(inner, value, version)
                )
            elif field.kind == "uuid":
                value = ZERO_UUID if value is None else value.bytes
            elif their.name == "authorized_operations":
                value = _from_bits(value)
            elif field.kind in ("bytes", "record_bytes") and value is not None:
                value = bytes(value)
            read[field.name] = value
        return cls(**read)


def _kafka_python_field(theirs: dict[str, Any], name: str) -> Any:
    """Its field of our name; it has one name for the bits of the operations allowed on anything."""
    if name.endswith("_authorized_operations") and name not in theirs:
        name = "authorized_operations"
    return theirs[name]


def _from_bits(bits: set[int] | None) -> int:
    """A set of bits, or None for the sign bit alone, as an int32."""
    value: int = BitField.to_32_bit_field({31} if bits is None else bits)
    return value - 2**32 if value >= 2**31 else value


@cache
def _kafka_python_classes() -> dict[tuple[int, str], Any]:
    for module in pkgutil.walk_packages(kafka.protocol.__path__, "kafka.protocol."):
        if ".old" not in module.name and "generate" not in module.name:
            import_module(module.name)
    return {
        (cls.API_KEY, cls.type): cls
        for cls in _subclasses(ApiMessage)
        if getattr(cls, "_json", None) and cls._class_version is None
    }


def _subclasses(cls: Any) -> Iterator[Any]:
    for found in cls.__subclasses__():
        yield found
        yield from _subclasses(found)


PEERS: Final[tuple[Peer, ...]] = (Kio(), KafkaPython())
