"""The seven levels: which versions a new schema is held against, in which direction, and what a registry answers."""

from __future__ import annotations

import json

import pytest

from millstream.schemas.compat import Level, check, check_versions, incompatibilities, verbose_messages
from millstream.schemas.parsing import ParsedSchema, parse


def record(*fields: str) -> ParsedSchema:
    """A record of longs; `name=` gives a field a default."""
    written = [
        {"name": name.rstrip("="), "type": "long", **({"default": 0} if name.endswith("=") else {})} for name in fields
    ]
    return parse("AVRO", json.dumps({"type": "record", "name": "R", "fields": written}))


ONE, TWO, THREE = record("a"), record("a", "b="), record("a", "b", "c=")


@pytest.mark.parametrize(
    ("level", "new", "previous", "expected"),
    [
        ("NONE", parse("AVRO", '"int"'), [ONE], True),
        ("BACKWARD", ONE, [], True),
        ("BACKWARD", TWO, [ONE], True),
        ("BACKWARD", record("a", "b"), [ONE], False),
        ("BACKWARD", THREE, [ONE, TWO], True),
        ("BACKWARD_TRANSITIVE", THREE, [ONE, TWO], False),
        ("FORWARD", record("a", "b"), [ONE], True),
        ("FORWARD", record(), [ONE], False),
        ("FORWARD", record(), [ONE, record("a=")], True),
        ("FORWARD_TRANSITIVE", record(), [ONE, record("a=")], False),
        ("FULL", TWO, [ONE], True),
        ("FULL", record("a", "b"), [ONE], False),
        ("FULL", record(), [ONE], False),
        ("FULL", THREE, [ONE, TWO], True),
        ("FULL_TRANSITIVE", THREE, [ONE, TWO], False),
        ("FULL_TRANSITIVE", record("a", "d="), [ONE, TWO], True),
    ],
)
def test_levels(level: str, new: ParsedSchema, previous: list[ParsedSchema], expected: bool) -> None:
    assert (check(level, new, previous) == []) is expected
    assert (check(Level(level), new, previous) == []) is expected
    assert (verbose_messages(level, new, previous) == []) is expected


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="SIDEWAYS"):
        check("SIDEWAYS", ONE, [ONE])


def test_the_newest_incompatible_version_is_told() -> None:
    index, found = check_versions("BACKWARD_TRANSITIVE", record("z"), [ONE, TWO, THREE])

    assert index == 2
    assert [one.kind for one in found] == ["READER_FIELD_MISSING_DEFAULT_VALUE"]
    assert check_versions("BACKWARD_TRANSITIVE", THREE, [ONE, TWO])[0] == 0
    assert check_versions("BACKWARD_TRANSITIVE", TWO, [ONE, TWO])[0] == -1


def test_both_directions_are_told_by_the_sides_they_are_on() -> None:
    found = check("FULL", record("b"), [ONE])

    assert [one.detail for one in found] == ["a", "b"]
    assert "the old schema wants the field a, which the new schema does not have" in found[0].sentence
    assert "the new schema wants the field b, which the old schema does not have" in found[1].sentence


def test_another_type_of_schema_is_no_version_of_this_one() -> None:
    found = check("FORWARD", parse("JSON", "true"), [ONE])

    assert [one.kind for one in found] == ["SCHEMA_TYPE_MISMATCH"]
    assert "the new schema is of type JSON and the old one of type AVRO" in found[0].sentence
    assert incompatibilities(ONE, parse("PROTOBUF", "message A {}"))[0].kind == "SCHEMA_TYPE_MISMATCH"
    assert check("NONE", parse("JSON", "true"), [ONE]) == []


def test_what_a_registry_answers_verbosely() -> None:
    messages = verbose_messages("BACKWARD", record("a", "b"), [THREE, ONE], [4, 7])

    assert messages[0].startswith("{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE', description:'the new schema wants")
    assert messages[0].endswith("(path /fields/1)', additionalInfo:'b'}")
    assert messages[1:] == ["{oldSchemaVersion: 7}", f"{{oldSchema: '{ONE.text}'}}"]
    assert verbose_messages("BACKWARD", TWO, [ONE], [7]) == []


def test_a_long_schema_is_not_told_whole() -> None:
    long = parse("AVRO", json.dumps({"type": "fixed", "name": "F", "size": 1, "doc": "x" * 20_000}))

    last = verbose_messages("BACKWARD", ONE, [long])[-1]

    assert last.startswith("{oldSchema: <truncated> '")
    assert len(last) < 11_000


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize(
    "schema",
    [
        parse("AVRO", '{"type": "enum", "name": "E", "symbols": ["A"]}'),
        parse("JSON", '{"type": "object", "properties": {"a": {"enum": [1]}}, "additionalProperties": false}'),
        parse("PROTOBUF", "message A { required int32 x = 1; oneof o { string s = 2; A a = 3; } }"),
    ],
)
def test_a_schema_is_compatible_with_itself(level: Level, schema: ParsedSchema) -> None:
    assert check(level, schema, [schema, schema.normalized()]) == []
