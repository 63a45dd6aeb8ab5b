"""Requests leave nothing for the cyclic collector, which runs rarely here: a cycle would hold megabytes of answers."""

import gc
from collections.abc import Callable

from tests.support.broker_thread import BrokerThread

from millstream.core.records import BatchBuilder
from millstream.core.wire.messages.metadata import MetadataRequest
from millstream.testing.raw import RawConnection


def batch(size: int) -> bytes:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, None, b"x" * size)
    return bytes(builder.build())


def test_requests_leave_no_cycles(served: BrokerThread, raw: RawConnection, new_name: Callable[[], str]) -> None:
    topic = new_name()
    raw.create_topic(topic, 2)
    opened = new_name()
    raw.create_topic(opened, 1, compression_type="lz4")
    raw.produce(topic, 0, batch(10))
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for size in (10, 200_000):
            raw.produce(topic, 0, batch(size))
            raw.produce(opened, 0, batch(size))
            raw.fetch(topic, 0, 0)
            raw.fetch(topic, 1, 0, wait_ms=5)
            raw.fetch(topic, 1, 99)
            raw.fetch("nowhere", 0, 0)
            raw.offset(topic, 0, 1_700_000_000_000)
            raw.call(MetadataRequest())
        served.call(lambda broker: gc.collect())
        left = [item for item in gc.garbage if type(item).__module__.startswith("millstream.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
