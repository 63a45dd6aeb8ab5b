"""Our client, confluent-kafka's whole client, and many of both at once, on the real registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient, ServerConfig
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.schema_registry_client import (
    ConfigCompatibilityLevel,
    Metadata,
    MetadataProperties,
)

from millstream.schemas import (
    Level,
    Mode,
    Reference,
    RegistryClient,
    RegistryError,
    RegistryErrorCode,
    SchemaText,
    SchemaType,
    parse,
)

NewName = Callable[[], str]
Refused = Callable[..., int]

STRING = '"string"'


def record(*fields: str, name: str = "R") -> str:
    listed = [{"name": field, "type": "string"} for field in fields]
    return json.dumps({"type": "record", "name": name, "fields": listed})


@pytest.fixture
def theirs(registry_url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": registry_url, "max.retries": 1, "timeout": 60}) as client:
        yield client


def code_of(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> int:
    """The code that a call is refused with, by either client."""
    with pytest.raises((RegistryError, SchemaRegistryError)) as caught:
        call(*arguments, **keywords)
    error = caught.value
    if isinstance(error, SchemaRegistryError):
        return int(error.error_code)
    assert isinstance(error, RegistryError)
    return error.code


def test_a_schema_from_registering_to_its_end(real_registry: RegistryClient, new_name: NewName) -> None:
    ours, subject = real_registry, new_name()
    first = ours.register(subject, record("a"))
    assert ours.register(f"{subject}-too", record("a")) == first
    assert ours.set_config(subject, compatibility_level="NONE").compatibility_level is Level.NONE
    second = ours.register(subject, record("b"))
    assert second > first
    found = ours.version(subject, 2)
    assert (found.subject, found.version, found.id, found.schema.name) == (subject, 2, second, "R")
    assert ours.latest(subject) == found
    assert ours.lookup(subject, record("b")) == found
    assert ours.schema_by_guid(found.guid or "") == ours.schema(second)
    assert ours.versions(subject) == [1, 2]
    assert {one.subject for one in ours.versions_of(first)} == {subject, f"{subject}-too"}
    assert set(ours.subjects(subject)) == {subject, f"{subject}-too"}

    assert code_of(ours.delete_version, subject, 1, permanent=True) == RegistryErrorCode.VERSION_NOT_SOFT_DELETED
    assert ours.delete_version(subject, 1) == 1
    assert code_of(ours.delete_version, subject, 1) == RegistryErrorCode.VERSION_SOFT_DELETED
    assert ours.versions(subject) == [2]
    assert ours.versions(subject, deleted=True) == [1, 2]
    assert code_of(ours.version, subject, 1) == RegistryErrorCode.VERSION_NOT_FOUND
    assert ours.version(subject, 1, deleted=True).id == first
    assert code_of(ours.delete_subject, subject, permanent=True) == RegistryErrorCode.SUBJECT_NOT_SOFT_DELETED
    assert ours.delete_subject(subject) == [2]
    assert code_of(ours.delete_subject, subject) == RegistryErrorCode.SUBJECT_SOFT_DELETED
    assert subject not in ours.subjects(subject)
    assert subject in ours.subjects(subject, deleted=True)
    # What records were written with can be read as long as it is not deleted for good.
    ours.forget()
    assert ours.schema(second).name == "R"
    assert sorted(ours.delete_subject(subject, permanent=True)) == [1, 2]
    assert code_of(ours.versions, subject) == RegistryErrorCode.SUBJECT_NOT_FOUND
    ours.forget()
    assert code_of(ours.schema, second) == RegistryErrorCode.SCHEMA_NOT_FOUND
    assert ours.schema(first).name == "R"


def test_their_client_knows_the_same(
    real_registry: RegistryClient, theirs: SchemaRegistryClient, new_name: NewName
) -> None:
    subject = new_name()
    name = subject.replace("-", "_")
    schema = Schema(record("a", name=name))
    schema_id = theirs.register_schema(subject, schema)
    registered = theirs.lookup_schema(subject, schema)
    ours = real_registry.lookup(subject, record("a", name=name))
    assert (registered.schema_id, registered.version, registered.guid) == (ours.id, ours.version, ours.guid)
    assert (
        theirs.get_schema(schema_id).schema_str
        == theirs.get_schema_by_guid(str(ours.guid)).schema_str
        == ours.schema.text
    )
    assert theirs.get_subjects_by_schema_id(schema_id) == [subject]
    assert [one.subject for one in theirs.get_schema_versions(schema_id)] == [subject]
    assert set(theirs.get_schema_types()) == {"AVRO", "JSON", "PROTOBUF"}
    assert theirs.get_subjects(subject_prefix=subject) == [subject]
    assert theirs.get_versions(subject) == [1]
    assert theirs.get_version(subject, 1).schema_id == theirs.get_latest_version(subject).schema_id == schema_id
    assert theirs.test_compatibility(subject, Schema(record("a", "b", name=name))) is False
    assert theirs.test_compatibility_all_versions(subject, Schema(record("a", "b", name=name))) is False
    assert theirs.test_compatibility(subject, schema) is True
    assert (
        code_of(theirs.register_schema, subject, Schema(record("a", "b", name=name)))
        == RegistryErrorCode.INCOMPATIBLE_SCHEMA
    )
    theirs.set_compatibility(subject, "FULL_TRANSITIVE")
    assert theirs.get_compatibility(subject) == "FULL_TRANSITIVE"
    config = ServerConfig(compatibility=ConfigCompatibilityLevel.NONE, compatibility_group="major")
    theirs.set_config(subject, config)
    assert theirs.get_config(subject).compatibility_group == "major"
    assert real_registry.config(subject).compatibility_level is Level.NONE
    assert theirs.delete_config(subject) is not None
    assert code_of(theirs.get_config, subject) == RegistryErrorCode.SUBJECT_COMPATIBILITY_NOT_CONFIGURED
    assert theirs.update_mode(subject, "READONLY") == theirs.get_mode(subject) == "READONLY"
    assert code_of(theirs.register_schema, subject, Schema(record("c"))) == RegistryErrorCode.OPERATION_NOT_PERMITTED
    assert theirs.delete_mode(subject) == "READONLY"
    assert code_of(theirs.get_mode, subject) == RegistryErrorCode.SUBJECT_MODE_NOT_CONFIGURED
    assert theirs.get_global_mode() == theirs.update_global_mode("READWRITE") == "READWRITE"
    assert "." in theirs.get_contexts()
    assert theirs.delete_version(subject, 1) == 1
    assert theirs.delete_subject(subject, permanent=True) == [1]


def test_metadata(theirs: SchemaRegistryClient, real_registry: RegistryClient, new_name: NewName) -> None:
    subject = new_name()
    for version in ("1", "2"):
        metadata = Metadata(None, MetadataProperties({"major": version}), None)
        theirs.register_schema(subject, Schema(record("a"), metadata=metadata))
    assert theirs.get_latest_with_metadata(subject, {"major": "1"}).version == 1
    assert real_registry.latest_with_metadata(subject, {"major": "2"}).version == 2


def test_references_hold_up_what_they_refer_to(
    real_registry: RegistryClient, theirs: SchemaRegistryClient, new_name: NewName
) -> None:
    ours, base, user = real_registry, new_name(), new_name()
    ours.register(base, record("a", name="Base"))
    schema = json.dumps({"type": "record", "name": "User", "fields": [{"name": "base", "type": "Base"}]})
    missing = Schema(schema, "AVRO", [SchemaReference("Base", base, 9)])
    assert code_of(theirs.register_schema, user, missing) == RegistryErrorCode.INVALID_SCHEMA
    user_id = theirs.register_schema(user, Schema(schema, "AVRO", [SchemaReference("Base", base, 1)]))
    assert ours.schema(user_id).resolved == {"Base": record("a", name="Base").replace(" ", "")}
    assert ours.referenced_by(base, 1) == theirs.get_referenced_by(base, 1) == [user_id]
    assert code_of(ours.delete_subject, base) == RegistryErrorCode.REFERENCE_EXISTS
    assert code_of(ours.delete_version, base, 1) == RegistryErrorCode.REFERENCE_EXISTS
    ours.delete_subject(user)
    ours.delete_subject(user, permanent=True)
    assert ours.delete_subject(base) == [1]


def test_contexts_have_ids_and_subjects_of_their_own(
    real_registry: RegistryClient, registry_url: str, theirs: SchemaRegistryClient, new_name: NewName
) -> None:
    ours, name = real_registry, new_name().replace("-", "_")
    subject = f":.{name}:orders"
    schema_id = ours.register(subject, record("a", name=name))
    assert schema_id == 1
    assert f".{name}" in ours.contexts()
    assert subject in theirs.get_subjects()
    assert ours.schema(schema_id, subject=subject).name == name
    assert theirs.get_schema(schema_id, subject_name=subject).schema_str == ours.latest(subject).schema.text
    with RegistryClient(f"{registry_url}/contexts/.{name}") as inside:
        assert inside.schema(schema_id).name == name
        assert inside.register("orders", record("a", name=name)) == schema_id
        assert [one.removeprefix(f":.{name}:") for one in inside.subjects()] == ["orders"]
    assert code_of(ours.delete_context, f".{name}") == RegistryErrorCode.CONTEXT_NOT_EMPTY
    ours.delete_subject(subject)
    ours.delete_subject(subject, permanent=True)


def test_references_lie_in_the_context_of_who_refers(real_registry: RegistryClient, new_name: NewName) -> None:
    ours, name = real_registry, new_name().replace("-", "_")
    base, inner = f"base-{name}", record("inside", name="Base")
    ours.register(base, record("outside", name="Base"))
    ours.register(f":.{name}:{base}", inner)
    reference = Reference("Base", base, 1)
    text = json.dumps({"type": "record", "name": "User", "fields": [{"name": "base", "type": "Base"}]})
    user = SchemaText(SchemaType.AVRO, text, (reference,))
    schema_id = ours.register(f":.{name}:user", user)
    by_id = ours.schema(schema_id, subject=f":.{name}:")
    found = ours.lookup(f":.{name}:user", by_id)
    by_guid = ours.schema_by_guid(found.guid or "")
    for schema in (by_id, ours.latest(f":.{name}:user").schema, found.schema, by_guid):
        assert json.loads(schema.resolved["Base"]) == json.loads(inner)
    assert ours.register(f":.{name}:user", by_id) == schema_id


def test_schemas_are_imported_with_their_ids(
    real_registry: RegistryClient, theirs: SchemaRegistryClient, new_name: NewName
) -> None:
    ours, subject = real_registry, new_name()
    assert ours.set_mode(Mode.IMPORT, subject) is Mode.IMPORT
    assert ours.mode(subject) is Mode.IMPORT
    steps = ours.calls.register(subject, record("imported"))
    exchange = next(steps)
    body = {**(exchange.body or {}), "id": 4_000_001, "version": 7}
    answer = ours.run(_asked(exchange._replace(body=body)))
    assert answer["id"] == 4_000_001
    assert theirs.get_version(subject, 7).schema_id == 4_000_001
    assert ours.set_mode("READWRITE", subject) is Mode.READWRITE
    assert code_of(ours.set_mode, Mode.IMPORT, subject) == RegistryErrorCode.OPERATION_NOT_PERMITTED
    assert ours.set_mode(Mode.IMPORT, subject, force=True) is Mode.IMPORT


def _asked(exchange: Any) -> Any:
    return (yield exchange)


@pytest.mark.parametrize("name", ["a/b", "a b", "ü", "a%2Fb", "a+b", "a?b=c", "a#b", "..", "a\\b", "x" * 200])
def test_any_name_is_a_subject(
    real_registry: RegistryClient, theirs: SchemaRegistryClient, new_name: NewName, name: str
) -> None:
    subject = new_name() + name
    schema_id = real_registry.register(subject, STRING)
    assert real_registry.subjects(subject) == [subject]
    assert theirs.register_schema(subject, Schema(STRING)) == schema_id
    assert theirs.get_latest_version(subject).subject == subject
    assert real_registry.set_config(subject, compatibility_level="FULL").compatibility_level is Level.FULL
    assert theirs.get_compatibility(subject) == "FULL"
    assert real_registry.delete_subject(subject) == [1]


def test_what_is_wrong_is_said_by_its_code(
    real_registry: RegistryClient, theirs: SchemaRegistryClient, new_name: NewName
) -> None:
    ours, subject = real_registry, new_name()
    ours.register(subject, STRING)
    for schema in ("{", '{"type": "nothing"}', '{"type": "record", "name": "a b", "fields": []}'):
        assert code_of(ours.register, subject, schema) == RegistryErrorCode.INVALID_SCHEMA
    assert code_of(ours.register, f"{subject}-none", "") == RegistryErrorCode.INVALID_SCHEMA
    text = SchemaText(SchemaType.PROTOBUF, "no proto")
    assert code_of(ours.register, subject, text) == RegistryErrorCode.INVALID_SCHEMA
    assert code_of(ours.lookup, subject, '"int"') == RegistryErrorCode.SCHEMA_NOT_FOUND
    assert code_of(ours.lookup, f"{subject}-none", STRING) == RegistryErrorCode.SUBJECT_NOT_FOUND
    assert code_of(ours.version, subject, 9) == RegistryErrorCode.VERSION_NOT_FOUND
    assert code_of(ours.version, subject, 0) == RegistryErrorCode.INVALID_VERSION
    assert code_of(ours.schema, 3_999_999) == RegistryErrorCode.SCHEMA_NOT_FOUND
    assert code_of(theirs.set_compatibility, subject, "SOMETIMES") == RegistryErrorCode.INVALID_COMPATIBILITY_LEVEL
    assert code_of(ours.set_mode, "SOMETIMES", subject) == RegistryErrorCode.INVALID_MODE
    assert ours.compatible(f"{subject}-none", STRING) == []
    (first, *_) = ours.compatible(subject, '"int"')
    assert "TYPE_MISMATCH" in first
    with pytest.raises(SchemaRegistryError) as caught:
        theirs.get_associations_by_resource_name(subject, "-", "topic", ["value"])
    assert caught.value.http_status_code == 404
    with pytest.raises(SchemaRegistryError) as caught:
        theirs.delete_associations(subject)
    assert caught.value.http_status_code == 404
    assert "this registry has no associations" in caught.value.error_message


def test_json_and_protobuf_too(real_registry: RegistryClient, new_name: NewName) -> None:
    ours, subject = real_registry, new_name()
    base = parse(SchemaType.JSON, '{"title": "B", "type": "object", "properties": {"a": {"type": "string"}}}')
    ours.register(f"{subject}-base", base)
    user = parse(
        SchemaType.JSON, '{"$ref": "b.json"}', [Reference("b.json", f"{subject}-base", 1)], {"b.json": base.text}
    )
    assert ours.schema(ours.register(subject, user)) == user
    narrower = parse(SchemaType.JSON, base.text.replace('"string"', '"integer"'))
    assert ours.compatible(f"{subject}-base", narrower)
    proto = 'syntax = "proto3";\nimport "inner.proto";\nmessage M { Inner inner = 1; }\n'
    inner = 'syntax = "proto3";\nmessage Inner { int32 a = 1; }\n'
    ours.register(f"{subject}-inner", SchemaText(SchemaType.PROTOBUF, inner))
    references = (Reference("inner.proto", f"{subject}-inner", 1),)
    found = ours.schema(ours.register(f"{subject}-proto", SchemaText(SchemaType.PROTOBUF, proto, references)))
    assert (found.type, found.name, found.references) == (SchemaType.PROTOBUF, "M", references)


def test_many_register_at_once(real_registry: RegistryClient, registry_url: str, new_name: NewName) -> None:
    subject, others = new_name(), new_name()
    clients = [RegistryClient(registry_url) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda index: clients[index % 4].register(subject, record("same")), range(32)))
        assert len(set(ids)) == 1
        real_registry.set_config(others, compatibility_level="NONE")
        different = list(pool.map(lambda index: clients[index % 4].register(others, record(f"f{index}")), range(32)))
    assert len(set(different)) == 32
    assert real_registry.versions(others) == list(range(1, 33))
    for client in clients:
        client.close()
