"""Rows to directories, against naming them one by one."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.hadoop_loader.job import Partitioning
from millstream.hadoop_loader.partitioning import TimeDirectories, partitioner
from millstream.hadoop_loader.partitioning.partitioner import NO_TIMESTAMP, Batch, Unplaced

ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Africa/Monrovia"]
PATTERNS = ["year=%Y/month=%m", "dt=%Y-%m-%d", "%Y/%m/%d/%H", "dt=%Y-%m-%d/%H%M"]
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
HOUR_MS = 3_600_000
# Days with changes of clocks in those zones, and one before zones were regular.
DAYS_MS = [1_792_886_400_000, 1_774_742_400_000, 1_775_260_800_000, 0, -86_400_000 * 400, 1_790_000_000_000]

times_ms = st.builds(
    lambda day, rest: day + rest, st.sampled_from(DAYS_MS), st.integers(-HOUR_MS * 20, HOUR_MS * 48)
).filter(lambda time_ms: time_ms != NO_TIMESTAMP)


def placed(settings: Partitioning, batch: Batch) -> tuple[dict[int, str], list[Unplaced]]:
    """Return the directory of each row."""
    unplaced: list[Unplaced] = []
    found: dict[int, str] = {}
    for directory, rows in partitioner(settings).groups(batch, unplaced):
        numbers = list(range(batch.row_count)) if rows is None else rows.to_pylist()
        assert numbers == sorted(numbers)
        for row in numbers:
            assert row not in found
            found[row] = directory
    assert sorted([*found, *(one.row for one in unplaced)]) == list(range(batch.row_count))
    return found, unplaced


@given(
    times=st.lists(times_ms, min_size=1, max_size=12),
    pattern=st.sampled_from(PATTERNS),
    zone=st.sampled_from(ZONES),
)
def test_times_are_named_as_one_by_one(times: list[int], pattern: str, zone: str) -> None:
    settings = Partitioning(kind="time", pattern=pattern, zone=zone)
    found, _ = placed(settings, Batch(len(times), pa.array(times, pa.int64()), 0, None))
    for row, time_ms in enumerate(times):
        local = (EPOCH + datetime.timedelta(milliseconds=time_ms)).astimezone(ZoneInfo(zone))
        assert found[row] == local.strftime(pattern)


@given(time_ms=times_ms, pattern=st.sampled_from(PATTERNS), zone=st.sampled_from(ZONES))
def test_a_directory_ends_behind_all_its_instants(time_ms: int, pattern: str, zone: str) -> None:
    directories = TimeDirectories(pattern, zone)
    name = directories.name(time_ms)
    end_ms = directories.end_ms(name)
    assert end_ms is not None
    assert time_ms < end_ms
    if time_ms > 63_072_000_000:  # before that clocks were also moved by seconds
        assert directories.name(end_ms) != name
        assert all(directories.name(end_ms + hours * HOUR_MS) != name for hours in (1, 2, 24))


@pytest.mark.parametrize("pattern", ["year=%Y", *PATTERNS])
def test_a_directory_at_the_end_of_the_calendar_is_named_and_never_closed(pattern: str) -> None:
    directories = TimeDirectories(pattern, "UTC")
    last_ms = 253_402_214_400_000  # 9999-12-31, as many write "for ever"
    codes, [name] = directories.codes(pa.array([last_ms], pa.int64()))
    assert codes is None
    assert name == datetime.datetime(9999, 12, 31).strftime(pattern)
    end_ms = directories.end_ms(name)
    assert end_ms is None or end_ms > last_ms


@given(times=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6))
def test_a_time_that_no_calendar_has_is_reported(times: list[int | None]) -> None:
    columns = pa.record_batch({"at": pa.array(times, pa.int64())})
    settings = Partitioning(kind="time", pattern="%Y", timestamp="at")
    found, unplaced = placed(settings, Batch(len(times), pa.array([0] * len(times), pa.int64()), 0, columns))
    for row, time_ms in enumerate(times):
        if time_ms is not None and abs(time_ms) < 10**12:
            assert row in found
        if time_ms is None or abs(time_ms) > 10**15:
            assert any(one.row == row for one in unplaced)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1_790_000_000_123, None], pa.int64()),
        pa.array([1_790_000_000_123, None], pa.timestamp("ms", "UTC")),
        pa.array([1_790_000_000_123_456, None], pa.timestamp("us", "UTC")),
        pa.array([1_790_000_000_123_456_789, None], pa.timestamp("ns")),
        pa.array([20_717, None], pa.date32()),
    ],
    ids=lambda column: str(column.type),
)
def test_fields_of_all_kinds_of_time(column: pa.Array) -> None:
    settings = Partitioning(kind="time", pattern="%Y-%m-%d", timestamp="at")
    batch = Batch(2, pa.array([0, 0], pa.int64()), 0, pa.record_batch({"at": column}))
    found, unplaced = placed(settings, batch)
    assert found == {0: "2026-09-21"}
    assert [one.row for one in unplaced] == [1]


texts = st.none() | st.sampled_from(["", "a", "b", "Zürich", "a/b", "x=y", "100%", "a b", "{}", "\x01", "c:d"])
HIVE = {"/": "%2F", "=": "%3D", "%": "%25", "{": "%7B", "\x01": "%01", ":": "%3A"}


def hive_part(name: str, value: str | None) -> str:
    text = "".join(HIVE.get(char, char) for char in value) if value else "__HIVE_DEFAULT_PARTITION__"
    return f"{name}={text}"


@given(
    rows=st.lists(st.tuples(texts, st.none() | st.integers(-1, 2), texts), min_size=1, max_size=30),
    as_dictionary=st.booleans(),
)
def test_fields_are_named_as_hive_names_them(
    rows: list[tuple[str | None, int | None, str | None]], as_dictionary: bool
) -> None:
    first, second, third = (list(column) for column in zip(*rows, strict=True))
    texts_of_first = pa.array(first, pa.string())
    columns = pa.record_batch(
        {
            "country": texts_of_first.dictionary_encode() if as_dictionary else texts_of_first,
            "n": pa.array(second, pa.int32()),
            "place": pa.StructArray.from_arrays([pa.array(third, pa.string())], ["city"]),
        }
    )
    settings = Partitioning(kind="fields", fields=("country", "n", "place.city"))
    found, _ = placed(settings, Batch(len(rows), pa.array([0] * len(rows), pa.int64()), 0, columns))
    for row, (country, number, city) in enumerate(rows):
        parts = [("country", country), ("n", None if number is None else str(number)), ("place.city", city)]
        assert found[row] == "/".join(hive_part(*part) for part in parts)


@pytest.mark.parametrize("char", ["a", "/", "ü", "\N{GRINNING FACE}"])
def test_a_value_too_long_for_a_name_has_no_directory(char: str) -> None:
    takes = len(hive_part("", char).encode()) - 1
    fits, too_long = (255 - len("key=")) // takes, (255 - len("key=")) // takes + 1
    rows = [char * fits, char * too_long, "a"]
    settings = Partitioning(kind="fields", fields=("n", "key"))

    for chosen in (rows, rows[1:2]):
        columns = pa.record_batch({"n": [1] * len(chosen), "key": chosen})
        found, unplaced = placed(settings, Batch(len(chosen), pa.array([0] * len(chosen), pa.int64()), 0, columns))

        long = chosen.index(rows[1])
        assert found == {row: f"n=1/{hive_part('key', one)}" for row, one in enumerate(chosen) if row != long}
        reason = f"the field 'key' makes a name of {4 + too_long * takes} bytes, and a directory's has 255 at the most"
        assert unplaced == [Unplaced(long, reason)]


def test_a_record_without_a_time_has_no_directory_of_time() -> None:
    found, unplaced = placed(
        Partitioning(kind="time", pattern="%Y"), Batch(3, pa.array([0, -1, 1_790_000_000_123], pa.int64()), 0, None)
    )
    assert found == {0: "1970", 2: "2026"}
    assert unplaced == [Unplaced(1, "the record has no time that names a directory")]


def test_a_field_that_is_not_there_places_nothing() -> None:
    batch = Batch(2, pa.array([0, 0], pa.int64()), 3, pa.record_batch({"a": [1, 2]}))
    assert placed(Partitioning(kind="fields", fields=("b",)), batch)[0] == {}
    assert placed(Partitioning(kind="kafka"), batch)[0] == {0: "partition=3", 1: "partition=3"}
