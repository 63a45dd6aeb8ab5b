"""Requests that wait for a disk: in order, bounded, and leaving nothing behind, however they end."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker
from millstream.core.log.files import Buffer
from millstream.core.records import BatchBuilder, Compression, crc32c, iter_batches, iter_records
from millstream.core.wire import ErrorCode, decode, parse_response_header
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from millstream.core.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from millstream.core.wire.messages.metadata import MetadataRequest
from millstream.core.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from millstream.testing.faulty_disk import FaultyDisk
from millstream.testing.raw import ClosedError, RawConnection

LARGE = 100_000
DEADLINE_S = 90.0


class HeldDisk(FaultyDisk):
    """A disk whose writes to logs wait while it is held."""

    def __init__(self) -> None:
        super().__init__()
        self._free = threading.Event()
        self._free.set()
        self.waiting = threading.Semaphore(0)

    def hold(self) -> None:
        while self.waiting.acquire(blocking=False):
            continue  # what waited in another test
        self._free.clear()

    def let_go(self) -> None:
        self._free.set()

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        if not self._free.is_set():
            self.waiting.release()
            assert self._free.wait(DEADLINE_S), "held for too long"
        return super().pwritev(fd, buffers, position)


@pytest.fixture(scope="module")
def disk() -> HeldDisk:
    return HeldDisk()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, disk: HeldDisk) -> Iterator[BrokerThread]:
    """A broker on the disk; memory for unwritten batches is 4 MB."""
    settings = {"queued.max.request.bytes": "4000000", "socket.request.max.bytes": "4000000"}
    with BrokerThread(tmp_path_factory.mktemp("slow") / "data", settings, disk) as broker:
        yield broker
        disk.let_go()
        disk.heal()


@pytest.fixture
def raw(slow: BrokerThread, disk: HeldDisk) -> Iterator[RawConnection]:
    """A connection; when it and all others are gone nothing is held any more."""
    with RawConnection(slow.bootstrap_servers) as connection:
        yield connection
    disk.let_go()
    wait_for(lambda: slow.call(held) == NOTHING, lambda: slow.call(held))


NOTHING = {"frames": 0, "reads": 0, "unwritten": 0, "watches": 0, "appends": 0, "fetches": 0, "connections": 0}


def held(broker: Broker) -> dict[str, int]:
    partitions = list(broker.partitions)
    return {
        "frames": broker.connections.pool.used_bytes,
        "reads": broker.connections.read_memory.used_bytes,
        "unwritten": broker.appends.unwritten_bytes + len(broker.appends._unwritten),
        "watches": broker.purgatory.watches_count + broker.purgatory.waiters_count,
        "appends": sum(len(partition._append_waiters) for partition in partitions),
        "fetches": sum(len(partition.fetch_waiters) for partition in partitions),
        "connections": len(broker.connections),
    }


def wait_for(condition: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.002)


def batch(
    value: bytes, *, producer: tuple[int, int, int] = (-1, -1, -1), codec: Compression = Compression.NONE
) -> bytes:
    builder = BatchBuilder(
        producer_id=producer[0], producer_epoch=producer[1], base_sequence=producer[2], compression=codec
    )
    builder.append(int(time.time() * 1000), b"k", value)
    return bytes(builder.build())


def produce(topic: str, data: bytes, acks: int = -1) -> ProduceRequest:
    partition = PartitionProduceData(index=0, records=data)
    return ProduceRequest(
        acks=acks, timeout_ms=60_000, topic_data=[TopicProduceData(name=topic, partition_data=[partition])]
    )


def fetch(topic: str, offset: int, wait_ms: int) -> FetchRequest:
    partition = FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1 << 20)
    return FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=1 << 20,
        session_epoch=-1,
        topics=[FetchTopic(topic=topic, partitions=[partition])],
    )


def acknowledged(connection: RawConnection) -> tuple[int, int]:
    """The next answer, to a Produce of version 11: (error code, base offset)."""
    answer = connection.receive()
    _, position = parse_response_header(0, 11, answer)
    partition = decode(ProduceResponse, 11, answer, position)[0].responses[0].partition_responses[0]
    return partition.error_code, partition.base_offset


def values(raw: RawConnection, topic: str) -> list[bytes | None]:
    found: list[bytes | None] = []
    end = raw.offset(topic, 0)
    while len(found) < end:
        data = raw.fetch(topic, 0, len(found), size_bytes_max=4 << 20).records
        found += [record.value and bytes(record.value) for _, b in iter_batches(data) for record in iter_records(b)]
    return found


def on_the_thread(broker: Broker) -> None:
    """Let every write go to the directory's thread."""
    for directory in broker.logs.directories:
        directory.write_latency_us = 1e12


