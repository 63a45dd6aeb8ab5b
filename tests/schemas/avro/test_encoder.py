"""AvroEncoder on tables that fit a schema in an unusual way, or not at all: an error then, never other values."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from millstream.schemas.avro import AvroEncoder, EncodeError

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
