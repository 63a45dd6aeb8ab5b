"""What real clients are made to say for `tools.record_golden`: one story per thing a client can do.

Every client goes through the same course where it has the call: topics, configs, records, groups, transactions, SASL.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from millstream.testing.kafka import KAFKA_VERSION, Java

# The clients carry no types, or not all of them.
aiokafka: Any = import_module("aiokafka")
aiokafka_admin: Any = import_module("aiokafka.admin")
aiokafka_config: Any = import_module("aiokafka.admin.config_resource")
confluent_kafka: Any = import_module("confluent_kafka")
confluent_admin: Any = import_module("confluent_kafka.admin")
kafka_python: Any = import_module("kafka")
kafka_python_admin: Any = import_module("kafka.admin")

Story = tuple[str, Callable[[], object]]
POLLS: Final = 16


class Kafka(NamedTuple):
    """Where a client is to connect, as whom, and the topic that is its own in this pass."""

    bootstrap: str
    sasl_bootstrap: str
    user: str
    password: str
    client_id: str
    topic: str
    java: Java

    @property
    def sasl(self) -> dict[str, Any]:
        """Settings of a Python client for the SASL listener."""
        return {
            "bootstrap_servers": self.sasl_bootstrap,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": self.user,
            "sasl_plain_password": self.password,
            "client_id": self.client_id,
        }


class GoldenClient(Protocol):
    """A client: `name` goes into the golden files, with its version; `module` names it on the command line."""

    name: str
    module: str

    def stories(self, place: Kafka) -> Iterator[Story]: ...


class ConfluentKafka:
    """librdkafka by confluent-kafka."""

    name = f"confluent-kafka {version('confluent-kafka')} (librdkafka {confluent_kafka.libversion()[0]})"
    module = "confluent-kafka"

    def stories(self, place: Kafka) -> Iterator[Story]:
        settings = {"bootstrap.servers": place.bootstrap, "client.id": place.client_id}
        client = confluent_admin.AdminClient(settings)
        group = f"{place.topic}-group"
        partition = confluent_kafka.TopicPartition(place.topic, 0)

        def wait(futures: dict[Any, Any]) -> None:
            for future in futures.values():
                future.result(10)

        resource = confluent_admin.ConfigResource(confluent_admin.ConfigResource.Type.TOPIC, place.topic)
        changed = confluent_admin.ConfigResource(
            confluent_admin.ConfigResource.Type.TOPIC,
            place.topic,
            incremental_configs=[
                confluent_admin.ConfigEntry(
                    "retention.ms", "3600000", incremental_operation=confluent_admin.AlterConfigOpType.SET
                )
            ],
        )
        replaced = confluent_admin.ConfigResource(
            confluent_admin.ConfigResource.Type.TOPIC, place.topic, set_config={"retention.ms": "7200000"}
        )

        def replace_configs() -> None:
            with warnings.catch_warnings():  # the call is deprecated, and the request is still served
                warnings.simplefilter("ignore", DeprecationWarning)
                wait(client.alter_configs([replaced]))

        def produce() -> None:
            producer = confluent_kafka.Producer(settings | {"enable.idempotence": True, "compression.type": "lz4"})
            for number in range(5):
                producer.produce(place.topic, f"value {number}", f"key {number}", partition=0, headers={"h": b"v"})
            assert producer.flush(10) == 0

        def consume(protocol: dict[str, Any]) -> None:
            consumer = confluent_kafka.Consumer(
                settings | protocol | {"auto.offset.reset": "earliest", "enable.auto.commit": False}
            )
            consumer.subscribe([place.topic])
            try:
                for _ in range(POLLS):
                    if (message := consumer.poll(0.25)) and not message.error():
                        consumer.commit(message=message, asynchronous=False)
                        consumer.committed([partition], timeout=5)
                        consumer.get_watermark_offsets(partition, timeout=5)
                        consumer.offsets_for_times([confluent_kafka.TopicPartition(place.topic, 0, 1)], timeout=5)
                        return
            finally:
                consumer.close()

        def transact() -> None:
            producer = confluent_kafka.Producer(settings | {"transactional.id": f"{place.topic}-txn"})
            producer.init_transactions(10)
            consumer = confluent_kafka.Consumer(settings | {"group.id": group})
            for commit in (True, False):
                producer.begin_transaction()
                producer.produce(place.topic, "in a transaction", partition=1)
                producer.send_offsets_to_transaction(
                    [confluent_kafka.TopicPartition(place.topic, 1, 3)], consumer.consumer_group_metadata(), 10
                )
                (producer.commit_transaction if commit else producer.abort_transaction)(10)
            consumer.close()

        def sasl() -> None:
            confluent_admin.AdminClient(
                {
                    "bootstrap.servers": place.sasl_bootstrap,
                    "security.protocol": "SASL_PLAINTEXT",
                    "sasl.mechanism": "PLAIN",
                    "sasl.username": place.user,
                    "sasl.password": place.password,
                    "client.id": place.client_id,
                }
            ).list_topics(timeout=10)

        new_topic = confluent_admin.NewTopic(place.topic, 2, 1, config={"retention.ms": "86400000"})
        yield "create topic", lambda: wait(client.create_topics([new_topic]))
        yield "more partitions", lambda: wait(client.create_partitions([confluent_admin.NewPartitions(place.topic, 3)]))
        yield "cluster", lambda: client.describe_cluster(include_authorized_operations=True).result(10)
        yield (
            "topics",
            lambda: wait(client.describe_topics(confluent_kafka.TopicCollection([place.topic]))),
        )
        yield "configs", lambda: wait(client.describe_configs([resource]))
        yield "change configs", lambda: wait(client.incremental_alter_configs([changed]))
        yield "replace configs", replace_configs
        yield "produce", produce
        yield "consume", lambda: consume({"group.id": group})
        yield "consume by the new protocol", lambda: consume({"group.id": f"{group}-new", "group.protocol": "consumer"})
        yield "transactions", transact
        yield "offsets", lambda: wait(client.list_offsets({partition: confluent_admin.OffsetSpec.latest()}))
        yield (
            "largest timestamp",
            lambda: wait(client.list_offsets({partition: confluent_admin.OffsetSpec.max_timestamp()})),
        )
        yield (
            "delete records",
            lambda: wait(client.delete_records([confluent_kafka.TopicPartition(place.topic, 0, 2)])),
        )
        yield "groups", lambda: client.list_consumer_groups().result(10)
        yield "group", lambda: wait(client.describe_consumer_groups([group, f"{group}-new"]))
        yield (
            "group offsets",
            lambda: wait(client.list_consumer_group_offsets([confluent_kafka.ConsumerGroupTopicPartitions(group)])),
        )
        yield (
            "elect leaders",
            lambda: client.elect_leaders(confluent_kafka.ElectionType.PREFERRED, [partition]).result(10),
        )
        yield "delete groups", lambda: wait(client.delete_consumer_groups([group]))
        yield "delete topic", lambda: wait(client.delete_topics([place.topic]))
        yield "sasl", sasl


class KafkaPython:
    """kafka-python."""

    name = f"kafka-python {version('kafka-python')}"
    module = "kafka-python"

    def stories(self, place: Kafka) -> Iterator[Story]:
        settings = {"bootstrap_servers": place.bootstrap, "client_id": place.client_id}
        client = kafka_python.KafkaAdminClient(**settings)
        group = f"{place.topic}-group"
        partition = kafka_python.TopicPartition(place.topic, 0)
        resource = kafka_python_admin.ConfigResource(kafka_python_admin.ConfigResourceType.TOPIC, place.topic)
        changed = kafka_python_admin.ConfigResource(
            kafka_python_admin.ConfigResourceType.TOPIC, place.topic, configs={"retention.ms": "3600000"}
        )

        def produce() -> None:
            with contextlib.closing(
                kafka_python.KafkaProducer(**settings, acks="all", compression_type="gzip")
            ) as producer:
                for number in range(5):
                    producer.send(place.topic, f"value {number}".encode(), key=b"key", partition=0).get(10)

        def consume() -> None:
            consumer = kafka_python.KafkaConsumer(
                place.topic, **settings, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False
            )
            with contextlib.closing(consumer):
                for _ in range(POLLS):
                    if consumer.poll(250):
                        consumer.commit()
                        consumer.committed(partition)
                        consumer.end_offsets([partition])
                        return

        def transact() -> None:
            producer = kafka_python.KafkaProducer(**settings, transactional_id=f"{place.topic}-txn")
            with contextlib.closing(producer):
                producer.init_transactions()
                producer.begin_transaction()
                producer.send(place.topic, b"in a transaction", partition=1)
                producer.send_offsets_to_transaction({partition: kafka_python.OffsetAndMetadata(1, "", 0)}, group)
                producer.commit_transaction()

        def sasl() -> None:
            kafka_python.KafkaAdminClient(**place.sasl).close()

        yield (
            "create topic",
            lambda: client.create_topics([kafka_python_admin.NewTopic(place.topic, 2, 1)]),
        )
        yield (
            "more partitions",
            lambda: client.create_partitions({place.topic: kafka_python_admin.NewPartitions(3)}),
        )
        yield "cluster", client.describe_cluster
        yield "topics", lambda: client.describe_topics([place.topic])
        yield "topic partitions", lambda: client.describe_topic_partitions([place.topic])
        yield "configs", lambda: client.describe_configs([resource])
        yield "change configs", lambda: client.alter_configs([changed])
        yield "produce", produce
        yield "consume", consume
        yield "transactions", transact
        yield "delete records", lambda: client.delete_records({partition: 2})
        yield "log dirs", client.describe_log_dirs
        yield "move to a log dir", lambda: client.alter_replica_log_dirs({(place.topic, 0, 1): "/nowhere"})
        yield "producers", lambda: client.describe_producers([partition])
        yield "config resources", client.list_config_resources
        yield "reassign", lambda: client.alter_partition_reassignments({partition: [1]})
        yield "reassignments", client.list_partition_reassignments
        yield "elect leaders", lambda: client.elect_leaders(0, {place.topic: [0]}, raise_errors=False)
        yield "groups", client.list_groups
        yield "group", lambda: client.describe_groups([group])
        yield "group offsets", lambda: client.list_group_offsets(group)
        yield "delete group offsets", lambda: client.delete_group_offsets(group, [partition])
        yield "delete groups", lambda: client.delete_groups([group])
        yield "delete topic", lambda: client.delete_topics([place.topic])
        yield "close", client.close
        yield "sasl", sasl


class AioKafka:
    """aiokafka: the oldest versions of all."""

    name = f"aiokafka {version('aiokafka')}"
    module = "aiokafka"

    def stories(self, place: Kafka) -> Iterator[Story]:
        settings = {"bootstrap_servers": place.bootstrap, "client_id": place.client_id}
        group = f"{place.topic}-group"
        partition = aiokafka.TopicPartition(place.topic, 0)

        async def administer() -> None:
            client = aiokafka_admin.AIOKafkaAdminClient(**settings)
            await client.start()
            resource = aiokafka_config.ConfigResource(aiokafka_config.ConfigResourceType.TOPIC, place.topic)
            changed = aiokafka_config.ConfigResource(
                aiokafka_config.ConfigResourceType.TOPIC, place.topic, configs={"retention.ms": "3600000"}
            )
            calls = [
                lambda: client.create_topics([aiokafka_admin.NewTopic(place.topic, 2, 1)]),
                lambda: client.create_partitions({place.topic: aiokafka_admin.NewPartitions(3)}),
                lambda: client.describe_topics([place.topic]),
                client.describe_cluster,
                lambda: client.describe_configs([resource]),
                lambda: client.alter_configs([changed]),
            ]
            for call in calls:
                with contextlib.suppress(Exception):
                    await call()
            await client.close()

        async def produce() -> None:
            producer = aiokafka.AIOKafkaProducer(**settings, enable_idempotence=True, compression_type="snappy")
            await producer.start()
            for number in range(5):
                await producer.send_and_wait(place.topic, f"value {number}".encode(), key=b"key", partition=0)
            await producer.stop()

        async def consume() -> None:
            consumer = aiokafka.AIOKafkaConsumer(
                place.topic, **settings, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False
            )
            await consumer.start()
            await asyncio.wait_for(consumer.getone(), 10)
            await consumer.commit()
            await consumer.committed(partition)
            await consumer.end_offsets([partition])
            await consumer.stop()

        async def transact() -> None:
            producer = aiokafka.AIOKafkaProducer(**settings, transactional_id=f"{place.topic}-txn")
            await producer.start()
            async with producer.transaction():
                await producer.send_and_wait(place.topic, b"in a transaction", partition=1)
                await producer.send_offsets_to_transaction({partition: 1}, group)
            await producer.stop()

        async def look_after_groups() -> None:
            client = aiokafka_admin.AIOKafkaAdminClient(**settings)
            await client.start()
            calls = [
                client.list_consumer_groups,
                lambda: client.describe_consumer_groups([group]),
                lambda: client.list_consumer_group_offsets(group),
                lambda: client.find_coordinator(group),
                lambda: client.delete_topics([place.topic]),
            ]
            for call in calls:
                with contextlib.suppress(Exception):
                    await call()
            await client.close()

        async def sasl() -> None:
            producer = aiokafka.AIOKafkaProducer(**place.sasl)
            await producer.start()
            await producer.stop()

        for story in (administer, produce, consume, transact, look_after_groups, sasl):
            yield story.__name__, partial(_run, story)


def _run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))


class JavaClients:
    """Kafka's own clients, driven by tools/java/GoldenClient.java."""

    name = f"Java kafka-clients {KAFKA_VERSION}"
    module = "java"

    def stories(self, place: Kafka) -> Iterator[Story]:
        source = Path(__file__).parent / "java" / "GoldenClient.java"

        def run() -> None:
            done = place.java.run(
                str(source),
                place.bootstrap,
                place.client_id,
                place.topic,
                place.sasl_bootstrap,
                place.user,
                place.password,
                timeout_s=180,
            )
            for line in done.stdout.splitlines():
                print(f"    {line}"[:160])

        yield "everything", run


CLIENTS: Final[tuple[GoldenClient, ...]] = (AioKafka(), KafkaPython(), ConfluentKafka(), JavaClients())
