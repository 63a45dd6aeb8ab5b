"""Between elements and descriptors, the form that protobuf's own libraries know files in.

A descriptor holds what text says but for custom options, which only those who have their extensions can encode. What
is short in text is long there: a map is a repeated field of a nested message, an optional field of proto3 a oneof of
one. Nested messages keep the order of the text, those that maps need come behind them, since a message is named by its
index on the wire.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf import descriptor_pb2 as pb

from millstream.schemas.parsing.parsed_schema import InvalidSchemaError
from millstream.schemas.parsing.protobuf.elements import (
    SCALARS,
    EnumConstant,
    EnumElement,
    ExtendElement,
    ExtensionsElement,
    FieldElement,
    GroupElement,
    MessageElement,
    OneOfElement,
    Option,
    ProtoFile,
    Reserved,
    ReservedElement,
    RpcElement,
    ServiceElement,
    Value,
)
from millstream.schemas.parsing.protobuf.names import Names

_Type: Final = pb.FieldDescriptorProto.Type
_Label: Final = pb.FieldDescriptorProto.Label
_FLOATING: Final = (_Type.TYPE_DOUBLE, _Type.TYPE_FLOAT)


def descriptor_of_file(file: ProtoFile, names: Names, name: str) -> pb.FileDescriptorProto:
    """Return the descriptor of a file, every type's name in full; `name` is what others import it by."""
    descriptor = pb.FileDescriptorProto(name=name, package=file.package)
    if file.is_edition:
        try:
            descriptor.edition = pb.Edition.Value(f"EDITION_{file.syntax}")
        except ValueError:
            raise InvalidSchemaError(f"the edition {file.syntax[:50]!r} is not known") from None
        descriptor.syntax = "editions"
    elif file.is_proto3:
        descriptor.syntax = "proto3"
    descriptor.dependency.extend(file.all_imports)
    first_public = len(file.imports)
    first_weak = first_public + len(file.public_imports)
    descriptor.public_dependency.extend(range(first_public, first_weak))
    descriptor.weak_dependency.extend(range(first_weak, len(descriptor.dependency)))
    _set_options(descriptor, file.options)
    writer = _DescriptorWriter(file, names)
    for type_ in file.types:
        if isinstance(type_, MessageElement):
            writer.message(type_, file.package, descriptor.message_type.add())
        else:
            writer.enum(type_, descriptor.enum_type.add())
    for extend in file.extends:
        for field in extend.fields:
            writer.extension(extend, field, file.package, descriptor.extension.add())
    for service in file.services:
        writer.service(service, descriptor.service.add())
    return descriptor


