"""When runs start by a schedule: the times of a cron expression in its zone, or of an interval. Pure, and never late.

Times are seconds since 1970. An interval's times are counted from when the service began, so a long run moves none of
those after it.
"""

from __future__ import annotations

import datetime
import math
import zoneinfo

from cronsim import CronSim, CronSimError

from millstream.hadoop_loader.job import ScheduleSettings


class Timetable:
    """The regular times of one schedule."""

    def __init__(self, settings: ScheduleSettings, *, began_s: float) -> None:
        """`began_s` is where the times of an interval are counted from."""
        self._settings = settings
        self._began_s = began_s
        self._zone = zoneinfo.ZoneInfo(settings.zone)

    def following(self, after_s: float) -> float:
        """Return the first regular time later than `after_s`; infinity where a cron expression has none."""
        every_s = self._settings.every_s
        if every_s is not None:
            steps = math.floor((after_s - self._began_s) / every_s) + 1
            found = self._began_s + steps * every_s
            # Floating point may have come out at the very moment.
            return found if found > after_s else found + every_s
        assert self._settings.cron is not None, "a schedule has cron or every_s"
        moment = datetime.datetime.fromtimestamp(math.floor(after_s), self._zone)
        try:
            # Its wall clock may show an hour twice: what comes out is later all the same.
            for time in CronSim(self._settings.cron, moment):
                if time.timestamp() > after_s:
                    return time.timestamp()
        except CronSimError:
            pass  # no such day within fifty years, as in 30 February
        return math.inf
