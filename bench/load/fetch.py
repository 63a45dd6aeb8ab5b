"""Small fetches in the shapes that clients send: four partitions, of which one has a record to give.

    python -m bench.load.fetch java --bootstrap 127.0.0.1:9092 --topic t --seconds 5

    java           version 16, a fetch session (KIP-227): a request names the one partition whose offset has moved
    librdkafka     version 16, no session, read_committed: a request names all partitions
    kafka-python   version 10, a fetch session
    aiokafka       version 4, no session: a request names all partitions

Each connection has one request in flight, as the clients do. One record is put into partition 0 of the empty topic, and
read again and again. Prints {"requests", "seconds", "cpu_seconds"}.
"""

import argparse
import json
import resource
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from bench.load.frames import make_batch

from millstream.core.wire import ZERO_UUID
from millstream.core.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from millstream.testing.raw import RawConnection

PARTITIONS: Final = 4


@dataclass(frozen=True)
class Shape:
    """What a client's fetches look like."""

    version: int
    session: bool
    isolation_level: int


SHAPES: Final = {
    "java": Shape(16, True, 0),
    "librdkafka": Shape(16, False, 1),
    "kafka-python": Shape(10, True, 0),
    "aiokafka": Shape(4, False, 0),
}


class Client:
    """One connection, which asks for partition 0's only record over and over; the others are read to their ends."""

    def __init__(self, bootstrap: str, topic: str, topic_id: bytes, shape: Shape) -> None:
        self._raw = RawConnection(bootstrap)
        self._shape = shape
        by_id = shape.version >= 13
        self._topic = FetchTopic(topic="" if by_id else topic, topic_id=topic_id if by_id else ZERO_UUID)
        answer = self._raw.call(self._request(range(PARTITIONS), 0, 0 if shape.session else -1), shape.version)
        self._session_id: int = answer.session_id
        assert bool(self._session_id) == shape.session, f"session {self._session_id}"
        self._epoch = 1 if shape.session else -1
        request = self._request([0] if shape.session else range(PARTITIONS), self._session_id, self._epoch)
        self._frame = bytearray(self._raw.encode(request, shape.version))
        marked = self._raw.encode(self._request([0], self._session_id, 0x71727374), shape.version)
        self._epoch_at = marked.find(struct.pack(">i", 0x71727374))
        self.answer_size = 0

    def _request(self, partitions: Iterable[int], session_id: int, epoch: int) -> FetchRequest:
        wanted = [
            FetchPartition(partition=number, fetch_offset=0, current_leader_epoch=0, partition_max_bytes=1 << 20)
            for number in partitions
        ]
        self._topic.partitions = wanted
        return FetchRequest(
            max_wait_ms=500,
            min_bytes=1,
            max_bytes=50 << 20,
            isolation_level=self._shape.isolation_level,
            session_id=session_id,
            session_epoch=epoch,
            topics=[self._topic],
        )

    def send(self) -> None:
        """Ask once more."""
        if self._shape.session:
            struct.pack_into(">i", self._frame, self._epoch_at, self._epoch)
            self._epoch += 1
        self._raw.socket.sendall(self._frame)

    def receive(self) -> None:
        """Take the answer; it must have the size of the first one."""
        size = len(self._raw.receive())
        self.answer_size = self.answer_size or size
        assert size == self.answer_size > 170, f"an answer of {size} bytes, {self.answer_size} before"

    def close(self) -> None:
        self._raw.close()


def topic_id(raw: RawConnection, topic: str) -> bytes:
    """The id that Metadata tells."""
    answer: Any = raw.call(MetadataRequest(topics=[MetadataRequestTopic(name=topic)]), 12)
    found: bytes = answer.topics[0].topic_id
    return found


def run(bootstrap: str, topic: str, shape: Shape, connections: int, seconds: float) -> dict[str, float]:
    """Keep one request of each connection in flight."""
    with RawConnection(bootstrap) as raw:
        if not raw.offset(topic, 0):
            raw.produce(topic, 0, make_batch(1, 100))
        identity = topic_id(raw, topic)
    clients = [Client(bootstrap, topic, identity, shape) for _ in range(connections)]
    for client in clients:
        client.send()
    requests = 0
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        for client in clients:
            client.receive()
            client.send()
        requests += len(clients)
    took = time.monotonic() - started
    for client in clients:
        client.receive()
        client.close()
    return {"requests": requests, "seconds": took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    result = run(given.bootstrap, given.topic, SHAPES[given.shape], given.connections, given.seconds)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**result, "cpu_seconds": usage.ru_utime + usage.ru_stime}))


if __name__ == "__main__":
    main()
