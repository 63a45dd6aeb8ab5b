"""Splits over drawn topics: schemas that grew of each other, limits, zones, patterns, fields and all that is bad.

Whatever is drawn, what files and dead letters hold is what the range holds: each record once, in the table of its
schema, in the directory of its time and fields, with what its writer wrote.
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.avro_schemas import alike, chains, read, values, written
from tests.support.drawing import drawn
from tests.support.loads import FIRST_MS
from tests.support.split_runs import Outcome, Record, SplitTopic

from millstream.hadoop_loader.job import FileLimits, Partitioning
from millstream.hadoop_loader.splits import FileKind
from millstream.hadoop_loader.tables import TableVersion, merge

pytestmark = pytest.mark.from_kafka(soak=True)

FIRST: Final = datetime.datetime.fromtimestamp(FIRST_MS / 1000, datetime.UTC)
HOUR: Final = datetime.timedelta(hours=1)
NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
BAD: Final = [b"", b"\0\0\0\0\1", b"no magic byte", b"\0\x7f\xff\xff\xff\2", b"\0\0\0\0\0\2\xff\xff\xff\xff\x0f"]
# A field of time, and how a moment is written in it.
TIMES: Final[dict[str, tuple[Any, Callable[[datetime.datetime], Any]]]] = {
    "a timestamp": ({"type": "long", "logicalType": "timestamp-millis"}, lambda moment: moment),
    "text": ("string", lambda moment: moment.astimezone(ZoneInfo("Asia/Tokyo")).isoformat()),
    "seconds": ("long", lambda moment: int(moment.timestamp())),
}
_numbers = itertools.count()
NewTopic = Callable[[], SplitTopic]

partitionings = st.one_of(
    st.sampled_from([Partitioning(kind="none"), Partitioning(kind="kafka")]),
    st.just(Partitioning(kind="fields", fields=("country",))),
    st.builds(
        Partitioning,
        kind=st.just("time"),
        pattern=st.sampled_from(["hourly", "monthly", "dt=%Y-%m-%d", "%Y/%m/%d/%H%M"]),
        zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"]),
        timestamp=st.sampled_from(["record", "moment", "moment"]),
        timestamp_unit=st.just("s"),
        fields=st.sampled_from([(), ("country",)]),
    ),
)
limits = st.builds(
    FileLimits,
    rows=st.none() | st.integers(1, 7),
    bytes=st.sampled_from([64 * 1024, 2**29]),
    age_s=st.none() | st.sampled_from([3_600.0, 36_000.0]),
)


@pytest.fixture
def new_topic(broker_kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewTopic:
    kind = "millstream_broker_session" if broker_kind == "millstream" else "apache_kafka"
    bootstrap: str = request.getfixturevalue(kind).bootstrap_servers

    def made() -> SplitTopic:
        name = f"drawn-{os.getpid()}-{next(_numbers)}"
        return SplitTopic(bootstrap, name, tmp_path_factory.mktemp(name), 3)

    return made


class Sent(NamedTuple):
    """A record, and what is expected of it: a row of a table in a directory, a dead letter (no table), or neither."""

    record: Record
    table: str | None = None
    directory: str = ""
    schema_id: int | None = None
    # As its writer wrote it.
    fields: dict[str, Any] | None = None
    is_left_out: bool = False


class Drawing:
    """Records of one topic, drawn one by one."""

    def __init__(
        self, data: st.DataObject, chain: list[Any], time: str, partitioning: Partitioning, tombstones: str, topic: str
    ) -> None:
        type_, self._said = TIMES[time]
        self._data = data
        self._partitioning = partitioning
        self._tombstones = tombstones
        # Every writer has the fields that name directories, and behind them what was drawn.
        own = [
            {"name": "moment", "type": ["null", type_]},
            {"name": "country", "type": ["null", "string"]},
            {"name": "filler", "type": "bytes"},
        ]
        self._drawn = [schema for schema in chain if isinstance(schema, dict) and schema["type"] == "record"]
        self._writers = [{**schema, "fields": [*own, *schema["fields"]]} for schema in self._drawn]
        self.version: TableVersion = merge(
            None, {number: json.dumps(writer) for number, writer in enumerate(self._writers)}, topic=topic
        ).version

    def sent(self, number: int) -> Sent:
        """Draw a record."""
        draw = self._data.draw
        kind = draw(st.sampled_from(["row"] * 6 + ["null", "bad"]))
        record = Record(
            None,
            key=b"key-%d" % number,
            partition=draw(st.integers(0, 2)),
            timestamp_ms=FIRST_MS + draw(st.integers(0, 60)) * 1_800_000,
            headers=[("h", b"%d" % number)],
        )
        if kind == "null":
            if self._tombstones == "dead_letters":
                return Sent(record)
            directory = self._directory(record, None, None)
            return Sent(record, self.version.name, directory, is_left_out=self._tombstones == "skip")
        if kind == "bad":
            record.value = BAD[number % len(BAD)]
            return Sent(record)
        schema_id = draw(st.integers(0, len(self._writers) - 1))
        moment = draw(st.none() | st.integers(-40, 40).map(lambda hours: FIRST + hours * HOUR))
        country = draw(st.sampled_from([None, "", "CH", "Zürich"]))
        fields = draw(values(self._drawn[schema_id])) | {
            "moment": None if moment is None else self._said(moment),
            "country": country,
            "filler": random.Random(number).randbytes(draw(st.sampled_from([0, 0, 30_000]))),
        }
        writer = self._writers[schema_id]
        try:
            datum = written(writer, fields)
        except ValueError:
            # Of a union fastavro may take a branch that the value does not fit.
            record.value = BAD[2]
            return Sent(record)
        record.value = b"\0" + schema_id.to_bytes(4, "big") + datum
        is_placed = not (self._partitioning.timestamp != "record" and self._partitioning.kind == "time" and not moment)
        table = self.version.table_of(schema_id)
        assert table is not None
        if not is_placed:
            return Sent(record)
        directory = self._directory(record, moment, country)
        return Sent(record, table.name, directory, schema_id, read(datum, writer))

    def table(self, name: str) -> TableVersion:
        return next(table for table in self.version.tables() if table.name == name)

    def _directory(self, record: Record, moment: datetime.datetime | None, country: str | None) -> str:
        partitioning = self._partitioning
        if partitioning.kind in ("none", "kafka"):
            return "" if partitioning.kind == "none" else f"partition={record.partition}"
        parts = [f"country={country or NO_VALUE}"] if partitioning.fields else []
        if partitioning.kind == "time":
            by_record = partitioning.timestamp == "record" or moment is None
            at = FIRST + datetime.timedelta(milliseconds=record.timestamp_ms - FIRST_MS) if by_record else moment
            assert at is not None
            parts.append(at.astimezone(ZoneInfo(partitioning.zone)).strftime(partitioning.time_pattern))
        return "/".join(parts)


DURATION = ("months", "days", "milliseconds")  # as columns have it, three numbers in 12 bytes to fastavro


def assert_same_content(row: dict[str, Any], fields: dict[str, Any], table: TableVersion) -> None:
    """Assert that a row has what its writer wrote, as far as it may be told without resolving the schema once more."""
    assert table.avro_schema is not None
    called = {
        name: field["name"]
        for field in json.loads(table.avro_schema)["fields"]
        for name in (*field.get("aliases", ()), field["name"])
    }
    for name, one in fields.items():
        found = row[called[name]]
        if isinstance(found, dict) and tuple(found) == DURATION:
            found = b"".join(found[part].to_bytes(4, "little") for part in DURATION)
        if isinstance(found, dict) and not isinstance(one, dict):
            # One of several types, as columns have it.
            found = next((branch for branch in found.values() if branch is not None), None)
        if isinstance(one, (dict, list)) or isinstance(found, (dict, list)):
            continue
        is_promoted = isinstance(one, str) and found == one.encode()
        assert is_promoted or alike(found, one, plain=True), (name, found, one)


def rows_of(done: Outcome, format_: str) -> dict[tuple[int, int], tuple[str, str, FileKind, dict[str, Any]]]:
    """Return every row by its record's place: table, directory, kind, content; each record once."""
    found: dict[tuple[int, int], tuple[str, str, FileKind, dict[str, Any]]] = {}
    for kind in (FileKind.DATA, FileKind.LATE):
        for file in done.files(format_, kind):
            for row in done.rows_of(file):
                place = row["_kafka_partition"], row["_kafka_offset"]
                assert place not in found, f"{place} is there twice"
                found[place] = file.table, file.directory, kind, row
    return found


