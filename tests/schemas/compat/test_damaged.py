"""Schemas that somebody damaged are compared without any failure, whatever is left of them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from millstream.schemas.compat import incompatibilities
from millstream.schemas.parsing import InvalidSchemaError, SchemaType, parse

EXAMPLES = 10_000 if os.environ.get("MILLSTREAM_SOAK") == "1" else 300

SEEDS = {
    SchemaType.AVRO: """{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":["null",{"type":"enum",
        "name":"E","symbols":["A","B"]}],"default":null},{"name":"b","type":{"type":"map","values":"R"},"aliases":["c"]},
        {"name":"d","type":{"type":"array","items":["int","string",{"type":"fixed","name":"F","size":2}]}}]}""",
    SchemaType.JSON: """{"type":["object","null"],"properties":{"a":{"$ref":"#/definitions/x"},"b":{"type":"array",
        "items":[{"type":"number","minimum":1.5,"multipleOf":0.5},{"not":{"$ref":"#"}}],"additionalItems":false}},
        "definitions":{"x":{"anyOf":[{"type":"string","maxLength":3},{"enum":[1,"a"]},{"$ref":"#/definitions/y"}]},
        "y":{"allOf":[{"const":1},{"type":"integer"}]}},"required":["a"],"dependencies":{"a":["b"],"b":{}},
        "patternProperties":{"^x":{}},"additionalProperties":{"type":"string"}}""",
    SchemaType.PROTOBUF: """syntax = "proto3"; package a; import "google/protobuf/any.proto"; message M { N n = 4;
        oneof o { int32 x = 1; google.protobuf.Any y = 2; } map<string, M> m = 3; message N { repeated E e = 1; } }
        enum E { A = 0; B = 1; }""",
}
PIECES = st.sampled_from(
    [*'{}[]":,;=0123', "int", "string", "null", "true", "type", "items", "#/definitions/y", "M", "N"]
)


@pytest.mark.parametrize("type_", list(SchemaType))
def test_damaged_schemas_are_compared(type_: SchemaType) -> None:
    text = SEEDS[type_]
    whole = parse(type_, text)
    swaps = [piece for piece in ("int", "string", "null", "R", "E", "M", "N", "x", "y", "1", "2", "3") if piece in text]
    edits = st.lists(
        st.tuples(st.integers(0, len(text)), st.integers(0, 8), PIECES | st.just("")), max_size=2
    ) | st.tuples(st.sampled_from(swaps), st.sampled_from(swaps))
    compared = 0

    @seed(8801)
    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(edits)
    def check(edits: list[tuple[int, int, str]] | tuple[str, str]) -> None:
        nonlocal compared
        damaged = text
        if isinstance(edits, tuple):
            damaged = text.replace(*edits)
        else:
            for position, dropped, added in edits:
                damaged = damaged[:position] + added + damaged[position + dropped :]
        try:
            schema = parse(type_, damaged)
        except InvalidSchemaError:
            return
        compared += 1
        for reader, writer in ((schema, whole), (whole, schema), (schema, schema.normalized())):
            found = incompatibilities(reader, writer)
            assert all(one.kind and one.path and one.sentence for one in found)
        assert incompatibilities(schema.normalized(), schema) == []

    check()

    assert compared > EXAMPLES // 20
