"""Kafka's own code reads what is written here, and what Kafka wrote is read here."""

from __future__ import annotations

import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stubs miss them
from tests.core.log.conftest import OpenManager
from tests.support.logs import NOW_MS, TOPIC_ID, append, read_all

from millstream.core.log import Log, LogConfig, LogDirectory, LogManager, TopicPartition, read_meta_properties
from millstream.core.log.checkpoints import PARTITION_METADATA, decode_offsets, encode_offsets
from millstream.core.records import Compression, iter_batches
from millstream.testing.kafka import ApacheKafka, Java, wait_until

pytestmark = pytest.mark.java

TP = TopicPartition("flights", 0)
DUMP = "org.apache.kafka.tools.DumpLogSegments"


def dump(jars: Path, *arguments: str) -> str:
    return Java(jars).run(DUMP, *arguments).stdout


def written(manager: LogManager, config: LogConfig) -> Log:
    log = manager.create_log(TP, TOPIC_ID, config)
    sequence = 0
    for index in range(60):
        values = [b"value %d-%d" % (index, each) for each in range(index % 7 + 1)]
        options: dict[str, Any] = {"compression": Compression(index % 5), "timestamp": NOW_MS + (index * 37) % 50 * 100}
        if index % 2:
            options.update(producer_id=4000, producer_epoch=3, base_sequence=sequence)
            sequence += len(values)
        append(log, *values, leader_epoch=index // 20, **options)
    return log


def test_dump_log_segments_agrees_on_every_file(open_manager: OpenManager, jars: Path, tmp_path: Path) -> None:
    config = LogConfig(segment_bytes=2500, index_interval_bytes=300)
    manager = open_manager(config)
    log = written(manager, config)
    expected = []
    offset = 0
    while offset < log.log_end_offset:
        read = log.read(offset, 1 << 20)
        expected += [(header.base_offset, header.last_offset, header.count) for header, _ in iter_batches(read.data)]
        offset = read.next_offset
    records = len(read_all(log))
    manager.close()
    folder = tmp_path / "data" / "flights-0"
    logs = sorted(folder.glob("*.log"))
    assert len(logs) > 2

    text = dump(jars, "--deep-iteration", "--files", ",".join(map(str, logs)))
    batches = re.findall(r"^baseOffset: (\d+) lastOffset: (\d+) count: (\d+) .*isvalid: (\w+)", text, re.MULTILINE)
    assert [tuple(map(int, each[:3])) for each in batches] == expected
    assert {each[3] for each in batches} == {"true"}
    assert len(re.findall(r"^\| offset: ", text, re.MULTILINE)) == records

    indexes = sorted(folder.glob("*.index")) + sorted(folder.glob("*.timeindex"))
    entries = dump(jars, "--files", ",".join(map(str, indexes)))
    assert "Mismatches" not in entries
    assert "not match" not in entries.lower()
    assert entries.count("position:") == sum(path.stat().st_size // 8 for path in folder.glob("*.index")) > 5
    sane = dump(jars, "--index-sanity-check", "--files", ",".join(map(str, sorted(folder.glob("*.index")))))
    assert sane.count("passed sanity check") == len([path for path in folder.glob("*.index") if path.stat().st_size])

    snapshots = dump(jars, "--files", ",".join(map(str, sorted(folder.glob("*.snapshot")))))
    found = re.findall(r"producerId: (\d+) producerEpoch: (\d+).*lastSequence: (\d+)", snapshots)
    assert found[-1][:2] == ("4000", "3")
    reloaded = open_manager(config).logs[TP].active_producers()
    assert [(each.producer_id, each.epoch, each.last_sequence) for each in reloaded] == [tuple(map(int, found[-1]))]


def test_an_abort_marker_of_ours_is_one_to_kafka(open_manager: OpenManager, jars: Path, tmp_path: Path) -> None:
    manager = open_manager()
    log = manager.create_log(TP, TOPIC_ID, LogConfig())
    append(log, b"a", b"b", producer_id=9, producer_epoch=1, base_sequence=0, transactional=True)
    assert log.first_unstable_offset == 0
    log.abort_open_transaction(9, 1, 5, leader_epoch=0, now_ms=NOW_MS)
    log.write()
    assert log.first_unstable_offset is None
    assert [tuple(each) for each in log.aborted_transactions(0, 3)] == [(9, 0, 2, 3)]
    manager.close()
    folder = tmp_path / "data" / "flights-0"
    text = dump(jars, "--deep-iteration", "--files", str(folder / "00000000000000000000.log"))
    assert "endTxnMarker: ABORT coordinatorEpoch: 5" in text
    text = dump(jars, "--files", str(folder / "00000000000000000000.txnindex"))
    assert "producerId: 9 firstOffset: 0 lastOffset: 2 lastStableOffset: 3" in text


@pytest.mark.parametrize("clean", [True, False])
def test_a_folder_of_kafka_is_read_whole(tmp_path: Path, clean: bool, open_manager: OpenManager) -> None:
    values = [b"value %d " % index + random.Random(index).randbytes(1000) for index in range(3000)]
    with ApacheKafka(tmp_path / "kafka") as kafka:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        topic = NewTopic("adopted", 1, 1, config={"segment.bytes": "1048576", "index.interval.bytes": "500"})
        for created in admin.create_topics([topic, NewTopic("payments", 1, 1)]).values():
            created.result(30)
        producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "batch.num.messages": 20,
            }
        )
        for value in values:
            producer.produce("adopted", value, partition=0)
            producer.poll(0)
        assert producer.flush(60) == 0
        payments = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": "payer"})
        payments.init_transactions(30)
        for ending in (payments.commit_transaction, payments.abort_transaction, payments.flush):
            payments.begin_transaction()
            payments.produce("payments", b"1", partition=0)
            payments.produce("payments", b"2", partition=0)
            payments.flush(30)
            ending(30)
        if clean:
            kafka.stop()
        else:
            kafka.kill()
        copy = tmp_path / "copy"
        shutil.copytree(kafka.data_directory, copy)
    (copy / ".lock").unlink(missing_ok=True)
    identity = read_meta_properties(str(copy))

    manager = LogManager([LogDirectory(copy)])
    try:
        manager.load(LogConfig(), cluster_id=identity["cluster.id"], node_id=int(identity["node.id"]))
        assert manager.directories[0].was_clean is clean
        log = manager.logs[TopicPartition("adopted", 0)]
        found = read_all(log)
        assert [record.value for record in found] == values
        assert [record.offset for record in found] == list(range(len(values)))
        assert log.topic_id is not None
        assert log.corrupt_ranges == ()
        (entry,) = log.active_producers()
        assert entry.last_sequence == len(values) - 1
        for offset in range(0, len(values), 111):
            assert read_all(log, offset)[0].offset == offset
        assert append(log, b"more", leader_epoch=100).first_offset == len(values)

        log = manager.logs[TopicPartition("payments", 0)]
        (open_one,) = log.open_transactions()
        assert log.first_unstable_offset == open_one.transaction_first_offset == 6
        (aborted,) = log.aborted_transactions(0, log.log_end_offset)
        assert (aborted.first_offset, aborted.last_offset, aborted.last_stable_offset) == (3, 5, 6)
        log.abort_open_transaction(open_one.producer_id, open_one.epoch, 0, leader_epoch=100, now_ms=NOW_MS)
        log.write()
        assert log.first_unstable_offset is None
        assert [each.first_offset for each in log.aborted_transactions(0, log.log_end_offset)] == [3, 6]
    finally:
        manager.release()


