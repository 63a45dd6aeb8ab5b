"""What Protobuf files can take: Confluent's rules one by one, and what is called compatible by the wire."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import descriptor_pool, message_factory, unknown_fields
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from millstream.schemas.compat import incompatibilities
from millstream.schemas.compat.protobuf import differences
from millstream.schemas.parsing import Reference
from millstream.schemas.parsing.protobuf import ProtobufSchema, parse_protobuf
from millstream.schemas.parsing.protobuf.elements import SCALARS

EXAMPLES = 3_000 if os.environ.get("MILLSTREAM_SOAK") == "1" else 150


def kinds(writer: str, reader: str, head: str = 'syntax = "proto3";') -> list[str]:
    old, new = parse_protobuf(head + writer), parse_protobuf(head + reader)
    return sorted(f"{kind} {path}" for kind, path in differences(old, new))


def message(body: str) -> str:
    return f"message M {{ {body} }}"


@pytest.mark.parametrize(
    ("writer", "reader", "expected"),
    [
        ("package a;", "package b;", ["PACKAGE_CHANGED #/"]),
        (message(""), "", ["MESSAGE_REMOVED #/M"]),
        (message(""), "message N {}" + message(""), ["MESSAGE_ADDED #/N", "MESSAGE_MOVED #/M"]),
        (message(""), message("message N {}"), ["MESSAGE_ADDED #/M/N"]),
        (message("int32 a = 1;"), message("int32 b = 1;"), ["FIELD_NAME_CHANGED #/M/1"]),
        (message(""), message("int32 a = 1;"), ["FIELD_ADDED #/M/1"]),
        (message("int32 a = 1;"), message(""), ["FIELD_REMOVED #/M/1"]),
        (message("int32 a = 1;"), message("int32 a = 2;"), ["FIELD_ADDED #/M/2", "FIELD_REMOVED #/M/1"]),
        (message("int32 a = 1;"), message("string a = 1;"), ["FIELD_SCALAR_KIND_CHANGED #/M/1"]),
        (message("int32 a = 1;"), message("M a = 1;"), ["FIELD_KIND_CHANGED #/M/1"]),
        (message("map<string, int32> a = 1;"), message("M a = 1;"), ["FIELD_KIND_CHANGED #/M/1"]),
        (message("map<string, int32> a = 1;"), message("map<bytes, bool> a = 1;"), []),
        (
            message("map<string, int32> a = 1;"),
            message("map<string, float> a = 1;"),
            ["FIELD_SCALAR_KIND_CHANGED #/M/1"],
        ),
        (
            message("map<string, int32> a = 1;"),
            message(
                "repeated .M.AEntry a = 1; message AEntry { option map_entry = true; string key = 1; int64 value = 2; }"
            ),
            [],
        ),
        (
            message("A a = 1;") + "message A {} message B {}",
            message("B a = 1;") + "message A {} message B {}",
            ["FIELD_NAMED_TYPE_CHANGED #/M/1"],
        ),
        (message("E a = 1; enum E { Z = 0; }"), message("int64 a = 1;"), ["ENUM_REMOVED #/M/E"]),
        (
            message("enum E { Z = 0; A = 1; B = 2; }"),
            message("enum E { Z = 0; C = 1; D = 3; }"),
            ["ENUM_CONST_ADDED #/M/E/3", "ENUM_CONST_CHANGED #/M/E/1", "ENUM_CONST_REMOVED #/M/E/2"],
        ),
        (message("int32 a = 1;"), message("oneof o { int32 a = 1; }"), ["ONEOF_ADDED #/M/o"]),
        (
            message("int32 a = 1; int32 b = 2;"),
            message("oneof o { int32 a = 1; int32 b = 2; }"),
            ["MULTIPLE_FIELDS_MOVED_TO_ONEOF #/M/o", "ONEOF_ADDED #/M/o"],
        ),
        (
            message("int32 a = 1; oneof o { int32 b = 2; }"),
            message("oneof o { int32 a = 1; int32 b = 2; }"),
            ["FIELD_MOVED_TO_EXISTING_ONEOF #/M/o"],
        ),
        (
            message("oneof o { int32 a = 1; int32 b = 2; }"),
            message("oneof o { int32 a = 1; }"),
            ["ONEOF_FIELD_REMOVED #/M/o/2"],
        ),
        (message("oneof o { int32 a = 1; int32 b = 2; }"), message(""), ["ONEOF_REMOVED #/M/o"]),
        (
            message("oneof o { int32 a = 1; }"),
            message("oneof o { int32 a = 1; int32 b = 2; }"),
            ["ONEOF_FIELD_ADDED #/M/o/2"],
        ),
        (
            message("oneof o { int32 a = 1; int32 b = 2; }"),
            message("oneof o { int32 a = 1; } string b = 2;"),
            ["FIELD_SCALAR_KIND_CHANGED #/M/2", "ONEOF_FIELD_MOVED_TO_TOP_LEVEL #/M/2"],
        ),
        (message("M.N n = 1; message N {}"), message(".M.N n = 1; message N {}"), []),
    ],
)
def test_rules(writer: str, reader: str, expected: list[str]) -> None:
    assert kinds(writer, reader) == expected


@pytest.mark.parametrize(
    ("writer", "reader", "expected"),
    [
        ("", "required int32 a = 1;", ["REQUIRED_FIELD_ADDED #/M/1"]),
        ("required int32 a = 1;", "", ["REQUIRED_FIELD_REMOVED #/M/1"]),
        ("optional int32 a = 1;", "repeated int32 a = 1;", ["FIELD_NUMERIC_LABEL_CHANGED #/M/1"]),
        ("optional string a = 1;", "repeated bytes a = 1;", ["FIELD_STRING_OR_BYTES_LABEL_CHANGED #/M/1"]),
        ("optional M a = 1;", "repeated M a = 1;", []),
    ],
)
def test_rules_of_labels(writer: str, reader: str, expected: list[str]) -> None:
    assert kinds(message(writer), message(reader), 'syntax = "proto2";') == expected


def test_wire_groups() -> None:
    groups = [
        {"int32", "int64", "uint32", "uint64", "bool"},
        {"sint32", "sint64"},
        {"string", "bytes"},
        {"fixed32", "sfixed32"},
        {"fixed64", "sfixed64"},
        {"float"},
        {"double"},
    ]
    assert set().union(*groups) == SCALARS
    for old in SCALARS:
        for new in SCALARS:
            alike = any({old, new} <= group for group in groups)
            expected = [] if alike else ["FIELD_SCALAR_KIND_CHANGED #/M/1"]
            assert kinds(message(f"{old} a = 1;"), message(f"{new} a = 1;")) == expected


def importing(body: str, version: int, package: str = "p") -> ProtobufSchema:
    """A message with a field of another file's message, of a version of its subject."""
    text = f'syntax = "proto3"; import "n.proto"; message M {{ {package}.N n = 1; }}'
    imported = f'syntax = "proto3"; package {package}; message N {{ {body} }}'
    return parse_protobuf(text, [Reference("n.proto", "n", version)], {"n.proto": imported})