class _DescriptorWriter:
    def __init__(self, file: ProtoFile, names: Names) -> None:
        self._file = file
        self._names = names

    def message(self, message: MessageElement, scope: str, descriptor: pb.DescriptorProto) -> None:
        scope = f"{scope}.{message.name}" if scope else message.name
        descriptor.name = message.name
        _set_options(descriptor, message.options)
        for type_ in message.types:
            if isinstance(type_, MessageElement):
                self.message(type_, scope, descriptor.nested_type.add())
            else:
                self.enum(type_, descriptor.enum_type.add())
        for oneof in message.oneofs:
            _set_options(descriptor.oneof_decl.add(name=oneof.name), oneof.options)
        for field in message.fields:
            self._message_field(field, scope, descriptor)
        for group in message.groups:
            self._group(group, scope, descriptor, descriptor.field.add())
        for index, oneof in enumerate(message.oneofs):
            for field in oneof.fields:
                self._field(field, scope, descriptor.field.add(oneof_index=index))
            for group in oneof.groups:
                self._group(group, scope, descriptor, descriptor.field.add(oneof_index=index))
        if self._file.is_proto3:
            for field_descriptor in descriptor.field:
                if field_descriptor.proto3_optional:
                    field_descriptor.oneof_index = len(descriptor.oneof_decl)
                    descriptor.oneof_decl.add(name=f"_{field_descriptor.name}")
        for one in message.reserved:
            for value in one.values:
                _add_reserved(descriptor, value, after_end=1)
        for extensions in message.extensions:
            for range_ in extensions.values:
                start, end = range_ if isinstance(range_, tuple) else (range_, range_)
                descriptor.extension_range.add(start=start, end=end + 1)
        for extend in message.extends:
            for field in extend.fields:
                self.extension(extend, field, scope, descriptor.extension.add())

    def _message_field(self, field: FieldElement, scope: str, descriptor: pb.DescriptorProto) -> None:
        types = field.map_types
        field_descriptor = descriptor.field.add()
        if types is None:
            self._field(field, scope, field_descriptor)
            return
        camel = "".join(part[:1].upper() + part[1:] for part in field.name.split("_"))
        entry = MessageElement(
            f"{camel}Entry",
            [FieldElement("key", types[0], 1), FieldElement("value", types[1], 2)],
            options=[Option("map_entry", Value("boolean", "true"))],
        )
        self._plain_field(field, field_descriptor)
        field_descriptor.label = _Label.LABEL_REPEATED
        field_descriptor.type = _Type.TYPE_MESSAGE
        field_descriptor.type_name = f".{scope}.{entry.name}"
        self.message(entry, scope, descriptor.nested_type.add())

    def _plain_field(self, field: FieldElement, descriptor: pb.FieldDescriptorProto) -> None:
        descriptor.name = field.name
        descriptor.number = field.number
        if field.json_name is not None:
            descriptor.json_name = field.json_name
        _set_options(descriptor, field.options)

    def _field(self, field: FieldElement, scope: str, descriptor: pb.FieldDescriptorProto) -> None:
        self._plain_field(field, descriptor)
        descriptor.label = _Label.Value(f"LABEL_{(field.label or 'optional').upper()}")
        if self._file.is_proto3 and field.label == "optional":
            descriptor.proto3_optional = True
        if field.type in SCALARS:
            descriptor.type = _Type.Value(f"TYPE_{field.type.upper()}")
        else:
            descriptor.type_name = f".{self._resolved(field.type, scope)}"
            is_message = isinstance(self._names.types[descriptor.type_name[1:]].element, MessageElement)
            descriptor.type = _Type.TYPE_MESSAGE if is_message else _Type.TYPE_ENUM
        if field.default is not None:
            descriptor.default_value = _default_text(field.default, descriptor.type)

    def _group(
        self, group: GroupElement, scope: str, parent: pb.DescriptorProto, descriptor: pb.FieldDescriptorProto
    ) -> None:
        self.message(group.message, scope, parent.nested_type.add())
        descriptor.name = group.name.lower()
        descriptor.number = group.number
        descriptor.label = _Label.Value(f"LABEL_{(group.label or 'optional').upper()}")
        descriptor.type = _Type.TYPE_GROUP
        descriptor.type_name = f".{scope}.{group.name}"

    def extension(
        self, extend: ExtendElement, field: FieldElement, scope: str, descriptor: pb.FieldDescriptorProto
    ) -> None:
        self._field(field, scope, descriptor)
        descriptor.extendee = f".{self._resolved(extend.name, scope)}"

    def enum(self, enum: EnumElement, descriptor: pb.EnumDescriptorProto) -> None:
        descriptor.name = enum.name
        _set_options(descriptor, enum.options)
        for constant in enum.constants:
            _set_options(descriptor.value.add(name=constant.name, number=constant.number), constant.options)
        for one in enum.reserved:
            for value in one.values:
                _add_reserved(descriptor, value, after_end=0)

    def service(self, service: ServiceElement, descriptor: pb.ServiceDescriptorProto) -> None:
        descriptor.name = service.name
        _set_options(descriptor, service.options)
        for rpc in service.rpcs:
            method = descriptor.method.add(
                name=rpc.name,
                input_type=f".{self._resolved(rpc.request, self._file.package)}",
                output_type=f".{self._resolved(rpc.response, self._file.package)}",
            )
            if rpc.request_streaming:
                method.client_streaming = True
            if rpc.response_streaming:
                method.server_streaming = True
            _set_options(method, rpc.options)

    def _resolved(self, name: str, scope: str) -> str:
        full_name = self._names.resolve(name, scope)
        if full_name is None:
            raise InvalidSchemaError(f"the type {name!r} in {scope or 'the file'} is not defined, and not imported")
        return full_name


