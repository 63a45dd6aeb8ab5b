"""Avro schemas: JSON text to a graph of types by the rules of Avro's Java 1.12, and back to its canonical text.

What Java allows is allowed: comments, names used before they are defined, the same type defined twice alike, an invalid
logical type (kept, ignored). `strict`, for new schemas, also wants names of ASCII, valid namespaces, and defaults that
fit their types; Confluent's registry leaves these three alone in what it already holds.

The graph is built in one recursive pass over the JSON, whose depth is bounded; names that are not known yet are filled
in behind it. Anything that walks the graph itself must not recurse: the graph can be far deeper than its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, TypeVar

from millstream.schemas.parsing.avro_defaults import DefaultChecks
from millstream.schemas.parsing.avro_text import canonical_text, normalized_text, parsing_canonical_form
from millstream.schemas.parsing.avro_types import (
    NO_DEFAULT,
    NO_PROPS,
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
    same_type,
)
from millstream.schemas.parsing.json_text import NAME_CHARACTERS_MAX, check_size, compact_json, load_json
from millstream.schemas.parsing.parsed_schema import InvalidSchemaError, ParsedSchema, Reference, SchemaType

_STRICT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DOUBLE: Final = re.compile(r"\s*[+-]?(NaN|Infinity|(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[fFdD]?)\s*\Z", re.ASCII)
_ORDERS: Final = frozenset(("ascending", "descending", "ignore"))
_FIELD_RESERVED: Final = frozenset(("default", "doc", "name", "order", "type", "aliases"))
_SCHEMA_RESERVED: Final = frozenset(
    ("doc", "fields", "items", "name", "namespace", "size", "symbols", "values", "type", "aliases")
)
_ENUM_RESERVED: Final = _SCHEMA_RESERVED | {"default"}
_PLAIN: Final = {kind: AvroType(kind) for kind in PRIMITIVES}
_Named = TypeVar("_Named", bound=NamedType)
FIXED_SIZE_BYTES_MAX: Final = 2**31 - 1


class AvroSchema(ParsedSchema):
    """A parsed Avro schema: `root` is its graph, `text` what Java's Schema.toString gives, references left as names."""

    type: ClassVar[SchemaType] = SchemaType.AVRO

    def __init__(
        self, root: AvroType, known: frozenset[str], references: Iterable[Reference], resolved: Mapping[str, str] | None
    ) -> None:
        super().__init__(canonical_text(root, known), references, resolved)
        self.root = root
        self._known = known  # full names of what the references define, which `text` names and does not repeat

    @property
    def name(self) -> str | None:
        """The full name of a record; None for any other type."""
        return self.root.full_name if isinstance(self.root, RecordType) else None

    @property
    def expanded_text(self) -> str:
        """The canonical text with every reference written out: what stands alone."""
        return canonical_text(self.root) if self._known else self.text

    def fingerprint(self, algorithm: str = "CRC-64-AVRO") -> str:
        """Return the fingerprint of the parsing canonical form in hexadecimal (Avro 1.12, Schema Fingerprints).

        CRC-64-AVRO comes in the byte order that single-object encoding has; MD5 and SHA-256 are allowed as well.
        """
        import fastavro.schema

        return fastavro.schema.fingerprint(self.parsing_canonical_form, algorithm)

    def formatted(self, form: str) -> str:
        """Return the text in another form: `resolved` has the references written out; any other is `text`."""
        return self.expanded_text if form == "resolved" else self.text

    @property
    def parsing_canonical_form(self) -> str:
        """What readers need of the schema and nothing else (Avro 1.12, Parsing Canonical Form)."""
        return parsing_canonical_form(self.root)

    def normalized(self) -> AvroSchema:
        """The schema with properties, aliases and references in order."""
        text = normalized_text(self.root, self._known)
        return parse_avro(text, sorted(set(self.references)), self.resolved)


