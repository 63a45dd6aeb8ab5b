"""Fetch over a socket: what comes, how much of it, when, and what stands against it."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker
from millstream.core.log import Log, LogRead
from millstream.core.records import BatchBuilder, iter_batches
from millstream.core.wire import ZERO_UUID, ApiKey, ErrorCode, decode, parse_response_header
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from millstream.core.wire.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)
from millstream.testing.raw import RawConnection

TIMESTAMP = 1_700_000_000_000


def batch(count: int = 1, size: int = 10) -> bytes:
    builder = BatchBuilder()
    for _ in range(count):
        builder.append(TIMESTAMP, None, b"x" * size)
    return bytes(builder.build())


def topic_id_of(served: BrokerThread, topic: str) -> bytes:
    return served.call(lambda broker: broker.metadata.image.topics[topic].topic_id)


def fetch(
    raw: RawConnection,
    partitions: Sequence[tuple[str | bytes, int, int]],
    *,
    version: int = 12,
    min_bytes: int = 1,
    max_bytes: int = 1 << 20,
    partition_max_bytes: int = 1 << 20,
    wait_ms: int = 0,
    epoch: int = -1,
    session: tuple[int, int] = (0, -1),
    forgotten: Sequence[tuple[str, int]] = (),
    isolation_level: int = 0,
) -> FetchResponse:
    request = FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        isolation_level=isolation_level,
        session_id=session[0],
        session_epoch=session[1],
        topics=[
            FetchTopic(
                topic=name if isinstance(name, str) else "",
                topic_id=name if isinstance(name, bytes) else ZERO_UUID,
                partitions=[
                    FetchPartition(
                        partition=index,
                        fetch_offset=offset,
                        partition_max_bytes=partition_max_bytes,
                        current_leader_epoch=epoch,
                    )
                ],
            )
            for name, index, offset in partitions
        ],
        forgotten_topics_data=[ForgottenTopic(topic=name, partitions=[index]) for name, index in forgotten],
    )
    response: FetchResponse = raw.call(request, version)
    return response


def only(response: FetchResponse) -> PartitionData:
    (topic,) = response.responses
    (partition,) = topic.partitions
    return partition


def ranges(data: PartitionData) -> list[tuple[int, int]]:
    assert data.records is not None
    return [(header.base_offset, header.last_offset) for header, _ in iter_batches(data.records)]


def waiters(broker: Broker) -> tuple[int, int]:
    return broker.purgatory.waiters_count, broker.purgatory.watches_count


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come"
        time.sleep(0.001)


@pytest.fixture
def topic(raw: RawConnection, new_name: Callable[[], str]) -> str:
    """A topic of two partitions; offsets 0-4, 5-5, 6-15 in partition 0, nothing in partition 1."""
    name = new_name()
    raw.create_topic(name, 2)
    for count in (5, 1, 10):
        raw.produce(name, 0, batch(count))
    return name


@pytest.mark.parametrize("version", range(4, 17))
def test_every_version_gives_what_is_there(served: BrokerThread, raw: RawConnection, topic: str, version: int) -> None:
    name = topic if version < 13 else topic_id_of(served, topic)
    data = only(fetch(raw, [(name, 0, 0)], version=version))
    assert data.error_code == 0
    assert (data.high_watermark, data.last_stable_offset) == (16, 16)
    assert ranges(data) == [(0, 4), (5, 5), (6, 15)]


def test_a_whole_batch_is_given_at_an_offset_inside(raw: RawConnection, topic: str) -> None:
    assert ranges(only(fetch(raw, [(topic, 0, 3)]))) == [(0, 4), (5, 5), (6, 15)]
    assert ranges(only(fetch(raw, [(topic, 0, 15)]))) == [(6, 15)]
    assert ranges(only(fetch(raw, [(topic, 0, 16)]))) == []


def test_at_least_one_batch_is_given_whatever_the_limits(raw: RawConnection, topic: str) -> None:
    assert ranges(only(fetch(raw, [(topic, 0, 0)], partition_max_bytes=1))) == [(0, 4)]
    assert ranges(only(fetch(raw, [(topic, 0, 0)], max_bytes=1))) == [(0, 4)]
    size = len(batch(5)) + len(batch(1))
    assert ranges(only(fetch(raw, [(topic, 0, 0)], partition_max_bytes=size))) == [(0, 4), (5, 5)]
    assert ranges(only(fetch(raw, [(topic, 0, 0)], partition_max_bytes=size - 1))) == [(0, 4)]


def test_the_response_limit_is_shared_by_the_partitions(raw: RawConnection, new_name: Callable[[], str]) -> None:
    name = new_name()
    raw.create_topic(name, 3)
    for partition in range(3):
        for _ in range(4):
            raw.produce(name, partition, batch(1, 1000))
    size = len(batch(1, 1000))
    answer = fetch(raw, [(name, p, 0) for p in range(3)], max_bytes=5 * size)
    assert [len(ranges(p)) for t in answer.responses for p in t.partitions] == [4, 1, 0]


def test_an_offset_outside_the_log_is_out_of_range(raw: RawConnection, topic: str) -> None:
    for offset in (-1, 17, 10_000):
        assert only(fetch(raw, [(topic, 0, offset)], wait_ms=60_000)).error_code == ErrorCode.OFFSET_OUT_OF_RANGE


def test_unknown_partitions_topics_and_ids(raw: RawConnection, topic: str) -> None:
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert only(fetch(raw, [(topic, 9, 0)])).error_code == unknown
    assert only(fetch(raw, [("nowhere", 0, 0)])).error_code == unknown
    assert only(fetch(raw, [(b"i" * 16, 0, 0)], version=13)).error_code == ErrorCode.UNKNOWN_TOPIC_ID


def test_leader_epochs_are_fenced(raw: RawConnection, topic: str) -> None:
    current = raw.call(_metadata(topic), 12).topics[0].partitions[0].leader_epoch
    assert only(fetch(raw, [(topic, 0, 0)], epoch=current)).error_code == 0
    assert only(fetch(raw, [(topic, 0, 0)], epoch=current + 1)).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
    if current > 0:
        assert only(fetch(raw, [(topic, 0, 0)], epoch=current - 1)).error_code == ErrorCode.FENCED_LEADER_EPOCH


def _metadata(topic: str) -> Any:
    from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic

    return MetadataRequest(topics=[MetadataRequestTopic(name=topic)])


def test_a_waiting_fetch_is_answered_by_the_next_produce(served: BrokerThread, raw: RawConnection, topic: str) -> None:
    got: list[FetchResponse] = []

    def consume() -> None:
        with RawConnection(served.bootstrap_servers) as consumer:
            got.append(fetch(consumer, [(topic, 0, 16), (topic, 1, 0)], wait_ms=60_000))

    thread = threading.Thread(target=consume)
    thread.start()
    wait_for(lambda: served.call(waiters) == (1, 2))
    raw.produce(topic, 1, batch(2))
    thread.join(90)
    assert served.call(waiters) == (0, 0)
    assert [(p.partition_index, ranges(p)) for t in got[0].responses for p in t.partitions] == [(0, []), (1, [(0, 1)])]


def test_a_fetch_waits_for_its_min_bytes_over_all_partitions(
    served: BrokerThread, raw: RawConnection, topic: str
) -> None:
    got: list[FetchResponse] = []
    existing = len(batch(5)) + len(batch(1)) + len(batch(10))
    more = len(batch(1, 100))

    def consume() -> None:
        with RawConnection(served.bootstrap_servers) as consumer:
            wanted = existing + 2 * more
            got.append(fetch(consumer, [(topic, 0, 0), (topic, 1, 0)], min_bytes=wanted, wait_ms=60_000))

    thread = threading.Thread(target=consume)
    thread.start()
    wait_for(lambda: served.call(waiters) == (1, 2))
    raw.produce(topic, 0, batch(1, 100))
    assert served.call(waiters) == (1, 2)
    raw.produce(topic, 1, batch(1, 100))
    thread.join(90)
    assert sum(len(p.records or b"") for t in got[0].responses for p in t.partitions) == existing + 2 * more


def test_time_ends_the_wait_with_what_there_is(raw: RawConnection, topic: str) -> None:
    started = time.monotonic()
    data = only(fetch(raw, [(topic, 0, 0)], min_bytes=1 << 20, wait_ms=100))
    assert time.monotonic() - started >= 0.099
    assert ranges(data) == [(0, 4), (5, 5), (6, 15)]
    assert ranges(only(fetch(raw, [(topic, 1, 0)], wait_ms=20))) == []


def test_what_is_sent_is_counted_once_however_often_it_was_read(
    served: BrokerThread, raw: RawConnection, topic: str
) -> None:
    data = only(fetch(raw, [(topic, 0, 0)], min_bytes=1 << 20, wait_ms=10))
    partition = served.broker.partitions.get(topic, 0)
    assert partition is not None
    assert served.call(lambda broker: partition.metrics.bytes_out) == len(data.records or b"") > 0


def test_who_hangs_up_leaves_nothing_waiting(served: BrokerThread, topic: str) -> None:
    consumer = RawConnection(served.bootstrap_servers)
    request = FetchRequest(
        max_wait_ms=600_000,
        min_bytes=1,
        session_epoch=-1,
        topics=[FetchTopic(topic=topic, partitions=[FetchPartition(partition=1, partition_max_bytes=1000)])],
    )
    consumer.send(consumer.encode(request, 12))
    wait_for(lambda: served.call(waiters) == (1, 1))
    consumer.socket.close()
    wait_for(lambda: served.call(waiters) == (0, 0))
    partition = served.broker.partitions.get(topic, 1)
    assert partition is not None
    assert served.call(lambda broker: len(partition.fetch_waiters)) == 0


def waiting_request(raw: RawConnection, topic: str, offset: int, max_wait_ms: int = 60_000) -> bytes:
    """A request for what comes into partition 1 from `offset` on."""
    partition = FetchPartition(partition=1, fetch_offset=offset, partition_max_bytes=1 << 20)
    topics = [FetchTopic(topic=topic, partitions=[partition])]
    return raw.encode(FetchRequest(max_wait_ms=max_wait_ms, min_bytes=1, session_epoch=-1, topics=topics), 12)


def received(raw: RawConnection) -> PartitionData:
    data = raw.receive()
    _, position = parse_response_header(ApiKey.FETCH, 12, data)
    return only(decode(FetchResponse, 12, data, position)[0])


def test_requests_behind_a_waiting_fetch_are_answered_after_it(
    served: BrokerThread, raw: RawConnection, topic: str
) -> None:
    raw.produce(topic, 1, batch(1))
    with RawConnection(served.bootstrap_servers) as consumer:
        consumer.send(waiting_request(consumer, topic, 1) + waiting_request(consumer, topic, 0))
        wait_for(lambda: served.call(waiters) == (1, 1))
        raw.produce(topic, 1, batch(2))
        assert ranges(received(consumer)) == [(1, 2)]
        assert ranges(received(consumer)) == [(0, 0), (1, 2)]


@pytest.mark.parametrize("what", ["more", "its end"])
def test_what_comes_while_a_thread_reads_is_not_waited_for(
    served: BrokerThread, topic: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nobody watches the partition then; and the thread finds nothing where a cleaner left only what came."""
    plain_read = Log.read
    asked, may_go_on = threading.Event(), threading.Event()
    read_on_threads: list[int] = []

    def read(self: Log, offset: int, size_bytes_max: int, **options: Any) -> LogRead:
        if self.topic_partition.topic != topic:
            return plain_read(self, offset, size_bytes_max, **options)
        if not options["wait"]:
            raise BlockingIOError
        read_on_threads.append(options["end_offset"])
        if len(read_on_threads) > 1:
            return plain_read(self, offset, size_bytes_max, **options)
        asked.set()
        assert may_go_on.wait(90)
        return LogRead(memoryview(b""), offset, offset)

    monkeypatch.setattr(Log, "read", read)
    bootstrap = served.bootstrap_servers
    with RawConnection(bootstrap) as producer, RawConnection(bootstrap, timeout_s=90) as consumer:
        producer.produce(topic, 1, batch(3))
        consumer.send(waiting_request(consumer, topic, 0, max_wait_ms=600_000))
        assert asked.wait(90)
        if what == "more":
            producer.produce(topic, 1, batch(2))
        else:
            producer.call(DeleteTopicsRequest(topics=[DeleteTopicState(name=topic)], timeout_ms=30_000))
        may_go_on.set()
        answer = received(consumer)
    if what == "more":
        assert ranges(answer) == [(0, 2), (3, 4)]
        assert read_on_threads == [3, 5]
    else:
        assert answer.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_what_changes_nothing_lets_a_fetch_wait_on(served: BrokerThread, raw: RawConnection, topic: str) -> None:
    def wake(broker: Broker) -> None:
        partition = broker.partitions.get(topic, 1)
        assert partition is not None
        for waiter in tuple(partition.fetch_waiters):
            waiter.handle_progress(0)

    with RawConnection(served.bootstrap_servers) as consumer:
        consumer.send(waiting_request(consumer, topic, 0))
        wait_for(lambda: served.call(waiters) == (1, 1))
        served.call(wake)
        assert served.call(waiters) == (1, 1)
        raw.produce(topic, 1, batch(1))
        assert ranges(received(consumer)) == [(0, 0)]


