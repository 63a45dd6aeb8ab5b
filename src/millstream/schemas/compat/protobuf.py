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

PATH_CHARACTERS_MAX: Final = 2_000
"""How long a path grows; a longer one has only its end."""

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
    walk = _Walk(writer, reader)
    run(walk.files())
    return [Difference(kind, f"#/{path}") for kind, path in walk.found]


class _Place(NamedTuple):
    """Where the walk is: the path that is told, and the full names of the scopes on both sides."""

    path: str
    old_scope: str
    new_scope: str

    def inside(self, name: str) -> _Place:
        path = _joined(self.path, name, "/")
        if len(path) > PATH_CHARACTERS_MAX:
            path = f".../{path[-PATH_CHARACTERS_MAX // 2 :]}"
        return _Place(path, _joined(self.old_scope, name, "."), _joined(self.new_scope, name, "."))


def _joined(before: str, name: str, separator: str) -> str:
    return f"{before}{separator}{name}" if before else name


class _Walk:
    def __init__(self, old: ProtobufSchema, new: ProtobufSchema) -> None:
        self.found: Found = []
        self._old = old
        self._new = new
        self._old_versions = {one.name: (one.subject, one.version) for one in old.references}
        self._new_versions = {one.name: (one.subject, one.version) for one in new.references}
        # Pairs of messages of other files by identity: whether they are compatible, as far as is known yet.
        self._compared: dict[tuple[int, int], bool] = {}
        self._incompatible_count = 0

    def _tell(self, kind: str, path: str) -> None:
        self.found.append(Difference(kind, path))
        self._incompatible_count += kind not in COMPATIBLE_KINDS

    def files(self) -> Steps[None]:
        """Compare the two files."""
        old, new = self._old.file, self._new.file
        if old.package != new.package:
            self._tell("PACKAGE_CHANGED", "")
        yield self._types(old.types, new.types, _Place("", old.package, new.package))

    def _types(
        self,
        old: Sequence[MessageElement | EnumElement],
        new: Sequence[MessageElement | EnumElement],
        place: _Place,
    ) -> Steps[None]:
        old_messages = {one.name: (index, one) for index, one in enumerate(_messages(old))}
        new_messages = {one.name: (index, one) for index, one in enumerate(_messages(new))}
        for name in {**old_messages, **new_messages}:
            inside = place.inside(name)
            if name not in new_messages:
                if not old_messages[name][1].is_map_entry:
                    self._tell("MESSAGE_REMOVED", inside.path)
            elif name not in old_messages:
                if not new_messages[name][1].is_map_entry:
                    self._tell("MESSAGE_ADDED", inside.path)
            else:
                yield self._message(old_messages[name][1], new_messages[name][1], inside)
                if old_messages[name][0] != new_messages[name][0]:
                    self._tell("MESSAGE_MOVED", inside.path)
        old_enums = {one.name: one for one in old if isinstance(one, EnumElement)}
        new_enums = {one.name: one for one in new if isinstance(one, EnumElement)}
        for name in {**old_enums, **new_enums}:
            path = _joined(place.path, name, "/")
            if name not in new_enums or name not in old_enums:
                self._tell("ENUM_REMOVED" if name in old_enums else "ENUM_ADDED", path)
            else:
                self._constants(old_enums[name], new_enums[name], path)

    def _constants(self, old: EnumElement, new: EnumElement, path: str) -> None:
        before = {one.number: one.name for one in old.constants}
        after = {one.number: one.name for one in new.constants}
        for number in {**before, **after}:
            if number not in after or number not in before:
                self._tell("ENUM_CONST_REMOVED" if number in before else "ENUM_CONST_ADDED", f"{path}/{number}")
            elif before[number] != after[number]:
                self._tell("ENUM_CONST_CHANGED", f"{path}/{number}")

    def _message(self, old: MessageElement, new: MessageElement, place: _Place) -> Steps[None]:
        old_fields, old_oneofs = _fields(old)
        new_fields, new_oneofs = _fields(new)
        self._oneofs(old, new, old_fields, old_oneofs, place.path)
        survivors = {oneof for number, oneof in old_oneofs.items() if number in new_fields}
        survivors.update(one.name for one in new.oneofs)
        for number in sorted({**old_fields, **new_fields}):
            was, now = old_fields.get(number), new_fields.get(number)
            oneof_before, oneof_now = old_oneofs.get(number), new_oneofs.get(number)
            path = _joined(place.path, str(number), "/")
            if now is None:
                assert was is not None
                if oneof_before is None:
                    self._tell("REQUIRED_FIELD_REMOVED" if was.label == "required" else "FIELD_REMOVED", path)
                elif oneof_before in survivors:
                    # A oneof that went with all its fields is no loss; one that lost some of them is.
                    self._tell("ONEOF_FIELD_REMOVED", _joined(place.path, f"{oneof_before}/{number}", "/"))
                continue
            if oneof_now is not None:
                path = _joined(place.path, f"{oneof_now}/{number}", "/")
            if was is None:
                kind = "REQUIRED_FIELD_ADDED" if now.label == "required" else "FIELD_ADDED"
                self._tell("ONEOF_FIELD_ADDED" if oneof_now is not None else kind, path)
                continue
            if oneof_before is not None and oneof_now is None:
                self._tell("ONEOF_FIELD_MOVED_TO_TOP_LEVEL", path)
            if was.name != now.name:
                self._tell("FIELD_NAME_CHANGED", path)
            yield self._field_types(was.type, now.type, (was.label, now.label), place._replace(path=path))
        yield self._types(old.types, new.types, place)

    def _oneofs(
        self,
        old: MessageElement,
        new: MessageElement,
        old_fields: dict[int, FieldElement],
        oneof_of: dict[int, str],
        path: str,
    ) -> None:
        """Tell of fields that exclude each other only now, and what became of the oneofs."""
        for oneof in new.oneofs:
            origins, moved = _origins(oneof, old_fields, oneof_of)
            if len(origins) > 1:
                kind = "MULTIPLE_FIELDS_MOVED_TO_ONEOF" if moved > 1 else "FIELD_MOVED_TO_EXISTING_ONEOF"
                self._tell(kind, _joined(path, oneof.name, "/"))
        before, after = {one.name for one in old.oneofs}, {one.name for one in new.oneofs}
        for name in sorted(before ^ after):
            self._tell("ONEOF_REMOVED" if name in before else "ONEOF_ADDED", _joined(path, name, "/"))

    def _field_types(self, old: str, new: str, labels: tuple[str, str] | None, place: _Place) -> Steps[None]:
        """Compare two fields' types; `labels` where they have some that count."""
        old_name = None if old in SCALARS else self._old.names.resolve(old, place.old_scope)
        new_name = None if new in SCALARS else self._new.names.resolve(new, place.new_scope)
        old_info = self._old.names.types.get(old_name or "")
        new_info = self._new.names.types.get(new_name or "")
        old_map, new_map = _map_types(old, old_info), _map_types(new, new_info)
        kind = _kind(old, old_info, old_map)
        if kind != _kind(new, new_info, new_map):
            self._tell("FIELD_KIND_CHANGED", place.path)
        elif old_map is not None and new_map is not None:
            yield self._field_types(old_map[0], new_map[0], None, place)
            yield self._field_types(old_map[1], new_map[1], None, place)
        elif kind == "scalar":
            self._scalars("enum" if old_info else old, "enum" if new_info else new, labels, place.path)
        elif old_info is None or new_info is None or old_name is None or new_name is None:
            if old != new:
                self._tell("FIELD_NAMED_TYPE_CHANGED", place.path)
        else:
            yield self._message_types((old_name, old_info), (new_name, new_info), place.path)

    def _scalars(self, old: str, new: str, labels: tuple[str, str] | None, path: str) -> None:
        group = _SCALAR_GROUPS[old]
        if group != _SCALAR_GROUPS[new]:
            self._tell("FIELD_SCALAR_KIND_CHANGED", path)
        elif labels is not None and all(labels) and labels[0] != labels[1]:
            self._tell(f"FIELD_{'STRING_OR_BYTES' if group == 'bytes' else 'NUMERIC'}_LABEL_CHANGED", path)

    def _message_types(self, old: tuple[str, TypeInfo], new: tuple[str, TypeInfo], path: str) -> Steps[None]:
        (old_name, old_info), (new_name, new_info) = old, new
        local_name = old_name.removeprefix(f"{old_info.package}.") if old_info.package else old_name
        if local_name != (new_name.removeprefix(f"{new_info.package}.") if new_info.package else new_name):
            self._tell("FIELD_NAMED_TYPE_CHANGED", path)
            return
        old_version = self._old_versions.get(old_info.file) if old_info.file else ()
        new_version = self._new_versions.get(new_info.file) if new_info.file else ()
        if old_version is not None and old_version == new_version:
            return  # both are local, and compared where they are, or both are of the same version of a subject
        pair = (id(old_info.element), id(new_info.element))
        if pair not in self._compared:
            self._compared[pair] = True
            assert isinstance(old_info.element, MessageElement), old
            assert isinstance(new_info.element, MessageElement), new
            count_before = self._incompatible_count
            inside = _Place(local_name.replace(".", "/"), old_name, new_name)
            yield self._message(old_info.element, new_info.element, inside)
            self._compared[pair] = self._incompatible_count == count_before
        if not self._compared[pair]:
            self._tell("FIELD_NAMED_TYPE_CHANGED", path)


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
