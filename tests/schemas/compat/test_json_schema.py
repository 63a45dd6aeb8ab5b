"""What JSON Schemas allow each other: Confluent's rules one by one, and, where it calls them compatible, by trying."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tests.support.json_schema_evolution import as_2020_12, as_draft_7, pairs, value_of

from millstream.schemas.compat import incompatibilities
from millstream.schemas.compat.json_schema import differences
from millstream.schemas.compat.json_schema.kinds import sentence
from millstream.schemas.parsing.json_schema import JsonSchema, parse_json_schema

EXAMPLES = 5_000 if os.environ.get("MILLSTREAM_SOAK") == "1" else 150
VALUES_TRIED = 75
MODERN = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def schema(value: Any, **resolved: str) -> JsonSchema:
    return parse_json_schema(json.dumps(value), (), resolved)


def kinds(writer: Any, reader: Any) -> list[str]:
    return [f"{kind} {path}" for kind, path in differences(schema(writer), schema(reader))]


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def closed(**properties: Any) -> dict[str, Any]:
    return {**of(**properties), "additionalProperties": False}


STRING: dict[str, Any] = {"type": "string"}
INTEGER: dict[str, Any] = {"type": "integer"}
NUMBER: dict[str, Any] = {"type": "number"}


@pytest.mark.parametrize(
    ("writer", "reader", "expected"),
    [
        (STRING, STRING, []),
        (STRING, INTEGER, ["TYPE_CHANGED #/"]),
        (INTEGER, NUMBER, ["TYPE_EXTENDED #/"]),
        (NUMBER, INTEGER, ["TYPE_NARROWED #/"]),
        (STRING, True, []),
        (STRING, {}, []),
        ({}, STRING, ["TYPE_CHANGED #/"]),
        (False, STRING, []),
        (STRING, False, ["TYPE_CHANGED #/"]),
        (STRING, {**STRING, "title": "t"}, ["TITLE_CHANGED #/"]),
        (STRING, {**STRING, "description": "d"}, ["DESCRIPTION_CHANGED #/"]),
        (STRING, {**STRING, "default": "d"}, ["DEFAULT_CHANGED #/"]),
        ({**STRING, "minLength": 2}, {**STRING, "minLength": 1}, ["MIN_LENGTH_DECREASED #/minLength"]),
        ({**STRING, "maxLength": 2}, {**STRING, "maxLength": 1}, ["MAX_LENGTH_DECREASED #/maxLength"]),
        (STRING, {**STRING, "pattern": "^a"}, ["PATTERN_ADDED #/pattern"]),
        ({**STRING, "pattern": "^b"}, {**STRING, "pattern": "^a"}, ["PATTERN_CHANGED #/pattern"]),
        ({**NUMBER, "maximum": 10}, {**NUMBER, "maximum": 10.5}, ["MAXIMUM_INCREASED #/maximum"]),
        ({**NUMBER, "minimum": 1}, {**NUMBER, "minimum": 1.0}, []),
        ({**NUMBER, "exclusiveMinimum": 1}, NUMBER, ["EXCLUSIVE_MINIMUM_REMOVED #/exclusiveMinimum"]),
        ({**NUMBER, "multipleOf": 10}, {**NUMBER, "multipleOf": 0.5}, ["MULTIPLE_OF_REDUCED #/multipleOf"]),
        ({**NUMBER, "multipleOf": 0.1}, {**NUMBER, "multipleOf": 0.3}, ["MULTIPLE_OF_EXPANDED #/multipleOf"]),
        ({**NUMBER, "multipleOf": 2}, {**NUMBER, "multipleOf": 3}, ["MULTIPLE_OF_CHANGED #/multipleOf"]),
        ({"enum": [1, "a"]}, {"enum": ["a", 1, 2]}, ["ENUM_ARRAY_EXTENDED #/enum"]),
        ({"enum": [1, 2]}, {"enum": [1]}, ["ENUM_ARRAY_NARROWED #/enum"]),
        ({"enum": [1]}, {"enum": [2]}, ["ENUM_ARRAY_CHANGED #/enum"]),
        ({"const": 1}, {"const": 2}, ["ENUM_ARRAY_CHANGED #/const"]),
        ({**STRING, "enum": ["a"]}, STRING, ["PRODUCT_TYPE_NARROWED #/"]),
        ({**STRING, "enum": ["a", "b"]}, {**STRING, "enum": ["a"]}, ["COMBINED_TYPE_SUBSCHEMAS_CHANGED #/"]),
        (STRING, {"type": ["string", "null"]}, ["SUM_TYPE_EXTENDED #/"]),
        ({"type": ["string", "null"]}, STRING, ["TYPE_CHANGED #/"]),
        ({"type": ["string", "null"]}, {"type": ["null", "string", "integer"]}, ["SUM_TYPE_EXTENDED #/"]),
        ({"not": STRING}, {"not": {**STRING, "maxLength": 3}}, ["NOT_TYPE_NARROWED #/not"]),
        ({"not": {**STRING, "maxLength": 3}}, {"not": STRING}, ["NOT_TYPE_EXTENDED #/not"]),
        # Objects: what may be added or removed depends on what is allowed beside the properties.
        (of(), of(a=STRING), ["OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL #/properties/a"]),
        (of(), of(a={}), ["PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL #/properties/a"]),
        (of(a=STRING), of(), ["PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL #/properties/a"]),
        (closed(), closed(a=STRING), ["OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL #/properties/a"]),
        (
            closed(),
            {**closed(a=STRING), "required": ["a"]},
            ["REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL #/properties/a"],
        ),
        (
            closed(),
            {**closed(a={**STRING, "default": ""}), "required": ["a"]},
            ["REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL #/properties/a"],
        ),
        (closed(a=STRING), closed(), ["PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL #/properties/a"]),
        (closed(a=False), closed(), ["PROPERTY_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL #/properties/a"]),
        (
            {**of(a=STRING), "additionalProperties": STRING},
            {**of(), "additionalProperties": STRING},
            ["PROPERTY_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL #/properties/a"],
        ),
        (
            {**of(x=INTEGER), "patternProperties": {"^x": STRING}},
            {**of(), "patternProperties": {"^x": STRING}},
            [
                "TYPE_CHANGED #/properties/x",
                "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL #/properties/x",
            ],
        ),
        (
            {**of(), "additionalProperties": STRING},
            {**of(a=INTEGER), "additionalProperties": STRING},
            [
                "TYPE_CHANGED #/properties/a",
                "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL #/properties/a",
                "OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL #/properties/a",
            ],
        ),
        (of(), closed(), ["ADDITIONAL_PROPERTIES_REMOVED #/additionalProperties"]),
        (closed(), of(), ["ADDITIONAL_PROPERTIES_ADDED #/additionalProperties"]),
        (of(), {**of(), "additionalProperties": STRING}, ["ADDITIONAL_PROPERTIES_NARROWED #/additionalProperties"]),
        ({**of(), "additionalProperties": STRING}, of(), ["ADDITIONAL_PROPERTIES_EXTENDED #/additionalProperties"]),
        (of(a=STRING), {**of(a=STRING), "required": ["a"]}, ["REQUIRED_ATTRIBUTE_ADDED #/required/a"]),
        (
            of(a=STRING),
            {**of(a={**STRING, "default": ""}), "required": ["a"]},
            ["REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED #/required/a", "DEFAULT_CHANGED #/properties/a"],
        ),
        ({**of(), "maxProperties": 2}, {**of(), "maxProperties": 1}, ["MAX_PROPERTIES_DECREASED #/maxProperties"]),
        (of(), {**of(), "dependencies": {"a": ["b"]}}, ["DEPENDENCY_ARRAY_ADDED #/dependencies/a"]),
        (
            {**of(), "dependencies": {"a": ["b", "c"]}},
            {**of(), "dependencies": {"a": ["b"]}},
            ["DEPENDENCY_ARRAY_NARROWED #/dependencies/a"],
        ),
        ({**of(), "dependencies": {"a": STRING}}, of(), ["DEPENDENCY_SCHEMA_REMOVED #/dependencies/a"]),
        # Arrays.
        ({"type": "array"}, {"type": "array", "items": STRING}, ["SCHEMA_ADDED #/items"]),
        ({"type": "array", "items": INTEGER}, {"type": "array", "items": NUMBER}, ["TYPE_EXTENDED #/items"]),
        ({"type": "array"}, {"type": "array", "uniqueItems": True}, ["UNIQUE_ITEMS_ADDED #/uniqueItems"]),
        ({"type": "array", "minItems": 1}, {"type": "array", "minItems": 2}, ["MIN_ITEMS_INCREASED #/minItems"]),
        (
            {"type": "array", "items": [STRING], "additionalItems": False},
            {"type": "array", "items": [STRING, INTEGER], "additionalItems": False},
            ["ITEM_ADDED_TO_CLOSED_CONTENT_MODEL #/items/1"],
        ),
        (
            {"type": "array", "items": [STRING, INTEGER], "additionalItems": False},
            {"type": "array", "items": [STRING], "additionalItems": False},
            ["ITEM_REMOVED_FROM_CLOSED_CONTENT_MODEL #/items/1"],
        ),
        (
            {"type": "array", "items": [STRING]},
            {"type": "array", "items": [STRING, INTEGER]},
            ["ITEM_ADDED_TO_OPEN_CONTENT_MODEL #/items/1"],
        ),
        # Alternatives find partners of their own, in whatever order they stand.
        ({"anyOf": [STRING, INTEGER]}, {"anyOf": [NUMBER, STRING]}, ["TYPE_EXTENDED #/anyOf/1"]),
        (
            {"anyOf": [INTEGER, NUMBER]},
            {"anyOf": [NUMBER, STRING]},
            ["TYPE_EXTENDED #/anyOf/0", "COMBINED_TYPE_SUBSCHEMAS_CHANGED #/"],
        ),
        ({"oneOf": [STRING]}, {"oneOf": [STRING, INTEGER]}, ["SUM_TYPE_EXTENDED #/"]),
        ({"oneOf": [STRING, INTEGER]}, {"anyOf": [STRING, INTEGER]}, ["COMBINED_TYPE_EXTENDED #/"]),
        ({"anyOf": [STRING, INTEGER]}, {"oneOf": [STRING, INTEGER]}, ["COMBINED_TYPE_CHANGED #/"]),
        ({"allOf": [STRING]}, {"allOf": [STRING, {"maxLength": 3}]}, ["PRODUCT_TYPE_EXTENDED #/"]),
    ],
)
def test_rules(writer: Any, reader: Any, expected: list[str]) -> None:
    assert sorted(kinds(writer, reader)) == sorted(expected)


@pytest.mark.parametrize(
    ("writer", "reader", "expected"),
    [
        ({}, {"unevaluatedProperties": False}, ["UNEVALUATED_PROPERTIES_REMOVED #/unevaluatedProperties"]),
        ({"unevaluatedProperties": False}, {}, ["UNEVALUATED_PROPERTIES_ADDED #/unevaluatedProperties"]),
        (
            {"unevaluatedProperties": False},
            {"unevaluatedProperties": False, "properties": {"a": STRING}},
            ["OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL #/properties/a"],
        ),
        ({}, {"dependentRequired": {"a": ["b"]}}, ["DEPENDENCY_ARRAY_ADDED #/dependencies/a"]),
        ({}, {"maxProperties": 3}, ["MAX_PROPERTIES_ADDED #/maxProperties"]),
    ],
)
def test_rules_of_modern_objects(writer: Any, reader: Any, expected: list[str]) -> None:
    assert kinds({**MODERN, **of(), **writer}, {**MODERN, **of(), **reader}) == expected


@pytest.mark.parametrize(
    ("writer", "reader", "expected"),
    [
        (
            {"prefixItems": [STRING], "items": False},
            {"prefixItems": [STRING, STRING], "items": False},
            ["ITEM_ADDED_TO_CLOSED_CONTENT_MODEL #/items/1"],
        ),
        (
            {"prefixItems": [STRING], "items": STRING},
            {"prefixItems": [STRING, STRING], "items": STRING},
            ["ITEM_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL #/items/1"],
        ),
        ({"items": INTEGER}, {"items": NUMBER}, ["TYPE_EXTENDED #/items"]),
        ({}, {"contains": STRING}, ["MIN_CONTAINS_ADDED #/minContains"]),
        ({"contains": STRING, "minContains": 2}, {"contains": STRING}, ["MIN_CONTAINS_DECREASED #/minContains"]),
        ({}, {"unevaluatedItems": False}, ["UNEVALUATED_ITEMS_REMOVED #/unevaluatedItems"]),
    ],
)
def test_rules_of_modern_arrays(writer: Any, reader: Any, expected: list[str]) -> None:
    assert kinds({**MODERN, "type": "array", **writer}, {**MODERN, "type": "array", **reader}) == expected


def test_references_are_followed_in_both_schemas() -> None:
    writer = {**of(a={"$ref": "#/definitions/x"}), "definitions": {"x": NUMBER}}
    reader = {**of(a={"$ref": "other.json#/$defs/y"})}
    other = json.dumps({"definitions": {"y": INTEGER}})

    found = incompatibilities(schema(reader, **{"other.json": other}), schema(writer))

    assert [(one.kind, one.path) for one in found] == [("TYPE_NARROWED", "#/properties/a")]


def test_recursive_schemas_end_and_hide_nothing() -> None:
    def tree(value: Any) -> dict[str, Any]:
        node = {**closed(value=value, left={"$ref": "#/definitions/n"}, right={"$ref": "#/definitions/n"})}
        return {"$ref": "#/definitions/n", "definitions": {"n": node}}

    assert kinds(tree(INTEGER), tree(INTEGER)) == []
    assert set(kinds(tree(INTEGER), tree(STRING))) >= {"TYPE_CHANGED #/properties/value"}


def test_a_reference_beside_other_keywords_counts_in_modern_drafts_only() -> None:
    def with_reference(head: dict[str, Any]) -> dict[str, Any]:
        return {**head, **of(a={"$ref": "#/$defs/x", "maxLength": 3}), "$defs": {"x": STRING}}

    assert kinds(of(a=STRING), with_reference({})) == []
    assert kinds({**MODERN, **of(a=STRING)}, with_reference(MODERN)) == ["TYPE_CHANGED #/properties/a"]


def test_a_chain_of_references_deeper_than_the_stack() -> None:
    def chain(last: dict[str, Any]) -> dict[str, Any]:
        definitions = {f"d{level}": closed(a={"$ref": f"#/definitions/d{level + 1}"}) for level in range(1_500)}
        return {"$ref": "#/definitions/d0", "definitions": {**definitions, "d1500": last}}

    assert kinds(chain(INTEGER), chain(NUMBER))[0].startswith("TYPE_EXTENDED #/.../properties/a")
    assert [one.kind for one in incompatibilities(schema(chain(INTEGER)), schema(chain(NUMBER)))] == ["TYPE_NARROWED"]


@pytest.mark.parametrize("draft", [{}, MODERN])
def test_a_reference_to_what_is_no_schema_of_the_draft_ends_in_a_verdict(draft: dict[str, Any]) -> None:
    odd = {
        "type": ["object", 7],
        "properties": [],
        "required": 5,
        "minLength": "a",
        "maximum": True,
        "dependencies": {"a": 1, "b": ["c", 2]},
        "dependentRequired": 5,
        "items": 5,
        "prefixItems": {},
        "patternProperties": {"(": 1},
        "additionalProperties": "x",
        "pattern": 5,
    }
    aside = {**draft, "$ref": "#/x-aside/odd", "x-aside": {"odd": odd}}

    assert kinds(aside, aside) == []
    assert kinds(aside, {**draft, "type": "object"})
    assert kinds({**draft, "type": "object"}, aside)


def test_many_alternatives_are_given_up_on() -> None:
    def choice(count: int, length: int) -> dict[str, Any]:
        return {"anyOf": [closed(**{f"p{index}": {**STRING, "maxLength": length}}) for index in range(count)]}

    assert kinds(choice(20, 3), choice(20, 3)) == []
    found = incompatibilities(schema(choice(800, 3)), schema(choice(800, 2)))
    assert [one.kind for one in found] == ["TOO_MANY_COMPARISONS"]


def test_a_pattern_that_takes_exponential_time_elsewhere_matches_at_once() -> None:
    evil = {"patternProperties": {"^(a+)+$": STRING, "(?=b)": STRING}, **closed()}

    assert kinds({**evil, **closed(**{"a" * 200 + "!": STRING})}, evil) == [
        f"PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL #/properties/{'a' * 200}!"
    ]


def test_sentences_name_both_schemas_and_help() -> None:
    found = incompatibilities(schema(closed()), schema(closed(a=STRING)))[0]

    assert found.sentence == (
        "the reader's schema allows no properties but its own and lacks one of the writer's schema; keep it, or allow"
        " additionalProperties"
    )
    assert found.path == "#/properties/a"
    assert "the upper bound is lower in the new schema than in the old one" in sentence(
        "MAXIMUM_DECREASED", "new", "old"
    )


@pytest.mark.parametrize("write", [as_draft_7, as_2020_12])
def test_what_is_called_compatible_takes_every_value(write: Any) -> None:
    verdicts = {True: 0, False: 0}
    tried = 0

    @seed(6601)
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(pair=pairs(), draw=st.randoms(use_true_random=False))
    def check(pair: tuple[Any, Any], draw: random.Random) -> None:
        nonlocal tried
        reader, writer = map(write, pair)
        is_compatible = not incompatibilities(schema(reader), schema(writer))
        verdicts[is_compatible] += 1
        if not is_compatible:
            return
        readers, writers = (
            jsonschema.validators.validator_for(value, jsonschema.Draft7Validator)(value) for value in (reader, writer)
        )
        for _ in range(VALUES_TRIED):
            candidate = value_of(pair[1], draw)
            if writers.is_valid(candidate):
                tried += 1
                assert readers.is_valid(candidate), (candidate, writer, reader)

    check()

    assert min(verdicts.values()) > EXAMPLES // 10, verdicts
    assert tried > 5 * EXAMPLES
