"""A broker and a registry for the loads of one module, ours or Apache Kafka's; each test has a topic of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import pytest
from tests.support.loads import Events
from tests.support.registry import registry

from millstream.testing import broker


class Cluster(NamedTuple):
    """Where a test's topics and schemas are."""

    bootstrap: str
    registry_url: str


@pytest.fixture(scope="module")
def cluster(broker_kind: str, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if broker_kind == "kafka":
        bootstrap: str = request.getfixturevalue("apache_kafka").bootstrap_servers
        yield Cluster(bootstrap, request.getfixturevalue("kafka_registry").url)
        return
    with broker() as kafka, registry(kafka.bootstrap_servers) as schemas:
        yield Cluster(kafka.bootstrap_servers, schemas.url)


_numbers = count(1)


@pytest.fixture
def new_events(cluster: Cluster) -> Callable[..., Events]:
    """Makes topics: new_events(partitions=3, ...)."""

    def make(**options: object) -> Events:
        return Events(cluster.bootstrap, cluster.registry_url, f"events-{next(_numbers)}", **options)  # type: ignore[arg-type]

    return make
