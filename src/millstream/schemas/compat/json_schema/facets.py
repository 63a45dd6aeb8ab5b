"""Differences of what two nodes of one shape say, as far as no subschema needs to be compared for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import re2

from millstream.schemas.compat.json_schema.shapes import Place
from millstream.schemas.parsing.json_text import ExactFloat

PATTERN_MEMORY_BYTES_MAX: Final = 1 << 20
PATH_CHARACTERS_MAX: Final = 1_000
"""How long a path grows: by `$ref`s a schema can be far deeper than its text. A longer one has only its end."""

EXPONENT_MAX: Final = 400
"""Numbers beyond ten to this power are not divided: they would fill the memory."""


class Difference(NamedTuple):
    """What differs (see `kinds`) and where: a path of the schema."""

    kind: str
    path: str


Facets: TypeAlias = dict[str, Any]
Found: TypeAlias = list[Difference]


def under(path: str, found: Iterable[Difference]) -> Found:
    """Return differences found at `path`, their paths from above."""
    return [_under(path, one) for one in found]


def _under(path: str, one: Difference) -> Difference:
    if len(path) > PATH_CHARACTERS_MAX:
        path = f"{path[:100]}..."
    if not one.path:
        return Difference(one.kind, path)
    if one.path.startswith(".../"):
        return one
    return Difference(one.kind, f"{path if len(one.path) < PATH_CHARACTERS_MAX else '...'}/{one.path}")


def bounds(old: Facets, new: Facets, **kinds: str) -> Found:
    """Return the differences of keywords that bound something by a number, by the names of their kinds."""
    found = []
    for keyword, kind in kinds.items():
        was, now = old.get(keyword), new.get(keyword)
        if was is None and now is None:
            continue
        if was is None or now is None:
            found.append(Difference(f"{kind}_{'ADDED' if was is None else 'REMOVED'}", keyword))
        elif was != now:
            found.append(Difference(f"{kind}_{'INCREASED' if was < now else 'DECREASED'}", keyword))
    return found


def sets(was: set[str], now: set[str], path: str, kind: str) -> Found:
    """Return what became of a set."""
    if was == now:
        return []
    ending = "EXTENDED" if now >= was else "NARROWED" if was >= now else "CHANGED"
    return [Difference(f"{kind}_{ending}", path)]


def required(old: Facets, new: Facets) -> Found:
    """Return the differences in what is required of the properties that both describe."""
    found = []
    for name in old["properties"]:
        place = new["properties"].get(name)
        if place is None or (name in old["required"]) == (name in new["required"]):
            continue
        if name in old["required"]:
            kind = "REQUIRED_ATTRIBUTE_REMOVED"
        else:
            kind = "REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED" if place.has_default else "REQUIRED_ATTRIBUTE_ADDED"
        found.append(Difference(kind, f"required/{name}"))
    return found


def is_open(facets: Facets) -> bool:
    """Return whether an object or array allows anything beside what it describes: an open content model."""
    unevaluated: Place | None = facets["unevaluated"]
    if facets["additional"] is not True or facets.get("patternProperties"):
        return False
    return unevaluated is None or unevaluated.is_empty


def cover_of(facets: Facets, name: str) -> Place | None:
    """Return what a property of that name, or an item, must be that is not described: the content is partially open."""
    for pattern, place in facets.get("patternProperties", {}).items():
        if _matches(pattern, name):
            return place  # type: ignore[no-any-return]
    if isinstance(facets["additional"], Place):
        return facets["additional"]
    unevaluated: Place | None = facets["unevaluated"]
    if facets["additional"] is not True or unevaluated is None or unevaluated.is_false or unevaluated.is_empty:
        return None
    return unevaluated


def _matches(pattern: str, name: str) -> bool:
    """Return whether the pattern is in the name; one that takes more than linear time to find matches nothing."""
    compiled = _compiled(pattern)
    return compiled is not None and compiled.search(name) is not None


@lru_cache(256)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY_BYTES_MAX
    try:
        return re2.compile(pattern, options=options)
    except re2.error:
        return None


def _enum(old: Facets, new: Facets) -> Found:
    return sets(old["values"], new["values"], "enum", "ENUM_ARRAY")


def _const(old: Facets, new: Facets) -> Found:
    return [] if old["value"] == new["value"] else [Difference("ENUM_ARRAY_CHANGED", "const")]


def _string(old: Facets, new: Facets) -> Found:
    found = bounds(old, new, maxLength="MAX_LENGTH", minLength="MIN_LENGTH")
    was, now = old.get("pattern"), new.get("pattern")
    if was != now:
        ending = "ADDED" if was is None else "REMOVED" if now is None else "CHANGED"
        found.append(Difference(f"PATTERN_{ending}", "pattern"))
    return found


def _number(old: Facets, new: Facets) -> Found:
    found = bounds(
        old,
        new,
        maximum="MAXIMUM",
        minimum="MINIMUM",
        exclusiveMaximum="EXCLUSIVE_MAXIMUM",
        exclusiveMinimum="EXCLUSIVE_MINIMUM",
    )
    found += _multiples(old.get("multipleOf"), new.get("multipleOf"))
    if old["integer"] != new["integer"]:
        found.append(Difference("TYPE_EXTENDED" if old["integer"] else "TYPE_NARROWED", ""))
    return found


def _multiples(was: float | None, now: float | None) -> Found:
    if was == now:
        return []
    if was is None or now is None:
        return [Difference(f"MULTIPLE_OF_{'ADDED' if was is None else 'REMOVED'}", "multipleOf")]
    before, after = _fraction(was), _fraction(now)
    if not before or not after:
        ending = "CHANGED"
    elif after % before == 0:
        ending = "EXPANDED"
    else:
        ending = "REDUCED" if before % after == 0 else "CHANGED"
    return [Difference(f"MULTIPLE_OF_{ending}", "multipleOf")]


def _fraction(number: float) -> Fraction | None:
    """Return a number exactly as it was written, None where it is out of bounds."""
    if not isinstance(number, ExactFloat):
        return Fraction(number)
    return Fraction(number.text) if abs(number.magnitude) <= EXPONENT_MAX else None


LEAF_COMPARISONS: Final[dict[str, Callable[[Facets, Facets], Found]]] = {
    "const": _const,
    "enum": _enum,
    "number": _number,
    "string": _string,
}
