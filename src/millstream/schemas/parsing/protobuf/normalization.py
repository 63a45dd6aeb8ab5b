"""Elements in the form that equal schemas share, as Confluent's `normalize=true` makes it.

Types are named in full with a leading dot, fields and constants stand by number, imports and options by name, what is
reserved one by one; messages that descriptors have for maps become maps again. Messages and enums keep their order,
which the wire format counts by.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def normalized_file(file: ProtoFile, names: Names) -> ProtoFile:
    """Return the normalized form of a file; raises InvalidSchemaError for a type that is not defined."""
    return _Normalization(file, names).file()


class _Normalization:
    def __init__(self, file: ProtoFile, names: Names) -> None:
        self._file = file
        self._names = names

    def file(self) -> ProtoFile:
        file, package = self._file, self._file.package
        return ProtoFile(
            "" if file.syntax == "proto2" else file.syntax,
            package,
            sorted(set(file.imports)),
            sorted(set(file.public_imports)),
            sorted(set(file.weak_imports)),
            self._types(file.types, package),
            self._options(file.options, package),
            self._extends(file.extends, package),
            [
                ServiceElement(
                    service.name,
                    [self._rpc(rpc, package) for rpc in service.rpcs],
                    self._options(service.options, package),
                )
                for service in file.services
            ],
        )

    def _rpc(self, rpc: RpcElement, scope: str) -> RpcElement:
        return RpcElement(
            rpc.name,
            self._resolved(rpc.request, scope),
            self._resolved(rpc.response, scope),
            rpc.request_streaming,
            rpc.response_streaming,
            self._options(rpc.options, scope),
        )

    def _types(self, types: Sequence[MessageElement | EnumElement], scope: str) -> list[MessageElement | EnumElement]:
        return [
            self._message(type_, scope) if isinstance(type_, MessageElement) else self._enum(type_, scope)
            for type_ in types
            if not isinstance(type_, MessageElement) or not type_.is_map_entry
        ]

    def _message(self, message: MessageElement, scope: str) -> MessageElement:
        scope = f"{scope}.{message.name}" if scope else message.name
        oneofs = [
            OneOfElement(
                oneof.name,
                self._fields(oneof.fields, scope),
                self._groups(oneof.groups, scope),
                self._options(oneof.options, scope),
            )
            for oneof in message.oneofs
            if oneof.fields or oneof.groups
        ]
        return MessageElement(
            message.name,
            self._fields(message.fields, scope),
            sorted(oneofs, key=lambda oneof: oneof.fields[0].number if oneof.fields else oneof.groups[0].number),
            self._types(message.types, scope),
            self._options(message.options, scope),
            _reserved(message.reserved),
            self._extensions(message.extensions, scope),
            self._groups(message.groups, scope),
            self._extends(message.extends, scope),
        )

    def _enum(self, enum: EnumElement, scope: str) -> EnumElement:
        constants = [
            EnumConstant(one.name, one.number, self._options(one.options, scope))
            for one in sorted(enum.constants, key=lambda one: (one.number, one.name))
        ]
        return EnumElement(enum.name, constants, self._options(enum.options, scope), _reserved(enum.reserved))

    def _groups(self, groups: Sequence[GroupElement], scope: str) -> list[GroupElement]:
        ordered = sorted(groups, key=lambda group: group.number)
        return [GroupElement(one.name, one.number, one.label, self._message(one.message, scope)) for one in ordered]

    def _extensions(self, extensions: Sequence[ExtensionsElement], scope: str) -> list[ExtensionsElement]:
        single = [
            ExtensionsElement([_as_range(value)], self._options(one.options, scope))
            for one in extensions
            for value in one.values
        ]
        return sorted(single, key=lambda one: _order(one.values[0]))

    def _extends(self, extends: Sequence[ExtendElement], scope: str) -> list[ExtendElement]:
        merged: dict[str, list[FieldElement]] = {}
        for extend in extends:
            merged.setdefault(self._resolved(extend.name, scope), []).extend(extend.fields)
        return [ExtendElement(name, self._fields(fields, scope)) for name, fields in merged.items()]

    def _fields(self, fields: Sequence[FieldElement], scope: str) -> list[FieldElement]:
        return [self._field(field, scope) for field in sorted(fields, key=lambda field: field.number)]

    def _field(self, field: FieldElement, scope: str) -> FieldElement:
        label, type_ = field.label, field.type
        map_types = field.map_types
        if map_types is None and type_ not in SCALARS:
            type_ = self._resolved(type_, scope)
            map_types = self._names.types[type_[1:]].map_types
        if map_types is not None:
            key, value = map_types
            type_ = f"map<{key}, {value if value in SCALARS else self._resolved(value, scope)}>"
            label = ""
        return FieldElement(
            field.name,
            type_,
            field.number,
            label,
            self._options(field.options, scope),
            field.default,
            field.json_name,
        )

    def _options(self, options: Sequence[Option], scope: str) -> list[Option]:
        return sorted((self._option(option, scope) for option in options), key=lambda option: option.name)

    def _option(self, option: Option, scope: str) -> Option:
        name, value, path = option.name, _sorted(option.value), option.path
        if option.is_custom:
            resolved = self._names.resolve_extension(name, scope)
            if resolved is not None:
                # (name).a.b = 1 says what (name) = {a: {b: 1}} says.
                name = resolved
                if "(" not in path:
                    for part in reversed(path.split(".")[1:]):
                        value = Value("map", {part: value})
                    path = ""
        return Option(name, value, option.is_custom, path)

    def _resolved(self, name: str, scope: str) -> str:
        full_name = self._names.resolve(name, scope)
        if full_name is None:
            raise InvalidSchemaError(f"the type {name!r} in {scope or 'the file'} is not defined, and not imported")
        return f".{full_name}"


def _sorted(value: Value) -> Value:
    if isinstance(value.value, dict):
        return Value("map", {name: _sorted(value.value[name]) for name in sorted(value.value)})
    if isinstance(value.value, list):
        items = [_sorted(item) for item in value.value]
        return items[0] if len(items) == 1 else Value("list", items)
    return value


def _reserved(reserved: Sequence[ReservedElement]) -> list[ReservedElement]:
    values = [_as_range(value) if not isinstance(value, str) else value for one in reserved for value in one.values]
    return [ReservedElement([value]) for value in sorted(values, key=_order)]


def _as_range(value: int | tuple[int, int]) -> int | tuple[int, int]:
    return value[0] if isinstance(value, tuple) and value[0] == value[1] else value


def _order(value: Reserved) -> tuple[int, str]:
    if isinstance(value, str):
        return 2**31 - 1, value
    start = value[0] if isinstance(value, tuple) else value
    return start, str(value)
