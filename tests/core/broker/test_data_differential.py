"""The data APIs against Apache Kafka 4.3: the same requests to both brokers, and the same answers.

Each story is a list of steps; a step makes its request for one side, since topic ids, producer ids and fetch sessions
are each broker's own. Answers are compared whole, with error codes, but for those ids, times, the order of topics and
partitions (Kafka's is a hash table's), and the words of messages: we may say something where Kafka is silent.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.records import HEADER_SIZE, BatchBuilder, Compression, iter_batches
from millstream.core.wire import APIS, ZERO_UUID, ApiKey, ErrorCode, WireError, encode
from millstream.core.wire.messages import (
    api_versions,
    fetch,
    init_producer_id,
    list_offsets,
    metadata,
    offset_for_leader_epoch,
    produce,
)
from millstream.testing.kafka import ApacheKafka
from millstream.testing.raw import ClosedError, RawConnection

pytestmark = pytest.mark.java

UNKNOWN_ID: Final = bytes(range(16))
# Records' times: long ago for both brokers, so that retention is the only one who could mind; the topics keep all.
TIME_MS: Final = 1_700_000_000_000
DAY_MS: Final = 24 * 3600 * 1000


class Side:
    """One broker, and what it alone gave away."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self.raw = RawConnection(bootstrap)
        self.kept: dict[str, Any] = {}
        self._ids: dict[str, bytes] = {}

    def reconnect(self) -> None:
        """Go on after the broker has closed the connection."""
        self.raw.close()
        self.raw = RawConnection(self._bootstrap)

    def id_of(self, topic: str) -> bytes:
        """The topic's id."""
        if topic not in self._ids:
            answer = self.raw.call(metadata.MetadataRequest(topics=[metadata.MetadataRequestTopic(name=topic)]), 12)
            self._ids[topic] = answer.topics[0].topic_id
        return self._ids[topic]

    def producer_id(self, name: str) -> int:
        """A producer id, always the same for a name."""
        if name not in self.kept:
            self.kept[name] = self.raw.new_producer_id()
        return int(self.kept[name])


class Step(NamedTuple):
    """A request made for a side and a version, the versions to send it in, what to keep of the answer, and fields
    that are not compared.
    """

    make: Callable[[Side, int], Any]
    versions: Sequence[int]
    keep: Callable[[Side, Any], None] | None = None
    left_out: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def millstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    # As the shared Kafka is configured.
    settings = {"num.partitions": "4", "message.max.bytes": "2097152", "node.id": "1"}
    with BrokerThread(tmp_path_factory.mktemp("data") / "data", settings) as broker:
        yield broker


@pytest.fixture(scope="module")
def sides(millstream: BrokerThread, apache_kafka: ApacheKafka) -> Iterator[tuple[Side, Side]]:
    """(ours, Kafka) with the same topics in them."""
    both = Side(millstream.bootstrap_servers), Side(apache_kafka.bootstrap_servers)
    for side in both:
        for name, (partitions, configs) in TOPICS.items():
            side.raw.create_topic(name, partitions, retention_ms=-1, **configs)
    yield both
    for side in both:
        side.raw.close()


TOPICS: Final[Mapping[str, tuple[int, Mapping[str, object]]]] = {
    "d-plain": (2, {}),
    "d-versions": (1, {}),
    "d-compacted": (1, {"cleanup_policy": "compact"}),
    "d-stamped": (1, {"message_timestamp_type": "LogAppendTime"}),
    "d-small": (1, {"max_message_bytes": 1000}),
    "d-bounded": (1, {"message_timestamp_before_max_ms": 3_600_000, "message_timestamp_after_max_ms": 60_000}),
    "d-replicated": (1, {"min_insync_replicas": 2}),
    "d-segments": (1, {"segment_bytes": 1_048_576, "max_message_bytes": 2_000_000}),
    "d-gzip": (1, {"compression_type": "gzip"}),
    "d-idempotent": (1, {}),
    "d-read": (3, {}),
    "d-timed": (2, {}),
    "d-sessions": (3, {}),
    "d-described": (2, {}),
}


