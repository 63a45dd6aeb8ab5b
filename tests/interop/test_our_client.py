"""Our client and the others at the edges that the matrix in test_clients leaves out.

Records of a megabyte, logs with gaps where compaction took records out and where batches are empty: what anybody wrote
everybody reads equal, on both brokers. Transactions with their control batches are Apache Kafka's.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Mapping

import confluent_kafka
import pytest
from tests.support.clients import CODECS, KafkaClient, MillstreamClient, Row

import millstream
from millstream.testing.kafka import ApacheKafka, wait_until
from millstream.testing.raw import RawConnection

pytestmark = [pytest.mark.java, pytest.mark.timeout(900)]

NOW_MS = 1_790_000_000_000
OTHERS = ("confluent-kafka", "kafka-python", "java")
_numbers = itertools.count()


@pytest.fixture(scope="module", params=["millstream", "kafka"])
def bootstrap(request: pytest.FixtureRequest) -> str:
    """A broker of either kind."""
    fixture = "millstream_broker_session" if request.param == "millstream" else "apache_kafka"
    address: str = request.getfixturevalue(fixture).bootstrap_servers
    return address


@pytest.fixture
def topic(bootstrap: str) -> Callable[..., str]:
    """topic(partitions, **configs) makes one."""

    def make(partitions: int = 1, **configs: object) -> str:
        name = f"our-client-{os.getpid()}-{next(_numbers)}"
        with RawConnection(bootstrap) as raw:
            raw.create_topic(name, partitions, **configs)
        return name

    return make


@pytest.mark.parametrize("writer", ["millstream", *OTHERS])
def test_records_of_a_megabyte(
    bootstrap: str, clients: Mapping[str, KafkaClient], topic: Callable[..., str], writer: str
) -> None:
    name = topic(len(CODECS), max_message_bytes=2_000_000)
    # What the least of the clients takes in a request, with room for its own fields.
    size = 990_000
    draw = random.Random(writer)
    rows = [
        Row(NOW_MS, b"random", draw.randbytes(size)),
        Row(NOW_MS, b"even", b"z" * size),
        Row(NOW_MS, b"small", b"s"),
        Row(NOW_MS, draw.randbytes(size // 2), draw.randbytes(size // 2)),
    ]
    for partition, codec in enumerate(CODECS):
        offsets = clients[writer].produce(bootstrap, name, partition, rows, codec=codec, idempotent=True)
        assert offsets == list(range(len(rows))), codec
    readers = OTHERS if writer == "millstream" else ("millstream",)
    for reader in readers:
        found = clients[reader].read(bootstrap, name, dict.fromkeys(range(len(CODECS)), len(rows)))
        for partition, codec in enumerate(CODECS):
            assert [read.row for read in found[partition]] == rows, f"{reader} {codec}"


def test_transactions_of_another_client(apache_kafka: ApacheKafka) -> None:
    bootstrap = apache_kafka.bootstrap_servers
    name = f"our-client-{os.getpid()}-{next(_numbers)}"
    with RawConnection(bootstrap) as raw:
        raw.create_topic(name)
    kept: list[bytes] = []
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "transactional.id": name})
    producer.init_transactions(90)
    for number in range(6):
        producer.begin_transaction()
        values = [b"%d-%d" % (number, index) for index in range(50)]
        for value in values:
            producer.produce(name, value, partition=0)
        if number % 2:
            producer.flush(90)
            producer.abort_transaction(90)
        else:
            producer.commit_transaction(90)
            kept += values
    found = MillstreamClient().read(bootstrap, name, {0: len(kept)})[0]
    assert [read.row.value for read in found] == kept
    # Six control batches take an offset each, and are nobody's records.
    assert found[-1].offset == 4 * 51 + 49
    with millstream.Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([(name, 0)])
        everything: list[bytes | None] = []
        while len(everything) < 300:
            everything += [record.value for record in consumer.poll_records(90.0)]
    assert len(everything) == 300
    assert set(kept) < set(everything)


def test_a_compacted_log(bootstrap: str, clients: Mapping[str, KafkaClient], topic: Callable[..., str]) -> None:
    """The cleaner leaves gaps, and of each producer its last batch, empty if need be, for the sequences in it."""
    name = topic(
        cleanup_policy="compact",
        min_cleanable_dirty_ratio="0.01",
        segment_ms=100,
        max_compaction_lag_ms=1,
        delete_retention_ms=0,
    )
    now_ms = int(time.time() * 1000)
    for codec in ("none", "lz4"):
        with millstream.Producer(bootstrap, batch_size=300, compression_type=codec) as producer:
            for number in range(30):
                producer.send(name, b"%d" % number, key=b"%d" % (number % 10), timestamp_ms=now_ms - 10_000)
    with millstream.Producer(bootstrap) as producer:
        # Ten seconds on: it begins another segment, and those before it are cleaned.
        assert producer.send(name, b"end", key=b"end", timestamp_ms=now_ms).result(90).offset == 60
    wait_until(lambda: len(records_of(bootstrap, name, 61)) == 11, 150, "the log to be cleaned")
    expected = [(50 + number, b"%d" % (20 + number)) for number in range(10)] + [(60, b"end")]
    assert records_of(bootstrap, name, 61) == expected
    for client in clients.values():
        found = client.read(bootstrap, name, {0: len(expected)})[0]
        assert [(read.offset, read.row.value) for read in found] == expected, client.name


def records_of(bootstrap: str, topic: str, end: int) -> list[tuple[int, bytes | None]]:
    """Read a partition from its start to `end`, however few records there are."""
    found: list[tuple[int, bytes | None]] = []
    with millstream.Consumer(bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([(topic, 0)])
        while (consumer.position(millstream.TopicPartition(topic, 0)) or 0) < end:
            found += [(record.offset, record.value) for record in consumer.poll_records(90.0)]
    return found
