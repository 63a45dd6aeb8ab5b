"""The schemas of a run: from the job, from the log, from what splits met."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest

from millstream.hadoop_loader.driver.schemas import RunSchemas
from millstream.hadoop_loader.job import (
    DestinationSettings,
    LoadJob,
    Partitioning,
    RegistrySettings,
    SourceSettings,
    ValueSettings,
)
from millstream.hadoop_loader.splits import UnknownSchema
from millstream.hadoop_loader.tables import merge
from millstream.schemas.client import RegisteredSchema, RegistryClient, RegistryError
from millstream.schemas.parsing import Reference, SchemaType, parse

AVRO = {"type": "record", "name": "V", "fields": [{"name": "id", "type": "long"}]}


def job_of(**value: Any) -> LoadJob:
    return LoadJob(
        name="events",
        source=SourceSettings(bootstrap_servers="127.0.0.1:9092", topics=("events",)),
        value=ValueSettings(framing="none", **value),
        destination=DestinationSettings(uri="file:///lake"),
    )


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"format": "avro", "schema": json.dumps(AVRO)}, ["id"]),
        ({"format": "json", "schema": json.dumps(AVRO)}, ["id"]),
        ({"format": "json"}, None),
        (
            {
                "format": "protobuf",
                "schema": 'syntax = "proto3"; message A { int32 a = 1; } message B { int32 b = 1; }',
                "message": "B",
            },
            ["b"],
        ),
    ],
)
def test_values_that_name_no_schema_have_the_job_s(value: dict[str, Any], names: list[str] | None) -> None:
    schemas = RunSchemas(job_of(**value), {}, None)

    schemas.prepare("events")

    columns = schemas.tables["events"].arrow_schema()
    assert (None if columns is None else columns.names) == names


def test_a_job_s_schema_may_change() -> None:
    first = RunSchemas(job_of(format="json", schema=json.dumps(AVRO)), {}, None)
    first.prepare("events")
    later = {**AVRO, "fields": [*cast("list[Any]", AVRO["fields"]), {"name": "more", "type": "string", "default": ""}]}

    second = RunSchemas(job_of(format="json", schema=json.dumps(later)), first.changed, None)
    second.prepare("events")

    columns = second.tables["events"].arrow_schema()
    assert columns is not None
    assert columns.names == ["id", "more"]
    assert second.announcements == ["events: more is new, string"]


def test_fields_that_directories_hide_are_told_as_the_table_changes() -> None:
    with_day = {**AVRO, "fields": [{"name": "id", "type": "long"}, {"name": "Day", "type": "int"}]}
    job = job_of(format="avro", schema=json.dumps(with_day))
    daily = replace(job, partitioning=Partitioning(kind="time", pattern="daily"))
    told = (
        "table events: readers show the directories' Day in place of the field's;"
        " partitioning.pattern may give directories other names"
    )

    first = RunSchemas(daily, {}, None)
    first.prepare("events")
    again = RunSchemas(daily, first.changed, None)
    again.prepare("events")
    otherwise = RunSchemas(replace(job, partitioning=Partitioning(kind="time", pattern="dt=%Y-%m-%d")), {}, None)
    otherwise.prepare("events")

    assert first.announcements == ["table events is new", told]
    assert again.announcements == []
    assert otherwise.announcements == ["table events is new"]


WITH_KEY = json.dumps({**AVRO, "fields": [{"name": "id", "type": "long"}, {"name": "Key", "type": "string"}]})


@pytest.mark.parametrize(
    ("value", "changes", "refusal"),
    [
        (
            {"format": "avro", "schema": WITH_KEY},
            {"key": ValueSettings(format="raw")},
            "table events: its values have a field 'Key', and the key's column is 'key' too; set key.column",
        ),
        (
            {"format": "json"},
            {"key": ValueSettings(format="raw", column="value")},
            "table events: its values have a field 'value', and the key's column is 'value' too; set key.column",
        ),
        (
            {"format": "avro", "schema": WITH_KEY.replace("Key", "_kafka_offset")},
            {"metadata_columns": ("offset",)},
            "table events: its values have a field '_kafka_offset', as metadata_columns has; leave 'offset' out of it",
        ),
    ],
)
def test_no_two_columns_have_one_name(value: dict[str, Any], changes: dict[str, Any], refusal: str) -> None:
    schemas = RunSchemas(replace(job_of(**value), **changes), {}, None)

    with pytest.raises(ValueError, match="table events") as refused:
        schemas.prepare("events")

    assert str(refused.value) == refusal
    assert (schemas.tables, schemas.changed) == ({}, {})


def test_a_key_column_of_another_name_is_beside_the_field() -> None:
    job = replace(job_of(format="avro", schema=WITH_KEY), key=ValueSettings(format="raw", column="k"))
    schemas = RunSchemas(job, {}, None)

    schemas.prepare("events")

    assert schemas.tables["events"].avro_schema is not None


def test_a_schema_met_that_brings_a_column_s_name_is_refused() -> None:
    job = replace(
        job_of(format="json"),
        registry=RegistrySettings(urls=("http://127.0.0.1:9",)),
        value=ValueSettings(format="avro"),
        key=ValueSettings(format="json", framing="none"),
    )
    schemas = RunSchemas(job, {}, None)
    schemas.prepare("events")
    assert schemas.learn([UnknownSchema("events", 1, json.dumps(AVRO))]) == {}

    refused = schemas.learn([UnknownSchema("events", 2, WITH_KEY.replace('"string"', '"string", "default": ""'))])

    assert "have a field 'Key'" in refused["events"]
    assert list(schemas.tables["events"].writers) == [1]


@pytest.mark.parametrize(
    ("partitioning", "said"),
    [
        ({"kind": "fields", "fields": ("idd",)}, 'has "idd": the values have no such field; did you mean id?'),
        ({"kind": "fields", "fields": ("user.id",)}, 'has "user.id": the values have no such field'),
        ({"timestamp": "Key"}, None),
        ({"timestamp": "nothing"}, 'partitioning.timestamp = "nothing": the values have no such field'),
        ({"kind": "fields", "fields": ("k",)}, None),
    ],
)
def test_a_field_that_no_table_has_gives_its_topic_up(partitioning: dict[str, Any], said: str | None) -> None:
    job = replace(
        job_of(format="avro", schema=WITH_KEY),
        key=ValueSettings(format="raw", column="k"),
        partitioning=Partitioning(**partitioning),
    )
    schemas = RunSchemas(job, {}, None)
    if said is None:
        schemas.prepare("events")
        return

    with pytest.raises(ValueError, match="table events: ") as refused:
        schemas.prepare("events")

    assert said in str(refused.value)
    assert (schemas.tables, schemas.changed) == ({}, {})


def test_a_schema_met_without_the_field_is_refused_where_no_table_has_it() -> None:
    job = replace(
        job_of(format="json"),
        registry=RegistrySettings(urls=("http://127.0.0.1:9",)),
        value=ValueSettings(format="avro"),
        partitioning=Partitioning(kind="fields", fields=("kee",)),
    )
    schemas = RunSchemas(job, {}, None)
    schemas.prepare("events")
    assert "did you mean Key?" in schemas.learn([UnknownSchema("events", 1, WITH_KEY)])["events"]

    has_it = WITH_KEY.replace('"V"', '"W"').replace("Key", "kee")
    assert schemas.learn([UnknownSchema("events", 2, has_it)]) == {}
    assert schemas.learn([UnknownSchema("events", 1, WITH_KEY)]) == {}, "one of the topic's tables has it"


class Registry:
    """Knows one schema, with what it refers to."""

    def schema(self, schema_id: int) -> Any:
        assert schema_id == 7, schema_id
        return parse(
            SchemaType.PROTOBUF,
            'syntax = "proto3"; import "p.proto"; message A { p.Point at = 1; }',
            [Reference("p.proto", "p", 1)],
            {"p.proto": 'syntax = "proto3"; package p; message Point { double x = 1; }'},
        )

    def latest(self, subject: str) -> Any:
        raise RegistryError(40401, 404, f"{subject}: not found")


def test_what_a_schema_met_refers_to_is_asked_for() -> None:
    job = LoadJob.loads(
        'name = "events"\n[source]\nbootstrap_servers = "127.0.0.1:9092"\ntopics = "events"\n'
        '[registry]\nurls = "http://127.0.0.1:8081"\n[value]\nformat = "protobuf"\n[destination]\nuri = "file:///lake"\n'
    )
    begun = merge(None, {}, topic="events").document
    schemas = RunSchemas(job, {"events": begun}, cast("RegistryClient", Registry()))
    schemas.prepare("events")

    refused = schemas.learn([UnknownSchema("events", 7, "what the registry has to say more of")])

    assert refused == {}
    assert schemas.tables["events"].sources[7].references.keys() == {"p.proto"}


class Latest:
    """Has a latest schema of each subject."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.asked: list[str] = []

    def latest(self, subject: str) -> RegisteredSchema:
        self.asked.append(subject)
        return RegisteredSchema(subject, 1, 3, None, parse(SchemaType.AVRO, json.dumps(self.schema)))


def test_a_table_begins_with_the_latest_schema_also_where_its_topic_is_loaded_anew() -> None:
    """Else a record of long ago would decide the columns, and a mended schema might be of a second table."""
    job = replace(
        job_of(format="json"),
        registry=RegistrySettings(urls=("http://127.0.0.1:9",)),
        value=ValueSettings(format="avro"),
    )
    anew = merge(None, {}, topic="events", name="events_2").document
    registry = Latest(AVRO)

    for documents, name in (({}, "events"), ({"events": anew}, "events_2")):
        first = RunSchemas(job, documents, cast("RegistryClient", registry))
        first.prepare("events")
        second = RunSchemas(job, first.changed, cast("RegistryClient", registry))
        second.prepare("events")

        for schemas in (first, second):
            table = schemas.tables["events"]
            assert (table.name, list(table.writers)) == (name, [3])
        assert registry.asked.pop() == "events-value"
        assert registry.asked == []  # one that has begun is not asked for again
