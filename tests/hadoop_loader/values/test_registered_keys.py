"""Keys of Avro whose schemas only the registry has: a column that follows them, in both formats, each topic its own."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from tests.support.fake_registry import FakeRegistry
from tests.support.split_runs import Outcome, Record, SplitTopic

from millstream.hadoop_loader.driver.schemas import RunSchemas
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, RegistrySettings, SourceSettings, ValueSettings
from millstream.hadoop_loader.splits import UnknownSchema
from millstream.hadoop_loader.tables import ChangeKind, SchemaChangedError, merge, table_version
from millstream.hadoop_loader.tables import keys as tables_keys
from millstream.hadoop_loader.values.file_schema import file_schema
from millstream.schemas.client import RegistryClient
from millstream.schemas.serdes import AvroSerializer
from millstream.testing import TestBroker

_numbers = itertools.count()

USER_1 = '{"type": "record", "name": "User", "fields": [{"name": "id", "type": "long"}]}'
USER_2 = """{"type": "record", "name": "User", "fields": [
    {"name": "id", "type": "long"},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["PERSON", "ROBOT"]}, "default": "PERSON"}]}"""
KEY = ValueSettings(format="avro")


@pytest.fixture
def topic(millstream_broker_session: TestBroker, tmp_path: Path) -> SplitTopic:
    return SplitTopic(millstream_broker_session.bootstrap_servers, f"registered-{next(_numbers)}", tmp_path)


class Loads:
    """Loads of one topic as a driver makes them: a split over what is new, until its tables have their schemas."""

    def __init__(self, topic: SplitTopic, registry: RegistryClient, **job: Any) -> None:
        self.job = topic.job(value=ValueSettings(format="raw"), key=KEY, **job)
        self.documents: dict[str, Any] = {}
        self.announcements: list[str] = []
        self._topic = topic
        self._registry = registry
        self._next_offset = 0

    def run(self, *keys: bytes | None) -> Outcome:
        """Send a record of each key, and load them."""
        self._topic.send([Record(b"v", key=key) for key in keys])
        schemas = RunSchemas(self.job, self.documents, self._registry)
        schemas.prepare(self._topic.name)
        (whole,) = self._topic.ranges()
        for _ in range(5):
            table = schemas.tables[self._topic.name]
            wanted = [replace(whole, start_offset=self._next_offset)]
            done = self._topic.run(self.job, table, wanted, registry=self._registry)
            if not done.result.unknown_schemas:
                break
            assert schemas.learn(done.result.unknown_schemas) == {}
        assert not done.result.unknown_schemas
        self.documents |= schemas.changed
        self.announcements += schemas.announcements
        self._next_offset = whole.end_offset
        return done


def keys_of(done: Outcome) -> list[Any]:
    """The keys of the rows, which both formats have alike."""
    avro, parquet = ([row.get("key") for _, row in done.rows(name)] for name in ("avro", "parquet"))
    assert avro == parquet
    return avro


def test_the_column_follows_the_schemas_of_keys(topic: SplitTopic) -> None:
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        loads = Loads(topic, registry)
        old, new = (AvroSerializer(registry, schema, field="key") for schema in (USER_1, USER_2))
        first = loads.run(old({"id": 1}, topic=topic.name), None)
        robot = new({"id": 2, "kind": "ROBOT"}, topic=topic.name)
        second = loads.run(robot, old({"id": 3}, topic=topic.name))
        # What was met is in the log, and nobody asks for it again.
        asked = len(fake.requests)
        with RegistryClient(fake.url) as another:
            loads._registry = another
            assert keys_of(loads.run(robot)) == [{"id": 2, "kind": "ROBOT"}]
        assert len(fake.requests) == asked

    assert keys_of(first) == [{"id": 1}, None]
    assert keys_of(second) == [{"id": 2, "kind": "ROBOT"}, {"id": 3, "kind": "PERSON"}]
    assert loads.announcements == [f"{topic.name}: key.kind is new, Kind"]
    versions = {file.schema_version for done in (first, second) for file in done.files("parquet")}
    assert len(versions) == 2, "files of unlike columns are told apart"
    table = table_version(loads.documents[topic.name], topic.name)
    paths = [str(topic.root / file.path) for done in (first, second) for file in done.files("parquet")]
    columns = file_schema(loads.job, table).parquet
    assert columns.field("key").type == pa.struct([("id", pa.int64()), ("kind", pa.string())])
    read = ds.dataset(paths, schema=columns).to_table().column("key").to_pylist()
    assert [None if key is None else (key["id"], key["kind"]) for key in read] == [
        (1, None),
        None,
        (2, "ROBOT"),
        (3, "PERSON"),
    ]


def test_keys_that_the_column_cannot_follow_are_bad_and_told(topic: SplitTopic) -> None:
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        loads = Loads(topic, registry)
        keys: dict[str, bytes | None] = {
            schema: AvroSerializer(registry, json.dumps(schema), field="key")(value, topic=topic.name)
            for schema, value in (("int", 1), ("long", 2), ("string", "x"))
        }
        done = loads.run(keys["int"], keys["long"], keys["string"], b"\0\0\0\0\x63\2", b"none")
        again = loads.run(keys["string"], keys["int"])

    assert keys_of(done) == [1]
    unlike = "key: string is not read as int, nor the other way"
    assert [letter["error"] for letter in done.dead_letters()] == [
        "its key: schema 2 cannot be used: the column of keys cannot follow: key is long instead of int",
        f"its key: schema 3 cannot be used: the column of keys cannot follow: {unlike}",
        "its key: schema 99 cannot be used: Schema not found (40403 SCHEMA_NOT_FOUND)",
        "its key: the value does not begin with a zero byte and a schema id (byte 0 of the value)",
    ]
    assert keys_of(again) == [1]
    assert len(again.dead_letters()) == 1
    assert [sentence.split(",")[0] for sentence in loads.announcements] == [
        f"{topic.name}: records with keys of schema 2 are bad",
        f"{topic.name}: records with keys of schema 3 are bad",
    ]


def test_the_column_begins_with_a_schema_that_records_have(topic: SplitTopic) -> None:
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        loads = Loads(topic, registry)
        wide = AvroSerializer(registry, '"long"', field="key")(2**40, topic=topic.name)
        narrow = AvroSerializer(registry, '"int"', field="key")(7, topic=topic.name)
        first, second = loads.run(wide), loads.run(narrow)

    assert (keys_of(first), keys_of(second)) == ([2**40], [7])
    assert loads.announcements == []


def test_keys_of_too_many_schemas_are_bad_and_not_kept(topic: SplitTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_keys, "SCHEMAS_MAX", 2)
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        loads = Loads(topic, registry)
        sent = [
            AvroSerializer(registry, json.dumps(schema), field="key")(value, topic=topic.name)
            for schema, value in (("long", 1), ("string", "x"), ("int", 2))
        ]
        done = loads.run(*sent)

    assert keys_of(done) == [1]
    key = loads.documents[topic.name]["key"]
    assert (list(key["writers"]), list(key["refused"])) == (["1"], ["2"])
    assert [letter["error"].partition(": ")[2] for letter in done.dead_letters()] == [
        "schema 2 cannot be used: the column of keys cannot follow: key: string is not read as long, nor the other way",
        "schema 3 cannot be used: the topic's keys are of 2 other schemas already",
    ]


def test_a_schema_that_is_none_under_the_column_is_refused_alone() -> None:
    merged = merge(None, {}, topic="t", keys={1: USER_1.replace("User", "KafkaKeyHolder"), 2: USER_1})

    assert list(merged.version.key.writers) == [2]
    assert "KafkaKeyHolder" in merged.version.key.refused[1].reason


def test_a_refused_schema_is_tried_again_once_the_column_has_changed() -> None:
    def key(**fields: list[str]) -> str:
        said = [{"name": name, "type": "int", "aliases": aliases} for name, aliases in fields.items()]
        return json.dumps({"type": "record", "name": "Key", "fields": said})

    begun = merge(None, {}, topic="t", keys={1: key(a=[]), 2: key(b=["a"])})
    later = merge(json.loads(json.dumps(begun.document)), {}, topic="t", keys={3: key(a=[], b=[])})

    assert (list(begun.version.key.writers), list(begun.version.key.refused)) == ([1], [2])
    assert (sorted(later.version.key.writers), later.version.key.refused) == ([1, 2, 3], {})
    assert [change.kind for change in begun.changes] == [ChangeKind.KEY_REFUSED]
    assert ChangeKind.KEY_REFUSED not in [change.kind for change in later.changes]


def test_a_column_that_began_wrong_is_left_for_one_of_another_name(topic: SplitTopic) -> None:
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        loads = Loads(topic, registry)
        number, text = (
            AvroSerializer(registry, json.dumps(schema), field="key")(value, topic=topic.name)
            for schema, value in (("int", 1), ("string", "x"))
        )
        before = loads.run(number, text)
        loads.job = replace(loads.job, key=replace(KEY, schema='"string"', column="name"))
        after = loads.run(text)

    assert len(before.dead_letters()) == 1
    assert [row for _, row in after.rows("avro")] == [{"name": "x", "value": b"v"}]
    paths = [str(topic.root / file.path) for done in (before, after) for file in done.files("parquet")]
    columns = pa.unify_schemas([ds.dataset(path).schema for path in paths])
    rows = ds.dataset(paths, schema=columns).to_table(columns=["key", "name"]).to_pylist()
    assert rows == [{"key": 1, "name": None}, {"key": None, "name": "x"}]


def test_without_a_key_there_is_no_column(topic: SplitTopic) -> None:
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        loads = Loads(topic, registry)
        done = loads.run(None, None)

    assert [list(row) for name in ("avro", "parquet") for _, row in done.rows(name)] == [["value"]] * 4
    assert "key" not in loads.documents.get(topic.name, {})


def test_each_topic_has_keys_of_its_own() -> None:
    with FakeRegistry() as fake, RegistryClient(fake.url) as registry:
        job = LoadJob(
            name="all",
            source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics_pattern=".*"),
            registry=RegistrySettings(urls=(fake.url,)),
            value=ValueSettings(format="raw"),
            key=KEY,
            destination=DestinationSettings(uri="file:///lake"),
        )
        schemas = RunSchemas(job, {}, registry)
        for number, (name, schema) in enumerate({"users": USER_1, "names": '"string"'}.items()):
            schemas.prepare(name)
            schemas.learn([UnknownSchema(name, number, schema, "key")])

    types = {name: file_schema(job, table).parquet.field("key").type for name, table in schemas.tables.items()}
    assert types == {"users": pa.struct([("id", pa.int64())]), "names": pa.string()}


def test_a_policy_that_lets_nothing_change_holds_for_keys() -> None:
    raw = merge(None, {}, "fail", topic="t", keys={1: USER_1}).document
    with pytest.raises(SchemaChangedError, match=r"schema 2 needs .* key\.kind is new"):
        merge(raw, {}, "fail", topic="t", keys={2: USER_2})

    begun = merge(None, {}, "fail", topic="t", keys={1: USER_1}).document
    assert merge(begun, {}, "fail", topic="t", keys={1: USER_1}).document is begun
    known = merge(begun, {7: '{"type": "record", "name": "V", "fields": []}'}, topic="t").document
    assert known["key"] == begun["key"]

    with pytest.raises(SchemaChangedError, match=r"schema 2 needs .* key\.kind is new"):
        merge(known, {}, "fail", topic="t", keys={2: USER_2})
