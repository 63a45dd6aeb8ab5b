"""ProtobufDecoder: every kind of field, several writers, bad values; the runtime's own JSON as the oracle."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.schemas.avro import (
    AvroEncoder,
    Decoded,
    TooManyUnknownIdsError,
    UnsupportedSchemaError,
    arrow_to_avro_schema,
)
from millstream.schemas.avro.decoder import FAILED_LOOKUPS_MAX, UNKNOWN_KEPT_S
from millstream.schemas.client import RegistryError
from millstream.schemas.parsing import ParsedSchema, parse
from millstream.schemas.protobuf import ProtobufDecoder, protobuf_to_arrow_schema
from millstream.schemas.protobuf import decoder as decoder_module
from millstream.schemas.protobuf.layout import descriptor_of
from millstream.schemas.serdes.framing import prefix

KINDS = {
    "double": pa.float64(),
    "float": pa.float32(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "sint32": pa.int32(),
    "sint64": pa.int64(),
    "fixed32": pa.uint32(),
    "fixed64": pa.uint64(),
    "sfixed32": pa.int32(),
    "sfixed64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "bytes": pa.binary(),
}
ALL_KINDS = 'syntax = "proto3"; message All {\n' + "".join(
    f"{kind} a_{kind} = {number}; optional {kind} o_{kind} = {number + 100}; repeated {kind} r_{kind} = {number + 200};"
    f" map<string, {kind}> m_{kind} = {number + 300};\n"
    for number, kind in enumerate(KINDS, 1)
)
ALL_KINDS += "}"
NESTED = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
enum Status { UNKNOWN = 0; PAID = 1; SENT = 2; }
message Order {
  message Line { string sku = 1; int32 quantity = 2; optional double price = 3; repeated string notes = 4; }
  int64 id = 1;
  Line best = 2;
  repeated Line lines = 3;
  map<string, Line> by_name = 4;
  Status status = 5;
  optional Status before = 6;
  repeated Status all = 7;
  oneof payment { string card = 8; int64 voucher = 9; Line gift = 10; }
  google.protobuf.Timestamp at = 11;
  google.protobuf.StringValue comment = 12;
  google.protobuf.Struct extra = 13;
  map<int32, google.protobuf.Timestamp> times = 14;
}
message Other { string name = 1; }
"""


def message_class(text: str, name: str | None = None) -> Any:
    return GetMessageClass(descriptor_of(parse("PROTOBUF", text), name))


def rows_of(decoded: Decoded) -> list[int]:
    assert decoded.rows is not None
    found: list[int] = decoded.rows.to_pylist()
    return found


def decode(text: str, *messages: Any, **options: Any) -> Any:
    decoder = ProtobufDecoder(reader_schema=text, framing="none", **options)
    decoded = decoder.decode(pa.array([one.SerializeToString() for one in messages], pa.binary()))
    assert decoded.errors == []
    decoded.batch.validate(full=True)
    assert decoded.batch.schema == decoder.schema
    return decoded.batch


NUMBERS = {
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    "bytes": st.binary(max_size=9),
}
for kind, type_ in KINDS.items():
    if pa.types.is_integer(type_):
        low = -(2 ** (type_.bit_width - 1)) if pa.types.is_signed_integer(type_) else 0
        NUMBERS[kind] = st.integers(low, low + 2**type_.bit_width - 1)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_kind_of_scalar(data: st.DataObject) -> None:
    message = message_class(ALL_KINDS)
    one = message()
    for kind in data.draw(st.lists(st.sampled_from(list(KINDS)), unique=True)):
        setattr(one, f"a_{kind}", data.draw(NUMBERS[kind]))
        if data.draw(st.booleans()):
            setattr(one, f"o_{kind}", data.draw(NUMBERS[kind]))
        getattr(one, f"r_{kind}").extend(data.draw(st.lists(NUMBERS[kind], max_size=3)))
        getattr(one, f"m_{kind}").update(data.draw(st.dictionaries(NUMBERS["string"], NUMBERS[kind], max_size=3)))

    batch = decode(ALL_KINDS, one, message())

    row, empty = batch.to_pylist()
    for kind, type_ in KINDS.items():
        assert batch.schema.field(f"a_{kind}") == pa.field(f"a_{kind}", type_, nullable=False)
        assert row[f"a_{kind}"] == getattr(one, f"a_{kind}")
        assert row[f"o_{kind}"] == (getattr(one, f"o_{kind}") if one.HasField(f"o_{kind}") else None)
        assert row[f"r_{kind}"] == list(getattr(one, f"r_{kind}"))
        assert dict(row[f"m_{kind}"]) == dict(getattr(one, f"m_{kind}"))
        assert empty[f"a_{kind}"] == getattr(message(), f"a_{kind}")
        assert (empty[f"o_{kind}"], empty[f"r_{kind}"], empty[f"m_{kind}"]) == (None, [], [])


