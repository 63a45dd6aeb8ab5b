"""The walk over two JSON Schemas that tells every difference, from the writer's schema to the reader's.

Each pair of nodes is compared once: its differences are kept with paths relative to the pair. A pair met again inside
itself counts as equal for the time being; since that may hide what the outer comparison finds, the whole walk is
repeated with the pairs found incompatible known, until nothing new is found. Confluent's registry does both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from millstream.schemas.compat.json_schema.facets import (
    LEAF_COMPARISONS,
    Difference,
    Facets,
    Found,
    bounds,
    cover_of,
    is_open,
    required,
    sets,
    under,
)
from millstream.schemas.compat.json_schema.kinds import COMPATIBLE_KINDS
from millstream.schemas.compat.json_schema.shapes import Loader, Node, Place
from millstream.schemas.compat.matching import maximum_matching
from millstream.schemas.compat.trampoline import Steps, run
from millstream.schemas.parsing.json_schema import JsonSchema

COMPARISONS_MAX: Final = 50_000
"""How many pairs one check compares: alternatives are compared each with each, and a schema may have thousands."""

DIFFERENCES_MAX: Final = 500
"""How many differences are kept of a pair; those that make it incompatible come first when there are more."""

KEPT_MAX: Final = 50_000
"""How many differences are kept of all pairs together until the whole is known; beyond that one of each pair."""


def differences(writer: JsonSchema, reader: JsonSchema) -> Found:
    """Return every difference from `writer` to `reader`, compatible ones too; paths start with `#/`."""
    old, new = Loader(writer), Loader(reader)
    known: dict[tuple[int, int], Found] = {}
    while True:
        walk = _Walk(known)
        try:
            found = run(walk.compare(old.root, new.root))
        except _TooManyComparisonsError:
            return [Difference("TOO_MANY_COMPARISONS", "#/")]
        incompatible = {pair: result for pair, result in walk.results.items() if not is_compatible(result)}
        if not walk.has_assumed or incompatible.keys() == known.keys():
            break
        known = incompatible
    if old.unresolved or new.unresolved:
        found = [*found, Difference("UNRESOLVED_REFERENCE", (old.unresolved + new.unresolved)[0])]
    return [Difference(kind, f"#/{path}") for kind, path in found]


def is_compatible(found: Found) -> bool:
    """Return whether none of the differences keeps the reader from what the writer allows."""
    return all(kind in COMPATIBLE_KINDS for kind, _ in found)


class _TooManyComparisonsError(Exception):
    """COMPARISONS_MAX is reached."""


class _Walk:
    def __init__(self, known: dict[tuple[int, int], Found]) -> None:
        self.results: dict[tuple[int, int], Found] = {}
        self.has_assumed = False
        self._known = known
        self._open: set[tuple[int, int]] = set()
        self._kept = 0  # differences in results

    def compare(self, old: Place | None, new: Place | None) -> Steps[Found]:
        """Return the differences of two places, either of which may have nothing in it."""
        if old is None or new is None:
            if old is new:
                return []
            return [Difference("SCHEMA_ADDED" if old is None else "SCHEMA_REMOVED", "")]
        result: Found = yield self._nodes(old.node, new.node)
        return result

    def _nodes(self, old: Node, new: Node) -> Steps[Found]:
        pair = (id(old), id(new))
        if pair in self.results:
            return self.results[pair]
        if pair in self._open:
            if pair in self._known:
                return self._known[pair]
            self.has_assumed = True
            return []
        if len(self.results) + len(self._open) >= COMPARISONS_MAX:
            raise _TooManyComparisonsError
        self._open.add(pair)
        found: Found = yield self._types(old, new)
        most = DIFFERENCES_MAX if self._kept <= KEPT_MAX else 1
        if len(found) > most:
            found = sorted(found, key=lambda one: one.kind in COMPATIBLE_KINDS)[:most]
        self._kept += len(found)
        self._open.remove(pair)
        self.results[pair] = found
        return found

    def _types(self, old: Node, new: Node) -> Steps[Found]:
        if old.shape != "combined" and new.shape == "combined":
            found: Found | None = yield self._into_combined(old, new)
            if found is not None:
                return found
        elif old.shape == "combined" and new.shape != "combined":
            found = yield self._out_of_combined(old, new)
            if found is not None:
                return found
        if old.shape != new.shape:
            if old.shape == "false" or new.shape in ("empty", "true"):
                return []
            if old.source.get("connect.type") == new.source.get("connect.type") == "bytes":
                return []  # Kafka Connect changed how it describes decimals; both mean the same
            return [Difference("TYPE_CHANGED", "")]
        found = [
            Difference(kind, "")
            for keyword, kind in (
                ("$id", "ID_CHANGED"),
                ("title", "TITLE_CHANGED"),
                ("description", "DESCRIPTION_CHANGED"),
                ("default", "DEFAULT_CHANGED"),
            )
            if old.source.get(keyword) != new.source.get(keyword)
        ]
        if old.shape in LEAF_COMPARISONS:
            found += LEAF_COMPARISONS[old.shape](old.facets, new.facets)
        elif old.shape in _COMPARISONS:
            found += yield _COMPARISONS[old.shape](self, old.facets, new.facets)
        return found

    def _into_combined(self, old: Node, new: Node) -> Steps[Found | None]:
        parts: list[Place] = new.facets["parts"]
        is_sum = len(parts) != 1 and new.facets["criterion"] != "allOf"
        if len(parts) == 1 or is_sum:
            for part in parts:
                found: Found = yield self._nodes(old, part.node)
                if is_compatible(found):
                    return [*found, Difference("SUM_TYPE_EXTENDED", "")] if is_sum else found
        return None

    def _out_of_combined(self, old: Node, new: Node) -> Steps[Found | None]:
        parts: list[Place] = old.facets["parts"]
        is_product = len(parts) != 1 and old.facets["criterion"] == "allOf"
        if len(parts) == 1 or is_product:
            for part in parts:
                found: Found = yield self._nodes(part.node, new)
                if is_compatible(found):
                    return [*found, Difference("PRODUCT_TYPE_NARROWED", "")] if is_product else found
        return None

    def _combined(self, old: Facets, new: Facets) -> Steps[Found]:
        found: Found = []
        was, now = old["criterion"], new["criterion"]
        old_parts = list({part.key(): part for part in old["parts"]}.values())
        new_parts = list({part.key(): part for part in new["parts"]}.values())
        if was != now:
            alone_before, alone_now = len(old["parts"]) == 1, len(new["parts"]) == 1
            widens = now == "anyOf" or (alone_before and now == "oneOf") or (alone_now and was == "allOf")
            if not widens and not (alone_before and alone_now):
                return [Difference("COMBINED_TYPE_CHANGED", "")]
            found.append(Difference("COMBINED_TYPE_EXTENDED", ""))
        if len(old_parts) < len(new_parts):
            found.append(Difference("PRODUCT_TYPE_EXTENDED" if now == "allOf" else "SUM_TYPE_EXTENDED", ""))
        elif len(old_parts) > len(new_parts):
            found.append(Difference("PRODUCT_TYPE_NARROWED" if was == "allOf" else "SUM_TYPE_NARROWED", ""))
        edges: dict[int, dict[int, Found]] = {}
        for old_index, old_part in enumerate(old_parts):
            edges[old_index] = {}
            for new_index, new_part in enumerate(new_parts):
                inner: Found = yield self._nodes(old_part.node, new_part.node)
                if is_compatible(inner):
                    edges[old_index][new_index] = under(f"{was}/{old_index}", inner)
        matching = maximum_matching(edges)
        for old_index in sorted(matching):
            found += edges[old_index][matching[old_index]]
        if len(matching) < min(len(old_parts), len(new_parts)):
            found.append(Difference("COMBINED_TYPE_SUBSCHEMAS_CHANGED", ""))
        return found

    def _not(self, old: Facets, new: Facets) -> Steps[Found]:
        # What is forbidden must become less: the two change places.
        inner: Found = yield self.compare(new["schema"], old["schema"])
        return [Difference("NOT_TYPE_NARROWED" if is_compatible(inner) else "NOT_TYPE_EXTENDED", "not")]

    def _object(self, old: Facets, new: Facets) -> Steps[Found]:
        found: Found = required(old, new)
        for name in {**old["properties"], **new["properties"]}:
            was, now = old["properties"].get(name), new["properties"].get(name)
            if now is None:
                inner: Found = yield self._removed("PROPERTY", was, cover_of(new, name), open_=is_open(new))
            elif was is None:
                inner = yield self._added_property(name, now, old, new)
            else:
                inner = yield self.compare(was, now)
            found += under(f"properties/{name}", inner)
        found += yield self._dependencies(old, new)
        found += yield self._additional(old, new, "additionalProperties", "ADDITIONAL_PROPERTIES")
        found += yield self._unevaluated(old, new, "unevaluatedProperties", "UNEVALUATED_PROPERTIES")
        return found + bounds(old, new, maxProperties="MAX_PROPERTIES", minProperties="MIN_PROPERTIES")

    def _added_property(self, name: str, now: Place, old: Facets, new: Facets) -> Steps[Found]:
        kind = "OPTIONAL_PROPERTY"
        if name in new["required"]:
            kind = "REQUIRED_PROPERTY_WITH_DEFAULT" if now.has_default else "REQUIRED_PROPERTY"
        if is_open(old):
            kind = "PROPERTY_WITH_EMPTY_SCHEMA" if now.is_empty else kind
            return [Difference(f"{kind}_ADDED_TO_OPEN_CONTENT_MODEL", "")]
        found: Found = []
        cover = cover_of(old, name)
        if cover is not None:
            found = list((yield self.compare(cover, now)))
            covered = "IS" if is_compatible(found) else "NOT"
            found.append(Difference(f"PROPERTY_ADDED_{covered}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", ""))
        return [*found, Difference(f"{kind}_ADDED_TO_UNOPEN_CONTENT_MODEL", "")]

    def _removed(self, what: str, was: Place, cover: Place | None, *, open_: bool) -> Steps[Found]:
        """Return what it means that a property or an item is no longer described."""
        if open_:
            return [Difference(f"{what}_REMOVED_FROM_OPEN_CONTENT_MODEL", "")]
        if cover is None:
            kind = f"{what}_WITH_FALSE" if was.is_false else what
            return [Difference(f"{kind}_REMOVED_FROM_CLOSED_CONTENT_MODEL", "")]
        found: Found = yield self.compare(was, cover)
        covered = "IS" if is_compatible(found) else "NOT"
        return [*found, Difference(f"{what}_REMOVED_{covered}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", "")]

    def _dependencies(self, old: Facets, new: Facets) -> Steps[Found]:
        found: Found = []
        for name in {**old["arrayDependencies"], **new["arrayDependencies"]}:
            was, now = old["arrayDependencies"].get(name), new["arrayDependencies"].get(name)
            path = f"dependencies/{name}"
            if was is None or now is None:
                found.append(Difference(f"DEPENDENCY_ARRAY_{'REMOVED' if now is None else 'ADDED'}", path))
            else:
                found += sets(was, now, path, "DEPENDENCY_ARRAY")
        for name in {**old["schemaDependencies"], **new["schemaDependencies"]}:
            was, now = old["schemaDependencies"].get(name), new["schemaDependencies"].get(name)
            path = f"dependencies/{name}"
            if was is None or now is None:
                found.append(Difference(f"DEPENDENCY_SCHEMA_{'REMOVED' if now is None else 'ADDED'}", path))
            else:
                found += under(path, (yield self.compare(was, now)))
        return found

    def _additional(self, old: Facets, new: Facets, keyword: str, kind: str) -> Steps[Found]:
        was, now = old["additional"], new["additional"]
        if (was is False) != (now is False):
            return [Difference(f"{kind}_{'ADDED' if was is False else 'REMOVED'}", keyword)]
        was, now = (place if isinstance(place, Place) else None for place in (was, now))
        if was is None and now is not None:
            return [Difference(f"{kind}_NARROWED", keyword)]
        if now is None and was is not None:
            return [Difference(f"{kind}_EXTENDED", keyword)]
        return under(keyword, (yield self.compare(was, now)))

    def _unevaluated(self, old: Facets, new: Facets, keyword: str, kind: str) -> Steps[Found]:
        was: Place | None = old["unevaluated"]
        now: Place | None = new["unevaluated"]
        if was is None and now is None:
            return []
        false_before, false_now = was is not None and was.is_false, now is not None and now.is_false
        free_before, free_now = was is None or was.is_empty, now is None or now.is_empty
        if false_before != false_now:
            return [Difference(f"{kind}_{'ADDED' if false_before else 'REMOVED'}", keyword)]
        if was is None or (now is not None and free_before and not free_now):
            return [Difference(f"{kind}_NARROWED", keyword)]
        if now is None or (free_now and not free_before):
            return [Difference(f"{kind}_EXTENDED", keyword)]
        return under(keyword, (yield self.compare(was, now)))

    def _array(self, old: Facets, new: Facets) -> Steps[Found]:
        found: Found = under("items", (yield self.compare(old["every"], new["every"])))
        old_places: list[Place] = old["places"]
        new_places: list[Place] = new["places"]
        for index in range(max(len(old_places), len(new_places))):
            if index >= len(new_places):
                cover = cover_of(new, "")
                inner: Found = yield self._removed("ITEM", old_places[index], cover, open_=is_open(new))
            elif index >= len(old_places):
                inner = yield self._added_item(new_places[index], old)
            else:
                inner = yield self.compare(old_places[index], new_places[index])
            found += under(f"items/{index}", inner)
        found += yield self._additional(old, new, "additionalItems", "ADDITIONAL_ITEMS")
        found += yield self._unevaluated(old, new, "unevaluatedItems", "UNEVALUATED_ITEMS")
        found += bounds(old, new, maxItems="MAX_ITEMS", minItems="MIN_ITEMS")
        if old["uniqueItems"] != new["uniqueItems"]:
            found.append(Difference(f"UNIQUE_ITEMS_{'REMOVED' if old['uniqueItems'] else 'ADDED'}", "uniqueItems"))
        return found + bounds(old, new, maxContains="MAX_CONTAINS", minContains="MIN_CONTAINS")

    def _added_item(self, now: Place, old: Facets) -> Steps[Found]:
        if is_open(old):
            kind = "ITEM_WITH_EMPTY_SCHEMA" if now.is_empty else "ITEM"
            return [Difference(f"{kind}_ADDED_TO_OPEN_CONTENT_MODEL", "")]
        cover = cover_of(old, "")
        if cover is None:
            return [Difference("ITEM_ADDED_TO_CLOSED_CONTENT_MODEL", "")]
        found: Found = yield self.compare(cover, now)
        covered = "IS" if is_compatible(found) else "NOT"
        return [*found, Difference(f"ITEM_ADDED_{covered}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", "")]


_COMPARISONS: Final[dict[str, Callable[[_Walk, Facets, Facets], Steps[Found]]]] = {
    "array": _Walk._array,
    "combined": _Walk._combined,
    "not": _Walk._not,
    "object": _Walk._object,
}
