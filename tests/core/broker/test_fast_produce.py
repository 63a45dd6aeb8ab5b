"""The fast path of Produce against the handler: the same bytes in, the same bytes out, the same log."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import connection as connection_module
from millstream.core.broker.fast_produce import FastProduce
from millstream.core.records import BatchBuilder, Compression
from millstream.core.wire import APIS, ApiKey, encode_request
from millstream.core.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from millstream.testing.raw import RawConnection, frame_of

TOPICS = ("a", "a-longer-name", "n" * 126, "n" * 130)
CLIENT_IDS = ("c", "client-" * 10, "x" * 140, "y" * 300, None, "")
VERSIONS = APIS[ApiKey.PRODUCE].versions
TIMESTAMP = 1_700_000_000_000


class _Learned(FastProduce):
    accepted_count = 0

    def accept(self, *arguments: Any, **named: Any) -> Any:
        entry = super().accept(*arguments, **named)
        type(self).accepted_count += entry is not None
        return entry


class _NeverLearns(FastProduce):
    def learn(self, *_: object) -> None:
        """Every request goes to the handler."""


@pytest.fixture
def pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[BrokerThread, BrokerThread, pytest.MonkeyPatch]]:
    """Two brokers with the same topics."""
    with BrokerThread(tmp_path / "fast") as fast, BrokerThread(tmp_path / "slow") as slow:
        for served in (fast, slow):
            with RawConnection(served.bootstrap_servers) as raw:
                for topic in TOPICS:
                    raw.create_topic(topic, 2)
        yield fast, slow, monkeypatch


def _batch(source: random.Random) -> bytes:
    codec = source.choice((Compression.NONE, Compression.NONE, Compression.ZSTD))
    builder = BatchBuilder(compression=codec, transactional=source.random() < 0.03)
    for _ in range(source.choice((1, 1, 1, 20))):
        builder.append(TIMESTAMP, b"k", bytes(source.choice((0, 10, 100, 20_000, 60_000))))
    data = bytearray(builder.build())
    if source.random() < 0.1:
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    if source.random() < 0.03:
        del data[source.randrange(len(data)) :]
    return bytes(data)


def _request(source: random.Random, version: int) -> bytes:
    names = source.sample(TOPICS if source.random() < 0.4 else TOPICS[:2], 1 if source.random() < 0.9 else 2)
    request = ProduceRequest(
        acks=source.choice((1, -1, 2)) if source.random() < 0.2 else 1,
        timeout_ms=1000,
        transactional_id="tx" if source.random() < 0.02 else None,
        topic_data=[
            TopicProduceData(
                name=name if source.random() < 0.97 else "missing",
                partition_data=[
                    PartitionProduceData(index=source.choice((0, 0, 1, 5)), records=_batch(source))
                    for _ in range(1 if source.random() < 0.9 else 2)
                ],
            )
            for name in names
        ],
    )
    return encode_request(
        request, version, source.randrange(2**31), source.choice(CLIENT_IDS) if source.random() < 0.3 else "c"
    )


def _with_unknown_tag(request: bytes) -> bytes:
    """The same request with a tagged field nobody knows at its end."""
    assert request[-1] == 0
    return request[:-1] + b"\x01\x63\x02hi"


def _answers(served: BrokerThread, stream: list[bytes], chunk_size: int) -> bytes:
    with RawConnection(served.bootstrap_servers) as raw:
        data = b"".join(map(frame_of, stream))
        out = b""
        sent = 0
        received = 0
        while sent < len(data):
            raw.send(data[sent : sent + chunk_size])
            sent += chunk_size
        while received < len(stream):
            answer = raw.receive()
            out += struct.pack(">i", len(answer)) + answer
            received += 1
        return out


def _log_bytes(served: BrokerThread) -> dict[str, bytes]:
    return {
        str(path.relative_to(served.data_directory)): path.read_bytes()
        for path in sorted(served.data_directory.glob("*/*.log"))
    }


@pytest.mark.parametrize("seed", range(3))
def test_both_paths_answer_and_append_the_same(
    pair: tuple[BrokerThread, BrokerThread, pytest.MonkeyPatch], seed: int
) -> None:
    fast, slow, monkeypatch = pair
    source = random.Random(seed)
    for version in VERSIONS:
        stream = [_request(source, version) for _ in range(120)]
        if version >= 9:
            stream = [_with_unknown_tag(request) if source.random() < 0.1 else request for request in stream]
        chunk_size = source.choice((1 << 20, 70_001, 5003))
        _Learned.accepted_count = 0
        monkeypatch.setattr(connection_module, "FastProduce", _Learned)
        got = _answers(fast, stream, chunk_size)
        assert _Learned.accepted_count > 10, f"the fast path took {_Learned.accepted_count} of {len(stream)}"
        monkeypatch.setattr(connection_module, "FastProduce", _NeverLearns)
        expected = _answers(slow, stream, chunk_size)
        assert got == expected, f"seed {seed}, version {version}"
        assert _log_bytes(fast) == _log_bytes(slow), f"seed {seed}, version {version}"


def test_a_deleted_and_recreated_topic_is_not_taken_for_the_old_one(
    pair: tuple[BrokerThread, BrokerThread, pytest.MonkeyPatch],
) -> None:
    from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

    fast, _, _ = pair
    builder = BatchBuilder()
    builder.append(TIMESTAMP, b"k", b"v")
    data = bytes(builder.build())
    with RawConnection(fast.bootstrap_servers) as raw, RawConnection(fast.bootstrap_servers) as admin:
        assert [raw.produce("a", 0, data).base_offset for _ in range(3)] == [0, 1, 2]
        answer = admin.call(DeleteTopicsRequest(topics=[DeleteTopicState(name="a")], timeout_ms=10_000))
        assert answer.responses[0].error_code == 0
        assert raw.produce("a", 0, data).error_code != 0
        admin.create_topic("a", 1)
        assert [raw.produce("a", 0, data).base_offset for _ in range(3)] == [0, 1, 2]
