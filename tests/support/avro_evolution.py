"""Avro schemas of any shape, and pairs of which one may have become of the other, as JSON values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
LOGICAL = (
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "int", "logicalType": "date"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "int", "logicalType": "no-such-type"},
)
DEFAULTS: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.integers(-1000, 1000).map(lambda number: number / 8),
    "double": st.sampled_from((0.0, 1.5, -2.25e10, 1e-7, 12345678.5, 3)),
    "bytes": st.text("abc\u00ff", max_size=3),
    "string": st.text(max_size=4).filter(str.isprintable),
}


class _Names:
    """Names for the types of one schema, each given once."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def new(self, draw: Callable[..., Any]) -> dict[str, Any]:
        name = draw(st.sampled_from(("A", "B", "C", "D"))) + (str(len(self.taken)) if self.taken else "")
        namespace = draw(st.sampled_from(("", "n", "n.m")))
        self.taken.append(f"{namespace}.{name}" if namespace else name)
        named: dict[str, Any] = {"name": name, "namespace": namespace}
        if draw(st.integers(0, 4)) == 0:
            named["aliases"] = [draw(st.sampled_from(("A", "n.B", "n.m.C", "Z")))]
        if draw(st.integers(0, 4)) == 0:
            named["doc"] = draw(st.sampled_from(("", "what it is", 'with "quotes" \u2014 and more')))
        return named


@st.composite
def schemas(draw: Callable[..., Any], depth: int = 3) -> Any:
    """A schema, valid nearly always."""
    return _schema(draw, depth, _Names())


def _schema(draw: Callable[..., Any], depth: int, names: _Names, *, in_union: bool = False) -> Any:
    kinds = ["primitive", "primitive", "logical"]
    # A name without namespace means nothing certain inside a namespace: Java itself changed its mind.
    known = [name for name in names.taken if "." in name]
    if known and not in_union:
        kinds.append("name")
    if depth > 0:
        kinds += ["record", "record", "enum", "fixed", "array", "map"]
        if not in_union:
            kinds.append("union")
    kind = draw(st.sampled_from(kinds))
    if kind == "primitive":
        return draw(st.sampled_from(PRIMITIVES))
    if kind == "logical":
        return copy.deepcopy(draw(st.sampled_from(LOGICAL)))
    if kind == "name":
        return draw(st.sampled_from(known))
    if kind == "array":
        return {"type": "array", "items": _schema(draw, depth - 1, names)}
    if kind == "map":
        return {"type": "map", "values": _schema(draw, depth - 1, names)}
    if kind == "union":
        return _union(draw, depth, names)
    named = {"type": kind, **names.new(draw)}
    if kind == "fixed":
        return {**named, "size": draw(st.integers(0, 4))}
    if kind == "enum":
        symbols = draw(st.lists(st.sampled_from(("RED", "BLUE", "GREEN", "GOLD")), unique=True, min_size=1))
        if draw(st.booleans()):
            named["default"] = draw(st.sampled_from(symbols))
        return {**named, "symbols": symbols}
    field_names = draw(st.lists(st.sampled_from(("a", "b", "c", "d", "e")), unique=True, max_size=4))
    return {**named, "fields": [_field(draw, name, depth, names) for name in field_names]}


def _union(draw: Callable[..., Any], depth: int, names: _Names) -> list[Any]:
    branches: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 3))):
        branch = _schema(draw, depth - 1, names, in_union=True)
        label = branch if isinstance(branch, str) else branch.get("name", branch["type"])
        branches.setdefault(label, branch)
    return list(branches.values())


def _field(draw: Callable[..., Any], name: str, depth: int, names: _Names) -> dict[str, Any]:
    type_ = _schema(draw, depth - 1, names)
    field: dict[str, Any] = {"name": name, "type": type_}
    default = _default(type_)
    if default is not None and draw(st.booleans()):
        field["default"] = draw(default)
    if draw(st.integers(0, 5)) == 0:
        field["aliases"] = [draw(st.sampled_from(("x", "y", "z", "a")))]
    if draw(st.integers(0, 8)) == 0:
        field["order"] = draw(st.sampled_from(("ascending", "descending", "ignore")))
    if draw(st.integers(0, 8)) == 0:
        field["pii"] = draw(st.sampled_from((True, {"b": 1, "a": [1.5, None]}, "text")))
    return field


def _default(type_: Any) -> st.SearchStrategy[Any] | None:
    """What may be the default of a type, as far as these schemas have any."""
    if isinstance(type_, str):
        return DEFAULTS.get(type_)
    if isinstance(type_, list):
        return _default(type_[0]) if type_ else None
    if type_["type"] == "array":
        return st.just([])
    if type_["type"] == "map":
        return st.just({})
    if type_["type"] == "enum":
        return st.sampled_from(type_["symbols"])
    return DEFAULTS.get(type_["type"])


@st.composite
def pairs(draw: Callable[..., Any]) -> tuple[Any, Any]:
    """A reader's and a writer's schema: unrelated ones, or one that came of the other by a few changes."""
    writer = draw(schemas())
    if draw(st.integers(0, 5)) == 0:
        return draw(schemas()), writer
    reader = [copy.deepcopy(writer)]
    for _ in range(draw(st.integers(0, 3))):
        places = _places(reader)
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        holder[key] = _changed(draw, holder[key])
    return (reader[0], writer) if draw(st.booleans()) else (writer, reader[0])


def _places(holder: list[Any]) -> list[tuple[Any, Any]]:
    """Every place in a schema where a type stands."""
    places: list[tuple[Any, Any]] = [(holder, index) for index in range(len(holder))]
    found: list[tuple[Any, Any]] = []
    while places:
        place = places.pop()
        found.append(place)
        type_ = place[0][place[1]]
        if isinstance(type_, list):
            places += [(type_, index) for index in range(len(type_))]
        elif isinstance(type_, dict):
            places += [(type_, key) for key in ("items", "values") if key in type_]
            places += [(field, "type") for field in type_.get("fields", ())]
    return found


def _changed(draw: Callable[..., Any], type_: Any) -> Any:
    if isinstance(type_, str) or draw(st.integers(0, 3)) == 0:
        choice = draw(st.integers(0, 2))
        if choice == 0 and isinstance(type_, str):
            return draw(st.sampled_from(PRIMITIVES))
        if choice == 1 and not isinstance(type_, list) and type_ != "null":
            return ["null", type_]
        return type_
    if isinstance(type_, list):
        if type_ and draw(st.booleans()):
            return [one for one in type_ if one != type_[draw(st.integers(0, len(type_) - 1))]]
        return type_ if "double" in type_ else [*type_, "double"]
    changed = dict(type_)
    if type_["type"] == "record":
        changed["fields"] = _changed_fields(draw, type_["fields"])
    elif type_["type"] == "enum":
        changed["symbols"] = [*type_["symbols"], "NEW"] if draw(st.booleans()) else [type_["symbols"][0]]
        if changed.get("default") not in changed["symbols"]:
            changed.pop("default", None)
    elif type_["type"] == "fixed":
        changed["size"] = type_["size"] + 1
    return changed


def _changed_fields(draw: Callable[..., Any], fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if fields and draw(st.booleans()):
        dropped = draw(st.integers(0, len(fields) - 1))
        return [field for index, field in enumerate(fields) if index != dropped]
    if any(field["name"] == "added" for field in fields):
        return fields
    added: dict[str, Any] = {"name": "added", "type": draw(st.sampled_from(("int", "string")))}
    if draw(st.booleans()):
        added["default"] = 0 if added["type"] == "int" else ""
    return [*fields, added]