def parse_avro(
    text: str,
    references: Iterable[Reference] = (),
    resolved: Mapping[str, str] | None = None,
    *,
    strict: bool = False,
) -> AvroSchema:
    """Parse and check `text` together with the texts it refers to, which share their names with it."""
    resolved = dict(resolved or {})
    check_size(text, resolved)
    parser = _Parser(strict=strict)
    known = [parser.parse(referenced, f"reference {name!r}: ") for name, referenced in resolved.items()]
    root = parser.parse(text)
    parser.finish()
    return AvroSchema(root[0], frozenset(known_root[0].label for known_root in known), references, resolved)


class _Parser:
    """One parse of a text and its references: they share their names."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._names: dict[str, NamedType] = {}
        # What must wait until every name is known: filling names in, comparing second definitions, unions, defaults.
        self._unknown: list[tuple[str, str, Any, Any]] = []  # name, namespace, and where the type goes: see _put
        self._redefined: list[tuple[NamedType, NamedType]] = []
        self._unions: list[UnionType] = []
        self._defaults: list[tuple[RecordType, Field]] = []

    def parse(self, text: str, where: str = "") -> list[AvroType]:
        """Take one text in; what is returned holds its root, after `finish`."""
        found: list[AvroType] = [_PLAIN["null"]]
        try:
            self._parse_into(found, 0, load_json(text, comments=True), "")
        except InvalidSchemaError as error:
            if where:
                raise InvalidSchemaError(f"{where}{error}") from error
            raise
        return found

    def finish(self) -> None:
        """Resolve what was left open, and check what could not be checked before."""
        for name, namespace, holder, key in self._unknown:
            full_name = f"{namespace}.{name}" if namespace and "." not in name else name
            node = self._names.get(full_name) or self._names.get(name)
            if node is None:
                raise InvalidSchemaError(f"no type is named {full_name!r}; define it, or refer to the schema that does")
            _put(holder, key, node)
        for first, second in self._redefined:
            if not same_type(first, second):
                raise InvalidSchemaError(f"{first.full_name!r} is defined twice, and not alike")
        for union in self._unions:
            self._check_union(union)
        checks = DefaultChecks()
        for record, field in self._defaults:
            if field.type.kind in ("float", "double") and isinstance(field.default, str):
                field.default = _double(field, record)
            if self._strict and not checks.is_valid(field.type, field.default):
                raise InvalidSchemaError(
                    f"field {field.name!r} of {record.full_name!r} has the default {compact_json(field.default)[:200]},"
                    f" which is no {field.type.label}"
                )

    def _parse_into(self, holder: Any, key: Any, value: Any, namespace: str) -> None:
        """Put the type `value` describes into `holder` at `key`, in `finish` where it is a name not known yet."""
        node = self._parse(value, namespace)
        if node is None:
            self._unknown.append((value if isinstance(value, str) else value["type"], namespace, holder, key))
        else:
            _put(holder, key, node)

    def _parse(self, value: Any, namespace: str) -> AvroType | None:
        """Return the type `value` describes, None for a name that is not known yet."""
        if isinstance(value, str):
            return self._find(value, namespace)
        if isinstance(value, dict):
            kind = value.get("type")
            if not isinstance(kind, str):
                raise InvalidSchemaError(f"no type is given as text in {_shown(value)}")
            if kind in _PLAIN:
                return _PLAIN[kind] if len(value) == 1 else _with_props(kind, value)
            if kind in ("record", "error"):
                return self._record(value, namespace, is_error=kind == "error")
            if kind == "array":
                return self._array(value, namespace)
            if kind == "map":
                return self._map(value, namespace)
            if kind == "enum":
                return self._enum(value, namespace)
            if kind == "fixed":
                return self._fixed(value, namespace)
            return self._find(kind, namespace)
        if isinstance(value, list):
            union = UnionType([])
            for index, branch in enumerate(value):
                union.branches.append(_PLAIN["null"])
                self._parse_into(union.branches, index, branch, namespace)
            self._unions.append(union)
            return union
        raise InvalidSchemaError(f"{_shown(value)} is no schema: a name, an object or an array of them is")

    def _find(self, name: str, namespace: str) -> AvroType | None:
        plain = _PLAIN.get(name)
        if plain is not None:
            return plain
        full_name = f"{namespace}.{name}" if namespace and "." not in name else name
        return self._names.get(full_name) or self._names.get(name)

    def _record(self, value: dict[str, Any], namespace: str, *, is_error: bool) -> RecordType:
        name, namespace = self._name(value, namespace)
        record = RecordType(name, namespace, _text(value, "doc"), (), _props(value, _SCHEMA_RESERVED))
        record.is_error = is_error
        record.aliases = self._aliases(value, namespace)
        self._define(record)
        fields = value.get("fields")
        if not isinstance(fields, list):
            raise InvalidSchemaError(f"record {record.full_name!r} has no array of fields")
        for field in fields:
            self._field(record, field)
        return record

    def _field(self, record: RecordType, value: Any) -> None:
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str):
            raise InvalidSchemaError(f"a field of {record.full_name!r} has no name: {_shown(value)}")
        self._check_name(name, f"a field of {record.full_name!r}")
        if name in record.by_name:
            raise InvalidSchemaError(f"record {record.full_name!r} has two fields named {name!r}")
        if "type" not in value:
            raise InvalidSchemaError(f"field {name!r} of {record.full_name!r} has no type")
        field = Field(
            name,
            _PLAIN["null"],
            len(record.fields),
            doc=_text(value, "doc"),
            default=value.get("default", NO_DEFAULT),
            order="ascending",
            aliases=(),
            props=_props(value, _FIELD_RESERVED),
        )
        self._parse_into(field, "type", value["type"], record.namespace)
        if "order" in value:
            order = value["order"].lower() if isinstance(value["order"], str) else ""
            if order not in _ORDERS:
                raise InvalidSchemaError(
                    f"field {name!r} of {record.full_name!r} has the order {_shown(value['order'])};"
                    " ascending, descending and ignore are allowed"
                )
            field.order = order
        if "aliases" in value:
            field.aliases = _strings(value, "aliases", f"field {name!r} of {record.full_name!r}")
        if "default" in value:
            self._defaults.append((record, field))
        record.by_name[name] = field
        record.fields.append(field)

    def _enum(self, value: dict[str, Any], namespace: str) -> EnumType:
        name, namespace = self._name(value, namespace)
        symbols = value.get("symbols")
        if not isinstance(symbols, list):
            raise InvalidSchemaError(f"enum {name!r} has no array of symbols")
        for symbol in symbols:
            if not isinstance(symbol, str):
                raise InvalidSchemaError(f"enum {name!r} has a symbol that is no string: {_shown(symbol)}")
            self._check_name(symbol, f"a symbol of enum {name!r}")
        if len(set(symbols)) != len(symbols):
            twice = next(symbol for symbol in symbols if symbols.count(symbol) > 1)
            raise InvalidSchemaError(f"enum {name!r} has the symbol {twice!r} twice")
        default = _text(value, "default")
        if default is not None and default not in symbols:
            raise InvalidSchemaError(f"enum {name!r} has the default {default!r}, which is none of its symbols")
        return self._define(
            EnumType(
                name,
                namespace,
                _text(value, "doc"),
                self._aliases(value, namespace),
                _props(value, _ENUM_RESERVED),
                symbols=symbols,
                default=default,
            )
        )

    def _fixed(self, value: dict[str, Any], namespace: str) -> FixedType:
        name, namespace = self._name(value, namespace)
        size = value.get("size")
        if type(size) is not int or not 0 <= size <= FIXED_SIZE_BYTES_MAX:
            raise InvalidSchemaError(f"fixed {name!r} has the size {_shown(size)}; a number of bytes is wanted")
        doc, aliases = _text(value, "doc"), self._aliases(value, namespace)
        return self._define(FixedType(name, namespace, doc, aliases, _props(value, _SCHEMA_RESERVED), size=size))

    def _array(self, value: dict[str, Any], namespace: str) -> ArrayType:
        if "items" not in value:
            raise InvalidSchemaError(f"an array has no items: {_shown(value)}")
        array = ArrayType(_PLAIN["null"], _props(value, _SCHEMA_RESERVED))
        self._parse_into(array, "items", value["items"], namespace)
        return array

    def _map(self, value: dict[str, Any], namespace: str) -> MapType:
        if "values" not in value:
            raise InvalidSchemaError(f"a map has no values: {_shown(value)}")
        map_ = MapType(_PLAIN["null"], _props(value, _SCHEMA_RESERVED))
        self._parse_into(map_, "values", value["values"], namespace)
        return map_

    def _name(self, value: dict[str, Any], namespace: str) -> tuple[str, str]:
        """Return name and namespace of a definition; a name with dots has its namespace in it."""
        name = value.get("name")
        if not isinstance(name, str):
            raise InvalidSchemaError(f"a {value['type']} has no name: {_shown(value)}")
        given = value.get("namespace")
        if isinstance(given, str):
            namespace = given
        if "." in name:
            namespace, _, name = name.rpartition(".")
        self._check_name(name, f"a {value['type']}")
        if len(namespace) + len(name) > NAME_CHARACTERS_MAX:
            raise InvalidSchemaError(f"{name[:100]!r} has with its namespace over {NAME_CHARACTERS_MAX} characters")
        if self._strict:
            for part in namespace.split(".") if namespace else ():
                self._check_name(part, f"the namespace of {name!r}")
        if not namespace and name in PRIMITIVES:
            raise InvalidSchemaError(
                f"{name!r} is the name of a primitive type, and can't be that of a {value['type']}"
            )
        return name, namespace

    def _aliases(self, value: dict[str, Any], namespace: str) -> tuple[str, ...]:
        if "aliases" not in value:
            return ()
        full_names = []
        for alias in _strings(value, "aliases", f"{value['type']} {value['name']!r}"):
            space, _, name = alias.rpartition(".")
            self._check_name(name, f"an alias of {value['name']!r}")
            space = space if "." in alias else namespace
            full_names.append(f"{space}.{name}" if space else name)
        return tuple(dict.fromkeys(full_names))

    def _check_name(self, name: str, what: str) -> None:
        if _STRICT_NAME.match(name):
            return
        if not name:
            raise InvalidSchemaError(f"{what} has an empty name")
        bare = name.replace("_", "a")
        if self._strict or not (bare[0].isalpha() and all(char.isalpha() or char.isdecimal() for char in bare)):
            raise InvalidSchemaError(
                f"{what} has the name {name[:100]!r}; names have letters, digits and underscores, and no digit first"
            )

    def _define(self, node: _Named) -> _Named:
        first = self._names.setdefault(node.full_name, node)
        if first is not node:
            self._redefined.append((first, node))
        return node

    def _check_union(self, union: UnionType) -> None:
        labels = set()
        for branch in union.branches:
            if branch.kind == "union":
                raise InvalidSchemaError("a union has a union among its branches")
            if branch.label in labels:
                raise InvalidSchemaError(f"a union has the branch {branch.label!r} twice")
            labels.add(branch.label)


def _put(holder: Any, key: Any, node: AvroType) -> None:
    if isinstance(holder, list):
        holder[key] = node
    else:
        setattr(holder, key, node)


def _with_props(kind: str, value: dict[str, Any]) -> AvroType:
    props = _props(value, _SCHEMA_RESERVED)
    return AvroType(kind, props) if props else _PLAIN[kind]


def _props(value: dict[str, Any], reserved: frozenset[str]) -> Mapping[str, Any]:
    if value.keys() <= reserved:
        return NO_PROPS
    return {key: item for key, item in value.items() if key not in reserved}


def _text(value: dict[str, Any], key: str) -> str | None:
    """Return a string of an object; what is there but no string counts as absent, as Java has it."""
    found = value.get(key)
    return found if isinstance(found, str) else None


def _strings(value: dict[str, Any], key: str, what: str) -> tuple[str, ...]:
    found = value[key]
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InvalidSchemaError(f"the {key} of {what} are no array of strings: {_shown(found)}")
    return tuple(dict.fromkeys(found))


def _double(field: Field, record: RecordType) -> float:
    """Return a default that Java reads from a string, for fields of float and double."""
    if not _DOUBLE.match(field.default):
        raise InvalidSchemaError(
            f"field {field.name!r} of {record.full_name!r} has the default {field.default!r}, which is no number"
        )
    return float(field.default.strip().rstrip("fFdD"))


def _shown(value: Any) -> str:
    return compact_json(value)[:200]