def hold(slow: BrokerThread, disk: HeldDisk) -> None:
    slow.call(on_the_thread)
    disk.hold()


def prepared(raw: RawConnection, name: str, **configs: str) -> str:
    """A topic whose segment is open."""
    raw.create_topic(name, 1, **configs)
    assert raw.produce(name, 0, batch(b"first")).base_offset == 0
    return name


def test_answers_keep_the_order_of_fast_slow_opened_and_unanswered_requests(
    slow: BrokerThread, raw: RawConnection, disk: HeldDisk
) -> None:
    topic = prepared(raw, "order")
    opened = prepared(raw, "order-opened", compression_type="lz4")
    hold(slow, disk)
    frames, expected = [], []
    for number in range(40):
        name = opened if number % 4 == 3 else topic
        size = LARGE if number % 7 == 6 else 10
        acks = (-1, 1, 0)[number % 3]
        frames.append(raw.encode(produce(name, batch(b"%d" % number + b"x" * size), acks), 11))
        if acks:
            expected.append(raw._correlation_id)
        if number % 10 == 9:
            frames.append(raw.encode(MetadataRequest(topics=[]), 12))
            expected.append(raw._correlation_id)
    sender = threading.Thread(target=raw.send, args=(b"".join(frames),))
    sender.start()
    assert disk.waiting.acquire(timeout=DEADLINE_S)
    disk.let_go()
    answers = [int.from_bytes(raw.receive()[:4]) for _ in expected]
    sender.join(DEADLINE_S)
    assert answers == expected
    written = [v.rstrip(b"x") for v in values(raw, topic)[1:] if v is not None]
    assert written == [b"%d" % n for n in range(40) if n % 4 != 3]
    assert [v and v.rstrip(b"x") for v in values(raw, opened)[1:]] == [b"%d" % n for n in range(40) if n % 4 == 3]


def test_what_a_produce_without_answer_unblocks_is_not_forgotten(slow: BrokerThread, raw: RawConnection) -> None:
    topic = prepared(raw, "unblocked")
    # The fetch waits for what the first request brings, and the third was received with both.
    frames = [
        raw.encode(produce(topic, batch(b"second"), acks=0), 11),
        raw.encode(fetch(topic, 1, 10_000), 12),
        raw.encode(MetadataRequest(topics=[]), 12),
    ]
    raw.send(b"".join(frames))
    first = raw._correlation_id - 1
    assert [int.from_bytes(raw.receive()[:4]) for _ in range(2)] == [first, first + 1]


@pytest.mark.parametrize("size", [10, LARGE], ids=["small", "large"])
def test_a_failed_write_fails_all_that_wait_and_nothing_else(
    slow: BrokerThread, raw: RawConnection, disk: HeldDisk, size: int
) -> None:
    topic = prepared(raw, f"failing-{size}")
    other = prepared(raw, f"unharmed-{size}")
    hold(slow, disk)
    connections = [RawConnection(slow.bootstrap_servers) for _ in range(3)]
    for connection in connections:
        for number in range(3):
            connection.send(connection.encode(produce(topic, batch(b"%d" % number + b"x" * size)), 11))
    assert disk.waiting.acquire(timeout=DEADLINE_S)
    wait_for(lambda: slow.call(in_flight) == 9)
    assert slow.call(lambda broker: broker.appends.unwritten_bytes) >= 9 * size
    raw.send(raw.encode(produce(other, batch(b"second")), 11))
    disk.fail("pwritev", errno.ENOSPC, path=f"{topic}-0", times=1)
    disk.let_go()
    for connection in connections:
        assert [acknowledged(connection) for _ in range(3)] == [(ErrorCode.KAFKA_STORAGE_ERROR, -1)] * 3
    assert acknowledged(raw) == (0, 1)
    for connection in connections:
        answer = connection.call(produce(topic, batch(b"again")), 11).responses[0].partition_responses[0]
        assert answer.error_code == 0
        connection.close()
    assert values(raw, topic) == [b"first", b"again", b"again", b"again"]
    assert values(raw, other) == [b"first", b"second"]


