"""AvroEncoder on tables that fit a schema in an unusual way, or not at all: an error then, never other values."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from millstream.schemas.avro import AvroDecoder, AvroEncoder, EncodeError, UnsupportedSchemaError

DURATION = {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
PARTS = ("months", "days", "milliseconds")


def encode(type_: Any, column: pa.Array, **field: Any) -> list[bytes]:
    """Return the datums of records with one field."""
    text = json.dumps({"type": "record", "name": "R", "fields": [{"name": "f", "type": type_, **field}]})
    encoded = AvroEncoder(text).encode(pa.table({"f": column}))
    encoded.validate(full=True)
    datums: list[bytes] = encoded.to_pylist()
    return datums


def durations(names: tuple[str, ...], number: int | None = 1, mask: pa.Array | None = None) -> pa.StructArray:
    parts = [pa.array([number, 2], pa.uint32()) for _ in names]
    return pa.StructArray.from_arrays(parts, list(names), mask=mask)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "no column is named f.months"),
        (("months", "days"), "no column is named f.milliseconds"),
        ((*PARTS, "days"), r"2 columns are named f\.days"),
    ],
)
def test_a_duration_has_each_part_once(names: tuple[str, ...], reason: str) -> None:
    column = durations(names) if names else pa.array([{}, {}], pa.struct([]))
    with pytest.raises(EncodeError, match=reason):
        encode(DURATION, column)


def test_a_duration_has_no_null_part() -> None:
    assert encode(DURATION, durations(PARTS))[0] == b"\1\0\0\0" * 3
    with pytest.raises(EncodeError, match=r"f\.months of row 0 is null"):
        encode(DURATION, durations(PARTS, None))
    nullable = durations(PARTS, None, pa.array([True, False]))
    assert encode(["null", DURATION], nullable) == [b"\0", b"\2" + b"\2\0\0\0" * 3]


def test_a_column_without_values_is_not_read() -> None:
    text = json.dumps({"type": "record", "name": "R", "fields": [{"name": "f", "type": "long"}]})
    encoder = AvroEncoder(text)
    column = pa.array([1], pa.int64())
    encoder.encode(pa.table({"f": column}))
    (program,) = encoder._programs.values()
    program.reads[7] = "g"  # a field that the kernel's table never has anything in
    with pytest.raises(EncodeError, match="g has no values to write"):
        encoder.encode(pa.table({"f": column}))


@pytest.mark.parametrize(("type_", "values"), [("string", ["A", None]), ("long", [7, None]), (ENUM, ["A", None])])
def test_nulls_that_only_a_dictionary_has(type_: Any, values: list[Any]) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(values))
    with pytest.raises(EncodeError, match="f of row 1 is null"):
        encode(type_, column)
    assert encode(["null", type_], column) == encode(["null", type_], pa.array(values))


def test_columns_of_one_name() -> None:
    text = json.dumps({"type": "record", "name": "R", "fields": [{"name": "f", "type": "long", "default": 5}]})
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["f", "f"])
    with pytest.raises(EncodeError, match="2 columns are named f"):
        AvroEncoder(text).encode(table)
    # Columns that the schema does not have may be named as they like.
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["x", "f", "x"])
    assert AvroEncoder(text).encode(table).to_pylist() == [b"\4"]


def test_a_union_has_no_field_without_a_branch() -> None:
    column = pa.array([{"integer": 1}, {"integer": 2}], pa.struct([("integer", pa.int32())]))
    with pytest.raises(EncodeError, match="f has the field integer, and the union has no such branch"):
        encode(["null", "int", "string"], column, default=None)


@pytest.mark.parametrize(
    "column", [pa.array([1e300, None]), pa.array([-1e39]), pa.array([Decimal(10) ** 60], pa.decimal256(61, 0))]
)
def test_floats_are_rounded_but_never_to_infinity(column: pa.Array) -> None:
    with pytest.raises(EncodeError, match="beyond the range of the schema's float"):
        encode(["null", "float"], column)
    rounded = encode("float", pa.array([0.1, float("inf"), float("nan")]))
    assert rounded == [b"\xcd\xcc\xcc\x3d", b"\0\0\x80\x7f", b"\0\0\xc0\x7f"]


def test_a_map_is_no_array() -> None:
    column = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32()))
    with pytest.raises(EncodeError, match="f is map<string, int32>, and the schema has list"):
        encode({"type": "array", "items": "int"}, column)


def test_what_no_row_has_is_not_cast() -> None:
    array = {"type": "array", "items": "int"}
    lists = pa.array([[2**40], [1], [2], [2**40]])
    assert encode(array, lists.slice(1, 2)) == [b"\2\2\0", b"\2\4\0"]
    with pytest.raises(EncodeError, match=r"f\[\] is int64, and the schema has int32"):
        encode(array, lists)

    hidden = pa.ListArray.from_arrays(pa.array([0, 1, 2]), pa.array([2**40, 1]), mask=pa.array([True, False]))
    assert encode(["null", array], hidden) == [b"\0", b"\2\2\2\0"]

    record = {"type": "record", "name": "Q", "fields": [{"name": "i", "type": "int"}]}
    structs = pa.StructArray.from_arrays([pa.array([2**40, 1])], ["i"], mask=pa.array([True, False]))
    assert encode(["null", record], structs) == [b"\0", b"\2\2"]

    maps = pa.array([[("a", 2**40)], [("a", 1)]], pa.map_(pa.string(), pa.int64()))
    assert encode({"type": "map", "values": "int"}, maps.slice(1)) == [b"\2\2a\2\0"]


def test_columns_of_run_ends() -> None:
    ends = pa.array([2, 5], pa.int32())
    column = pa.RunEndEncodedArray.from_arrays(ends, pa.array([1, None], pa.int64()))
    assert encode(["null", "long"], column) == [b"\2\2", b"\2\2", b"\0", b"\0", b"\0"]
    assert encode(["null", "long"], column.slice(1, 2)) == [b"\2\2", b"\0"]
    record = {"type": "record", "name": "Q", "fields": [{"name": "i", "type": "int"}]}
    structs = pa.RunEndEncodedArray.from_arrays(ends, pa.array([{"i": 1}, None]))
    assert encode(["null", record], structs.slice(1, 2)) == [b"\2\2", b"\0"]
    words = pa.RunEndEncodedArray.from_arrays(ends, pa.array(["B", "A"]))
    assert encode(ENUM, words) == [b"\2", b"\2", b"\0", b"\0", b"\0"]
    items = pa.RunEndEncodedArray.from_arrays(ends, pa.array([1, 7], pa.int64()))
    assert encode({"type": "array", "items": "int"}, pa.ListArray.from_arrays([1, 2, 3], items)) == [
        b"\2\2\0",
        b"\2\x0e\0",
    ]


def test_dictionaries_and_nulls_of_nested_types() -> None:
    record = {"type": "record", "name": "Q", "fields": [{"name": "i", "type": ["null", "int"]}]}
    structs = pa.DictionaryArray.from_arrays(pa.array([1, 0, None]), pa.array([{"i": 1}, {"i": None}]))
    assert encode(["null", record], structs) == [b"\2\0", b"\2\2\2", b"\0"]
    lists = pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array([[1], [2, 3]]))
    assert encode({"type": "array", "items": "int"}, lists) == [b"\4\4\6\0", b"\2\2\0"]
    for type_ in (record, {"type": "array", "items": "int"}, {"type": "map", "values": "int"}, "string"):
        assert encode(["null", type_], pa.nulls(2)) == [b"\0"] * 2
        with pytest.raises(EncodeError, match="f of row 0 is null"):
            encode(type_, pa.nulls(2))
    assert encode(["null", "int", "string"], pa.nulls(1)) == [b"\0"]


def test_a_union_has_one_value() -> None:
    type_ = pa.struct([("int", pa.int32()), ("string", pa.string())])
    column = pa.array([{"int": 1}, {"int": 2, "string": "lost"}], type_)
    for union in (["int", "string"], ["null", "int", "string"], ["int", "null", "string"]):
        with pytest.raises(EncodeError, match="f of row 1 has values of several branches"):
            encode(union, column)
        # What no row has does not count.
        assert len(encode({"type": "array", "items": union}, pa.ListArray.from_arrays([0, 1], column))) == 1


@pytest.mark.parametrize("mode", ["dense", "sparse"])
def test_unions_of_arrow(mode: str) -> None:
    codes = pa.array([0, 2, 1, 0], pa.int8())
    names = ["int", "string", "null"]
    if mode == "dense":
        offsets = pa.array([0, 0, 0, 1], pa.int32())
        column = pa.UnionArray.from_dense(codes, offsets, [pa.array([1, 2]), pa.array(["x"]), pa.nulls(1)], names)
    else:
        column = pa.UnionArray.from_sparse(codes, [pa.array([1, 9, 9, 2]), pa.array(list("aaxa")), pa.nulls(4)], names)
    union = ["string", "null", "int"]
    assert encode(union, column) == [b"\4\2", b"\2", b"\0\2x", b"\4\4"]
    assert encode(union, column.slice(2)) == [b"\0\2x", b"\4\4"]
    with pytest.raises(EncodeError, match="f of row 1 has a value that the schema has no symbol or branch for"):
        encode(["string", "int"], column)
    text = json.dumps(union)
    decoded = AvroDecoder(reader_schema=text, framing="none", on_union="dense_union").decode(pa.array([b"\4\2", b"\2"]))
    assert AvroEncoder(text).encode(decoded.batch).to_pylist() == [b"\4\2", b"\2"]


def test_columns_that_the_schema_lacks_are_not_looked_at() -> None:
    text = json.dumps({"type": "record", "name": "R", "fields": [{"name": "f", "type": "string", "default": "d"}]})
    # More than one array can hold, and none of it is ever touched.
    buffers = [None, pa.array([0, 2**30], pa.int32()).buffers()[1], pa.py_buffer(bytes(2**30))]
    large = pa.chunked_array([pa.Array.from_buffers(pa.string(), 1, buffers)] * 3)
    assert AvroEncoder(text).encode(pa.table({"other": large})).to_pylist() == [b"\2d"] * 3
    with pytest.raises(EncodeError, match="too much for one array, encode fewer at once"):
        AvroEncoder(text).encode(pa.table({"f": large}))


TREE = {
    "type": "record",
    "name": "Tree",
    "fields": [
        {"name": "n", "type": "int"},
        {"name": "kids", "type": {"type": "array", "items": "Tree"}},
        {"name": "other", "type": ["null", "Tree"]},
    ],
}


def test_a_schema_that_holds_itself() -> None:
    text = json.dumps(TREE)
    leaf = b"\2\0\0"
    datums = pa.array([b"\4\4" + leaf + b"\6\0\2" + leaf + b"\0\0", leaf, b"\4\0\2" + leaf])
    decoded = AvroDecoder(reader_schema=text, framing="none", on_recursion="binary").decode(datums)
    assert decoded.errors == []
    encoder = AvroEncoder(text, on_recursion="binary")
    assert encoder.encode(decoded.batch).equals(datums)
    assert encoder.encode(decoded.batch.slice(1)).equals(datums.slice(1))
    with pytest.raises(UnsupportedSchemaError, match="a Tree within a Tree"):
        AvroEncoder(text)
    # Whatever the column says, a datum is written.
    table = pa.table({"n": pa.array([1], pa.int32()), "kids": [[leaf, leaf + b"\0"]]})
    with pytest.raises(EncodeError, match=r"kids\[\] holds no datum of Tree: bytes are left behind the datum"):
        encoder.encode(table)
    # What no row has is not looked at.
    hidden = pa.table({"n": pa.array([1, 2], pa.int32()), "kids": [[b"?"], [leaf]], "other": [None, leaf]}).slice(1)
    assert encoder.encode(hidden).to_pylist() == [b"\4\2" + leaf + b"\0\2" + leaf]
    with pytest.raises(EncodeError, match=r"kids\[\] of row 0 is null"):
        encoder.encode(pa.table({"n": pa.array([1], pa.int32()), "kids": pa.array([[None]], pa.list_(pa.binary()))}))
