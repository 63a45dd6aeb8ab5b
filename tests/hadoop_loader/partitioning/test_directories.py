"""Rows to directories, against naming them one by one."""

from __future__ import annotations

import datetime
import json
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.hadoop_loader.job import Partitioning
from millstream.hadoop_loader.partitioning import TimeDirectories, partitioner
from millstream.hadoop_loader.partitioning.field_directories import codes
from millstream.hadoop_loader.partitioning.partitioner import NO_TIMESTAMP, Batch, Unplaced
from millstream.hadoop_loader.tables.parquet import arrow_schema, parquet_avro_schema

ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Africa/Monrovia"]
ZONES += ["Australia/Sydney", "Pacific/Kiritimati"]
PATTERNS = ["year=%Y/month=%m", "dt=%Y-%m-%d", "%Y/%m/%d/%H", "dt=%Y-%m-%d/%H%M"]
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
HOUR_MS = 3_600_000
# Days with changes of clocks in those zones, one before zones were regular, and a summer behind all changes on record.
DAYS_MS = [1_792_886_400_000, 1_774_742_400_000, 1_775_260_800_000, 0, -86_400_000 * 400, 1_790_000_000_000]
DAYS_MS += [1_289_088_000_000, 1_268_524_800_000, 2_540_246_400_000]

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


@pytest.mark.parametrize(
    ("zone", "time", "name"),
    [
        # Put back and forward at a minute past midnight.
        ("America/St_Johns", "2010-11-07T02:30:30Z", "2010-11-07/00"),
        ("America/St_Johns", "2010-11-07T02:40:00Z", "2010-11-06/23"),
        ("America/St_Johns", "2010-03-14T03:30:30Z", "2010-03-14/00"),
        ("America/St_Johns", "2010-03-14T03:40:00Z", "2010-03-14/01"),
        ("Antarctica/Casey", "2020-10-03T16:05:00Z", "2020-10-04/03"),
        # 10 hours and 40 minutes behind.
        ("Pacific/Kiritimati", "1975-06-01T00:42:00Z", "1975-05-31/14"),
        ("Australia/Sydney", "2050-07-01T14:30:00Z", "2050-07-02/00"),
    ],
)
def test_a_clock_is_changed_at_any_minute_and_in_all_years_to_come(zone: str, time: str, name: str) -> None:
    time_ms = int(datetime.datetime.fromisoformat(time).timestamp()) * 1000
    directories = TimeDirectories("%Y-%m-%d/%H", zone)
    for beside in ([], [-86_400_000_000], [time_ms + 86_400_000]):
        found, names = directories.codes(pa.array([time_ms, *beside], pa.int64()))
        assert names[0 if found is None else found[0].as_py()] == name
    end_ms = directories.end_ms(name)
    assert end_ms is not None
    assert end_ms > time_ms
    assert directories.name(end_ms) != name


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
    ("column", "unit"),
    [
        (pa.array([1_790_000_000, None], pa.int64()), "s"),
        (pa.array([1_790_000_000, None], pa.int32()), "s"),
        (pa.array([1_790_000_000_123, None], pa.int64()), "ms"),
        (pa.array([1_790_000_000_123_456, None], pa.int64()), "us"),
        (pa.array([1_790_000_000_123_456_789, None], pa.int64()), "ns"),
        (pa.array([1_790_000_000_123, None], pa.timestamp("ms", "UTC")), "s"),
        (pa.array([1_790_000_000_123_456, None], pa.timestamp("us", "UTC")), "ms"),
        (pa.array([1_790_000_000_123_456_789, None], pa.timestamp("ns")), "ms"),
        (pa.array([20_717, None], pa.date32()), "s"),
        (pa.array(["2026-09-21", None]), "ms"),
        (pa.array(["2026-09-21T14:13:20.123456789Z", "2026-09-31"]), "ms"),
        (pa.array(["2026-09-22T01:13:20+09:00", "1790000000123"]), "ms"),
        (pa.array(["2026-09-21 14:13", "yesterday"]), "ms"),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_fields_of_all_kinds_of_time(column: pa.Array, unit: str, count: int) -> None:
    settings = Partitioning(kind="time", pattern="%Y-%m-%d", timestamp="at", timestamp_unit=unit)
    batch = Batch(count, pa.array([0] * count, pa.int64()), 0, pa.record_batch({"at": column[:count]}))
    found, unplaced = placed(settings, batch)
    assert found == {0: "2026-09-21"}
    assert [one.row for one in unplaced] == [1][: count - 1]


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        (pa.array([-1], pa.int64()), "s"),
        (pa.array([-1], pa.int64()), "us"),
        (pa.array([-1], pa.int64()), "ns"),
        (pa.array([-1], pa.timestamp("ns", "UTC")), "ms"),
        (pa.array(["1969-12-31T23:59:59.999999Z"]), "ms"),
    ],
)
def test_what_is_just_before_1970_is_not_after_it(column: pa.Array, unit: str) -> None:
    settings = Partitioning(kind="time", pattern="%Y", timestamp="at", timestamp_unit=unit)
    assert placed(settings, Batch(1, pa.array([0], pa.int64()), 0, pa.record_batch({"at": column})))[0] == {0: "1969"}


