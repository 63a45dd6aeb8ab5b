"""Frames that no client would send: random bytes, mutated real requests, lying lengths, arrays of two thousand million.

Whatever comes in, the broker answers it or closes that connection, and a well-behaved client beside it notices nothing.
Seeds are printed; MILLSTREAM_FAULTS_SEED runs another one.
"""

import os
import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from tests.faults.conftest import Victim
from tests.support.witness import Witness

from millstream.core.records import BatchBuilder
from millstream.core.wire import APIS, ApiKey, encode_request
from millstream.core.wire.messages.alter_configs import AlterConfigsRequest, AlterConfigsResource
from millstream.core.wire.messages.api_versions import ApiVersionsRequest
from millstream.core.wire.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from millstream.core.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from millstream.core.wire.messages.delete_records import DeleteRecordsRequest, DeleteRecordsTopic
from millstream.core.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from millstream.core.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from millstream.core.wire.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from millstream.core.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from millstream.testing.raw import ClosedError, RawConnection, frame_of

SEED = int(os.environ.get("MILLSTREAM_FAULTS_SEED", "3"))
FRAMES_A_CONNECTION = 4
INTERESTING = [0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0xFFFFFFFE, 0x00FFFFFF, 0, 1, 104857600]


def a_batch() -> bytes:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, b"k", b"v" * 100)
    return builder.build()


def real_requests() -> list[Any]:
    """One request of every API there is, the main ones with something in them. None does harm when it is understood."""
    partition = FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
    data = TopicProduceData(name="fuzzed", partition_data=[PartitionProduceData(index=0, records=a_batch())])
    rich = [
        ProduceRequest(acks=1, timeout_ms=100, topic_data=[data]),
        FetchRequest(max_wait_ms=10, min_bytes=1, topics=[FetchTopic(topic="fuzzed", partitions=[partition])]),
        ListOffsetsRequest(topics=[ListOffsetsTopic(name="fuzzed", partitions=[ListOffsetsPartition(timestamp=-1)])]),
        MetadataRequest(topics=[MetadataRequestTopic(name="fuzzed")]),
        ApiVersionsRequest(client_software_name="fuzz", client_software_version="1"),
        # A replication factor that one broker cannot give: a mutation may ask for a million partitions.
        CreateTopicsRequest(topics=[CreatableTopic(name="never", num_partitions=1, replication_factor=257)]),
        CreatePartitionsRequest(topics=[CreatePartitionsTopic(name="nowhere", count=2)]),
        DeleteRecordsRequest(topics=[DeleteRecordsTopic(name="nowhere")]),
        DescribeConfigsRequest(resources=[DescribeConfigsResource(resource_type=2, resource_name="fuzzed")]),
        AlterConfigsRequest(resources=[AlterConfigsResource(resource_type=2, resource_name="nowhere")]),
    ]
    named = {type(request) for request in rich}
    return rich + [api.request() for api in APIS.values() if api.request not in named]


def encoded(request: Any, draw: random.Random) -> bytes:
    api = APIS[ApiKey(request.__wire__.key)]
    versions = [version for version in api.versions if not (version > 12 and api.key is ApiKey.FETCH)]
    return encode_request(request, draw.choice(versions), draw.randrange(1 << 31), "fuzz")


def random_bytes(draw: random.Random) -> bytes:
    return frame_of(draw.randbytes(draw.choice([0, 1, 3, 7, 8, 20, 100, 5000])))


def random_body(draw: random.Random) -> bytes:
    """A right header of some API and version, then anything."""
    api = draw.choice(list(APIS.values()))
    head = struct.pack(">hhih", api.key, draw.choice(list(api.versions)), draw.randrange(1 << 31), -1)
    return frame_of(head + draw.randbytes(draw.randrange(200)))


def mutated(draw: random.Random) -> bytes:
    """A real request with a few bytes turned, lengths overwritten, parts cut out, doubled or cut off."""
    body = bytearray(encoded(draw.choice(REQUESTS), draw))
    # Past the key and the version, most of the time: another API's frame is random_body's part.
    first = 4 if draw.random() < 0.9 else 0
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(first, max(len(body), first + 1))
        kind = draw.randrange(5)
        if kind == 0 and at < len(body):
            body[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            body[at : at + 4] = struct.pack(">I", draw.choice(INTERESTING))
        elif kind == 2:
            del body[at : at + draw.randrange(1, 9)]
        elif kind == 3:
            body[at:at] = body[at : at + draw.randrange(1, 50)]
        else:
            del body[at:]
    return frame_of(bytes(body))


def bomb(draw: random.Random) -> bytes:
    """An array of two thousand million elements that are not there, at the first place or behind real bytes."""
    body = encoded(draw.choice(REQUESTS), draw)
    cut = draw.randrange(min(10, len(body)), len(body) + 1)
    many = draw.choice([b"\x7f\xff\xff\xff" * 8, b"\xff\xff\xff\xff\x07" * 6, b"\x80\x80\x80\x80\x08" * 6])
    return frame_of(body[:cut] + many)


def lying_length(draw: random.Random) -> bytes:
    """A frame's length that is negative, huge, or more than what follows."""
    length = draw.choice([-1, -(2**31), 2**31 - 1, 104857601, 0, 1, 50_000])
    return struct.pack(">i", length) + draw.randbytes(draw.randrange(200))


REQUESTS = real_requests()
KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "random bytes": random_bytes,
    "random body": random_body,
    "mutated request": mutated,
    "array bomb": bomb,
    "lying length": lying_length,
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_frame_disturbs_the_others(victim: Victim, witness: Witness, soak: bool, kind: str) -> None:
    draw = random.Random(f"{SEED} {kind}")
    connections = 3000 if soak else 200
    closed = 0
    with RawConnection(victim.bootstrap) as raw:
        if "fuzzed" not in raw.topics():
            raw.create_topic("fuzzed")
    for _ in range(connections):
        with RawConnection(victim.bootstrap, timeout_s=0.2) as raw:
            try:
                for _ in range(FRAMES_A_CONNECTION):
                    raw.send(KINDS[kind](draw))
                while True:
                    raw.receive()
            except ClosedError:
                closed += 1
            except (TimeoutError, MemoryError, ValueError):
                continue  # it waits for more of a frame, or its answer is no frame of ours; the witness judges
    print(f"seed {SEED}: {connections} connections, {closed} closed by the broker")
    with RawConnection(victim.bootstrap) as raw:
        assert raw.call(ApiVersionsRequest(client_software_name="after", client_software_version="1")).error_code == 0
        assert "never" not in raw.topics()


@pytest.mark.parametrize("length", [-1, -(2**31), 2**31 - 1, 104_857_601])
def test_a_length_that_cannot_be_closes_the_connection(victim: Victim, length: int) -> None:
    with RawConnection(victim.bootstrap, timeout_s=90) as raw:
        raw.send(struct.pack(">i", length) + b"\0" * 100)
        with pytest.raises(ClosedError):
            raw.receive()


def test_an_unknown_version_of_api_versions_is_answered_with_the_versions_there_are(victim: Victim) -> None:
    """KIP-511: error 35 in a version 0 body, and the connection lives on."""
    with RawConnection(victim.bootstrap) as raw:
        raw.send(frame_of(struct.pack(">hhih", ApiKey.API_VERSIONS, 99, 7, -1) + b"\0\0\0\0"))
        answer = raw.receive()
        assert struct.unpack_from(">ih", answer) == (7, 35)
        assert raw.call(ApiVersionsRequest(client_software_name="a", client_software_version="1")).error_code == 0
