"""What a .proto file says, as it says it: names are not resolved, comments are gone.

The shape is that of Wire's elements, which Confluent's registry writes its texts from: options keep how their values
were written, `default` and `json_name` stand apart from the other options of a field, messages and enums are in one
list in the order of the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

MAX_FIELD_NUMBER: Final = 2**29 - 1

SCALARS: Final = frozenset(
    (
        "double",
        "float",
        "int32",
        "int64",
        "uint32",
        "uint64",
        "sint32",
        "sint64",
        "fixed32",
        "fixed64",
        "sfixed32",
        "sfixed64",
        "bool",
        "string",
        "bytes",
    )
)


@dataclass(slots=True)
class Value:
    """The value of an option: `kind` is string, boolean, number, enum, map or list.

    Numbers and words are the text that was written; a map has names and Values, a list Values.
    """

    kind: str
    value: str | dict[str, Value] | list[Value]


@dataclass(slots=True)
class Option:
    """`(name).path = value`, or `name = value` where it is not `is_custom`."""

    name: str
    value: Value
    is_custom: bool = False
    path: str = ""


@dataclass(slots=True)
class FieldElement:
    """A field; `type` as written, `map<K, V>` for maps. `label` is optional, required, repeated, or empty."""

    name: str
    type: str
    number: int
    label: str = ""
    options: list[Option] = field(default_factory=list)
    default: Value | None = None
    json_name: str | None = None

    @property
    def map_types(self) -> tuple[str, str] | None:
        """The types of key and value of a map."""
        if not self.type.startswith("map<"):
            return None
        key, _, value = self.type[4:-1].partition(",")
        return key.strip(), value.strip()


Reserved: TypeAlias = str | int | tuple[int, int]
"""A name, a number, or a range with both its ends."""


@dataclass(slots=True)
class ReservedElement:
    """One `reserved` statement."""

    values: list[Reserved]


@dataclass(slots=True)
class ExtensionsElement:
    """One `extensions` statement."""

    values: list[int | tuple[int, int]]
    options: list[Option] = field(default_factory=list)


@dataclass(slots=True)
class OneOfElement:
    """A oneof with its fields."""

    name: str
    fields: list[FieldElement] = field(default_factory=list)
    groups: list[GroupElement] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)


@dataclass(slots=True)
class GroupElement:
    """A group (proto2): a field and a message in one."""

    name: str
    number: int
    label: str
    message: MessageElement


@dataclass(slots=True)
class ExtendElement:
    """An `extend` with the fields it adds to the message `name`."""

    name: str
    fields: list[FieldElement] = field(default_factory=list)


@dataclass(slots=True)
class EnumConstant:
    """A value of an enum."""

    name: str
    number: int
    options: list[Option] = field(default_factory=list)


@dataclass(slots=True)
class EnumElement:
    """An enum."""

    name: str
    constants: list[EnumConstant] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)
    reserved: list[ReservedElement] = field(default_factory=list)


@dataclass(slots=True)
class MessageElement:
    """A message; `types` are the messages and enums in it."""

    name: str
    fields: list[FieldElement] = field(default_factory=list)
    oneofs: list[OneOfElement] = field(default_factory=list)
    types: list[MessageElement | EnumElement] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)
    reserved: list[ReservedElement] = field(default_factory=list)
    extensions: list[ExtensionsElement] = field(default_factory=list)
    groups: list[GroupElement] = field(default_factory=list)
    extends: list[ExtendElement] = field(default_factory=list)

    @property
    def is_map_entry(self) -> bool:
        """Whether it is what a map field means on the wire, as descriptors have it."""
        return any(option.name == "map_entry" and option.value.value == "true" for option in self.options)

    def field_named(self, name: str) -> FieldElement | None:
        """Return the field of that name outside oneofs."""
        return next((one for one in self.fields if one.name == name), None)


@dataclass(slots=True)
class RpcElement:
    """A method of a service."""

    name: str
    request: str
    response: str
    request_streaming: bool = False
    response_streaming: bool = False
    options: list[Option] = field(default_factory=list)


@dataclass(slots=True)
class ServiceElement:
    """A service."""

    name: str
    rpcs: list[RpcElement] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)


@dataclass(slots=True)
class ProtoFile:
    """A file. `syntax` is proto2, proto3, an edition's number, or empty where none is given (which means proto2)."""

    syntax: str = ""
    package: str = ""
    imports: list[str] = field(default_factory=list)
    public_imports: list[str] = field(default_factory=list)
    weak_imports: list[str] = field(default_factory=list)
    types: list[MessageElement | EnumElement] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)
    extends: list[ExtendElement] = field(default_factory=list)
    services: list[ServiceElement] = field(default_factory=list)

    @property
    def is_proto3(self) -> bool:
        """Whether proto3's rules hold: no labels needed, no defaults."""
        return self.syntax == "proto3"

    @property
    def is_edition(self) -> bool:
        """Whether the file follows an edition."""
        return bool(self.syntax) and not self.syntax.startswith("proto")

    @property
    def all_imports(self) -> list[str]:
        """Every file it imports."""
        return [*self.imports, *self.public_imports, *self.weak_imports]
