"""A registry for serdes, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.fake_registry import FakeRegistry

from millstream.schemas import RegistryClient


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def registry(fake: FakeRegistry) -> Iterator[RegistryClient]:
    with RegistryClient(fake.url, retries=0) as client:
        yield client
