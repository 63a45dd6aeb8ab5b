"""Adoption of Kafka's metadata log: one written by Kafka itself, and ones made to be incomplete or damaged."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs miss them
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from millstream.core.cluster import ClusterImage, ClusterMetadata, EmbeddedStore, RegisterBroker, SetCluster
from millstream.core.cluster.adoption import FOLDER_NAME, AdoptionError, read_kafka_metadata
from millstream.core.cluster.image import BrokerImage
from millstream.core.cluster.kraft_records import (
    AbortTransactionRecord,
    BeginTransactionRecord,
    ConfigRecord,
    EndTransactionRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RegisterBrokerRecord,
    RemoveTopicRecord,
    TopicRecord,
    UnregisterBrokerRecord,
)
from millstream.core.records import BatchBuilder
from millstream.core.wire import encode, varint_bytes
from millstream.testing.kafka import ApacheKafka

A, B = b"a" * 16, b"b" * 16


@pytest.mark.java
@pytest.mark.parametrize(("stop", "snapshot_bytes"), [("stop", 20_971_520), ("kill", 1)])
async def test_what_kafka_wrote(tmp_path: Path, jars: Path, stop: str, snapshot_bytes: int) -> None:
    properties = {
        "metadata.log.max.record.bytes.between.snapshots": str(snapshot_bytes),
        "metadata.log.max.snapshot.interval.ms": "0",
    }
    with ApacheKafka(tmp_path / "kafka", jars=jars, properties=properties) as kafka:
        ids = await asyncio.to_thread(use_kafka, kafka)
        getattr(kafka, stop)()
    snapshots = list((kafka.data_directory / FOLDER_NAME).glob("*.checkpoint"))
    assert any("00000000000000000000-0000000000" not in file.name for file in snapshots) == (snapshot_bytes == 1)

    adopted = read_kafka_metadata(kafka.data_directory, node_id=1)

    assert adopted is not None
    metadata = ClusterMetadata(EmbeddedStore(tmp_path / "metadata.sqlite"))
    await metadata.start()
    await metadata.commit(
        lambda image: [SetCluster("c", 1), RegisterBroker(BrokerImage(1, ())), *adopted.operations(image)]
    )
    image = metadata.image
    assert {name for name in image.topics if not name.startswith("__")} == {"plain", "tuned"}
    assert image.topics["tuned"].configs == {"retention.ms": "123456", "max.message.bytes": "77777"}
    assert len(image.topics["tuned"].partitions) == 5
    assert image.topics["plain"].configs == {}
    assert len(image.topics["plain"].partitions) == 2
    for topic in image.topics.values():
        assert all(state.leader == 1 and state.isr == state.replicas == (1,) for state in topic.partitions)
        assert all(state.leader_epoch >= 1 for state in topic.partitions)
    assert {name: image.topics[name].topic_id for name in ids} == ids
    assert image.broker_configs[""]["log.retention.ms"] == "999999"
    assert image.broker_configs["1"] == {"log.cleaner.threads": "2"}
    # Kafka gave away the block that its idempotent producer's id came from.
    assert (await metadata.allocate_producer_ids()).first_id >= 1000
    assert adopted.notes == ()
    await metadata.close()


def use_kafka(kafka: ApacheKafka) -> dict[str, bytes]:
    """Make, change and delete topics and configs, and produce; return the ids of the topics that stay."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    configs = {"cleanup.policy": "compact", "retention.ms": "5", "max.message.bytes": "77777"}
    for future in admin.create_topics(
        [NewTopic("plain", 2, 1), NewTopic("tuned", 3, 1, config=configs), NewTopic("gone", 4, 1, config=configs)]
    ).values():
        future.result(30)
    admin.create_partitions([NewPartitions("tuned", 5)])["tuned"].result(30)

    def alter(kind: ResourceType, name: str, *changes: tuple[str, str | None]) -> None:
        entries = [
            ConfigEntry(
                config, value, incremental_operation=AlterConfigOpType.SET if value else AlterConfigOpType.DELETE
            )
            for config, value in changes
        ]
        for future in admin.incremental_alter_configs(
            [ConfigResource(kind, name, incremental_configs=entries)]
        ).values():
            future.result(30)

    alter(ResourceType.TOPIC, "tuned", ("retention.ms", "123456"), ("cleanup.policy", None))
    everyone = ("--entity-type", "brokers", "--entity-default")  # a name the library cannot say
    kafka.run_tool("kafka.admin.ConfigCommand", *everyone, "--alter", "--add-config", "log.retention.ms=999999")
    alter(ResourceType.BROKER, "1", ("log.cleaner.threads", "2"))
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True})
    producer.produce("plain", b"value")
    assert producer.flush(30) == 0
    admin.delete_topics(["gone"])["gone"].result(30)
    described = admin.describe_topics(_collection(["plain", "tuned"]))
    return {name: base64.b64decode(f"{future.result(30).topic_id}==") for name, future in described.items()}