def test_deleting_the_topic_ends_the_wait(served: BrokerThread, raw: RawConnection, topic: str) -> None:
    got: list[FetchResponse] = []

    def consume() -> None:
        with RawConnection(served.bootstrap_servers) as consumer:
            got.append(fetch(consumer, [(topic, 1, 0)], wait_ms=60_000))

    thread = threading.Thread(target=consume)
    thread.start()
    wait_for(lambda: served.call(waiters) == (1, 1))
    raw.call(DeleteTopicsRequest(topics=[DeleteTopicState(name=topic)], timeout_ms=30_000))
    thread.join(90)
    assert only(got[0]).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("version", [7, 12, 13, 16])
def test_a_session_sends_only_what_is_new(served: BrokerThread, raw: RawConnection, topic: str, version: int) -> None:
    name: str | bytes = topic if version < 13 else topic_id_of(served, topic)
    first = fetch(raw, [(name, 0, 16), (name, 1, 0)], session=(0, 0), version=version)
    assert first.session_id > 0
    assert len([p for t in first.responses for p in t.partitions]) == 2
    nothing = fetch(raw, [], session=(first.session_id, 1), version=version)
    assert nothing.session_id == first.session_id
    assert nothing.responses == []
    raw.produce(topic, 1, batch(3))
    news = fetch(raw, [], session=(first.session_id, 2), version=version)
    assert ranges(only(news)) == [(0, 2)]
    moved = fetch(raw, [(name, 1, 3)], session=(first.session_id, 3), version=version)
    assert moved.responses == []
    wrong = fetch(raw, [], session=(first.session_id, 3), version=version)
    assert wrong.error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    gone = fetch(raw, [], session=(first.session_id + 1, 1), version=version)
    assert gone.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_read_committed_answers_the_same_where_no_transaction_is_open(raw: RawConnection, topic: str) -> None:
    data = only(fetch(raw, [(topic, 0, 0)], isolation_level=1))
    assert ranges(data) == [(0, 4), (5, 5), (6, 15)]
    assert data.aborted_transactions == []
    assert only(fetch(raw, [(topic, 0, 0)])).aborted_transactions is None


