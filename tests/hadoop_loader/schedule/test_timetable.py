"""Regular times: cron in its zone, through the hours that clocks show twice or never, and intervals."""

from __future__ import annotations

import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.hadoop_loader.job import ScheduleSettings
from millstream.hadoop_loader.schedule import Timetable


def times(settings: ScheduleSettings, after: str, count: int) -> list[str]:
    zone = ZoneInfo(settings.zone)
    at_s = datetime.datetime.fromisoformat(after).replace(tzinfo=zone).timestamp()
    found = []
    table = Timetable(settings, began_s=at_s)
    for _ in range(count):
        at_s = table.following(at_s)
        found.append(datetime.datetime.fromtimestamp(at_s, zone).strftime("%m-%d %H:%M%z"))
    return found


def test_cron_in_a_zone() -> None:
    assert times(ScheduleSettings(cron="30 2 * * 1", zone="Europe/Berlin"), "2026-01-05T02:30:00", 2) == [
        "01-12 02:30+0100",
        "01-19 02:30+0100",
    ]


def test_each_day_has_its_run_when_clocks_are_moved() -> None:
    settings = ScheduleSettings(cron="30 2 * * *", zone="Europe/Berlin")
    # On 29 March 2026 there is no 02:30, on 25 October there are two.
    spring = times(settings, "2026-03-28T12:00:00", 2)
    autumn = times(settings, "2026-10-24T12:00:00", 2)
    assert [each[:5] for each in spring] == ["03-29", "03-30"]
    assert [each[:5] for each in autumn] == ["10-25", "10-26"]


@given(
    every_s=st.floats(1, 1e6),
    began_s=st.floats(0, 2e9),
    after=st.lists(st.floats(0, 1e5), min_size=1, max_size=20),
)
def test_intervals_are_a_grid_from_the_beginning(every_s: float, began_s: float, after: list[float]) -> None:
    table = Timetable(ScheduleSettings(every_s=every_s), began_s=began_s)
    for each in after:
        found = table.following(began_s + each)
        assert began_s + each < found <= began_s + each + every_s * 1.000001
        steps = (found - began_s) / every_s
        assert steps == pytest.approx(round(steps), abs=1e-3)


@given(st.sampled_from(["*/7 * * * *", "0 3 * * *", "15 1 1 * *"]), st.integers(0, 2_000_000_000))
def test_cron_times_only_grow(cron: str, start_s: int) -> None:
    table = Timetable(ScheduleSettings(cron=cron, zone="America/New_York"), began_s=0)
    found = [float(start_s)]
    for _ in range(3):
        found.append(table.following(found[-1]))
    assert all(one < other for one, other in pairwise(found))
