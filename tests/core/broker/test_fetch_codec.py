"""Fetch's own reader and writer against the codec of core/wire: the same meaning, bytes and complaints."""

import random
from typing import Any

import pytest

from millstream.core.broker.direct_send import in_memory
from millstream.core.broker.fetch_codec import AskedFetch, PartitionAnswer, encode_answer, from_message, read_request
from millstream.core.wire import APIS, ApiKey, WireError, decode, encode
from millstream.core.wire.messages.fetch import (
    AbortedTransaction,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)

VERSIONS = APIS[ApiKey.FETCH].versions
INT32, INT64 = 2**31 - 1, 2**63 - 1
NAMES = ("a", "a-longer-name", "n" * 130, "ä")


def _number(source: random.Random, largest: int) -> int:
    return source.choice((0, 1, -1, largest, -largest - 1, source.randrange(largest)))


def _request(source: random.Random, version: int) -> FetchRequest:
    def topic() -> dict[str, Any]:
        return {"topic_id": source.randbytes(16)} if version >= 13 else {"topic": source.choice(NAMES)}

    request = FetchRequest(
        max_wait_ms=_number(source, INT32),
        min_bytes=_number(source, INT32),
        max_bytes=_number(source, INT32),
        isolation_level=source.choice((0, 1)),
        topics=[
            FetchTopic(
                **topic(),
                partitions=[
                    FetchPartition(
                        partition=_number(source, INT32),
                        current_leader_epoch=_number(source, INT32) if version >= 9 else -1,
                        fetch_offset=_number(source, INT64),
                        last_fetched_epoch=_number(source, INT32) if version >= 12 else -1,
                        log_start_offset=_number(source, INT64) if version >= 5 else -1,
                        partition_max_bytes=_number(source, INT32),
                    )
                    for _ in range(source.choice((0, 1, 1, 4, 130, 200)))
                ],
            )
            for _ in range(source.choice((0, 1, 1, 2, 5)))
        ],
    )
    if version >= 7:
        request.session_id, request.session_epoch = _number(source, INT32), _number(source, INT32)
        request.forgotten_topics_data = [
            ForgottenTopic(**topic(), partitions=[_number(source, INT32)] * source.choice((0, 1, 3)))
            for _ in range(source.choice((0, 0, 0, 1, 2)))
        ]
    if version >= 11:
        request.rack_id = source.choice(("", "", "rack"))
    if version >= 12 and source.random() < 0.1:
        request.cluster_id = "cluster"
    return request


def _meant(asked: AskedFetch) -> tuple[object, ...]:
    topics, forgotten = ([(key, list(items)) for key, items in array] for array in asked[6:])
    return (*asked[:6], topics, forgotten)


@pytest.mark.parametrize("version", VERSIONS)
def test_requests_mean_what_the_codec_says(version: int) -> None:
    source = random.Random(version)
    for _ in range(100):
        data = encode(_request(source, version), version)
        message, _ = decode(FetchRequest, version, data)
        assert _meant(read_request(version, memoryview(data))) == _meant(from_message(message, version)), data.hex()


@pytest.mark.parametrize("version", VERSIONS)
def test_cut_and_changed_requests_are_taken_as_the_codec_takes_them(version: int) -> None:
    source = random.Random(version)
    refused = 0
    for _ in range(300):
        data = bytearray(encode(_request(source, version), version)[:400])
        if source.random() < 0.5:
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        else:
            del data[source.randrange(len(data)) :]
        try:
            expected = from_message(decode(FetchRequest, version, bytes(data))[0], version)
        except WireError:
            refused += 1
            with pytest.raises(WireError):
                read_request(version, memoryview(data))
        else:
            assert _meant(read_request(version, memoryview(data))) == _meant(expected), data.hex()
    assert refused > 50


def _answer(source: random.Random, version: int, topics: list[str | bytes]) -> PartitionAnswer:
    return PartitionAnswer(
        (source.choice(topics), _number(source, INT32)),
        source.choice((0, 0, 1, 3)),
        _number(source, INT64),
        _number(source, INT64),
        _number(source, INT64) if version >= 5 else -1,
        source.choice((None, (), [(1, 2), (3, INT64)])),
        source.choice((b"", b"r" * 126, b"r" * 127, b"r" * 20_000, memoryview(b"view" * 1000))),
        source.choice((None, None, (5, INT64))) if version >= 12 else None,
    )


def _message(version: int, session_id: int, answers: list[PartitionAnswer]) -> FetchResponse:
    topics: dict[str | bytes, FetchableTopicResponse] = {}
    for answer in answers:
        topic, index = answer.key
        name = {"topic": topic} if isinstance(topic, str) else {"topic_id": topic}
        data = PartitionData(
            partition_index=index,
            error_code=answer.error_code,
            high_watermark=answer.high_watermark,
            last_stable_offset=answer.last_stable_offset,
            log_start_offset=answer.log_start_offset,
            aborted_transactions=None
            if answer.aborted is None
            else [AbortedTransaction(producer_id=number, first_offset=first) for number, first in answer.aborted],
            records=bytes(answer.records),  # type: ignore[arg-type]
            diverging_epoch=None
            if answer.diverging is None
            else EpochEndOffset(epoch=answer.diverging[0], end_offset=answer.diverging[1]),
        )
        topics.setdefault(topic, FetchableTopicResponse(**name)).partitions.append(data)
    return FetchResponse(session_id=session_id if version >= 7 else 0, responses=list(topics.values()))


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_have_the_bytes_of_the_codec(version: int) -> None:
    source = random.Random(version)
    for _ in range(100):
        topics: list[str | bytes] = [source.randbytes(16) for _ in range(3)] if version >= 13 else list(NAMES)
        answers = [_answer(source, version, topics) for _ in range(source.choice((0, 1, 4, 130)))]
        encoded = encode_answer(version, 77, answers)
        assert encoded.head + b"".join(in_memory(encoded.others)) == encode(_message(version, 77, answers), version)
        assert sum(encoded.error_codes.values()) == max(1, len(answers))