FULL = {
    "id": "5",
    "best": {"sku": "b", "quantity": 2, "price": 1.5},
    "lines": [{"sku": "x", "notes": ["n", "m"]}, {"quantity": 3}],
    "byName": {"k": {"sku": "y"}},
    "status": "PAID",
    "before": "UNKNOWN",
    "all": ["SENT", "PAID", "SENT"],
    "voucher": "7",
    "at": "2026-01-02T03:04:05.123456789Z",
    "comment": "",
    "extra": {"a": [1, None, "x"], "b": {"c": True}},
    "times": {"4": "1969-12-31T23:59:59.5Z"},
}


def test_messages_in_messages() -> None:
    order = message_class(NESTED, "shop.Order")
    batch = decode(NESTED, ParseDict(FULL, order()), order())
    full, empty = batch.to_pylist()
    nothing = {"sku": "", "quantity": 0, "price": None, "notes": []}
    assert json.loads(full.pop("extra")) == FULL["extra"]
    assert full == {
        "id": 5,
        "best": {"sku": "b", "quantity": 2, "price": 1.5, "notes": []},
        "lines": [nothing | {"sku": "x", "notes": ["n", "m"]}, nothing | {"quantity": 3}],
        "by_name": [("k", nothing | {"sku": "y"})],
        "status": "PAID",
        "before": "UNKNOWN",
        "all": ["SENT", "PAID", "SENT"],
        "card": None,
        "voucher": 7,
        "gift": None,
        "at": datetime(2026, 1, 2, 3, 4, 5, 123456, UTC),
        "comment": "",
        "times": [(4, datetime(1969, 12, 31, 23, 59, 59, 500000, UTC))],
    }
    assert empty == dict.fromkeys(full | {"extra": None}) | {
        "id": 0,
        "lines": [],
        "by_name": [],
        "status": "UNKNOWN",
        "all": [],
        "times": [],
    }
    # What the columns are can be written as Avro, and so into every file.
    text = arrow_to_avro_schema(batch.schema)
    assert len(AvroEncoder(text).encode(batch)) == 2


def test_numbers_that_an_enum_has_no_name_for() -> None:
    order = message_class(NESTED)
    batch = decode(NESTED, order(status=2, all=[9, 1]), order(status=-7, before=4))
    assert batch.column("status").to_pylist() == ["SENT", "-7"]
    assert batch.column("all").to_pylist() == [["9", "PAID"], []]
    assert batch.column("before").to_pylist() == [None, "4"]


def test_proto2() -> None:
    text = """
    syntax = "proto2";
    message R {
      required int32 id = 1;
      optional string name = 2 [default = "nobody"];
      optional group Part = 3 { optional int32 x = 4; }
      repeated int32 packed = 5 [packed = true];
    }
    """
    message = message_class(text)
    one = message(id=1, packed=[1, 2])
    one.part.x = 5
    assert decode(text, one, message(id=2, name="n")).to_pylist() == [
        {"id": 1, "name": None, "part": {"x": 5}, "packed": [1, 2]},
        {"id": 2, "name": "n", "part": None, "packed": []},
    ]
    lacking = message(name="n").SerializePartialToString()
    no_text = b"\x08\1\x12\2\xff\xff"
    decoded = ProtobufDecoder(reader_schema=text, framing="none").decode(
        pa.array([one.SerializeToString(), lacking, b"\x08", no_text, None, one.SerializeToString()])
    )
    assert rows_of(decoded) == [0, 5]
    assert [error.row for error in decoded.errors] == [1, 2, 3]
    assert "required fields are not set: id" in decoded.errors[0].reason
    assert "it is no R" in decoded.errors[1].reason
    assert "was not a utf8 string" in decoded.errors[2].reason


TREE = 'syntax = "proto3"; message Tree { int32 n = 1; repeated Tree kids = 2; Tree other = 3; }'


def test_messages_that_hold_themselves() -> None:
    with pytest.raises(UnsupportedSchemaError, match=r"kids\[\] is a Tree within a Tree"):
        protobuf_to_arrow_schema(parse("PROTOBUF", TREE))
    tree = message_class(TREE)
    one = tree(n=1, kids=[tree(n=2), tree()], other=tree(n=3))
    row = decode(TREE, one, tree(), on_recursion="binary").to_pylist()[0]
    assert [tree.FromString(kid).n for kid in row["kids"]] == [2, 0]
    assert tree.FromString(row["other"]).n == 3
    columns = pa.schema([("n", pa.int64()), ("other", pa.struct([("n", pa.int32())]))])
    assert decode(TREE, one, columns=columns).to_pylist() == [{"n": 1, "other": {"n": 3}}]