def _collection(names: list[str]) -> Any:
    from confluent_kafka import TopicCollection

    return TopicCollection(names)


def framed(record: Any, version: int = 0, kind: int | None = None) -> bytes:
    """Return a record as it stands in the log."""
    key = record.__wire__.key if kind is None else kind
    return varint_bytes(1) + varint_bytes(key) + varint_bytes(version) + encode(record, version)


def batch(base_offset: int, values: Sequence[bytes], *, control: bool = False) -> bytes:
    """Return a batch of framed records."""
    builder = BatchBuilder(base_offset=base_offset, leader_epoch=1, control=control)
    for value in values:
        builder.append(0, None, value)
    return builder.build()


def partition(topic_id: bytes, index: int = 0, replicas: Sequence[int] = (1,), epoch: int = 4) -> PartitionRecord:
    """Return the record of a partition led by its first replica."""
    return PartitionRecord(
        partition_id=index,
        topic_id=topic_id,
        replicas=list(replicas),
        isr=list(replicas),
        leader=replicas[0],
        leader_epoch=epoch,
        partition_epoch=7,
    )


def write(
    folder: Path, values: Sequence[bytes], *, name: str = f"{0:020d}.log", first: int = 0, each: int = 2
) -> bytes:
    """Write values as a log of small batches and return its bytes."""
    (folder / FOLDER_NAME).mkdir(exist_ok=True)
    data = b"".join(batch(first + at, values[at : at + each]) for at in range(0, len(values), each))
    (folder / FOLDER_NAME / name).write_bytes(data)
    return data


BASE = [
    framed(RegisterBrokerRecord(broker_id=1)),
    framed(TopicRecord(name="a", topic_id=A)),
    framed(partition(A), 2),
    framed(ConfigRecord(resource_type=2, resource_name="a", name="retention.ms", value="5")),
]


def adopt(folder: Path) -> ClusterImage:
    """Return the image that is adopted from a folder for node 1."""
    adopted = read_kafka_metadata(folder, 1)
    assert adopted is not None
    return ClusterImage().apply(1, adopted.operations(ClusterImage()))


def test_a_directory_without_metadata(tmp_path: Path) -> None:
    assert read_kafka_metadata(tmp_path, 1) is None
    (tmp_path / FOLDER_NAME).mkdir()
    assert read_kafka_metadata(tmp_path, 1) is None


def test_changes_of_partitions_and_configs(tmp_path: Path) -> None:
    more = [
        framed(PartitionChangeRecord(partition_id=0, topic_id=A, leader=-1, isr=[1]), 1),
        framed(PartitionChangeRecord(partition_id=0, topic_id=A, leader=1), 2),
        framed(ConfigRecord(resource_type=2, resource_name="a", name="retention.ms", value=None)),
        framed(ConfigRecord(resource_type=4, resource_name="", name="log.retention.ms", value="6")),
        framed(ProducerIdsRecord(broker_id=1, next_producer_id=5000)),
    ]
    write(tmp_path, BASE + more)
    image = adopt(tmp_path)
    (state,) = image.topics["a"].partitions
    assert (state.leader, state.leader_epoch, state.partition_epoch) == (1, 4 + 2 + 1, 7 + 2 + 1)
    assert image.topics["a"].configs == {}
    assert image.broker_configs == {"": {"log.retention.ms": "6"}}
    assert image.next_producer_id == 5000


def test_a_new_topic_of_an_old_name_has_none_of_its_configs(tmp_path: Path) -> None:
    again = [
        framed(RemoveTopicRecord(topic_id=A)),
        framed(TopicRecord(name="a", topic_id=B)),
        framed(partition(B)),
    ]
    write(tmp_path, BASE + again)
    image = adopt(tmp_path)
    assert image.topics["a"].topic_id == B
    assert image.topics["a"].configs == {}


@pytest.mark.parametrize(
    ("end", "topics"),
    [
        ([framed(EndTransactionRecord())], ["a", "b"]),
        ([framed(AbortTransactionRecord(reason="no"))], ["a"]),
        ([], ["a"]),
    ],
)
def test_a_transaction_holds_whole_or_not_at_all(tmp_path: Path, end: list[bytes], topics: list[str]) -> None:
    inside = [framed(BeginTransactionRecord(name="x")), framed(TopicRecord(name="b", topic_id=B)), framed(partition(B))]
    write(tmp_path, BASE + inside + end)
    assert sorted(adopt(tmp_path).topics) == topics
    adopted = read_kafka_metadata(tmp_path, 1)
    assert adopted is not None
    assert bool(adopted.notes) == (end == [])


