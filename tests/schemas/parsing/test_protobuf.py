"""Protobuf schemas by what a registry shows of them: formatted texts, descriptors, normal forms, refusals."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from google.protobuf import api_pb2, descriptor_pb2, descriptor_pool, message_factory, struct_pb2, type_pb2

from millstream.schemas.parsing import InvalidSchemaError, Reference, parse
from millstream.schemas.parsing.protobuf import ProtobufSchema, parse_protobuf
from millstream.schemas.parsing.protobuf.known_files import KNOWN_FILES

ORDER = """
syntax = "proto3"; // what comes here
package com.acme;
import public "common.proto";
import "google/protobuf/timestamp.proto";
option java_package = "com.acme.orders"; option (confluent.file_meta) = { doc: "it's", tags: ["a" "b", 'c'] };
/* one
   message */
message Order {
  int64 id = 1 [deprecated=true, json_name = "ID"];
  optional string note = 2; repeated Line lines = 3;
  map<string,Money> totals = 4;
  google.protobuf.Timestamp at = 5;
  oneof paid_by { string card = 6; Money cash = 7; }
  reserved 8, 10 to 12, 100 to max; reserved "old";
  message Line { string sku = 1; Kind kind = 2; enum Kind { option allow_alias = true; NONE = 0; NIL = 0; BIG = -1; } }
}
enum State { STATE_NEW = 0; }
service Orders {
  rpc Get (Order) returns (stream .com.acme.Order) { option deprecated = true; } rpc Put(Order) returns (Order);
}
"""
COMMON = 'syntax = "proto3"; package com.acme; message Money { string currency = 1; sint64 units = 2; }'
FORMATTED = """\
syntax = "proto3";
package com.acme;

import "google/protobuf/timestamp.proto";
import public "common.proto";

option java_package = "com.acme.orders";
option (confluent.file_meta) = {
  doc: "it\\'s",
  tags: [
    "ab",
    "c"
  ]
};

message Order {
  reserved 8, 10 to 12, 100 to max;
  reserved "old";

  int64 id = 1 [
    deprecated = true,
    json_name = "ID"
  ];
  optional string note = 2;
  repeated Line lines = 3;
  map<string, Money> totals = 4;
  google.protobuf.Timestamp at = 5;

  oneof paid_by {
    string card = 6;
    Money cash = 7;
  }

  message Line {
    string sku = 1;
    Kind kind = 2;
__
    enum Kind {
      option allow_alias = true;
      NONE = 0;
      NIL = 0;
      BIG = -1;
    }
  }
}
enum State {
  STATE_NEW = 0;
}