def test_a_folder_of_ours_is_served_by_kafka(open_manager: OpenManager, tmp_path: Path) -> None:
    config = LogConfig(segment_bytes=2500, index_interval_bytes=300)
    manager = open_manager(config)
    log = written(manager, config)
    expected = [(record.offset, record.value) for record in read_all(log)]
    manager.close()
    ours = tmp_path / "data" / "flights-0"
    with ApacheKafka(tmp_path / "kafka") as kafka:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        topic = NewTopic("flights", 1, 1, config={"retention.ms": "-1"})  # the records are of long ago
        admin.create_topics([topic])["flights"].result(30)
        wait_until((kafka.data_directory / "flights-0" / PARTITION_METADATA).exists, 30, "the partition's folder")
        kafka.stop()
        theirs = kafka.data_directory / "flights-0"
        metadata = (theirs / PARTITION_METADATA).read_bytes()
        shutil.rmtree(theirs)
        shutil.copytree(ours, theirs)
        (theirs / PARTITION_METADATA).write_bytes(metadata)
        for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
            offsets = decode_offsets((kafka.data_directory / name).read_bytes())
            offsets[TP] = len(expected)
            (kafka.data_directory / name).write_bytes(encode_offsets(offsets))
        kafka.start()

        consumer = Consumer(
            {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "x", "enable.auto.commit": False}
        )
        consumer.assign([ClientPartition("flights", 0, 0)])
        found: list[tuple[int | None, bytes | None]] = []
        deadline = time.monotonic() + 60
        while len(found) < len(expected) and time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is not None and not message.error():
                found.append((message.offset(), message.value()))
        consumer.close()
        assert found == expected

        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        where: list[int | None] = []
        producer.produce(
            "flights", b"kafka's own", partition=0, on_delivery=lambda _, message: where.append(message.offset())
        )
        assert producer.flush(30) == 0
        assert where == [len(expected)]