@pytest.mark.parametrize("codec", [Compression.NONE, Compression.LZ4], ids=["as-it-is", "opened"])
def test_an_acks_0_batch_that_fails_after_it_was_accepted_ends_its_connection(
    slow: BrokerThread, raw: RawConnection, disk: HeldDisk, codec: Compression
) -> None:
    topic = prepared(
        raw, f"unanswered-{codec.name}", compression_type="producer" if codec is Compression.NONE else "gzip"
    )
    other = prepared(raw, f"answered-{codec.name}")
    with RawConnection(slow.bootstrap_servers) as unlucky, RawConnection(slow.bootstrap_servers) as lucky:
        frame = unlucky.encode(produce(topic, batch(b"lost", codec=codec), acks=0), 11)
        unlucky.send(frame)  # learned by the fast path, and written
        wait_for(lambda: raw.offset(topic, 0) == 2)
        hold(slow, disk)
        lucky.send(lucky.encode(produce(other, batch(b"kept"), acks=0), 11))
        unlucky.send(frame)
        wait_for(lambda: slow.call(lambda broker: len(broker.partitions.leader(topic, 0).unanswered)) == 1)
        disk.fail("pwritev", errno.ENOSPC, path=f"{topic}-0", times=1)
        disk.let_go()
        with pytest.raises(ClosedError):
            unlucky.receive()
        assert lucky.offset(other, 0) >= 1  # its connection serves on
        wait_for(lambda: raw.offset(other, 0) == 2)
    assert raw.offset(topic, 0) == 2
    assert slow.call(lambda broker: sum(len(partition.unanswered) for partition in broker.partitions)) == 0


def test_an_acks_0_batch_that_cannot_be_opened_ends_its_connection(slow: BrokerThread, raw: RawConnection) -> None:
    topic = prepared(raw, "unopened", compression_type="gzip")
    good = batch(b"x" * 100, codec=Compression.LZ4)
    broken = good[:61] + bytes(len(good) - 61)
    broken = broken[:17] + crc32c(broken[21:]).to_bytes(4, "big") + broken[21:]
    with RawConnection(slow.bootstrap_servers) as unlucky:
        unlucky.send(unlucky.encode(produce(topic, broken, acks=0), 11))
        with pytest.raises(ClosedError):
            unlucky.receive()
    assert raw.offset(topic, 0) == 1


def test_a_duplicate_waits_for_its_original(slow: BrokerThread, raw: RawConnection, disk: HeldDisk) -> None:
    topic = prepared(raw, "duplicated")
    producer_id = raw.new_producer_id()
    data = batch(b"once", producer=(producer_id, 0, 0))
    with RawConnection(slow.bootstrap_servers) as second:
        for outcome in ("failed", "written"):
            hold(slow, disk)
            raw.send(raw.encode(produce(topic, data), 11))
            assert disk.waiting.acquire(timeout=DEADLINE_S)
            second.send(second.encode(produce(topic, data), 11))
            wait_for(lambda: slow.call(in_flight) == 2)
            if outcome == "failed":
                disk.fail("pwritev", errno.ENOSPC, path=f"{topic}-0", times=1)
            disk.let_go()
            answers = [acknowledged(raw), acknowledged(second)]
            assert answers == ([(ErrorCode.KAFKA_STORAGE_ERROR, -1)] * 2 if outcome == "failed" else [(0, 1)] * 2)
    assert values(raw, topic) == [b"first", b"once"]


def in_flight(broker: Broker) -> int:
    connections: Any = broker.connections
    return sum(len(connection._in_flight) for connection in connections)


def test_a_frame_whose_connection_is_lost_is_written_as_it_was(
    slow: BrokerThread, raw: RawConnection, disk: HeldDisk
) -> None:
    topic = prepared(raw, "lost")
    hold(slow, disk)
    before = slow.call(lambda broker: len(broker.connections))
    with RawConnection(slow.bootstrap_servers) as lost:
        for number in range(3):
            lost.send(lost.encode(produce(topic, batch(b"%d" % number * LARGE)), 11))
        wait_for(lambda: slow.call(in_flight) == 3)
    assert disk.waiting.acquire(timeout=DEADLINE_S)
    wait_for(lambda: slow.call(lambda broker: len(broker.connections)) == before)
    # What its frames lay in must not be given to these.
    for number in range(3, 6):
        raw.send(raw.encode(produce(topic, batch(b"%d" % number * LARGE)), 11))
    wait_for(lambda: slow.call(in_flight) == 3)
    disk.let_go()
    assert [acknowledged(raw) for _ in range(3)] == [(0, 4), (0, 5), (0, 6)]
    assert values(raw, topic) == [b"first", *(b"%d" % number * LARGE for number in range(6))]


