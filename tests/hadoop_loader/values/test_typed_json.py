"""JSON by the schema of a job: what of Avro's types is read of what JSON, and that both readers say the same."""

from __future__ import annotations

import datetime
import itertools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.support.split_runs import Record, SplitTopic

from millstream.hadoop_loader.driver.schemas import RunSchemas
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, SourceSettings, ValueSettings
from millstream.hadoop_loader.tables import merge
from millstream.hadoop_loader.tables.parquet import parquet_avro_schema
from millstream.hadoop_loader.values.json_objects import JsonObjects
from millstream.hadoop_loader.values.typed_json import TypedJson
from millstream.schemas.avro import JsonDecoder
from millstream.schemas.avro.decoder import Decoded
from millstream.testing import TestBroker

_numbers = itertools.count()
NOON = datetime.datetime(2026, 1, 2, 12, 0, 0, 250_000, tzinfo=datetime.UTC)
NOON_MS = 1_767_355_200_250
INNER = {"type": "record", "name": "In", "fields": [{"name": "x", "type": "double"}]}
KIND = {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}
NOON_NS = NOON_MS * 1_000_000
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
LONG_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 2}


def logical(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "logicalType": name}


def schema_of(type_: Any) -> str:
    return json.dumps({"type": "record", "name": "V", "fields": [{"name": "f", "type": type_}]})


def reader(type_: Any) -> TypedJson:
    exact = JsonObjects(parquet_avro_schema(schema_of(type_)))
    return TypedJson(JsonDecoder(exact.schema), exact)


def decoded(type_: Any, *values: Any) -> Decoded:
    return reader(type_).decode(pa.array([json.dumps({"f": value}).encode() for value in values]))


@pytest.mark.parametrize(
    ("type_", "read", "bad"),
    [
        (KIND, {"A": "A", "B": "B"}, ["C", 1, None]),
        (["null", KIND], {"A": "A", None: None}, ["C"]),
        ({"type": "map", "values": "long"}, {'{"a": 1, "b": 2}': [("a", 1), ("b", 2)], "{}": []}, ["[]", '{"a": "x"}']),
        ({"type": "fixed", "name": "F", "size": 2}, {"xy": b"xy", "ü": "ü".encode()}, ["x", "xyz", 1, "\ud800"]),
        (
            logical("long", "timestamp-millis"),
            {NOON_MS: NOON, "2026-01-02T13:00:00.250+01:00": NOON, "2026-01-02 12:00:00.25": NOON},
            ["noon", 1.5, 2**63, True],
        ),
        (logical("long", "timestamp-micros"), {NOON_MS * 1000: NOON, "2026-01-02T12:00:00.250Z": NOON}, [{}]),
        (logical("int", "date"), {20_455: NOON.date(), "2026-01-02": NOON.date()}, ["2026-02-30", 2**31]),
        (
            DECIMAL,
            {1.5: Decimal("1.50"), "12.345e1": Decimal("123.45"), 7: 7},
            [1.234, 12345.6, "x", "NaN", "1e999999"],
        ),
        (
            logical("long", "local-timestamp-nanos"),
            {
                NOON_NS: NOON_NS,
                "2026-01-02T12:00:00.25": NOON_NS,
                "2026-01-02T13:00:00.250000123+01:00": NOON_NS + 123,
                "1969-12-31T23:59:59.9999999Z": -100,
            },
            ["2026-01-02T12:00:00.2500000001", "noon", 1.5, 2**63, "2262-04-12T00:00:00Z", "1677-09-21"],
        ),
        # In Parquet, as these columns are, it is two's complement.
        (
            LONG_DECIMAL,
            {
                1.5: b"\0\x96",
                "-1.28": b"\x80",
                "12.345e1": b"\x30\x39",
                "9" * 48: (10**50 - 100).to_bytes(21),
                0: b"\0",
            },
            ["abc", "0.001", 1e50, "NaN", True, None],
        ),
        (
            {**LONG_DECIMAL, "type": "fixed", "name": "F", "size": 22},
            {1.5: b"\0" * 21 + b"\x96", "-0.01": b"\xff" * 22},
            ["abc", 1e50],
        ),
        ("float", {1.5: 1.5, 3.4028235e38: 3.4028234663852886e38}, [1e300, -1e39, "1.5"]),
        (
            ["null", "long", "string", INNER],
            {
                1: {"long": 1, "string": None, "In": None},
                "a": {"long": None, "string": "a", "In": None},
                '{"x": 1}': {"long": None, "string": None, "In": {"x": 1.0}},
                '{"In": {"x": 2}}': {"long": None, "string": None, "In": {"x": 2.0}},
                None: None,
            },
            [1.5, [], '{"y": 1}'],
        ),
        ({"type": "array", "items": INNER}, {'[{"x": 1}]': [{"x": 1.0}], "[]": []}, ["[null]", '[{"y": 1}]', "{}"]),
        (INNER, {'{"x": 0.5, "y": 1}': {"x": 0.5}}, ["{}", '{"x": null}', "[]"]),
        ("boolean", {True: True}, [1, "true"]),
        ("int", {5: 5, -(2**31): -(2**31)}, [2**31, 1.5, "5"]),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, (dict, list)) and "type" in str(value) else "",
)
def test_each_type_of_avro_is_read(type_: Any, read: dict[Any, Any], bad: list[Any]) -> None:
    def given(value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) and value[:1] in {"{", "["} else value

    values = [*map(given, read), *map(given, bad)]
    found = decoded(type_, *values)

    assert found.batch.column(0).to_pylist() == list(read.values())
    assert [error.row for error in found.errors] == list(range(len(read), len(values)))
    assert all(error.reason.startswith(("f", "the value")) for error in found.errors), found.errors
    # One at a time, whichever reader is asked first then.
    for value, expected in zip(map(given, read), read.values(), strict=True):
        assert decoded(type_, value).batch.column(0).to_pylist() == [expected]


