"""How a message is declared: field types, version ranges, and the `message` and `struct` class decorators.

    @message(key=2, versions="1-8", flexible="6+")
    class ListOffsetsRequest:
        replica_id: int32 = -1
        isolation_level: int8 = field(versions="2+", default=0)
        topics: list[ListOffsetsTopic] = field(factory=list)

A declared class is slotted and mutable, takes its fields as keywords, compares by value, and carries its `Declaration`
in `__wire__`; `codec` makes the byte code of each version from that. A field without `versions` is in all versions of
its message. `| None` makes a field nullable, in the versions of `nullable` when that is given. A field with a `tag` is
an optional tagged field (KIP-482): it is written only where it differs from its default, and a tagged struct that was
not sent is None. A tagged struct with `nullable` of its own is always written, its null as well.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from inspect import get_annotations
from typing import Annotated, Any, ClassVar, Final, NamedTuple, TypeAlias, TypeVar, dataclass_transform

T = TypeVar("T")

# The names under which fields are annotated. To a type checker they are plain Python types.
int8: TypeAlias = Annotated[int, "b"]
int16: TypeAlias = Annotated[int, "h"]
uint16: TypeAlias = Annotated[int, "H"]
int32: TypeAlias = Annotated[int, "i"]
uint32: TypeAlias = Annotated[int, "I"]
int64: TypeAlias = Annotated[int, "q"]
float64: TypeAlias = Annotated[float, "d"]
uuid: TypeAlias = Annotated[bytes, "16s"]
record_bytes: TypeAlias = bytes | bytearray | memoryview

ZERO_UUID: Final = bytes(16)

# struct's letter and the size in bytes of each type of fixed width.
SCALARS: Final[dict[str, tuple[str, int]]] = {
    "bool": ("?", 1),
    "int8": ("b", 1),
    "int16": ("h", 2),
    "uint16": ("H", 2),
    "int32": ("i", 4),
    "uint32": ("I", 4),
    "int64": ("q", 8),
    "float64": ("d", 8),
    "uuid": ("16s", 16),
}
VARIABLE: Final = frozenset({"str", "bytes", "record_bytes"})
VERSION_MAX: Final = 2**15 - 1

_ANNOTATION = re.compile(r"(?P<array>list\[)?(?P<name>\w+)\]?(?P<nullable> \| None)?")


class _Missing:
    def __repr__(self) -> str:
        return "<its default>"


MISSING: Final[Any] = _Missing()


class Versions(NamedTuple):
    """A closed range of versions: "3+" (to the newest), "2-4" or "7"."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Versions:
        """Read Kafka's notation; "none" is the empty range."""
        if text == "none":
            return cls(0, -1)
        if text.endswith("+"):
            return cls(int(text[:-1]), VERSION_MAX)
        first, _, last = text.partition("-")
        return cls(int(first), int(last or first))

    def __contains__(self, version: object) -> bool:
        return isinstance(version, int) and self.first <= version <= self.last

    def __str__(self) -> str:
        if self.first > self.last:
            return "none"
        if self.last == VERSION_MAX:
            return f"{self.first}+"
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


ALL_VERSIONS: Final = Versions(0, VERSION_MAX)
NO_VERSIONS: Final = Versions(0, -1)


@dataclass(frozen=True, slots=True)
class _Options:
    versions: Versions
    nullable: Versions | None
    tag: int | None
    default: Any
    factory: Callable[[], Any] | None


def field(
    *,
    versions: str = "0+",
    nullable: str | None = None,
    tag: int | None = None,
    default: Any = MISSING,
    factory: Callable[[], Any] | None = None,
) -> Any:
    """Declare what a plain default can't say: a field's versions, those in which it is nullable, its tag, a factory."""
    return _Options(
        Versions.parse(versions), None if nullable is None else Versions.parse(nullable), tag, default, factory
    )


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field. `kind` is a name of SCALARS or VARIABLE, or "struct", whose class is `struct_class()`."""

    name: str
    kind: str
    is_array: bool
    versions: Versions
    nullable: Versions
    tag: int | None
    default: Any
    factory: Callable[[], Any] | None
    module: str
    type_name: str
    # Of a tagged struct: its null is written too, as a byte before it says (Kafka gives such a field no null default).
    writes_null: bool = False

    def struct_class(self) -> type[Message]:
        """The class of a struct field, or of an array's elements."""
        found: type[Message] = getattr(sys.modules[self.module], self.type_name)
        return found

    @property
    def default_source(self) -> str:
        """The default as an expression; a list is always a fresh one."""
        if self.factory is list:
            return "[]"
        return repr(self.default)


