"""Splits over a real topic: what the files and dead letters hold is what the range holds, each record once."""

from __future__ import annotations

import io
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb
import fastavro
import pyarrow as pa
import pytest
from tests.support.loads import FIRST_MS, SCHEMA_1, SCHEMA_2
from tests.support.split_runs import Record, SplitTopic

from millstream import Admin, TopicPartition
from millstream.hadoop_loader.job import BadRecords, LateSettings, Partitioning, ValueSettings
from millstream.hadoop_loader.partitioning import field_times
from millstream.hadoop_loader.running import (
    RangeGoneError,
    ReadingBuffers,
    SplitStoppedError,
    TopicRecreatedError,
    TopicUnreadableError,
)
from millstream.hadoop_loader.splits import FileKind, GapReason, OffsetRange, Progress
from millstream.hadoop_loader.tables import TableVersion, merge
from millstream.schemas.parsing import SchemaType, parse

pytestmark = pytest.mark.from_kafka(soak=True)

_numbers = itertools.count()
HOUR_MS = 3_600_000
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


def test_a_split_is_read_with_the_memory_of_the_one_before(new_topic: NewTopic) -> None:
    topic = new_topic()
    padding = "x" * 200
    topic.send([Record(value(number, user=f"{padding}{number}")) for number in range(3_000)])
    (whole,) = topic.ranges()
    buffers = ReadingBuffers()
    pools = []
    found = []
    # The second one reads less: what the first has left behind in the same memory is none of its records.
    for start, end in ((0, 2_500), (2_500, 3_000)):
        wanted = [replace(whole, start_offset=start, end_offset=end)]
        outcome = topic.run(topic.job(formats={"parquet"}), table(topic.name), wanted, buffers=buffers)
        found.append([row["id"] for _, row in outcome.rows("parquet")])
        pools.append(buffers.pool({}))

    assert found == [list(range(2_500)), list(range(2_500, 3_000))]
    assert pools[0] is pools[1]
    assert pools[0].held_bytes > 0


def test_a_split_with_a_batch_of_many_records_leaves_no_room_for_as_many() -> None:
    buffers = ReadingBuffers()
    columns = buffers.columns
    usual = columns.capacity
    assert buffers.columns is columns

    columns.grow(8 * usual)

    assert buffers.columns is not columns
    assert buffers.columns.capacity == usual


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


@pytest.mark.parametrize("format_", ["avro", "json"])
def test_values_that_name_no_schema_go_to_the_table_of_the_job_s(format_: str, new_topic: NewTopic) -> None:
    """Also where an earlier job read the topic by a registry, and its newest table is of another kind of records."""
    topic = new_topic()
    framed = {1: AVRO_ID % "long", 2: AVRO_ID % "string"}
    tables = merge(merge(None, framed, topic=topic.name).document, {0: framed[1]}, topic=topic.name).version
    assert tables.name == f"{topic.name}.v2"
    # The first ones could be taken for prefixes.
    contents = [b"\x00", b"\x0e"] if format_ == "avro" else [b'{"id": 0}', b'{"id": 7}']
    topic.send([Record(content) for content in [*contents, b"\0\0\0\0\2\2"]])
    job = topic.job(value=ValueSettings(format=format_, framing="none", schema=framed[1]))

    done = topic.run(job, tables)

    for written in ("avro", "parquet"):
        assert [(file.table, file.rows) for file in done.files(written)] == [(topic.name, 2)]
        assert [row["id"] for _, row in done.rows(written)] == [0, 7]
    assert [letter["offset"] for letter in done.dead_letters()] == [2]


@pytest.mark.parametrize("format_", ["avro", "json", "protobuf"])
def test_deletions_alone_have_no_column_of_values(format_: str, new_topic: NewTopic) -> None:
    """Nobody knows yet what the values' columns are; a stand-in would meet a key's column of its name."""
    topic = new_topic()
    topic.send([Record(None, key=b"k"), Record(b"no id", key=b"l")])
    job = topic.job(value=ValueSettings(format=format_), key=ValueSettings(format="raw", column="value"))

    done = topic.run(job, TableVersion(topic.name, topic.name))

    for written in ("avro", "parquet"):
        assert [row for _, row in done.rows(written)] == [{"value": b"k"}]
    assert [letter["offset"] for letter in done.dead_letters()] == [1]


def test_deletions_of_nested_records_are_written(new_topic: NewTopic) -> None:
    topic = new_topic()
    types = ["long", "string", "boolean", "double", "bytes", {"type": "array", "items": "int"}]
    types += [{"type": "map", "values": "int"}, {"type": "enum", "name": "E", "symbols": ["A"]}]
    types += [{"type": "fixed", "name": "F", "size": 3}, {"type": "long", "logicalType": "timestamp-micros"}]
    types += [{"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 2}, ["null", "string"]]
    inner = {
        "type": "record",
        "name": "In",
        "fields": [{"name": f"f{at}", "type": one} for at, one in enumerate(types)],
    }
    middle = {"type": "record", "name": "Mid", "fields": [{"name": "in", "type": inner}, {"name": "x", "type": "int"}]}
    schema = json.dumps({"type": "record", "name": "V", "fields": [{"name": "mid", "type": middle}]})
    topic.send([Record(None, key=b"k"), Record(None, key=b"l")])
    job = topic.job(metadata_columns=("key",))

    done = topic.run(job, merge(None, {1: schema}, topic=topic.name).version)

    for written in ("avro", "parquet"):
        assert [row for _, row in done.rows(written)] == [{"mid": None, "_kafka_key": key} for key in (b"k", b"l")]


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


def test_a_worker_that_closes_files_says_that_it_lives_and_stops_when_told(new_topic: NewTopic) -> None:
    topic = new_topic()
    topic.send([Record(value(number)) for number in range(12)])
    job = topic.job(formats={"parquet"}, partitioning=Partitioning(kind="fields", fields=("user",)))
    told: list[int] = []
    done = topic.run(job, table(topic.name), on_progress=lambda progress: told.append(progress.rows))
    assert len(done.result.files) == told.count(0) == 12

    stop = threading.Event()

    def stop_at_first_file(progress: Progress) -> None:
        if not progress.rows:
            stop.set()

    with pytest.raises(SplitStoppedError):
        topic.run(job, table(topic.name), stop=stop, on_progress=stop_at_first_file)


def test_what_a_partitioner_raises_is_told_of_its_topic(new_topic: NewTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = new_topic()
    topic.send([Record(value(0))])

    def without_zones(*_: object) -> None:
        raise pa.ArrowInvalid("Cannot locate timezone 'Europe/Berlin'")

    monkeypatch.setattr(field_times, "_of_text", without_zones)
    job = topic.job(partitioning=Partitioning(kind="time", timestamp="user", zone="Europe/Berlin"))
    with pytest.raises(TopicUnreadableError, match="Cannot locate timezone") as caught:
        topic.run(job, table(topic.name))
    assert caught.value.topic == topic.name


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
