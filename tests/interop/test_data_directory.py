"""A data directory that Apache Kafka 4.3 wrote, adopted by Millstream: every record of it is readable.

Kafka is filled with topics of every codec, configs of their own, a compacted topic that has been cleaned, transactions
committed, aborted and left open; then it is stopped (in a second case killed) and Millstream starts on its folder. What
clients read from Kafka before is what they must read from Millstream after.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from tests.support.clients import CODECS, ConfluentKafka, ReadRow, Row, by_assignment

from millstream.core.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from millstream.testing import broker
from millstream.testing.kafka import ApacheKafka, wait_until
from millstream.testing.raw import RawConnection

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]

BASE = 1_700_000_000_000


def transaction(bootstrap: str, name: str, topic: str, values: list[bytes], end: str) -> confluent_kafka.Producer:
    """Write a transaction and end it by `end`: commit, abort, or leave open."""
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": name, "transaction.timeout.ms": 600_000, "log_level": 0}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    producer.flush(30)
    if end == "commit":
        producer.commit_transaction(30)
    elif end == "abort":
        producer.abort_transaction(30)
    return producer


def fill(kafka: ApacheKafka) -> confluent_kafka.Producer:
    """Make the topics; return the producer whose transaction stays open."""
    client = ConfluentKafka()
    bootstrap = kafka.bootstrap_servers
    with RawConnection(bootstrap) as raw:
        raw.create_topic("codecs", len(CODECS), retention_ms=-1)
        raw.create_topic("segments", 2, segment_bytes=1 << 20, retention_ms=-1, max_message_bytes=2_000_000)
        raw.create_topic(
            "compacted",
            1,
            cleanup_policy="compact",
            segment_ms=100,
            min_cleanable_dirty_ratio="0.0",
        )
        raw.create_topic("transactions", 1, retention_ms=-1)
        raw.create_topic("empty", 3)
    rows = [Row(BASE + i, b"key %d" % i, b"value %d" % i * 9, (("header", b"%d" % i),)) for i in range(500)]
    for partition, codec in enumerate(CODECS):
        client.produce(bootstrap, "codecs", partition, rows, codec=codec, idempotent=partition % 2 == 0)
    large = [Row(BASE + i, None, b"%d " % i + b"x" * 10_000) for i in range(300)]
    for partition in range(2):
        client.produce(bootstrap, "segments", partition, large, codec="none", idempotent=True)
    for turn in range(5):
        # A second later by its timestamps: each turn gets a segment of its own (segment.ms), and those are cleaned.
        again = [Row(BASE + turn * 1000, b"key %d" % i, b"turn %d" % turn) for i in range(100)]
        client.produce(bootstrap, "compacted", 0, again, codec="none", idempotent=False)
    transaction(bootstrap, "one", "transactions", [b"committed %d" % i for i in range(50)], "commit")
    transaction(bootstrap, "two", "transactions", [b"aborted %d" % i for i in range(50)], "abort")
    transaction(bootstrap, "three", "transactions", [b"committed later %d" % i for i in range(50)], "commit")

    def cleaned() -> bool:
        with RawConnection(bootstrap) as raw:
            return bytes(raw.fetch("compacted", 0, 0).records[:8]) != bytes(8)

    def ended() -> bool:
        """Markers are written a moment after the client is told that its transaction has ended."""
        with RawConnection(bootstrap) as raw:
            return raw.offset("transactions", 0) == 3 * (50 + 1)

    wait_until(cleaned, 150, "Kafka's cleaner")
    wait_until(ended, 90, "the transactions' markers")
    return transaction(bootstrap, "four", "transactions", [b"open %d" % i for i in range(50)], "leave")


def contents(bootstrap: str) -> dict[str, Any]:
    """Everything a client can read: ends, starts and all records, and transactions as committed readers see them."""
    found: dict[str, Any] = {}
    with RawConnection(bootstrap) as raw:
        topics = {name: count for name, count in raw.topics().items() if not name.startswith("__")}
        partitions = {name: range(count) for name, count in topics.items()}
        found["ends"], found["starts"] = raw.offsets(partitions), raw.offsets(partitions, -2)
        found["at"] = {name: raw.offsets({name: partitions[name]}, BASE + 100)[name] for name in ("codecs", "segments")}
    for name, count in topics.items():
        for partition in range(count):
            found[f"{name}-{partition}"] = read_to_end(bootstrap, name, partition, "read_uncommitted")
    found["committed"] = [read.row.value for read in read_to_end(bootstrap, "transactions", 0, "read_committed")]
    return found


def read_to_end(bootstrap: str, topic: str, partition: int, isolation: str) -> list[ReadRow]:
    """Every record up to the end (or to the last stable offset), by assignment."""
    consumer = by_assignment(bootstrap, **{"isolation.level": isolation, "enable.partition.eof": True})
    rows: list[ReadRow] = []
    try:
        consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0)])
        while True:
            message: Any = consumer.poll(90)
            assert message is not None, f"{topic}-{partition}: neither a record nor the end within 90 s"
            if message.error() is not None:
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
                return rows
            row = Row(message.timestamp()[1], message.key(), message.value(), tuple(message.headers() or ()))
            rows.append(ReadRow(message.offset(), row))
    finally:
        consumer.close()


def configs(bootstrap: str, topic: str) -> Mapping[str, str]:
    """The topic's own settings."""
    wanted = DescribeConfigsRequest(resources=[DescribeConfigsResource(resource_type=2, resource_name=topic)])
    with RawConnection(bootstrap) as raw:
        entries = raw.call(wanted).results[0].configs
    return {entry.name: entry.value for entry in entries if entry.config_source == 1}


