"""Protobuf schemas: .proto text, or a file descriptor in base64, with the files it imports."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import ClassVar

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError

from millstream.schemas.parsing.json_text import check_size, check_unicode
from millstream.schemas.parsing.parsed_schema import InvalidSchemaError, ParsedSchema, Reference, SchemaType
from millstream.schemas.parsing.protobuf.descriptors import descriptor_of_file, file_of_descriptor
from millstream.schemas.parsing.protobuf.elements import MessageElement, ProtoFile
from millstream.schemas.parsing.protobuf.known_files import is_google, known_descriptor, known_file
from millstream.schemas.parsing.protobuf.names import Names
from millstream.schemas.parsing.protobuf.normalization import normalized_file
from millstream.schemas.parsing.protobuf.reader import read_proto
from millstream.schemas.parsing.protobuf.writer import write_proto

FILE_NAME = "default"
"""What the file of a schema is called where something must have a name: schemas are imported by their references'."""


class ProtobufSchema(ParsedSchema):
    """A parsed .proto file: `file` as elements, `dependencies` likewise by the names they are imported by."""

    type: ClassVar[SchemaType] = SchemaType.PROTOBUF

    def __init__(
        self,
        file: ProtoFile,
        dependencies: Mapping[str, ProtoFile],
        references: Iterable[Reference],
        resolved: Mapping[str, str] | None,
    ) -> None:
        super().__init__(write_proto(file), references, resolved)
        self.file = file
        self.dependencies = dict(dependencies)

    @property
    def name(self) -> str | None:
        """The full name of the first message, or else of the first enum."""
        messages = [type_ for type_ in self.file.types if isinstance(type_, MessageElement)]
        first = next(iter([*messages, *self.file.types]), None)
        if first is None:
            return None
        return f"{self.file.package}.{first.name}" if self.file.package else first.name

    @cached_property
    def names(self) -> Names:
        """Every type the file has or may use."""
        return Names(self.file, self.dependencies)

    @cached_property
    def file_descriptor(self) -> descriptor_pb2.FileDescriptorProto:
        """The file as protobuf's libraries know it, named `default`; raises InvalidSchemaError for undefined types."""
        return descriptor_of_file(self.file, self.names, FILE_NAME)

    def file_descriptors(self) -> list[descriptor_pb2.FileDescriptorProto]:
        """Return the descriptors of all files it imports, each behind those it imports, and its own at the end."""
        found: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        waiting = [(name, False) for name in reversed(self.file.all_imports)]
        open_: set[str] = set()
        while waiting:
            name, imports_are_done = waiting.pop()
            file = self.dependencies.get(name)
            if name in found or file is None:
                continue
            if imports_are_done:
                if is_google(name) and name not in self.resolved:
                    found[name] = known_descriptor(name)
                else:
                    found[name] = descriptor_of_file(file, Names(file, self.dependencies), name)
            elif name not in open_:
                open_.add(name)
                waiting.append((name, True))
                waiting += [(inner, False) for inner in file.all_imports]
        return [*found.values(), self.file_descriptor]

    def formatted(self, form: str) -> str:
        """Return the text in another form: `serialized` is the descriptor in base64; any other is `text`."""
        if form == "serialized":
            return base64.b64encode(self.file_descriptor.SerializeToString()).decode()
        return self.text

    def normalized(self) -> ProtobufSchema:
        """The schema with full names, and everything in order whose order means nothing."""
        file = normalized_file(self.file, self.names)
        return ProtobufSchema(file, self.dependencies, sorted(set(self.references)), self.resolved)


def parse_protobuf(
    text: str,
    references: Iterable[Reference] = (),
    resolved: Mapping[str, str] | None = None,
    *,
    strict: bool = False,
) -> ProtobufSchema:
    """Parse `text`, with the files it refers to; every type must be defined there or in a file that all know.

    `strict` also builds the file as protobuf's library does, which refuses doubled names and numbers and the like.
    """
    resolved = dict(resolved or {})
    check_size(text, resolved)
    file = _read(text)
    dependencies = {}
    for name, referenced in resolved.items():
        try:
            dependencies[name] = _read(referenced)
        except InvalidSchemaError as error:
            raise InvalidSchemaError(f"reference {name!r}: {error}") from error
    _add_known(file, dependencies)
    schema = ProtobufSchema(file, dependencies, references, resolved)
    if not schema.text.isascii():
        check_unicode(schema.text)
    if strict:
        _build(schema)
    else:
        normalized_file(file, schema.names)  # refuses types that are not defined
    return schema


def _read(text: str) -> ProtoFile:
    try:
        return read_proto(text)
    except InvalidSchemaError as error:
        try:
            descriptor = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError, DecodeError):
            raise error from None
        return read_proto(write_proto(file_of_descriptor(descriptor)))


def _add_known(file: ProtoFile, dependencies: dict[str, ProtoFile]) -> None:
    """Add the files that all know, as far as one of the files imports them."""
    waiting = [file, *dependencies.values()]
    while waiting:
        for name in waiting.pop().all_imports:
            known = known_file(name) if name not in dependencies else None
            if known is not None:
                dependencies[name] = known
                waiting.append(known)


def _build(schema: ProtobufSchema) -> None:
    for name in schema.file.all_imports:
        if name not in schema.dependencies:
            raise InvalidSchemaError(f"the import {name!r} is none of the references, and no file that all know")
    pool = descriptor_pool.DescriptorPool()
    for descriptor in schema.file_descriptors():
        try:
            pool.AddSerializedFile(descriptor.SerializeToString())
            pool.FindFileByName(descriptor.name)
        except (TypeError, KeyError) as error:
            reason = str(error).strip("'\"").removeprefix("Couldn't build proto file into descriptor pool: ")
            raise InvalidSchemaError(f"{descriptor.name}: {reason[:300]}") from None
