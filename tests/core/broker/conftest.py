"""A broker that the tests of one module share: topics have names of their own."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.testing.raw import RawConnection


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    """A running broker with default settings."""
    with BrokerThread(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def raw(served: BrokerThread) -> Iterator[RawConnection]:
    """A connection to it."""
    with RawConnection(served.bootstrap_servers) as connection:
        yield connection


@pytest.fixture(scope="module")
def new_name() -> Callable[[], str]:
    """Return a topic name that no other test of the module has."""
    numbers = count()
    return lambda: f"topic-{next(numbers)}"