@pytest.mark.parametrize(
    "type_", ["double", "float", {"type": "array", "items": "double"}, {"type": "map", "values": "float"}]
)
def test_a_number_that_its_type_cannot_hold_is_bad(type_: Any) -> None:
    texts = {"array": "[0, %s]", "map": '{"x": %s}'}
    text = texts[type_["type"]] if isinstance(type_, dict) else "%s"
    numbers = ["1", "1e400", "2.5", "-1e400", "1" + "0" * 400, "1e38"]

    found = reader(type_).decode(pa.array([b'{"f": %s}' % (text % number).encode() for number in numbers]))

    assert [error.row for error in found.errors] == [1, 3, 4]
    assert found.rows is not None
    assert found.rows.to_pylist() == [0, 2, 5]
    assert "inf" not in str(found.batch.column(0).to_pylist())


def test_times_as_numbers_and_texts_keep_their_rows() -> None:
    values = ["2026-01-02T12:00:00.250Z" if number % 3 else NOON_MS for number in range(300)]
    values[7] = values[100] = "never"
    found = decoded(logical("long", "timestamp-millis"), *values)
    assert found.rows is not None
    assert found.rows.to_pylist() == [row for row in range(300) if row not in (7, 100)]
    assert found.batch.column(0).to_pylist() == [NOON] * 298
    assert [error.row for error in found.errors] == [7, 100]


def test_where_most_times_are_numbers_the_quick_reader_is_asked_no_more() -> None:
    both = reader(logical("long", "timestamp-millis"))
    values = pa.array([json.dumps({"f": NOON_MS}).encode()] * 200)
    assert both.decode(values).batch.num_rows == 200
    assert both._quick is None
    texts = reader(logical("long", "timestamp-millis"))
    texts.decode(pa.array([b'{"f": "2026-01-02T12:00:00.250Z"}'] * 200))
    assert texts._quick is not None


def test_what_is_no_json_is_bad() -> None:
    bad = [b"", b"{", b'{"f": NaN}', b"[1]", b'{"f": "\\ud800"}', b'{"f": ' + b"[" * 100_000, b'{"f": {"A": 1}}']
    found = reader(["null", KIND, "string"]).decode(pa.array([*bad, None, b'{"f": "B", "else": NaN}', b"{}"]))
    assert [error.row for error in found.errors] == list(range(len(bad)))
    assert found.batch.column(0).to_pylist() == [{"Kind": "B", "string": None}, None]


def test_files_have_what_the_objects_say(millstream_broker_session: TestBroker, tmp_path: Path) -> None:
    topic = SplitTopic(millstream_broker_session.bootstrap_servers, f"typed-{next(_numbers)}", tmp_path)
    fields = {
        "kind": KIND,
        "tags": {"type": "map", "values": "long"},
        "at": logical("long", "timestamp-millis"),
        "price": DECIMAL,
        "u": ["null", "long", "string"],
        "day_ms": logical("int", "time-millis"),
        "large": LONG_DECIMAL,
        "exact": logical("long", "timestamp-nanos"),
    }
    schema = {"type": "record", "name": "V", "fields": [{"name": name, "type": one} for name, one in fields.items()]}
    good = {"kind": "B", "tags": {"a": 1}, "at": NOON_MS, "price": 1.5, "u": "s", "day_ms": 5}
    good |= {"large": "1.5", "exact": "2026-01-02T12:00:00.250Z"}
    numbers = {"u": 7, "large": 1.5, "exact": NOON_NS}
    sent = [good, {**good, "kind": "C"}, {**good, **numbers}, {**good, "large": "abc"}]
    topic.send([Record(json.dumps(one).encode()) for one in sent])
    value = ValueSettings(format="json", framing="none", schema=json.dumps(schema))

    done = topic.run(topic.job(value=value), merge(None, {0: json.dumps(schema)}, topic=topic.name).version)

    assert [(letter["offset"], letter["error"]) for letter in done.dead_letters()] == [
        (1, 'kind has no "C"'),
        (3, 'large: "abc" is no number'),
    ]
    same = {"kind": "B", "at": NOON, "price": Decimal("1.50"), "exact": NOON_NS}
    in_avro = {**same, "tags": {"a": 1}, "day_ms": datetime.time(0, 0, 0, 5_000), "large": Decimal("1.50")}
    assert [row for _, row in done.rows("avro")] == [{**in_avro, "u": "s"}, {**in_avro, "u": 7}]
    in_parquet = {**same, "tags": [("a", 1)], "day_ms": 5, "large": b"\0\x96"}
    assert [row for _, row in done.rows("parquet")] == [
        {**in_parquet, "u": {"long": None, "string": "s"}},
        {**in_parquet, "u": {"long": 7, "string": None}},
    ]


