"""Names of a .proto file and of those it imports: what a type's name means where it stands.

A name is looked for from the innermost scope outwards: `Inner` in message `a.b.Outer` is `a.b.Outer.Inner`, else
`a.b.Inner`, `a.Inner`, `Inner`. One with a leading dot is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from millstream.schemas.parsing.protobuf.elements import EnumElement, FieldElement, MessageElement, ProtoFile


class TypeInfo(NamedTuple):
    """A message or an enum: its element, the package of its file, and the file's name ("" for the schema's own)."""

    element: MessageElement | EnumElement
    package: str
    file: str

    @property
    def map_types(self) -> tuple[str, str] | None:
        """The types of key and value where the message is what a map field means on the wire."""
        if not isinstance(self.element, MessageElement) or not self.element.is_map_entry:
            return None
        key, value = self.element.field_named("key"), self.element.field_named("value")
        return (key.type, value.type) if key is not None and value is not None else None


class Names:
    """Every type and extension of a file and of the files it may use, by full name."""

    def __init__(self, file: ProtoFile, dependencies: Mapping[str, ProtoFile]) -> None:
        self.package = file.package
        self.types: dict[str, TypeInfo] = {}
        self.extensions: dict[str, FieldElement] = {}
        for name, dependency in dependencies.items():
            self._collect(name, dependency)
        self._collect("", file)

    def _collect(self, name: str, file: ProtoFile) -> None:
        waiting = [(type_, file.package) for type_ in file.types]
        extends = [(extend, file.package) for extend in file.extends]
        while waiting:
            element, scope = waiting.pop()
            full_name = f"{scope}.{element.name}" if scope else element.name
            self.types[full_name] = TypeInfo(element, file.package, name)
            if isinstance(element, MessageElement):
                waiting += [(inner, full_name) for inner in element.types]
                waiting += [(group.message, full_name) for group in element.groups]
                waiting += [(group.message, full_name) for oneof in element.oneofs for group in oneof.groups]
                extends += [(extend, full_name) for extend in element.extends]
        for extend, scope in extends:
            for field in extend.fields:
                self.extensions[f"{scope}.{field.name}" if scope else field.name] = field

    def resolve(self, name: str, scope: str) -> str | None:
        """Return the full name of the type that `name` means in `scope` (a full name), None where there is none."""
        return _find(name, scope, self.types)

    def resolve_extension(self, name: str, scope: str) -> str | None:
        """Return the full name of the extension that `name` means in `scope`."""
        return _find(name, scope, self.extensions)


def _find(name: str, scope: str, known: Mapping[str, object]) -> str | None:
    if name.startswith("."):
        return name[1:] if name[1:] in known else None
    while scope:
        if f"{scope}.{name}" in known:
            return f"{scope}.{name}"
        scope = scope.rpartition(".")[0]
    return name if name in known else None
