"""What callers rely on beyond the bytes: views, parts, prefixes, unknown tags, long arrays, plain values."""

from __future__ import annotations

import copy
import pickle
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any, Final

import pytest
from tests.core.wire.made import in_version, small

from millstream.core.wire import (
    APIS,
    Api,
    Message,
    decode,
    decoder,
    encode,
    encode_parts,
    encoder,
    parts_encoder,
    unsigned_varint,
    varint_bytes,
)
from millstream.core.wire.encoding import PART_SIZE_BYTES_MIN
from millstream.core.wire.fields import ALL_VERSIONS, NO_VERSIONS, Field, field, int32, message, struct
from millstream.core.wire.messages.describe_topic_partitions import Cursor, DescribeTopicPartitionsRequest
from millstream.core.wire.messages.fetch import (
    FetchableTopicResponse,
    FetchResponse,
    LeaderIdAndEpoch,
    PartitionData,
)
from millstream.core.wire.messages.metadata import MetadataResponse, MetadataResponsePartition, MetadataResponseTopic
from millstream.core.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData

FUTURE_TAG: Final = 200


def produce(*batches: bytes) -> ProduceRequest:
    partitions = [PartitionProduceData(index=index, records=batch) for index, batch in enumerate(batches)]
    return ProduceRequest(topic_data=[TopicProduceData(name="flights", partition_data=partitions)])


@pytest.mark.parametrize("version", [8, 9])
def test_record_bytes_are_views_of_the_frame(version: int) -> None:
    frame = bytearray(encode(produce(b"0123456789"), version, b"header"))
    request, _ = decode(ProduceRequest, version, frame, len(b"header"))
    records = request.topic_data[0].partition_data[0].records
    assert isinstance(records, memoryview)
    assert records.tobytes() == b"0123456789"

    frame[frame.index(b"0123456789")] = ord("X")
    assert records.tobytes() == b"X123456789"


@pytest.mark.parametrize("version", [8, 9])
def test_large_record_bytes_stay_parts_of_their_own(version: int) -> None:
    large, small_one, larger = bytes(PART_SIZE_BYTES_MIN), bytes(PART_SIZE_BYTES_MIN - 1), memoryview(bytes(100_000))
    request = produce(large, small_one)
    request.topic_data[0].partition_data.append(PartitionProduceData(index=2, records=larger))

    parts = encode_parts(request, version, b"header")

    assert [part for part in parts if part is large or part is larger] == [large, larger]
    # In version 9 a tag count follows the last records.
    assert len(parts) == (4 if version == 8 else 5)
    assert b"".join(parts) == encode(request, version, b"header")


def test_a_prefix_comes_first() -> None:
    body = encode(produce(b"records"), 9)
    assert encoder(ProduceRequest, 9)(produce(b"records"), b"header") == b"header" + body
    assert b"".join(parts_encoder(ProduceRequest, 9)(produce(b"records"), b"header")) == b"header" + body
    assert decoder(ProduceRequest, 9)(b"header" + body + b"more", 6) == (produce(b"records"), 6 + len(body))


