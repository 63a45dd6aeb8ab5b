"""Averages and rates of clients' metrics, by a clock of the test's own."""

from __future__ import annotations

import pytest

from millstream.core.client.averages import WINDOW_MS, Average, Rate
from millstream.core.client.membership import MembershipState
from millstream.core.client.membership.membership_metrics import MembershipMetrics


def test_an_average_of_nothing_is_nothing() -> None:
    average = Average()
    assert (average.mean, average.most) == (0.0, 0.0)
    for amount in (1.0, 5.0, 3.0):
        average.add(amount)
    assert (average.mean, average.most, average.count) == (3.0, 5.0, 3)


def test_a_rate_is_that_of_the_last_windows() -> None:
    rate = Rate()
    assert rate.per_s(0) == 0
    for now_ms in range(0, 60_000, 1_000):
        rate.note(now_ms)
    assert rate.per_s(60_000) == pytest.approx(1.0, rel=0.05)
    # The older window is out of date first, then both.
    assert rate.per_s(75_000) == pytest.approx(30 / 45)
    assert rate.per_s(200_000) == 0
    assert rate.total == 60
    rate.note(300_000)
    assert rate.per_s(300_000) == pytest.approx(1 / (WINDOW_MS / 1000))


def test_a_rebalance_lasts_from_the_first_unrest_to_rest() -> None:
    metrics = MembershipMetrics()
    states = [
        (MembershipState.OUTSIDE, 0),
        (MembershipState.JOINING, 100),
        (MembershipState.RECONCILING, 200),
        (MembershipState.STABLE, 400),
        (MembershipState.STABLE, 500),
        (MembershipState.RECONCILING, 1_000),
        (MembershipState.STABLE, 1_100),
        (MembershipState.JOINING, 2_000),
        (MembershipState.STALE, 3_000),
        (MembershipState.LEAVING, 4_000),
    ]
    for state, now_ms in states:
        metrics.note_state(state, now_ms)
    told = metrics.values(6_200)
    assert (told["rebalance_total"], told["failed_rebalance_total"]) == (2, 1)
    assert (told["rebalance_latency_avg"], told["rebalance_latency_max"]) == (200, 300)
    assert told["last_rebalance_seconds_ago"] == 5
    assert told["last_heartbeat_seconds_ago"] == -1