def test_columns_that_are_asked_for() -> None:
    order = message_class(NESTED)
    line = pa.struct([("price", pa.float32()), ("missing", pa.string()), ("quantity", pa.int64())])
    columns = pa.schema(
        [
            ("added", pa.list_(pa.int32())),
            ("at", pa.timestamp("ms", "UTC")),
            ("lines", pa.list_(line)),
            ("best", pa.string()),
            ("gift", pa.binary()),
            ("status", pa.int32()),
            ("before", pa.string()),
            ("comment", pa.large_string()),
            ("by_name", pa.map_(pa.string(), line)),
            ("times", pa.map_(pa.int64(), pa.timestamp("s", "UTC"))),
        ]
    )
    batch = decode(NESTED, ParseDict(FULL, order()), order(), columns=columns)
    full, empty = batch.to_pylist()
    assert json.loads(full.pop("best")) == FULL["best"]
    assert full == {
        "added": None,
        "at": datetime(2026, 1, 2, 3, 4, 5, 123000, UTC),
        "lines": [
            {"price": None, "missing": None, "quantity": 0},
            {"price": None, "missing": None, "quantity": 3},
        ],
        "gift": None,
        "status": 1,
        "before": "UNKNOWN",
        "comment": "",
        "by_name": [("k", {"price": None, "missing": None, "quantity": 0})],
        "times": [(4, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC))],
    }
    assert empty["status"] == 0
    for name, type_ in (
        ("id", pa.list_(pa.int64())),
        ("lines", pa.int64()),
        ("by_name", pa.int64()),
        ("best", pa.int8()),
    ):
        with pytest.raises(UnsupportedSchemaError, match=name):
            ProtobufDecoder(reader_schema=NESTED, framing="none", columns=pa.schema([(name, type_)]))


def test_a_value_that_does_not_fit_is_reported_alone() -> None:
    text = """
    syntax = "proto3";
    import "google/protobuf/timestamp.proto";
    message R { uint64 n = 1; google.protobuf.Timestamp at = 2; }
    """
    message = message_class(text)
    values = [message(n=number).SerializeToString() for number in (1, 2**63, 3)]
    far = message(n=4)
    far.at.seconds = 2**62
    values.append(far.SerializeToString())
    decoder = ProtobufDecoder(
        reader_schema=text, framing="none", columns=pa.schema([("n", pa.int64()), ("at", pa.timestamp("us"))])
    )
    decoded = decoder.decode(pa.array(values * 3))
    assert decoded.batch.column("n").to_pylist() == [1, 3] * 3
    assert [error.row for error in decoded.errors] == [1, 3, 5, 7, 9, 11]
    assert "not in range" in decoded.errors[0].reason
    assert "overflow" in decoded.errors[1].reason


def test_values_of_a_registry() -> None:
    later = NESTED.replace("int64 id = 1;", "int64 id = 1; string added = 20;")
    asked = []

    class Registry:
        def schema(self, schema_id: int) -> ParsedSchema:
            asked.append(schema_id)
            if schema_id in (1, 2):
                return parse("PROTOBUF", (NESTED, later)[schema_id - 1])
            if schema_id == 3:
                return parse("AVRO", '"int"')
            raise RegistryError(40403, 404, "Schema not found")

    first, second = message_class(NESTED), message_class(later)
    other = message_class(NESTED, "shop.Other")
    values = [
        prefix(1, [0]) + first(id=1).SerializeToString(),
        prefix(2, [0]) + second(id=2, added="a").SerializeToString(),
        prefix(1, [1]) + other(name="o").SerializeToString(),
        None,
        prefix(9, [0]) + b"",
        b"",
        b"\1",
        prefix(1, [5]),
        prefix(3, [0]),
        prefix(1)[:4],
        prefix(1, [0]) + b"\xff",
        prefix(1, [0, 0]) + first.Line(sku="s").SerializeToString(),
        prefix(2, [0]) + second(id=3).SerializeToString(),
    ]
    reasons = {
        2: "it is a shop.Other, not a shop.Order",
        4: "Schema not found",
        5: "there are no bytes",
        6: "too few for the GUID",
        7: "there is no message at [5]",
        8: "a Protobuf schema is needed",
        9: "too few for the id",
        10: "it is no shop.Order",
        11: "it is a shop.Order.Line",
    }
    for decoder in (ProtobufDecoder(Registry()), ProtobufDecoder(Registry(), NESTED)):
        decoded = decoder.decode(pa.array(values, pa.binary()))
        assert decoded.batch.column("id").to_pylist() == [1, 2, 3]
        assert rows_of(decoded) == [0, 1, 12]
        assert [error.row for error in decoded.errors] == list(reasons)
        for error in decoded.errors:
            assert reasons[error.row] in error.reason
        assert [error.schema_id for error in decoded.errors][:2] == [1, 9]
        assert "added" not in decoded.batch.schema.names
        count = len(asked)
        decoder.decode(pa.array(values, pa.binary_view()))
        assert len(asked) == count

    # Columns by their names: each value as its own writer's message.
    columns = pa.schema([("added", pa.string()), ("id", pa.int64()), ("name", pa.string())])
    decoded = ProtobufDecoder(Registry(), columns=columns).decode(
        pa.chunked_array([values[:2], values[2:4], values[12:]])
    )
    assert decoded.batch.to_pylist() == [
        {"added": None, "id": 1, "name": None},
        {"added": "a", "id": 2, "name": None},
        {"added": None, "id": None, "name": "o"},
        {"added": "", "id": 3, "name": None},
    ]
    assert rows_of(decoded) == [0, 1, 2, 4]
    # Without a registry the reader's schema is believed.
    assert ProtobufDecoder(None, NESTED).decode(pa.array(values[:2])).batch.column("id").to_pylist() == [1, 2]