def test_messages_of_other_files_are_compared_where_they_are_used() -> None:
    found = incompatibilities(importing("string a = 1;", 2), importing("int32 a = 1;", 1))

    assert [(one.kind, one.path) for one in found] == [
        ("FIELD_SCALAR_KIND_CHANGED", "#/N/1"),
        ("FIELD_NAMED_TYPE_CHANGED", "#/M/1"),
    ]
    assert incompatibilities(importing("int64 a = 1;", 2), importing("int32 a = 1;", 1)) == []
    assert incompatibilities(importing("int64 a = 1;", 2, "q"), importing("int32 a = 1;", 1)) == []
    # One version of one subject is one text, whatever is handed over as it.
    assert incompatibilities(importing("string a = 1;", 1), importing("int32 a = 1;", 1)) == []


def test_recursive_messages_of_other_files_end() -> None:
    body = "N left = 1; N right = 2; int32 value = 3;"

    assert incompatibilities(importing(body, 1), importing(body, 2)) == []
    found = incompatibilities(importing(body.replace("int32", "float"), 1), importing(body, 2))
    assert [one.kind for one in found] == ["FIELD_SCALAR_KIND_CHANGED", "FIELD_NAMED_TYPE_CHANGED"]


def test_sentences_name_both_schemas_and_help() -> None:
    old, new = (parse_protobuf(message(f"optional {type_} a = 1;")) for type_ in ("int32", "string"))

    found = incompatibilities(new, old, reader_is="new", writer_is="old")[0]

    assert found.sentence == (
        "the field's type in the new schema is written otherwise on the wire than that of the old one; keep it, and"
        " give the new field a new number"
    )
    assert str(found).startswith("{errorType:'FIELD_SCALAR_KIND_CHANGED', description:'the field's type in the new")


FIELDS = st.dictionaries(st.integers(1, 4), st.sampled_from([*sorted(SCALARS), "E", "N", "map<string, N>"]), max_size=4)
VALUES: dict[str, Any] = {"string": "text", "bytes": b"data", "bool": True, "float": 1.5, "double": -2.5, "E": 1}


def text_of(fields: dict[int, str]) -> str:
    body = " ".join(f"{type_} f{number} = {number};" for number, type_ in fields.items())
    return f'syntax = "proto3"; {message(body)} message N {{ int32 x = 1; }} enum E {{ A = 0; B = 1; }}'


def class_of(schema: ProtobufSchema) -> Callable[..., Any]:
    pool = descriptor_pool.DescriptorPool()
    for descriptor in schema.file_descriptors():
        pool.AddSerializedFile(descriptor.SerializeToString())
    made: Callable[..., Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName("M"))
    return made


def test_what_is_called_compatible_is_understood_on_the_wire() -> None:
    verdicts = {True: 0, False: 0}

    @seed(7701)
    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(old_fields=FIELDS, changes=FIELDS)
    def check(old_fields: dict[int, str], changes: dict[int, str]) -> None:
        new_fields = {**old_fields, **dict(list(changes.items())[:1])}
        old, new = parse_protobuf(text_of(old_fields)), parse_protobuf(text_of(new_fields))
        written = class_of(old)()
        for number, type_ in old_fields.items():
            if type_ == "map<string, N>":
                getattr(written, f"f{number}")["key"].x = 7
            elif type_ == "N":
                getattr(written, f"f{number}").x = 7
            else:
                setattr(written, f"f{number}", VALUES.get(type_, 1))

        is_compatible = not incompatibilities(new, old)
        verdicts[is_compatible] += 1
        if not is_compatible:
            return
        read: Any = class_of(new)()
        read.ParseFromString(written.SerializeToString())
        misread = {field.field_number for field in unknown_fields.UnknownFieldSet(read)}
        assert not misread & new_fields.keys()
        for number, type_ in old_fields.items():
            if new_fields[number] == type_:
                assert str(getattr(read, f"f{number}")) == str(getattr(written, f"f{number}"))

    check()

    assert min(verdicts.values()) > EXAMPLES // 20, verdicts
