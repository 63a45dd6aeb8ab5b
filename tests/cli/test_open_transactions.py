"""A transaction that Apache Kafka left open pins the last stable offset after the adoption, until `doctor --abort`."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stubs miss them
from tests.cli.conftest import CommandLine

from millstream.testing import broker
from millstream.testing.kafka import ApacheKafka

COMMITTED, BEHIND = b"committed", b"behind the open one"
QUIET = {"log_level": 0}  # librdkafka would tell on standard error that Kafka went away, which it is meant to


def leave_open(kafka: ApacheKafka) -> None:
    """Commit a transaction in partition 0, leave one open in both, and write a plain record behind it."""
    servers: dict[str, str | int | float | bool] = {"bootstrap.servers": kafka.bootstrap_servers, **QUIET}
    admin = AdminClient(servers)
    admin.create_topics([NewTopic("flights", 2, 1)])["flights"].result(30)
    producer = Producer({**servers, "transactional.id": "left-open", "transaction.timeout.ms": 600_000})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("flights", COMMITTED, partition=0)
    producer.commit_transaction(30)
    producer.begin_transaction()
    for partition in range(2):
        producer.produce("flights", b"never committed", partition=partition)
    assert producer.flush(30) == 0
    plain = Producer(servers)
    plain.produce("flights", BEHIND, partition=0)
    assert plain.flush(30) == 0
    kafka.stop()


def read_committed(bootstrap: str, end_offset: int) -> list[object]:
    """What a read_committed consumer gets of partition 0 up to the last stable offset, which must be `end_offset`."""
    consumer = Consumer(
        {
            **QUIET,
            "bootstrap.servers": bootstrap,
            "group.id": "by assignment",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        },
    )
    consumer.assign([TopicPartition("flights", 0, 0)])
    values: list[object] = []
    try:
        while (message := consumer.poll(30)) is not None:
            if message.error() is not None:
                assert message.offset() == end_offset, message.error()
                return values
            values.append(message.value())
    finally:
        consumer.close()
    raise AssertionError("the consumer never came to the end")


@pytest.mark.java
def test_doctor_ends_a_transaction_that_kafka_left_open(jars: Path, tmp_path: Path, offline: CommandLine) -> None:
    kafka = ApacheKafka(tmp_path / "kafka", jars=jars)
    with kafka:
        leave_open(kafka)
    data = kafka.data_directory

    with broker(log_dir=data) as running:
        assert read_committed(running.bootstrap_servers, 2) == [COMMITTED]
        command = CommandLine(running.bootstrap_servers)
        pinned = command("offsets", "flights", "--read-committed", "--json").json
        assert [one["latest"] for one in pinned] == [2, 0]
        assert [one["latest"] for one in command("offsets", "flights", "--json").json] == [4, 1]
        assert command("consume", "flights", "-p", "0", "--read-committed").out == f"{COMMITTED.decode()}\n"
        assert "in use by another process" in offline("doctor", "-d", str(data), "--abort", "all", code=1).err

    found = offline("doctor", "-d", str(data), "--json").json["open_transactions"]
    assert [(one["topic"], one["partition"], one["first_offset"]) for one in found] == [
        ("flights", 0, 2),
        ("flights", 1, 0),
    ]
    producer_id = found[0]["producer_id"]
    one = offline("doctor", "-d", str(data), "--abort", f"flights-1:{producer_id}").out
    assert f"transaction flights-1:{producer_id}: aborted" in one
    assert f"transaction flights-0:{producer_id}: open since offset 2" in one
    assert f"flights-0:{producer_id}: aborted" in offline("doctor", "-d", str(data), "--abort", "all").out
    assert offline("doctor", "-d", str(data), "--json").json["open_transactions"] == []

    with broker(log_dir=data) as running:
        command = CommandLine(running.bootstrap_servers)
        freed = command("offsets", "flights", "--read-committed", "--json").json
        # Each partition ends behind its abort marker.
        assert [one["latest"] for one in freed] == [5, 2]
        assert read_committed(running.bootstrap_servers, 5) == [COMMITTED, BEHIND]
        both = f"{COMMITTED.decode()}\n{BEHIND.decode()}\n"
        assert command("consume", "flights", "--read-committed").out == both
    dumped = kafka.java.run(
        "org.apache.kafka.tools.DumpLogSegments",
        "--files",
        str(data / "flights-0" / "00000000000000000000.log"),
        "--print-data-log",
    )
    assert "endTxnMarker: ABORT" in dumped.stdout
