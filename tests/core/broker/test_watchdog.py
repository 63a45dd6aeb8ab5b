"""The watchdog against a loop that is held up, by a function that must be found in its log line."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from millstream.core.broker.watchdog import Watchdog
from millstream.core.metrics import Registry
from millstream.testing.kafka import wait_until


def test_it_names_what_holds_the_loop_up(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry()
    found = threading.Event()

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "in hold_the_loop_up" in record.getMessage():
                found.set()

    def hold_the_loop_up() -> None:
        assert found.wait(60), "the watchdog saw nothing"

    async def main() -> float:
        watchdog = Watchdog(registry, time.monotonic_ns, threshold_ms=lambda: 100, interval_ms=1)
        watchdog.start()
        await asyncio.to_thread(wait_until, lambda: registry.value("millstream_loop_lag_ms") > 0, 60, "it measures")
        hold_the_loop_up()
        await asyncio.to_thread(
            wait_until, lambda: registry.value("millstream_loop_stalls_total") > 0, 60, "the stall is counted"
        )
        lag_ms = watchdog.recent_lag_ms()
        watchdog.stop()
        return lag_ms

    logger = logging.getLogger("millstream.core.broker.watchdog")
    handler = Seen()
    logger.addHandler(handler)
    try:
        lag_ms = asyncio.run(main())
    finally:
        logger.removeHandler(handler)

    assert lag_ms >= 100
    assert registry.value("millstream_loop_lag_max_ms") == lag_ms
    assert "in hold_the_loop_up" in caplog.text


def test_a_free_loop_is_measured_and_not_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry()

    async def main() -> None:
        watchdog = Watchdog(registry, time.monotonic_ns, threshold_ms=lambda: 10_000, interval_ms=1)
        watchdog.start()
        await asyncio.to_thread(
            wait_until, lambda: registry.value("millstream_loop_lag_ms") >= 5, 60, "five pings are answered"
        )
        watchdog.stop()

    asyncio.run(main())

    assert registry.value("millstream_loop_stalls_total") == 0
    assert caplog.text == ""


def test_a_loop_that_was_closed_ends_the_thread() -> None:
    async def main() -> None:
        Watchdog(Registry(), time.monotonic_ns, threshold_ms=lambda: 100, interval_ms=1).start()

    asyncio.run(main())

    def ended() -> bool:
        return not any(thread.name == "millstream-watchdog" for thread in threading.enumerate())

    wait_until(ended, 60, "the watchdog's thread ends")