@dataclass(frozen=True)
class Declaration:
    """What a class declared. `key` is None for a struct and for what is not an API's message."""

    name: str
    key: int | None
    versions: Versions
    flexible: Versions
    fields: tuple[Field, ...]

    @property
    def is_request(self) -> bool:
        """Whether a server reads it, from clients that it does not know."""
        return self.key is not None and self.name.endswith("Request")

    @cached_property
    def tagged(self) -> tuple[Field, ...]:
        """The tagged fields in the order of their tags, as they are written."""
        return tuple(
            sorted((field for field in self.fields if field.tag is not None), key=lambda field: field.tag or 0)
        )


class Message:
    """What every declared class can do: equality by fields, and a repr that stays short around record bytes."""

    __slots__ = ()
    __wire__: ClassVar[Declaration]
    __hash__ = None  # type: ignore[assignment]  # equal by value and mutable: Python's own way to say unhashable

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, field.name) == getattr(other, field.name) for field in self.__wire__.fields)

    def __repr__(self) -> str:
        shown = ", ".join(f"{field.name}={_shown(getattr(self, field.name))}" for field in self.__wire__.fields)
        return f"{self.__class__.__name__}({shown})"


def _shown(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview) and len(value) > 64:
        return f"<{len(value)} bytes>"
    return repr(bytes(value)) if isinstance(value, memoryview) else repr(value)


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def message(*, versions: str, flexible: str, key: int | None = None) -> Callable[[type[T]], type[T]]:
    """Declare a request, a response, or another versioned message (`key` is the API's, if it belongs to one)."""

    def declare(cls: type[T]) -> type[T]:
        return _declare(cls, key, Versions.parse(versions), Versions.parse(flexible))

    return declare


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
def struct(cls: type[T]) -> type[T]:
    """Declare a part of a message; versions are those of the message it is in."""
    return _declare(cls, None, ALL_VERSIONS, NO_VERSIONS)


def _declare(cls: type[T], key: int | None, versions: Versions, flexible: Versions) -> type[T]:
    fields = tuple(_field(cls, name, annotation) for name, annotation in get_annotations(cls).items())
    names = tuple(field.name for field in fields)
    body = {name: value for name, value in cls.__dict__.items() if name not in (*names, "__dict__", "__weakref__")}
    body["__slots__"] = names
    body["__wire__"] = Declaration(cls.__name__, key, versions, flexible, fields)
    body["__init__"] = _initializer(cls, fields)
    made: type[T] = type(cls.__name__, (Message,), body)
    return made


def _field(cls: type, name: str, annotation: str) -> Field:
    match = _ANNOTATION.fullmatch(annotation)
    assert match, f"{cls.__name__}.{name}: {annotation} is no field type"
    options = cls.__dict__.get(name, MISSING)
    assert options is not MISSING, f"{cls.__name__}.{name} has no default"
    if not isinstance(options, _Options):
        options = _Options(ALL_VERSIONS, None, None, options, None)
    type_name = match["name"]
    nullable = ALL_VERSIONS if match["nullable"] else NO_VERSIONS
    return Field(
        name=name,
        kind=type_name if type_name in SCALARS or type_name in VARIABLE else "struct",
        is_array=bool(match["array"]),
        versions=options.versions,
        nullable=nullable if options.nullable is None else options.nullable,
        tag=options.tag,
        default=options.default,
        factory=options.factory,
        module=cls.__module__,
        type_name=type_name,
        writes_null=options.tag is not None and options.nullable is not None,
    )


def _initializer(cls: type, fields: tuple[Field, ...]) -> Callable[..., None]:
    """Make the keyword-only `__init__` as source: it costs what one written by hand does."""
    names: dict[str, Any] = {"MISSING": MISSING}
    parameters, lines = [], []
    for here in fields:
        if here.factory is None:
            names[f"default_{here.name}"] = here.default
            parameters.append(f"{here.name}=default_{here.name}")
            lines.append(f"    self.{here.name} = {here.name}")
        else:
            names[f"make_{here.name}"] = here.factory
            fresh = "[]" if here.factory is list else f"make_{here.name}()"
            parameters.append(f"{here.name}=MISSING")
            lines.append(f"    self.{here.name} = {fresh} if {here.name} is MISSING else {here.name}")
    star = ", *, " if parameters else ""
    source = f"def __init__(self{star}{', '.join(parameters)}):\n" + ("\n".join(lines) or "    return None")
    exec(compile(source, f"<wire {cls.__name__}.__init__>", "exec"), names)  # noqa: S102  our own declarations
    made: Callable[..., None] = names["__init__"]
    return made
