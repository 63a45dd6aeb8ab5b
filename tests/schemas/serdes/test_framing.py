"""Confluent's wire format, against confluent-kafka's own reading and writing of it."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka.schema_registry.serde import SchemaId as ConfluentId
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.schemas.serdes.framing import (
    Framed,
    FramingError,
    SchemaId,
    encode_indexes,
    header_value,
    prefix,
    read_indexes,
    read_prefix,
)

ids = st.one_of(st.integers(0, 2**31 - 1), st.uuids())
paths = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20).map(tuple)


@settings(deadline=None)
@given(schema_id=ids, path=st.one_of(st.none(), paths), value=st.binary(max_size=20))
def test_prefixes_are_confluents(schema_id: SchemaId, path: tuple[int, ...] | None, value: bytes) -> None:
    data = prefix(schema_id, path) + value
    kind = "AVRO" if path is None else "PROTOBUF"
    theirs = ConfluentId(kind)
    assert theirs.from_bytes(io.BytesIO(data)).read() == value
    assert (theirs.guid if isinstance(schema_id, UUID) else theirs.id) == schema_id
    written = ConfluentId(
        kind,
        None if isinstance(schema_id, UUID) else schema_id,
        str(schema_id) if isinstance(schema_id, UUID) else None,
        None if path is None else list(path),
    )
    assert prefix(schema_id, path) == (
        written.guid_to_bytes() if isinstance(schema_id, UUID) else written.id_to_bytes()
    )
    framed = read_prefix(data)
    assert framed.schema_id == schema_id
    if path is None:
        assert data[framed.start :] == value
    else:
        found, start = read_indexes(data, framed.start)
        assert (found, data[start:]) == (path, value)


@settings(deadline=None)
@given(data=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        framed = read_prefix(data)
        path, start = read_indexes(data, framed.start)
    except FramingError:
        return
    assert start <= len(data)
    assert 0 < len(path) <= 1_000


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "there are no bytes"),
        (b"\x00\x00\x00\x01", "4 bytes are too few for the id"),
        (b"\x01" + bytes(15), "16 bytes are too few for the GUID"),
        (b"hello", "the first byte is 0x68"),
    ],
)
def test_what_names_no_schema_says_why(data: bytes, complaint: str) -> None:
    with pytest.raises(FramingError, match=complaint):
        read_prefix(data)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "end before their count"),
        (b"\x04\x02", "end before their count"),
        (b"\x01", "a path of -1"),
        (b"\xff\xff\x03", "a path of -32768"),
        (b"\x80" * 11, "over 10 bytes"),
    ],
)
def test_damaged_indexes_are_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(FramingError, match=complaint):
        read_indexes(data, 0)


def test_the_commonest_path_is_one_byte() -> None:
    assert encode_indexes([0]) == b"\x00"
    assert read_indexes(b"\x00rest", 0) == ((0,), 1)
    assert read_prefix(memoryview(b"\x00\x00\x00\x00\x07x")) == Framed(7, 5)


@pytest.mark.parametrize(
    "headers",
    [
        [("other", b"x"), ("__value_schema_id", b"id")],
        [(b"__value_schema_id", memoryview(b"id"))],
        [("__value_schema_id", b"copied"), ("other", b"x"), (b"__value_schema_id", b"id")],
        {"__value_schema_id": b"id"},
        ((("__value_schema_id"), b"id"),),
    ],
)
def test_headers_of_every_client_are_read(headers: Any) -> None:
    assert header_value(headers, "value") == b"id"
    assert header_value(headers, "key") is None
    assert header_value([("__value_schema_id", None)], "value") is None
    assert header_value(None, "value") is None