service Orders {
  rpc Get (Order) returns (stream .com.acme.Order) {
    option deprecated = true;
  };
  rpc Put (Order) returns (Order);
}
""".replace("__", "  ")


def order(**options: Any) -> ProtobufSchema:
    return parse_protobuf(ORDER, [Reference("common.proto", "common", 1)], {"common.proto": COMMON}, **options)


def test_the_text_is_formatted_as_registries_have_it() -> None:
    schema = order(strict=True)

    assert schema.text == FORMATTED
    assert schema.name == "com.acme.Order"
    assert parse_protobuf(schema.text, schema.references, schema.resolved) == schema


def test_normalized_names_in_full_and_orders_by_number() -> None:
    shuffled = (
        ORDER.replace(
            "optional string note = 2; repeated Line lines = 3;",
            "repeated .com.acme.Order.Line lines = 3; optional string note = 2;",
        )
        .replace("map<string,Money>", "map<string, com.acme.Money>")
        .replace("reserved 8, 10 to 12,", "reserved 10 to 12, 8,")
    )

    one = order().normalized()
    other = parse_protobuf(shuffled, one.references, one.resolved).normalized()

    assert one.text == other.text
    assert "map<string, .com.acme.Money> totals = 4;" in one.text
    assert "repeated .com.acme.Order.Line lines = 3;" in one.text
    assert "reserved 8;\n  reserved 10 to 12;\n  reserved 100 to max;" in one.text
    assert "BIG = -1;\n      NIL = 0;" in one.text
    assert one.normalized() == one


def test_a_descriptor_says_the_same_as_its_text() -> None:
    schema = order()

    serialized = schema.formatted("serialized")
    again = parse_protobuf(serialized, schema.references, schema.resolved)

    descriptor = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(serialized))
    assert [message.name for message in descriptor.message_type] == ["Order"]
    assert [nested.name for nested in descriptor.message_type[0].nested_type] == ["Line", "TotalsEntry"]
    assert again.formatted("serialized") == serialized
    assert again.formatted("") == again.text
    # But for custom options, which only those who have them can read.
    meta = order().normalized().text.index("option (confluent.file_meta)")
    end = order().normalized().text.index("};\n", meta) + 3
    assert again.normalized().text == order().normalized().text[:meta] + order().normalized().text[end:]


@pytest.mark.parametrize("file", [descriptor_pb2, api_pb2, type_pb2, struct_pb2])
def test_the_librarys_own_files_come_through(file: Any) -> None:
    expected = descriptor_pb2.FileDescriptorProto.FromString(file.DESCRIPTOR.serialized_pb)

    schema = parse_protobuf(base64.b64encode(file.DESCRIPTOR.serialized_pb).decode(), strict=False)
    again = parse_protobuf(schema.text).file_descriptor

    for descriptor in (schema.file_descriptor, again):
        written = descriptor_pb2.FileDescriptorProto()
        written.CopyFrom(descriptor)
        written.name = expected.name
        _without_declarations(expected)
        assert written.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def _without_declarations(file: descriptor_pb2.FileDescriptorProto) -> None:
    for message in file.message_type:
        for range_ in message.extension_range:
            range_.ClearField("options")


def test_messages_are_written_and_read_by_what_the_text_says() -> None:
    pool = descriptor_pool.DescriptorPool()
    for descriptor in order().file_descriptors():
        pool.AddSerializedFile(descriptor.SerializeToString())
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("com.acme.Order"))

    made: Any = message(id=7, note="n", lines=[{"sku": "s", "kind": "BIG"}], cash={"units": -3})
    made.totals["eur"].units = 5
    made.at.seconds = 9
    read: Any = message.FromString(made.SerializeToString())

    assert read == made
    assert read.WhichOneof("paid_by") == "cash"
    assert read.HasField("note")
    assert message.DESCRIPTOR.fields_by_name["id"].json_name == "ID"


@pytest.mark.parametrize("name", sorted(KNOWN_FILES))
def test_known_files_need_no_reference(name: str) -> None:
    schema = parse_protobuf(f'syntax = "proto3"; import "{name}";', strict=True)

    assert [file.name for file in schema.file_descriptors()][-2:] == [name, "default"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";;",
        """message A { optional group G = 1 { optional int32 x = 1; } extensions 100 to 200, 300; }
            extend A { repeated A a = 100; }""",
        """message A { required bytes b = 1 [default = "a\\001\\"\\xff"]; optional double d = 2 [default = -inf];
            optional E e = 3 [default = B]; enum E { A = 1; B = 2; }
            optional int32 i = 4 [default = 0x10, packed = false]; }""",
        'edition = "2023"; message A { int32 a = 1 [features.field_presence = IMPLICIT]; reserved b, c; }',
        'syntax = "proto3"; message message { bool optional = 1; int32 reserved = 2; string to = 3; }',
        'syntax = "proto3"; message A { oneof o { option (x) = 1; B b = 1; } message B { map<int32, .A> m = 1; } }',
        'message A { option (a.b).c.(d.e) = { x: 1, y <z: "1"> [q.r]: -2.5, l: [ ], t: TRUE; t: FALSE }; }',
    ],
)
def test_syntax(text: str) -> None:
    schema = parse_protobuf(text, strict=True)

    assert parse_protobuf(schema.text, strict=True) == schema
    assert schema.normalized().normalized() == schema.normalized()
    serialized = parse_protobuf(schema.formatted("serialized"), strict=True)
    assert serialized.formatted("serialized") == schema.formatted("serialized")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('syntax = "proto4";', "line 1, column 18: the syntax is proto2 or proto3"),
        ("message A {\n  int32 = 1;\n}", "line 2, column 9: a field's name is expected, not '='"),
        ("message A {", "a block does not end"),
        ("message A { int32 a = 1 }", "';' is expected, not '}'"),
        ("message A { int32 a = 0; }", "from 1 to 536870911, not 0"),
        ("message A { int32 a = 536870912; }", "from 1 to 536870911"),
        ("message A { reserved 5 to 3; }", "the range from 5 to 3 is empty"),
        ("enum E { A = 2147483648; }", "does not fit in 32 bits"),
        ("class A {}", "'class' is no definition"),
        ("message A { B b = 1; }", "the type 'B' in A is not defined"),
        ("message A { map<int32, B> b = 1; }", "the type 'B' in A is not defined"),
        ("service S { rpc R (Q) returns (Q); }", "the type 'Q' in the file is not defined"),
        ('option x = "\\', "is not understood"),
        ("/* no end", "a definition is expected, not '/'"),
        ("CgdhLnByb3Rv!", "is no definition|is not understood"),
    ],
)
def test_refusals_say_what_and_where(text: str, complaint: str) -> None:
    with pytest.raises(InvalidSchemaError, match=complaint):
        parse("PROTOBUF", text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('syntax = "proto3"; message A { int32 a = 1; int32 b = 1; }', "duplicate field number"),
        ('syntax = "proto3"; enum E { A = 1; }', "first value must be zero"),
        ('import "nowhere.proto"; message A {}', "'nowhere.proto' is none of the references"),
        ("message A { optional int32 a = 1 [no_such_option = 1]; }", "no option 'no_such_option'"),
        ("message A { optional int32 a = 1 [deprecated = 7]; }", "'deprecated' can't be 7"),
        ('edition = "1066";', "edition '1066' is not known"),
    ],
)
def test_new_schemas_are_built_by_the_library(text: str, complaint: str) -> None:
    assert parse("PROTOBUF", text).text
    with pytest.raises(InvalidSchemaError, match=complaint):
        parse("PROTOBUF", text, strict=True)
