"""JSON Schemas: drafts 4 to 2020-12, checked by their metaschemas, with every `$ref` resolved.

The draft is that of `$schema`, draft 7 where there is none, as Confluent's registry has it. Nothing is ever fetched:
a `$ref` leads into the schema itself, to a metaschema, or to one of the references by its name.

Each subschema is checked against the metaschema by itself, those inside it put aside: so no nesting can exhaust the
stack, and equal subschemas (`{"type": "string"}`) are checked once in the life of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Final, NamedTuple

import jsonschema
import jsonschema.exceptions
import referencing.jsonschema
from jsonschema_specifications import REGISTRY as METASCHEMAS  # type: ignore[import-untyped]
from referencing import Registry, Resource, Specification
from referencing.exceptions import Unresolvable

from millstream.schemas.parsing.json_text import check_size, check_unicode, compact_json, load_json
from millstream.schemas.parsing.parsed_schema import InvalidSchemaError, ParsedSchema, Reference, SchemaType

CHECKED_SUBSCHEMAS_MAX: Final = 4096
"""How many subschemas are remembered as valid."""

# Where keywords hold subschemas; a draft that does not know a keyword does not mind what is there.
_ONE: Final = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_LIST: Final = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_NAMED: Final = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")


class Draft(Enum):
    """A version of JSON Schema: the end of its `$schema`, and the libraries' names for it."""

    DRAFT_4 = ("draft-04/schema", jsonschema.Draft4Validator, referencing.jsonschema.DRAFT4)
    DRAFT_6 = ("draft-06/schema", jsonschema.Draft6Validator, referencing.jsonschema.DRAFT6)
    DRAFT_7 = ("draft-07/schema", jsonschema.Draft7Validator, referencing.jsonschema.DRAFT7)
    DRAFT_2019_09 = ("draft/2019-09/schema", jsonschema.Draft201909Validator, referencing.jsonschema.DRAFT201909)
    DRAFT_2020_12 = ("draft/2020-12/schema", jsonschema.Draft202012Validator, referencing.jsonschema.DRAFT202012)

    def __init__(self, path: str, validator: type[Any], specification: Specification[Any]) -> None:
        self.path = path
        self.validator = validator
        self.specification = specification

    @property
    def is_modern(self) -> bool:
        """Whether `$ref` has its neighbours' company, and prefixItems and the like are known."""
        return self in (Draft.DRAFT_2019_09, Draft.DRAFT_2020_12)

    @property
    def id_keyword(self) -> str:
        """The keyword that names a schema."""
        return "id" if self is Draft.DRAFT_4 else "$id"

    @classmethod
    def of(cls, schema: Any) -> Draft:
        """Return the draft of a schema by its `$schema`, draft 7 where that says nothing known."""
        uri = schema.get("$schema") if isinstance(schema, dict) else None
        if isinstance(uri, str):
            uri = uri.rstrip("#").partition("://")[2]
            for draft in cls:
                if uri == f"json-schema.org/{draft.path}":
                    return draft
            if uri == "json-schema.org/schema":
                return cls.DRAFT_4
        return cls.DRAFT_7


