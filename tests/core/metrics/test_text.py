"""The Prometheus text against a strict reader of its grammar."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.prometheus import parse

from millstream.core.metrics import Registry, render, render_pieces
from millstream.core.metrics.text import LINES_PER_PIECE


def test_a_whole_registry_reads_back() -> None:
    registry = Registry()
    registry.counter("bytes_total", "Bytes, all\nof them \\ here.", "topic").labels("flights").value += 4096
    registry.gauge("temperature", "Now.").labels().value = -1.5
    registry.computed("sizes", "Sizes.", "gauge", ("topic", "partition"), lambda: [(("a", "0"), 7), (("a", "1"), 8)])
    times = registry.summary("time_ms", "Time.", "request").labels("Fetch")
    times.observe(2_000)

    families = parse(render(registry, 0))

    assert families["bytes_total"].kind == "counter"
    assert families["bytes_total"].help == "Bytes, all\nof them \\ here."
    assert families["bytes_total"].samples == {("bytes_total", (("topic", "flights"),)): 4096}
    assert families["temperature"].samples == {("temperature", ()): -1.5}
    assert families["sizes"].samples[("sizes", (("topic", "a"), ("partition", "1")))] == 8
    summary = families["time_ms"].samples
    assert summary["time_ms_count", (("request", "Fetch"),)] == 1
    assert summary["time_ms_sum", (("request", "Fetch"),)] == 2
    assert 2 <= summary["time_ms", (("request", "Fetch"), ("quantile", "0.99"))] <= 2.25


@given(value=st.text(max_size=40), number=st.floats(allow_nan=False))
def test_any_label_and_any_number_reads_back(value: str, number: float) -> None:
    registry = Registry()
    registry.gauge("client", "Client.", "client_id").labels(value).value = number

    samples = parse(render(registry, 0))["client"].samples

    # An empty label is an absent one to Prometheus.
    assert samples == {("client", (("client_id", value),) if value else ()): number}


def test_nothing_observed_is_not_a_number_of_zero() -> None:
    registry = Registry()
    registry.summary("time_ms", "Time.").labels()

    samples = parse(render(registry, 0))["time_ms"].samples

    assert math.isnan(samples["time_ms", (("quantile", "0.5"),)])
    assert samples["time_ms_count", ()] == 0


def test_a_family_without_samples_is_left_out() -> None:
    registry = Registry()
    registry.counter("never_total", "Never.", "topic")
    assert render(registry, 0) == ""


def test_a_large_scrape_comes_in_pieces_and_children_may_come_between_them() -> None:
    registry = Registry()
    family = registry.counter("bytes_total", "Bytes.", "topic")
    for index in range(3 * LINES_PER_PIECE):
        family.labels(f"topic-{index}").value += index

    pieces: list[str] = []
    for piece in render_pieces(registry, 0):
        family.labels(f"late-{len(pieces)}").value += 1
        pieces.append(piece)

    assert max(len(re.findall("\n", piece)) for piece in pieces) <= LINES_PER_PIECE
    assert len(parse("".join(pieces))["bytes_total"].samples) == 3 * LINES_PER_PIECE


def test_two_lines_of_one_name_are_what_the_reader_refuses() -> None:
    registry = Registry()

    def read() -> Iterable[tuple[tuple[str, ...], float]]:
        return [(("a",), 1), (("a",), 2)]

    registry.computed("twice", "Twice.", "gauge", ("topic",), read)
    with pytest.raises(ValueError, match="twice"):
        parse(render(registry, 0))