def test_deleting_the_topic_answers_who_waits(slow: BrokerThread, raw: RawConnection, disk: HeldDisk) -> None:
    topic = prepared(raw, "deleted")
    hold(slow, disk)
    with RawConnection(slow.bootstrap_servers) as producer, RawConnection(slow.bootstrap_servers) as consumer:
        consumer.send(consumer.encode(fetch(topic, 1, 60_000), 12))
        producer.send(producer.encode(produce(topic, batch(b"never")), 11))
        producer.send(producer.encode(produce(topic, batch(b"x" * LARGE)), 11))
        assert disk.waiting.acquire(timeout=DEADLINE_S)
        wait_for(lambda: slow.call(in_flight) == 3)
        raw.send(raw.encode(DeleteTopicsRequest(topics=[DeleteTopicState(name=topic)], timeout_ms=60_000), 6))
        wait_for(lambda: slow.call(in_flight) <= 2 or slow.broker.partitions.get(topic, 0) is None)
        disk.let_go()
        raw.receive()
        codes = {acknowledged(producer)[0] for _ in range(2)}
        assert codes <= {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.NONE}
        consumer.receive()
    assert raw.fetch(topic, 0, 0).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("acks", [0, 1])
@pytest.mark.parametrize("size", [1000, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("kind", ["plain", "opened"])
def test_what_waits_for_the_disk_is_bounded(
    slow: BrokerThread, raw: RawConnection, disk: HeldDisk, acks: int, size: int, kind: str
) -> None:
    topic = prepared(raw, f"bounded-{acks}-{size}-{kind}", compression_type="producer" if kind == "plain" else "gzip")
    hold(slow, disk)
    count = 12_000_000 // size
    producers = [RawConnection(slow.bootstrap_servers) for _ in range(2)]
    data = batch(b"x" * size)

    def send(producer: RawConnection) -> None:
        for _ in range(count):
            producer.send(producer.encode(produce(topic, data, acks), 11))

    threads = [threading.Thread(target=send, args=(producer,)) for producer in producers]
    for thread in threads:
        thread.start()
    answers = [0] * len(producers)
    if acks:

        def receive(index: int) -> None:
            for _ in range(count):
                assert acknowledged(producers[index])[0] == 0
                answers[index] += 1

        threads += [threading.Thread(target=receive, args=(index,)) for index in range(2)]
        for thread in threads[2:]:
            thread.start()
    peak = 0
    assert disk.waiting.acquire(timeout=DEADLINE_S)
    last = (-1, -1)
    unchanged = 0
    while unchanged < 20:
        now = slow.call(lambda broker: (broker.appends.unwritten_bytes, broker.connections.pool.used_bytes))
        peak = max(peak, sum(now))
        unchanged = unchanged + 1 if now == last else 0
        last = now
        time.sleep(0.005)
    # Two budgets, and what each of two connections had accepted in its last pass.
    assert peak < 2 * 4_000_000 + 2 * 600_000
    # Readers are not held up by it.
    assert raw.fetch(topic, 0, 0).error_code == 0
    disk.let_go()
    for thread in threads:
        thread.join(DEADLINE_S)
    wait_for(lambda: raw.offset(topic, 0) == 1 + 2 * count, lambda: raw.offset(topic, 0))
    assert answers == ([count] * 2 if acks else [0] * 2)
    for producer in producers:
        producer.close()


def test_who_waits_for_room_may_hang_up(slow: BrokerThread, raw: RawConnection, disk: HeldDisk) -> None:
    topic = prepared(raw, "impatient")
    hold(slow, disk)
    producers = [RawConnection(slow.bootstrap_servers, timeout_s=0.2) for _ in range(3)]
    frame = raw.encode(produce(topic, batch(b"x" * LARGE), acks=0), 11)
    for producer in producers:
        with suppress(TimeoutError):
            while True:
                producer.send(frame)
        producer.close()
    wait_for(lambda: slow.call(lambda broker: len(broker.appends._room_waiters)) > 0)
    disk.let_go()
    wait_for(lambda: slow.call(lambda broker: len(broker.connections)) == 1)
    assert slow.call(lambda broker: len(broker.appends._room_waiters)) == 0
    assert raw.produce(topic, 0, batch(b"last")).error_code == 0