def versions_of(key: ApiKey, first: int = 0) -> list[int]:
    return [version for version in APIS[key].versions if version >= first]


# Batches.


def batch(
    count: int = 1,
    *,
    key: bytes | None = b"k",
    value: bytes = b"value",
    timestamps: Sequence[int] | None = None,
    codec: Compression = Compression.NONE,
    producer: tuple[int, int, int] = (-1, -1, -1),
    **bits: Any,
) -> bytes:
    builder = BatchBuilder(
        compression=codec, producer_id=producer[0], producer_epoch=producer[1], base_sequence=producer[2], **bits
    )
    for index in range(count):
        builder.append(TIME_MS + index if timestamps is None else timestamps[index], key, value)
    return bytes(builder.build())


def changed(data: bytes, position: int, layout: str, value: int, *, crc: bool = True) -> bytes:
    """A batch with a field of its header replaced, and the CRC right again."""
    from millstream.core._kernels.crc32c import crc32c

    out = bytearray(data)
    struct.pack_into(layout, out, position, value)
    if crc:
        struct.pack_into(">I", out, 17, crc32c(bytes(out[21:])))
    return bytes(out)


# Produce.


def produce_to(
    *targets: tuple[str, int, bytes | None], acks: int = -1, transactional_id: str | None = None
) -> produce.ProduceRequest:
    topics: list[produce.TopicProduceData] = []
    for name, index, records in targets:
        if not topics or topics[-1].name != name:
            topics.append(produce.TopicProduceData(name=name))
        topics[-1].partition_data.append(produce.PartitionProduceData(index=index, records=records))
    return produce.ProduceRequest(acks=acks, timeout_ms=5000, transactional_id=transactional_id, topic_data=topics)


def produced(*targets: tuple[str, int, bytes | None], first: int | None = None, **options: Any) -> Step:
    """In the newest version, or in all from `first` on."""
    every = versions_of(ApiKey.PRODUCE, 3)
    return Step(lambda _s, _v: produce_to(*targets, **options), every[-1:] if first is None else every[first - 3 :])


def idempotent(name: str, epoch: int, sequence: int, count: int = 1, topic: str = "d-idempotent") -> Step:
    # Kafka tells a duplicate's time as if it had been stamped, though the topic stamps none.
    return Step(
        lambda side, _: produce_to((topic, 0, batch(count, producer=(side.producer_id(name), epoch, sequence)))),
        versions_of(ApiKey.PRODUCE)[-1:],
        left_out=("log_append_time_ms",),
    )