@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_a_directory_of_kafka_is_adopted_with_every_record(jars: Path, tmp_path: Path, ended: str) -> None:
    settings = {"log.cleaner.backoff.ms": "100", "log.segment.delete.delay.ms": "100"}
    kafka = ApacheKafka(tmp_path / "kafka", jars=jars, properties=settings)
    with kafka:
        open_transaction = fill(kafka)
        before = contents(kafka.bootstrap_servers)
        own = {name: configs(kafka.bootstrap_servers, name) for name in ("codecs", "segments", "compacted")}
        if ended == "killed":
            kafka.kill()
    del open_transaction
    assert before["committed"] == [b"committed %d" % i for i in range(50)] + [
        b"committed later %d" % i for i in range(50)
    ]
    folder = tmp_path / "adopted"
    shutil.copytree(kafka.data_directory, folder)
    with broker({"node.id": "1"}, log_dir=folder) as running:
        after = contents(running.bootstrap_servers)
        for what, expected in before.items():
            assert after[what] == expected, what
        assert {name: configs(running.bootstrap_servers, name) for name in own} == own
        with RawConnection(running.bootstrap_servers) as raw:
            end = raw.offset("codecs", 0)
        offsets = ConfluentKafka().produce(
            running.bootstrap_servers, "codecs", 0, [Row(BASE, b"k", b"new")], codec="zstd", idempotent=True
        )
        assert offsets == [end]
        running.stop()
        running.start()
        expected = read_to_end(running.bootstrap_servers, "codecs", 0, "read_committed")
        assert expected[-1].row.value == b"new"
        running.stop()
        # And back: the folders as Millstream left them, under the same topics of Kafka.
        for written in folder.glob("*-[0-9]*"):
            if not written.name.startswith("__"):
                shutil.rmtree(kafka.data_directory / written.name)
                shutil.copytree(written, kafka.data_directory / written.name)
    with kafka:
        assert read_to_end(kafka.bootstrap_servers, "codecs", 0, "read_committed") == expected
        again = contents(kafka.bootstrap_servers)
        for what in ("segments-0", "segments-1", "compacted-0", "transactions-0", "starts", "committed"):
            assert again[what] == before[what], what
