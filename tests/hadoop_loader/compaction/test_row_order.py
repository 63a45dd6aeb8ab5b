"""Orders of rows against Arrow's own, on types that Parquet files have."""

from __future__ import annotations

import math
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from millstream.hadoop_loader.compaction.row_order import sorted_rows

# Makes rows wide enough for the radix sort.
WIDE = pa.binary(40)


@pytest.mark.parametrize(
    "type_",
    [
        pa.int8(),
        pa.uint32(),
        pa.uint64(),
        pa.float32(),
        pa.float64(),
        pa.date32(),
        pa.date64(),
        pa.time32("s"),
        pa.timestamp("us", tz="UTC"),
        pa.duration("ms"),
        pa.bool_(),
        pa.string(),
        pa.decimal128(30, 2),
        pa.dictionary(pa.int8(), pa.string()),
    ],
    ids=str,
)
@pytest.mark.parametrize("direction", ["ascending", "descending"])
def test_the_order_is_that_of_arrow(type_: pa.DataType, direction: Literal["ascending", "descending"]) -> None:
    least = -50 if pa.types.is_signed_integer(type_) else 0
    numbers: list[int | None] = [0 if number % 11 == 0 else least + number * 37 % 101 for number in range(300)]
    numbers[7::13] = [None] * len(numbers[7::13])
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    if pa.types.is_floating(type_):
        special = [math.nan, -0.0, 0.0, -math.inf, math.inf, -1.5]
        doubles = [None if one is None else special[one % 6] if one < 30 else -one / 7 for one in numbers]
        values = pa.array(doubles, type_)
    elif pa.types.is_date64(type_):
        values = pa.array(numbers, pa.int32()).cast(pa.date32()).cast(type_)
    elif pa.types.is_integer(type_) or pa.types.is_string(plain) or pa.types.is_decimal(type_):
        values = pa.array(numbers, pa.int8()).cast(pa.int64()).cast(type_ if plain is type_ else plain)
    elif pa.types.is_boolean(type_):
        values = pa.array([None if one is None else one > 50 for one in numbers])
    else:
        values = pa.array(numbers, pa.int32() if type_.bit_width == 32 else pa.int64()).cast(type_)
    if plain is not type_:
        values = values.dictionary_encode().cast(type_)
    whole = pa.concat_arrays([values.slice(0, 5), values])
    chunks = pa.chunked_array([whole.slice(5, 90), whole.slice(95, 1), whole.slice(96)])
    wide = pa.array([b"%40d" % number for number in range(300)], WIDE)
    table = pa.table({"key": chunks, "wide": wide})
    order = sorted_rows(table, [("key", direction)])

    expected = pc.sort_indices(pa.table({"key": chunks.cast(plain)}), sort_keys=[("key", direction)])
    assert order.to_pylist() == expected.to_pylist()


def test_narrow_rows_and_several_keys_are_sorted_too() -> None:
    table = pa.table({"key": [3, 1, None, 1], "second": [1.0, 2.0, 3.0, math.nan]})
    assert sorted_rows(table.select(["key"]), [("key", "descending")]).to_pylist() == [0, 1, 3, 2]
    assert sorted_rows(table, [("key", "ascending"), ("second", "descending")]).to_pylist() == [1, 3, 0, 2]
