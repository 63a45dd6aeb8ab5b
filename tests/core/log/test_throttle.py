"""How much the cleaner reads and writes in a second, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from millstream.core.log.throttle import BURST_S, Throttle


class Clock:
    """Time that passes by waiting only; `on_wait` is called once, in the first wait."""

    def __init__(self, on_wait: Callable[[], object] | None = None, *, stops: bool = False) -> None:
        self.now_s = 1000.0
        self._on_wait = on_wait
        self._stops = stops

    def wait(self, seconds: float) -> bool:
        """Let time pass."""
        on_wait, self._on_wait = self._on_wait, None
        if on_wait is not None:
            on_wait()
        self.now_s += seconds
        return self._stops


def make(clock: Clock, rate: float) -> Throttle:
    """A throttle of that many bytes a second."""
    throttle = Throttle(lambda: clock.now_s, clock.wait)
    throttle.set_rate(rate)
    return throttle


@pytest.mark.parametrize("size_bytes", [10, 999, 5_000, 250_000])
def test_as_many_bytes_pass_in_a_second_as_are_allowed(size_bytes: int) -> None:
    clock = Clock()
    throttle = make(clock, 10_000)
    for _ in range(1_000_000 // size_bytes):
        throttle.take(size_bytes)
    assert 100 - BURST_S - 0.01 <= clock.now_s - 1000 <= 100.01


def test_nobody_waits_without_a_rate_or_after_a_pause() -> None:
    clock = Clock()
    throttle = Throttle(lambda: clock.now_s, clock.wait)
    throttle.take(1 << 40)
    assert clock.now_s == 1000
    throttle.set_rate(1000)
    clock.now_s += 60  # what was not taken in a pause cannot be taken later
    throttle.take(1000)
    assert clock.now_s == pytest.approx(1061, abs=0.01)


def test_a_higher_rate_ends_a_wait_that_would_last_for_days() -> None:
    clock = Clock(lambda: throttle.set_rate(1_000_000))
    throttle = make(clock, 1)
    throttle.take(500_000)
    assert clock.now_s - 1000 <= 2


def test_work_that_is_over_does_not_wait() -> None:
    over: list[bool] = []
    clock = Clock(lambda: over.append(True))
    throttle = make(clock, 1)
    throttle.take(1_000_000, is_over=lambda: bool(over))
    assert clock.now_s <= 1001.0


def test_a_cleaner_that_stops_does_not_wait() -> None:
    clock = Clock(stops=True)
    make(clock, 1).take(1_000_000)
    assert clock.now_s - 1000 <= 1