def test_an_outage_of_the_registry_is_nobodys_bad_value() -> None:
    def unavailable(schema_id: int) -> str:
        raise RegistryError(50001, 503, "no leader")

    with pytest.raises(RegistryError, match="no leader"):
        ProtobufDecoder(unavailable).decode(pa.array([prefix(1, [0])]))


def test_what_a_decoder_needs() -> None:
    with pytest.raises(ValueError, match="bare messages need the schema"):
        ProtobufDecoder(framing="none")
    with pytest.raises(ValueError, match="must be given, or looked up"):
        ProtobufDecoder()
    with pytest.raises(UnsupportedSchemaError, match=r"no message 'shop\.None'"):
        ProtobufDecoder(reader_schema=NESTED, message="shop.None")
    line = ProtobufDecoder(reader_schema=NESTED, message="shop.Order.Line").schema
    assert line is not None
    assert line.names[0] == "sku"
    assert ProtobufDecoder({1: NESTED}).schema is None


def test_more_rows_than_are_read_at_once() -> None:
    order = message_class(NESTED)
    values = [order(id=number, status=number % 4).SerializeToString() for number in range(25_000)]
    values[11_111] = b"\xff"
    decoded = ProtobufDecoder(reader_schema=NESTED, framing="none").decode(pa.array(values))
    assert decoded.batch.num_rows == 24_999
    assert [error.row for error in decoded.errors] == [11_111]
    assert decoded.batch.column("id").to_pylist() == rows_of(decoded)
    assert set(decoded.batch.column("status").to_pylist()) == {"UNKNOWN", "PAID", "SENT", "3"}
    assert MessageToDict(order.FromString(values[5])) == {"id": "5", "status": "PAID"}


def test_what_a_registry_does_not_know_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("millstream.schemas.protobuf.decoder.time.monotonic", lambda: now)
    known: dict[int, str] = {}
    asked: list[int] = []

    def find(schema_id: int) -> str:
        asked.append(schema_id)
        return known[schema_id]

    decoder = ProtobufDecoder(find)
    values = pa.array([prefix(1, [0]), prefix(1, [0])])
    for _ in range(3):
        assert [error.reason for error in decoder.decode(values).errors] == ["schema 1 is not known"] * 2
    assert asked == [1]
    known[1] = NESTED
    now += UNKNOWN_KEPT_S
    assert decoder.decode(values).batch.num_rows == 2
    assert asked == [1, 1]
    # A mapping is looked into each time.
    schemas: dict[int, str] = {}
    decoder = ProtobufDecoder(schemas)
    assert len(decoder.decode(values).errors) == 2
    schemas[1] = NESTED
    assert decoder.decode(values).batch.num_rows == 2


def test_a_call_looks_up_few_ids_without_a_schema() -> None:
    asked = []

    def find(schema_id: int) -> str:
        asked.append(schema_id)
        raise KeyError(schema_id)

    values = pa.array([prefix(number, [0]) for number in range(FAILED_LOOKUPS_MAX + 1)])
    with pytest.raises(TooManyUnknownIdsError, match="decode fewer values at once"):
        ProtobufDecoder(find).decode(values)
    assert len(asked) == FAILED_LOOKUPS_MAX


def test_large_values_are_messages_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    other = message_class(NESTED, "shop.Other")
    values = pa.array([other(name="x" * 1_000).SerializeToString()] * 50 + [b"\xff"])
    monkeypatch.setattr(decoder_module, "_SLICE_BYTES", 3_500)
    decoded = ProtobufDecoder(reader_schema=NESTED, message="shop.Other", framing="none").decode(values)
    assert decoded.batch.column(0).to_pylist() == ["x" * 1_000] * 50
    assert [error.row for error in decoded.errors] == [50]
    monkeypatch.setattr(decoder_module, "_SLICE_BYTES", 10)
    assert ProtobufDecoder(reader_schema=NESTED, message="Other", framing="none").decode(values).batch.num_rows == 50
