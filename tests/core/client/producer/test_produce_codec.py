"""The producer's own codec against that of `core/wire`: every version, both directions, whatever the shape."""

from __future__ import annotations

import random

import pytest

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.producer import produce_codec
from millstream.core.client.producer.batch import Batch
from millstream.core.client.producer.produce_codec import JOINED_SIZE_BYTES_MAX, ProduceCodec
from millstream.core.client.producer.requests import VERSION_MAX, outcomes, produce_request
from millstream.core.records import HEADER_SIZE
from millstream.core.wire import (
    APIS,
    ApiKey,
    ErrorCode,
    WireError,
    decode,
    encode,
    encode_request,
    encode_response_header,
)
from millstream.core.wire.messages.produce import (
    BatchIndexAndErrorMessage,
    LeaderIdAndEpoch,
    PartitionProduceResponse,
    ProduceResponse,
    TopicProduceResponse,
)

VERSIONS = [version for version in APIS[ApiKey.PRODUCE].versions if version <= VERSION_MAX]
TOPICS = ["t", "flights.of-the_day", "x" * 249, "ż" * 60]


def made_batch(topic: str, partition: int, size: int, generator: random.Random) -> Batch:
    buffer = bytearray(HEADER_SIZE) + generator.randbytes(size)
    batch = Batch(topic, partition, buffer, 0.0, 0)
    batch.size, batch.count = len(buffer), 1 + size % 7
    batch.base_timestamp = batch.max_timestamp = generator.getrandbits(40)
    batch.number(generator.getrandbits(40), 3, generator.getrandbits(20))
    return batch


@pytest.mark.parametrize("version", VERSIONS)
def test_requests_are_those_of_the_codec(version: int) -> None:
    generator = random.Random(version)
    # Sizes at which the length of the records takes a byte more, and at which they are no longer copied.
    edges = [128, 16_384, JOINED_SIZE_BYTES_MAX]
    sizes = [1, *(edge - HEADER_SIZE + more for edge in edges for more in (-1, 0, 1))]
    for client_id in (None, "", "millstream", "ü" * 50):
        for acks in (-1, 0, 1):
            codec = ProduceCodec(client_id, version, acks=acks, timeout_ms=generator.getrandbits(31))
            for size in sizes:
                correlation_id = generator.getrandbits(31)
                places = [(topic, index) for topic in TOPICS for index in (0, 1, 2**31 - 1)]
                for count in (1, 1, 3):
                    chosen = generator.sample(places, count)
                    batches = [made_batch(topic, index, size, generator) for topic, index in chosen]
                    message = produce_request(batches, acks=acks, timeout_ms=codec.timeout_ms)
                    whole = encode_request(message, version, correlation_id, client_id)
                    parts = codec.request(batches, correlation_id)
                    assert b"".join(parts) == len(whole).to_bytes(4, "big") + whole, (client_id, acks, size, chosen)


def responses(tp: TopicPartition, generator: random.Random) -> list[ProduceResponse]:
    """Answers to one batch: acknowledgements, refusals, and what hides in an acknowledgement's neighbourhood."""
    topic, index = tp
    offset = generator.getrandbits(62)

    def response(throttle_ms: int = 0, name: str = topic, **fields: object) -> ProduceResponse:
        partition = PartitionProduceResponse(index=index)
        for field, value in fields.items():
            setattr(partition, field, value)
        return ProduceResponse(
            responses=[TopicProduceResponse(name=name, partition_responses=[partition])], throttle_time_ms=throttle_ms
        )

    acknowledged = response(base_offset=offset)
    twice = response(base_offset=offset)
    twice.responses[0].partition_responses *= 2
    return [
        acknowledged,
        response(base_offset=0, log_append_time_ms=0, log_start_offset=0),
        response(base_offset=-1),
        response(base_offset=offset, log_append_time_ms=1_790_000_000_000, log_start_offset=offset // 2),
        response(base_offset=offset, throttle_ms=700),
        response(base_offset=offset, index=(index + 1) % 2**31),
        response(base_offset=offset, name=topic[:-1] + "?"),
        response(error_code=ErrorCode.NOT_LEADER_OR_FOLLOWER, base_offset=-1),
        response(
            error_code=ErrorCode.NOT_LEADER_OR_FOLLOWER, current_leader=LeaderIdAndEpoch(leader_id=4, leader_epoch=9)
        ),
        response(error_code=ErrorCode.INVALID_RECORD, error_message="no key"),
        response(
            error_code=ErrorCode.INVALID_RECORD,
            record_errors=[BatchIndexAndErrorMessage(batch_index=2, batch_index_error_message="no key")],
        ),
        response(base_offset=offset, error_message="all is well"),
        ProduceResponse(responses=[]),
        twice,
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_mean_what_the_codec_reads(version: int) -> None:
    generator = random.Random(version)
    codec = ProduceCodec("me", version, acks=-1, timeout_ms=30_000)
    for topic in TOPICS:
        for index in (0, 7, 2**31 - 1):
            tp = TopicPartition(topic, index)
            batches = [made_batch(topic, index, 10, generator)]
            for response in responses(tp, generator):
                header = encode_response_header(ApiKey.PRODUCE, version, generator.getrandbits(31))
                body = memoryview(encode(response, version, header))
                known = encode(response, version)
                expected = outcomes(_decoded(version, known))
                found, throttle_ms = codec.answer(batches, body)
                assert repr(found) == repr(expected), (tp, response)
                assert throttle_ms == response.throttle_time_ms
                with pytest.raises(WireError):
                    codec.answer(batches, body[:-1])


def _decoded(version: int, data: bytes) -> ProduceResponse:
    response, end = decode(ProduceResponse, version, data)
    assert end == len(data)
    return response


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_an_acknowledgement_makes_no_message(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = ProduceCodec("me", version, acks=-1, timeout_ms=30_000)
    tp = TopicPartition("t", 1)
    batches = [made_batch(*tp, 10, random.Random(0))]
    answer = ProduceResponse(
        responses=[
            TopicProduceResponse(name="t", partition_responses=[PartitionProduceResponse(index=1, base_offset=9)])
        ]
    )
    body = memoryview(encode(answer, version, encode_response_header(ApiKey.PRODUCE, version, 0)))
    monkeypatch.setattr(produce_codec, "decode", None)
    found, _ = codec.answer(batches, body)
    assert found[tp].base_offset == 9


def test_the_bytes_of_partitions_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce_codec, "TEMPLATES_COUNT_MAX", 3)
    codec = ProduceCodec("me", VERSIONS[-1], acks=-1, timeout_ms=30_000)
    for index in range(10):
        batches = [made_batch("t", index, 10, random.Random(index))]
        whole = encode_request(produce_request(batches, acks=-1, timeout_ms=30_000), codec.version, 5, "me")
        assert b"".join(codec.request(batches, 5))[4:] == whole
        assert len(codec._templates) <= 3