def _add_reserved(descriptor: Any, value: Reserved, *, after_end: int) -> None:
    if isinstance(value, str):
        descriptor.reserved_name.append(value)
        return
    start, end = value if isinstance(value, tuple) else (value, value)
    descriptor.reserved_range.add(start=start, end=end + after_end)


def _default_text(default: Value, type_: Any) -> str:
    text = str(default.value)
    if type_ == _Type.TYPE_BYTES:
        return "".join(char if " " <= char <= "~" and char not in "\\\"'" else f"\\{ord(char):03o}" for char in text)
    if default.kind == "number" and type_ not in _FLOATING:
        return str(
            int(text, 16) if "x" in text.lower() else int(float(text)) if not text.lstrip("-").isdigit() else text
        )
    return text


def _set_options(descriptor: Any, options: Sequence[Option]) -> None:
    """Set what is known among options; custom ones stay in the text."""
    for option in options:
        if not option.is_custom:
            _set(descriptor.options, option.name.split("."), option.value)


def _set(message: Any, path: list[str], value: Value) -> None:
    field = message.DESCRIPTOR.fields_by_name.get(path[0])
    if field is None:
        raise InvalidSchemaError(f"there is no option {path[0][:50]!r} for {message.DESCRIPTOR.name}")
    if field.message_type is not None and (len(path) > 1 or isinstance(value.value, dict)):
        inner = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
        members = value.value if len(path) == 1 else {path[1]: value}
        assert isinstance(members, dict), members
        for name, member in members.items():
            _set(inner, [name, *path[2:]], member)
        return
    try:
        converted = _converted(field, value)
        if field.is_repeated:
            getattr(message, field.name).append(converted)
        else:
            setattr(message, field.name, converted)
    except (TypeError, ValueError, KeyError):
        raise InvalidSchemaError(f"the option {field.name!r} can't be {str(value.value)[:50]}") from None


def _converted(field: Any, value: Value) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values_by_name[value.value].number
    if field.type == field.TYPE_BOOL:
        return {"true": True, "false": False}[str(value.value)]
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        if value.kind != "string":
            raise ValueError(value.kind)
        return value.value
    return float(str(value.value)) if field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT) else int(str(value.value), 0)


# The other way


def file_of_descriptor(descriptor: pb.FileDescriptorProto) -> ProtoFile:
    """Return the elements of a descriptor, names in full as it has them."""
    public, weak = set(descriptor.public_dependency), set(descriptor.weak_dependency)
    syntax = descriptor.syntax
    if syntax == "editions":
        syntax = pb.Edition.Name(descriptor.edition).removeprefix("EDITION_")
    file = ProtoFile(
        syntax,
        descriptor.package,
        [name for index, name in enumerate(descriptor.dependency) if index not in public | weak],
        [descriptor.dependency[index] for index in descriptor.public_dependency],
        [descriptor.dependency[index] for index in descriptor.weak_dependency],
        options=_options(descriptor),
    )
    for message in descriptor.message_type:
        file.types.append(_message(message, file))
    file.types += [_enum(enum) for enum in descriptor.enum_type]
    file.extends = _extends(descriptor.extension, file)
    file.services = [_service(service) for service in descriptor.service]
    return file


