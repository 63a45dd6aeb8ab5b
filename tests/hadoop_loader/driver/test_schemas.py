"""The schemas of a run: from the job, from the log, from what splits met."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from millstream.hadoop_loader.driver.schemas import RunSchemas
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, SourceSettings, ValueSettings
from millstream.hadoop_loader.splits import UnknownSchema
from millstream.schemas.client import RegistryClient
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


def test_what_a_schema_met_refers_to_is_asked_for() -> None:
    job = LoadJob.loads(
        'name = "events"\n[source]\nbootstrap_servers = "127.0.0.1:9092"\ntopics = "events"\n'
        '[registry]\nurls = "http://127.0.0.1:8081"\n[value]\nformat = "protobuf"\n[destination]\nuri = "file:///lake"\n'
    )
    schemas = RunSchemas(job, {"events": None}, cast("RegistryClient", Registry()))
    schemas.prepare("events")

    refused = schemas.learn([UnknownSchema("events", 7, "what the registry has to say more of")])

    assert refused == {}
    assert schemas.tables["events"].sources[7].references.keys() == {"p.proto"}
