"""JSON Schemas that may have become of each other, and values to try them on.

Of the keywords those whose changes registries judge: what they overlook (contains, patternProperties, conditions),
where they trust in defaults, and oneOf, whose alternatives may come to overlap, is not here.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "c")
SCALARS = ("string", "integer", "number", "boolean", "null")
VALUES = ("", "x", "xyz", 0, 1, 2, 6, 1.5, True, None)


@st.composite
def schemas(draw: Callable[..., Any], depth: int = 3) -> Any:
    """A schema."""
    return _schema(draw, depth)


def _schema(draw: Callable[..., Any], depth: int) -> Any:
    kinds = ["scalar", "scalar", "types", "enum", "const", "true"]
    if depth > 0:
        kinds += ["object", "object", "object", "array", "tuple", "anyOf", "allOf", "not"]
    kind = draw(st.sampled_from(kinds))
    if kind == "true":
        return True
    if kind == "enum":
        return {"enum": draw(st.lists(st.sampled_from(VALUES[:6]), min_size=1, max_size=3, unique_by=repr))}
    if kind == "const":
        return {"const": draw(st.sampled_from(VALUES[:6]))}
    if kind in ("scalar", "types"):
        types = draw(st.lists(st.sampled_from(SCALARS), min_size=1, max_size=2 if kind == "types" else 1, unique=True))
        if {"integer", "number"} <= set(types):
            types.remove("integer")
        return {"type": types if kind == "types" else types[0], **_facets(draw, types)}
    if kind == "object":
        return _object(draw, depth)
    if kind == "array":
        return {"type": "array", "items": _schema(draw, depth - 1), **_some(draw, minItems=(1, 2), maxItems=(2, 3))}
    if kind == "tuple":
        places = [_schema(draw, depth - 1) for _ in range(draw(st.integers(1, 2)))]
        return {"type": "array", "tuple": places, "more": draw(st.sampled_from((True, False, {"type": "integer"})))}
    if kind == "not":
        return {"not": _schema(draw, depth - 1)}
    return {kind: [_schema(draw, depth - 1) for _ in range(draw(st.integers(1, 3)))]}


def _facets(draw: Callable[..., Any], types: list[str]) -> dict[str, Any]:
    facets: dict[str, Any] = {}
    if "string" in types:
        facets |= _some(draw, minLength=(1, 2), maxLength=(2, 3))
    if "integer" in types or "number" in types:
        facets |= _some(draw, minimum=(0, 1), maximum=(2, 6), exclusiveMaximum=(3, 7), multipleOf=(1, 2, 3))
    return facets


def _some(draw: Callable[..., Any], **facets: tuple[int, ...]) -> dict[str, int]:
    return {name: draw(st.sampled_from(choices)) for name, choices in facets.items() if draw(st.integers(0, 2)) == 0}


def _object(draw: Callable[..., Any], depth: int) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    made: dict[str, Any] = {"type": "object", "properties": {name: _schema(draw, depth - 1) for name in names}}
    if names and draw(st.booleans()):
        made["required"] = draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
    if draw(st.integers(0, 3)):
        made["additionalProperties"] = draw(st.sampled_from((False, False, True, {"type": "string"})))
    return made | _some(draw, maxProperties=(2, 3))


@st.composite
def pairs(draw: Callable[..., Any]) -> tuple[Any, Any]:
    """A reader's and a writer's schema, the one the other with a few changes."""
    writer = draw(schemas())
    reader = [copy.deepcopy(writer)]
    for _ in range(draw(st.integers(1, 2))):
        places = _places(reader)
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        holder[key] = _changed(draw, holder[key])
    return (reader[0], writer) if draw(st.booleans()) else (writer, reader[0])


def _places(holder: list[Any]) -> list[tuple[Any, Any]]:
    waiting: list[tuple[Any, Any]] = [(holder, 0)]
    found = []
    while waiting:
        place = waiting.pop()
        found.append(place)
        schema = place[0][place[1]]
        if isinstance(schema, dict):
            waiting += [(schema["properties"], name) for name in schema.get("properties", ())]
            waiting += [(schema, key) for key in ("items", "not") if key in schema]
            for key in ("anyOf", "allOf", "tuple"):
                waiting += [(schema[key], index) for index in range(len(schema.get(key, ())))]
    return found


def _changed(draw: Callable[..., Any], schema: Any) -> Any:
    if not isinstance(schema, dict) or draw(st.integers(0, 5)) == 0:
        return _schema(draw, 1)
    changed = dict(schema)
    key = draw(st.sampled_from(sorted(changed)))
    if key in ("anyOf", "allOf", "enum", "tuple"):
        added = draw(st.sampled_from(VALUES)) if key == "enum" else _schema(draw, 1)
        grown = [*changed[key], added]
        changed[key] = grown if draw(st.booleans()) or len(changed[key]) == 1 else changed[key][1:]
        if key == "enum" and len({repr(value) for value in changed[key]}) < len(changed[key]):
            return schema
    elif key == "properties" or (schema.get("type") == "object" and draw(st.booleans())):
        name = draw(st.sampled_from(NAMES))
        properties = dict(changed.get("properties", {}))
        if name in properties:
            del properties[name]
            changed["required"] = [one for one in changed.get("required", ()) if one != name]
        else:
            properties[name] = _schema(draw, 1)
        changed["properties"] = properties
    elif key in (
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
    ):
        changed[key] += draw(st.sampled_from((1, 1, 2)))
    elif key not in ("type", "const", "not", "items", "more"):
        del changed[key]
    elif key == "more":
        changed[key] = draw(st.sampled_from((True, False)))
    return changed


def value_of(schema: Any, draw: random.Random) -> Any:
    """Return a value that is likely to be valid by a schema."""
    if not isinstance(schema, dict) or "not" in schema or draw.random() < 0.1:
        shapes: list[Any] = [*VALUES, [], [1], ["x", 2], {}, {"a": "x"}, {"b": 2, "z": None}]
        return draw.choice(shapes)
    for key in ("enum", "anyOf", "allOf"):
        if key in schema:
            chosen = draw.choice(schema[key])
            return chosen if key == "enum" else value_of(chosen, draw)
    if "const" in schema:
        return schema["const"]
    type_ = schema["type"] if isinstance(schema["type"], str) else draw.choice(schema["type"])
    if type_ == "object":
        made = {
            name: value_of(inner, draw)
            for name, inner in schema["properties"].items()
            if name in schema.get("required", ()) or draw.random() < 0.7
        }
        more = schema.get("additionalProperties", True)
        return {**made, "z": value_of(more, draw)} if more is not False and draw.random() < 0.5 else made
    if type_ == "array":
        if "tuple" in schema:
            made_items = [value_of(inner, draw) for inner in schema["tuple"]]
            return made_items + ([value_of(schema["more"], draw)] if schema["more"] and draw.random() < 0.5 else [])
        return [value_of(schema.get("items", True), draw) for _ in range(draw.randint(0, 3))]
    if type_ == "string":
        return "abcdef"[: max(schema.get("minLength", 0), min(schema.get("maxLength", 5), draw.randint(0, 5)))]
    if type_ in ("integer", "number"):
        return draw.choice((0, 1, 2, 3, 6, 12, -6, *((1.5, 2.25) if type_ == "number" else ())))
    return draw.choice((True, False)) if type_ == "boolean" else None


def as_draft_7(schema: Any) -> Any:
    """Write tuples in the keywords of draft 7."""
    return _written(schema, "items", "additionalItems")


def as_2020_12(schema: Any) -> Any:
    """Write tuples in the keywords of 2020-12."""
    written = _written(schema, "prefixItems", "items")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **(written if isinstance(written, dict) else {})}


def _written(schema: Any, places: str, more: str) -> Any:
    if isinstance(schema, list):
        return [_written(one, places, more) for one in schema]
    if not isinstance(schema, dict):
        return schema
    names = {"tuple": places, "more": more}
    return {
        names.get(key, key): value if key in ("enum", "const") else _written(value, places, more)
        for key, value in schema.items()
    }
