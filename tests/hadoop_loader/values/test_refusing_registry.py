"""Whose fault it is that a value's schema is not to be had: the record's, which is buried, or nobody's."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.fake_registry import Answer, FakeRegistry, Request
from tests.support.inline_engine import InlineEngine
from tests.support.loads import SCHEMA_1, Events, assert_same, job_for, local_rows
from tests.support.split_runs import Record, SplitTopic

from millstream.hadoop_loader.driver import run_load
from millstream.hadoop_loader.driver.report import LoadReport, Outcome
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.filesystem import open_filesystem
from millstream.hadoop_loader.job import BadRecords, LoadJob, ValueSettings
from millstream.hadoop_loader.running import TopicUnreadableError
from millstream.hadoop_loader.tables import TableVersion, merge
from millstream.schemas.client import RegistryClient
from millstream.schemas.parsing import SchemaType, parse
from millstream.testing import TestBroker

_numbers = itertools.count()
UNKNOWN_ID = 900
REFUSALS = {
    "a password that was changed": Answer(401, {"error_code": 401, "message": "Unauthorized"}),
    "a user without the right": Answer(403, {"error_code": 40301, "message": "User is denied operation Read"}),
    "a proxy that knows no such path": Answer(404, b"<html>nginx: 404 Not Found</html>"),
}
FAULTS = {
    "no such schema": Answer(404, {"error_code": 40403, "message": "Schema 900 not found"}),
    "one that refers to what is gone": Answer(404, {"error_code": 40402, "message": "Version 1 not found."}),
    "one that is none": Answer(422, {"error_code": 42201, "message": "Invalid schema"}),
}
JSON_TEXT = '{"type": "object", "properties": {"id": {"type": "integer"}}}'
PROTOBUF_TEXT = 'syntax = "proto3"; message Event { int64 id = 1; }'
TEXTS = {"avro": SCHEMA_1, "json": JSON_TEXT, "protobuf": PROTOBUF_TEXT}


@pytest.fixture
def new_topic(millstream_broker_session: TestBroker, tmp_path: Path) -> Callable[[], SplitTopic]:
    return lambda: SplitTopic(millstream_broker_session.bootstrap_servers, f"refusing-{next(_numbers)}", tmp_path)


def version_of(name: str, format_: str) -> TableVersion:
    return merge(None, {1: parse(SchemaType(format_.upper()), TEXTS[format_])}, topic=name).version


def framed(content: bytes, schema_id: int = UNKNOWN_ID) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + content


def answering(answer: Answer) -> Callable[[Request], Answer | None]:
    return lambda request: answer if request.path == f"/schemas/ids/{UNKNOWN_ID}" else None


@pytest.mark.parametrize("format_", TEXTS)
@pytest.mark.parametrize("case", REFUSALS)
def test_a_registry_that_refuses_buries_nothing(case: str, format_: str, new_topic: Callable[[], SplitTopic]) -> None:
    topic = new_topic()
    topic.send([Record(framed(b"\0"))])
    job = topic.job(value=ValueSettings(format=format_))

    with FakeRegistry() as registry, RegistryClient(registry.url) as client:
        registry.script = answering(REFUSALS[case])
        with pytest.raises(
            TopicUnreadableError, match=f"does not say what schema {UNKNOWN_ID} is: .*HTTP 40"
        ) as raised:
            topic.run(job, version_of(topic.name, format_), registry=client)

    assert raised.value.topic == topic.name


@pytest.mark.parametrize("format_", TEXTS)
@pytest.mark.parametrize("case", FAULTS)
def test_what_a_registry_says_of_an_id_is_the_record_s(
    case: str, format_: str, new_topic: Callable[[], SplitTopic]
) -> None:
    topic = new_topic()
    topic.send([Record(framed(b"\0"))])

    with FakeRegistry() as registry, RegistryClient(registry.url) as client:
        registry.script = answering(FAULTS[case])
        job = topic.job(value=ValueSettings(format=format_))
        done = topic.run(job, version_of(topic.name, format_), registry=client)

    (letter,) = done.dead_letters()
    assert f"schema {UNKNOWN_ID} cannot be used: " in letter["error"]
    assert FAULTS[case].body["message"] in letter["error"]


def test_keys_are_the_record_s_fault_by_the_same_rule(new_topic: Callable[[], SplitTopic]) -> None:
    topic = new_topic()
    topic.send([Record(b"value", key=framed(b"\0"))])
    job = topic.job(value=ValueSettings(format="raw"), key=ValueSettings(format="avro", schema='"long"'))
    table = TableVersion(topic.name, topic.name)

    with FakeRegistry() as registry, RegistryClient(registry.url) as client:
        registry.script = answering(REFUSALS["a password that was changed"])
        with pytest.raises(TopicUnreadableError, match="does not say what schema 900 is"):
            topic.run(job, table, registry=client)
        registry.script = answering(FAULTS["no such schema"])
        done = topic.run(job, table, registry=client)

    assert [letter["error"] for letter in done.dead_letters()] == [
        "its key: schema 900 cannot be used: Schema 900 not found (40403 SCHEMA_NOT_FOUND)"
    ]


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("format_", TEXTS)
def test_a_schema_of_another_type_is_a_bad_record(
    format_: str, is_first: bool, new_topic: Callable[[], SplitTopic]
) -> None:
    topic = new_topic()
    topic.send([Record(framed(b"\0", 1))])
    other = "json" if format_ != "json" else "avro"
    table = TableVersion(topic.name, topic.name) if is_first else version_of(topic.name, format_)
    if not is_first:
        table = merge(None, {7: parse(SchemaType(format_.upper()), TEXTS[format_])}, topic=topic.name).version

    with FakeRegistry() as registry, RegistryClient(registry.url) as client:
        assert client.register("others-value", parse(SchemaType(other.upper()), TEXTS[other])) == 1
        done = topic.run(topic.job(value=ValueSettings(format=format_)), table, registry=client)

    said = {"avro": "Avro", "json": "JSON Schema", "protobuf": "Protobuf"}
    assert [letter["error"] for letter in done.dead_letters()] == [
        f"schema 1 cannot be used: it is one of {said[other]}, and the job reads {said[format_]}"
    ]


def loaded(events: list[Events], root: Path, **changes: object) -> LoadReport:
    """Run a job in this process, as one split of all its topics."""
    job = job_for(events, root, split_bytes=2**28, **changes)

    def engine(job: LoadJob) -> InlineEngine:
        return InlineEngine(job, open_filesystem(job.destination.uri, job.destination.filesystem))

    return run_load(job, surroundings=Surroundings(open_engine=engine))


def test_a_topic_that_cannot_be_read_takes_no_other_with_it(
    millstream_broker_session: TestBroker, tmp_path: Path
) -> None:
    with FakeRegistry() as registry:
        refused, other = (
            Events(millstream_broker_session.bootstrap_servers, registry.url, f"refused-{next(_numbers)}", partitions=1)
            for _ in range(2)
        )
        for events in (refused, other):
            events.send(10)
        refused.send_raw(framed(b"\0"))
        registry.script = answering(REFUSALS["a user without the right"])

        report = loaded([refused, other], tmp_path)

        assert report.outcome is Outcome.PARTIAL
        assert_same(other, tmp_path, "avro", "parquet")
        assert sum(local_rows(tmp_path, refused.topic, "avro")["avro"].values()) == 0
        assert not list(tmp_path.rglob("_dead_letters/*/*"))
        (reason,) = [one.reason for one in report.topics if one.topic == refused.topic]
        assert "the registry does not say what schema 900 is: User is denied operation Read" in str(reason)

        registry.script = answering(FAULTS["no such schema"])
        assert loaded([refused, other], tmp_path).outcome is Outcome.LOADED
        assert sum(local_rows(tmp_path, refused.topic, "avro")["avro"].values()) == 10


def test_values_of_many_made_up_ids_are_bad_one_by_one(millstream_broker_session: TestBroker, tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        events = Events(
            millstream_broker_session.bootstrap_servers, registry.url, f"made-up-{next(_numbers)}", partitions=1
        )
        events.send(5)
        events.send_raw(*(framed(b"\0", UNKNOWN_ID + number) for number in range(100)))
        events.send(5)

        report = loaded([events], tmp_path, bad_records=BadRecords(max_bad_records=1_000))

        assert (report.outcome, report.rows, report.audit["bad"]) == (Outcome.LOADED, 10, 100), report.errors
        for rows in local_rows(tmp_path, events.topic, "avro", "parquet").values():
            assert sorted(row[2] for row in rows.elements()) == [*range(10)]


@pytest.mark.parametrize("format_", ["avro", "protobuf"])
def test_keys_and_messages_of_many_made_up_ids(format_: str, new_topic: Callable[[], SplitTopic]) -> None:
    topic = new_topic()
    topic.send([Record(framed(b"\0\2", UNKNOWN_ID + number), key=framed(b"\0", number + 1)) for number in range(100)])
    key = ValueSettings(format="avro", schema='"long"')
    value = ValueSettings(format="raw") if format_ == "avro" else ValueSettings(format="protobuf")
    table = version_of(topic.name, format_) if format_ == "protobuf" else TableVersion(topic.name, topic.name)

    with FakeRegistry() as registry, RegistryClient(registry.url) as client:
        client.register("x-key", json.dumps("long"))
        done = topic.run(topic.job(value=value, key=key), table, registry=client)

    letters = {letter["offset"]: letter["error"] for letter in done.dead_letters()}
    expected = range(1, 100) if format_ == "avro" else range(100)
    assert sorted(letters) == [*expected]
    assert all(f"schema {offset + 1} " in letters[offset] for offset in expected if format_ == "avro")
