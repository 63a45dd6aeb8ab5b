"""A blocking connection that speaks single requests, well-formed or not: for tests that no client library would write.

with RawConnection("127.0.0.1:9092") as raw:
    response = raw.call(ListOffsetsRequest(...))        # any request of core/wire, at any version
    raw.send(frame_of(b"\\x00\\x03not a request"))        # any bytes
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from millstream.core.wire import APIS, ApiKey, ErrorCode, decode, encode_request, parse_response_header
from millstream.core.wire.messages.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from millstream.core.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from millstream.core.wire.messages.init_producer_id import InitProducerIdRequest
from millstream.core.wire.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from millstream.core.wire.messages.metadata import MetadataRequest
from millstream.core.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)

EARLIEST: Final = -2
LATEST: Final = -1
CLIENT_ID: Final = "raw"


def frame_of(body: bytes) -> bytes:
    """The bytes of a request behind their length, as they go over the wire."""
    return struct.pack(">i", len(body)) + body


class ClosedError(Exception):
    """The peer closed the connection (or reset it) before a whole answer came."""


class RawConnection:
    """One TCP connection; requests are answered in order. A context manager."""

    def __init__(self, bootstrap: str, timeout_s: float = 30.0) -> None:
        host, _, port = bootstrap.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._correlation_id = 0

    def send(self, data: bytes) -> None:
        """Send bytes as they are. Raises ClosedError when the peer is gone."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, BrokenPipeError) as error:
            raise ClosedError(str(error)) from error

    def receive(self) -> bytes:
        """The next frame, without its length. Raises ClosedError at the end of the stream, TimeoutError."""
        (size,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size:
            try:
                chunk = self.socket.recv(min(size - len(out), 1 << 20))
            except ConnectionError as error:
                raise ClosedError(str(error)) from error
            if not chunk:
                raise ClosedError(f"closed after {len(out)} of {size} bytes")
            out += chunk
        return bytes(out)

    def encode(self, request: Any, version: int | None = None) -> bytes:
        """The whole frame of a request, at its highest version by default, under the next correlation id."""
        self._correlation_id += 1
        version = APIS[request.__wire__.key].version_max if version is None else version
        return frame_of(encode_request(request, version, self._correlation_id, CLIENT_ID))

    def call(self, request: Any, version: int | None = None) -> Any:
        """Send a request of core/wire and return its decoded response."""
        api = APIS[ApiKey(request.__wire__.key)]
        version = api.version_max if version is None else version
        self.send(self.encode(request, version))
        answer = self.receive()
        correlation_id, position = parse_response_header(api.key, version, answer)
        assert correlation_id == self._correlation_id, f"answer {correlation_id} to request {self._correlation_id}"
        return decode(api.response, version, answer, position)[0]

    def produce(self, topic: str, partition: int, batch: bytes, acks: int = -1) -> PartitionProduceResponse:
        """One batch for one partition; the answer as it is, errors included."""
        data = TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=partition, records=batch)])
        answer = self.call(ProduceRequest(acks=acks, timeout_ms=10_000, topic_data=[data]))
        found: PartitionProduceResponse = answer.responses[0].partition_responses[0]
        return found

    def fetch(self, topic: str, partition: int, offset: int, *, size_bytes_max: int = 1 << 20, wait_ms: int = 0) -> Any:
        """One partition's answer (a PartitionData) to a Fetch outside any session, topics by name (version 12)."""
        wanted = FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=size_bytes_max)
        request = FetchRequest(
            max_wait_ms=wait_ms,
            min_bytes=1,
            max_bytes=size_bytes_max,
            session_epoch=-1,
            topics=[FetchTopic(topic=topic, partitions=[wanted])],
        )
        return self.call(request, 12).responses[0].partitions[0]

    def offset(self, topic: str, partition: int, timestamp: int = LATEST) -> int:
        """The offset ListOffsets gives for a timestamp. Raises AssertionError on an error code."""
        found = self.offsets({topic: [partition]}, timestamp)[topic][partition]
        assert found >= 0, f"{topic}-{partition}: ListOffsets answered error {-found - 1}"
        return found

    def offsets(self, partitions: Mapping[str, Iterable[int]], timestamp: int = LATEST) -> dict[str, dict[int, int]]:
        """Offsets of many partitions in one request; an error code E is given as -E - 1."""
        topics = [
            ListOffsetsTopic(
                name=name,
                partitions=[ListOffsetsPartition(partition_index=index, timestamp=timestamp) for index in indexes],
            )
            for name, indexes in partitions.items()
        ]
        answer = self.call(ListOffsetsRequest(replica_id=-1, topics=topics), 7)
        return {
            topic.name: {
                p.partition_index: p.offset if p.error_code == 0 else -p.error_code - 1 for p in topic.partitions
            }
            for topic in answer.topics
        }

    def create_topic(self, name: str, partitions: int = 1, **configs: object) -> None:
        """Create a topic (configs with _ for .) and wait until every partition has a leader that answers."""
        settings = [CreatableTopicConfig(name=k.replace("_", "."), value=str(v)) for k, v in configs.items()]
        topic = CreatableTopic(name=name, num_partitions=partitions, replication_factor=1, configs=settings)
        answer = self.call(CreateTopicsRequest(topics=[topic], timeout_ms=60_000)).topics[0]
        assert answer.error_code == 0, f"{name}: error {answer.error_code}: {answer.error_message}"
        deadline = time.monotonic() + 60
        while any(offset < 0 for offset in self.offsets({name: range(partitions)})[name].values()):
            assert time.monotonic() < deadline, f"{name} has partitions without a leader"
            time.sleep(0.01)

    def new_producer_id(self) -> int:
        """A producer id of epoch 0. Kafka answers COORDINATOR_LOAD_IN_PROGRESS until it holds a block of them."""
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
        deadline = time.monotonic() + 30
        while (answer := self.call(request)).error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
            assert time.monotonic() < deadline, "no producer id within 30 s"
            time.sleep(0.01)
        assert answer.error_code == 0, f"InitProducerId: error {answer.error_code}"
        return int(answer.producer_id)

    def topics(self) -> dict[str, int]:
        """Every topic with its number of partitions; one whose metadata has an error is left out."""
        answer = self.call(MetadataRequest(topics=None))
        return {topic.name: len(topic.partitions) for topic in answer.topics if topic.error_code == 0}

    def close(self) -> None:
        """Close it; nothing happens the second time."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
