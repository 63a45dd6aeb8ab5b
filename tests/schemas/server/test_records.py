"""The form of records: Confluent's, byte for byte where compaction compares bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.schemas.compat import Level
from millstream.schemas.parsing import Reference
from millstream.schemas.server.catalog import Catalog
from millstream.schemas.server.content import Content, digest_of_guid
from millstream.schemas.server.records import (
    NOOP,
    Key,
    KeyType,
    SchemaRecord,
    UnknownRecordError,
    decode_key,
    decode_value,
    encode_value,
    to_json,
)
from millstream.schemas.server.settings import RegistryConfig
from millstream.schemas.server.state import RegistryState
from millstream.schemas.server.term import Mark
from millstream.schemas.server.views import config_view, schema_view

# As Confluent's registry writes them.
KEYS = {
    Key(KeyType.SCHEMA, "flights-value", 1): b'{"keytype":"SCHEMA","subject":"flights-value","version":1,"magic":1}',
    Key(KeyType.SCHEMA, ":.eu:flights", 12): b'{"keytype":"SCHEMA","subject":":.eu:flights","version":12,"magic":1}',
    Key(KeyType.CONFIG, None): b'{"keytype":"CONFIG","subject":null,"magic":0}',
    Key(KeyType.CONFIG, "flights-value"): b'{"keytype":"CONFIG","subject":"flights-value","magic":0}',
    Key(KeyType.MODE, None): b'{"keytype":"MODE","subject":null,"magic":0}',
    Key(KeyType.DELETE_SUBJECT, "s"): b'{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}',
    Key(KeyType.CLEAR_SUBJECT, None): b'{"keytype":"CLEAR_SUBJECT","subject":null,"magic":0}',
    Key(KeyType.CONTEXT, ".eu"): b'{"keytype":"CONTEXT","tenant":"default","context":".eu","magic":0}',
    Key(KeyType.SCHEMA, "Flüge", 1): '{"keytype":"SCHEMA","subject":"Flüge","version":1,"magic":1}'.encode(),
    NOOP: b'{"keytype":"NOOP","magic":0}',
}


@pytest.mark.parametrize(("key", "data"), KEYS.items(), ids=lambda one: "" if isinstance(one, bytes) else str(one))
def test_keys_are_confluents_byte_for_byte(key: Key, data: bytes) -> None:
    assert key.encoded() == data
    assert decode_key(data) == key


def test_a_schema_keeps_all_there_is_to_it() -> None:
    key = Key(KeyType.SCHEMA, "orders", 2)
    content = Content(
        "PROTOBUF",
        'syntax = "proto3"; // ü',
        (Reference("common.proto", "common", 3),),
        {"properties": {"owner": "ops"}},
        {"domainRules": [{"name": "r", "type": "CEL", "kind": "CONDITION", "mode": "WRITE"}]},
    )
    record = SchemaRecord(7, content, deleted=True)

    data = encode_value(key, record)

    assert data is not None
    assert list(json.loads(data)) == [
        *("subject", "version", "id", "schemaType", "references", "metadata", "ruleSet", "schema", "deleted")
    ]
    assert decode_value(key, data) == record


def test_what_older_registries_wrote_is_read() -> None:
    key = decode_key(b'{"magic":0,"keytype":"SCHEMA","version":1,"subject":"old"}')
    assert key == Key(KeyType.SCHEMA, "old", 1)
    value = decode_value(key, b'{"subject":"old","version":1,"id":4,"schema":"\\"int\\"","deleted":false,"md5":"x"}')
    assert isinstance(value, SchemaRecord)
    assert (value.id, value.content.schema_type, value.content.text) == (4, "AVRO", '"int"')


@pytest.mark.parametrize(
    "data",
    [
        b'{"keytype":"ASSOC","tenant":"default","resourceName":"r"}',
        b'{"keytype":"TASK","magic":0}',
        b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":9}',
        b'{"keytype":"SCHEMA","subject":"s","version":"1","magic":1}',
        b'{"keytype":"SCHEMA","subject":null,"version":1,"magic":1}',
        b'{"keytype":["SCHEMA"]}',
        b"[]",
        b"not json",
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
        b'{"keytype":"SCHEMA","subject":"\\ud800","version":1,"magic":1}',
        b'{"keytype":"SCHEMA","subject":"s","version":2147483648,"magic":1}',
        b'{"keytype":"SCHEMA","subject":"s","version":0,"magic":1}',
        b'{"keytype":"CONTEXT","context":"\\ud800"}',
        None,
    ],
)
def test_keys_that_are_not_known_say_so(data: bytes | None) -> None:
    with pytest.raises(UnknownRecordError):
        decode_key(data)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"id":1}',
        b'{"id":"1","schema":"x"}',
        b'{"id":1,"schema":"x","references":[1]}',
        b'{"id":1,"schema":"x","metadata":[1]}',
        b'{"id":1,"schema":"\\ud800"}',
        b'{"id":1,"schema":"x","metadata":{"other":"\\ud800"}}',
        b'{"id":-1,"schema":"x"}',
        b'{"id":2147483648,"schema":"x"}',
        b'{"id":1,"schema":"x","references":[{"name":"a","subject":"b","version":2147483648}]}',
        b'{"id":1,"schema":"x","metadata":{"tags":[5]}}',
        b'{"id":1,"schema":"x","metadata":{"properties":[5]}}',
        b'{"id":1,"schema":"x","ruleSet":{"domainRules":[{"params":[7]}]}}',
        b"{",
    ],
)
def test_values_that_are_damaged_say_so(data: bytes) -> None:
    with pytest.raises(UnknownRecordError):
        decode_value(Key(KeyType.SCHEMA, "s", 1), data)


_NAMES = st.sampled_from(
    [
        *("keytype", "subject", "version", "magic", "context", "id", "schema", "schemaType", "references", "name"),
        *("deleted", "metadata", "tags", "properties", "sensitive", "ruleSet", "domainRules", "params", "type"),
        *("enableAt", "mode", "compatibilityLevel", "alias", "normalize", "maxIds"),
    ]
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "s", ":.c:s", ":.c:", ":*:", "\ud800", '"int"', "AVRO", "FULL", "READONLY", *KeyType]),
)
_ANY = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4), max_leaves=8
)
_REFERENCE = st.fixed_dictionaries({"name": _ANY, "subject": _ANY, "version": _ANY})
_LIKELY = {
    "keytype": st.sampled_from(list(KeyType)),
    "subject": st.sampled_from([None, "s", "t", ":.c:s", ":.c:"]),
    "version": st.integers(1, 3),
    "magic": st.sampled_from([0, 1]),
    "id": st.integers(1, 3),
    "schema": st.sampled_from(['"int"', "x"]),
    "references": st.lists(_REFERENCE, max_size=2),
    "metadata": st.dictionaries(_NAMES, _ANY, max_size=3),
    "ruleSet": st.fixed_dictionaries({"domainRules": st.lists(st.dictionaries(_NAMES, _ANY, max_size=3), max_size=2)}),
}


def _damaged(*likely: str) -> st.SearchStrategy[bytes]:
    """JSON objects with these fields as they are mostly, now and then with anything."""
    fields = {name: _LIKELY[name] | _ANY for name in likely}
    objects = st.fixed_dictionaries({}, optional=fields) | st.dictionaries(_NAMES, _ANY, max_size=4)
    return (objects | _ANY).map(lambda one: json.dumps(one).encode())


@given(
    st.lists(
        st.tuples(
            _damaged("keytype", "subject", "version", "magic"),
            st.none() | _damaged("id", "schema", "references", "metadata", "ruleSet", "version"),
        ),
        max_size=6,
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_lies_in_the_topic_stops_nobody(records: list[tuple[bytes, bytes | None]]) -> None:
    """One record that could not be taken in, or answered with, would stop every instance for good."""
    state = RegistryState()
    catalog = Catalog(RegistryConfig.load(None, {"kafkastore.bootstrap.servers": "127.0.0.1:1"}), state)
    for offset, record in enumerate(records):
        state.apply_record(*record, offset, 0, Mark(term=7 - offset))
    for key, value in state.repairs():
        key.encoded()
        encode_value(key, value)
    for subject in [None, *state.subjects()]:
        to_json(config_view(catalog.config(subject)))
        Level(catalog.config(subject)["compatibilityLevel"])
        to_json(catalog.mode(subject))
        for version in state.versions(subject or ""):
            to_json(schema_view(version, qualified=True))
            catalog.referrers(version.subject, version.version, deleted=True)
    to_json([state.contexts(), state.highest_ids(), state.counts()])


def test_a_guid_is_the_digest_that_confluent_computes() -> None:
    # MD5 of the text alone, where there is nothing else.
    assert Content("AVRO", '"string"').guid == "095d71cf-1255-6b9d-5e33-0ad575b3df5d"
    assert digest_of_guid("095d71cf-1255-6b9d-5e33-0ad575b3df5d") == Content("AVRO", '"string"').digest
    assert digest_of_guid("nothing of the kind") is None


def test_content_is_told_apart_by_everything_in_it() -> None:
    reference = Reference("a", "s", 1)
    rules = {"domainRules": [{"name": "r", "type": "CEL"}]}
    different = [
        Content("AVRO", '"int"'),
        Content("AVRO", '"int"', (reference,)),
        Content("AVRO", '"int"', (reference._replace(version=2),)),
        Content("AVRO", '"int"', metadata={"properties": {"a": "b"}}),
        Content("AVRO", '"int"', metadata={"tags": {"a": ["b", "c"]}}),
        Content("AVRO", '"int"', metadata={"sensitive": ["a"]}),
        Content("AVRO", '"int"', rule_set=rules),
        Content("AVRO", '"int"', rule_set={"domainRules": [{"name": "r", "type": "CEL", "disabled": True}]}),
    ]
    assert len({one.digest for one in different}) == len(different)
    assert Content("AVRO", "x", metadata={"properties": {"a": "1", "b": "2"}}) == Content(
        "AVRO", "x", metadata={"properties": {"b": "2", "a": "1"}}
    )
