"""The broker that the interop tests speak to, and the clients.

MILLSTREAM_INTEROP_BROKERS names the brokers ("millstream", "kafka", comma-separated). `make soak` runs both: a test
that Apache Kafka itself does not pass is a wrong test.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.support.clients import AioKafka, ConfluentKafka, JavaClient, KafkaClient, KafkaPython, MillstreamClient
from tests.support.secured_kafka import Secured

from millstream.testing.raw import RawConnection

BOTH = "millstream,kafka"
BROKERS = os.environ.get(
    "MILLSTREAM_INTEROP_BROKERS", BOTH if os.environ.get("MILLSTREAM_SOAK") == "1" else "millstream"
)

MakeTopic = Callable[..., str]


@pytest.fixture(scope="session", params=BROKERS.split(","))
def bootstrap(request: pytest.FixtureRequest, millstream_config: Mapping[str, str]) -> Iterator[str]:
    """HOST:PORT of the broker under test."""
    if request.param == "kafka":
        yield request.getfixturevalue("apache_kafka").bootstrap_servers
        return
    from millstream.testing import broker

    with broker(millstream_config) as running:
        yield running.bootstrap_servers


@pytest.fixture(scope="session")
def java_client(jars: Path) -> Iterator[JavaClient]:
    """Kafka's own client, in one JVM for the session."""
    client = JavaClient(jars)
    yield client
    client.close()


@pytest.fixture(scope="session")
def clients(java_client: JavaClient) -> Mapping[str, KafkaClient]:
    """Every client, by name."""
    every: list[KafkaClient] = [ConfluentKafka(), KafkaPython(), AioKafka(), java_client, MillstreamClient()]
    return {client.name: client for client in every}


@pytest.fixture(scope="session")
def make_topic(bootstrap: str) -> MakeTopic:
    """make_topic(name, partitions=1, **configs with _ for .) creates a topic and returns its name.

    Every partition has a leader that answers then: a producer without idempotence that has to try again writes out of
    order, and says so.
    """

    def make(name: str, partitions: int = 1, **configs: object) -> str:
        with RawConnection(bootstrap) as raw:
            raw.create_topic(name, partitions, **configs)
        return name

    return make


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[Secured]:
    """A Kafka of this module's own with protected listeners."""
    made = Secured(tmp_path_factory.mktemp("secured"), jars)
    try:
        made.start()
        yield made
    finally:
        made.kafka.stop()