local_times = st.builds(
    lambda day, rest: datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=day + rest),
    st.sampled_from([day for day in DAYS_MS if day > 63_072_000_000]),
    st.integers(-HOUR_MS * 20, HOUR_MS * 48),
)


@given(
    times=st.lists(st.tuples(local_times, st.none() | st.integers(-14, 14)), min_size=1, max_size=12),
    pattern=st.sampled_from(PATTERNS),
    zone=st.sampled_from(ZONES),
    has_wrong=st.booleans(),
)
def test_texts_of_times_are_read_as_one_by_one(
    times: list[tuple[datetime.datetime, int | None]], pattern: str, zone: str, has_wrong: bool
) -> None:
    """With an offset a text is an instant; without one it is what the clock shows there, where it ever does."""
    texts: list[str] = []
    expected: list[str | None] = []
    for time, hours in times:
        if hours is None:
            texts.append(time.isoformat())
            shown = time.replace(tzinfo=ZoneInfo(zone))
            is_shown = shown.astimezone(datetime.UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) == time
            expected.append(time.strftime(pattern) if is_shown else None)
            continue
        exact = time.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=hours)))
        texts.append(exact.isoformat())
        expected.append(exact.astimezone(ZoneInfo(zone)).strftime(pattern))
    columns = pa.record_batch({"at": pa.array([*texts, *(["2026-02-30"] if has_wrong else [])])})
    settings = Partitioning(kind="time", pattern=pattern, zone=zone, timestamp="at")
    found, unplaced = placed(settings, Batch(columns.num_rows, pa.array([0] * columns.num_rows), 0, columns))
    assert all(found[row] == name for row, name in enumerate(expected) if name is not None)
    assert [one.row for one in unplaced] == ([len(texts)] if has_wrong else [])


@pytest.mark.parametrize("zone", ZONES)
def test_no_zone_shifts_a_date(zone: str) -> None:
    days = [datetime.date(2026, 1, 1), datetime.date(1972, 6, 30), datetime.date(2026, 10, 25)]
    days += [datetime.date(2050, 7, 1), datetime.date(2050, 1, 1), datetime.date(1900, 1, 1)]
    columns = pa.record_batch({"day": days, "local": pa.array(days, pa.date32()).cast(pa.timestamp("us"))})
    for name in columns.schema.names:
        settings = Partitioning(kind="time", pattern="%Y-%m-%d", zone=zone, timestamp=name)
        found, _ = placed(settings, Batch(len(days), pa.array([0] * len(days)), 0, columns))
        assert found == {row: str(day) for row, day in enumerate(days)}


@pytest.mark.parametrize(("name", "day"), [("local-timestamp-nanos", "2024-06-01"), ("timestamp-nanos", "2024-06-02")])
def test_a_local_time_in_nanoseconds_is_what_the_clock_shows(name: str, day: str) -> None:
    shown = datetime.datetime(2024, 6, 1, 23, 30, tzinfo=datetime.UTC)
    nanoseconds = int(shown.timestamp()) * 1_000_000_000
    inner = {
        "type": "record",
        "name": "In",
        "fields": [{"name": "at", "type": ["null", {"type": "long", "logicalType": name}]}],
    }
    schema = json.dumps({"type": "record", "name": "V", "fields": [{"name": "in", "type": inner}]})
    columns = pa.RecordBatch.from_pylist(
        [{"in": {"at": nanoseconds}}, {"in": {"at": None}}], schema=arrow_schema(parquet_avro_schema(schema))
    )
    settings = Partitioning(
        kind="time", pattern="%Y-%m-%d", zone="Europe/Berlin", timestamp="in.at", timestamp_unit="ns"
    )

    found, unplaced = placed(settings, Batch(2, pa.array([0, 0], pa.int64()), 0, columns, avro_schema=schema))

    assert found == {0: day}
    assert [one.row for one in unplaced] == [1]


