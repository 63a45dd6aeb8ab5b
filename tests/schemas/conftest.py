"""The real registry, on a real broker; shared, so subjects need names of their own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.registry import registry as running_registry

from millstream.schemas import RegistryClient

_numbers = itertools.count()


@pytest.fixture(scope="session")
def registry_url(millstream_broker_session: Any) -> Iterator[str]:
    with running_registry(millstream_broker_session.bootstrap_servers) as running:
        yield running.url


@pytest.fixture
def real_registry(registry_url: str) -> Iterator[RegistryClient]:
    with RegistryClient(registry_url) as client:
        yield client


@pytest.fixture
def new_name() -> Callable[[], str]:
    """Make names of topics and subjects that no other test uses."""
    return lambda: f"schemas-{os.getpid()}-{next(_numbers)}"
