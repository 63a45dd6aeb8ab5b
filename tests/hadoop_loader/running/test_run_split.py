"""Splits over a real topic: what the files and dead letters hold is what the range holds, each record once."""

from __future__ import annotations

import datetime
import io
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import duckdb
import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.loads import FIRST_MS, SCHEMA_1, SCHEMA_2
from tests.support.split_runs import Record, SplitTopic

from millstream import Admin, TopicPartition
from millstream.hadoop_loader.job import BadRecords, FileLimits, LateSettings, Partitioning, ValueSettings
from millstream.hadoop_loader.running import RangeGoneError, SplitStoppedError, TopicRecreatedError
from millstream.hadoop_loader.splits import FileKind, GapReason, OffsetRange, Progress
from millstream.hadoop_loader.tables import TableVersion, merge
from millstream.schemas.parsing import SchemaType, parse

pytestmark = pytest.mark.from_kafka(soak=True)

_numbers = itertools.count()
HOUR_MS = 3_600_000
BAD = [b"", b"\0\0\0\0\1", b"no magic byte", b"\0\0\0\0\1\2\xff\xff\xff\xff\x0f", b"\0\x7f\xff\xff\xff\2"]
NewTopic = Callable[..., SplitTopic]


@pytest.fixture
def new_topic(broker_kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewTopic:
    kind = "millstream_broker_session" if broker_kind == "millstream" else "apache_kafka"
    bootstrap: str = request.getfixturevalue(kind).bootstrap_servers

    def made(partitions: int = 1) -> SplitTopic:
        name = f"split-{next(_numbers)}"
        return SplitTopic(bootstrap, name, tmp_path_factory.mktemp(name), partitions)

    return made


def value(number: int, schema: str = SCHEMA_1, schema_id: int = 1, **fields: Any) -> bytes:
    out = io.BytesIO(b"\0" + schema_id.to_bytes(4, "big"))
    out.seek(5)
    row = {"id": number, "user": f"user-{number}", "amount": None if number % 3 else number / 2, **fields}
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(schema)), row)
    return out.getvalue()


def table(name: str, schema: str = SCHEMA_1, writers: dict[int, str] | None = None) -> TableVersion:
    return TableVersion(name, name, avro_schema=schema, writers=writers or {1: SCHEMA_1})


def directory_of(partitioning: Partitioning, record: Record, number: int) -> str:
    at = datetime.datetime.fromtimestamp(record.timestamp_ms / 1000, datetime.UTC)
    return {
        "none": "",
        "kafka": f"partition={record.partition}",
        "time": at.strftime(partitioning.time_pattern),
        "fields": f"user=user-{number}",
    }[partitioning.kind]


drawn_records = st.lists(
    st.tuples(st.sampled_from(["good", "good", "good", "older", "null", "bad"]), st.integers(0, 2), st.integers(0, 50)),
    min_size=1,
    max_size=40,
)


