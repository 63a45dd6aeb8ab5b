"""What malformed bytes do: a WireError that names the field, little memory, and nothing else ever."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator
from typing import Any, Final

import pytest
from tests.core.wire.made import in_version, small

from millstream.core.wire import APIS, Api, Message, WireError, decode, encode, parse_request_header
from millstream.core.wire.messages.fetch import FetchRequest
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from millstream.core.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from millstream.core.wire.runtime import REQUEST_ELEMENTS_MAX

SOAK: Final = os.environ.get("MILLSTREAM_SOAK") == "1"
KINDS: Final = ("request", "response")
# What decoding a frame of a few hundred bytes may allocate, whatever it says.
PEAK_SIZE_BYTES_MAX: Final = 200_000

# Lengths and counts that lie, laid over the bytes of a message: int16, int32 and varint ones.
LIES: Final = (
    b"\x7f\xff", b"\xff\xff", b"\x80\x00",
    b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff\xff\xff\xfe", b"\x00\x00\xff\xff",
    b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff", b"\x80\x80\x80\x80\x01", b"\x80",
)  # fmt: skip


def every_message(api: Api) -> Iterator[tuple[type[Message], int, bytes]]:
    for kind in KINDS:
        cls: type[Message] = getattr(api, kind)
        for version in api.versions:
            yield cls, version, encode(small(cls), version)


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_cut_anywhere_is_an_error(api: Api) -> None:
    for cls, version, data in every_message(api):
        assert decode(cls, version, data) == (in_version(small(cls), version), len(data))
        for size in range(len(data)):
            with pytest.raises(WireError, match=cls.__name__):
                decode(cls, version, data[:size])


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_lying_lengths_raise_only_wire_errors_and_allocate_little(api: Api) -> None:
    frames = [
        (cls, version, data[:position] + lie + data[position + len(lie) :])
        for cls, version, data in every_message(api)
        for position in range(len(data))
        for lie in LIES
    ]
    if not SOAK:
        frames = random.Random(f"lies {api.name}").sample(frames, min(len(frames), 400))
    decode_all_within_bounds(frames)


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_random_bytes_raise_only_wire_errors_and_allocate_little(api: Api) -> None:
    chance = random.Random(f"noise {api.name}")
    frames = []
    for cls, version, data in every_message(api):
        for _ in range(500 if SOAK else 6):
            frames.append((cls, version, chance.randbytes(chance.randrange(200))))
            # Mostly zeros gets far into a message, small numbers stand for lengths that are nearly right.
            frames.append(
                (cls, version, bytes(chance.choice([0, 0, 0, 1, 2, 255]) for _ in range(chance.randrange(120))))
            )
            mutated = bytearray(data or b"?")
            for _ in range(chance.randrange(1, 4)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            frames.append((cls, version, bytes(mutated)))
    decode_all_within_bounds(frames)


def decode_all_within_bounds(frames: list[tuple[type[Message], int, bytes]]) -> None:
    outcomes = {"message": 0, "error": 0}
    tracemalloc.start()
    try:
        for cls, version, data in frames:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            complaint = None
            try:
                _, position = decode(cls, version, data)
            except WireError as error:
                complaint = str(error)
            if complaint is None:
                assert 0 <= position <= len(data)
            else:
                assert complaint.startswith(cls.__name__), complaint
            outcomes["message" if complaint is None else "error"] += 1
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < PEAK_SIZE_BYTES_MAX, f"{cls.__name__} {version} {data!r} took {peak - before} bytes"
    finally:
        tracemalloc.stop()
    assert outcomes["error"], outcomes


def test_random_request_headers_raise_only_wire_errors() -> None:
    chance = random.Random("headers")
    read = 0
    for _ in range(50_000 if SOAK else 5_000):
        key, version = chance.randrange(-2, 90), chance.randrange(-1, 20)
        data = key.to_bytes(2, "big", signed=True) + version.to_bytes(2, "big", signed=True)
        data += chance.randbytes(chance.randrange(4)) + bytes(4) + chance.randbytes(chance.randrange(30))
        try:
            header, position = parse_request_header(data)
        except WireError:
            continue
        assert (header.api_key, header.api_version) == (key, version)
        assert position <= len(data)
        read += 1
    assert read


def produce(name: str = "flights") -> ProduceRequest:
    partition = PartitionProduceData(index=3, records=b"r" * 100)
    return ProduceRequest(topic_data=[TopicProduceData(name=name, partition_data=[partition])])


def test_the_error_names_field_and_position() -> None:
    data = encode(produce(), 9)
    with pytest.raises(
        WireError,
        match=r"ProduceRequest\.topic_data\[\]\.partition_data\[\]\.records \(version 9\) at byte 21: "
        r"a length of 100 bytes does not fit the 40 that are left",
    ):
        decode(ProduceRequest, 9, data[:62])


@pytest.mark.parametrize(
    ("cls", "version", "data", "complaint"),
    [
        (ProduceRequest, 9, b"\x00\x00\x01\x00\x00\x00\x00\x00", r"topic_data.*: it is null"),
        (ProduceRequest, 8, b"\xff\xff\x00\x01\x00\x00\x00\x00\xff\xff\xff\xff", r"topic_data.*: it is null"),
        (ProduceRequest, 8, b"\xff\xfe", r"transactional_id.*a length of -2 bytes"),
        (ProduceRequest, 9, b"\x02\xff", r"transactional_id.*can't decode byte 0xff"),
        (MetadataRequest, 9, b"\xff\xff\xff\xff\x0f", r"topics.*4294967294 elements can't be in the 0 bytes"),
        (MetadataRequest, 9, b"\xff\xff\xff\xff\xff\x01", r"topics.*varint has more than 32 bits"),
        (MetadataRequest, 8, b"\x7f\xff\xff\xff\0\0\0", r"topics.*2147483647 elements can't be in the 3 bytes"),
        # Fetch 12: a known tagged field (cluster_id, tag 0) whose size does not fit what is in it.
        (FetchRequest, 12, bytes(4 + 4 + 4 + 4 + 1 + 4 + 4) + b"\1\1\1\1\0\3\2x\0", r"cluster_id.*its 3 bytes hold"),
    ],
)
def test_malformed(cls: type[Any], version: int, data: bytes, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        decode(cls, version, data)


@pytest.mark.parametrize("version", [8, 9])
def test_a_request_has_so_many_elements_and_no_more(version: int) -> None:
    topics = [MetadataRequestTopic(name="")] * REQUEST_ELEMENTS_MAX
    data = encode(MetadataRequest(topics=topics), version)
    assert decode(MetadataRequest, version, data)[1] == len(data)

    data = encode(MetadataRequest(topics=[*topics, MetadataRequestTopic(name="")]), version)
    with pytest.raises(WireError, match=f"more than {REQUEST_ELEMENTS_MAX} array elements"):
        decode(MetadataRequest, version, data)


def test_elements_of_nested_arrays_count_together() -> None:
    half = [PartitionProduceData(records=None)] * (REQUEST_ELEMENTS_MAX // 2)
    request = ProduceRequest(topic_data=[TopicProduceData(name="", partition_data=half)] * 2)
    with pytest.raises(WireError, match="array elements"):
        decode(ProduceRequest, 9, encode(request, 9))


@pytest.mark.parametrize(
    ("message", "version", "complaint"),
    [
        (produce(name=None), 9, r"topic_data\[\]\.name can't be encoded in version 9: 'NoneType'"),  # type: ignore[arg-type]
        (produce(name="x" * 32768), 8, r"name can't be encoded in version 8"),
        (produce(name="\ud800"), 9, r"name can't be encoded .*surrogates not allowed"),
        (ProduceRequest(acks=2**15), 9, r"acks to topic_data can't be encoded"),
        (MetadataRequest(topics=None), 0, r"topics can't be encoded in version 0"),
        (MetadataRequest(topics=[MetadataRequestTopic(topic_id=b"short")]), 12, r"an id has 16 bytes, not 5"),
    ],
)
def test_what_can_not_be_encoded_is_named(message: Message, version: int, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        encode(message, version)


def test_a_version_that_is_not_there() -> None:
    with pytest.raises(WireError, match="ProduceRequest has versions 3-11, not 2"):
        decode(ProduceRequest, 2, b"")
    with pytest.raises(WireError, match="MetadataResponse has versions 0-12, not 13"):
        encode(MetadataResponse(), 13)
