"""Directories named by a clock: the record's time, or a field's, in a time zone.

Times are named by what the clock shows, divided into minutes, hours or days as the pattern is fine: a batch has few of
them, and one that lies within one, as most do, costs a look at its least and greatest time.
"""

from __future__ import annotations

import datetime
import re
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.partitioning.clocks import ZoneClock
from millstream.hadoop_loader.partitioning.field_times import known

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_EPOCH: Final = datetime.datetime(1970, 1, 1)
_NAMES_MAX: Final = 10_000

_SPANS: Final = {"%Y": "year", "%m": "month", "%d": "day", "%H": "hour", "%M": "minute"}


class TimeDirectories:
    """Names directories; `pattern` has %Y %m %d %H %M in it, from coarse to fine."""

    def __init__(self, pattern: str, zone: str) -> None:
        self._pattern = pattern
        self._clock = ZoneClock(zone)
        found = re.findall(r"%[YmdHM]", pattern)
        self._finest = found[-1] if found else "%Y"
        # What the clock shows is divided by this.
        self._bucket_ms = {"%M": _MINUTE_MS, "%H": _HOUR_MS}.get(self._finest, _DAY_MS)
        # Names of buckets met lately.
        self._names: dict[int, str] = {}
        self._parts = re.compile(_parser(pattern) + r"\Z")

    def name(self, time_ms: int) -> str:
        """Return the directory of an instant, ms since 1970."""
        return self._shown(self._clock.at(time_ms // 1000))

    def _shown(self, local: datetime.datetime) -> str:
        """Return the directory of what the clock shows."""
        # By hand, as strftime does not pad years below 1000 everywhere.
        values = {
            "%Y": f"{local.year:04}",
            "%m": f"{local.month:02}",
            "%d": f"{local.day:02}",
            "%H": f"{local.hour:02}",
            "%M": f"{local.minute:02}",
        }
        return re.sub(r"%[YmdHM]", lambda found: values[found[0]], self._pattern)

    def end_ms(self, directory: str) -> int | None:
        """Return the instant at which a directory ends: the first that lies in a later one.

        None for another's name, and where the calendar ends before the directory does. An hour that the clock shows
        twice ends the second time.
        """
        found = self._parts.match(directory)
        if found is None:
            return None
        try:
            return self._end_ms({name: int(value) for name, value in found.groupdict().items()})
        except (ValueError, OverflowError):
            return None

    def _end_ms(self, parts: dict[str, int]) -> int:
        start = datetime.datetime(
            parts.get("year", 1970),
            parts.get("month", 1),
            parts.get("day", 1),
            parts.get("hour", 0),
            parts.get("minute", 0),
        )
        span = _SPANS[self._finest]
        if span == "year":
            end = start.replace(year=start.year + 1)
        elif span == "month":
            end = (start.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)
        else:
            end = start + datetime.timedelta(**{f"{span}s": 1})
        return self._clock.end_s(end) * 1000

    def codes(self, times: pa.Array) -> tuple[pa.Array | None, list[str]]:
        """Return for each time (int64, ms) a number among the names returned; None where all have the first one.

        A time that no calendar has is null.
        """
        times = known(times)
        ends = pc.min_max(times)
        least, greatest = ends["min"].as_py(), ends["max"].as_py()
        if least is None:
            return pa.nulls(len(times), pa.int32()), []
        ahead = self._clock.ahead_ms(least, greatest)
        if ahead is None:
            times = self._clock.shown(times)
            ends = pc.min_max(times)
            least, greatest, ahead = ends["min"].as_py(), ends["max"].as_py(), 0
        bucket_ms = self._bucket_ms
        first, last = (least + ahead) // bucket_ms, (greatest + ahead) // bucket_ms
        if first == last and not times.null_count:
            return None, [self._named(first)]
        # Arrow divides towards zero: away from the least there is nothing below it.
        buckets = pc.divide(pc.subtract(times, first * bucket_ms - ahead), bucket_ms).dictionary_encode()
        names = [self._named(first + bucket) for bucket in buckets.dictionary.to_pylist()]
        distinct = list(dict.fromkeys(names))
        if len(distinct) == 1 and not times.null_count:
            return None, distinct
        number = {name: index for index, name in enumerate(distinct)}
        return pa.array([number[name] for name in names], pa.int32()).take(buckets.indices), distinct

    def _named(self, bucket: int) -> str:
        name = self._names.get(bucket)
        if name is None:
            if len(self._names) >= _NAMES_MAX:
                self._names.clear()
            shown = _EPOCH + datetime.timedelta(milliseconds=bucket * self._bucket_ms)
            name = self._names[bucket] = self._shown(shown)
        return name


def _parser(pattern: str) -> str:
    """Return a regular expression for directories of a pattern; a directive that comes twice is read once."""
    out, seen = "", set()
    for part in re.split(r"(%[YmdHM])", pattern):
        if part not in _SPANS:
            out += re.escape(part)
            continue
        digits = r"\d{4}" if part == "%Y" else r"\d{2}"
        out += digits if part in seen else f"(?P<{_SPANS[part]}>{digits})"
        seen.add(part)
    return out
