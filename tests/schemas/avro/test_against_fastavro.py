"""AvroDecoder against fastavro, on schemas, values and readers' schemas that Hypothesis makes up.

Where fastavro is not held to:

- It resolves whole types; ours, as Java's, fails where a datum meets what cannot be resolved: an empty array of the
  wrong items can be read, and a union whose other branch is wrong.
- It does not look at an int's range, at a boolean's byte, or at what a block says about its size.
- It makes of a value what the writer's logical type says, also where the reader's has none.
- Of a reader's union of string and bytes it takes the first, not the one that was written.
- It refuses a string that is no uuid where it should be one.
- It leaves a default of bytes the text it is in the schema, and knows no uuid on a fixed.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pyarrow as pa
from fastavro._read_common import SchemaResolutionError
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from tests.support.avro_schemas import alike, from_arrow, read, readers, record_schemas, schemas, values, written

from millstream.schemas import compat
from millstream.schemas.avro import AvroDecoder, AvroEncoder, validate_datums
from millstream.schemas.parsing.avro import parse_avro

SOAK = os.environ.get("MILLSTREAM_SOAK") == "1"
EXAMPLES = 2_000 if SOAK else 80
relaxed = settings(
    deadline=None,
    derandomize=not SOAK,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def decode(data: list[bytes], writer: Any, reader: Any = None) -> tuple[list[Any], list[str]]:
    """Return the values as fastavro would have them, and the reasons of bad ones."""
    reader = writer if reader is None else reader
    decoder = AvroDecoder(reader_schema=json.dumps(reader), writer_schema=json.dumps(writer), framing="none")
    decoded = decoder.decode(pa.array(data, pa.binary()))
    decoded.batch.validate(full=True)
    if isinstance(reader, dict) and reader["type"] == "record":
        rows = decoded.batch.to_pylist() if reader["fields"] else [{}] * (len(data) - len(decoded.errors))
    else:
        rows = decoded.batch.column(0).to_pylist()
    return [from_arrow(reader, row) for row in rows], [error.reason for error in decoded.errors]


def drawn_datums(data: st.DataObject, schema: Any) -> list[bytes]:
    datums = []
    for value in data.draw(st.lists(values(schema), min_size=1, max_size=5)):
        try:
            datums.append(written(schema, value))
        except ValueError:
            # Of a union's decimals fastavro may take one that does not fit.
            reject()
    return datums


@relaxed
@given(data=st.data())
def test_values_are_read_as_they_were_written(data: st.DataObject) -> None:
    schema = data.draw(record_schemas() | schemas())
    datums = drawn_datums(data, schema)

    rows, errors = decode(datums, schema)

    assert errors == []
    expected = [read(datum, schema) for datum in datums]
    assert all(map(alike, rows, expected)), (rows, expected)
    assert len(rows) == len(expected)
    assert validate_datums(json.dumps(schema), pa.array(datums, pa.binary())) == (None, [])


@relaxed
@given(data=st.data())
def test_what_is_decoded_encodes_to_the_same(data: st.DataObject) -> None:
    schema = data.draw(record_schemas() | schemas())
    text = json.dumps(schema)
    whole = pa.array(drawn_datums(data, schema), pa.binary())
    column = AvroDecoder(reader_schema=text, framing="none").decode(whole).batch
    if isinstance(schema, dict) and schema["type"] == "record" and not schema["fields"]:
        reject()

    encoded = AvroEncoder(text).encode(column)
    again = AvroDecoder(reader_schema=text, framing="none").decode(encoded)

    encoded.validate(full=True)
    assert again.errors == []
    assert again.batch.equals(column)
    assert [read(value, schema) for value in encoded.to_pylist()] == [
        read(value, schema) for value in whole.to_pylist()
    ]
    start = data.draw(st.integers(0, len(whole)))
    assert AvroEncoder(text).encode(column.slice(start)).equals(encoded.slice(start))


@relaxed
@given(data=st.data())
def test_readers_of_another_schema(data: st.DataObject) -> None:
    writer = data.draw(record_schemas())
    reader = data.draw(readers(writer))
    assume(isinstance(reader, dict))
    for datum in drawn_datums(data, writer):
        try:
            expected = read(datum, writer, reader)
        except SchemaResolutionError:
            rows, errors = decode([datum], writer, reader)
            incompatible = compat.check(
                compat.Level.BACKWARD, parse_avro(json.dumps(reader)), [parse_avro(json.dumps(writer))]
            )
            assert incompatible
            assert errors or has_gaps(writer, read(datum, writer)), rows
        except Exception:
            assert decode([datum], writer, reader)[1]
        else:
            rows, errors = decode([datum], writer, reader)
            assert not errors, (errors, expected)
            assert alike(rows[0], expected, plain=True), (rows, expected)


def has_gaps(schema: Any, value: Any) -> bool:
    """Return whether a value leaves parts of its schema unused."""
    if isinstance(schema, list):
        return True
    if isinstance(schema, dict) and schema["type"] == "record":
        return any(has_gaps(field["type"], value[field["name"]]) for field in schema["fields"])
    if isinstance(schema, dict) and schema["type"] in {"array", "map"}:
        items = list(value.values()) if schema["type"] == "map" else value
        return not items or any(has_gaps(schema.get("items", schema.get("values")), item) for item in items)
    # Only symbols that are there need to be known.
    return isinstance(schema, dict) and schema["type"] == "enum"


@relaxed
@given(data=st.data())
def test_damaged_datums_are_refused_or_read_alike(data: st.DataObject) -> None:
    schema = data.draw(record_schemas())
    datum = bytearray(drawn_datums(data, schema)[0])
    assume(datum)
    for _ in range(data.draw(st.integers(1, 3))):
        datum[data.draw(st.integers(0, len(datum) - 1))] = data.draw(st.integers(0, 255))
    del datum[data.draw(st.integers(1, len(datum))) :]

    rows, errors = decode([bytes(datum)], schema)

    try:
        expected = read(bytes(datum), schema)
    except Exception:
        # A uuid is any string here.
        assert errors or "uuid" in json.dumps(schema)
    else:
        assert errors or alike(rows[0], expected), (rows, expected)
    seen = validate_datums(json.dumps(schema), pa.array([bytes(datum)], pa.binary()))
    # Times of day are the columns' business, and how many digits a decimal has that makes no column of numbers is not.
    beyond = bool(seen.errors) and "digits" in seen.errors[0].reason
    assert bool(seen.errors) == bool(errors) or beyond or "time is out of range" in errors[0]
