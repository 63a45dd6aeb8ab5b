"""Avro schemas by what a registry shows of them: canonical texts, names, references, normal forms, refusals."""

from __future__ import annotations

import itertools
import json

import pytest

from millstream.schemas.parsing import InvalidSchemaError, Reference, SchemaType, parse
from millstream.schemas.parsing.avro import parse_avro
from millstream.schemas.parsing.avro_types import EnumType, LogicalType, RecordType, logical_type

EVENT = """
{"name": "Event", "namespace": "com.acme", "type": "record", "doc": "what happened",
 "fields": [{"type": "long", "name": "id"}, {"name": "at", "type": {"logicalType": "timestamp-millis", "type": "long"}},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["NEW", "OLD"], "default": "OLD"}},
            {"name": "before", "type": ["null", "Event"], "default": null}]}
"""
ADDRESS = (
    '{"type": "record", "name": "Address", "namespace": "com.acme", "fields": [{"name": "city", "type": "string"}]}'
)
PERSON = """
{"type": "record", "name": "Person", "namespace": "com.acme", "fields": [
   {"name": "home", "type": "Address"}, {"name": "work", "type": ["null", "com.acme.Address"]}]}
"""


def test_the_canonical_text_has_no_white_space_and_a_fixed_order() -> None:
    schema = parse("AVRO", EVENT)

    assert schema.type is SchemaType.AVRO
    assert schema.name == "com.acme.Event"
    assert schema.text == (
        '{"type":"record","name":"Event","namespace":"com.acme","doc":"what happened","fields":['
        '{"name":"id","type":"long"},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"kind","type":{"type":"enum",'
        '"name":"Kind","symbols":["NEW","OLD"],"default":"OLD"}},{"name":"before","type":["null","Event"],"default":null}]}'
    )
    assert parse("AVRO", schema.text) == schema
    assert hash(parse("AVRO", schema.text)) == hash(schema)


def test_the_graph_is_recursive_where_the_schema_is() -> None:
    root = parse_avro(EVENT).root

    assert isinstance(root, RecordType)
    before = root.by_name["before"].type
    assert before.branches[1] is root  # type: ignore[attr-defined]
    assert logical_type(root.by_name["at"].type) == LogicalType("timestamp-millis")
    kind = root.by_name["kind"].type
    assert isinstance(kind, EnumType)
    assert (kind.full_name, kind.default) == ("com.acme.Kind", "OLD")


def test_references_are_named_and_not_repeated() -> None:
    reference = Reference("com.acme.Address", "address-value", 3)

    schema = parse_avro(PERSON, [reference], {"com.acme.Address": ADDRESS})

    assert schema.references == (reference,)
    assert schema.text == (
        '{"type":"record","name":"Person","namespace":"com.acme","fields":[{"name":"home","type":"Address"},'
        '{"name":"work","type":["null","Address"]}]}'
    )
    assert json.loads(schema.formatted("resolved"))["fields"][0]["type"]["fields"] == [
        {"name": "city", "type": "string"}
    ]
    assert schema.formatted("") == schema.formatted("no-such-form") == schema.text
    assert schema != parse_avro(PERSON, [], {"com.acme.Address": ADDRESS})


def test_a_reference_may_use_another_in_any_order() -> None:
    country = '{"type": "fixed", "name": "Country", "namespace": "com.acme", "size": 2}'
    address = ADDRESS.replace('"string"', '"Country"')
    for names in (("com.acme.Address", "com.acme.Country"), ("com.acme.Country", "com.acme.Address")):
        texts = {"com.acme.Address": address, "com.acme.Country": country}
        schema = parse_avro(PERSON, [], {name: texts[name] for name in names})
        assert '"Address"' in schema.text
        assert "Country" not in schema.text


def test_a_bad_reference_is_named() -> None:
    with pytest.raises(InvalidSchemaError, match=r"Address': no valid JSON"):
        parse_avro(PERSON, [], {"com.acme.Address": "{"})
    with pytest.raises(InvalidSchemaError, match="no type is named"):
        parse_avro(PERSON)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            '{"type": "string", "b": 1, "a": {"y": 1, "x": [1.0]}}',
            '{"a": {"x": [1.0], "y": 1}, "type": "string", "b": 1}',
        ),
        (
            '{"type": "bytes", "precision": 4, "scale": 2, "logicalType": "decimal", "x": 1}',
            '{"type": "bytes", "x": 1, "logicalType": "decimal", "scale": 2, "precision": 4}',
        ),
        (
            '{"type": "fixed", "name": "F", "size": 1, "aliases": ["B", "A"], "doc": ""}',
            '{"type": "fixed", "name": "F", "size": 1, "aliases": ["A", "B"]}',
        ),
        (
            '{"type": "record", "name": "n.R", "fields": [{"name": "a", "type": "int", "order": "ascending"}]}',
            '{"type": "record", "name": "R", "namespace": "n", "fields": [{"name": "a", "type": {"type": "int"}}]}',
        ),
    ],
)
def test_normalized_schemas_are_one_where_only_order_differed(one: str, other: str) -> None:
    first, second = parse("AVRO", one).normalized(), parse("AVRO", other).normalized()

    assert first == second
    assert first.normalized() == first


