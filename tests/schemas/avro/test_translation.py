"""Arrow schemas to Avro ones and back: what is encoded by the made schema decodes to the same table."""

from __future__ import annotations

import pyarrow as pa
import pytest

from millstream.schemas.avro import (
    AvroDecoder,
    AvroEncoder,
    UnsupportedSchemaError,
    arrow_to_avro_schema,
    avro_to_arrow_schema,
)

TYPES = {
    "flag": pa.bool_(),
    "small": pa.int32(),
    "large": pa.int64(),
    "single": pa.float32(),
    "real": pa.float64(),
    "text": pa.string(),
    "raw": pa.binary(),
    "fixed": pa.binary(3),
    "uuid": pa.uuid(),
    "day": pa.date32(),
    "millis": pa.time32("ms"),
    "micros": pa.time64("us"),
    "at": pa.timestamp("ns", "UTC"),
    "local": pa.timestamp("us"),
    "money": pa.decimal128(12, 2),
    "many": pa.list_(pa.string()),
    "by_name": pa.map_(pa.string(), pa.int64()),
    "inner": pa.struct([("x", pa.int32()), ("y", pa.list_(pa.struct([("z", pa.string())])))]),
}


def test_there_and_back() -> None:
    schema = pa.schema(list(TYPES.items()))
    text = arrow_to_avro_schema(schema, "Row")
    assert avro_to_arrow_schema(text).names == schema.names
    rows = [dict.fromkeys(TYPES), {"small": 5, "many": ["a", None], "inner": {"x": 1, "y": [{"z": "q"}]}}]
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)

    decoded = AvroDecoder(reader_schema=text, framing="none").decode(AvroEncoder(text).encode(batch))

    assert not decoded.errors
    assert decoded.batch.to_pylist() == batch.to_pylist()
    for field in decoded.batch.schema:
        assert field.type.id == TYPES[field.name].id, field


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (pa.field("a b", pa.int32()), "no Avro name"),
        (pa.field("span", pa.duration("s")), "Avro has no type for it"),
        (pa.field("money", pa.decimal128(5, -2)), "no negative scale"),
        (pa.field("u", pa.dense_union([pa.field("x", pa.int32())])), "Avro has no type for it"),
    ],
)
def test_what_avro_has_nothing_for(field: pa.Field, reason: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=reason):
        arrow_to_avro_schema(pa.schema([field]))


def test_types_whose_paths_are_alike() -> None:
    inner = pa.struct([("x", pa.int32())])
    nested = pa.struct([("b", pa.struct([("y", pa.string())])), ("b_2", pa.binary(2))])
    schema = pa.schema([("a_b", inner), ("a", nested), ("a_b_2", pa.struct([("z", pa.binary(3))]))])
    row = {"a_b": {"x": 1}, "a": {"b": {"y": "q"}, "b_2": b"ab"}, "a_b_2": {"z": b"abc"}}
    batch = pa.RecordBatch.from_pylist([row], schema=schema)
    text = arrow_to_avro_schema(schema)
    decoded = AvroDecoder(reader_schema=text, framing="none").decode(AvroEncoder(text).encode(batch)).batch
    assert decoded.to_pylist() == [row]


def test_types_that_wrap_others() -> None:
    ends = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None]))
    columns = {
        "ends": ends,
        "views": pa.array([[1], [], [2, 3]], pa.list_view(pa.int64())),
        "fixed": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2)),
        "json": pa.array(["1", "{}", "[]"]).cast(pa.json_()),
        "words": pa.array(["x", "y", "x"]).dictionary_encode(),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    text = arrow_to_avro_schema(batch.schema)
    decoded = AvroDecoder(reader_schema=text, framing="none").decode(AvroEncoder(text).encode(batch)).batch
    assert decoded.to_pydict() == {name: column.to_pylist() for name, column in columns.items()}