class JsonSchema(ParsedSchema):
    """A parsed JSON Schema: `value` as JSON, its `draft`, and `text` without white space, keys in their order."""

    type: ClassVar[SchemaType] = SchemaType.JSON

    def __init__(
        self, value: Any, references: Iterable[Reference] = (), resolved: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(compact_json(value), references, resolved)
        self.draft = Draft.of(value)
        self.value = with_arrays_first(_with_defs(value))

    @property
    def name(self) -> str | None:
        """The title."""
        title = self.value.get("title") if isinstance(self.value, dict) else None
        return title if isinstance(title, str) else None

    @cached_property
    def resolver(self) -> Any:
        """What finds a `$ref` of the root: `lookup(ref)` gives `contents` and the `resolver` to go on with."""
        root: Resource[Any] = self.draft.specification.create_resource(self.value)
        base = root.id() or ""
        registry: Registry[Any] = METASCHEMAS.with_resource(base, root)
        for name, text in self.resolved.items():
            value = with_arrays_first(_with_defs(load_json(text, exact=True)))
            resource: Resource[Any] = Draft.of(value).specification.create_resource(value)
            registry = registry.with_resources([(uri, resource) for uri in _uris(base, name)])
        # All anchors and ids are gathered now, not again and again by each lookup.
        return registry.crawl().resolver(base)

    def normalized(self) -> JsonSchema:
        """The schema with the keys of all its objects, and its references, in order."""
        value = load_json(compact_json(load_json(self.text, exact=True), sort_keys=True), exact=True)
        return JsonSchema(value, sorted(set(self.references)), self.resolved)


def parse_json_schema(
    text: str,
    references: Iterable[Reference] = (),
    resolved: Mapping[str, str] | None = None,
    *,
    strict: bool = False,
) -> JsonSchema:
    """Parse and check `text` and the texts it refers to.

    `strict` refuses what Confluent's registry keeps for itself (properties that start with `$$`), and references to
    what would have to be fetched.
    """
    resolved = dict(resolved or {})
    check_size(text, resolved)
    schema = JsonSchema(load_json(text, exact=True), references, resolved)
    if not schema.text.isascii():
        check_unicode(schema.text)
    for name, referenced in resolved.items():
        try:
            value = load_json(referenced, exact=True)
            _check(value, Draft.of(value))
        except InvalidSchemaError as error:
            raise InvalidSchemaError(f"reference {name!r}: {error}") from error
    _check(schema.value, schema.draft)
    _check_references(schema, fetched_allowed=not strict)
    if strict and isinstance(schema.value, dict) and isinstance(schema.value.get("properties"), dict):
        for name in schema.value["properties"]:
            if name.startswith("$$"):
                raise InvalidSchemaError(f"the property {name!r} starts with $$, which is reserved")
    return schema


def subschemas(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each subschema directly inside `schema`."""
    if not isinstance(schema, dict):
        return
    for keyword in _ONE:
        if isinstance(schema.get(keyword), dict | bool):
            yield keyword, schema[keyword]
    for keyword in _LIST:
        if isinstance(schema.get(keyword), list):
            for index, item in enumerate(schema[keyword]):
                yield f"{keyword}/{index}", item
    for keyword in _NAMED:
        if isinstance(schema.get(keyword), dict):
            for name, item in schema[keyword].items():
                if isinstance(item, dict | bool):
                    yield f"{keyword}/{name}", item


class _Path(NamedTuple):
    """A place in a schema, by the place it is in: names may be long, and most are never told."""

    name: str
    outer: _Path | None

    def text(self) -> str:
        """Return the path from the root on."""
        names = []
        place: _Path | None = self
        while place is not None:
            names.append(place.name[:200])
            place = place.outer
        return "/".join(["#", *reversed(names)])


def _with_defs(value: Any) -> Any:
    """Let `#/$defs/x` find what lies in `definitions`, as Confluent's registry does for schemas of any draft."""
    if not isinstance(value, dict) or not isinstance(value.get("definitions"), dict):
        return value
    if not isinstance(value.get("$defs", {}), dict):
        return value
    return {**value, "$defs": {**value["definitions"], **value.get("$defs", {})}}


def with_arrays_first(value: Any) -> Any:
    """Put the arrays of each `dependencies` before its schemas, in place; return `value`.

    The library that resolves takes all of them for schemas where the first is one, and none where it is not.
    """
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            dependencies = one.get("dependencies")
            if isinstance(dependencies, dict):
                one["dependencies"] = dict(sorted(dependencies.items(), key=lambda pair: not isinstance(pair[1], list)))
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return value


def _uris(base: str, name: str) -> set[str]:
    from urllib.parse import urljoin

    try:
        return {name, urljoin(base, name)}
    except ValueError:
        return {name}


def _check(schema: Any, draft: Draft) -> None:
    """Check a whole schema, subschema by subschema."""
    if not isinstance(schema, dict | bool):
        raise InvalidSchemaError("a JSON Schema is an object, true or false")
    waiting: list[tuple[Any, _Path | None]] = [(schema, None)]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, dict):
            complaint = _complaint(draft, compact_json(_without_subschemas(value)))
        else:
            complaint = "" if isinstance(value, bool) else f"{compact_json(value)[:100]} is no schema"
        if complaint:
            raise InvalidSchemaError(f"{'#' if path is None else path.text()}: {complaint}")
        waiting += [(inner, _Path(name, path)) for name, inner in subschemas(value)]


def _without_subschemas(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what the metaschema has to say something about, names and values that don't matter replaced."""
    shallow = dict(schema)
    for keyword in _ONE:
        if isinstance(schema.get(keyword), dict | bool):
            shallow[keyword] = {}
    for keyword in _LIST:
        if isinstance(schema.get(keyword), list):
            shallow[keyword] = [{}] * min(len(schema[keyword]), 2)
    for keyword in _NAMED:
        if isinstance(schema.get(keyword), dict):
            kept = shallow[keyword] = {}
            for name, item in schema[keyword].items():
                is_schema = isinstance(item, dict | bool)
                kept["name" if is_schema else name] = {} if is_schema else item
    for keyword, value in shallow.items():
        stand_in = _STAND_INS.get(keyword)
        if stand_in is not None and stand_in[0](value):
            shallow[keyword] = stand_in[1]
    return shallow


def _is_anything(value: object) -> bool:
    del value
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) is int or isinstance(value, float)


def _is_set(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) == len({item for item in value if isinstance(item, str)})


_STAND_INS: Final[dict[str, tuple[Callable[[Any], bool], Any]]] = {
    **dict.fromkeys(
        ("$comment", "$dynamicRef", "$ref", "description", "format", "pattern", "title"),
        (_is_text, "x"),
    ),
    **dict.fromkeys(
        ("maxContains", "maxItems", "maxLength", "maxProperties", "minContains", "minItems", "minLength"),
        (_is_count, 1),
    ),
    **dict.fromkeys(("maximum", "minimum"), (_is_number, 1)),
    **dict.fromkeys(("enum", "required"), (_is_set, ["x"])),
    **dict.fromkeys(("const", "default"), (_is_anything, 1)),
}
"""For keywords: which values are all valid alike, and one for all of them, so that more subschemas are equal."""


@lru_cache(CHECKED_SUBSCHEMAS_MAX)
def _complaint(draft: Draft, text: str) -> str:
    try:
        # No formats: a pattern is a regular expression of ECMA's kind, which the interpreter's differs from.
        draft.validator.check_schema(load_json(text, exact=True), format_checker=None)
    except jsonschema.exceptions.SchemaError as error:
        where = "/".join(map(str, error.absolute_path))
        return f"{where + ': ' if where else ''}{error.message[:300]}"
    return ""


def _check_references(schema: JsonSchema, *, fetched_allowed: bool) -> None:
    try:
        waiting = [(schema.value, schema.resolver)]
        checked: set[int] = set()
        while waiting:
            value, resolver = waiting.pop()
            if not isinstance(value, dict) or id(value) in checked:
                continue
            checked.add(id(value))
            if value is not schema.value and isinstance(value.get(schema.draft.id_keyword), str):
                resolver = resolver.in_subresource(schema.draft.specification.create_resource(value))
            for keyword in ("$ref", "$dynamicRef"):
                if isinstance(value.get(keyword), str):
                    _look_up(resolver, value[keyword], fetched_allowed=fetched_allowed)
            if "$ref" not in value or schema.draft.is_modern:
                waiting += [(inner, resolver) for _, inner in subschemas(value)]
    except (Unresolvable, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, InvalidSchemaError):
            raise
        raise InvalidSchemaError(f"the references can't be resolved: {error}") from error


def _look_up(resolver: Any, reference: str, *, fetched_allowed: bool) -> None:
    try:
        found = resolver.lookup(reference).contents
    except Unresolvable as error:
        if fetched_allowed and reference.startswith(("http://", "https://")):
            return
        raise InvalidSchemaError(
            f"$ref {reference!r} leads nowhere; define it, or name it among the references"
        ) from error
    if not isinstance(found, dict | bool):
        raise InvalidSchemaError(f"$ref {reference!r} leads to {compact_json(found)[:100]}, which is no schema")