def _message(descriptor: pb.DescriptorProto, file: ProtoFile) -> MessageElement:
    message = MessageElement(descriptor.name, options=_options(descriptor))
    oneofs = [OneOfElement(one.name, options=_options(one)) for one in descriptor.oneof_decl]
    groups = {}
    for field in descriptor.field:
        if field.type == _Type.TYPE_GROUP:
            groups[field.type_name.rpartition(".")[2]] = field
            continue
        element = _field(field, file)
        if field.HasField("oneof_index") and not field.proto3_optional:
            element.label = ""
            oneofs[field.oneof_index].fields.append(element)
        else:
            message.fields.append(element)
    for nested in descriptor.nested_type:
        element_of_nested = _message(nested, file)
        if nested.name not in groups:
            message.types.append(element_of_nested)
            continue
        field = groups[nested.name]
        group = GroupElement(nested.name, field.number, _label(field, file), element_of_nested)
        if field.HasField("oneof_index"):
            group.label = ""
            oneofs[field.oneof_index].groups.append(group)
        else:
            message.groups.append(group)
    message.oneofs = [oneof for oneof in oneofs if oneof.fields or oneof.groups]
    message.types += [_enum(enum) for enum in descriptor.enum_type]
    message.reserved = [ReservedElement([_range(one.start, one.end - 1)]) for one in descriptor.reserved_range]
    message.reserved += [ReservedElement([name]) for name in descriptor.reserved_name]
    message.extensions = [ExtensionsElement([_range(one.start, one.end - 1)]) for one in descriptor.extension_range]
    message.extends = _extends(descriptor.extension, file)
    return message


def _range(start: int, end: int) -> int | tuple[int, int]:
    return start if start == end else (start, end)


def _label(field: pb.FieldDescriptorProto, file: ProtoFile) -> str:
    if field.proto3_optional:
        return "optional"
    if field.label == _Label.LABEL_REPEATED:
        return "repeated"
    if file.is_proto3 or file.is_edition:
        return ""
    return "required" if field.label == _Label.LABEL_REQUIRED else "optional"


def _field(field: pb.FieldDescriptorProto, file: ProtoFile) -> FieldElement:
    type_ = field.type_name or _Type.Name(field.type).removeprefix("TYPE_").lower()
    element = FieldElement(field.name, type_, field.number, _label(field, file), _options(field))
    if field.HasField("json_name"):
        element.json_name = field.json_name
    if field.HasField("default_value") and not file.is_proto3:
        text = field.default_value
        if field.type == _Type.TYPE_BYTES:
            text = re.sub(r"\\([0-7]{1,3})", lambda match: chr(int(match[1], 8) & 255), text)
        kinds = {_Type.TYPE_STRING: "string", _Type.TYPE_BYTES: "string", _Type.TYPE_BOOL: "boolean"}
        element.default = Value(kinds.get(field.type, "enum" if field.type == _Type.TYPE_ENUM else "number"), text)
    return element


def _extends(fields: Sequence[pb.FieldDescriptorProto], file: ProtoFile) -> list[ExtendElement]:
    extends: dict[str, ExtendElement] = {}
    for field in fields:
        extends.setdefault(field.extendee, ExtendElement(field.extendee)).fields.append(_field(field, file))
    return list(extends.values())


def _enum(descriptor: pb.EnumDescriptorProto) -> EnumElement:
    return EnumElement(
        descriptor.name,
        [EnumConstant(one.name, one.number, _options(one)) for one in descriptor.value],
        _options(descriptor),
        [ReservedElement([_range(one.start, one.end)]) for one in descriptor.reserved_range]
        + [ReservedElement([name]) for name in descriptor.reserved_name],
    )


def _service(descriptor: pb.ServiceDescriptorProto) -> ServiceElement:
    rpcs = [
        RpcElement(one.name, one.input_type, one.output_type, one.client_streaming, one.server_streaming, _options(one))
        for one in descriptor.method
    ]
    return ServiceElement(descriptor.name, rpcs, _options(descriptor))


def _options(descriptor: Any) -> list[Option]:
    options: list[Option] = []
    for field, value in descriptor.options.ListFields():
        if field.is_extension or field.name == "uninterpreted_option":
            continue
        values = value if field.is_repeated else [value]
        options += [Option(field.name, _value(field, one)) for one in values]
    return options


def _value(field: Any, value: Any) -> Value:
    if field.message_type is not None:
        members = {
            inner.name: Value("list", [_value(inner, one) for one in content])
            if inner.is_repeated
            else _value(inner, content)
            for inner, content in value.ListFields()
            if not inner.is_extension
        }
        return Value("map", members)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return Value("enum", known.name if known is not None else str(value))
    if field.type == field.TYPE_BOOL:
        return Value("boolean", "true" if value else "false")
    if field.type == field.TYPE_STRING:
        return Value("string", value)
    return Value("number", str(value))