@pytest.mark.from_kafka
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=drawn_records,
    partitioning=st.sampled_from(
        [
            Partitioning(kind="none"),
            Partitioning(kind="kafka"),
            Partitioning(kind="time", pattern="hourly"),
            Partitioning(kind="fields", fields=("user",)),
        ]
    ),
    formats=st.sampled_from([{"avro"}, {"parquet"}, {"avro", "parquet"}]),
    rows=st.none() | st.integers(1, 7),
    metadata=st.sampled_from([(), ("partition", "offset", "key", "schema_id", "headers")]),
    tombstones=st.sampled_from(["row", "skip", "dead_letters"]),
    codec=st.sampled_from(["none", "lz4"]),
)
def test_the_files_hold_what_the_range_holds(
    new_topic: NewTopic,
    drawn: list[tuple[str, int, int]],
    partitioning: Partitioning,
    formats: set[str],
    rows: int | None,
    metadata: tuple[str, ...],
    tombstones: str,
    codec: str,
) -> None:
    topic = new_topic(3)
    records, expected, dead = [], Counter[Any](), Counter[str]()
    for number, (kind, partition, hours) in enumerate(drawn):
        content = {
            "good": value(number, SCHEMA_2, 2, country="CH"),
            "older": value(number),
            "null": None,
            "bad": BAD[number % len(BAD)],
        }[kind]
        record = Record(
            content,
            key=b"key-%d" % number,
            partition=partition,
            timestamp_ms=FIRST_MS + hours * HOUR_MS,
            headers=[("h", b"%d" % number)],
        )
        records.append(record)
        extra = (partition, f"key-{number}", {"good": 2, "older": 1}.get(kind)) if metadata else ()
        directory = directory_of(partitioning, record, number)
        if kind in {"good", "older"}:
            expected[directory, number, "CH" if kind == "good" else "?", *extra] += 1
        elif kind == "bad" or tombstones == "dead_letters":
            dead[f"key-{number}"] += 1
        elif tombstones == "row":
            if partitioning.kind == "fields":
                directory = "user=__HIVE_DEFAULT_PARTITION__"
            expected[directory, None, None, *extra] += 1
    topic.send(records, compression_type=codec)
    job = topic.job(
        formats=formats,
        partitioning=partitioning,
        limits=FileLimits(rows=rows),
        metadata_columns=metadata,
        tombstones=tombstones,
    )

    done = topic.run(job, table(topic.name, SCHEMA_2, {1: SCHEMA_1, 2: SCHEMA_2}))

    for format_ in formats:
        found = Counter(
            (
                directory,
                row["id"],
                row["country"],
                *((row["_kafka_partition"], row["_kafka_key"].decode(), row["_kafka_schema_id"]) if metadata else ()),
            )
            for directory, row in done.rows(format_)
        )
        assert found == expected, format_
        assert all(rows is None or file.rows <= rows for file in done.files(format_))
    letters = done.dead_letters()
    assert Counter(letter["key"].decode() for letter in letters) == dead
    assert all(
        letter["error"] and letter["headers"] == [{"key": "h", "value": letter["key"][4:]}] for letter in letters
    )
    nulls = [kind for kind, _, _ in drawn].count("null")
    read = done.result.read
    assert sum(one.rows for one in read) == expected.total()
    assert sum(one.bad for one in read) == dead.total()
    assert sum(one.tombstones for one in read) == nulls
    assert sum(one.next_offset - one.start_offset for one in read) == len(drawn)
    assert sum(one.tombstones_left_out for one in read) == (nulls if tombstones == "skip" else 0)


@pytest.mark.from_kafka
def test_datums_pass_through_unchanged_and_older_ones_do_not(new_topic: NewTopic) -> None:
    topic = new_topic()
    same = [value(number, SCHEMA_2, 2, country="CH") for number in range(3)]
    topic.send([Record(one) for one in same])
    job = topic.job(formats={"avro"})
    versions = table(topic.name, SCHEMA_2, {1: SCHEMA_1, 2: SCHEMA_2})
    (file,) = topic.run(job, versions).files("avro")
    with (topic.root / file.path).open("rb") as opened:
        reader = fastavro.reader(opened)
        assert reader.writer_schema is not None
        list(reader)
    assert fastavro.parse_schema(json.loads(SCHEMA_2)) == fastavro.parse_schema(
        json.loads(json.dumps(reader.writer_schema))
    )

    topic.send([Record(value(7))])
    found = [row for _, row in topic.run(job, versions).rows("avro")]
    assert [(row["id"], row["country"]) for row in found] == [(0, "CH"), (1, "CH"), (2, "CH"), (7, "?")]


@pytest.mark.from_kafka
def test_a_part_of_a_partition_in_two_ranges(new_topic: NewTopic) -> None:
    topic = new_topic()
    topic.send([Record(value(number)) for number in range(100)], compression_type="zstd")
    (whole,) = topic.ranges()
    ranges = [
        OffsetRange(topic.name, whole.topic_id, 0, -1, start, end) for start, end in ((70, 91), (10, 40), (95, 95))
    ]
    done = topic.run(topic.job(formats={"parquet"}), table(topic.name), ranges)
    assert sorted(row["id"] for _, row in done.rows("parquet")) == [*range(10, 40), *range(70, 91)]
    assert [(read.start_offset, read.next_offset) for read in done.result.read] == [(70, 91), (10, 40), (95, 95)]


def test_an_unknown_schema_is_told_and_nothing_else(new_topic: NewTopic) -> None:
    class Registry:
        def schema(self, schema_id: int) -> Any:
            assert schema_id == 9
            return parse("AVRO", SCHEMA_2)

    topic = new_topic()
    topic.send([Record(value(0)), Record(value(1, SCHEMA_2, 9, country="CH"))])
    done = topic.run(topic.job(), table(topic.name), registry=Registry()).result
    assert [(one.topic, one.schema_id) for one in done.unknown_schemas] == [(topic.name, 9)]
    assert json.loads(done.unknown_schemas[0].schema)["name"] == "Event"
    assert (done.files, done.read) == ((), ())


