"""Broker fixture and fakes for the tests of Kafka applications: public to users.

    from millstream.testing import broker

    with broker() as b:
        ...  # any Kafka client, at b.bootstrap_servers

Names are loaded on first use, so that a project which has Millstream installed and does not use it pays nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.testing.brokers import BrokerStartError, TestBroker, broker

__all__ = ["BrokerStartError", "TestBroker", "broker"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from millstream.testing import brokers

    return getattr(brokers, name)
