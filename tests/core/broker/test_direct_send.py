"""Large answers that go from the page cache to the socket: the same bytes in order, whatever the reader does."""

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.records import BatchBuilder, iter_batches
from millstream.core.wire import APIS, ApiKey, ErrorCode, decode, parse_response_header
from millstream.core.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from millstream.core.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from millstream.testing.faulty_disk import FaultyDisk
from millstream.testing.raw import ClosedError, RawConnection

BATCH_SIZE = 300_000
BATCHES_COUNT = 20


class CountingDisk(FaultyDisk):
    """Notes what `sendfile` was asked for and what the socket took."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[int, int]] = []

    def sendfile(self, socket_fd: int, fd: int, position: int, size: int) -> int:
        sent = super().sendfile(socket_fd, fd, position, size)
        self.sent.append((size, sent))
        return sent


@pytest.fixture(scope="module")
def disk() -> CountingDisk:
    return CountingDisk()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, disk: CountingDisk) -> Iterator[BrokerThread]:
    with BrokerThread(tmp_path_factory.mktemp("broker"), files=disk) as broker:
        yield broker


@pytest.fixture(autouse=True)
def _forget(disk: CountingDisk) -> Iterator[None]:
    disk.sent.clear()
    yield
    disk.heal()


@pytest.fixture
def topic(raw: RawConnection, new_name: Callable[[], str]) -> str:
    """Twenty batches of 300 kB that do not compress, each of other bytes."""
    name = new_name()
    raw.create_topic(name)
    for _ in range(BATCHES_COUNT):
        assert raw.produce(name, 0, batch(BATCH_SIZE)).error_code == 0
    return name


def batch(size: int) -> bytes:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, None, os.urandom(size))
    return bytes(builder.build())


def fetch_request(*topics: str, offset: int = 0, size: int = 50 << 20) -> FetchRequest:
    partition = FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=size)
    return FetchRequest(
        min_bytes=1,
        max_bytes=size,
        session_epoch=-1,
        topics=[FetchTopic(topic=topic, partitions=[partition]) for topic in topics],
    )


def produce_request(topic: str, size: int) -> ProduceRequest:
    data = PartitionProduceData(index=0, records=batch(size))
    return ProduceRequest(acks=1, topic_data=[TopicProduceData(name=topic, partition_data=[data])])


def log_bytes(served: BrokerThread, topic: str) -> bytes:
    return log_path(served, topic).read_bytes()


def log_path(served: BrokerThread, topic: str) -> Path:
    return served.data_directory / f"{topic}-0" / f"{0:020}.log"


def fetched(answer: bytes, version: int) -> list[bytes]:
    _, position = parse_response_header(ApiKey.FETCH, version, answer)
    response, end = decode(APIS[ApiKey.FETCH].response, version, answer, position)
    assert isinstance(response, FetchResponse)
    assert end == len(answer)
    return [bytes(partition.records or b"") for each in response.responses for partition in each.partitions]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come"
        time.sleep(0.001)


def nothing_held(served: BrokerThread) -> bool:
    return served.call(lambda broker: broker.connections.read_memory.used_bytes) == 0


@pytest.mark.parametrize("version", [4, 11, 12])
def test_what_comes_is_what_the_file_has(
    served: BrokerThread, raw: RawConnection, topic: str, disk: CountingDisk, version: int
) -> None:
    raw.send(raw.encode(fetch_request(topic), version))
    assert fetched(raw.receive(), version) == [log_bytes(served, topic)]
    wait_for(lambda: bool(disk.sent))  # noted after the bytes went
    assert max(sent for _, sent in disk.sent) > 0
    wait_for(lambda: nothing_held(served))


def test_a_reader_who_takes_little_gets_all_of_it(
    served: BrokerThread, raw: RawConnection, topic: str, disk: CountingDisk
) -> None:
    """The socket takes a part of the first answer; the rest, and the answers behind it, follow as it is read."""
    count = 4
    with RawConnection(served.bootstrap_servers) as slow:
        slow.socket.close()
        slow.socket = socket.socket()
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.socket.settimeout(90)
        host, _, port = served.bootstrap_servers.rpartition(":")
        slow.socket.connect((host, int(port)))
        slow.send(b"".join(slow.encode(fetch_request(topic), 12) for _ in range(count)))
        wait_for(lambda: bool(disk.sent))
        size, sent = disk.sent[0]
        assert sent < size, "the socket took all of it"
        assert raw.offset(topic, 0) == BATCHES_COUNT  # others are served meanwhile
        for _ in range(count):
            assert fetched(slow.receive(), 12) == [log_bytes(served, topic)]
    wait_for(lambda: nothing_held(served))


def test_several_regions_and_small_answers_between_them(
    served: BrokerThread, raw: RawConnection, topic: str, new_name: Callable[[], str]
) -> None:
    small, other = new_name(), new_name()
    for name, size in ((small, 100), (other, 200_000)):
        raw.create_topic(name)
        raw.produce(name, 0, batch(size))
    raw.send(raw.encode(fetch_request(other, small, topic, small), 12))
    names = (other, small, topic)  # who is named twice is one partition
    assert fetched(raw.receive(), 12) == [log_bytes(served, name) for name in names]


def test_fetches_and_acknowledgements_stay_in_order(served: BrokerThread, raw: RawConnection, topic: str) -> None:
    rounds = 15
    offsets = [number % BATCHES_COUNT for number in range(rounds)]
    with RawConnection(served.bootstrap_servers) as connection:
        frames = []
        for offset in offsets:
            frames += [
                connection.encode(produce_request(topic, 10)),
                connection.encode(fetch_request(topic, offset=offset, size=900_000), 12),
                connection.encode(produce_request(topic, 100_000)),
            ]
        sender = threading.Thread(target=connection.send, args=(b"".join(frames),))
        sender.start()
        answers = [connection.receive() for _ in frames]
        sender.join(90)
    assert [struct.unpack(">i", answer[:4])[0] for answer in answers] == list(range(1, len(frames) + 1))
    data = log_bytes(served, topic)
    for offset, answer in zip(offsets, answers[1::3], strict=True):
        (records,) = fetched(answer, 12)
        assert records
        assert records in data
        assert next(iter_batches(records))[0].base_offset == offset


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO, errno.EAGAIN])
def test_where_the_file_cannot_be_sent_its_bytes_are(
    served: BrokerThread, raw: RawConnection, topic: str, disk: CountingDisk, error: int
) -> None:
    disk.fail("sendfile", error, path=topic, times=1000)
    raw.send(raw.encode(fetch_request(topic), 12))
    assert fetched(raw.receive(), 12) == [log_bytes(served, topic)]
    assert not disk.sent
    assert served.call(lambda broker: broker.partitions.get(topic, 0) is not None)


def test_a_corrupt_batch_is_not_sent(served: BrokerThread, raw: RawConnection, topic: str) -> None:
    data = log_bytes(served, topic)
    first, second = (header.size_bytes for header, _ in list(iter_batches(data))[:2])
    with log_path(served, topic).open("r+b") as file:
        file.seek(first + second // 2)
        file.write(bytes([data[first + second // 2] ^ 1]))
    raw.send(raw.encode(fetch_request(topic), 12))
    assert fetched(raw.receive(), 12) == [data[:first]]
    assert raw.fetch(topic, 0, 1).error_code == ErrorCode.CORRUPT_MESSAGE
    raw.send(raw.encode(fetch_request(topic, offset=2), 12))
    assert fetched(raw.receive(), 12) == [data[first + second :]]


def test_a_reader_who_hangs_up_in_the_middle_leaves_nothing(
    served: BrokerThread, raw: RawConnection, topic: str, disk: CountingDisk
) -> None:
    with RawConnection(served.bootstrap_servers) as connection:
        connection.send(b"".join(connection.encode(fetch_request(topic), 12) for _ in range(4)))
        wait_for(lambda: bool(disk.sent))
    wait_for(lambda: served.call(lambda broker: len(broker.connections)) == 1)
    wait_for(lambda: nothing_held(served))
    assert raw.offset(topic, 0) == BATCHES_COUNT


def test_a_disk_that_fails_in_the_middle_ends_the_connection(tmp_path: Path) -> None:
    """The length has been promised, so no error can be answered any more."""
    disk = CountingDisk()
    with BrokerThread(tmp_path, files=disk) as served:
        with RawConnection(served.bootstrap_servers) as raw:
            raw.create_topic("t")
            for _ in range(3):
                raw.produce("t", 0, batch(BATCH_SIZE))
            disk.fail("sendfile", errno.EIO, path="/t-0/", times=1000)
            disk.fail("preadv", errno.EIO, path="/t-0/", skip=1, times=1000)
            raw.send(raw.encode(fetch_request("t"), 12))
            with pytest.raises(ClosedError):
                raw.receive()
        wait_for(lambda: nothing_held(served))
        wait_for(lambda: served.call(lambda broker: broker.logs.directories[0].offline_reason) is not None)
