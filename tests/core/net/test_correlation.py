"""Correlator: answers in the order of their requests, and what breaks that order."""

from __future__ import annotations

import pytest

from millstream.core.net import Correlator
from millstream.core.wire import (
    ApiKey,
    Buffer,
    ErrorCode,
    WireError,
    encode,
    encode_response_header,
    parse_request_header,
)
from millstream.core.wire.messages.api_versions import ApiVersion, ApiVersionsRequest, ApiVersionsResponse
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataResponse


def answer(
    key: ApiKey, version: int, correlation_id: int, response: object, body_version: int | None = None
) -> memoryview:
    body = encode(response, version if body_version is None else body_version)
    return memoryview(encode_response_header(key, version, correlation_id) + bytes(body))


def test_answers_are_given_to_their_requests_in_order() -> None:
    correlator = Correlator("me", in_flight_max=2)
    frames = [
        b"".join(bytes(part) for part in correlator.send(MetadataRequest(), ApiKey.METADATA, version, token))
        for version, token in ((12, "first"), (1, "second"))
    ]
    assert correlator.is_full
    headers = [parse_request_header(data, 4)[0] for data in frames]
    assert [(header.api_key, header.api_version, header.client_id) for header in headers] == [
        (3, 12, "me"),
        (3, 1, "me"),
    ]
    assert [int.from_bytes(data[:4], "big") for data in frames] == [len(data) - 4 for data in frames]

    response = MetadataResponse(cluster_id=None, controller_id=7)
    got = [
        correlator.receive(answer(ApiKey.METADATA, header.api_version, header.correlation_id, response))
        for header in headers
    ]

    assert [pending.token for pending, _ in got] == ["first", "second"]
    assert [message.controller_id for _, message in got] == [7, 7]
    assert len(correlator) == 0


def test_an_answer_out_of_turn_is_refused() -> None:
    correlator = Correlator(None, in_flight_max=5)
    correlator.send(MetadataRequest(), ApiKey.METADATA, 1, None)
    with pytest.raises(WireError, match="correlation id 5 where 0"):
        correlator.receive(answer(ApiKey.METADATA, 1, 5, MetadataResponse()))


def test_an_answer_to_nothing_is_refused() -> None:
    with pytest.raises(WireError, match="no request was in flight"):
        Correlator(None, in_flight_max=5).receive(memoryview(b"\0\0\0\0"))


def test_a_request_without_an_answer_is_not_waited_for() -> None:
    correlator = Correlator(None, in_flight_max=1)
    correlator.send_unanswered(MetadataRequest(), ApiKey.METADATA, 1)
    correlator.send(MetadataRequest(), ApiKey.METADATA, 1, "asked")
    pending, _ = correlator.receive(answer(ApiKey.METADATA, 1, 1, MetadataResponse()))
    assert pending.token == "asked"


def test_an_old_broker_refuses_api_versions_in_version_0() -> None:
    """KIP-511: the body comes in version 0 whatever was asked; read as asked it would be garbage."""
    correlator = Correlator(None, in_flight_max=1)
    correlator.send(ApiVersionsRequest(), ApiKey.API_VERSIONS, 4, None)
    refusal = ApiVersionsResponse(
        error_code=ErrorCode.UNSUPPORTED_VERSION,
        api_keys=[ApiVersion(api_key=ApiKey.API_VERSIONS, min_version=0, max_version=2)],
    )
    _, got = correlator.receive(answer(ApiKey.API_VERSIONS, 4, 0, refusal, body_version=0))
    assert [(api.api_key, api.max_version) for api in got.api_keys] == [(18, 2)]


def test_abandoned_requests_are_returned_oldest_first() -> None:
    correlator = Correlator(None, in_flight_max=3)
    for token in "abc":
        correlator.send(MetadataRequest(), ApiKey.METADATA, 1, token)
    assert correlator.oldest is not None
    assert correlator.oldest.token == "a"
    assert [pending.token for pending in correlator.abandon()] == ["a", "b", "c"]
    assert len(correlator) == 0


class Marked:
    """A request that is all its own."""

    api_key = ApiKey.METADATA
    version = 1

    def frame(self, correlation_id: int, /) -> list[Buffer]:
        return [b"frame %d" % correlation_id]

    def read(self, body: memoryview, /) -> bytes:
        return bytes(body[4:])


def test_a_request_may_make_its_own_frame_and_read_its_own_answer() -> None:
    correlator = Correlator("me", in_flight_max=2)
    assert correlator.send_encoded_unanswered(Marked()) == [b"frame 0"]
    assert correlator.send_encoded(Marked(), "mine") == [b"frame 1"]
    correlator.send(MetadataRequest(), ApiKey.METADATA, 1, "a message")
    pending, read = correlator.receive(memoryview(b"\0\0\0\1content"))
    assert (pending.token, read) == ("mine", b"content")
    pending, read = correlator.receive(answer(ApiKey.METADATA, 1, 2, MetadataResponse(controller_id=7)))
    assert (pending.token, read.controller_id) == ("a message", 7)


def test_a_request_whose_answer_cannot_be_read_is_still_in_flight() -> None:
    """It fails with the connection then; forgotten before, nobody would ever tell its sender."""
    correlator = Correlator("me", in_flight_max=1)
    correlator.send(MetadataRequest(), ApiKey.METADATA, 1, "asked")
    with pytest.raises(WireError):
        correlator.receive(memoryview(b"\0\0\0\0\x7f"))
    assert [pending.token for pending in correlator.abandon()] == ["asked"]
