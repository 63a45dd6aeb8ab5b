"""JSON Schemas by what a registry shows of them: texts, drafts, references, normal forms, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millstream.schemas.compat import incompatibilities
from millstream.schemas.parsing import InvalidSchemaError, Reference, parse
from millstream.schemas.parsing.json_schema import Draft, parse_json_schema

OTHER = '{"$id": "other.json", "definitions": {"name": {"type": "string"}}, "title": "Other"}'


def test_the_text_keeps_keys_and_numbers_as_they_were() -> None:
    text = '{ "title": "T", "minimum": 1.10, "maximum": 1e10, "multipleOf": 0.0000001, "enum": ["é\\u0001", 100] }'

    schema = parse("JSON", text)

    assert schema.text == '{"title":"T","minimum":1.10,"maximum":1E+10,"multipleOf":1E-7,"enum":["é\\u0001",100]}'
    assert schema.name == "T"
    assert parse("JSON", schema.text) == schema


def test_normalized_has_keys_in_order() -> None:
    one = parse("JSON", '{"type": "object", "properties": {"b": {"x": 1.0, "title": "B"}, "a": true}}')
    other = parse("JSON", '{"properties": {"a": true, "b": {"title": "B", "x": 1.0}}, "type": "object"}')

    assert one != other
    assert one.normalized() == other.normalized()
    assert one.normalized().text == '{"properties":{"a":true,"b":{"title":"B","x":1.0}},"type":"object"}'
    assert one.normalized() != parse("JSON", one.text.replace("1.0", "1.00")).normalized()


@pytest.mark.parametrize(
    ("uri", "draft"),
    [
        (None, Draft.DRAFT_7),
        ("http://json-schema.org/draft-04/schema#", Draft.DRAFT_4),
        ("http://json-schema.org/schema#", Draft.DRAFT_4),
        ("http://json-schema.org/draft-06/schema", Draft.DRAFT_6),
        ("https://json-schema.org/draft-07/schema#", Draft.DRAFT_7),
        ("https://json-schema.org/draft/2019-09/schema", Draft.DRAFT_2019_09),
        ("https://json-schema.org/draft/2020-12/schema", Draft.DRAFT_2020_12),
        ("https://example.com/schema", Draft.DRAFT_7),
    ],
)
def test_drafts(uri: str | None, draft: Draft) -> None:
    assert parse_json_schema(json.dumps({"$schema": uri} if uri else {})).draft is draft


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"$id": "#b"}}},
        {"$ref": "#/$defs/x", "definitions": {"x": True}},
        {"$ref": "http://json-schema.org/draft-07/schema#"},
        {"$ref": "other.json"},
        {"$ref": "other.json#/definitions/name"},
        {"$id": "http://example.com/main.json", "properties": {"a": {"$ref": "other.json#/$defs/name"}}},
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$defs": {"x": {"$anchor": "here"}},
            "allOf": [{"$ref": "#here"}, {"$dynamicRef": "#here"}],
        },
    ],
)
def test_references_lead_somewhere(schema: dict[str, Any]) -> None:
    references = [Reference("other.json", "other-value", 1)]

    parsed = parse_json_schema(json.dumps(schema), references, {"other.json": OTHER}, strict=True)

    assert parsed.references == tuple(references)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ([], "an object, true or false"),
        ({"type": "strin"}, "#: type: 'strin' is not valid"),
        ({"properties": {"a": {"required": "x"}}}, "#/properties/a: required: 'x' is not of type 'array'"),
        ({"properties": {"a": 5}}, "#: properties/a: 5 is not of type 'object', 'boolean'"),
        ({"items": [True, 1]}, "#/items/1: 1 is no schema"),
        ({"allOf": []}, "allOf: "),
        ({"minLength": -1}, "minLength: -1 is less than"),
        ({"$ref": "#/definitions/x"}, "'#/definitions/x' leads nowhere"),
        ({"$ref": "#/enum", "enum": [1]}, "which is no schema"),
        ({"$ref": "third.json"}, "name it among the references"),
        ({"$ref": "http://example.com/x.json"}, "leads nowhere"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "exclusiveMinimum": 1}, "dependency|not of type"),
        ({"properties": {"$$hidden": {}}}, "reserved"),
    ],
)
def test_refusals_say_what_and_where(schema: object, complaint: str) -> None:
    with pytest.raises(InvalidSchemaError, match=complaint):
        parse("JSON", json.dumps(schema), strict=True)


@pytest.mark.parametrize("draft", ["draft-04", "draft-06", "draft-07"])
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_dependencies_may_be_arrays_and_schemas_in_any_order(draft: str, names: tuple[str, str]) -> None:
    dependencies = {"a": ["b"], "b": {"required": ["c"]}}
    schema = {
        "$schema": f"http://json-schema.org/{draft}/schema#",
        "definitions": {"x": {"type": "string"}},
        "properties": {"a": {"$ref": "#/definitions/x"}},
        "items": {"dependencies": {name: dependencies[name] for name in names}},
    }
    parsed = parse("JSON", json.dumps(schema), strict=True)
    assert json.loads(parsed.text) == schema
    assert list(json.loads(parsed.text)["items"]["dependencies"]) == list(names)
    assert incompatibilities(parsed, parsed.normalized()) == []


def test_what_registries_hold_may_refer_to_the_web() -> None:
    assert parse("JSON", '{"$ref": "https://example.com/x.json"}').text
    assert parse("JSON", '{"properties": {"$$hidden": true}}').text


def test_a_bad_reference_is_named() -> None:
    with pytest.raises(InvalidSchemaError, match=r"reference 'x': #: type"):
        parse("JSON", "true", [], {"x": '{"type": 1}'})
