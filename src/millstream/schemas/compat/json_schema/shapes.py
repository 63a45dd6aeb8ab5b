"""A JSON Schema as typed nodes: what kind of values it speaks of, and what it says of them.

One object of a schema becomes one node by what it holds: `{"type": "string", "maxLength": 3}` a string's, an enum
beside a type a combination of two nodes by allOf, a list of types an anyOf, nothing at all an empty one. Keywords
without their type (`{"maxLength": 3}`) make a node of the type they are of. So do the loaders that Confluent's rules
were written for (everit's for drafts 4 to 7, json-sKema's after them), and the rules only make sense on it.

Nodes are made when they are first looked at, once each: schemas are graphs by their `$ref`s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from referencing.exceptions import Unresolvable

from millstream.schemas.parsing.json_schema import Draft, JsonSchema
from millstream.schemas.parsing.json_text import compact_json

REFERENCE_CHAIN_MAX: Final = 100
"""How many `$ref`s in a row may do nothing but lead to the next."""

_ARRAY_KEYWORDS: Final = frozenset(("items", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains"))
_MODERN_ARRAY_KEYWORDS: Final = _ARRAY_KEYWORDS | {"prefixItems", "unevaluatedItems"}
_OBJECT_KEYWORDS: Final = frozenset(
    (
        "additionalProperties",
        "dependencies",
        "maxProperties",
        "minProperties",
        "patternProperties",
        "properties",
        "propertyNames",
        "required",
    )
)
_MODERN_OBJECT_KEYWORDS: Final = _OBJECT_KEYWORDS | {"dependentRequired", "dependentSchemas", "unevaluatedProperties"}
_NUMBER_KEYWORDS: Final = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_STRING_KEYWORDS: Final = frozenset(("minLength", "maxLength", "pattern"))
_CONDITIONAL_KEYWORDS: Final = frozenset(("if", "then", "else"))


def number(raw: Mapping[str, Any], keyword: str) -> float | None:
    """Return the number a keyword has, None where it has none: what `$ref`s lead to may follow another draft."""
    value = raw.get(keyword)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def members(raw: Mapping[str, Any], keyword: str) -> dict[str, Any]:
    """Return the object a keyword has, an empty one where it has none."""
    value = raw.get(keyword)
    return value if isinstance(value, dict) else {}


def items_of(raw: Mapping[str, Any], keyword: str) -> list[Any]:
    """Return the array a keyword has, an empty one where it has none."""
    value = raw.get(keyword)
    return value if isinstance(value, list) else []


class Node:
    """A typed node. `shape` is string, number, boolean, null, object, array, enum, const, not, combined, conditional,
    empty, true or false; `facets` are its keywords, those with subschemas holding Places."""

    __slots__ = ("facets", "shape", "source")

    def __init__(self, shape: str, facets: dict[str, Any] | None = None) -> None:
        self.shape = shape
        self.facets = facets or {}
        # The object of the schema it was made of: annotations are there.
        self.source: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"<{self.shape} {sorted(self.facets)}>"


class Place:
    """A subschema where it stands: it may be a `$ref`, and becomes a node when `node` is first asked for."""

    __slots__ = ("_loader", "_node", "_resolver", "raw")

    def __init__(self, loader: Loader, raw: Any, resolver: Any, node: Node | None = None) -> None:
        self._loader = loader
        self.raw = raw
        self._resolver = resolver
        self._node = node

    @property
    def node(self) -> Node:
        """The node that stands here, `$ref`s followed."""
        if self._node is None:
            self._node = self._loader.load(self.raw, self._resolver)
        return self._node

    @property
    def is_false(self) -> bool:
        """Whether nothing is allowed here, as the schema `false` has it."""
        return self.raw is False

    @property
    def is_empty(self) -> bool:
        """Whether the schema here says nothing at all."""
        is_reference = isinstance(self.raw, dict) and "$ref" in self.raw
        return not is_reference and self.node.shape in ("empty", "true")

    @property
    def has_default(self) -> bool:
        """Whether there is a default here, beside a `$ref` too."""
        return isinstance(self.raw, dict) and "default" in self.raw

    def key(self) -> object:
        """What equal subschemas share."""
        return compact_json(self.raw, sort_keys=True) if self.raw is not None else id(self._node)


class Loader:
    """Makes the nodes of one schema; `unresolved` holds the `$ref`s that led nowhere."""

    def __init__(self, schema: JsonSchema) -> None:
        self._draft = schema.draft
        self._loaded: dict[int, tuple[Any, Node]] = {}  # by identity, with what it was made of, which thereby lives
        self._objects = _MODERN_OBJECT_KEYWORDS if schema.draft.is_modern else _OBJECT_KEYWORDS
        self._arrays = _MODERN_ARRAY_KEYWORDS if schema.draft.is_modern else _ARRAY_KEYWORDS
        self.unresolved: list[str] = []
        self.root = Place(self, schema.value, schema.resolver)
        self._root_value = schema.value

    def load(self, raw: Any, resolver: Any) -> Node:
        """Return the node of `raw`, `$ref`s followed as far as they lead alone."""
        for _ in range(REFERENCE_CHAIN_MAX):
            if not isinstance(raw, dict):
                return Node("false" if raw is False else "true")
            if id(raw) in self._loaded:
                return self._loaded[id(raw)][1]
            resolver = self._inside(raw, resolver)
            reference = self._reference(raw)
            if reference is None or (self._draft.is_modern and self._says_more(raw)):
                node = self._make(raw, resolver, reference)
                node.source = raw
                self._loaded[id(raw)] = (raw, node)
                return node
            raw, resolver = self._look_up(reference, resolver)
        return Node("true")

    def _inside(self, raw: dict[str, Any], resolver: Any) -> Any:
        if raw is not self._root_value and isinstance(raw.get(self._draft.id_keyword), str):
            return resolver.in_subresource(self._draft.specification.create_resource(raw))
        return resolver

    def _reference(self, raw: dict[str, Any]) -> str | None:
        keywords = ("$ref", "$dynamicRef", "$recursiveRef") if self._draft.is_modern else ("$ref",)
        return next((raw[keyword] for keyword in keywords if isinstance(raw.get(keyword), str)), None)

    def _look_up(self, reference: str, resolver: Any) -> tuple[Any, Any]:
        try:
            found = resolver.lookup(reference)
        except (Unresolvable, ValueError):
            self.unresolved.append(reference)
            return True, resolver
        return found.contents, found.resolver

    def _says_more(self, raw: dict[str, Any]) -> bool:
        keywords = raw.keys()
        return not keywords.isdisjoint(("type", "enum", "const", "not", "allOf", "anyOf", "oneOf")) or not all(
            map(
                keywords.isdisjoint,
                (self._objects, self._arrays, _NUMBER_KEYWORDS, _STRING_KEYWORDS, _CONDITIONAL_KEYWORDS),
            )
        )

    def _place(self, raw: Any, resolver: Any) -> Place:
        return Place(self, raw, resolver)

    def _make(self, raw: dict[str, Any], resolver: Any, reference: str | None) -> Node:
        parts: list[Place] = []
        if reference is not None:
            parts.append(Place(self, {"$ref": reference}, resolver))
        nodes: list[Node] = []
        if isinstance(raw.get("enum"), list):
            nodes.append(Node("enum", {"values": {compact_json(value, sort_keys=True) for value in raw["enum"]}}))
        for criterion in ("allOf", "anyOf", "oneOf"):
            if isinstance(raw.get(criterion), list):
                places = [self._place(item, resolver) for item in raw[criterion]]
                nodes.append(Node("combined", {"criterion": criterion, "parts": places}))
        if "not" in raw:
            nodes.append(Node("not", {"schema": self._place(raw["not"], resolver)}))
        if "const" in raw and self._draft is not Draft.DRAFT_4:
            nodes.append(Node("const", {"value": compact_json(raw["const"], sort_keys=True)}))
        nodes += self._typed(raw, resolver)
        if not _CONDITIONAL_KEYWORDS.isdisjoint(raw) and self._draft not in (Draft.DRAFT_4, Draft.DRAFT_6):
            nodes.append(Node("conditional"))
        if not nodes and not parts:
            return Node("empty")
        if len(nodes) == 1 and not parts:
            return nodes[0]
        parts += [Place(self, None, resolver, node) for node in nodes]
        return Node("combined", {"criterion": "allOf", "parts": parts})

    def _typed(self, raw: dict[str, Any], resolver: Any) -> list[Node]:
        """Return the nodes of the types `raw` names, then of those it has keywords of without naming them."""
        types = raw.get("type")
        made: set[str] = set()
        nodes: list[Node] = []
        if isinstance(types, str):
            nodes.append(self._of_type(types, raw, resolver, made))
        elif isinstance(types, list):
            names = [one for one in types if isinstance(one, str)]
            alternatives = [Place(self, None, resolver, self._of_type(one, raw, resolver, made)) for one in names]
            nodes.append(Node("combined", {"criterion": "anyOf", "parts": alternatives}))
        format_alone = "format" in raw and not self._draft.is_modern
        for shape, keywords in (
            ("array", self._arrays),
            ("object", self._objects),
            ("number", _NUMBER_KEYWORDS),
            ("string", _STRING_KEYWORDS),
        ):
            is_used = not keywords.isdisjoint(raw) or (shape == "string" and format_alone)
            if shape not in made and is_used:
                nodes.append(self._of_type(shape, raw, resolver, made))
        return nodes

    def _of_type(self, type_: str, raw: dict[str, Any], resolver: Any, made: set[str]) -> Node:
        shape = "number" if type_ == "integer" else type_
        made.add(shape)
        if shape == "string":
            facets = {key: number(raw, key) for key in ("minLength", "maxLength")}
            return Node(shape, {**facets, "pattern": raw["pattern"] if isinstance(raw.get("pattern"), str) else None})
        if shape == "number":
            facets = {key: number(raw, key) for key in _NUMBER_KEYWORDS}
            return Node(shape, {**facets, "integer": type_ == "integer"})
        if shape == "object":
            return Node(shape, self._object(raw, resolver))
        if shape == "array":
            return Node(shape, self._array(raw, resolver))
        return Node(shape)

    def _object(self, raw: dict[str, Any], resolver: Any) -> dict[str, Any]:
        array_dependencies: dict[str, set[str]] = {}
        schema_dependencies: dict[str, Place] = {}
        if self._draft.is_modern:
            dependencies = {**members(raw, "dependentSchemas"), **members(raw, "dependentRequired")}
        else:
            dependencies = members(raw, "dependencies")
        for key, dependency in dependencies.items():
            if isinstance(dependency, list):
                array_dependencies[key] = {name for name in dependency if isinstance(name, str)}
            else:
                schema_dependencies[key] = self._place(dependency, resolver)
        return {
            "properties": {name: self._place(item, resolver) for name, item in members(raw, "properties").items()},
            "patternProperties": {
                pattern: self._place(item, resolver) for pattern, item in members(raw, "patternProperties").items()
            },
            "additional": self._additional(raw.get("additionalProperties", True), resolver),
            "unevaluated": self._unevaluated(raw, "unevaluatedProperties", resolver),
            "required": {name for name in items_of(raw, "required") if isinstance(name, str)},
            "arrayDependencies": array_dependencies,
            "schemaDependencies": schema_dependencies,
            "maxProperties": number(raw, "maxProperties"),
            "minProperties": number(raw, "minProperties"),
        }

    def _array(self, raw: dict[str, Any], resolver: Any) -> dict[str, Any]:
        facets: dict[str, Any] = {
            key: number(raw, key) for key in ("minItems", "maxItems", "minContains", "maxContains")
        }
        facets["uniqueItems"] = raw.get("uniqueItems") is True
        facets["unevaluated"] = self._unevaluated(raw, "unevaluatedItems", resolver)
        items, every, additional = raw.get("items"), None, raw.get("additionalItems", True)
        places: list[Place] = []
        if isinstance(items, list):
            places = [self._place(item, resolver) for item in items]
        elif self._draft is Draft.DRAFT_2020_12:
            places = [self._place(item, resolver) for item in items_of(raw, "prefixItems")]
            additional = True
            if items is False or (items is not None and items is not True and places):
                additional = items
            elif isinstance(items, dict):
                every = self._place(items, resolver)
        elif items is not None:
            every = self._place(items, resolver)
        if self._draft.is_modern and "contains" in raw and facets["minContains"] is None:
            facets["minContains"] = 1
        return {**facets, "every": every, "places": places, "additional": self._additional(additional, resolver)}

    def _additional(self, raw: Any, resolver: Any) -> Place | bool:
        """Return whether more is allowed, or what it must be."""
        return self._place(raw, resolver) if isinstance(raw, dict) else raw is not False

    def _unevaluated(self, raw: dict[str, Any], keyword: str, resolver: Any) -> Place | None:
        if not self._draft.is_modern or keyword not in raw:
            return None
        return self._place(raw[keyword], resolver)
