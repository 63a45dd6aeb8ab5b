"""Fields that say a time, as instants.

    timestamp of a zone (Avro's timestamp-*)     the instant
    date, local timestamp                        what the clock of the zone of directories shows: no zone shifts it
    text                                         ISO 8601; with an offset (or Z) an instant, without one as above
    whole number                                 since 1970, in a unit; of a type that says so (`is_local`) as above

What is no time, or one that no calendar has, is null.
"""

from __future__ import annotations

import datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from millstream.hadoop_loader.partitioning.clocks import EARLIEST_MS, LATEST_MS, ZoneClock, floored

UNITS: Final = ("s", "ms", "us", "ns")
_INT64_MAX: Final = 2**63 - 1
_ISO: Final = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
_OFFSET: Final = r"(Z|:\d{2}(\.\d+)?[+-]\d{2}(:?\d{2})?)$"
_FINER_THAN_MICROSECONDS: Final = r"(\.\d{6})\d+"
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MS: Final = datetime.timedelta(milliseconds=1)


def known(times: pa.Int64Array) -> pa.Int64Array:
    """Return times, in ms, with null for those that no calendar has."""
    ends = pc.min_max(times)
    least, greatest = ends["min"].as_py(), ends["max"].as_py()
    if least is None or (least >= EARLIEST_MS and greatest <= LATEST_MS):
        return times
    inside = pc.and_(pc.greater_equal(times, EARLIEST_MS), pc.less_equal(times, LATEST_MS))
    return pc.if_else(inside, times, pa.scalar(None, pa.int64()))


def is_time(type_: pa.DataType) -> bool:
    """Whether columns of a type can say a time."""
    return any(is_one(type_) for is_one in (pt.is_timestamp, pt.is_date, pt.is_integer, pt.is_string))


def instants(column: pa.Array, unit: str, zone: str, *, is_local: bool = False) -> pa.Int64Array:
    """Return a column, of a type for which `is_time` holds, as ms since 1970; `unit` is that of numbers.

    `is_local`: whether numbers are what a clock shows.
    """
    type_ = column.type
    if pt.is_string(type_):
        return _of_text(column, zone)
    if pt.is_integer(type_):
        since = _of_number(column.cast(pa.int64()), unit)
        return _local(since.cast(pa.timestamp("ms")), zone) if is_local else since
    if pt.is_date(type_):
        return _local(column.cast(pa.timestamp("ms")), zone)
    return _ms(column) if type_.tz is not None else _local(column, zone)


def _of_number(numbers: pa.Int64Array, unit: str) -> pa.Int64Array:
    if unit == "ms":
        return numbers
    if unit == "s":
        most = _INT64_MAX // 1_000
        inside = pc.and_(pc.less_equal(numbers, most), pc.greater_equal(numbers, -most))
        return pc.multiply(pc.if_else(inside, numbers, pa.scalar(None, pa.int64())), 1_000)
    return floored(numbers, 1_000 if unit == "us" else 1_000_000)


def _ms(times: pa.Array) -> pa.Int64Array:
    return _of_number(times.cast(pa.int64()), times.type.unit)


def _local(times: pa.Array, zone: str) -> pa.Int64Array:
    """What a clock of the zone shows, as instants."""
    return ZoneClock(zone).instants(known(_ms(times)))


def _of_text(texts: pa.StringArray, zone: str) -> pa.Int64Array:
    nothing = pa.scalar(None, pa.string())
    whole = pc.if_else(pc.match_substring_regex(texts, _ISO), texts, nothing)
    whole = pc.replace_substring_regex(whole, _FINER_THAN_MICROSECONDS, r"\1")
    is_instant = pc.match_substring_regex(whole, _OFFSET)
    try:
        with_offset = pc.if_else(is_instant, whole, nothing).cast(pa.timestamp("us", "UTC"))
        without = pc.if_else(is_instant, nothing, whole).cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        # One of them is a day, or an hour, that there is not: which, Arrow does not say.
        return _of_text_one_by_one(whole, zone)
    return pc.coalesce(_ms(with_offset), _local(without, zone))


def _of_text_one_by_one(texts: pa.StringArray, zone: str) -> pa.Int64Array:
    found: list[int | None] = []
    local: list[datetime.datetime | None] = []
    for text in texts.to_pylist():
        found.append(None)
        local.append(None)
        if text is None:
            continue
        try:
            time = datetime.datetime.fromisoformat(text)
        except ValueError:
            continue
        if time.tzinfo is None:
            local[-1] = time
        else:
            found[-1] = (time - _EPOCH) // _MS
    return pc.coalesce(pa.array(found, pa.int64()), _local(pa.array(local, pa.timestamp("us")), zone))
