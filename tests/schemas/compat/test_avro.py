"""What Avro readers can take: the rules of the specification one by one, and what is told where they are broken."""

from __future__ import annotations

import json

import pytest

from millstream.schemas.compat import Incompatibility, incompatibilities
from millstream.schemas.compat.avro import (
    INCOMPATIBILITIES_MAX,
    PATH_CHARACTERS_MAX,
    PROMOTIONS,
    find_writer_field,
    names_match,
)
from millstream.schemas.parsing import parse
from millstream.schemas.parsing.avro import parse_avro
from millstream.schemas.parsing.avro_types import PRIMITIVES, RecordType


def found(reader: object, writer: object) -> list[Incompatibility]:
    return incompatibilities(parse("AVRO", json.dumps(reader)), parse("AVRO", json.dumps(writer)))


def record(*fields: dict[str, object], name: str = "R", **more: object) -> dict[str, object]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def test_promotions_are_those_of_the_specification() -> None:
    for writer in PRIMITIVES:
        for reader in PRIMITIVES:
            expected = reader == writer or (writer, reader) in PROMOTIONS
            assert (found(reader, writer) == []) is expected, (reader, writer)
            assert (found({"type": "array", "items": reader}, {"type": "array", "items": writer}) == []) is expected
    assert len(PROMOTIONS) == 8


E1 = {"type": "enum", "name": "E", "symbols": ["A"]}
E2 = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
F4 = {"type": "fixed", "name": "F", "size": 4}


@pytest.mark.parametrize(
    ("reader", "writer", "expected"),
    [
        (E2, E1, []),
        (E1, E2, [("MISSING_ENUM_SYMBOLS", "/symbols")]),
        ({**E1, "default": "A"}, E2, []),
        ({**F4, "size": 5}, F4, [("FIXED_SIZE_MISMATCH", "/size")]),
        ({**F4, "name": "n.F"}, F4, []),
        ({**F4, "name": "G"}, F4, [("NAME_MISMATCH", "/name")]),
        ({**F4, "name": "G", "aliases": ["F"]}, F4, []),
        (F4, "bytes", [("TYPE_MISMATCH", "/")]),
        ("int", "string", [("TYPE_MISMATCH", "/")]),
        (["null", "long"], "int", []),
        (["null", "string"], "int", [("MISSING_UNION_BRANCH", "/")]),
        (
            ["null", "string"],
            ["null", "int", "string", "boolean"],
            [("MISSING_UNION_BRANCH", "/1"), ("MISSING_UNION_BRANCH", "/3")],
        ),
        ("double", ["int", "string", "float"], [("TYPE_MISMATCH", "/1")]),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}, [("TYPE_MISMATCH", "/values")]),
        (record({"name": "a", "type": "int"}), record(), [("READER_FIELD_MISSING_DEFAULT_VALUE", "/fields/0")]),
        (record({"name": "a", "type": "int", "default": 1}), record(), []),
        (record(), record({"name": "a", "type": "int"}), []),
        (record({"name": "b", "type": "int", "aliases": ["a"]}), record({"name": "a", "type": "int"}), []),
        (
            record({"name": "b", "type": "int", "aliases": ["a", "c"]}),
            record({"name": "a", "type": "int"}, {"name": "c", "type": "int"}),
            [("AMBIGUOUS_FIELD_ALIAS", "/fields/0")],
        ),
        (
            record({"name": "a", "type": record({"name": "x", "type": "int"}, name="S")}, name="Q"),
            record({"name": "a", "type": record({"name": "x", "type": "string"}, name="T")}),
            [
                ("NAME_MISMATCH", "/name"),
                ("NAME_MISMATCH", "/fields/0/type/name"),
                ("TYPE_MISMATCH", "/fields/0/type/fields/0/type"),
            ],
        ),
        # An enum's default is none of the field's: Java looks for the enum in the record, and so it is told.
        (record({"name": "e", "type": {**E1, "default": "A"}}), record(), [("TYPE_MISMATCH", "/fields/0/type")]),
        # Logical types do not count.
        ({"type": "long", "logicalType": "timestamp-millis"}, {"type": "long", "logicalType": "time-micros"}, []),
    ],
)
def test_rules(reader: object, writer: object, expected: list[tuple[str, str]]) -> None:
    assert [(one.kind, one.path) for one in found(reader, writer)] == expected


