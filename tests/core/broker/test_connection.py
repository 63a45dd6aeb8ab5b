"""Connections: answers in order, bounded memory, and nobody harmed by what another one sends."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker
from millstream.core.broker import connections as connections_module
from millstream.core.records import BatchBuilder
from millstream.core.wire import ApiKey, ErrorCode, decode
from millstream.core.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from millstream.core.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from millstream.core.wire.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from millstream.core.wire.messages.metadata import MetadataRequest
from millstream.core.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from millstream.testing.raw import ClosedError, RawConnection, frame_of


def batch(size: int = 10) -> bytes:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, None, b"x" * size)
    return bytes(builder.build())


def produce_request(topic: str, size: int = 10, acks: int = 1) -> ProduceRequest:
    data = PartitionProduceData(index=0, records=batch(size))
    return ProduceRequest(acks=acks, topic_data=[TopicProduceData(name=topic, partition_data=[data])])


def fetch_request(topic: str, offset: int, wait_ms: int) -> FetchRequest:
    partition = FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1 << 20)
    return FetchRequest(
        max_wait_ms=wait_ms, min_bytes=1, session_epoch=-1, topics=[FetchTopic(topic=topic, partitions=[partition])]
    )


def latest_request(topic: str) -> ListOffsetsRequest:
    partition = ListOffsetsPartition(partition_index=0, timestamp=-1)
    return ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=topic, partitions=[partition])])


def correlation_id(answer: bytes) -> int:
    (number,) = struct.unpack(">i", answer[:4])
    assert isinstance(number, int)
    return number


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come"
        time.sleep(0.001)


def closed(connection: RawConnection) -> bool:
    """Whether the broker ends the connection without another answer."""
    try:
        connection.receive()
    except ClosedError:
        return True
    return False


def connections_count(broker: Broker) -> int:
    return len(broker.connections)


@pytest.fixture
def topic(raw: RawConnection, new_name: Callable[[], str]) -> str:
    name = new_name()
    raw.create_topic(name)
    return name


# Order


def test_answers_come_in_the_order_of_the_requests(served: BrokerThread, raw: RawConnection, topic: str) -> None:
    requests = [
        produce_request(topic),
        produce_request(topic),
        latest_request(topic),
        MetadataRequest(),
        produce_request(topic, 100_000),
        latest_request(topic),
        fetch_request(topic, 0, 0),
        produce_request(topic),
        ApiVersionsRequest(),
    ] * 20
    with RawConnection(served.bootstrap_servers) as connection:
        frames = [connection.encode(request, 12 if isinstance(request, FetchRequest) else None) for request in requests]
        connection.send(b"".join(frames))
        answers = [connection.receive() for _ in requests]
    assert [correlation_id(answer) for answer in answers] == list(range(1, len(requests) + 1))


def test_requests_behind_a_waiting_fetch_wait_for_it(served: BrokerThread, raw: RawConnection, topic: str) -> None:
    with RawConnection(served.bootstrap_servers) as connection:
        frames = [connection.encode(fetch_request(topic, 0, 60_000), 12)]
        frames += [connection.encode(latest_request(topic)) for _ in range(200)]
        frames += [connection.encode(produce_request(topic)) for _ in range(2000)]
        connection.send(b"".join(frames))
        wait_for(lambda: served.call(lambda broker: broker.purgatory.waiters_count) == 1)
        raw.produce(topic, 0, batch())
        answers = [connection.receive() for _ in frames]
    assert [correlation_id(answer) for answer in answers] == list(range(1, len(frames) + 1))
    assert raw.offset(topic, 0) == 2001


def test_a_large_request_behind_a_waiting_fetch(served: BrokerThread, raw: RawConnection, topic: str) -> None:
    with RawConnection(served.bootstrap_servers) as connection:
        connection.send(connection.encode(fetch_request(topic, 0, 60_000), 12))
        large = connection.encode(produce_request(topic, 900_000))
        sender = threading.Thread(target=connection.send, args=(large + connection.encode(latest_request(topic)),))
        sender.start()
        wait_for(lambda: served.call(lambda broker: broker.purgatory.waiters_count) == 1)
        raw.produce(topic, 0, batch())
        assert [correlation_id(connection.receive()) for _ in range(3)] == [1, 2, 3]
        sender.join(90)
    assert raw.offset(topic, 0) == 2


@pytest.mark.parametrize("step", [1, 3, 17, 4096])
def test_bytes_may_come_in_any_portions(served: BrokerThread, topic: str, step: int) -> None:
    with RawConnection(served.bootstrap_servers) as connection:
        data = b"".join(
            [
                connection.encode(ApiVersionsRequest()),
                connection.encode(produce_request(topic)),
                connection.encode(produce_request(topic, 100 if step < 17 else 200_000)),
                connection.encode(MetadataRequest()),
            ]
        )
        for start in range(0, len(data), step):
            connection.send(data[start : start + step])
        assert [correlation_id(connection.receive()) for _ in range(4)] == [1, 2, 3, 4]


# Malformed input


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">i", -1),
        struct.pack(">i", 0),
        struct.pack(">i", 3),
        struct.pack(">i", 2**31 - 1),
        struct.pack(">i", 104_857_601),
        frame_of(struct.pack(">hhih", 3, 12, 1, 1000)),
        frame_of(struct.pack(">hhih", 3, 12, 1, -7)),
        frame_of(struct.pack(">hhih", 0, 2, 1, -1) + bytes(40)),
        frame_of(struct.pack(">hhih", 999, 0, 1, -1)),
        frame_of(struct.pack(">hhih", -1, 0, 1, -1)),
        frame_of(struct.pack(">hhih", 3, 13, 1, -1) + bytes(10)),
        frame_of(struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 2**31 - 1)),
        frame_of(struct.pack(">hhih", 3, 9, 1, -1) + b"\0\xff\xff\xff\xff\x0f"),
        frame_of(struct.pack(">hhih", 0, 9, 1, -1) + b"\0"),
    ],
)
def test_what_is_no_request_ends_its_connection_and_no_other(
    served: BrokerThread, raw: RawConnection, data: bytes
) -> None:
    with RawConnection(served.bootstrap_servers) as connection:
        connection.send(data)
        assert closed(connection)
    assert raw.call(ApiVersionsRequest()).error_code == 0


def test_answers_before_a_malformed_request_are_sent(served: BrokerThread, topic: str) -> None:
    with RawConnection(served.bootstrap_servers) as connection:
        frames = [connection.encode(produce_request(topic)) for _ in range(3)]
        connection.send(b"".join(frames) + struct.pack(">i", -5))
        assert [correlation_id(connection.receive()) for _ in range(3)] == [1, 2, 3]
        assert closed(connection)


def test_an_unknown_version_of_api_versions_is_answered_in_version_0(served: BrokerThread) -> None:
    with RawConnection(served.bootstrap_servers) as connection:
        connection.send(frame_of(struct.pack(">hhih", ApiKey.API_VERSIONS, 99, 7, -1) + b"\0future"))
        answer = connection.receive()
        assert correlation_id(answer) == 7
        response, end = decode(ApiVersionsResponse, 0, answer, 4)
        assert end == len(answer)
        assert response.error_code == ErrorCode.UNSUPPORTED_VERSION
        assert [key.api_key for key in response.api_keys] == [ApiKey.API_VERSIONS]
        assert connection.call(ApiVersionsRequest()).error_code == 0


# Bounds


@pytest.fixture
def small(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BrokerThread]:
    """A broker with small limits; a parameter says after how long an idle connection is closed, in ms."""
    settings = {
        "socket.request.max.bytes": "1000000",
        "queued.max.request.bytes": "2000000",
        "max.connections": "40",
        "max.connections.per.ip": "30",
        "max.connections.per.ip.overrides": "127.0.0.2:3",
        "connections.max.idle.ms": str(getattr(request, "param", 600_000)),
    }
    with BrokerThread(tmp_path, settings) as served:
        yield served


def test_connections_per_address_are_limited(small: BrokerThread) -> None:
    host, port = next(iter(small.broker.addresses.values()))
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection((host, port), 60, ("127.0.0.2", 0)))
        wait_for(lambda: small.call(connections_count) == 3)
        refused = stack.enter_context(socket.create_connection((host, port), 60, ("127.0.0.2", 0)))
        assert refused.recv(1) == b""


def test_all_connections_are_limited(small: BrokerThread) -> None:
    host, port = next(iter(small.broker.addresses.values()))
    with ExitStack() as stack:
        for number in range(40):
            address = f"127.0.0.{3 + number // 20}"
            stack.enter_context(socket.create_connection((host, port), 60, (address, 0)))
        wait_for(lambda: small.call(connections_count) == 40)
        refused = stack.enter_context(socket.create_connection((host, port), 60, ("127.0.0.9", 0)))
        assert refused.recv(1) == b""


@pytest.mark.parametrize("small", [2000], indirect=True)
def test_an_idle_connection_is_closed(small: BrokerThread) -> None:
    with RawConnection(small.bootstrap_servers) as connection:
        assert connection.call(ApiVersionsRequest()).error_code == 0
        assert closed(connection)


def test_announced_and_never_sent_megabytes_cost_nothing(small: BrokerThread) -> None:
    with ExitStack() as stack:
        for _ in range(25):
            connection = stack.enter_context(RawConnection(small.bootstrap_servers))
            connection.send(struct.pack(">i", 999_999) + b"\0\3\0\1" + bytes(6000))
        with RawConnection(small.bootstrap_servers) as good:
            for _ in range(50):
                assert good.call(ApiVersionsRequest()).error_code == 0
        used = small.call(lambda broker: broker.connections.pool.used_bytes)
        assert used <= 25 * 65536
    wait_for(lambda: small.call(connections_count) == 0)
    assert small.call(lambda broker: broker.connections.pool.used_bytes) == 0


def test_memory_pressure_closes_the_slowest_unfinished_frame(small: BrokerThread) -> None:
    with ExitStack() as stack:
        good = stack.enter_context(RawConnection(small.bootstrap_servers))
        good.create_topic("pressed")
        for _ in range(4):
            connection = stack.enter_context(RawConnection(small.bootstrap_servers))
            connection.send(struct.pack(">i", 900_000) + b"\0\0\0\x09" + bytes(450_000))
        wait_for(lambda: small.call(lambda broker: broker.connections.pool.used_bytes) > 1_700_000)
        # The well-behaved client's frames need the room that the slow ones hold.
        for _ in range(5):
            assert good.produce("pressed", 0, batch(600_000)).error_code == 0
        remaining = small.call(connections_count)
        assert 1 <= remaining < 5


def test_few_requests_in_flight_and_small_socket_buffers(tmp_path: Path) -> None:
    settings = {
        "queued.max.requests": "2",
        "socket.send.buffer.bytes": "20000",
        "socket.receive.buffer.bytes": "20000",
        "compression.type": "lz4",
    }
    with BrokerThread(tmp_path, settings) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("narrow")
        frames = [raw.encode(produce_request("narrow", 100_000 if n % 50 == 0 else 10)) for n in range(500)]
        sender = threading.Thread(target=raw.send, args=(b"".join(frames),))
        sender.start()
        answers = [correlation_id(raw.receive()) for _ in frames]
        sender.join(90)
        assert answers == list(range(answers[0], answers[0] + 500))
        assert raw.offset("narrow", 0) == 500


def test_a_reader_that_never_reads_is_dropped_and_bounded(
    served: BrokerThread, raw: RawConnection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(8):
        assert raw.produce(topic, 0, batch(900_000)).error_code == 0
    wait_for(lambda: served.call(connections_count) == 1)
    host, port = next(iter(served.broker.addresses.values()))
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((host, port))
        deaf.settimeout(90)
        request = fetch_request(topic, 0, 0)
        request.topics[0].partitions[0].partition_max_bytes = 20 << 20
        frame = raw.encode(request, 12)
        deaf.sendall(frame * 50)
        wait_for(lambda: served.call(lambda broker: broker.connections.read_memory.used_bytes) > 0)
        # One answer is held, not fifty.
        assert served.call(lambda broker: broker.connections.read_memory.used_bytes) < 9_000_000
        assert raw.call(ApiVersionsRequest()).error_code == 0
        monkeypatch.setattr(connections_module, "UNSENT_STALL_MS_MAX", 500)
        wait_for(lambda: served.call(connections_count) == 1)
    wait_for(lambda: served.call(lambda broker: broker.connections.read_memory.used_bytes) == 0)


def test_ten_thousand_unread_pipelined_requests(served: BrokerThread, raw: RawConnection, topic: str) -> None:
    with RawConnection(served.bootstrap_servers) as connection:
        frames = b"".join(connection.encode(produce_request(topic)) for _ in range(10_000))
        sender = threading.Thread(target=connection.send, args=(frames,))
        sender.start()
        assert raw.call(ApiVersionsRequest()).error_code == 0
        answers = [correlation_id(connection.receive()) for _ in range(10_000)]
        sender.join(90)
    assert answers == list(range(1, 10_001))
    assert raw.offset(topic, 0) == 10_000
