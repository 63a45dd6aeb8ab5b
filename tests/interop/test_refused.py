"""What is not served yet, asked for by every client: it ends soon and plainly, and the broker does not labour over it.

A transactional producer is told for good. A group's consumer keeps looking for its coordinator, as it does while one
moves, at its own pace.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import aiokafka
import aiokafka.errors
import confluent_kafka
import kafka
import kafka.errors
import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker
from millstream.core.wire import ApiKey
from millstream.testing.kafka import Java
from millstream.testing.raw import RawConnection

pytestmark = pytest.mark.java

# Clients give up on transactions after 30 to 60 seconds where they take an answer for temporary.
ENDS_WITHIN_S: Final = 25.0
POLLED_S: Final = 1.5
# Each client asks for its coordinator every 100 ms or less often.
LOOKUPS_PER_S_MAX: Final = 60
PROGRAM: Final = Path(__file__).parents[1] / "support" / "RefusedClient.java"
TOPIC: Final = "read-by-a-group"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    with BrokerThread(tmp_path_factory.mktemp("refused")) as broker:
        with RawConnection(broker.bootstrap_servers) as raw:
            raw.create_topic(TOPIC)
        yield broker


def confluent_transactions(bootstrap: str, _java: Java) -> str:
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "transactional.id": "refused", "log_level": 0})
    with pytest.raises(confluent_kafka.KafkaException) as raised:
        producer.init_transactions(30)
    error = raised.value.args[0]
    return f"{error.name()}, fatal: {error.fatal()}"


def kafka_python_transactions(bootstrap: str, _java: Java) -> str:
    producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, transactional_id="refused")
    try:
        producer.init_transactions()
    except kafka.errors.KafkaError as error:
        return type(error).__name__
    finally:
        producer.close(timeout=1)
    return "none"


def aiokafka_transactions(bootstrap: str, _java: Java) -> str:
    async def start() -> str:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="refused")
        try:
            await producer.start()
            await producer.begin_transaction()
            await producer.send_and_wait(TOPIC, b"never")
        except aiokafka.errors.KafkaError as error:
            return type(error).__name__
        finally:
            await producer.stop()
        return "none"

    return asyncio.run(start())


def java_transactions(bootstrap: str, java: Java) -> str:
    outcome, elapsed_ms = java.run(str(PROGRAM), "transactions", bootstrap).stdout.split()[-2:]
    assert int(elapsed_ms) < ENDS_WITHIN_S * 1000
    return outcome


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (confluent_transactions, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal: True"),
        (kafka_python_transactions, "TransactionalIdAuthorizationFailedError"),
        (aiokafka_transactions, "TransactionalIdAuthorizationFailed"),
        (java_transactions, "TransactionalIdAuthorizationException"),
    ],
    ids=["confluent-kafka", "kafka-python", "aiokafka", "java"],
)
def test_a_transactional_producer_is_told_for_good(
    served: BrokerThread, jars: Path, ask: Callable[[str, Java], str], expected: str
) -> None:
    started = time.monotonic()
    assert ask(served.bootstrap_servers, Java(jars)) == expected
    if ask is not java_transactions:  # which takes its time without that of a JVM that starts
        assert time.monotonic() - started < ENDS_WITHIN_S


def confluent_group(bootstrap: str, _java: Java) -> int:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "refused", "log_level": 0})
    consumer.subscribe([TOPIC])
    count = len(consumer.consume(1, timeout=POLLED_S))
    consumer.close()
    return count


def kafka_python_group(bootstrap: str, _java: Java) -> int:
    consumer = kafka.KafkaConsumer(TOPIC, bootstrap_servers=bootstrap, group_id="refused")
    count = len(consumer.poll(timeout_ms=int(POLLED_S * 1000)))
    consumer.close(autocommit=False, timeout_ms=1000)
    return count


def aiokafka_group(bootstrap: str, _java: Java) -> int:
    async def poll() -> int:
        consumer = aiokafka.AIOKafkaConsumer(TOPIC, bootstrap_servers=bootstrap, group_id="refused")
        with_coordinator = asyncio.create_task(consumer.start())
        done, _ = await asyncio.wait([with_coordinator], timeout=POLLED_S)
        with_coordinator.cancel()
        await asyncio.wait([with_coordinator])
        await asyncio.wait_for(consumer.stop(), ENDS_WITHIN_S)
        return len(done)

    return asyncio.run(poll())


def java_group(bootstrap: str, java: Java) -> int:
    word, count, elapsed_ms = java.run(str(PROGRAM), "group", bootstrap, TOPIC).stdout.split()[-3:]
    assert word == "records"
    assert int(elapsed_ms) < ENDS_WITHIN_S * 1000
    return int(count)


@pytest.mark.parametrize(
    "poll",
    [confluent_group, kafka_python_group, aiokafka_group, java_group],
    ids=["confluent-kafka", "kafka-python", "aiokafka", "java"],
)
def test_a_group_finds_no_coordinator_and_does_no_harm(
    served: BrokerThread, jars: Path, poll: Callable[[str, Java], int]
) -> None:
    before = served.call(lookups)
    assert poll(served.bootstrap_servers, Java(jars)) == 0
    asked = served.call(lookups) - before
    assert 1 <= asked <= LOOKUPS_PER_S_MAX * POLLED_S
    with RawConnection(served.bootstrap_servers) as raw:
        assert raw.offset(TOPIC, 0) == 0


def lookups(broker: Broker) -> int:
    """How many FindCoordinator requests were answered."""
    metrics = broker.metrics.request(ApiKey.FIND_COORDINATOR)
    return sum(int(metrics.version(version).value) for version in range(7))
