"""The faces work unchanged against Millstream and against Apache Kafka: tests that take `bootstrap` run on both."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest

from millstream import Admin

_numbers = itertools.count()


@pytest.fixture(params=["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def bootstrap(request: pytest.FixtureRequest) -> str:
    """The address of a broker, ours or Apache Kafka's; shared, so topics need names of their own."""
    fixture = "millstream_broker_session" if request.param == "millstream" else "apache_kafka"
    address: str = request.getfixturevalue(fixture).bootstrap_servers
    return address


@pytest.fixture
def make_topic(bootstrap: str) -> Callable[[int], str]:
    """Make a topic of so many partitions that no other test uses; returns its name."""

    def make(partitions: int) -> str:
        name = f"columns-{os.getpid()}-{next(_numbers)}"
        with Admin(bootstrap) as admin:
            admin.create_topic(name, partitions=partitions)
        return name

    return make