def _now_ms(offset_ms: int = 0) -> list[int]:
    return [time.time_ns() // 1_000_000 + offset_ms] * 3


# Fetch.


def fetched(
    *partitions: tuple[Any, ...],
    topic: str = "d-read",
    first: int = 4,
    last: int = 99,
    keep: Callable[[Side, Any], None] | None = None,
    session: tuple[str, int] | None = None,
    forget: Sequence[int] = (),
    id_of: Callable[[Side], bytes] | None = None,
    **options: Any,
) -> Step:
    """`partitions` are (index, offset[, size_bytes_max[, current_leader_epoch[, last_fetched_epoch]]])."""

    def make(side: Side, version: int) -> Any:
        topic_id = (id_of(side) if id_of is not None else side.id_of(topic)) if version >= 13 else ZERO_UUID
        asked = []
        for index, offset, *rest in partitions:
            limits = [*rest, *(1 << 20, -1, -1)[len(rest) :]]
            limit, leader_epoch, fetched_epoch = limits
            asked.append(
                fetch.FetchPartition(
                    partition=index,
                    fetch_offset=offset,
                    partition_max_bytes=limit,
                    current_leader_epoch=leader_epoch if version >= 9 else -1,
                    last_fetched_epoch=fetched_epoch if version >= 12 else -1,
                )
            )
        settings: dict[str, Any] = {"max_wait_ms": 0, "min_bytes": 1, "max_bytes": 1 << 20} | options
        session_id, epoch = 0, -1
        if session is not None:
            session_id, epoch = side.kept.get(session[0], 0), session[1]
        forgotten = [
            fetch.ForgottenTopic(topic=topic if version < 13 else "", topic_id=topic_id, partitions=list(forget))
        ]
        return fetch.FetchRequest(
            session_id=session_id,
            session_epoch=epoch,
            topics=[fetch.FetchTopic(topic=topic if version < 13 else "", topic_id=topic_id, partitions=asked)]
            if asked
            else [],
            forgotten_topics_data=forgotten if forget else [],
            **settings,
        )

    return Step(make, [v for v in versions_of(ApiKey.FETCH) if first <= v <= last], keep)


def keep_session(name: str) -> Callable[[Side, Any], None]:
    def keep(side: Side, answer: Any) -> None:
        side.kept[name] = answer.session_id

    return keep


def session_story(version: int) -> list[Step]:
    """A session's life, in one version."""

    def step(*partitions: tuple[Any, ...], **options: Any) -> Step:
        return fetched(*partitions, topic="d-sessions", first=version, last=version, **options)

    name = f"session-{version}"
    keep = keep_session(name)
    value = produced(("d-sessions", 0, batch(2)), ("d-sessions", 1, batch()))
    return [
        value,
        step((0, 0), (1, 0), (2, 0), session=("none", 0), keep=keep),
        step(session=(name, 1)),
        step((0, 10**6), session=(name, 2)),
        step((0, 0), session=(name, 3)),
        step(session=(name, 3)),
        step(session=(name, 9)),
        value,
        step(forget=[0], session=(name, 4)),
        step((99, 0), session=(name, 5)),
        step(session=(name, 6)),
        step(forget=[99], session=(name, 7)),
        step((1, 1), (2, 0), forget=[1], session=(name, 8)),
        step(session=(name, 9)),
        step(session=(name, -1)),
        step(session=(name, 10)),
        step((0, 0), session=(name, -1)),
        step((0, 0), session=("no such", 5)),
        # All forgotten: the session ends.
        step((0, 0), session=("none", 0), keep=keep),
        step(forget=[0], session=(name, 1)),
        step(session=(name, 2)),
        # A full request in place of a session that is there.
        step((0, 0), session=("none", 0), keep=keep),
        step((0, 0), (1, 0), session=(name, 0), keep=keep),
        step(session=(name, 1)),
        step(session=("none", 0)),
        step(session=("none", 1)),
    ]


# The others.


def listed(
    *asked: tuple[int, int] | tuple[int, int, int],
    topic: str = "d-timed",
    isolation: int = 0,
    replica: int = -1,
    first: int = 1,
) -> Step:
    def make(_side: Side, version: int) -> Any:
        partitions = [
            list_offsets.ListOffsetsPartition(
                partition_index=index,
                timestamp=timestamp,
                current_leader_epoch=epoch[0] if epoch and version >= 4 else -1,
            )
            for index, timestamp, *epoch in asked
        ]
        return list_offsets.ListOffsetsRequest(
            replica_id=replica,
            isolation_level=isolation if version >= 2 else 0,
            topics=[list_offsets.ListOffsetsTopic(name=topic, partitions=partitions)],
        )

    return Step(make, versions_of(ApiKey.LIST_OFFSETS, first))


def epochs(*asked: tuple[int, int, int], topic: str = "d-timed", replica: int = -1) -> Step:
    def make(_side: Side, version: int) -> Any:
        partitions = [
            offset_for_leader_epoch.OffsetForLeaderPartition(
                partition=index, current_leader_epoch=current, leader_epoch=epoch
            )
            for index, current, epoch in asked
        ]
        return offset_for_leader_epoch.OffsetForLeaderEpochRequest(
            replica_id=replica if version >= 3 else -2,
            topics=[offset_for_leader_epoch.OffsetForLeaderTopic(topic=topic, partitions=partitions)],
        )

    return Step(make, versions_of(ApiKey.OFFSET_FOR_LEADER_EPOCH))


def described(
    *names: str | None,
    ids: Sequence[str | bytes] = (),
    create: bool = False,
    first: int = 0,
    last: int = 99,
    **options: Any,
) -> Step:
    def make(side: Side, version: int) -> Any:
        topics = [metadata.MetadataRequestTopic(name=name) for name in names]
        for each in ids:
            topic_id = side.id_of(each) if isinstance(each, str) else each
            topics.append(metadata.MetadataRequestTopic(name=None, topic_id=topic_id))
        return metadata.MetadataRequest(
            topics=topics, allow_auto_topic_creation=create if version >= 4 else True, **options
        )

    return Step(make, [v for v in versions_of(ApiKey.METADATA) if first <= v <= last])


def producer_ids(
    transactional_id: str | None = None, producer: tuple[int, int] = (-1, -1), timeout_ms: int = 60_000, first: int = 0
) -> Step:
    def make(_side: Side, _version: int) -> Any:
        return init_producer_id.InitProducerIdRequest(
            transactional_id=transactional_id,
            transaction_timeout_ms=timeout_ms,
            producer_id=producer[0],
            producer_epoch=producer[1],
        )

    return Step(make, versions_of(ApiKey.INIT_PRODUCER_ID, first))


def versions_asked(name: str = "", version: str = "", first: int = 0) -> Step:
    return Step(
        lambda _s, _v: api_versions.ApiVersionsRequest(client_software_name=name, client_software_version=version),
        versions_of(ApiKey.API_VERSIONS, first),
    )


GOOD: Final = batch(3)

# Left out is what Kafka itself does not answer, or not well: null records (no answer ever), codecs that do not exist or
# do not decode (UNKNOWN_SERVER_ERROR), bytes behind the batch (dropped in silence), a LogAppendTime bit from a client
# and producer ids without an epoch (accepted).
STORIES: Final[Mapping[str, Sequence[Step]]] = {
    "produce, every version": [
        produced(("d-versions", 0, GOOD), first=3),
        produced(("d-versions", 0, GOOD), ("d-versions", 9, GOOD), ("d-none", 0, GOOD), first=3),
        produced(("d-versions", 0, GOOD), first=3, acks=1),
        produced(("d-versions", 0, GOOD), first=3, acks=2),
        produced(("d-small", 0, batch(value=b"x" * 1000)), first=3),
        produced(("d-compacted", 0, batch(3, key=None)), first=3),
        produced(("d-stamped", 0, GOOD), first=3),
        produced(("d-replicated", 0, GOOD), first=3),
        produced(("d-replicated", 0, GOOD), first=3, acks=1),
    ],
    "produce, topics and partitions": [
        produced(),
        produced(("d-plain", 0, GOOD), ("d-plain", 1, GOOD)),
        produced(("d-plain", -1, GOOD)),
        produced(("", 0, GOOD)),
        produced(("..", 0, GOOD)),
        produced(("d-plain", 0, GOOD), acks=-2),
        produced(("d-none", 0, GOOD), acks=7),
    ],
    "produce, bad batches": [
        produced(("d-plain", 0, b"")),
        produced(("d-plain", 0, b"\0" * 12)),
        produced(("d-plain", 0, GOOD[:-1])),
        produced(("d-plain", 0, GOOD[:30])),
        produced(("d-plain", 0, GOOD + GOOD)),
        produced(("d-plain", 0, changed(GOOD, 16, ">b", 1, crc=False))),
        produced(("d-plain", 0, changed(GOOD, 16, ">b", 0, crc=False))),
        produced(("d-plain", 0, changed(GOOD, 16, ">b", 3, crc=False))),
        produced(("d-plain", 0, changed(GOOD, 17, ">I", 1, crc=False))),
        produced(("d-plain", 0, changed(GOOD, 0, ">q", 77))),
        produced(("d-plain", 0, changed(GOOD, 12, ">i", 77))),
        produced(("d-plain", 0, changed(GOOD, 23, ">i", 1))),
        produced(("d-plain", 0, changed(GOOD, 23, ">i", -1))),
        produced(("d-plain", 0, changed(GOOD, 57, ">i", 2))),
        produced(("d-plain", 0, changed(GOOD, 57, ">i", 4))),
        produced(("d-plain", 0, changed(GOOD, 57, ">i", -1))),
        produced(("d-plain", 0, changed(GOOD, 57, ">i", 0))),
        produced(("d-plain", 0, changed(GOOD, 35, ">q", TIME_MS + 10 * DAY_MS))),
        produced(("d-plain", 0, changed(GOOD, 27, ">q", -1))),
        produced(("d-plain", 0, changed(GOOD, 61, ">b", 7))),
        produced(("d-plain", 0, batch(control=True, producer=(5, 0, 0)))),
        produced(("d-plain", 0, batch(transactional=True, producer=(5, 0, 0)))),
        produced(("d-plain", 0, batch(producer=(5, 0, -1)))),
        produced(("d-plain", 0, batch(producer=(-1, 3, 3)))),
        produced(("d-plain", 0, batch(value=b"x" * 2_100_000))),
        produced(("d-plain", 0, batch(timestamps=[-1]))),
        produced(("d-plain", 0, batch(timestamps=[-5]))),
        produced(("d-segments", 0, batch(value=b"x" * 1_048_600))),
        produced(("d-plain", 1, GOOD)),
    ],
    "produce, what a topic asks": [
        produced(("d-small", 0, batch(value=b"x" * 900))),
        produced(("d-small", 0, batch(20, value=b"x" * 900, codec=Compression.GZIP))),
        produced(("d-bounded", 0, batch(3, timestamps=_now_ms()))),
        produced(("d-bounded", 0, GOOD)),
        produced(("d-bounded", 0, batch(3, codec=Compression.ZSTD))),
        produced(("d-bounded", 0, batch(3, timestamps=_now_ms(DAY_MS)))),
        produced(("d-bounded", 0, batch(3, timestamps=[_now_ms()[0], TIME_MS, _now_ms()[0]]))),
        produced(("d-plain", 0, batch(3, timestamps=_now_ms(DAY_MS)))),
        produced(("d-compacted", 0, batch(3, key=None, codec=Compression.LZ4))),
        produced(("d-compacted", 0, batch(3, codec=Compression.LZ4))),
        produced(("d-gzip", 0, GOOD)),
        produced(("d-gzip", 0, batch(3, codec=Compression.SNAPPY))),
        produced(("d-stamped", 0, batch(3, codec=Compression.SNAPPY))),
        produced(("d-gzip", 0, GOOD), ("d-plain", 0, GOOD), ("d-bounded", 0, GOOD)),
    ],
    "produce, idempotent": [
        idempotent("p", 0, 0, 3),
        idempotent("p", 0, 3, 2),
        idempotent("p", 0, 3, 2),
        idempotent("p", 0, 0, 3),
        idempotent("p", 0, 1, 2),
        idempotent("p", 0, 6),
        idempotent("p", 0, 5),
        idempotent("p", 1, 5),
        idempotent("p", 1, 0),
        idempotent("p", 0, 6),
        idempotent("p", 1, 1),
        idempotent("p", 1, 2),
        idempotent("p", 1, 3),
        idempotent("p", 1, 4),
        idempotent("p", 1, 5),
        idempotent("p", 1, 6),
        idempotent("p", 1, 0),
        idempotent("p", 1, 2),
        idempotent("q", 0, 7),
        idempotent("q", 0, 0),
        idempotent("q", 0, 8),
        idempotent("r", 3, 0),
        idempotent("r", 3, 2**31 - 1),
        idempotent("s", 0, 2**31 - 2, 3),
        idempotent("s", 0, 1),
        idempotent("s", 0, 0),
    ],
    "fetch": [
        produced(("d-read", 0, batch(3)), ("d-read", 1, batch(2, codec=Compression.ZSTD))),
        produced(("d-read", 0, batch(4))),
        fetched((0, 0), (1, 0), (2, 0)),
        fetched((0, 1)),
        fetched((0, 3)),
        fetched((0, 7)),
        fetched((0, 8)),
        fetched((0, -1)),
        fetched((0, -1), (1, 0)),
        fetched((9, 0), (0, 0)),
        fetched((0, 0), isolation_level=1),
        fetched((2, 0), isolation_level=1),
        fetched((0, 0, 1), (1, 0, 1)),
        fetched((0, 0, 0)),
        fetched((0, 0), (1, 0), max_bytes=1),
        fetched((0, 0), max_bytes=0),
        fetched((2, 0), (0, 0), (1, 0), max_bytes=120),
        fetched((2, 0), min_bytes=0, max_wait_ms=60_000),
        fetched((2, 0), max_wait_ms=-5),
        fetched((0, 0, 1 << 20, 0)),
        fetched((0, 0, 1 << 20, 5), first=9),
        fetched((0, 0, 1 << 20, 0, 0)),
        fetched((0, 9, 1 << 20, 0, 0), first=12),
        fetched((0, 7, 1 << 20, -1, 0), first=12),
        fetched((0, 0, 1 << 20, 0, 3), first=12),
        fetched((0, 0), topic="d-none", last=12),
        fetched((0, 0), topic="", last=12),
        fetched((0, 0), first=13, id_of=lambda _: UNKNOWN_ID),
        fetched((0, 0), first=13, id_of=lambda _: ZERO_UUID),
        fetched(),
    ],
    **{f"fetch sessions, version {version}": session_story(version) for version in (7, 11, 12, 13, 16)},
    "list offsets": [
        produced(("d-timed", 0, batch(3))),
        produced(("d-timed", 0, batch(3, timestamps=[TIME_MS + 50, TIME_MS + 20, TIME_MS + 90]))),
        produced(("d-timed", 0, batch(2, timestamps=[TIME_MS + 90, TIME_MS + 30], codec=Compression.LZ4))),
        *(
            listed((0, timestamp), (1, timestamp), isolation=isolation)
            for isolation in (0, 1)
            for timestamp in (-1, -2, 0, TIME_MS, TIME_MS + 1, TIME_MS + 20, TIME_MS + 60, TIME_MS + 90, TIME_MS + 91)
        ),
        listed((0, -3), (1, -3), first=7),
        listed((0, -3), (1, -3), first=7, isolation=1),
        listed((0, -4), (1, -4), first=8),
        *(listed((0, timestamp), (1, timestamp)) for timestamp in (-3, -4, -5, -6, -7, -100)),
        listed((0, -1), replica=-2),
        listed((0, -1, 0), (1, -1, 7)),
        listed((0, -1), (9, -1), (-1, -2)),
        listed((0, -1), (0, -2)),
        listed((0, -1), topic="d-none"),
        listed((0, -1), topic=""),
        listed((0, -1), topic=".."),
        produced(("d-stamped", 0, batch(3))),
        listed((0, -3), topic="d-stamped", first=7),
        listed((0, 0), topic="d-stamped"),
    ],
    "offset for leader epoch": [
        epochs((0, -1, 0), (1, -1, 0), (0, 0, 0)),
        epochs((0, -1, 1), (1, -1, 1)),
        epochs((0, 4, 0)),
        epochs((0, -1, -1)),
        epochs((0, -1, -7)),
        epochs((9, -1, 0)),
        epochs((0, -1, 0), topic="d-none"),
        epochs((0, -1, 0), topic=""),
        epochs(),
    ],
    "metadata": [
        described("d-described"),
        described("d-described", "d-none", first=4),
        described("d-described", "d-described"),
        described("..", "", "a b", "x" * 250, first=1),
        described("..", create=True, first=4),
        described("a/b", "d-described", create=True, first=4),
        described(
            "d-described",
            "d-none",
            include_topic_authorized_operations=True,
            include_cluster_authorized_operations=True,
            first=8,
            last=10,
        ),
        described("d-described", "d-none", include_topic_authorized_operations=True, first=11),
        described(ids=["d-described"], first=10),
        described(ids=["d-described", UNKNOWN_ID], first=12),
        described(None, first=10, last=11),
        described(first=1),
    ],
    "producer ids": [
        producer_ids(),
        producer_ids(timeout_ms=-1),
        producer_ids(timeout_ms=2**31 - 1),
        producer_ids(""),
        producer_ids(producer=(1000, 3), first=3),
        producer_ids(producer=(1000, 2**15 - 1), first=3),
        producer_ids(producer=(1000, -1), first=3),
        producer_ids(producer=(-1, 3), first=3),
        producer_ids("", producer=(-1, 3), first=3),
    ],
    "api versions": [
        versions_asked("apache-kafka-java", "4.3.0"),
        versions_asked("x.y-z", "1"),
    ],
}


@pytest.mark.parametrize("story", STORIES)
def test_both_brokers_answer_the_same(story: str, sides: tuple[Side, Side]) -> None:
    found: list[str] = []
    for number, step in enumerate(STORIES[story]):
        for version in step.versions:
            ours, theirs = (_answer(side, step, version) for side in sides)
            differing = differences(ours, theirs)
            if differing:
                found.append(f"step {number}, version {version}: {step.make(sides[0], version)}"[:700])
                found += [f"    {each}" for each in differing]
    assert not found, "\n".join(["ours != Kafka's", *found])


def _answer(side: Side, step: Step, version: int) -> Any:
    request = step.make(side, version)
    key = ApiKey(request.__wire__.key)
    try:
        encode(request, version)
    except WireError:
        return "cannot be said in this version"
    try:
        answer = side.raw.call(request, version)
    except ClosedError:
        side.reconnect()
        return "closed"
    if step.keep is not None:
        step.keep(side, answer)
    result = normal(answer, step.left_out)
    if key == ApiKey.API_VERSIONS:
        # What is served is less yet, and no features are finalized.
        return {"error_code": result["error_code"], "throttle_time_ms": result["throttle_time_ms"]}
    return result


def differences(given: Any, expected: Any, path: str = "") -> list[str]:
    """Where two answers differ, one line each."""
    if isinstance(given, dict) and isinstance(expected, dict) and given.keys() == expected.keys():
        return [line for name in given for line in differences(given[name], expected[name], f"{path}.{name}")]
    if isinstance(given, list) and isinstance(expected, list) and len(given) == len(expected):
        pairs = enumerate(zip(given, expected, strict=True))
        return [line for index, pair in pairs for line in differences(*pair, f"{path}[{index}]")]
    if given == expected or (path.endswith("_message") and expected is None):
        return []
    return [f"{path}: {given!r} != {expected!r}"]


# What differs between any two brokers, where it is there at all.
_MASKED: Final = {"topic_id", "producer_id", "session_id", "port", "cluster_id", "log_append_time_ms"}
_WORDS: Final = {"error_message", "batch_index_error_message"}
NO_SESSION: Final = 0
_TIMES: Final = {"timestamp"}


def normal(message: Any, left_out: Sequence[str] = ()) -> Any:
    """A message as dictionaries and lists, without what must differ."""
    if isinstance(message, list):
        items = [normal(item, left_out) for item in message]
        return sorted(items, key=_place) if items and isinstance(items[0], dict) else items
    fields = getattr(message, "__wire__", None)
    if fields is None:
        return bytes(message) if isinstance(message, memoryview) else message
    result = {}
    for field in fields.fields:
        value = getattr(message, field.name)
        if field.name in left_out:
            continue
        if field.name in _WORDS:
            value = value and "words"
        if (
            field.name in _MASKED and value not in {-1, ZERO_UUID, NO_SESSION if field.name == "session_id" else -1}
        ) or (field.name in _TIMES and value > TIME_MS + DAY_MS):
            value = "masked"
        if field.name == "records" and value:
            # Kafka fills the limit with the beginning of a batch that does not fit; we give whole ones only.
            value = [bytes(whole) for _, whole in iter_batches(_whole_batches(value))]
        result[field.name] = normal(value, left_out)
    if result.get("error_code") == ErrorCode.INVALID_RECORD:
        # Kafka finds some of these before it looks for the partition.
        result.pop("log_start_offset", None)
    return result


def _whole_batches(records: bytes) -> bytes:
    end = 0
    while len(records) - end >= HEADER_SIZE and len(records) - end >= 12 + int.from_bytes(records[end + 8 : end + 12]):
        end += 12 + int.from_bytes(records[end + 8 : end + 12])
    return records[:end]


def _place(item: Mapping[str, Any]) -> tuple[str, int]:
    """What orders the items of a response: a topic's name or a partition's index."""
    names = [str(item[name]) for name in ("name", "topic") if name in item]
    indexes = [item[name] for name in ("index", "partition_index", "partition") if name in item]
    return names[0] if names else "", indexes[0] if indexes else 0
