"""Protobuf messages: protobuf's own library writes and reads them.

A schema is a .proto file, so a record also says which message of the file it holds. What a file imports is registered
first, each under the subject of its path, and referred to; but not what comes with protobuf itself.
"""

from __future__ import annotations

import base64
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, cast

from millstream.schemas.client import SchemaText
from millstream.schemas.client.calls import Steps
from millstream.schemas.parsing import ParsedSchema, Reference, SchemaType
from millstream.schemas.serdes.context import Context
from millstream.schemas.serdes.deserializer import (
    AsyncDeserializer,
    Deserialization,
    Deserializer,
    Reader,
    Resolved,
)
from millstream.schemas.serdes.framing import Framed, MessagePath, SchemaId
from millstream.schemas.serdes.serializer import AsyncSerializer, R, Serialization, Serializer, Writer

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FileDescriptor
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
    from google.protobuf.message import Message

    from millstream.schemas.parsing.protobuf import ProtobufSchema

    MessageType = type[Message]

BUILT_IN: Final = ("google/protobuf/", "google/type/", "confluent/")
"""Where the files lie that every reader has: they are not registered, and not referred to."""


class _ProtobufSerialization(Serialization[R], Generic[R]):
    """Writes Protobuf messages, of any class; see Serialization for the rest. The schema is the message's file."""

    type: ClassVar[SchemaType] = SchemaType.PROTOBUF

    def __init__(self, registry: R, **settings: Any) -> None:
        super().__init__(registry, None, **settings)

    def _kind_of(self, value: Any) -> Any:
        return type(value)

    def _name(self, kind: Hashable) -> str | None:
        return str(_descriptor(kind).full_name)

    def _schema_steps(self, context: Context, kind: Hashable) -> Steps[SchemaText]:  # noqa: ARG002
        return (yield from self._schema_of(_descriptor(kind).file))

    def _schema_of(self, file: FileDescriptor) -> Steps[SchemaText]:
        references = []
        for dependency in file.dependencies:
            if dependency.name.startswith(BUILT_IN):
                continue
            schema = yield from self._schema_of(dependency)
            calls = self._registry.calls
            if self._auto_register:
                yield from calls.register(dependency.name, schema, normalize=self._normalize)
            found = yield from calls.lookup(dependency.name, schema, normalize=self._normalize)
            references.append(Reference(dependency.name, found.subject, found.version))
        text = base64.standard_b64encode(file.serialized_pb).decode()
        return SchemaText(SchemaType.PROTOBUF, text, tuple(references))

    def _writer(self, schema: ParsedSchema | None, kind: Hashable) -> tuple[Writer, MessagePath]:
        descriptor = _descriptor(kind)
        path = _path_of(descriptor) if schema is None else _path_in(_file_of(schema), descriptor.full_name)
        return _written, path


class ProtobufSerializer(_ProtobufSerialization[Any], Serializer):
    """Protobuf messages to bytes, blocking."""


class AsyncProtobufSerializer(_ProtobufSerialization[Any], AsyncSerializer):
    """Protobuf messages to bytes, awaited."""


class _ProtobufDeserialization(Deserialization[R], Generic[R]):
    """Reads Protobuf messages; see Deserialization for the rest.

    `message_type` is the class to read as: a message describes itself well enough for that, so the registry is not
    asked. Without one, classes are made of the schemas that the records name.
    """

    type: ClassVar[SchemaType] = SchemaType.PROTOBUF
    _has_indexes: ClassVar[bool] = True

    def __init__(self, registry: R, message_type: MessageType | None = None, **settings: Any) -> None:
        super().__init__(registry, None, **settings)
        self._message_type = message_type

    def _key(self, framed: Framed, path: MessagePath | None, context: Context) -> tuple[object, ...]:
        return () if self._message_type is not None else super()._key(framed, path, context)

    def _resolve(self, schema_id: SchemaId, path: MessagePath | None, context: Context) -> Steps[Resolved]:
        if self._message_type is not None:
            return Resolved(_reader(self._message_type))
        return (yield from super()._resolve(schema_id, path, context))

    def _reader(self, writer: ParsedSchema, reader: ParsedSchema | None, path: MessagePath | None) -> Reader:
        from google.protobuf.message_factory import GetMessageClass

        assert path is not None, "a Protobuf record has a path to its message"
        written = message_at(writer, path)
        if reader is None:
            return _reader(GetMessageClass(written))
        return _reader(GetMessageClass(message_at(reader, _path_in(_file_of(reader), written.full_name))))


class ProtobufDeserializer(_ProtobufDeserialization[Any], Deserializer):
    """Bytes to Protobuf messages, blocking."""


class AsyncProtobufDeserializer(_ProtobufDeserialization[Any], AsyncDeserializer):
    """Bytes to Protobuf messages, awaited."""


def message_at(schema: ParsedSchema, path: MessagePath) -> Descriptor:
    """Return the message of a schema that a path of indexes leads to. Raises ValueError."""
    from google.protobuf.descriptor_pool import DescriptorPool

    file = _file_of(schema)
    names: list[str] = []
    messages = file.message_type
    for index in path:
        if not 0 <= index < len(messages):
            where = f"message {'.'.join(names)!r}" if names else "the schema"
            raise ValueError(f"there is no message at {list(path)}: {where} has {len(messages)}")
        names.append(messages[index].name)
        messages = messages[index].nested_type
    pool = DescriptorPool()
    try:
        for one in cast("ProtobufSchema", schema).file_descriptors():
            pool.Add(one)
    except TypeError as error:
        raise ValueError(f"the schema cannot be used: {error}") from error
    return pool.FindMessageTypeByName(".".join([file.package, *names] if file.package else names))


def _file_of(schema: ParsedSchema) -> FileDescriptorProto:
    return cast("ProtobufSchema", schema).file_descriptor


def _descriptor(kind: Hashable) -> Any:
    descriptor = getattr(kind, "DESCRIPTOR", None)
    if descriptor is None:
        raise ValueError(f"a {getattr(kind, '__name__', kind)} is no Protobuf message")
    return descriptor


def _path_of(descriptor: Descriptor) -> MessagePath:
    """Return the path to a message in its own file."""
    outer = descriptor.containing_type
    if outer is None:
        return (list(descriptor.file.message_types_by_name).index(descriptor.name),)
    return (*_path_of(outer), [one.name for one in outer.nested_types].index(descriptor.name))


def _path_in(file: FileDescriptorProto, full_name: str) -> MessagePath:
    """Return the path to a message of that name. Raises ValueError."""
    package = f"{file.package}." if file.package else ""
    messages: list[DescriptorProto] = list(file.message_type)
    path: list[int] = []
    for name in full_name.removeprefix(package).split("."):
        names = [one.name for one in messages]
        if name not in names or not full_name.startswith(package):
            raise ValueError(f"the registered schema has no message {full_name!r}")
        path.append(names.index(name))
        messages = list(messages[path[-1]].nested_type)
    return tuple(path)


def _written(message: Message) -> bytes:
    from google.protobuf.message import EncodeError

    try:
        data: bytes = message.SerializeToString()
    except EncodeError as error:
        raise ValueError(str(error)) from error
    return data


def _reader(message_type: MessageType) -> Reader:
    from google.protobuf.message import DecodeError

    def read(data: bytes) -> Message:
        try:
            return message_type.FromString(data)
        except DecodeError as error:
            raise ValueError(str(error)) from error

    return read
