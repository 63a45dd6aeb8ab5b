"""One job's life, told to the machine event by event."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.hadoop_loader.job import ScheduleSettings
from millstream.hadoop_loader.schedule import JobState, ScheduledJob


def job(now_s: float = 1000.0, **settings: Any) -> ScheduledJob:
    return ScheduledJob(
        "flights", ScheduleSettings(**{"every_s": 100.0} | settings), now_s=now_s, chance=random.Random(1)
    )


def run(of: ScheduledJob, started_s: float, ended_s: float, exit_code: int = 0) -> float:
    of.handle_started(started_s)
    of.handle_ended(ended_s, "loaded" if exit_code == 0 else "failed", exit_code)
    return of.due_s


def test_the_first_run_is_at_once_or_at_its_time() -> None:
    assert job().due_s == 1000
    assert job(catch_up="skip").due_s == 1100


def test_regular_runs_keep_to_the_grid() -> None:
    one = job()
    assert run(one, 1000, 1030) == 1100
    assert run(one, 1101, 1130) == 1200
    assert one.missed == 0


def test_a_run_that_took_too_long_is_caught_up_once() -> None:
    one = job()
    # Over 1100, 1200 and 1300: one run stands for the three.
    assert run(one, 1000, 1350) == 1350
    assert run(one, 1350, 1360) == 1400


def test_or_what_was_missed_is_skipped() -> None:
    one = job(catch_up="skip")
    assert run(one, 1100, 1450) == 1500
    assert one.missed == 1


def test_a_run_that_ended_at_its_bound_is_followed_at_once() -> None:
    one = job()
    one.handle_started(1000)
    one.handle_ended(1010, "loaded", 0, has_more=True)
    assert one.due_s == 1010
    assert run(one, 1010, 1020) == 1100

    one.handle_started(1100)
    one.handle_ended(1110, "failed", 1, has_more=True)
    assert one.due_s > 1110, "one that failed waits all the same"


def test_a_failed_run_is_tried_again_each_time_later_and_never_after_the_regular_time() -> None:
    one = job(retry_after_s=10.0)
    due = [run(one, 1000, 1001, 1)]
    for _ in range(3):
        due.append(run(one, due[-1], due[-1] + 1, 1))
    assert due == [1011, 1032, 1073, 1100]
    assert one.failures == 4
    assert one.is_red
    run(one, 1100, 1110)
    assert one.failures == 0
    assert not one.is_red


def test_a_failed_run_without_tries_waits_for_its_time() -> None:
    assert run(job(retry_after_s=0.0), 1000, 1001, 1) == 1100


def test_a_run_that_fails_slower_than_its_interval_still_pauses() -> None:
    one = job(every_s=1.0, retry_after_s=10.0)
    assert run(one, 1000, 1005, 1) == 1015


def test_runs_that_miss_their_time_and_fail_wait_no_longer_than_to_the_next() -> None:
    one = job(retry_after_s=5.0)
    for _ in range(5):
        run(one, one.due_s, one.due_s, 1)
    # The sixth failure's pause would be 160 s, and it has taken the time of one run and more.
    started = one.due_s
    assert run(one, started, started + 110, 1) <= started + 110 + 100


def test_an_entry_that_readers_do_not_see_whole_is_finished_soon() -> None:
    one = job(retry_after_s=10.0)
    one.handle_started(1000)
    one.handle_ended(1001, "partial", 3, is_unapplied=True)
    assert one.due_s == 1011


def test_another_driver_at_work_is_no_failure() -> None:
    one = job(retry_after_s=10.0)
    assert run(one, 1000, 1001, 4) == 1100
    assert not one.is_red


def test_a_changed_schedule_counts_from_the_next_run_on() -> None:
    one = job()
    one.update(ScheduleSettings(every_s=30.0), 1000)
    assert run(one, 1000, 1001) == 1030


def test_an_interval_goes_on_when_the_clock_is_set_back() -> None:
    one = job()
    run(one, 1000, 1030)
    one.handle_clock_set_back(550, -500.0)
    assert one.due_s == 600
    assert run(one, 600, 601) == 700


def test_a_clock_that_is_set_back_leaves_no_cron_job_waiting_for_days() -> None:
    one = ScheduledJob("flights", ScheduleSettings(cron="0 * * * *"), now_s=864_000, chance=random.Random(1))
    assert run(one, 864_000, 864_001) == 867_600
    one.handle_clock_set_back(864_002 - 86_400, -86_400.0)
    assert one.due_s == 867_600 - 86_400


@given(
    steps=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 500), st.sampled_from([0, 1, 2, 3, 4])), max_size=30),
    catch_up=st.sampled_from(["once", "skip"]),
    jitter_s=st.floats(0, 60),
)
def test_a_job_is_always_due_within_its_interval_and_jitter(
    steps: list[tuple[float, float, int]], catch_up: str, jitter_s: float
) -> None:
    one = job(catch_up=catch_up, jitter_s=jitter_s, retry_after_s=5.0)
    now_s = 1000.0
    for late_s, takes_s, exit_code in steps:
        assert one.state is JobState.WAITING
        now_s = max(now_s, one.due_s) + late_s
        one.handle_started(now_s)
        now_s += takes_s
        one.handle_ended(now_s, "ended", exit_code)
        assert now_s <= one.due_s <= now_s + 100 + jitter_s + 1e-6


def test_what_a_page_shows() -> None:
    one = job()
    one.handle_started(1000)
    one.handle_ended(1003, "failed", 1, ("the broker is away; start it",))
    shown = one.as_json()
    assert (shown["state"], shown["red"], shown["failures_in_a_row"]) == ("waiting", True, 1)
    assert shown["runs"][0]["sentences"] == ["the broker is away; start it"]
    with pytest.raises(AssertionError):
        one.handle_ended(1004, "loaded", 0)
