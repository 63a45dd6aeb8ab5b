"""Registering, finding, deleting: as Confluent's registry answers, over HTTP, on a real broker."""

from __future__ import annotations

import json

import pytest
from tests.support.registry import Asker

RECORD = {
    "type": "record",
    "name": "Flight",
    "namespace": "air",
    "fields": [{"name": "carrier", "type": "string"}, {"name": "miles", "type": "long"}],
}
TEXT = json.dumps(RECORD)
WIDER = json.dumps({**RECORD, "fields": [*RECORD["fields"], {"name": "delay", "type": "int", "default": 0}]})
NARROWER = json.dumps({**RECORD, "fields": [{"name": "gate", "type": "string"}]})
PROTO = 'syntax = "proto3"; message Order { string id = 1; }'
JSON_SCHEMA = json.dumps({"type": "object", "properties": {"id": {"type": "string"}}})


def test_a_schema_is_registered_once(schemas: Asker) -> None:
    first = schemas.register("once", TEXT)
    assert first.status == 200
    assert first.content_type == "application/vnd.schemaregistry.v1+json"
    assert {"id", "version", "guid", "schemaType", "schema"} <= first.body.keys()
    assert first.body["version"] == 1
    assert json.loads(first.body["schema"]) == RECORD
    # Other white space is the same schema; under another subject it has the same id.
    assert schemas.register("once", json.dumps(RECORD, indent=4)).body == first.body
    elsewhere = schemas.register("once-more", TEXT).body
    assert (elsewhere["id"], elsewhere["version"], elsewhere["guid"]) == (first.body["id"], 1, first.body["guid"])

    by_id = schemas.get(f"/schemas/ids/{first.body['id']}").body
    assert by_id["schema"] == first.body["schema"]
    assert "subject" not in by_id
    assert schemas.get(f"/schemas/ids/{first.body['id']}/schema").body == RECORD
    assert schemas.get(f"/schemas/ids/{first.body['id']}", subject="once").body["subject"] == "once"
    assert schemas.get(f"/schemas/ids/{first.body['id']}/subjects").body == ["once", "once-more"]
    assert schemas.get(f"/schemas/ids/{first.body['id']}/versions").body == [
        {"subject": "once", "version": 1},
        {"subject": "once-more", "version": 1},
    ]
    assert schemas.get(f"/schemas/guids/{first.body['guid']}").body["schema"] == first.body["schema"]
    assert schemas.get(f"/schemas/guids/{first.body['guid']}/ids").body == [{"context": ".", "id": first.body["id"]}]
    assert schemas.get(f"/schemas/ids/{first.body['id']}", fetchMaxId=True).body["maxId"] >= first.body["id"]


@pytest.mark.parametrize(("kind", "text"), [("AVRO", '"string"'), ("PROTOBUF", PROTO), ("JSON", JSON_SCHEMA)])
def test_every_type_is_registered_and_found(schemas: Asker, kind: str, text: str) -> None:
    subject = f"typed-{kind}"
    registered = schemas.register(subject, text, schemaType=kind)
    assert registered.status == 200, registered
    assert registered.body["schemaType"] == kind
    found = schemas.ask("POST", f"/subjects/{subject}", {"schema": text, "schemaType": kind})
    assert (found.status, found.body["id"], found.body["version"]) == (200, registered.body["id"], 1)
    assert schemas.get(f"/subjects/{subject}/versions/latest").body["schema"] == registered.body["schema"]


