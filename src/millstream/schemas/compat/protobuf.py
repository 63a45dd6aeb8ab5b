"""Protobuf: whether a reader's file can take what was written with a writer's, as Confluent's registry decides.

Messages and enums are matched by name, fields by number wherever in their message they are. Types count by the wire:
int32, int64, uint32, uint64, bool and enums are one group, string and bytes another, sint, fixed32, fixed64, float and
double are by themselves. Messages of other files are compared where fields use them, unless both sides refer to the
same version of the same subject. Names of fields don't count.

Paths lead through names of messages and oneofs to numbers: `#/Order/Line/3`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from millstream.schemas.compat.incompatibility import Incompatibility
from millstream.schemas.compat.trampoline import Steps, run
from millstream.schemas.parsing.protobuf import ProtobufSchema
from millstream.schemas.parsing.protobuf.elements import (
    SCALARS,
    EnumElement,
    FieldElement,
    MessageElement,
    OneOfElement,
)
from millstream.schemas.parsing.protobuf.names import TypeInfo

COMPATIBLE_KINDS: Final = frozenset(
    (
        "ENUM_ADDED",
        "ENUM_CONST_ADDED",
        "ENUM_CONST_CHANGED",
        "ENUM_CONST_REMOVED",
        "ENUM_REMOVED",
        "FIELD_ADDED",
        "FIELD_NAME_CHANGED",
        "FIELD_REMOVED",
        "FIELD_STRING_OR_BYTES_LABEL_CHANGED",
        "MESSAGE_ADDED",
        "MESSAGE_MOVED",
        "ONEOF_ADDED",
        "ONEOF_FIELD_ADDED",
        "ONEOF_FIELD_MOVED_TO_TOP_LEVEL",
        "ONEOF_REMOVED",
    )
)

_SENTENCES: Final = {
    "PACKAGE_CHANGED": "the package of the {reader} schema is not that of the {writer} one; keep it",
    "MESSAGE_REMOVED": "the {reader} schema lacks a message that the {writer} one has; keep it",
    "FIELD_KIND_CHANGED": (
        "the field is a message, a map or a scalar in the {reader} schema, and another of these in the {writer} one;"
        " keep it, and give the new field a new number"
    ),
    "FIELD_SCALAR_KIND_CHANGED": (
        "the field's type in the {reader} schema is written otherwise on the wire than that of the {writer} one; keep"
        " it, and give the new field a new number"
    ),
    "FIELD_NAMED_TYPE_CHANGED": (
        "the field's message in the {reader} schema can't take that of the {writer} one; keep it, and give the new"
        " field a new number"
    ),
    "FIELD_NUMERIC_LABEL_CHANGED": (
        "the number is optional, required or repeated in the {reader} schema, and another of these in the {writer} one;"
        " keep its label"
    ),
    "REQUIRED_FIELD_ADDED": "the {reader} schema requires a field that the {writer} one lacks; make it optional",
    "REQUIRED_FIELD_REMOVED": "the {reader} schema lacks a field that the {writer} one requires; keep it",
    "ONEOF_FIELD_REMOVED": "the {reader} schema lacks a field of a oneof of the {writer} one; keep it",
    "MULTIPLE_FIELDS_MOVED_TO_ONEOF": (
        "the {reader} schema has fields in one oneof that the {writer} one lets be set together; move one at the most"
    ),
    "FIELD_MOVED_TO_EXISTING_ONEOF": (
        "the {reader} schema has a field in a oneof together with others that the {writer} one lets be set beside it;"
        " leave it where it was"
    ),
}

_SCALAR_GROUPS: Final = {
    "int32": "number",
    "int64": "number",
    "uint32": "number",
    "uint64": "number",
    "bool": "number",
    "enum": "number",
    "sint32": "signed",
    "sint64": "signed",
    "string": "bytes",
    "bytes": "bytes",
    "fixed32": "fixed32",
    "sfixed32": "fixed32",
    "fixed64": "fixed64",
    "sfixed64": "fixed64",
    "float": "float",
    "double": "double",
}
assert SCALARS | {"enum"} == _SCALAR_GROUPS.keys()


class Difference(NamedTuple):
    """What differs (a kind by Confluent's name) and where."""

    kind: str
    path: str


Found: TypeAlias = list[Difference]


def protobuf_incompatibilities(
    reader: ProtobufSchema, writer: ProtobufSchema, reader_is: str, writer_is: str
) -> list[Incompatibility]:
    """Return why `reader` can't take what `writer` wrote; empty where it can."""
    return [
        Incompatibility(kind, path, _SENTENCES[kind].format(reader=reader_is, writer=writer_is))
        for kind, path in differences(writer, reader)
        if kind not in COMPATIBLE_KINDS
    ]


def differences(writer: ProtobufSchema, reader: ProtobufSchema) -> Found:
    """Return every difference from `writer` to `reader`, compatible ones too."""
    return [Difference(kind, f"#/{path}") for kind, path in run(_Walk(writer, reader).files())]


class _Place(NamedTuple):
    """Where the walk is: the path that is told, and the full names of the scopes on both sides."""

    path: str
    old_scope: str
    new_scope: str

    def inside(self, name: str) -> _Place:
        return _Place(
            _joined(self.path, name, "/"), _joined(self.old_scope, name, "."), _joined(self.new_scope, name, ".")
        )


def _joined(before: str, name: str, separator: str) -> str:
    return f"{before}{separator}{name}" if before else name


class _Walk:
    def __init__(self, old: ProtobufSchema, new: ProtobufSchema) -> None:
        self._old = old
        self._new = new
        self._old_versions = {one.name: (one.subject, one.version) for one in old.references}
        self._new_versions = {one.name: (one.subject, one.version) for one in new.references}
        # Pairs of messages of other files that were compared, or are being compared; by identity.
        self._compared: dict[tuple[int, int], Found] = {}

    def files(self) -> Steps[Found]:
        old, new = self._old.file, self._new.file
        found = [Difference("PACKAGE_CHANGED", "")] if old.package != new.package else []
        found += yield self._types(old.types, new.types, _Place("", old.package, new.package))
        return found

    def _types(
        self,
        old: Sequence[MessageElement | EnumElement],
        new: Sequence[MessageElement | EnumElement],
        place: _Place,
    ) -> Steps[Found]:
        found: Found = []
        old_messages = {one.name: (index, one) for index, one in enumerate(_messages(old))}
        new_messages = {one.name: (index, one) for index, one in enumerate(_messages(new))}
        for name in {**old_messages, **new_messages}:
            inside = place.inside(name)
            if name not in new_messages:
                if not old_messages[name][1].is_map_entry:
                    found.append(Difference("MESSAGE_REMOVED", inside.path))
            elif name not in old_messages:
                if not new_messages[name][1].is_map_entry:
                    found.append(Difference("MESSAGE_ADDED", inside.path))
            else:
                found += yield self._message(old_messages[name][1], new_messages[name][1], inside)
                if old_messages[name][0] != new_messages[name][0]:
                    found.append(Difference("MESSAGE_MOVED", inside.path))
        old_enums = {one.name: one for one in old if isinstance(one, EnumElement)}
        new_enums = {one.name: one for one in new if isinstance(one, EnumElement)}
        for name in {**old_enums, **new_enums}:
            path = _joined(place.path, name, "/")
            if name not in new_enums or name not in old_enums:
                found.append(Difference("ENUM_REMOVED" if name in old_enums else "ENUM_ADDED", path))
            else:
                found += _enum(old_enums[name], new_enums[name], path)
        return found

    def _message(self, old: MessageElement, new: MessageElement, place: _Place) -> Steps[Found]:
        old_fields, old_oneofs = _fields(old)
        new_fields, new_oneofs = _fields(new)
        found = _oneofs(old, new, place.path)
        survivors = {oneof for number, oneof in old_oneofs.items() if number in new_fields}
        survivors.update(one.name for one in new.oneofs)
        for number in sorted({**old_fields, **new_fields}):
            was, now = old_fields.get(number), new_fields.get(number)
            oneof_before, oneof_now = old_oneofs.get(number), new_oneofs.get(number)
            path = _joined(place.path, str(number), "/")
            if now is None:
                assert was is not None
                if oneof_before is None:
                    kind = "REQUIRED_FIELD_REMOVED" if was.label == "required" else "FIELD_REMOVED"
                    found.append(Difference(kind, path))
                elif oneof_before in survivors:
                    # A oneof that went with all its fields is no loss; one that lost some of them is.
                    path = _joined(place.path, f"{oneof_before}/{number}", "/")
                    found.append(Difference("ONEOF_FIELD_REMOVED", path))
                continue
            if oneof_now is not None:
                path = _joined(place.path, f"{oneof_now}/{number}", "/")
            if was is None:
                kind = "REQUIRED_FIELD_ADDED" if now.label == "required" else "FIELD_ADDED"
                found.append(Difference("ONEOF_FIELD_ADDED" if oneof_now is not None else kind, path))
                continue
            if oneof_before is not None and oneof_now is None:
                found.append(Difference("ONEOF_FIELD_MOVED_TO_TOP_LEVEL", path))
            if was.name != now.name:
                found.append(Difference("FIELD_NAME_CHANGED", path))
            found += yield self._field_types(was.type, now.type, (was.label, now.label), place._replace(path=path))
        found += yield self._types(old.types, new.types, place)
        return found

    def _field_types(self, old: str, new: str, labels: tuple[str, str] | None, place: _Place) -> Steps[Found]:
        """Compare two fields' types; `labels` where both have one that counts."""
        old_name, new_name = self._old_name(old, place), self._new_name(new, place)
        old_info = self._old.names.types.get(old_name or "")
        new_info = self._new.names.types.get(new_name or "")
        old_map, new_map = _map_types(old, old_info), _map_types(new, new_info)
        kinds = _kind(old, old_info, old_map), _kind(new, new_info, new_map)
        if kinds[0] != kinds[1]:
            return [Difference("FIELD_KIND_CHANGED", place.path)]
        if kinds[0] == "map":
            assert old_map is not None, old
            assert new_map is not None, new
            found: Found = yield self._field_types(old_map[0], new_map[0], None, place)
            found = found + (yield self._field_types(old_map[1], new_map[1], None, place))
            return found
        if kinds[0] == "scalar":
            return _scalars("enum" if old_info else old, "enum" if new_info else new, labels, place.path)
        if old_info is None or new_info is None or old_name is None or new_name is None:
            return [Difference("FIELD_NAMED_TYPE_CHANGED", place.path)] if old != new else []
        found = yield self._message_types((old_name, old_info), (new_name, new_info), place.path)
        return found

    def _message_types(self, old: tuple[str, TypeInfo], new: tuple[str, TypeInfo], path: str) -> Steps[Found]:
        (old_name, old_info), (new_name, new_info) = old, new
        local_name = old_name.removeprefix(f"{old_info.package}.") if old_info.package else old_name
        if local_name != (new_name.removeprefix(f"{new_info.package}.") if new_info.package else new_name):
            return [Difference("FIELD_NAMED_TYPE_CHANGED", path)]
        old_version = self._old_versions.get(old_info.file) if old_info.file else ()
        new_version = self._new_versions.get(new_info.file) if new_info.file else ()
        if old_version is not None and old_version == new_version:
            return []  # both are local, and compared where they are, or both are of the same version of a subject
        pair = (id(old_info.element), id(new_info.element))
        if pair not in self._compared:
            self._compared[pair] = []
            assert isinstance(old_info.element, MessageElement), old
            assert isinstance(new_info.element, MessageElement), new
            inside = _Place(local_name.replace(".", "/"), old_name, new_name)
            self._compared[pair] = yield self._message(old_info.element, new_info.element, inside)
            found = self._compared[pair]
        else:
            found = []  # told where the pair was met first
        if any(kind not in COMPATIBLE_KINDS for kind, _ in self._compared[pair]):
            return [*found, Difference("FIELD_NAMED_TYPE_CHANGED", path)]
        return found

    def _old_name(self, type_: str, place: _Place) -> str | None:
        return None if type_ in SCALARS else self._old.names.resolve(type_, place.old_scope)

    def _new_name(self, type_: str, place: _Place) -> str | None:
        return None if type_ in SCALARS else self._new.names.resolve(type_, place.new_scope)


def _messages(types: Sequence[MessageElement | EnumElement]) -> list[MessageElement]:
    return [one for one in types if isinstance(one, MessageElement)]


def _fields(message: MessageElement) -> tuple[dict[int, FieldElement], dict[int, str]]:
    """Return all fields of a message by number, and the oneofs of those that are in one."""
    fields = {field.number: field for field in message.fields}
    oneofs = {}
    for oneof in message.oneofs:
        for field in oneof.fields:
            fields[field.number] = field
            oneofs[field.number] = oneof.name
    return fields, oneofs


def _map_types(type_: str, info: TypeInfo | None) -> tuple[str, str] | None:
    if info is not None:
        return info.map_types
    return FieldElement("", type_, 0).map_types


def _kind(type_: str, info: TypeInfo | None, map_types: tuple[str, str] | None) -> str:
    if map_types is not None:
        return "map"
    if type_ in SCALARS or (info is not None and isinstance(info.element, EnumElement)):
        return "scalar"
    return "message"


def _scalars(old: str, new: str, labels: tuple[str, str] | None, path: str) -> Found:
    group = _SCALAR_GROUPS[old]
    if group != _SCALAR_GROUPS[new]:
        return [Difference("FIELD_SCALAR_KIND_CHANGED", path)]
    if labels is None or not all(labels) or labels[0] == labels[1]:
        return []
    return [Difference(f"FIELD_{'STRING_OR_BYTES' if group == 'bytes' else 'NUMERIC'}_LABEL_CHANGED", path)]


def _enum(old: EnumElement, new: EnumElement, path: str) -> Found:
    before = {one.number: one.name for one in old.constants}
    after = {one.number: one.name for one in new.constants}
    found = []
    for number in {**before, **after}:
        if number not in after:
            kind = "ENUM_CONST_REMOVED"
        elif number not in before:
            kind = "ENUM_CONST_ADDED"
        elif before[number] != after[number]:
            kind = "ENUM_CONST_CHANGED"
        else:
            continue
        found.append(Difference(kind, f"{path}/{number}"))
    return found


def _oneofs(old: MessageElement, new: MessageElement, path: str) -> Found:
    """Return what became of the oneofs, and the fields that exclude each other only now."""
    found = []
    old_fields, oneof_of = _fields(old)
    for oneof in new.oneofs:
        origins, moved = _origins(oneof, old_fields, oneof_of)
        if len(origins) > 1:
            kind = "MULTIPLE_FIELDS_MOVED_TO_ONEOF" if moved > 1 else "FIELD_MOVED_TO_EXISTING_ONEOF"
            found.append(Difference(kind, _joined(path, oneof.name, "/")))
    before, after = {one.name for one in old.oneofs}, {one.name for one in new.oneofs}
    return found + [
        Difference("ONEOF_REMOVED" if name in before else "ONEOF_ADDED", _joined(path, name, "/"))
        for name in sorted(before ^ after)
    ]


def _origins(
    oneof: OneOfElement, old_fields: dict[int, FieldElement], oneof_of: dict[int, str]
) -> tuple[set[str | int], int]:
    """Return what the fields of a oneof excluded each other by before, and how many were outside any oneof."""
    origins: set[str | int] = set()
    moved = 0
    for field in oneof.fields:
        if field.number in oneof_of:
            origins.add(oneof_of[field.number])
        elif field.number in old_fields:
            origins.add(field.number)
            moved += 1
    return origins, moved
