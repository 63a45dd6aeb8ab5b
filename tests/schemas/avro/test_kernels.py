"""The Avro kernels compiled against interpreted: the same buffers, rows and errors for whatever bytes are given."""

from __future__ import annotations

import json
import random
import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.support.avro_schemas import readers, record_schemas, values, written
from tests.support.kernels import HOWS, SCHEMA_KERNELS, load_kernel

from millstream.schemas._kernels import kernels_compiled, opcodes
from millstream.schemas.avro import AvroDecoder, AvroEncoder, EncodeError, decoder, encoder, validate_datums
from millstream.schemas.avro.program import DIGITS_CHECKED_MAX

DECODING = {how: load_kernel("avro_decoding", how, SCHEMA_KERNELS) for how in HOWS}
ENCODING = {how: load_kernel("avro_encoding", how, SCHEMA_KERNELS) for how in HOWS}
HEADER = Path(opcodes.__file__).with_name("native.h").read_text()
HEADER = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)
relaxed = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def test_kernels_are_compiled() -> None:
    assert all(kernels_compiled().values())


def test_numbers_are_those_of_the_header() -> None:
    enums = re.findall(r"^enum \{(.*?)\};", HEADER, re.DOTALL | re.MULTILINE)
    names = [[name.split("=")[0].strip() for name in one.split(",") if name.strip()] for one in enums]
    assert sum(map(len, names)) > 70
    for one in names:
        assert [getattr(opcodes, name) for name in one] == list(range(len(one)))
    for struct, prefix, count in (("Column", "FIELD_", 16), ("Source", "SOURCE_", 7)):
        body = re.search(rf"typedef struct \{{([^}}]*)\}} {struct};", HEADER)
        assert body is not None
        fields = re.findall(r"(\w+)(?:\[\d\])?;", body.group(1))[:count]
        assert [getattr(opcodes, prefix + field.upper()) for field in fields] == list(range(count))


def decoded(kernel: Any, monkeypatch: pytest.MonkeyPatch, datums: list[bytes | None], *schemas: Any) -> Any:
    """Return everything that decoding says, in few-row batches that grow as they go."""
    monkeypatch.setattr(decoder, "decode_datums", kernel.decode_datums)
    writer, reader = (json.dumps(schema) for schema in schemas)
    one = AvroDecoder(reader_schema=reader, writer_schema=writer, framing="none", on_recursion="binary")
    # Room for almost nothing, so that it has to grow.
    assert one._estimates is not None
    one._estimates.values = [0.0 for _ in one._estimates.values]
    one._estimates.bytes = [0.0 for _ in one._estimates.bytes]
    found = one.decode(pa.array(datums, pa.binary()))
    found.batch.validate(full=True)
    rows = None if found.rows is None else found.rows.to_pylist()
    return found.batch, rows, found.errors, validate_datums(writer, pa.array(datums, pa.binary()))


@relaxed
@given(data=st.data())
def test_decoding_is_the_same_interpreted(monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    writer = data.draw(record_schemas())
    reader = data.draw(st.just(writer) | readers(writer))
    assume(isinstance(reader, dict))
    datums: list[bytes | None] = []
    for value in data.draw(st.lists(st.none() | values(writer), max_size=6)):
        try:
            datums.append(None if value is None else damaged(data, written(writer, value)))
        except ValueError:
            continue

    results = [decoded(kernel, monkeypatch, datums, writer, reader) for kernel in DECODING.values()]

    for result in results[1:]:
        assert result[0].equals(results[0][0])
        assert result[1:] == results[0][1:]
    assert len(datums) == results[0][0].num_rows + len(results[0][2]) + datums.count(None) or not reader["fields"]


def damaged(data: st.DataObject, datum: bytes) -> bytes:
    """Change a few bytes of some datums."""
    content = bytearray(datum)
    if content and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=12))
    return bytes(content)