def test_a_byte_that_is_no_text_ends_no_reader_of_a_file(millstream_broker_session: TestBroker, tmp_path: Path) -> None:
    topic = SplitTopic(millstream_broker_session.bootstrap_servers, f"typed-{next(_numbers)}", tmp_path)
    topic.send([Record(b'{"f": "one"}'), Record(b'{"f": "\xff"}'), Record(b'{"f": "two"}')])
    value = ValueSettings(format="json", framing="none", schema=schema_of("string"))

    done = topic.run(topic.job(value=value), merge(None, {0: schema_of("string")}, topic=topic.name).version)

    assert [(letter["offset"], letter["error"]) for letter in done.dead_letters()] == [
        (1, "'utf-8' codec can't decode byte 0xff in position 7: invalid start byte")
    ]
    for format_ in ("avro", "parquet"):
        assert [row["f"] for _, row in done.rows(format_)] == ["one", "two"]


@pytest.mark.parametrize("formats", [{"avro", "parquet"}, {"parquet"}])
def test_a_record_without_a_field_that_was_added_has_its_default(
    formats: set[str], millstream_broker_session: TestBroker, tmp_path: Path
) -> None:
    topic = SplitTopic(millstream_broker_session.bootstrap_servers, f"typed-{next(_numbers)}", tmp_path)
    fields: list[dict[str, Any]] = [{"name": "id", "type": "int"}]
    texts = [json.dumps({"type": "record", "name": "V", "fields": fields})]
    fields += [{"name": "n", "type": "int", "default": 7}, {"name": "s", "type": "string", "default": "x"}]
    texts.append(json.dumps({"type": "record", "name": "V", "fields": fields}))
    document = merge(None, {0: texts[0]}, topic=topic.name).document
    version = merge(document, {0: texts[1]}, topic=topic.name).version
    topic.send([Record(one) for one in (b'{"id": 1}', b'{"id": 2, "n": 3, "s": "y"}', b'{"n": 1}')])

    done = topic.run(
        topic.job(formats=formats, value=ValueSettings(format="json", framing="none", schema=texts[1])), version
    )

    assert [letter["offset"] for letter in done.dead_letters()] == [2]
    for written in formats:
        assert [row for _, row in done.rows(written)] == [{"id": 1, "n": 7, "s": "x"}, {"id": 2, "n": 3, "s": "y"}]


def test_a_record_that_avro_cannot_hold_is_a_bad_one(millstream_broker_session: TestBroker, tmp_path: Path) -> None:
    topic = SplitTopic(millstream_broker_session.bootstrap_servers, f"typed-{next(_numbers)}", tmp_path)

    def schema(*added: dict[str, Any]) -> str:
        inner = {"type": "record", "name": "In", "fields": [{"name": "x", "type": "int"}, *added]}
        fields = [{"name": "id", "type": "int"}, {"name": "in", "type": inner}]
        return json.dumps({"type": "record", "name": "V", "fields": fields})

    newer = schema({"name": "y", "type": "int", "default": 7})
    version = merge(merge(None, {0: schema()}, topic=topic.name).document, {0: newer}, topic=topic.name).version
    whole = b'{"id": 1, "in": {"x": 1, "y": 2}}'
    texts = (b'{"id": 0, "in": {"x": 1}}', whole, b"{", b'{"id": 2, "in": {"x": 3}}', whole)
    topic.send([Record(one) for one in texts])

    value = ValueSettings(format="json", framing="none", schema=newer)
    done = topic.run(topic.job(formats={"avro", "parquet"}, value=value), version)

    letters = {letter["offset"]: letter["error"] for letter in done.dead_letters()}
    assert sorted(letters) == [0, 2, 3]
    assert "y is null, and the schema has no null there" in letters[0]
    for written in ("avro", "parquet"):
        assert [row for _, row in done.rows(written)] == [{"id": 1, "in": {"x": 1, "y": 2}}] * 2


def test_a_type_that_holds_itself_is_refused_before_anything_is_read() -> None:
    node = {"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}
    job = LoadJob(
        name="events",
        source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("events",)),
        value=ValueSettings(framing="none", format="json", schema=schema_of(node)),
        destination=DestinationSettings(uri="file:///lake"),
    )
    with pytest.raises(ValueError, match=r'f\.next is a N within a N.*value\.format = "raw"'):
        RunSchemas(job, {}, None).prepare("events")
