"""The client works unchanged against Millstream and against Apache Kafka: tests that take `bootstrap` run on both."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest

_numbers = itertools.count()


@pytest.fixture(params=["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def bootstrap(request: pytest.FixtureRequest) -> str:
    """The address of a broker, ours or Apache Kafka's; shared, so topics need names of their own."""
    fixture = "millstream_broker_session" if request.param == "millstream" else "apache_kafka"
    address: str = request.getfixturevalue(fixture).bootstrap_servers
    return address


@pytest.fixture
def topic_name(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Make names of topics that no other test uses."""
    return lambda: f"client-{os.getpid()}-{next(_numbers)}"
