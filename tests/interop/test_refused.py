"""What is not served yet, asked for by every client: a transactional producer is told so for good, and soon."""

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

from millstream.testing.kafka import Java
from millstream.testing.raw import RawConnection

pytestmark = pytest.mark.java

# Clients give up on transactions after 30 to 60 seconds where they take an answer for temporary.
ENDS_WITHIN_S: Final = 25.0
PROGRAM: Final = Path(__file__).parents[1] / "support" / "RefusedClient.java"
TOPIC: Final = "written-in-transactions"


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
    outcome, elapsed_ms = java.run(str(PROGRAM), bootstrap).stdout.split()[-2:]
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