def test_codecs_are_made_once() -> None:
    assert decoder(ProduceRequest, 9) is decoder(ProduceRequest, 9)
    assert encoder(ProduceRequest, 9) is not encoder(ProduceRequest, 8)


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_tagged_fields_of_a_newer_peer_are_skipped(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in (api.request, api.response):
        newer = a_newer(cls, monkeypatch)
        for version in api.versions:
            ours = in_version(small(cls), version)
            data = encode(as_newer(ours, newer, b"?" * 200), version)
            flexible = version in cls.__wire__.flexible
            assert (b"?" * 200 in data) == flexible
            assert decode(cls, version, data) == (ours, len(data))
            assert decode(cls, version, bytearray(data)) == (ours, len(data))
            # And what it would see of ours: the tagged fields it knows more of are not there.
            assert decode(newer, version, encode(ours, version))[0] == as_newer(ours, newer, b"")


def a_newer(cls: type[Message], monkeypatch: pytest.MonkeyPatch) -> type[Message]:
    """The class as a later release may declare it: a tagged field more in every struct."""
    module = ModuleType(f"newer_{cls.__module__}_{cls.__name__}")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def add(cls: type[Message]) -> type[Message]:
        fields: list[Field] = []
        for known in cls.__wire__.fields:
            if known.kind == "struct":
                setattr(module, known.type_name, add(known.struct_class()))
                known = replace(known, module=module.__name__)
            fields.append(known)
        fields.append(
            Field("future", "bytes", False, ALL_VERSIONS, NO_VERSIONS, FUTURE_TAG, b"", None, module.__name__, "bytes")
        )
        body = {
            "__slots__": tuple(field.name for field in fields),
            "__wire__": replace(cls.__wire__, fields=tuple(fields)),
        }
        return type(cls.__name__, (Message,), body)

    return add(cls)


def as_newer(value: Any, newer: type[Message], future: bytes) -> Message:
    made = newer.__new__(newer)
    for known in newer.__wire__.fields:
        if known.name == "future":
            made.future = future  # type: ignore[attr-defined]
            continue
        inner = getattr(value, known.name)
        if known.kind == "struct" and inner is not None:
            inner_cls = known.struct_class()
            inner = (
                [as_newer(item, inner_cls, future) for item in inner]
                if known.is_array
                else as_newer(inner, inner_cls, future)
            )
        setattr(made, known.name, inner)
    return made


@pytest.mark.parametrize("version", [5, 9])
@pytest.mark.parametrize("sizes", [(0, 0, 0), (3, 2, 1), (12, 13, 0), (126, 127, 128), (0, 0, 20_000)])
def test_arrays_of_any_length_between_other_fields(version: int, sizes: tuple[int, int, int]) -> None:
    replicas, isr, offline = (list(range(size)) for size in sizes)
    partition = MetadataResponsePartition(
        error_code=-1, partition_index=2, leader_id=3, replica_nodes=replicas, isr_nodes=isr, offline_replicas=offline
    )
    response = MetadataResponse(topics=[MetadataResponseTopic(name="t", partitions=[partition] * 2)])
    data = encode(response, version)
    assert decode(MetadataResponse, version, data) == (response, len(data))


def test_a_tagged_struct_is_sent_only_when_it_is_set() -> None:
    def response(leader: LeaderIdAndEpoch | None) -> FetchResponse:
        partition = PartitionData(records=b"", current_leader=leader)
        return FetchResponse(responses=[FetchableTopicResponse(topic="t", partitions=[partition])])

    absent, present = encode(response(None), 12), encode(response(LeaderIdAndEpoch(leader_id=1, leader_epoch=2)), 12)
    assert len(present) == len(absent) + 2 + 9  # tag and size; two int32 and no tags of their own
    assert decode(FetchResponse, 12, absent)[0] == response(None)
    assert decode(FetchResponse, 12, present)[0] == response(LeaderIdAndEpoch(leader_id=1, leader_epoch=2))


@pytest.mark.parametrize("cursor", [None, Cursor(topic_name="t", partition_index=5)])
def test_a_nullable_struct(cursor: Cursor | None) -> None:
    request = DescribeTopicPartitionsRequest(cursor=cursor)
    data = encode(request, 0)
    assert decode(DescribeTopicPartitionsRequest, 0, data) == (request, len(data))
    assert (b"\xff" in data) == (cursor is None)


@pytest.mark.parametrize(
    ("value", "data"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16383, "ff7f"), (16384, "808001"), (2**32 - 1, "ffffffff0f")],
)
def test_unsigned_varints(value: int, data: str) -> None:
    assert varint_bytes(value).hex() == data
    assert unsigned_varint(b"??" + bytes.fromhex(data), 2) == (value, 2 + len(data) // 2)


def test_varints_that_are_none() -> None:
    with pytest.raises(ValueError, match="no unsigned number"):
        varint_bytes(-1)
    with pytest.raises(ValueError, match="more than 32 bits"):
        unsigned_varint(b"\xff\xff\xff\xff\x1f", 0)


@struct
class Part:
    index: int32 = 0
    names: list[str] = field(factory=list)


@message(versions="0-2", flexible="2+")
class Whole:
    label: str = "none"
    part: Part = field(factory=Part)
    parts: list[Part] | None = field(versions="1+", nullable="2+", factory=list)


def test_declared_classes_are_values() -> None:
    one, other = Whole(parts=[Part(index=1)]), Whole(parts=[Part(index=1)])
    assert one == other
    assert one != Whole()
    assert one != Part()  # type: ignore[comparison-overlap]
    assert repr(one) == "Whole(label='none', part=Part(index=0, names=[]), parts=[Part(index=1, names=[])])"
    assert Whole().part is not Whole().part
    assert Part().names is not Part().names
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    with pytest.raises(AttributeError):
        one.lable = "a name that is not declared"  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Whole("positional")  # type: ignore[call-arg]


def test_a_repr_does_not_spill_records() -> None:
    assert "records=<100000 bytes>" in repr(produce(bytes(100_000)))
    assert "records=b'few'" in repr(decode(ProduceRequest, 9, encode(produce(b"few"), 9))[0])


def test_versions_of_a_message_without_an_api() -> None:
    whole = Whole(label="x", parts=[Part(index=1, names=["a"])])
    assert encode(whole, 0).hex() == "0001" + "78" + "00000000" + "00000000"
    assert encode(whole, 1).hex() == "000178" + "0000000000000000" + "00000001" + "00000001" + "00000001" + "000161"
    assert encode(whole, 2).hex() == "0278" + "00000000" + "0100" + "02" + "00000001" + "02" + "0261" + "00" + "00"
    assert decode(Whole, 0, encode(whole, 0))[0] == Whole(label="x", parts=[])
