"""The admin APIs as the clients of others use them: confluent-kafka's AdminClient and kafka-python's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import kafka.errors
import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs miss them
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from kafka import KafkaAdminClient
from tests.support.broker_thread import BrokerThread

from millstream.core.records import BatchBuilder
from millstream.testing.raw import RawConnection

TIMEOUT_S = 90


@pytest.fixture
def admin(served: BrokerThread) -> AdminClient:
    return AdminClient({"bootstrap.servers": served.bootstrap_servers})


@pytest.fixture
def python_admin(served: BrokerThread) -> Iterator[Any]:
    client = KafkaAdminClient(bootstrap_servers=served.bootstrap_servers)
    yield client
    client.close()


def produce(raw: RawConnection, topic: str, count: int) -> None:
    builder = BatchBuilder()
    for _ in range(count):
        builder.append(1_700_000_000_000, None, b"x" * 100)
    assert raw.produce(topic, 0, builder.build()).error_code == 0


def test_confluent_creates_grows_and_deletes(
    admin: AdminClient, raw: RawConnection, new_name: Callable[[], str]
) -> None:
    name = new_name()
    admin.create_topics([NewTopic(name, 2, 1, config={"retention.ms": "60000"})])[name].result(TIMEOUT_S)
    # Created means created: it takes records at once.
    produce(raw, name, 3)
    assert len(admin.list_topics(timeout=TIMEOUT_S).topics[name].partitions) == 2

    admin.create_partitions([NewPartitions(name, 5)])[name].result(TIMEOUT_S)
    assert len(admin.list_topics(timeout=TIMEOUT_S).topics[name].partitions) == 5

    with pytest.raises(KafkaException, match="already exists"):
        admin.create_topics([NewTopic(name, 1, 1)])[name].result(TIMEOUT_S)

    admin.delete_topics([name])[name].result(TIMEOUT_S)
    assert name not in admin.list_topics(timeout=TIMEOUT_S).topics
    with pytest.raises(KafkaException, match="Unknown topic or partition"):
        admin.delete_topics([name])[name].result(TIMEOUT_S)


def test_confluent_describes_and_alters_configs(admin: AdminClient, new_name: Callable[[], str]) -> None:
    name = new_name()
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(TIMEOUT_S)
    resource = ConfigResource(ResourceType.TOPIC, name)

    change = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND)
    edited = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[change])
    admin.incremental_alter_configs([edited])[edited].result(TIMEOUT_S)
    described = admin.describe_configs([resource])[resource].result(TIMEOUT_S)
    assert described["cleanup.policy"].value == "delete,compact"
    assert described["retention.ms"].value == "604800000"
    assert described["retention.ms"].is_default

    whole = ConfigResource(ResourceType.TOPIC, name, set_config={"retention.ms": "1"})
    with pytest.warns(DeprecationWarning, match="alter_configs has been deprecated"):
        altered = admin.alter_configs([whole])
    altered[whole].result(TIMEOUT_S)
    described = admin.describe_configs([resource])[resource].result(TIMEOUT_S)
    assert described["cleanup.policy"].value == "delete"
    assert described["retention.ms"].value == "1"


def test_confluent_describes_the_broker_and_the_cluster(admin: AdminClient, served: BrokerThread) -> None:
    resource = ConfigResource(ResourceType.BROKER, "1")
    described = admin.describe_configs([resource])[resource].result(TIMEOUT_S)
    assert described["log.dirs"].value == str(served.data_directory)
    assert described["log.dirs"].is_read_only
    assert not described["log.retention.ms"].is_read_only

    cluster = admin.describe_cluster(request_timeout=TIMEOUT_S).result(TIMEOUT_S)
    assert cluster.cluster_id == served.call(lambda broker: broker.metadata.image.cluster_id)
    assert [(node.id, f"{node.host}:{node.port}") for node in cluster.nodes] == [(1, served.bootstrap_servers)]


def test_confluent_deletes_records(admin: AdminClient, raw: RawConnection, new_name: Callable[[], str]) -> None:
    name = new_name()
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(TIMEOUT_S)
    produce(raw, name, 10)

    wanted = TopicPartition(name, 0, 4)
    assert admin.delete_records([wanted])[wanted].result(TIMEOUT_S).low_watermark == 4
    assert raw.offset(name, 0, timestamp=-2) == 4


def test_kafka_python_does_it_all(
    python_admin: Any, raw: RawConnection, served: BrokerThread, new_name: Callable[[], str]
) -> None:
    name = new_name()
    python_admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1}})
    produce(raw, name, 3)
    with pytest.raises(kafka.errors.TopicAlreadyExistsError):
        python_admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1}})

    python_admin.create_partitions({name: 4})
    assert raw.topics()[name] == 4
    assert python_admin.describe_cluster()["cluster_id"] == served.call(lambda broker: broker.metadata.image.cluster_id)

    python_admin.delete_topics([name])
    assert name not in raw.topics()