def test_normalized_keeps_what_has_a_meaning() -> None:
    texts = ['["null","int"]', '["int","null"]', '{"type": "string", "doc2": "x"}', '"string"', EVENT]

    normal = {parse("AVRO", text).normalized().text for text in texts}

    assert len(normal) == len(texts)
    assert parse("AVRO", EVENT).normalized() == parse("AVRO", EVENT)


def test_fingerprints_are_of_what_readers_need() -> None:
    documented = parse_avro('{"type": "fixed", "name": "F", "size": 1, "doc": "x"}')
    plain = parse_avro('{"type": "fixed", "name": "F", "size": 1}')

    assert parse_avro('"int"').fingerprint() == "8f5c393f1ad57572"  # the specification's own example, little-endian
    assert documented.fingerprint() == plain.fingerprint()
    assert len(plain.fingerprint("SHA-256")) == 64


def test_references_are_put_in_order_once() -> None:
    references = [Reference("b", "s", 1), Reference("a", "s", 2), Reference("b", "s", 1)]

    assert parse("AVRO", '"int"', references).normalized().references == (references[1], references[0])


@pytest.mark.parametrize(
    ("text", "strict_complaint"),
    [
        ('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "default": "x"}]}', "is no int"),
        ('{"type": "record", "name": "Größe", "fields": []}', "letters, digits"),
        ('{"type": "record", "name": "R", "namespace": "a-b", "fields": []}', "letters, digits"),
        (
            """{"type": "record", "name": "R", "fields": [{"name": "r", "default": {}, "type":
                {"type": "record", "name": "Q", "fields": [{"name": "z", "type": "int"}]}}]}""",
            "is no Q",
        ),
    ],
)
def test_what_registries_hold_may_be_laxer_than_what_is_new(text: str, strict_complaint: str) -> None:
    assert parse("AVRO", text).text
    with pytest.raises(InvalidSchemaError, match=strict_complaint):
        parse("AVRO", text, strict=True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1, column 1"),
        ('{"type": "record", "name": "R"', "no valid JSON"),
        ("7", "7 is no schema"),
        ('{"type": ["int"]}', "no type is given as text"),
        ('{"type": "record", "fields": []}', "a record has no name"),
        ('{"type": "record", "name": "R", "fields": {}}', "'R' has no array of fields"),
        ('{"type": "record", "name": "R", "fields": [7]}', "a field of 'R' has no name: 7"),
        ('{"type": "record", "name": "R", "fields": [{"name": "9", "type": "int"}]}', "no digit first"),
        ('{"type": "enum", "name": "E", "symbols": ["A", "B", "A"]}', "symbol 'A' twice"),
        ('{"type": "map"}', "a map has no values"),
        ('[["int"]]', "a union among its branches"),
        ('{"type": "int", "x": NaN}', "NaN is no JSON value"),
        ('{"type": "int", "x": "\\ud800"}', "half a surrogate"),
        ('{"type": "int", "x": ' + "9" * 2000 + "}", "2000 digits"),
    ],
)
def test_refusals_say_what_and_where(text: str, complaint: str) -> None:
    with pytest.raises(InvalidSchemaError, match=complaint):
        parse("AVRO", text)


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ({"type": "bytes", "logicalType": "decimal", "precision": 4}, LogicalType("decimal", 4, 0)),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 5}, None),
        ({"type": "string", "logicalType": "decimal", "precision": 4}, None),
        (
            {"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 4},
            LogicalType("decimal", 4, 0),
        ),
        ({"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 5}, None),
        ({"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}, LogicalType("duration")),
        ({"type": "fixed", "name": "F", "size": 11, "logicalType": "duration"}, None),
        ({"type": "int", "logicalType": "timestamp-millis"}, None),
        ({"type": "int", "logicalType": 7}, None),
        ({"type": "int", "logicalType": "of-tomorrow"}, None),
    ],
)
def test_a_logical_type_that_does_not_fit_is_ignored(type_: dict[str, object], expected: LogicalType | None) -> None:
    assert logical_type(parse_avro(json.dumps(type_)).root) == expected


def test_precisions_that_just_fit_their_fixed() -> None:
    for size in (*range(1, 200), 1_000, 10_000):
        fitting = next(n for n in itertools.count(int(2.4 * size) - 2) if 10 ** max(n + 1, 0) > 2 ** (8 * size - 1))
        for precision, fits in ((fitting, True), (fitting + 1, False)):
            if precision:
                text = {"type": "fixed", "name": "F", "size": size, "logicalType": "decimal", "precision": precision}
                assert (logical_type(parse_avro(json.dumps(text)).root) is not None) == fits, (size, precision)


@pytest.mark.parametrize(
    ("size", "precision", "fits"), [(4, 10**900, False), (2**31 - 1, 5, True)], ids=["precision", "size"]
)
def test_a_decimal_of_any_size_is_looked_at_in_no_time(size: int, precision: int, fits: bool) -> None:
    # By making ten to the power of the precision this would take for ever, or 2 GiB.
    text = {"type": "fixed", "name": "F", "size": size, "logicalType": "decimal", "precision": precision}
    assert (logical_type(parse_avro(json.dumps(text)).root) is not None) == fits
