"""What the clock of a zone shows, for whole columns of times.

Python's zoneinfo is asked, of few moments: both ends of each day that occurs; of a day on which the clock is changed,
both ends of each quarter of an hour; of such a quarter each second, as clocks were changed at a minute past midnight,
and by any second. Arrow's own functions end with the last change that the system's files list, in 2037 or earlier, and
take no notice of the rule for what follows.
"""

from __future__ import annotations

import datetime
from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

# What datetime can name.
EARLIEST_MS: Final = -62_135_510_400_000  # the day after 0001-01-01, as a zone may take a day off
LATEST_MS: Final = 253_402_214_400_000  # the day before the end of 9999-12-31

_EPOCH: Final = datetime.datetime(1970, 1, 1)
_SECOND: Final = datetime.timedelta(seconds=1)
_MINUTE: Final = datetime.timedelta(minutes=1)
_DAY_S: Final = 86_400
_DAYS_MAX: Final = 32
_STEPS_S: Final = (_DAY_S, 900, 1)


class ZoneClock:
    """The clock of one zone.

    Times are ms, null or from EARLIEST_MS to LATEST_MS; what it shows is ms since it showed the beginning of 1970.
    """

    def __init__(self, zone: str) -> None:
        self._zone = ZoneInfo(zone)

    def at(self, second: int) -> datetime.datetime:
        """Return what it shows at an instant, in seconds since 1970."""
        return datetime.datetime.fromtimestamp(second, self._zone).replace(tzinfo=None)

    def ahead_ms(self, least: int, greatest: int) -> int | None:
        """Return how far it is ahead of UTC from one instant to another; None where that may differ on the way."""
        first, last = (time // 1000 // _DAY_S for time in (least, greatest))
        if last - first >= _DAYS_MAX:
            return None
        said = {self._ahead_s(day * _DAY_S) for day in range(first, last + 2)}
        return said.pop() * 1000 if len(said) == 1 else None

    def shown(self, times: pa.Int64Array) -> pa.Int64Array:
        """Return what it shows at instants."""
        return pc.add(times, _of_each(times, self._ahead_s))

    def instants(self, shown: pa.Int64Array) -> pa.Int64Array:
        """Return when it shows this: the first time it does so, and soon after where it never does."""
        return pc.subtract(shown, _of_each(shown, self._ahead_showing_s))

    def end_s(self, shown: datetime.datetime) -> int:
        """Return the first instant, in seconds, at which it shows no whole minute before this one any more."""
        last = shown - _MINUTE
        held = last.replace(tzinfo=self._zone, fold=1)
        end = int(held.timestamp()) + 60
        if self.at(end - 60) != last:
            # The clock never shows it, as it is put forward there; before it is, it is behind.
            later = range(end, int(held.replace(fold=0).timestamp()) + 60)
            return end + bisect_left(later, shown, key=self.at)
        return end

    def _ahead_s(self, second: int) -> int:
        held = min(second, LATEST_MS // 1000)
        return (self.at(held) - _EPOCH) // _SECOND - held

    def _ahead_showing_s(self, second: int) -> int:
        shown = (_EPOCH + datetime.timedelta(seconds=second)).replace(tzinfo=self._zone)
        offset = shown.utcoffset()
        assert offset is not None, self._zone
        return offset // _SECOND


def _of_each(times: pa.Int64Array, said_s: Callable[[int], int]) -> pa.Int64Array:
    """Return in ms what is said of times, in seconds, which changes seldom."""
    seconds = floored(times, 1000)
    at = _stepped(seconds, _STEPS_S[0])
    for step, finer in pairwise(_STEPS_S):
        uneven = [one for one in at.drop_null().unique().to_pylist() if said_s(one) != said_s(one + step - 1)]
        if not uneven:
            break
        at = pc.if_else(pc.is_in(at, pa.array(uneven, pa.int64())), _stepped(seconds, finer), at)
    encoded = at.dictionary_encode()
    said = pa.array([said_s(one) * 1000 for one in encoded.dictionary.to_pylist()], pa.int64())
    return said.take(encoded.indices)


def _stepped(seconds: pa.Int64Array, step: int) -> pa.Int64Array:
    return seconds if step == 1 else pc.multiply(floored(seconds, step), step)


def floored(numbers: pa.Int64Array, divisor: int) -> pa.Int64Array:
    """Divide; Arrow does so towards zero, and what is before 1970 would get a later time."""
    quotients = pc.divide(numbers, divisor)
    is_cut = pc.and_(pc.less(numbers, 0), pc.not_equal(pc.multiply(quotients, divisor), numbers))
    return pc.if_else(is_cut, pc.subtract(quotients, 1), quotients)