def test_the_newest_snapshot_and_what_follows_it(tmp_path: Path) -> None:
    later = [
        framed(TopicRecord(name="b", topic_id=B)),
        framed(partition(B)),
        framed(ProducerIdsRecord(next_producer_id=9)),
    ]
    write(tmp_path, [framed(ProducerIdsRecord(next_producer_id=1))], name=f"{1:020d}-{1:010d}.checkpoint")
    write(tmp_path, BASE, name=f"{41:020d}-{1:010d}.checkpoint")
    # The log begins before the snapshot's end: its records up to offset 40 are in the snapshot already.
    write(tmp_path, [framed(ProducerIdsRecord(next_producer_id=77)), *later], name=f"{40:020d}.log", first=40, each=4)
    image = adopt(tmp_path)
    assert sorted(image.topics) == ["a", "b"]
    assert image.next_producer_id == 9


def test_control_batches_and_unknown_kinds_say_nothing(tmp_path: Path) -> None:
    data = batch(0, [b"\x00" * 8], control=True) + batch(1, [framed(TopicRecord(), 0, kind=20)])
    data += b"".join(batch(2 + index, [value]) for index, value in enumerate(BASE))
    (tmp_path / FOLDER_NAME).mkdir()
    (tmp_path / FOLDER_NAME / f"{0:020d}.log").write_bytes(data)
    assert list(adopt(tmp_path).topics) == ["a"]


@pytest.mark.parametrize("cut", [1, 30, 60, 61, 70])
@pytest.mark.parametrize("zeros", [0, 5, 200])
def test_a_torn_end_ends_the_log(tmp_path: Path, cut: int, zeros: int) -> None:
    write(tmp_path, BASE)
    whole = len(write(tmp_path, BASE))
    data = write(tmp_path, [*BASE, framed(TopicRecord(name="b", topic_id=B)), framed(partition(B))])
    data = data[:whole] + bytes(zeros) if zeros else data[: whole + cut]
    (tmp_path / FOLDER_NAME / f"{0:020d}.log").write_bytes(data)
    assert list(adopt(tmp_path).topics) == ["a"]


def test_damage_before_the_end_is_an_error(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path, BASE, each=1))
    data[90] ^= 1
    (tmp_path / FOLDER_NAME / f"{0:020d}.log").write_bytes(data)
    with pytest.raises(AdoptionError, match="damaged"):
        adopt(tmp_path)


def test_a_missing_segment_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, BASE, name=f"{10:020d}.log", first=10)
    with pytest.raises(AdoptionError, match="continues at offset 10, but what is known ends at 0"):
        adopt(tmp_path)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (varint_bytes(2) + b"\x02\x00", "its frame has version 2"),
        (framed(TopicRecord(name="b", topic_id=B))[:-3], "cannot be read"),
        (varint_bytes(1) + varint_bytes(2) + varint_bytes(9), "a newer Kafka wrote it: TopicRecord of version 9"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, value: bytes, complaint: str) -> None:
    write(tmp_path, [*BASE, value])
    with pytest.raises(AdoptionError, match=f"offset 4 .*{complaint}"):
        adopt(tmp_path)


def test_what_a_single_node_cannot_keep_is_said(tmp_path: Path) -> None:
    more = [
        framed(RegisterBrokerRecord(broker_id=2)),
        framed(RegisterBrokerRecord(broker_id=3)),
        framed(UnregisterBrokerRecord(broker_id=3)),
        framed(partition(A, 1, [2, 3])),
        framed(PartitionChangeRecord(partition_id=0, topic_id=A, isr=[2], replicas=[1, 2], leader=2)),
        framed(ConfigRecord(resource_type=16, resource_name="subscription", name="interval.ms", value="1")),
        framed(ConfigRecord(resource_type=32, resource_name="g", name="consumer.session.timeout.ms", value="50000")),
        framed(TopicRecord(), 0, kind=18),
    ]
    write(tmp_path, BASE + more)
    adopted = read_kafka_metadata(tmp_path, 1)
    assert adopted is not None
    assert [state.leader for state in adopted.topics[0].partitions] == [1, -1]
    assert adopted.group_configs == {"g": {"consumer.session.timeout.ms": "50000"}}
    text = "\n".join(adopted.notes)
    for expected in (
        "access control entries",
        r"brokers [1, 2]",
        "1 partitions have no replica on broker 1",
        "1 partitions were not in sync",
        "resource types [16]",
    ):
        assert expected in text
    elsewhere = read_kafka_metadata(tmp_path, 9)
    assert elsewhere is not None
    assert any("never had a broker 9" in note for note in elsewhere.notes)
