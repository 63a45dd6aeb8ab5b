"""Counters, gauges and summaries: what is counted is what is shown, and client-given labels stay bounded."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.core.metrics import Registry, Summary
from millstream.core.metrics.registry import CHILDREN_COUNT_MAX, OTHER, WINDOW_MS


def test_children_are_kept_by_their_labels() -> None:
    registry = Registry()
    family = registry.counter("requests_total", "Requests.", "request", "version")
    family.labels("Produce", "9").value += 2
    family.labels("Produce", "9").value += 1
    family.labels("Fetch", "12").value += 5

    assert registry.value("requests_total", "Produce", "9") == 3
    assert registry.value("requests_total", "Fetch", "12") == 5
    assert registry.value("requests_total", "Fetch", "13") == 0

    family.remove("Fetch", "12")
    assert registry.value("requests_total", "Fetch", "12") == 0


def test_label_values_beyond_the_bound_share_one_child() -> None:
    family = Registry().counter("requests_total", "Requests.", "client")
    for index in range(CHILDREN_COUNT_MAX + 50):
        family.labels(f"client-{index}").value += 1

    assert len(family.children()) == CHILDREN_COUNT_MAX + 1
    assert family.labels(OTHER).value == 50
    assert family.labels("client-7").value == 1


def test_a_name_is_registered_once() -> None:
    registry = Registry()
    registry.gauge("partitions", "Partitions.")
    with pytest.raises(AssertionError, match="partitions is registered twice"):
        registry.read_gauge("partitions", "Partitions.", lambda: 1)


@given(values=st.lists(st.integers(0, 2**41), min_size=1, max_size=200), share=st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_never_below_the_true_one_and_at_most_an_eighth_above(values: list[int], share: float) -> None:
    summary = Summary()
    for value in values:
        summary.observe(value)

    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    shown = summary.quantile(share)

    assert summary.count == len(values)
    assert summary.total == sum(values)
    if exact < 2**40:
        assert exact <= shown <= exact * 1.125
    else:
        assert shown >= 2**39  # counted as the greatest there is


def test_quantiles_forget_what_is_older_than_two_windows() -> None:
    summary = Summary()
    summary.roll(1)
    summary.observe(1000)
    summary.roll(1 + WINDOW_MS)
    summary.observe(10)

    assert summary.quantile(1.0) >= 1000, "the window before counts"

    summary.roll(1 + 2 * WINDOW_MS)
    assert summary.quantile(1.0) == 10
    summary.roll(1 + 4 * WINDOW_MS)
    assert math.isnan(summary.quantile(1.0))
    assert summary.count == 2, "count and sum are those since the start"


def test_a_clock_that_stepped_back_counts_as_nothing_elapsed() -> None:
    summary = Summary()
    summary.observe(-5)
    assert (summary.count, summary.total, summary.quantile(1.0)) == (1, 0, 0)
