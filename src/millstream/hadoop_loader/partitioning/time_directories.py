"""Directories named by a clock: the record's time, or a field's, in a time zone.

Zones shift by quarters of an hour (since 1972: before that by any second), so all instants of one quarter have the same
name, unless the pattern has minutes. Instants are divided into such buckets, and only the few buckets of a batch are
made names of; a batch that lies within one, as most do, costs a look at its least and greatest time.
"""

from __future__ import annotations

import datetime
import re
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

_QUARTER_MS: Final = 900_000
_MINUTE_MS: Final = 60_000
_SECOND_MS: Final = 1_000
_REGULAR_FROM_MS: Final = 63_072_000_000  # 1972
# What datetime can name.
_MIN_MS: Final = -62_135_510_400_000  # the day after 0001-01-01, as a zone may take a day off
LATEST_MS: Final = 253_402_214_400_000  # the day before 9999-12-31

_SPANS: Final = {"%Y": "year", "%m": "month", "%d": "day", "%H": "hour", "%M": "minute"}


class TimeDirectories:
    """Names directories; `pattern` has %Y %m %d %H %M in it, from coarse to fine."""

    def __init__(self, pattern: str, zone: str) -> None:
        self._pattern = pattern
        self._zone = ZoneInfo(zone)
        found = re.findall(r"%[YmdHM]", pattern)
        self._finest = found[-1] if found else "%Y"
        self._bucket_ms = _MINUTE_MS if "%M" in found else _QUARTER_MS
        # Names of buckets met lately.
        self._names: dict[tuple[int, int], str] = {}
        self._parts = re.compile(_parser(pattern) + r"\Z")

    def name(self, time_ms: int) -> str:
        """Return the directory of an instant, ms since 1970."""
        seconds, rest_ms = divmod(time_ms, 1000)
        local = datetime.datetime.fromtimestamp(seconds, self._zone).replace(microsecond=rest_ms * 1000)
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
        # What a clock shows just before the end, the last time it shows it, and that one step on.
        last = (end - datetime.timedelta(minutes=1)).replace(tzinfo=self._zone, fold=1)
        return (int(last.timestamp()) + 60) * 1000

    def codes(self, times: pa.Array) -> tuple[pa.Array | None, list[str]]:
        """Return for each time (int64, ms) a number among the names returned; None where all have the first one.

        A time that no calendar has is null.
        """
        ends = pc.min_max(times)
        least, greatest = ends["min"].as_py(), ends["max"].as_py()
        if least is None:
            return pa.nulls(len(times), pa.int32()), []
        if least < _MIN_MS or greatest > LATEST_MS:
            inside = pc.and_(pc.greater_equal(times, _MIN_MS), pc.less_equal(times, LATEST_MS))
            return self.codes(pc.if_else(inside, times, pa.scalar(None, pa.int64())))
        bucket_ms = self._bucket_ms if least >= _REGULAR_FROM_MS else _SECOND_MS
        first, last = least // bucket_ms, greatest // bucket_ms
        if first == last and not times.null_count:
            return None, [self._named(first, bucket_ms)]
        # Arrow divides towards zero: away from the least there is nothing below it.
        buckets = pc.divide(pc.subtract(times, first * bucket_ms), bucket_ms).dictionary_encode()
        names = [self._named(first + bucket, bucket_ms) for bucket in buckets.dictionary.to_pylist()]
        distinct = list(dict.fromkeys(names))
        if len(distinct) == 1 and not times.null_count:
            return None, distinct
        number = {name: index for index, name in enumerate(distinct)}
        return pa.array([number[name] for name in names], pa.int32()).take(buckets.indices), distinct

    def _named(self, bucket: int, bucket_ms: int) -> str:
        key = bucket, bucket_ms
        name = self._names.get(key)
        if name is None:
            if len(self._names) > 10_000:
                self._names.clear()
            name = self._names[key] = self.name(bucket * bucket_ms)
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