def test_days_long_ago_are_named_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    directories = TimeDirectories("%Y-%m-%d", "Africa/Monrovia")
    named: list[datetime.datetime] = []
    shown = TimeDirectories._shown

    def counted(self: TimeDirectories, local: datetime.datetime) -> str:
        named.append(local)
        return shown(self, local)

    monkeypatch.setattr(TimeDirectories, "_shown", counted)
    births = pa.array(range(-86_400_000 * 2_000, 0, 86_400_000 // 10), pa.int64())
    codes_found, names = directories.codes(births)
    assert codes_found is not None
    assert len(births) == 20_000
    assert len(named) == len(names) == 2_001  # its clock is some minutes behind


@given(
    rows=st.lists(st.tuples(st.sampled_from(["CH", None, "a/b"]), times_ms | st.none()), min_size=1, max_size=12),
    zone=st.sampled_from(ZONES),
    pattern=st.sampled_from(PATTERNS),
)
def test_times_lie_within_fields(rows: list[tuple[str | None, int | None]], zone: str, pattern: str) -> None:
    settings = Partitioning(kind="time", pattern=pattern, zone=zone, timestamp="at", fields=("c", "n"))
    columns = pa.record_batch(
        {
            "c": pa.array([one for one, _ in rows], pa.string()),
            "n": pa.array([1] * len(rows), pa.int64()),
            "at": pa.array([one for _, one in rows], pa.int64()),
        }
    )
    found, unplaced = placed(settings, Batch(len(rows), pa.array([5] * len(rows), pa.int64()), 0, columns))
    alone = TimeDirectories(pattern, zone)
    for row, (country, time_ms) in enumerate(rows):
        if time_ms is None:
            assert Unplaced(row, "the field 'at' has no time that names a directory") in unplaced
            continue
        assert found[row] == f"{hive_part('c', country)}/n=1/{alone.name(time_ms)}"
        assert partitioner(settings).end_ms(found[row]) == alone.end_ms(alone.name(time_ms))
    assert partitioner(settings).end_ms(alone.name(0)) is None, "a directory of no fields is another's"


def test_rows_without_a_value_are_placed_by_when_they_were_sent() -> None:
    settings = Partitioning(kind="time", pattern="%Y", timestamp="at", fields=("c",))
    columns = pa.record_batch({"c": pa.nulls(2, pa.string()), "at": pa.nulls(2, pa.int64())})
    sent = pa.array([1_790_000_000_123, NO_TIMESTAMP], pa.int64())
    chosen = partitioner(settings)
    unplaced: list[Unplaced] = []
    (group,) = chosen.groups(Batch(2, sent, 0, columns, are_tombstones=True), unplaced)
    assert group.directory == "c=__HIVE_DEFAULT_PARTITION__/2026"
    assert unplaced == [Unplaced(1, "the record has no time that names a directory")]
    assert chosen.take_newest_ms() == -1, "when a deletion was sent says nothing of the fields' times"


def test_the_newest_time_is_that_of_rows_that_were_placed() -> None:
    chosen = partitioner(Partitioning(kind="time", pattern="%Y", timestamp="at"))
    columns = pa.record_batch({"at": pa.array([5, 10**17, 7, None, 0], pa.int64())})
    assert len(list(chosen.groups(Batch(5, pa.array([9] * 5, pa.int64()), 0, columns), []))) == 1
    assert (chosen.take_newest_ms(), chosen.take_newest_ms()) == (7, -1)


texts = st.none() | st.sampled_from(["", "a", "b", "Zürich", "a/b", "x=y", "100%", "a b", "{}", "\x01", "c:d"])
HIVE = {"/": "%2F", "=": "%3D", "%": "%25", "{": "%7B", "\x01": "%01", ":": "%3A"}


def hive_part(name: str, value: str | None) -> str:
    text = "".join(HIVE.get(char, char) for char in value) if value else "__HIVE_DEFAULT_PARTITION__"
    return f"{name}={text}"


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (pa.array([0, 1_500, 60_000], pa.timestamp("ms", "UTC")), ["00:00:00", "00:00:01.5", "00:01:00"]),
        (pa.array([0, 10_000_000], pa.timestamp("us")), ["00:00:00", "00:00:10"]),
        (pa.array([10], pa.timestamp("s")), ["00:00:10"]),
        (pa.array([1.0, 0.1, -2.25, 1e7, 9_999_999.0, 1e-3]), ["1.0", "0.1", "-2.25", "1.0E7", "9999999.0", "0.001"]),
        (pa.array([9.99e-4, 123_456_789.125, float("nan")]), ["9.99E-4", "1.23456789125E8", "NaN"]),
        (pa.array([0.1, 16_777_216.0], pa.float32()), ["0.1", "1.6777216E7"]),
        (pa.array([True, False]), ["true", "false"]),
    ],
)
def test_values_are_shown_as_hive_shows_them(column: pa.Array, shown: list[str]) -> None:
    day = "1970-01-01 " if pa.types.is_timestamp(column.type) else ""
    assert codes([("f", column)])[1] == [hive_part("f", f"{day}{one}") for one in shown]


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