TREE = record({"name": "value", "type": "int"}, {"name": "next", "type": ["null", "R"]})


def test_recursive_types_end() -> None:
    wider = record({"name": "value", "type": "long"}, {"name": "next", "type": ["null", "R"]})

    assert found(wider, TREE) == []
    assert [(one.kind, one.path) for one in found(TREE, wider)] == [
        ("TYPE_MISMATCH", "/fields/0/type"),
    ]


def test_sentences_say_what_and_how_to_put_it_right() -> None:
    missing = found(record({"name": "a", "type": "int"}), record())[0]
    symbols = found(E1, E2)[0]
    branch = found(["null", "string"], "int")[0]

    assert missing.sentence == (
        "the reader's schema wants the field a, which the writer's schema does not have; give it a default, or the name"
        " it had before as an alias"
    )
    assert (missing.detail, symbols.detail) == ("a", "[B]")
    assert "keep them, or give the enum a default" in symbols.sentence
    assert branch.detail == "reader union lacking writer type: INT"
    assert str(symbols) == (
        f"{{errorType:'MISSING_ENUM_SYMBOLS', description:'{symbols.sentence} (path /symbols)', additionalInfo:'[B]'}}"
    )


def chain(depth: int, last: str) -> str:
    """Records each of which holds the next, given flat and from the last on, so that no text is deep."""
    types: list[object] = [record({"name": "f", "type": last}, name=f"R{depth}")]
    types += [record({"name": "f", "type": f"R{level + 1}"}, name=f"R{level}") for level in reversed(range(depth))]
    return json.dumps(types)


def test_a_graph_deeper_than_the_stack() -> None:
    long, integer = parse("AVRO", chain(8_000, "long")), parse("AVRO", chain(8_000, "int"))

    assert incompatibilities(long, integer) == []
    assert len(incompatibilities(integer, long)) == INCOMPATIBILITIES_MAX

    inner, outer = parse_avro(chain(4_000, "int")), parse_avro(chain(4_000, "long"))
    inner.root, outer.root = inner.root.branches[-1], outer.root.branches[-1]  # type: ignore[attr-defined]
    deep = incompatibilities(inner, outer)[0]
    assert deep.path.startswith("/.../fields/0/type")
    assert len(deep.path) < 2 * PATH_CHARACTERS_MAX


def test_types_used_again_and_again_are_told_a_bounded_number_of_times() -> None:
    def doubled(last: str) -> str:
        inner: dict[str, object] = record({"name": "f", "type": last}, name="R40")
        for level in reversed(range(40)):
            inner = record({"name": "a", "type": inner}, {"name": "b", "type": f"R{level + 1}"}, name=f"R{level}")
        return json.dumps(inner)

    told = incompatibilities(parse("AVRO", doubled("int")), parse("AVRO", doubled("long")))

    assert len(told) == INCOMPATIBILITIES_MAX
    assert len({one.path for one in told}) == INCOMPATIBILITIES_MAX


def test_the_walk_is_open_to_those_who_build_on_it() -> None:
    renamed = record({"name": "b", "type": "int", "aliases": ["a"]}, name="Q", aliases=["R"])
    reader = parse_avro(json.dumps(renamed)).root
    writer = parse_avro(json.dumps(record({"name": "a", "type": "int"}))).root
    assert isinstance(reader, RecordType)
    assert isinstance(writer, RecordType)

    assert names_match(reader, writer)
    assert not names_match(writer, reader)
    assert find_writer_field(writer, reader.fields[0]) is writer.fields[0]
    assert find_writer_field(reader, writer.fields[0]) is None
