"""A registry on the session's broker, a topic and a group of its own for each module."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from tests.support.registry import Asker, registry

from millstream.testing import TestBroker

_numbers = count()


def own_settings() -> dict[str, str]:
    """Settings by which registries on one cluster do not meet."""
    number = next(_numbers)
    return {"kafkastore.topic": f"_schemas-{number}", "schema.registry.group.id": f"registries-{number}"}


@pytest.fixture(scope="module")
def schemas(millstream_broker_session: TestBroker) -> Iterator[Asker]:
    """Asks a registry that the tests of the module share: let each use subjects of its own."""
    with registry(millstream_broker_session.bootstrap_servers, own_settings()) as running:
        yield Asker(running.url)
