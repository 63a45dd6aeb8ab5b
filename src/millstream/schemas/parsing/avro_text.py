"""A graph of Avro types as text: canonical as Java's Schema.toString, normalized, and the parsing canonical form.

Canonical: no white space; a named type is written out where it is first met and named after that; a namespace is given
where it differs from the one around; attributes in a fixed order, then what Avro does not know, in its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from millstream.schemas.parsing.avro_types import (
    PRIMITIVES,
    ArrayType,
    AvroType,
    EnumType,
    Field,
    FixedType,
    MapType,
    NamedType,
    RecordType,
    UnionType,
    children,
    logical_type,
)
from millstream.schemas.parsing.json_text import check_depth, check_unicode, compact_json, quoted
from millstream.schemas.parsing.parsed_schema import NESTING_DEPTH_MAX, InvalidSchemaError

# Names that a reference must spell out even inside their own namespace, else they would mean the type of that name.
_TYPE_NAMES: Final = PRIMITIVES | {"record", "enum", "array", "map", "union", "fixed"}


def canonical_text(root: AvroType, known: Iterable[str] = ()) -> str:
    """Return the text of `root`; the full names in `known` are defined elsewhere, and only named here.

    Raises InvalidSchemaError where types, each written out where it is first met, nest deeper than NESTING_DEPTH_MAX.
    """
    parts: list[str] = []
    _Writer(parts, set(known)).write(root, "", 0)
    text = "".join(parts)
    check_depth(text)
    if not text.isascii():
        check_unicode(text)
    return text


class _Writer:
    def __init__(self, parts: list[str], seen: set[str]) -> None:
        self._parts = parts
        self._seen = seen

    def write(self, node: AvroType, namespace: str, depth: int) -> None:
        parts = self._parts
        if depth > NESTING_DEPTH_MAX:
            raise InvalidSchemaError(f"the schema nests types deeper than {NESTING_DEPTH_MAX} levels")
        if isinstance(node, NamedType):
            if node.full_name in self._seen:
                parts.append(quoted(_reference(node.full_name, namespace)))
                return
            self._seen.add(node.full_name)
            self._write_named(node, namespace, depth)
        elif isinstance(node, UnionType):
            opening = "["
            for branch in node.branches:
                parts.append(opening)
                self.write(branch, namespace, depth + 1)
                opening = ","
            parts.append("]" if node.branches else "[]")
        elif isinstance(node, ArrayType):
            parts.append('{"type":"array","items":')
            self.write(node.items, namespace, depth + 1)
            parts.append(_members(node.props) + "}")
        elif isinstance(node, MapType):
            parts.append('{"type":"map","values":')
            self.write(node.values, namespace, depth + 1)
            parts.append(_members(node.props) + "}")
        elif node.props:
            parts.append(f'{{"type":"{node.kind}"{_members(node.props)}}}')
        else:
            parts.append(f'"{node.kind}"')

    def _write_named(self, node: NamedType, namespace: str, depth: int) -> None:
        parts = self._parts
        kind = "error" if isinstance(node, RecordType) and node.is_error else node.kind
        parts.append(f'{{"type":"{kind}","name":"{node.name}"')
        if node.namespace != namespace:
            parts.append(f',"namespace":{quoted(node.namespace)}')
        if node.doc is not None:
            parts.append(f',"doc":{quoted(node.doc)}')
        if isinstance(node, RecordType):
            opening = ',"fields":['
            for field in node.fields:
                parts.append(f'{opening}{{"name":"{field.name}","type":')
                self.write(field.type, node.namespace, depth + 1)
                parts.append(_after_type(field))
                opening = ","
            parts.append("]" if node.fields else ',"fields":[]')
        elif isinstance(node, EnumType):
            parts.append(f',"symbols":{compact_json(node.symbols)}')
            if node.default is not None:
                parts.append(f',"default":{quoted(node.default)}')
        elif isinstance(node, FixedType):
            parts.append(f',"size":{node.size}')
        parts.append(_members(node.props))
        if node.aliases:
            written = ",".join(quoted(_reference(alias, node.namespace)) for alias in node.aliases)
            parts.append(f',"aliases":[{written}]')
        parts.append("}")


def _after_type(field: Field) -> str:
    """Return what follows the type of a field."""
    text = f',"doc":{quoted(field.doc)}' if field.doc is not None else ""
    if field.has_default:
        text += f',"default":{compact_json(field.default)}'
    if field.order != "ascending":
        text += f',"order":"{field.order}"'
    if field.aliases:
        text += f',"aliases":{compact_json(list(field.aliases))}'
    return f"{text}{_members(field.props)}}}"


def _members(props: Mapping[str, Any]) -> str:
    return "".join(f",{quoted(key)}:{compact_json(value)}" for key, value in props.items()) if props else ""


def _reference(full_name: str, namespace: str) -> str:
    space, _, name = full_name.rpartition(".")
    return name if space == namespace and space and name not in _TYPE_NAMES else full_name


def normalized_text(root: AvroType, known: Iterable[str] = ()) -> str:
    """Return a text of `root` that parses to the same whatever the order of its properties and aliases was.

    Order as Confluent's `normalize=true` leaves it: a valid logical type first, then the other properties by name; the
    keys inside a property by name too; aliases by name; empty docs of named types are dropped. Symbols, fields,
    branches and all else that means something keep their order.
    """
    return canonical_text(_normalized(root), known)


def _normalized(root: AvroType) -> AvroType:
    """Copy the graph with everything in order; iterative, since the graph may be deeper than the stack."""
    copies: dict[int, AvroType] = {}
    waiting = [root]
    found: list[AvroType] = []
    while waiting:
        node = waiting.pop()
        if id(node) in copies:
            continue
        copies[id(node)] = _copy(node)
        found.append(node)
        waiting += children(node)
    for node in found:
        copy = copies[id(node)]
        if isinstance(node, RecordType) and isinstance(copy, RecordType):
            for field in node.fields:
                copy.fields.append(
                    Field(
                        field.name,
                        copies[id(field.type)],
                        field.position,
                        doc=field.doc,
                        default=_sorted_keys(field.default),
                        order=field.order,
                        aliases=tuple(sorted(field.aliases)),
                        props=_sorted_keys(dict(field.props)),
                    )
                )
        elif isinstance(node, ArrayType) and isinstance(copy, ArrayType):
            copy.items = copies[id(node.items)]
        elif isinstance(node, MapType) and isinstance(copy, MapType):
            copy.values = copies[id(node.values)]
        elif isinstance(node, UnionType) and isinstance(copy, UnionType):
            copy.branches = [copies[id(branch)] for branch in node.branches]
    return copies[id(root)]


def _copy(node: AvroType) -> AvroType:
    props = _sorted_keys(dict(node.props))
    logical = logical_type(node)
    if logical is not None:
        first = {"logicalType": logical.name}
        if logical.name == "decimal":
            first["precision"] = props["precision"]
            if logical.scale:
                first["scale"] = props["scale"]
        props = first | {key: value for key, value in props.items() if key not in first}
    if isinstance(node, NamedType):
        doc = node.doc or None
        aliases = tuple(sorted(node.aliases))
        if isinstance(node, RecordType):
            record = RecordType(node.name, node.namespace, doc, aliases, props)
            record.is_error = node.is_error
            return record
        if isinstance(node, EnumType):
            return EnumType(node.name, node.namespace, doc, aliases, props, symbols=node.symbols, default=node.default)
        assert isinstance(node, FixedType), node
        return FixedType(node.name, node.namespace, doc, aliases, props, size=node.size)
    if isinstance(node, ArrayType):
        return ArrayType(node.items, props)
    if isinstance(node, MapType):
        return MapType(node.values, props)
    if isinstance(node, UnionType):
        return UnionType([])
    return AvroType(node.kind, props)


def _sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted_keys(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted_keys(item) for item in value]
    return value


def parsing_canonical_form(root: AvroType) -> str:
    """Return the form that has only what readers need (Avro 1.12, Transforming into Parsing Canonical Form)."""
    parts: list[str] = []
    _write_pcf(root, set(), parts, 0)
    return "".join(parts)


def _write_pcf(node: AvroType, seen: set[str], parts: list[str], depth: int) -> None:
    if depth > NESTING_DEPTH_MAX:
        raise InvalidSchemaError(f"the schema nests types deeper than {NESTING_DEPTH_MAX} levels")
    if isinstance(node, UnionType):
        for index, branch in enumerate(node.branches):
            parts.append("," if index else "[")
            _write_pcf(branch, seen, parts, depth + 1)
        parts.append("]" if node.branches else "[]")
    elif isinstance(node, ArrayType | MapType):
        parts.append(f'{{"type":"{node.kind}","{"items" if isinstance(node, ArrayType) else "values"}":')
        _write_pcf(node.items if isinstance(node, ArrayType) else node.values, seen, parts, depth + 1)
        parts.append("}")
    elif not isinstance(node, NamedType):
        parts.append(f'"{node.kind}"')
    elif node.full_name in seen:
        parts.append(quoted(node.full_name))
    else:
        seen.add(node.full_name)
        parts.append(f'{{"name":{quoted(node.full_name)},"type":"{node.kind}"')
        if isinstance(node, RecordType):
            parts.append(',"fields":[')
            for field in node.fields:
                parts.append(f'{"," if field.position else ""}{{"name":"{field.name}","type":')
                _write_pcf(field.type, seen, parts, depth + 1)
                parts.append("}")
            parts.append("]}")
        elif isinstance(node, EnumType):
            parts.append(f',"symbols":{compact_json(node.symbols)}}}')
        elif isinstance(node, FixedType):
            parts.append(f',"size":{node.size}}}')