AVRO_ID = '{"type": "record", "name": "V", "fields": [{"name": "id", "type": "%s"}]}'
PROTOBUF = 'syntax = "proto3"; message %s { %s id = 1; }'


@pytest.mark.parametrize("format_", ["avro", "json", "protobuf"])
def test_values_of_two_generations_go_to_their_own_tables(format_: str, new_topic: NewTopic) -> None:
    topic = new_topic()
    if format_ == "avro":
        texts = [AVRO_ID % one for one in ("long", "string")]
        contents = [b"\0\0\0\0\1\2", b"\0\0\0\0\2\2a", b"\0\0\0\0\1", b"unframed"]
    elif format_ == "json":
        texts = [f'{{"type": "object", "properties": {{"id": {{"type": "{one}"}}}}}}' for one in ("integer", "string")]
        contents = [b'\0\0\0\0\1{"id": 1}', b'\0\0\0\0\2{"id": "a"}', b'\0\0\0\0\1{"id": []}', b"unframed"]
    else:
        texts = [PROTOBUF % ("A", "int32"), PROTOBUF % ("B", "string")]
        contents = [b"\0\0\0\0\1\0\x08\1", b"\0\0\0\0\2\0\x0a\1a", b"\0\0\0\0\1\0\xff", b"unframed"]
    type_ = SchemaType(format_.upper())
    document = None
    for schema_id, text in enumerate(texts, 1):
        merged = merge(document, {schema_id: parse(type_, text)}, "evolve", topic=topic.name)
        document = merged.document
    tables = merged.version
    assert [len(one.writers) for one in tables.tables()] == [1, 1]
    topic.send([Record(one) for one in [*contents, None, *contents]])

    done = topic.run(topic.job(value=ValueSettings(format=format_)), tables)

    assert done.result.unknown_schemas == ()
    for written in ("avro", "parquet"):
        by_table = Counter((file.table, file.rows) for file in done.files(written))
        assert by_table == Counter({(topic.name, 2): 1, (tables.name, 2): 1, (tables.name, 1): 1})
        assert Counter(row["id"] for _, row in done.rows(written)) == Counter({1: 2, "a": 2, None: 1})
    assert [(letter["offset"], letter["value"]) for letter in done.dead_letters()] == [
        (offset, contents[offset % 5]) for offset in (2, 3, 7, 8)
    ]


def test_too_many_bad_records_refuse_their_topic(new_topic: NewTopic) -> None:
    topic = new_topic()
    topic.send([Record(b"bad") if number % 2 else Record(value(number)) for number in range(10)])
    few = topic.run(topic.job(bad_records=BadRecords(max_bad_records=5)), table(topic.name))
    assert few.result.refused_topics == {}
    assert len(few.dead_letters()) == 5
    many = topic.run(topic.job(bad_records=BadRecords(max_bad_records=4)), table(topic.name))
    assert many.result.refused_topics == {topic.name: 5}
    assert many.result.read == ()
    skipped = topic.run(topic.job(bad_records=BadRecords(policy="skip")), table(topic.name))
    assert skipped.dead_letters() == []
    assert skipped.result.read[0].bad == 5


@pytest.mark.parametrize("policy", ["separate", "append", "dead_letters"])
def test_late_records(policy: str, new_topic: NewTopic) -> None:
    topic = new_topic()
    topic.send([Record(value(number), timestamp_ms=FIRST_MS + number * 24 * HOUR_MS) for number in range(3)])
    job = topic.job(
        formats={"avro"},
        partitioning=Partitioning(kind="time", pattern="dt=%Y-%m-%d"),
        late=LateSettings(policy=policy),
    )
    done = topic.run(job, table(topic.name), closed={topic.name: frozenset({"dt=2026-01-02"})})
    ids = {kind: [row["id"] for _, row in done.rows("avro", kind)] for kind in (FileKind.DATA, FileKind.LATE)}
    expected = {"separate": ([0, 2], [1]), "append": ([0, 1, 2], []), "dead_letters": ([0, 2], [])}[policy]
    assert (ids[FileKind.DATA], ids[FileKind.LATE]) == expected
    assert [letter["offset"] for letter in done.dead_letters()] == ([1] if policy == "dead_letters" else [])
    assert [read.late for read in done.result.read] == [0 if policy == "dead_letters" else 1]