def test_versions_are_counted_and_listed(schemas: Asker) -> None:
    assert schemas.register("counted", TEXT).body["version"] == 1
    assert schemas.register("counted", WIDER).body["version"] == 2
    assert schemas.get("/subjects/counted/versions").body == [1, 2]
    assert schemas.get("/subjects/counted/versions", limit=1, offset=1).body == [2]
    for latest in ("latest", "-1", "2"):
        assert schemas.get(f"/subjects/counted/versions/{latest}").body["version"] == 2
    assert schemas.get("/subjects/counted/versions/1/schema").body == RECORD
    listed = schemas.get("/schemas", subjectPrefix="counted").body
    assert [(one["subject"], one["version"]) for one in listed] == [("counted", 1), ("counted", 2)]
    assert [one["version"] for one in schemas.get("/schemas", subjectPrefix="counted", latestOnly=True).body] == [2]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/subjects/nobody/versions", 40401),
        ("GET", "/subjects/nobody/versions/1", 40401),
        ("DELETE", "/subjects/nobody", 40401),
        ("DELETE", "/subjects/nobody/versions/1", 40401),
        ("GET", "/subjects/somebody/versions/9", 40402),
        ("DELETE", "/subjects/somebody/versions/9", 40402),
        ("GET", "/schemas/ids/123456", 40403),
        ("GET", "/schemas/ids/123456/versions", 40403),
        ("GET", "/schemas/guids/00000000-0000-0000-0000-000000000000", 40403),
        ("GET", "/subjects/somebody/versions/0", 42202),
        ("GET", "/subjects/somebody/versions/-2", 42202),
        ("GET", "/subjects/somebody/versions/first", 42202),
        ("GET", "/subjects/somebody/versions/99999999999", 42202),
        ("GET", "/config/nobody", 40408),
        ("GET", "/mode/nobody", 40409),
        ("DELETE", "/config/nobody", 40401),
        ("DELETE", "/mode/nobody", 40401),
        ("GET", "/schemas/ids/one", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/subjects?limit=many", 404),
        ("PUT", "/subjects", 405),
        ("GET", "/subjects/%FF/versions", 400),
    ],
)
def test_what_is_not_there_has_its_code(schemas: Asker, method: str, path: str, code: int) -> None:
    schemas.register("somebody", '"int"')
    answered = schemas.ask(method, path)
    assert (answered.error_code, answered.status) == (code, code if code < 1000 else code // 100), answered
    assert answered.body["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"schema": "{"}, 42201),
        ({"schema": '{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":"x"}]}'}, 42201),
        ({"schema": '{"type":"record"}'}, 42201),
        ({"schema": '"int"', "schemaType": "XML"}, 42201),
        ({"schema": ""}, 42201),
        ({}, 42201),
        ({"schema": "\ud800"}, 42201),
        ({"schema": '"int"', "references": [{"name": "a", "subject": "missing", "version": 1}]}, 42201),
        ({"schema": '"int"', "references": [{"name": "a"}]}, 422),
        ({"schema": 5}, 422),
        ({"schema": '"int"', "id": "x"}, 422),
        ([], 422),
        ({"schema": '"int"', "ruleSet": {"domainRules": [{}]}}, 42210),
        ({"schema": '"int"', "id": 7}, 42205),
        ({"schema": '"int"', "version": 7}, 42201),
    ],
)
def test_what_cannot_be_registered_has_its_code(schemas: Asker, body: object, code: int) -> None:
    answered = schemas.ask("POST", "/subjects/refused/versions", body)
    assert answered.error_code == code, answered
    assert schemas.get("/subjects/refused/versions").error_code == 40401


@pytest.mark.parametrize("subject", ["__GLOBAL", "__EMPTY", "a%0Ab", ":.c:", ":.__GLOBAL:x"])
def test_some_subjects_are_refused(schemas: Asker, subject: str) -> None:
    assert schemas.ask("POST", f"/subjects/{subject}/versions", {"schema": '"int"'}).error_code == 42208


def test_a_subject_may_hold_any_other_character(schemas: Asker) -> None:
    for subject in ("a/b", "a b", "a?b", "ü:x", "a%b", "a+b"):
        assert schemas.register(subject, '"int"').status == 200
        assert subject in schemas.get("/subjects").body


def test_soft_and_hard_deletion_of_a_version(schemas: Asker) -> None:
    schemas.register("going", TEXT)
    kept = schemas.register("going", WIDER).body
    path = "/subjects/going/versions"
    assert schemas.ask("DELETE", path + "/2", permanent=True).error_code == 40407
    assert schemas.ask("DELETE", path + "/2").body == 2
    assert schemas.ask("DELETE", path + "/2").error_code == 40406
    assert schemas.get(path).body == [1]
    assert schemas.get(path, deleted=True).body == [1, 2]
    assert schemas.get(path, deletedOnly=True).body == [2]
    assert schemas.get(path, deletedAsNegative=True).body == [1, -2]
    assert schemas.get(path + "/2").error_code == 40402
    assert schemas.get(path + "/2", deleted=True).body["deleted"] is True
    # By its id it is found all the same: there are records that carry it.
    assert schemas.get(f"/schemas/ids/{kept['id']}").body["schema"] == kept["schema"]
    # Registered again it keeps its id, and gets a new number; the old version gives way.
    again = schemas.register("going", WIDER).body
    assert (again["id"], again["version"]) == (kept["id"], 3)
    assert schemas.get(path, deleted=True).body == [1, 3]
    schemas.ask("DELETE", path + "/latest")
    assert schemas.ask("DELETE", path + "/3", permanent=True).body == 3
    assert schemas.get(path + "/3", deleted=True).error_code == 40402


def test_soft_and_hard_deletion_of_a_subject(schemas: Asker) -> None:
    schemas.register("leaving", '{"type":"fixed","name":"Leaving","size":4}')
    schemas.ask("PUT", "/config/leaving", {"compatibility": "NONE"})
    gone = schemas.register("leaving", '{"type":"fixed","name":"Leaving","size":8}').body
    assert schemas.ask("DELETE", "/subjects/leaving", permanent=True).error_code == 40405
    assert schemas.ask("DELETE", "/subjects/leaving").body == [1, 2]
    assert schemas.ask("DELETE", "/subjects/leaving").error_code == 40404
    assert "leaving" not in schemas.get("/subjects").body
    assert "leaving" in schemas.get("/subjects", deleted=True).body
    assert "leaving" in schemas.get("/subjects", deletedOnly=True).body
    assert schemas.get("/config/leaving").status == 200
    assert schemas.ask("DELETE", "/subjects/leaving", permanent=True).body == [1, 2]
    assert schemas.get("/subjects/leaving/versions", deleted=True).error_code == 40401
    assert schemas.get("/config/leaving").error_code == 40408
    assert schemas.get(f"/schemas/ids/{gone['id']}").error_code == 40403
    # Its id is never another schema's.
    assert schemas.register("arriving", '"double"').body["id"] > gone["id"]


def test_references_are_resolved_and_protect_what_they_refer_to(schemas: Asker) -> None:
    base = json.dumps({"type": "record", "name": "Base", "fields": [{"name": "x", "type": "int"}]})
    schemas.register("base", base)
    text = json.dumps({"type": "record", "name": "Outer", "fields": [{"name": "base", "type": "Base"}]})
    reference = {"name": "Base", "subject": "base", "version": 1}
    outer = schemas.register("outer", text, references=[reference])
    assert outer.status == 200, outer
    assert outer.body["references"] == [reference]
    assert schemas.get("/subjects/base/versions/1/referencedby").body == [outer.body["id"]]
    assert schemas.ask("DELETE", "/subjects/base/versions/1").error_code == 42206
    assert schemas.ask("DELETE", "/subjects/base").error_code == 42206
    schemas.ask("DELETE", "/subjects/outer")
    assert schemas.get("/subjects/base/versions/1/referencedby").body == []
    assert schemas.get("/subjects/base/versions/1/referencedby", deleted=True).body == [outer.body["id"]]
    assert schemas.ask("DELETE", "/subjects/base/versions/1").body == 1
    assert schemas.ask("DELETE", "/subjects/base/versions/1", permanent=True).error_code == 42206
    # A version of -1 is the latest there is.
    latest = {**reference, "version": -1}
    assert schemas.register("base", base).body["version"] == 2
    assert schemas.register("outer-2", text, references=[latest]).body["references"][0]["version"] == 2


def test_compatibility_is_checked_and_explained(schemas: Asker) -> None:
    schemas.register("strict", TEXT)
    refused = schemas.register("strict", NARROWER)
    assert (refused.status, refused.error_code) == (409, 40901)
    assert "gate" in refused.body["message"]
    assert "compatibility: 'BACKWARD'" in refused.body["message"]
    path = "/compatibility/subjects/strict/versions"
    assert schemas.ask("POST", path + "/latest", {"schema": WIDER}).body == {"is_compatible": True}
    verbose = schemas.ask("POST", path + "/1", {"schema": NARROWER}, verbose=True).body
    assert verbose["is_compatible"] is False
    assert any("READER_FIELD_MISSING_DEFAULT_VALUE" in one for one in verbose["messages"])
    assert schemas.ask("POST", path, {"schema": NARROWER}).body == {"is_compatible": False}
    assert schemas.ask("POST", path + "/9", {"schema": TEXT}).error_code == 40402
    assert schemas.ask("POST", path + "/1", {"schema": "{"}).error_code == 42201
    assert schemas.ask("POST", path + "/1", {"schema": "{"}, verbose=True).body["is_compatible"] is False
    assert schemas.ask("POST", "/compatibility/subjects/empty/versions/latest", {"schema": TEXT}).body == {
        "is_compatible": True
    }
    assert schemas.register("strict", NARROWER, FORCE=True).body["version"] == 2


def test_transitive_levels_look_at_every_version(schemas: Asker) -> None:
    def with_field(kind: str) -> str:
        return json.dumps({"type": "record", "name": "R", "fields": [{"name": "x", "type": kind}]})

    schemas.ask("PUT", "/config/deep", {"compatibility": "NONE"})
    schemas.register("deep", with_field("string"))
    schemas.register("deep", with_field("int"))
    check = "/compatibility/subjects/deep/versions"
    schemas.ask("PUT", "/config/deep", {"compatibility": "BACKWARD"})
    assert schemas.ask("POST", check, {"schema": with_field("long")}).body["is_compatible"] is True
    schemas.ask("PUT", "/config/deep", {"compatibility": "BACKWARD_TRANSITIVE"})
    assert schemas.ask("POST", check, {"schema": with_field("long")}).body["is_compatible"] is False


def test_groups_of_compatibility_are_checked_apart(schemas: Asker) -> None:
    assert schemas.ask("PUT", "/config/grouped", {"compatibilityGroup": "major"}).status == 200

    def of(major: str) -> dict[str, object]:
        return {"properties": {"major": major}}

    assert schemas.register("grouped", TEXT, metadata=of("1")).body["version"] == 1
    assert schemas.register("grouped", NARROWER, metadata=of("1")).error_code == 40901
    assert schemas.register("grouped", NARROWER, metadata=of("2")).body["version"] == 2
    assert schemas.register("grouped", WIDER, metadata=of("1")).body["version"] == 3
    found = schemas.get("/subjects/grouped/metadata", key="major", value="1").body
    assert (found["version"], found["metadata"]) == (3, of("1"))
    assert schemas.get("/subjects/grouped/metadata", key="major", value="9").error_code == 40403
    assert schemas.get("/subjects/nobody/metadata", key="major", value="9").error_code == 40401


def test_metadata_is_part_of_a_schema_and_inherited(schemas: Asker) -> None:
    metadata = {"properties": {"owner": "ops"}, "tags": {"air.Flight.miles": ["PII"]}, "sensitive": ["owner"]}
    first = schemas.register("described", TEXT, metadata=metadata).body
    assert first["metadata"] == metadata
    # Sent without, it is the same schema: what is left out is as it was.
    assert schemas.register("described", TEXT).body["version"] == 1
    assert schemas.register("described", WIDER).body["metadata"] == metadata
    assert schemas.register("described", TEXT, metadata={"properties": {"owner": "dev"}}).body["version"] == 3


def test_normalisation_finds_what_says_the_same(schemas: Asker) -> None:
    schemas.register("normal", json.dumps({"type": "record", "name": "R", "namespace": "n", "fields": []}))
    other = json.dumps({"type": "record", "name": "n.R", "fields": []})
    assert schemas.register("normal", other, NORMALIZE=True).status == 200
    assert schemas.ask("PUT", "/config/normal", {"normalize": True}).body == {"normalize": True}
    first = schemas.register("normal", other).body["version"]
    assert schemas.register("normal", other).body["version"] == first


def test_an_alias_stands_for_another_subject(schemas: Asker) -> None:
    schemas.register("real", TEXT)
    assert schemas.ask("PUT", "/config/nickname", {"alias": "real"}).body == {"alias": "real"}
    assert schemas.get("/subjects/nickname/versions/latest").body["subject"] == "real"
    assert schemas.register("nickname", WIDER).body["version"] == 2
    assert schemas.get("/subjects/real/versions").body == [1, 2]
    listed = schemas.get("/schemas", subjectPrefix="nickname", aliases=True).body
    assert {one["subject"] for one in listed} == {"real"}
    assert listed[0]["aliases"] == ["nickname"]


def test_lookup_tells_a_missing_subject_from_a_missing_schema(schemas: Asker) -> None:
    schemas.register("looked-at", TEXT)
    path = "/subjects/looked-at"
    assert schemas.ask("POST", path, {"schema": TEXT}).body["version"] == 1
    assert schemas.ask("POST", path, {"schema": '"int"'}).error_code == 40403
    assert schemas.ask("POST", "/subjects/nobody", {"schema": TEXT}).error_code == 40401
    schemas.ask("DELETE", path)
    assert schemas.ask("POST", path, {"schema": TEXT}).error_code == 40401
    assert schemas.ask("POST", path, {"schema": TEXT}, deleted=True).body["deleted"] is True
