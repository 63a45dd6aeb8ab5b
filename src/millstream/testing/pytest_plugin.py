"""The pytest plugin: `millstream_broker` and `millstream_broker_session`.

pytest loads it in every project that has Millstream installed, so it imports nothing until a fixture is used.

    def test_my_application(millstream_broker):
        producer = Producer({"bootstrap.servers": millstream_broker.bootstrap_servers})

`millstream_broker` is a fresh broker per test, up in a fraction of a second. `millstream_broker_session` is one for the
whole run: quicker where tests use topics of their own. Both take settings by the `millstream_config` fixture, which a
project overrides in its conftest.py or by `@pytest.mark.millstream(config={...})` on a test.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from millstream.testing.brokers import TestBroker

_BROKER: pytest.StashKey[TestBroker] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "millstream(config): settings of the broker that the fixture millstream_broker starts for this test"
    )


@pytest.fixture(scope="session")
def millstream_config() -> Mapping[str, object]:
    """Broker settings by Kafka's names for both broker fixtures; override it in a conftest.py."""
    return {}


@pytest.fixture
def millstream_broker(request: pytest.FixtureRequest, millstream_config: Mapping[str, object]) -> Iterator[TestBroker]:
    """A fresh Kafka-compatible broker for this test; `.bootstrap_servers` is its address."""
    from millstream.testing.brokers import broker

    settings = dict(millstream_config)
    for mark in reversed(list(request.node.iter_markers("millstream"))):
        settings.update(mark.kwargs.get("config", {}))
    with ExitStack() as stack:
        started = _started(stack, broker(settings))
        request.node.stash[_BROKER] = started
        yield started


@pytest.fixture(scope="session")
def millstream_broker_session(millstream_config: Mapping[str, object]) -> Iterator[TestBroker]:
    """One Kafka-compatible broker for the whole run; let each test use topic names of its own."""
    from millstream.testing.brokers import broker

    with ExitStack() as stack:
        yield _started(stack, broker(millstream_config))


def _started(stack: ExitStack, made: TestBroker) -> TestBroker:
    """Start a broker for as long as `stack` lives; one that does not start fails the test by its own words alone."""
    from millstream.testing.brokers import BrokerStartError

    try:
        return stack.enter_context(made)
    except BrokerStartError as error:
        reason = str(error)
    pytest.fail(f"millstream_broker: {reason}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Show what the broker printed with a test that failed."""
    report = yield
    started = item.stash.get(_BROKER, None)
    if report.when == "call" and report.failed and started is not None and (output := started.output.strip()):
        report.sections.append(("Millstream broker output", output))
    return report
