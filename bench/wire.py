"""What the wire codecs cost: the hot requests and responses of a broker, against the bounds they have to keep.

    python bench/wire.py [--json]

Each row is the best of several rounds, on one core, with nothing cached but the generated functions. Exits with 1 if a
bound is broken.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from millstream.core.wire import (
    ApiKey,
    decoder,
    encode,
    encode_request,
    encode_response_header,
    encoder,
    parse_request_header,
    parts_encoder,
)
from millstream.core.wire.messages.fetch import (
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
)
from millstream.core.wire.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from millstream.core.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)

ROUNDS: Final = 9
ROUND_SECONDS: Final = 0.1


class Row(NamedTuple):
    """One measurement; the bound is None where there is no promise."""

    name: str
    microseconds: float
    bound: float | None


def best_microseconds(work: Callable[[], object]) -> float:
    """The shortest mean of a round, in microseconds a call."""
    work()
    start = time.perf_counter()
    work()
    calls = max(1, int(ROUND_SECONDS / max(time.perf_counter() - start, 1e-7)))
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        best = min(best, (time.perf_counter() - start) / calls)
    return best * 1e6


def produce_rows() -> list[Row]:
    """Produce version 9, one partition of 16 KB: what a broker does for one request."""
    partition = PartitionProduceData(index=3, records=bytes(16384))
    request = ProduceRequest(
        acks=-1, timeout_ms=30_000, topic_data=[TopicProduceData(name="flights", partition_data=[partition])]
    )
    frame = encode_request(request, 9, 77, "bench-producer")
    scratch = memoryview(bytearray(frame))
    parse, encode_response = decoder(ProduceRequest, 9), encoder(ProduceResponse, 9)
    answer = PartitionProduceResponse(index=3, base_offset=123_456, log_start_offset=0)
    response = ProduceResponse(responses=[TopicProduceResponse(name="flights", partition_responses=[answer])])

    def parse_frame(data: bytes | memoryview) -> object:
        _, position = parse_request_header(data)
        return parse(data, position)

    return [
        Row("header + Produce v9, 1 x 16 KB: parse (bytes)", best_microseconds(lambda: parse_frame(frame)), 3),
        Row("header + Produce v9, 1 x 16 KB: parse (view)", best_microseconds(lambda: parse_frame(scratch)), 3),
        Row(
            "header + Produce v9 response, 1 partition: encode",
            best_microseconds(lambda: encode_response(response, encode_response_header(ApiKey.PRODUCE, 9, 77))),
            5,
        ),
    ]


def fetch_rows() -> list[Row]:
    """Fetch version 12: a full request of 20 partitions, and responses of 64 KB a partition."""
    wanted = [FetchPartition(partition=index, fetch_offset=10**6, partition_max_bytes=2**20) for index in range(20)]
    frame = encode_request(
        FetchRequest(max_wait_ms=500, min_bytes=1, topics=[FetchTopic(topic="flights", partitions=wanted)]), 12, 7, "c"
    )
    parse, encode_response = decoder(FetchRequest, 12), parts_encoder(FetchResponse, 12)

    def response(partitions: int) -> FetchResponse:
        found = [
            PartitionData(partition_index=index, high_watermark=10**6, records=bytes(65536))
            for index in range(partitions)
        ]
        return FetchResponse(responses=[FetchableTopicResponse(topic="flights", partitions=found)])

    one, twenty = response(1), response(20)
    head = encode_response_header(ApiKey.FETCH, 12, 7)
    return [
        Row(
            "header + Fetch v12, 20 partitions: parse",
            best_microseconds(lambda: parse(frame, parse_request_header(frame)[1])),
            None,
        ),
        Row(
            "Fetch v12 response, 1 x 64 KB: encode to parts",
            best_microseconds(lambda: encode_response(one, head)),
            None,
        ),
        Row(
            "Fetch v12 response, 20 x 64 KB: encode to parts",
            best_microseconds(lambda: encode_response(twenty, head)),
            None,
        ),
    ]


def metadata_rows() -> list[Row]:
    """Metadata version 12 of 100 topics x 12 partitions, replicated three times."""
    topics = [
        MetadataResponseTopic(
            name=f"topic-{number:03}",
            topic_id=number.to_bytes(16, "big"),
            partitions=[
                MetadataResponsePartition(
                    partition_index=index, leader_id=1, leader_epoch=5, replica_nodes=[1, 2, 3], isr_nodes=[1, 2, 3]
                )
                for index in range(12)
            ],
        )
        for number in range(1, 101)
    ]
    brokers = [MetadataResponseBroker(node_id=1, host="localhost", port=9092)]
    response = MetadataResponse(brokers=brokers, cluster_id="MkU3OEVBNTcwNTJENDM2Qg", controller_id=1, topics=topics)
    encode_response, parse, data = encoder(MetadataResponse, 12), decoder(MetadataResponse, 12), encode(response, 12)
    return [
        Row("Metadata v12 response, 100 x 12: encode", best_microseconds(lambda: encode_response(response)), 1000),
        Row("Metadata v12 response, 100 x 12: parse", best_microseconds(lambda: parse(data)), None),
    ]


def main() -> None:
    """Measure, and print each figure beside its goal."""
    parser = argparse.ArgumentParser(description="What the wire codecs cost.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()

    rows = [*produce_rows(), *fetch_rows(), *metadata_rows()]
    if arguments.json:
        print(json.dumps({row.name: {"microseconds": round(row.microseconds, 2), "bound": row.bound} for row in rows}))
    else:
        for row in rows:
            bound = "" if row.bound is None else f"   goal {row.bound:g} us"
            print(f"{row.name:<54}{row.microseconds:>9.2f} us{bound}")


if __name__ == "__main__":
    main()