def test_a_flipped_bit_is_reported_and_not_served(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str]
) -> None:
    name = new_name()
    raw.create_topic(name)
    for _ in range(3):
        raw.produce(name, 0, batch(2, 100))
    path = served.data_directory / f"{name}-0" / f"{0:020}.log"
    size = len(batch(2, 100))
    with path.open("r+b") as file:
        file.seek(size + 100)
        byte = file.read(1)
        file.seek(size + 100)
        file.write(bytes([byte[0] ^ 4]))
    assert ranges(only(fetch(raw, [(name, 0, 0)]))) == [(0, 1)]
    assert only(fetch(raw, [(name, 0, 2)])).error_code == ErrorCode.CORRUPT_MESSAGE
    assert ranges(only(fetch(raw, [(name, 0, 4)]))) == [(4, 5)]
    partition = served.broker.partitions.get(name, 0)
    assert partition is not None
    assert partition.log is not None
    assert partition.log.corrupt_ranges


def test_large_reads_come_whole(raw: RawConnection, new_name: Callable[[], str]) -> None:
    name = new_name()
    raw.create_topic(name)
    for _ in range(20):
        raw.produce(name, 0, batch(1, 500_000))
    data = only(fetch(raw, [(name, 0, 0)], max_bytes=50 << 20, partition_max_bytes=50 << 20))
    assert ranges(data) == [(offset, offset) for offset in range(20)]


def test_read_memory_comes_back(served: BrokerThread, raw: RawConnection, topic: str) -> None:
    for _ in range(10):
        fetch(raw, [(topic, 0, 0), (topic, 1, 0), ("nowhere", 0, 0)], wait_ms=1, min_bytes=1 << 20)
        fetch(raw, [(topic, 0, 0)])
    wait_for(lambda: served.call(lambda broker: broker.connections.read_memory.used_bytes) == 0)
