"""The nodes of a parsed Avro schema: what a text says after names are resolved.

A schema is a graph: a named type that is used in several places is one object there, and a recursive one holds itself.
Nodes compare by identity; `same_type` compares by meaning. Nobody changes a node once its schema is parsed.

Properties that Avro does not know are kept, in their order, logical types among them: `logical_type` says which of
those is valid where it stands (an invalid one is no error, the specification says to ignore it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

PRIMITIVES: Final = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))

NO_DEFAULT: Final = object()
"""Marks a field without default; None is the default `null`."""

NO_PROPS: Final[Mapping[str, Any]] = {}


class AvroType:
    """Any type; `kind` is the name of the type as schemas write it (`int`, `record`, `union`, ...)."""

    __slots__ = ("kind", "props")

    def __init__(self, kind: str, props: Mapping[str, Any] = NO_PROPS) -> None:
        self.kind = kind
        self.props = props

    @property
    def label(self) -> str:
        """How the type is told from others of a union: its full name, or its kind where it has none."""
        return self.kind

    def __repr__(self) -> str:
        return f"<Avro {self.label}>"


class ArrayType(AvroType):
    """`items` is what it holds."""

    __slots__ = ("items",)

    def __init__(self, items: AvroType, props: Mapping[str, Any] = NO_PROPS) -> None:
        super().__init__("array", props)
        self.items = items


class MapType(AvroType):
    """`values` is what it holds; keys are strings."""

    __slots__ = ("values",)

    def __init__(self, values: AvroType, props: Mapping[str, Any] = NO_PROPS) -> None:
        super().__init__("map", props)
        self.values = values


class UnionType(AvroType):
    """`branches` in their order."""

    __slots__ = ("branches",)

    def __init__(self, branches: list[AvroType]) -> None:
        super().__init__("union")
        self.branches = branches


class NamedType(AvroType):
    """A type with a name: `full_name` has the namespace in it, `aliases` are full names."""

    __slots__ = ("aliases", "doc", "full_name", "name", "namespace")

    def __init__(
        self, kind: str, name: str, namespace: str, doc: str | None, aliases: tuple[str, ...], props: Mapping[str, Any]
    ) -> None:
        super().__init__(kind, props)
        self.name = name
        self.namespace = namespace
        self.full_name = f"{namespace}.{name}" if namespace else name
        self.doc = doc
        self.aliases = aliases

    @property
    def label(self) -> str:
        return self.full_name


class Field:
    """A field of a record; `default` is JSON as the schema has it, NO_DEFAULT where there is none."""

    __slots__ = ("aliases", "default", "doc", "name", "order", "position", "props", "type")

    def __init__(
        self,
        name: str,
        type_: AvroType,
        position: int,
        *,
        doc: str | None,
        default: Any,
        order: str,
        aliases: tuple[str, ...],
        props: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.type = type_
        self.position = position
        self.doc = doc
        self.default = default
        self.order = order
        self.aliases = aliases
        self.props = props

    @property
    def has_default(self) -> bool:
        """Whether a reader can do without the field in what was written."""
        return self.default is not NO_DEFAULT

    def __repr__(self) -> str:
        return f"<Avro field {self.name} of {self.type!r}>"


class RecordType(NamedType):
    """`fields` in their order, `by_name` the same; `is_error` for protocols' error records (else they are the same)."""

    __slots__ = ("by_name", "fields", "is_error")

    def __init__(
        self, name: str, namespace: str, doc: str | None, aliases: tuple[str, ...], props: Mapping[str, Any]
    ) -> None:
        super().__init__("record", name, namespace, doc, aliases, props)
        self.fields: list[Field] = []
        self.by_name: dict[str, Field] = {}
        self.is_error = False


class EnumType(NamedType):
    """`default` is the symbol a reader takes for one it does not know, or None."""

    __slots__ = ("default", "symbols")

    def __init__(
        self,
        name: str,
        namespace: str,
        doc: str | None,
        aliases: tuple[str, ...],
        props: Mapping[str, Any],
        *,
        symbols: list[str],
        default: str | None,
    ) -> None:
        super().__init__("enum", name, namespace, doc, aliases, props)
        self.symbols = symbols
        self.default = default


