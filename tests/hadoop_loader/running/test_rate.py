"""RateLimit: what was read has taken as long as its rate says, in pauses that are short enough to look up between."""

from __future__ import annotations

import itertools

import pytest

from millstream.hadoop_loader.job import SourceSettings
from millstream.hadoop_loader.running.rate import PAUSE_S, RateLimit


def source(**limits: int) -> SourceSettings:
    return SourceSettings(bootstrap_servers="127.0.0.1:9", topics=("t",), **limits)  # type: ignore[arg-type]


def took(rate: RateLimit, batches: list[tuple[int, int]]) -> float:
    """Read these (records, bytes) one after the other, on a clock that moves while it is waited."""
    now = 0.0
    for records, size in batches:
        now += sum(rate.pauses(records, size, now))
    return now


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({}, 0.0),
        ({"rate_limit_records_per_s": 10}, 400.0),
        ({"rate_limit_bytes_per_s": 1_000}, 800.0),
        ({"rate_limit_records_per_s": 10, "rate_limit_bytes_per_s": 1_000}, 800.0),
        ({"rate_limit_records_per_s": 10, "rate_limit_bytes_per_s": 10_000}, 400.0),
    ],
)
def test_what_is_read_takes_as_long_as_the_slower_limit_says(limits: dict[str, int], seconds: float) -> None:
    batches = [(1_000, 200_000)] * 4

    assert took(RateLimit.of(source(**limits), 1), batches) == pytest.approx(seconds)


def test_splits_share_a_limit() -> None:
    batches = [(100, 0)] * 3

    assert took(RateLimit.of(source(rate_limit_records_per_s=10), 4), batches) == pytest.approx(120.0)


def test_no_pause_is_longer_than_a_worker_may_be_silent() -> None:
    pauses = list(RateLimit(None, 1.0).pauses(32_768, 0, 7.0))

    assert max(pauses) <= PAUSE_S
    assert sum(pauses) == pytest.approx(32_768.0)


def test_time_that_was_not_used_is_lost() -> None:
    rate = RateLimit(None, 10.0)
    first = sum(rate.pauses(100, 0, 0.0))

    later = [sum(rate.pauses(100, 0, now)) for now in itertools.islice(itertools.count(1_000.0, 10.0), 3)]

    assert [first, *later] == [10.0] * 4
