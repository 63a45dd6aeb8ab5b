"""Our parsing of Avro schemas and our verdicts on pairs of them against those of Avro's own Java."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, seed, settings
from tests.support.avro_evolution import pairs, schemas
from tests.support.avro_java import AvroJarsMissingError, AvroTool, avro_jars

from millstream.schemas.compat import incompatibilities
from millstream.schemas.parsing import InvalidSchemaError
from millstream.schemas.parsing.avro import parse_avro

pytestmark = [pytest.mark.java, pytest.mark.slow]

EXAMPLES = 20_000 if os.environ.get("MILLSTREAM_SOAK") == "1" else 400
SETTINGS = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)

# What the schemas made here are not, and Java takes or refuses in a way of its own.
TEXTS = (
    '"string"',
    '{"type": "string"}',
    '{"type": {"type": "string"}}',
    "[]",
    '["int", "int"]',
    '["null", ["int"]]',
    '"unknown"',
    "int",
    '"int" x',
    '{"type": "int", "x": null}',
    '{"type": "int", "x": 1.10, "y": 1e400, "z": 100.0, "w": 1.0e7, "v": 0.001, "u": 0.0001, "t": 1.23E-7, "s": -0.0}',
    '{"type": "int", "x": {"b": 123456789012345678901234567890, "a": "\\u001f\\u007f\\n\\"\\u20ac"}}',
    '{"type": "array", "items": "int", "default": [], "doc": "gone"}',
    '{"type": "map", "values": "int", "type": "array", "items": "long"}',
    '{"type": "fixed", "name": "F", "size": -1}',
    '{"type": "fixed", "name": "F", "size": 0}',
    '{"type": "fixed", "name": "F", "size": 1.0}',
    '{"type": "fixed", "name": "int", "size": 1}',
    '{"type": "fixed", "name": "n.int", "size": 1}',
    '{"type": "enum", "name": "E", "symbols": []}',
    '{"type": "enum", "name": "E", "symbols": ["A", "A"]}',
    '{"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}',
    '{"type": "enum", "name": "E", "symbols": ["A-B"]}',
    '{"type": "record", "name": "a-b", "fields": []}',
    '{"type": "record", "name": "a.b-c.d", "fields": []}',
    '{"type": "record", "name": "R"}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a"}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "order": "up"}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "order": "DESCENDING"}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long", "default": 1.0}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "default": 2147483648}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "double", "default": 1}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "double", "default": "NaN"}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "double", "default": "1.5"}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "double", "default": "x"}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": ["null", "int"], "default": 1}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": ["null", "int"], "default": "x"}]}',
    '{"type": "record", "name": "R", "fields": [{"name": "a", "type": ["null", "R"], "default": null}]}',
    (
        '{"type": "error", "name": "R", "namespace": "n", "logicalType": "foo", "fields": [{"name": "f", "type": "X"},'
        ' {"name": "g", "type": {"type": "fixed", "name": "X", "size": 2, "aliases": ["Y", "o.Z"]}}]}'
    ),
    (
        '{"type": "record", "name": "R", "namespace": "n", "fields": ['
        '{"name": "f", "type": {"type": "fixed", "name": "A", "namespace": "", "size": 2}}, {"name": "g", "type": "A"},'
        ' {"name": "h", "type": {"type": "enum", "name": "int", "symbols": ["Q"]}}, {"name": "i", "type": "n.int"}]}'
    ),
    (
        '{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "fixed", "name": "A", "size": 3}},'
        ' {"name": "b", "type": {"type": "fixed", "name": "A", "size": 3, "doc": "again"}}]}'
    ),
    (
        '{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "fixed", "name": "A", "size": 3}},'
        ' {"name": "b", "type": {"type": "fixed", "name": "A", "size": 4}}]}'
    ),
    '/* a comment */ {"type": "array", "items": "int"}',
)


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AvroTool]:
    try:
        jars = avro_jars()
    except AvroJarsMissingError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    with AvroTool(jars, tmp_path_factory.mktemp("classes")) as tool:
        yield tool


def assert_parsed_alike(java: AvroTool, text: str) -> None:
    expected = java.parse(text)
    if expected is None:
        with pytest.raises(InvalidSchemaError):
            parse_avro(text, strict=True)
    else:
        schema = parse_avro(text, strict=True)
        assert (schema.text, schema.parsing_canonical_form, schema.fingerprint()) == expected
        assert parse_avro(schema.text, strict=True) == schema


@pytest.mark.parametrize("text", TEXTS)
def test_java_takes_and_writes_the_same_schemas(java: AvroTool, text: str) -> None:
    assert_parsed_alike(java, text)


@seed(5501)
@SETTINGS
@given(value=schemas())
def test_java_writes_schemas_of_any_shape_alike(java: AvroTool, value: object) -> None:
    assert_parsed_alike(java, json.dumps(value, ensure_ascii=False))


def test_java_finds_the_same_incompatibilities(java: AvroTool) -> None:
    seen: Counter[str] = Counter()

    @seed(5502)
    @SETTINGS
    @given(pair=pairs())
    def check_pair(pair: tuple[object, object]) -> None:
        reader, writer = (json.dumps(value, ensure_ascii=False) for value in pair)
        if java.parse(reader) is None or java.parse(writer) is None:
            return
        expected = java.pair(reader, writer)
        found = incompatibilities(parse_avro(reader), parse_avro(writer))
        if expected is None:
            return
        seen.update({one.kind for one in expected} or {"compatible"})
        assert [(one.kind, one.detail) for one in found] == [(one.kind, one.detail) for one in expected]
        # A pair of types that is met again has its first path in Java, and its own here.
        if len({one.path for one in expected}) == len(expected):
            assert [one.path for one in found] == [one.path for one in expected]

    check_pair()

    assert len(seen) == 7, f"not every kind of incompatibility came up: {seen}"
