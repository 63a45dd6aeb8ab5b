"""The fast path of Fetch against the handler: the same bytes in, the same bytes out, whoever waits."""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import connection as connection_module
from millstream.core.broker.fast_fetch import FastFetch, WaitingFetch
from millstream.core.records import BatchBuilder
from millstream.core.wire import APIS, ApiKey, ErrorCode, decode, encode_request, parse_response_header
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from millstream.core.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData
from millstream.testing.raw import RawConnection, frame_of

VERSIONS = APIS[ApiKey.FETCH].versions
TOPICS = ("a", "a-longer-name", "n" * 130)
# Records of the batches in each partition: their ends are offsets 3, 4, 6 and 7.
BATCHES = ((3, 10), (1, 100), (2, 150_000), (1, 20))
END_OFFSET = 7
TIMESTAMP = 1_700_000_000_000


class _Learned(FastFetch):
    answered_count = 0
    waited_count = 0

    def accept(self, *arguments: object) -> object:  # type: ignore[override]
        answer = super().accept(*arguments)  # type: ignore[arg-type]
        type(self).waited_count += isinstance(answer, WaitingFetch)
        type(self).answered_count += isinstance(answer, list)
        return answer


class _NeverLearns(FastFetch):
    def learn(self, *_: object) -> None:
        """Every request goes to the handler."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    with BrokerThread(tmp_path_factory.mktemp("broker")) as broker, RawConnection(broker.bootstrap_servers) as raw:
        for topic in TOPICS:
            raw.create_topic(topic, 2)
            for records, size in BATCHES:
                assert raw.produce(topic, 0, _batch(records, size)).error_code == 0
        yield broker


def _batch(records: int, size: int) -> bytes:
    builder = BatchBuilder()
    for _ in range(records):
        builder.append(TIMESTAMP, b"k", os.urandom(size))
    return bytes(builder.build())


def _connect(served: BrokerThread, monkeypatch: pytest.MonkeyPatch, how: type[FastFetch]) -> RawConnection:
    """A connection that has fetched once, so that it keeps its kind of fast path."""
    monkeypatch.setattr(connection_module, "FastFetch", how)
    raw = RawConnection(served.bootstrap_servers)
    raw.fetch(TOPICS[0], 0, 0)
    return raw


def _topic_ids(served: BrokerThread) -> dict[str, bytes]:
    return served.call(lambda broker: {name: broker.metadata.image.topics[name].topic_id for name in TOPICS})


def _request(source: random.Random, version: int, ids: dict[str, bytes], usual: bool) -> bytes:
    def rarely(chance: float) -> bool:
        return not usual and source.random() < chance

    names = source.sample(TOPICS, 2 if rarely(0.1) else 1)
    topics = [
        FetchTopic(
            topic=name if version < 13 else "",
            topic_id=ids[name] if version >= 13 else bytes(16),
            partitions=[
                FetchPartition(
                    partition=source.choice((0, 0, 0, 1, 9 if rarely(0.5) else 0)),
                    current_leader_epoch=source.choice((-1, 0, 3)) if version >= 9 and rarely(0.3) else -1,
                    last_fetched_epoch=0 if version >= 12 and rarely(0.2) else -1,
                    fetch_offset=source.choice((0, 1, 3, 4, 5, 6, 7, 8, -1)),
                    partition_max_bytes=source.choice((0, 100, 200_000, 1 << 20)) if rarely(0.5) else 1 << 20,
                )
                for _ in range(2 if rarely(0.05) else 1)
            ],
        )
        for name in names
    ]
    request = FetchRequest(
        max_wait_ms=source.choice((0, 1, 2)) if rarely(0.5) else 1,
        min_bytes=source.choice((0, 1, 500)) if rarely(0.3) else 1,
        max_bytes=source.choice((0, 1000, 1 << 20)) if rarely(0.3) else 1 << 20,
        isolation_level=1 if rarely(0.1) else 0,
        session_epoch=-1,
        topics=topics,
        rack_id="r" if version >= 11 and rarely(0.1) else "",
    )
    client_id = source.choice(("client" * 40, "", None)) if rarely(0.1) else "c"
    body = encode_request(request, version, source.randrange(2**31), client_id)
    # The same with a tagged field nobody knows at its end.
    return body[:-1] + b"\x01\x63\x02hi" if version >= 12 and rarely(0.1) else body


@pytest.mark.parametrize("seed", range(3))
def test_both_paths_answer_the_same(served: BrokerThread, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    source = random.Random(seed)
    ids = _topic_ids(served)
    with _connect(served, monkeypatch, _Learned) as fast, _connect(served, monkeypatch, _NeverLearns) as slow:
        for version in VERSIONS:
            _Learned.answered_count = _Learned.waited_count = 0
            stream = [_request(source, version, ids, source.random() < 0.7) for _ in range(100)]
            for start in range(0, len(stream), 5):
                chunk = b"".join(map(frame_of, stream[start : start + 5]))
                fast.send(chunk)
                slow.send(chunk)
                for request in stream[start : start + 5]:
                    assert fast.receive() == slow.receive(), f"seed {seed}, version {version}: {request.hex()}"
            assert _Learned.answered_count > 10, f"the fast path answered {_Learned.answered_count} of {len(stream)}"
            assert _Learned.waited_count, f"in the fast path {_Learned.waited_count} of {len(stream)} waited"
    _wait_for(lambda: served.call(lambda broker: broker.connections.read_memory.used_bytes) == 0)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come"
        time.sleep(0.001)


def _waiters_count(served: BrokerThread) -> int:
    return served.call(lambda broker: broker.purgatory.waiters_count)


def _fetch(topic: str, offset: int, wait_ms: int) -> bytes:
    partition = FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1 << 20)
    request = FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=1 << 20,
        session_epoch=-1,
        topics=[FetchTopic(topic=topic, partitions=[partition])],
    )
    return frame_of(encode_request(request, 12, 7, "c"))


def _answer(raw: RawConnection) -> PartitionData:
    data = raw.receive()
    _, position = parse_response_header(ApiKey.FETCH, 12, data)
    response, _ = decode(FetchResponse, 12, data, position)
    return response.responses[0].partitions[0]


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[BrokerThread, RawConnection]]:
    """A broker with the topic `t`, and a connection whose fetch behind its end waits in the fast path."""
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as admin:
        admin.create_topic("t")
        admin.produce("t", 0, _batch(1, 10))
        monkeypatch.setattr(connection_module, "FastFetch", _Learned)
        with RawConnection(served.bootstrap_servers) as raw:
            raw.send(_fetch("t", 0, 60_000))
            assert _answer(raw).records
            _Learned.waited_count = 0
            raw.send(_fetch("t", 1, 60_000))
            _wait_for(lambda: _waiters_count(served) == 1)
            assert _Learned.waited_count == 1
            yield served, raw


def test_records_wake_it(waiting: tuple[BrokerThread, RawConnection]) -> None:
    served, raw = waiting
    batch = _batch(2, 10)
    with RawConnection(served.bootstrap_servers) as producer:
        assert producer.produce("t", 0, batch).base_offset == 1
    answer = _answer(raw)
    assert (answer.error_code, answer.high_watermark, len(answer.records or b"")) == (0, 3, len(batch))
    assert _waiters_count(served) == 0


def test_requests_behind_it_are_answered_after_it(waiting: tuple[BrokerThread, RawConnection]) -> None:
    served, raw = waiting
    raw.send(_fetch("t", 0, 60_000))
    with RawConnection(served.bootstrap_servers) as producer:
        producer.produce("t", 0, _batch(1, 10))
    first, second = bytes(_answer(raw).records or b""), bytes(_answer(raw).records or b"")
    assert second.endswith(first)
    assert len(second) > len(first) > 0


def test_its_time_ends_it(waiting: tuple[BrokerThread, RawConnection]) -> None:
    served, _ = waiting
    with RawConnection(served.bootstrap_servers) as raw:
        for wait_ms in (20, 20, 20):
            raw.send(_fetch("t", 1, wait_ms))
            answer = _answer(raw)
            assert (answer.error_code, answer.high_watermark, bytes(answer.records or b"")) == (0, 1, b"")
    assert _Learned.waited_count == 3
    assert _waiters_count(served) == 1


def test_what_changes_nothing_lets_it_wait_on(waiting: tuple[BrokerThread, RawConnection]) -> None:
    served, raw = waiting

    def wake(broker: object) -> None:
        partition = broker.partitions.get("t", 0)  # type: ignore[attr-defined]
        for waiter in tuple(partition.fetch_waiters):
            waiter.handle_progress(0)

    served.call(wake)
    assert _waiters_count(served) == 1
    with RawConnection(served.bootstrap_servers) as producer:
        producer.produce("t", 0, _batch(1, 10))
    assert _answer(raw).records


def test_a_deleted_topic_ends_it_with_the_handlers_error(waiting: tuple[BrokerThread, RawConnection]) -> None:
    served, raw = waiting
    with RawConnection(served.bootstrap_servers) as admin:
        admin.call(DeleteTopicsRequest(topics=[DeleteTopicState(name="t")], timeout_ms=10_000))
    assert _answer(raw).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert _waiters_count(served) == 0


def test_a_client_that_goes_leaves_nothing_behind(waiting: tuple[BrokerThread, RawConnection]) -> None:
    served, raw = waiting
    raw.close()
    _wait_for(lambda: _waiters_count(served) == 0)
    assert served.call(lambda broker: broker.purgatory.watches_count) == 0