class FixedType(NamedType):
    """`size` in bytes."""

    __slots__ = ("size",)

    def __init__(
        self,
        name: str,
        namespace: str,
        doc: str | None,
        aliases: tuple[str, ...],
        props: Mapping[str, Any],
        *,
        size: int,
    ) -> None:
        super().__init__("fixed", name, namespace, doc, aliases, props)
        self.size = size


class LogicalType(NamedTuple):
    """A valid logical type; precision and scale are a decimal's."""

    name: str
    precision: int = 0
    scale: int = 0


_LOGICAL_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "decimal": ("bytes", "fixed"),
    "big-decimal": ("bytes",),
    "uuid": ("string", "fixed"),
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "timestamp-nanos": ("long",),
    "local-timestamp-millis": ("long",),
    "local-timestamp-micros": ("long",),
    "local-timestamp-nanos": ("long",),
    "duration": ("fixed",),
}
# Times 10**40, rounded down. Its multiples for as many bits as there may be are off by far less than they are from any
# whole number.
_LOG10_OF_2: Final = 3010299956639811952137388947244930267681
_LOGICAL_FIXED_SIZES: Final = {"uuid": 16, "duration": 12}


def logical_type(node: AvroType) -> LogicalType | None:
    """Return the logical type of `node`, None where it has none or one that is not valid there (Avro 1.12)."""
    name = node.props.get("logicalType")
    if not isinstance(name, str) or node.kind not in _LOGICAL_KINDS.get(name, ()):
        return None
    if isinstance(node, FixedType) and _LOGICAL_FIXED_SIZES.get(name, node.size) != node.size:
        return None
    if name != "decimal":
        return LogicalType(name)
    precision, scale = node.props.get("precision"), node.props.get("scale", 0)
    if type(precision) is not int or type(scale) is not int or precision < 1 or not 0 <= scale <= precision:
        return None
    if isinstance(node, FixedType) and (node.size == 0 or precision > _digits(8 * node.size - 1)):
        return None
    return LogicalType(name, precision, scale)


def _digits(bits: int) -> int:
    """Return the largest n with 10**n <= 2**bits, without making numbers of that size: both come from strangers."""
    return bits * _LOG10_OF_2 // 10**40


def children(node: AvroType) -> list[AvroType]:
    """Return the types `node` is made of, in their order."""
    if isinstance(node, RecordType):
        return [field.type for field in node.fields]
    if isinstance(node, UnionType):
        return list(node.branches)
    if isinstance(node, ArrayType):
        return [node.items]
    if isinstance(node, MapType):
        return [node.values]
    return []


def same_type(one: AvroType, other: AvroType) -> bool:
    """Return whether two types mean the same: all but docs and aliases is equal, as Avro's Java compares schemas."""
    waiting, seen = [(one, other)], {(id(one), id(other))}
    while waiting:
        left, right = waiting.pop()
        if left is right:
            continue
        if left.kind != right.kind or left.props != right.props or left.label != right.label:
            return False
        if isinstance(left, RecordType) and isinstance(right, RecordType):
            if not all(map(_same_field, left.fields, right.fields)):
                return False
        elif isinstance(left, EnumType) and isinstance(right, EnumType):
            if left.symbols != right.symbols:
                return False
        elif isinstance(left, FixedType) and isinstance(right, FixedType) and left.size != right.size:
            return False
        left_children, right_children = children(left), children(right)
        if len(left_children) != len(right_children):
            return False
        for pair in zip(left_children, right_children, strict=True):
            key = (id(pair[0]), id(pair[1]))
            if key not in seen:
                seen.add(key)
                waiting.append(pair)
    return True


def _same_field(left: Field, right: Field) -> bool:
    return (left.name, left.default, left.order, left.props) == (right.name, right.default, right.order, right.props)
