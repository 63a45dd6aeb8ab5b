"""AvroDecoder under schema resolution against Avro's own Java: equal values, and equal refusals.

Both read the same datums by the same pair of schemas. What Java read it writes again by the reader's schema; that must
decode to the row that we made. Where Java is not held to:

- It takes bytes that are no UTF-8 for text, putting other characters in.
- It reads a record as one of another name, which the specification and Java's own check of compatibility refuse.
- Without conversions it has of logical types the number, text or bytes. They are left out where datums are made at
  random or damaged: a decimal may have too many digits then, a date lie beyond what Python can say.
- Of damaged datums it looks at less: at no boolean's byte, at no block's size.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from tests.support import avro_evolution
from tests.support.avro_java import AvroJarsMissingError, AvroTool, avro_jars
from tests.support.avro_schemas import readers, record_schemas, schemas, values, written

from millstream.schemas.avro import AvroDecoder, UnsupportedSchemaError
from millstream.schemas.parsing import InvalidSchemaError

pytestmark = [pytest.mark.java, pytest.mark.slow]

EXAMPLES = 5_000 if os.environ.get("MILLSTREAM_SOAK") == "1" else 250
SETTINGS = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AvroTool]:
    try:
        jars = avro_jars()
    except AvroJarsMissingError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    with AvroTool(jars, tmp_path_factory.mktemp("classes")) as tool:
        yield tool


TAKEN_BY_JAVA = ("not UTF-8", "nor an alias of it")


def decode(datums: list[bytes], reader: str, writer: str) -> tuple[dict[int, str], dict[int, str]]:
    """Return rows, as text, and reasons, both by the datum they are of."""
    decoder = AvroDecoder(reader_schema=reader, writer_schema=writer, framing="none")
    decoded = decoder.decode(pa.array(datums, pa.binary()))
    decoded.batch.validate(full=True)
    rows = decoded.rows.to_pylist() if decoded.rows is not None else range(len(datums))
    pairs = (
        zip(rows, decoded.batch.to_pylist(), strict=True) if decoded.batch.num_columns else ((row, {}) for row in rows)
    )
    found = {row: repr(without_order(decoded.batch.schema, value)) for row, value in pairs}
    return found, {error.row: error.reason for error in decoded.errors}


def without_order(type_: Any, value: Any) -> Any:
    """Return a value whose maps are sorted: Java's have no order."""
    if value is None:
        return None
    if isinstance(type_, pa.Schema) or pa.types.is_struct(type_):
        return {field.name: without_order(field.type, value[field.name]) for field in type_}
    if pa.types.is_map(type_):
        return sorted((key, without_order(type_.item_type, item)) for key, item in dict(value).items())
    if pa.types.is_list(type_):
        return [without_order(type_.value_type, item) for item in value]
    return value


def assert_alike(java: AvroTool, reader: str, writer: str, datums: list[bytes], seen: Counter[str]) -> None:
    expected = java.read(reader, writer, datums)
    # Where an alias names a field that is there itself, Java fails however the datum is.
    assume(expected is not None and java.pair(reader, writer) is not None)
    assert expected is not None
    try:
        rows, reasons = decode(datums, reader, writer)
    except (InvalidSchemaError, UnsupportedSchemaError):
        seen["unsupported"] += 1
        return
    for row, result in enumerate(expected):
        if isinstance(result, str):
            assert row in reasons, (result, rows[row], reader, writer)
            seen["refused"] += 1
        elif row in reasons:
            assert any(one in reasons[row] for one in TAKEN_BY_JAVA), (reasons[row], result, reader, writer)
            seen["taken by Java"] += 1
        else:
            again, none = decode([result], reader, reader)
            assert not none, (none, result)
            assert rows[row] == again[0]
            seen["read"] += 1


def test_datums_that_fastavro_wrote(java: AvroTool) -> None:
    seen: Counter[str] = Counter()

    @seed(6601)
    @SETTINGS
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        writer = data.draw(record_schemas() | schemas())
        reader = data.draw(readers(writer))
        datums = []
        for value in data.draw(st.lists(values(writer), min_size=1, max_size=4)):
            try:
                datums.append(written(writer, value))
            except ValueError:
                continue
        assert_alike(java, json.dumps(reader), json.dumps(writer), datums, seen)

    check()
    assert seen["read"] > EXAMPLES // 3, seen
    assert seen["refused"] > EXAMPLES // 20, seen


def test_datums_that_java_made(java: AvroTool) -> None:
    seen: Counter[str] = Counter()

    @seed(6602)
    @SETTINGS
    @given(pair=avro_evolution.pairs(), number=st.integers(0, 2**32))
    def check(pair: tuple[Any, Any], number: int) -> None:
        reader, writer = (json.dumps(plain(schema)) for schema in pair)
        datums = java.make(writer, 4, number)
        assume(datums is not None)
        assert datums is not None
        assert_alike(java, reader, writer, datums, seen)

    check()
    assert seen["read"] > EXAMPLES // 3, seen
    assert seen["refused"] > EXAMPLES // 20, seen


def test_damaged_datums_that_are_read(java: AvroTool) -> None:
    seen: Counter[str] = Counter()

    @seed(6603)
    @SETTINGS
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        writer = plain(data.draw(record_schemas()))
        reader = plain(data.draw(readers(writer)))
        datums = []
        for value in data.draw(st.lists(values(writer), min_size=1, max_size=4)):
            try:
                datum = bytearray(written(writer, value))
            except ValueError:
                continue
            at = data.draw(st.integers(0, len(datum)))
            datum[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
            datums.append(bytes(datum))
        expected = java.read(json.dumps(reader), json.dumps(writer), datums)
        assert expected is not None
        rows, _ = decode(datums, json.dumps(reader), json.dumps(writer))
        for row, found in rows.items():
            result = expected[row]
            assert isinstance(result, bytes), (result, found)
            assert decode([result], json.dumps(reader), json.dumps(reader))[0] == {0: found}
            seen["read"] += 1

    check()
    assert seen["read"] > EXAMPLES // 5, seen


def plain(schema: Any) -> Any:
    """Return a schema without logical types."""
    if isinstance(schema, list):
        return [plain(branch) for branch in schema]
    if isinstance(schema, dict):
        return {
            key: plain(value) if key in {"type", "items", "values", "fields"} else value
            for key, value in schema.items()
            if key != "logicalType"
        }
    return schema