@relaxed
@given(data=st.data())
def test_encoding_is_the_same_interpreted(monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    schema = data.draw(record_schemas())
    datums = []
    for value in data.draw(st.lists(values(schema), min_size=1, max_size=6)):
        try:
            datums.append(written(schema, value))
        except ValueError:
            continue
    batch = AvroDecoder(reader_schema=json.dumps(schema), framing="none").decode(pa.array(datums, pa.binary())).batch
    results = []
    for kernel in ENCODING.values():
        monkeypatch.setattr(encoder, "encode_datums", kernel.encode_datums)
        one = AvroEncoder(json.dumps(schema), 5)
        one._bytes_per_row = 0.0
        results.append(one.encode(batch))
    assert results[0].equals(results[1])
    assert results[0].equals(results[2])
    assert [value[:5] for value in results[0].to_pylist()] == [b"\0\0\0\0\5"] * len(batch)


@pytest.mark.parametrize("how", HOWS)
def test_what_cannot_be_encoded_is_the_same_interpreted(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "encode_datums", ENCODING[how].encode_datums)
    fields = [
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"]}},
        {
            "name": "d",
            "type": {"type": "fixed", "name": "F", "size": 1, "logicalType": "decimal", "precision": 2, "scale": 0},
        },
        {"name": "u", "type": ["int", "string"]},
    ]
    schema = json.dumps({"type": "record", "name": "R", "fields": fields})
    good = {"e": "A", "d": 5, "u": {"int": 1, "string": None}}
    union = pa.struct([("int", pa.int32()), ("string", pa.string())])
    types = pa.schema([("e", pa.string()), ("d", pa.decimal128(5, 0)), ("u", union)])

    def encode(bad: dict[str, Any]) -> pa.Array:
        return AvroEncoder(schema).encode(pa.RecordBatch.from_pylist([good, good | bad], schema=types))

    assert encode({}).to_pylist() == [b"\0\5\0\2"] * 2
    with pytest.raises(EncodeError, match="e of row 1 has a value that the schema has no symbol"):
        encode({"e": "B"})
    with pytest.raises(EncodeError, match="e of row 1 is null"):
        encode({"e": None})
    with pytest.raises(EncodeError, match="u of row 1 has a value that the schema has no symbol or branch for"):
        encode({"u": {"int": None, "string": None}})
    with pytest.raises(EncodeError, match="d is decimal128"):
        encode({"d": 12345})


@pytest.mark.parametrize("precision", [1, 2, 3, 9, 18, 19, 38, 39, 76, 77, 1_000])
@pytest.mark.parametrize("how", HOWS)
def test_digits_are_counted_whatever_the_bytes(how: str, precision: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the validator, and by a decoder that would take more: as a number, or as bytes."""
    monkeypatch.setattr(decoder, "decode_datums", DECODING[how].decode_datums)
    bound = 10**precision
    width = (bound.bit_length() + 7) // 8
    edges = [0, 1, 127, 128, bound - 1, bound, bound + 1, *(2 ** (8 * width + bits) for bits in (-1, 0, 1))]
    numbers = [sign * edge for edge in edges for sign in (1, -1)]
    good = [abs(number) < bound for number in numbers]
    decimal = {"logicalType": "decimal", "precision": precision, "scale": 0}

    def check(writer: dict[str, Any], reader: dict[str, Any], datums: list[bytes]) -> None:
        texts = json.dumps({**writer, **decimal}), json.dumps({**writer, **reader})
        values = pa.array(datums, pa.binary())
        strict = AvroDecoder(None, texts[1], writer_schema=texts[0], framing="none", checks_digits=True)
        for found in (validate_datums(texts[0], values), strict.decode(values)):
            rows = range(len(datums)) if found.rows is None else found.rows.to_pylist()
            assert [row in rows for row in range(len(datums))] == good
            assert all("it has more digits than its precision" in error.reason for error in found.errors)
        assert not AvroDecoder(None, json.dumps(writer), writer_schema=texts[0], framing="none").decode(values).errors

    least = [(number if number >= 0 else ~number).bit_length() // 8 + 1 for number in numbers]
    for size in (0, 1, width + 3):
        sized = [
            number.to_bytes(max(one, size), "big", signed=True) for number, one in zip(numbers, least, strict=True)
        ]
        for reader in ({}, {**decimal, "precision": precision + 1}):
            check({"type": "bytes"}, reader, [written("bytes", one) for one in sized])
    fixed = {"type": "fixed", "name": "F", "size": max(least) + 1}
    for reader in ({}, {**decimal, "precision": precision + 1}):
        check(fixed, reader, [number.to_bytes(fixed["size"], "big", signed=True) for number in numbers])


@pytest.mark.parametrize("how", HOWS)
def test_digits_without_bound_are_not_counted(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "decode_datums", DECODING[how].decode_datums)
    for precision in (DIGITS_CHECKED_MAX + 1, 10**18):
        schema = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 0}
        assert validate_datums(json.dumps(schema), pa.array([written("bytes", b"\x7f" * 500)])).errors == []


@pytest.mark.parametrize("how", HOWS)
def test_arguments_that_would_reach_beyond_their_buffers(how: str) -> None:
    kernel = DECODING[how]

    def decode(
        positions: list[int],
        sizes: list[int],
        *,
        row: int = 0,
        stop: int = 1,
        done: int = 0,
        numbers: Sequence[int] = (),
    ) -> Any:
        return kernel.decode_datums(
            b"\0\0\0",
            array("q", positions),
            array("q", sizes),
            array("i", numbers),
            row,
            stop,
            0,
            array("i", [0]),
            array("i", [0]),
            array("i", [opcodes.OP_SKIP_RAW, -1, 0, 0, opcodes.OP_END, -1, 0, 0]),
            array("i"),
            b"",
            array("q"),
            done,
            array("q", [0]),
            array("q", [0] * 4),
            0,
        )

    assert decode([0, 3], []) == (1, 1, 0, 0)
    for positions, sizes in (([-1], [1]), ([0], [4]), ([3], [1]), ([2**62], [2**62]), ([0, 4], []), ([2, 1], [])):
        with pytest.raises(ValueError, match="does not lie within 3 bytes"):
            decode(positions, sizes)
    for row, stop, done in ((0, 2, 0), (-1, 1, 0), (1, 0, 0), (0, 1, 1), (0, 1, -1)):
        with pytest.raises(ValueError, match=r"does not lie within|do not fit"):
            decode([0, 3], [], row=row, stop=stop, done=done)
    with pytest.raises(ValueError, match="1 numbers are not enough for 2 values"):
        decode([0, 1, 3], [], stop=2, numbers=[0])


@pytest.mark.parametrize("how", HOWS)
def test_every_schema_id_has_a_program(how: str) -> None:
    program, rows = array("i", [opcodes.OP_END, -1, 0, 0]), array("q", [0])
    beside = array("i"), b"", array("q"), 0, rows, array("q", [0] * 4), 0
    arguments = b"\0\0\0\0\1", array("q", [0, 5]), array("q"), array("i"), 0, 1, 1
    assert DECODING[how].decode_datums(*arguments, array("i", [1]), array("i", [0]), program, *beside) == (1, 1, 0, 0)
    with pytest.raises(ValueError, match="0 programs are not enough for 1 schema ids"):
        DECODING[how].decode_datums(*arguments, array("i", [1]), array("i"), program, *beside)


def test_varints_of_every_length() -> None:
    chance = random.Random(3)
    numbers = [0, -1, 1, 2**63 - 1, -(2**63)]
    numbers += [sign * chance.getrandbits(bits) for bits in range(1, 63) for sign in (1, -1)]
    schema = json.dumps({"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]})
    batch = pa.RecordBatch.from_pydict({"n": pa.array(numbers, pa.int64())})

    encoded = AvroEncoder(schema).encode(batch)
    decoded = AvroDecoder(reader_schema=schema, framing="none").decode(encoded)

    assert decoded.batch.equals(batch.cast(decoded.batch.schema))
    assert encoded.to_pylist() == [written(json.loads(schema), {"n": number}) for number in numbers]
