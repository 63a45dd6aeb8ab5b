"""Headers against kio's, in every version of every API, and what is particular about them."""

from __future__ import annotations

import io

import pytest
from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer
from kio.static.primitive import i16, i32

from millstream.core.wire import (
    APIS,
    Api,
    ApiKey,
    RequestHeader,
    WireError,
    encode_request,
    encode_request_header,
    encode_response_header,
    parse_request_header,
    parse_response_header,
)
from millstream.core.wire.messages.metadata import MetadataRequest


@pytest.mark.parametrize("client_id", ["a client", "", None, "ü" * 100])
@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_request_headers_are_those_of_kio(api: Api, client_id: str | None) -> None:
    for version in api.versions:
        ours = encode_request_header(api.key, version, 77, client_id)
        schema = load_request_schema(api.key, version).__header_schema__
        theirs = schema(
            request_api_key=i16(api.key), request_api_version=i16(version), correlation_id=i32(77), client_id=client_id
        )
        out = io.BytesIO()
        entity_writer(schema)(out, theirs)

        assert out.getvalue() == ours
        assert entity_reader(schema)(ours, 0) == (theirs, len(ours))
        for frame in (b"...." + ours + b"body", bytearray(b"...." + ours + b"body")):
            assert parse_request_header(frame, 4) == (RequestHeader(api.key, version, 77, client_id), 4 + len(ours))


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_response_headers_are_those_of_kio(api: Api) -> None:
    for version in api.versions:
        ours = encode_response_header(api.key, version, 77)
        schema = load_response_schema(api.key, version).__header_schema__
        out = io.BytesIO()
        entity_writer(schema)(out, schema(correlation_id=i32(77)))

        assert out.getvalue() == ours
        assert parse_response_header(api.key, version, b"...." + ours + b"body", 4) == (77, 4 + len(ours))


def test_the_response_to_api_versions_never_has_a_flexible_header() -> None:
    assert [len(encode_response_header(ApiKey.API_VERSIONS, version, 1)) for version in range(5)] == [4] * 5


def test_unknown_tagged_fields_in_headers_are_skipped() -> None:
    tags = b"\x02\x07\x03abc\x63\x00"
    request = encode_request_header(ApiKey.METADATA, 9, 5, "c")
    assert parse_request_header(request[:-1] + tags) == (RequestHeader(3, 9, 5, "c"), len(request) - 1 + len(tags))
    response = encode_response_header(ApiKey.METADATA, 9, 5)
    assert parse_response_header(ApiKey.METADATA, 9, response[:-1] + tags) == (5, 4 + len(tags))


def test_the_header_of_an_unknown_api_or_version_can_be_read() -> None:
    data = b"\x03\xe7\x00\x07\x00\x00\x00\x2a\x00\x01c"
    assert parse_request_header(data) == (RequestHeader(999, 7, 42, "c"), len(data))
    data = b"\x00\x12\x00\x63\x00\x00\x00\x2a\xff\xff\x00"
    assert parse_request_header(data) == (RequestHeader(18, 99, 42, None), len(data))


def test_a_request_is_its_header_and_its_body() -> None:
    request = encode_request(MetadataRequest(topics=None), 9, 5, "c")
    assert request == encode_request_header(ApiKey.METADATA, 9, 5, "c") + b"\0\1\0\0\0"


def test_cut_headers() -> None:
    request = encode_request_header(ApiKey.METADATA, 9, 5, "client")
    response = encode_response_header(ApiKey.METADATA, 9, 5)
    for size in range(len(request)):
        with pytest.raises(WireError):
            parse_request_header(request[:size])
    for size in range(len(response)):
        with pytest.raises(WireError):
            parse_response_header(ApiKey.METADATA, 9, response[:size])
    with pytest.raises(WireError, match="at byte 10: a length of -2 bytes"):
        parse_request_header(request[:8] + b"\xff\xfe")
