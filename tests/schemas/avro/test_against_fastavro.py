"""AvroDecoder against fastavro, on schemas, values and readers' schemas that Hypothesis makes up.

Where fastavro is not held to:

- It resolves whole schemas; ours, as Java's, fails where a datum meets what cannot be resolved.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.support.avro_schemas import alike, from_arrow, read, readers, record_schemas, schemas, values, written

from millstream.schemas.avro import AvroDecoder

EXAMPLES = 2_000 if os.environ.get("MILLSTREAM_SOAK") == "1" else 80
relaxed = settings(
    deadline=None,
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


@relaxed
@given(data=st.data())
def test_values_are_read_as_they_were_written(data: st.DataObject) -> None:
    schema = data.draw(record_schemas() | schemas())
    datums = [written(schema, value) for value in data.draw(st.lists(values(schema), min_size=1, max_size=5))]

    rows, errors = decode(datums, schema)

    assert errors == []
    expected = [read(datum, schema) for datum in datums]
    assert all(map(alike, rows, expected)), (rows, expected)
    assert len(rows) == len(expected)


@relaxed
@given(data=st.data())
def test_readers_of_another_schema(data: st.DataObject) -> None:
    writer = data.draw(record_schemas())
    reader = data.draw(readers(writer))
    assume(isinstance(reader, dict))
    datums = [written(writer, value) for value in data.draw(st.lists(values(writer), min_size=1, max_size=5))]
    for datum in datums:
        try:
            expected = read(datum, writer, reader)
        except Exception as error:
            rows, errors = decode([datum], writer, reader)
            assert errors, (error, rows)
        else:
            rows, errors = decode([datum], writer, reader)
            assert not errors, (errors, expected)
            assert alike(rows[0], expected), (rows, expected)


@relaxed
@given(data=st.data())
def test_damaged_datums_are_refused_or_read_alike(data: st.DataObject) -> None:
    schema = data.draw(record_schemas())
    datum = bytearray(written(schema, data.draw(values(schema))))
    assume(datum)
    for _ in range(data.draw(st.integers(1, 3))):
        datum[data.draw(st.integers(0, len(datum) - 1))] = data.draw(st.integers(0, 255))
    del datum[data.draw(st.integers(1, len(datum))) :]

    rows, errors = decode([bytes(datum)], schema)

    try:
        expected = read(bytes(datum), schema)
    except Exception:
        assert errors
    else:
        assert errors or alike(rows[0], expected), (rows, expected)