@pytest.mark.from_kafka
def test_retention_that_was_quicker_is_a_gap_or_an_error(new_topic: NewTopic) -> None:
    topic = new_topic()
    topic.send([Record(value(number)) for number in range(20)])
    (whole,) = topic.ranges()
    with Admin(topic.bootstrap) as admin:
        admin.delete_records({TopicPartition(topic.name, 0): 12})
    with pytest.raises(RangeGoneError, match="retention has deleted offsets 0 to 11"):
        topic.run(topic.job(), table(topic.name), [whole])
    done = topic.run(topic.job(source={"gaps": "continue"}), table(topic.name), [whole])
    assert [row["id"] for _, row in done.rows("parquet")] == list(range(12, 20))
    (gap,) = done.result.gaps
    assert (gap.reason, gap.first, gap.last, gap.offsets) == (GapReason.RETENTION, 0, 11, 12)


def test_a_topic_created_anew_is_noticed(new_topic: NewTopic) -> None:
    topic = new_topic()
    topic.send([Record(value(0))])
    (whole,) = topic.ranges()
    other = OffsetRange(topic.name, "AAAAAAAAAAAAAAAAAAAAAA", 0, -1, 0, whole.end_offset)
    with pytest.raises(TopicRecreatedError):
        topic.run(topic.job(), table(topic.name), [other])


class NoWait(threading.Event):
    """Waits for nothing, and keeps how long it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


def test_a_worker_that_waits_for_its_rate_says_that_it_lives(new_topic: NewTopic) -> None:
    topic = new_topic()
    topic.send([Record(value(number)) for number in range(60)])
    stop, told = NoWait(), list[tuple[int, int]]()

    def handle_progress(progress: Progress) -> None:
        told.append((len(stop.waits), progress.rows))

    job = topic.job(source={"rate_limit_records_per_s": 1})
    done = topic.run(job, table(topic.name), stop=stop, on_progress=handle_progress)

    assert sum(stop.waits) == pytest.approx(60.0, abs=5.0)
    assert sum(rows for _, rows in told) == done.result.rows == 60
    # Behind each pause something was told.
    assert {waits for waits, _ in told} >= set(range(1, len(stop.waits) + 1))


def test_a_stop_ends_it(new_topic: NewTopic) -> None:
    topic = new_topic()
    topic.send([Record(value(number)) for number in range(10)])
    stop = threading.Event()
    stop.set()
    with pytest.raises(SplitStoppedError):
        topic.run(topic.job(), table(topic.name), stop=stop)


@pytest.mark.parametrize("format_", ["raw", "json"])
def test_values_without_a_schema(format_: str, new_topic: NewTopic) -> None:
    topic = new_topic()
    contents = [b'{"a": 1}', b"\xff\xfe", None, "Zürich".encode()]
    topic.send([Record(content) for content in contents])
    job = topic.job(value=ValueSettings(format=format_, framing="none"))
    done = topic.run(job, TableVersion(topic.name, topic.name))
    good = contents if format_ == "raw" else [contents[0], None, contents[3]]
    expected = Counter(one if format_ == "raw" or one is None else one.decode() for one in good)
    for written in ("avro", "parquet"):
        assert Counter(row["value"] for _, row in done.rows(written)) == expected
    assert [letter["value"] for letter in done.dead_letters()] == ([] if format_ == "raw" else [b"\xff\xfe"])


def test_files_of_a_directory_are_read_together(new_topic: NewTopic) -> None:
    """Rows with and without values, and files of two versions of the table, by DuckDB and pyarrow with one schema."""
    import pyarrow.dataset as ds

    topic = new_topic()
    topic.send([Record(value(0)), Record(None), Record(value(1))])
    job = topic.job(formats={"parquet"})
    first = topic.run(job, table(topic.name))
    topic.send([Record(value(2, SCHEMA_2, 2, country="CH"))])
    second = topic.run(job, table(topic.name, SCHEMA_2, {1: SCHEMA_1, 2: SCHEMA_2}))
    paths = [str(topic.root / file.path) for done in (first, second) for file in done.files("parquet")]
    found = duckdb.connect().execute("select id, country from read_parquet(?, union_by_name=true)", [paths]).fetchall()
    assert Counter(found) == Counter([(0, None), (None, None), (1, None), (0, "?"), (None, None), (1, "?"), (2, "CH")])
    arrow = table(topic.name, SCHEMA_2).arrow_schema()
    assert arrow is not None
    together = ds.dataset(paths, schema=arrow).to_table()
    assert Counter(together["id"].to_pylist()) == Counter([0, None, 1, 0, None, 1, 2])
