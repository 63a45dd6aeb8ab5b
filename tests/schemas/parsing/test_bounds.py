"""However large or deep a schema is, parsing ends soon, in a schema or in a clear refusal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.schemas.parsing import NESTING_DEPTH_MAX, SCHEMA_SIZE_BYTES_MAX, InvalidSchemaError, SchemaType, parse


def nested(head: str, middle: str, tail: str) -> Callable[[int], str]:
    return lambda depth: head * depth + middle + tail * depth


DEEP: list[tuple[SchemaType, Callable[[int], str]]] = [
    (SchemaType.AVRO, nested('[{"type":"array","items":', '"int"', "}]")),
    (SchemaType.AVRO, nested('{"type":"array","items":', '"int"', "}")),
    (SchemaType.AVRO, nested('{"type":"map","values":', '"int"', "}")),
    (SchemaType.AVRO, lambda depth: '{"type":"int","x":' + "[" * depth + "]" * depth + "}"),
    (
        SchemaType.AVRO,
        # Flat as text, deep where each type is written out at its first use.
        lambda depth: json.dumps(
            [
                {"type": "record", "name": f"R{level}", "fields": [{"name": "f", "type": f"R{level + 1}"}]}
                for level in range(depth)
            ]
            + [{"type": "fixed", "name": f"R{depth}", "size": 1}]
        ),
    ),
    (SchemaType.JSON, nested('{"not":', "{}", "}")),
    (SchemaType.JSON, nested('{"items":', "true", "}")),
    (SchemaType.JSON, nested('{"properties":{"a":', "{}", "}}")),
    (SchemaType.JSON, nested('{"$schema":"https://json-schema.org/draft/2020-12/schema","allOf":[', "{}", "]}")),
    (SchemaType.JSON, lambda depth: '{"enum":[' + "[" * depth + "]" * depth + "]}"),
    (SchemaType.PROTOBUF, nested("message A {", "", "}")),
    (SchemaType.PROTOBUF, lambda depth: "option (x) = " + "{a:" * depth + "1" + "}" * depth + ";"),
    (SchemaType.PROTOBUF, lambda depth: "option (x) = " + "[" * depth + "]" * depth + ";"),
]


@pytest.mark.parametrize(("type_", "make"), DEEP)
def test_depth_is_refused_before_the_stack_ends(type_: SchemaType, make: Callable[[int], str]) -> None:
    assert parse(type_, make(20)).text
    for depth in (NESTING_DEPTH_MAX + 1, 5_000, 50_000):
        with pytest.raises(InvalidSchemaError, match="deeper than"):
            parse(type_, make(depth))


@pytest.mark.parametrize(("type_", "make"), DEEP)
def test_depth_within_the_bound_needs_no_deep_stack(type_: SchemaType, make: Callable[[int], str]) -> None:
    def at_depth(frames: int) -> None:
        if frames:
            at_depth(frames - 1)
            return
        for depth in (NESTING_DEPTH_MAX // 4, NESTING_DEPTH_MAX // 2 - 2, NESTING_DEPTH_MAX - 1):
            try:
                schema = parse(type_, make(depth))
            except InvalidSchemaError:
                continue
            assert schema.normalized().normalized() == schema.normalized()

    at_depth(sys.getrecursionlimit() // 4)


@pytest.mark.parametrize("type_", list(SchemaType))
def test_size_is_refused(type_: SchemaType) -> None:
    with pytest.raises(InvalidSchemaError, match="characters"):
        parse(type_, " " * (SCHEMA_SIZE_BYTES_MAX + 1))
    with pytest.raises(InvalidSchemaError, match="with its references"):
        parse(type_, '"int"', (), {"a": " " * SCHEMA_SIZE_BYTES_MAX})


@pytest.mark.parametrize("type_", list(SchemaType))
def test_half_a_surrogate_is_refused(type_: SchemaType) -> None:
    with pytest.raises(InvalidSchemaError, match="half a surrogate"):
        parse(type_, '"\ud800"')


def test_defaults_that_many_branches_could_take_are_checked_once_each() -> None:
    default = "{" + '"f":{' * 90 + '"f":7' + "}" * 91
    branches = '["null","A","B","C"]'
    types = ",".join(
        f'{{"type":"record","name":"{name}","fields":[{{"name":"f","type":{branches}}}]}}' for name in "ABC"
    )
    fields = f'{{"name":"t","type":[{types}]}},{{"name":"f","type":"A","default":{default}}}'
    text = f'{{"type":"record","name":"R","fields":[{fields}]}}'

    with pytest.raises(InvalidSchemaError, match="'f' of 'R' has the default"):
        parse("AVRO", text, strict=True)


def test_defaults_beyond_all_checking_are_refused() -> None:
    wanted = [{"name": "x", "type": "int"}]
    branches = [{"type": "record", "name": f"R{index}", "fields": wanted} for index in range(2_000)]
    last = {"type": "record", "name": "Last", "fields": []}
    array = {"type": "array", "items": [*branches, last]}
    field = {"name": "f", "type": array, "default": [{}] * 1_000}

    with pytest.raises(InvalidSchemaError, match="more than 200000 checks"):
        parse("AVRO", json.dumps({"type": "record", "name": "R", "fields": [field]}), strict=True)


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (SchemaType.AVRO, '{"type":"fixed","size":1,"name":"%s"}'),
        (SchemaType.AVRO, '{"type":"fixed","size":1,"name":"F","namespace":"%s"}'),
        (SchemaType.PROTOBUF, "message %s {}"),
        (SchemaType.PROTOBUF, "package %s;"),
    ],
)
def test_long_names_are_refused(type_: SchemaType, text: str) -> None:
    assert parse(type_, text % ("a.b" if "space" in text or "package" in text else "a" * 900)).text
    with pytest.raises(InvalidSchemaError, match="over 1000 characters"):
        parse(type_, text % ("a" * 1_001))


def test_names_that_are_long_but_no_names_are_told_short() -> None:
    schema = {"properties": {"x" * 100_000: {"properties": {"y": {"type": 7}}}}}

    with pytest.raises(InvalidSchemaError) as caught:
        parse("JSON", json.dumps(schema))

    assert len(str(caught.value)) < 1_000


def test_a_text_that_grows_by_being_formatted_is_refused() -> None:
    inner = "".join(f"int32 f{number} = {number};" for number in range(1, 15_000))
    deep = "message A {" * 40 + inner + "}" * 40
    assert len(parse("PROTOBUF", deep).text) > 4 * len(deep)

    with pytest.raises(InvalidSchemaError, match="the canonical text has"):
        parse("PROTOBUF", deep + deep.replace("A", "B") + deep.replace("A", "C") + deep.replace("A", "D"))


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(InvalidSchemaError, match="'XML' is no schema type; known are AVRO, JSON, PROTOBUF"):
        parse("XML", "<a/>")


SEEDS = {
    SchemaType.AVRO: '{"type":"record","name":"R","namespace":"n","aliases":["Q"],"fields":[{"name":"a","type":["null",'
    '{"type":"enum","name":"E","symbols":["A"]}],"default":null},{"name":"b","type":{"type":"map","values":"R"}}]}',
    SchemaType.JSON: '{"$id":"http://a/b","type":["object","null"],"properties":{"a":{"$ref":"#/definitions/x"}},'
    '"definitions":{"x":{"enum":[1,"a",1.5]}},"required":["a"],"patternProperties":{"^x":{"not":{}}}}',
    SchemaType.PROTOBUF: 'syntax = "proto3"; package a.b; import "google/protobuf/any.proto"; message M {'
    " reserved 5 to 7; oneof o { int32 x = 1 [deprecated = true]; google.protobuf.Any y = 2; } map<string, M> m = 3;"
    " enum E { A = 0; } }",
}
PIECES = st.sampled_from([*'{}[]()<>",:;=0123456789.-\\/ \n\u00e9', "null", "type", "$ref", "message", "1e999"])


@pytest.mark.parametrize("type_", list(SchemaType))
def test_damaged_schemas_end_in_a_schema_or_a_refusal(type_: SchemaType) -> None:
    seed = SEEDS[type_]
    assert parse(type_, seed, strict=True).text
    edits = st.lists(st.tuples(st.integers(0, len(seed)), st.integers(0, 4), PIECES | st.just("")), max_size=4)

    @settings(max_examples=300, deadline=None, database=None)
    @given(edits)
    def check(edits: list[tuple[int, int, str]]) -> None:
        text = seed
        for position, dropped, added in edits:
            text = text[:position] + added + text[position + dropped :]
        for strict in (False, True):
            try:
                schema = parse(type_, text, strict=strict)
            except InvalidSchemaError:
                continue
            assert parse(type_, schema.text, strict=strict) == schema
            assert schema.normalized().normalized() == schema.normalized()

    check()