@drawn(12, soaked=200)
@given(
    data=st.data(),
    chain=chains(),
    time=st.sampled_from(sorted(TIMES)),
    partitioning=partitionings,
    limits=limits,
    formats=st.sampled_from([{"avro"}, {"parquet"}, {"avro", "parquet"}]),
    tombstones=st.sampled_from(["row", "skip", "dead_letters"]),
    codec=st.sampled_from(["none", "lz4", "zstd"]),
    has_late=st.booleans(),
)
def test_the_files_hold_what_the_range_holds(
    new_topic: NewTopic,
    data: st.DataObject,
    chain: list[Any],
    time: str,
    partitioning: Partitioning,
    limits: FileLimits,
    formats: set[str],
    tombstones: str,
    codec: str,
    has_late: bool,
) -> None:
    topic = new_topic()
    drawing = Drawing(data, chain, time, partitioning, tombstones, topic.name)
    sent = [drawing.sent(number) for number in range(data.draw(st.integers(1, 20)))]
    topic.send([one.record for one in sent], compression_type=codec)
    job = topic.job(
        formats=formats,
        partitioning=partitioning,
        limits=limits,
        metadata_columns=("partition", "offset", "key", "schema_id", "headers"),
        tombstones=tombstones,
    )
    late = {(one.table, one.directory) for one in sent if one.table is not None} if has_late else set()
    late = set(sorted(late)[::2])
    closed = {table: frozenset(name for at, name in late if at == table) for table, _ in late if table is not None}

    done = topic.run(job, drawing.version, closed=closed)

    places: dict[bytes, tuple[int, int]] = {}
    ends = Counter[int]()
    for one in sent:
        assert one.record.key is not None
        places[one.record.key] = one.record.partition, ends[one.record.partition]
        ends[one.record.partition] += 1
    expected = {places[one.record.key or b""]: one for one in sent if one.table is not None and not one.is_left_out}
    for format_ in formats:
        found = rows_of(done, format_)
        assert found.keys() == expected.keys(), format_
        for place, (table, directory, kind, row) in found.items():
            one = expected[place]
            assert (table, directory) == (one.table, one.directory)
            assert (kind is FileKind.LATE) == ((table, directory) in late)
            assert (row["_kafka_key"], row["_kafka_schema_id"]) == (one.record.key, one.schema_id)
            assert [(header["key"], header["value"]) for header in row["_kafka_headers"]] == one.record.headers
            if one.fields is None:
                assert all(value is None for name, value in row.items() if not name.startswith("_kafka_"))
            else:
                assert_same_content(row, one.fields, drawing.table(table))
        for file in [file for kind in (FileKind.DATA, FileKind.LATE) for file in done.files(format_, kind)]:
            assert limits.rows is None or file.rows <= limits.rows
            assert limits.age_s is None or file.max_timestamp_ms - file.min_timestamp_ms <= limits.age_s * 1000
    dead = [one.record.key for one in sent if one.table is None]
    letters = done.dead_letters()
    assert Counter(letter["key"] for letter in letters) == Counter(dead)
    assert all(letter["error"] and letter["headers"][0]["value"] == letter["key"][4:] for letter in letters)
    nulls = sum(one.record.value is None for one in sent)
    reads = done.result.read
    assert sum(read.rows for read in reads) == len(expected)
    assert sum(read.bad for read in reads) == len(dead)
    assert sum(read.tombstones for read in reads) == nulls
    assert sum(read.tombstones_left_out for read in reads) == (nulls if tombstones == "skip" else 0)
    assert {read.partition: read.next_offset for read in reads} == {number: ends[number] for number in range(3)}
