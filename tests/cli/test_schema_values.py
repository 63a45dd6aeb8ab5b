"""`millstream produce` and `consume` with a registry's schemas."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import CommandLine
from tests.support import flight_messages
from tests.support.registry import registry

from millstream import Producer
from millstream.schemas import ProtobufSerializer, RegistryClient

_numbers = itertools.count()

FLIGHT = {
    "type": "record",
    "name": "Flight",
    "namespace": "air",
    "fields": [
        {"name": "carrier", "type": "string"},
        {"name": "delay", "type": ["null", "int", "string"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
        {"name": "fare", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "tag", "type": {"type": "fixed", "name": "Tag", "size": 2}},
        {"name": "other", "type": ["null", "Tag"], "default": None},
        {"name": "legs", "type": {"type": "array", "items": "string"}, "default": []},
        {"name": "next", "type": ["null", "Flight"], "default": None},
    ],
}
UA = {
    "carrier": "Ünited",
    "delay": None,
    "at": "2026-03-01T12:00:00+00:00",
    "day": "2026-03-01",
    "fare": "12.30",
    "tag": "\u0001ÿ",
    "other": "ab",
    "legs": ["ORD"],
    "next": None,
}
AA = {**UA, "delay": "late", "day": None, "legs": [], "next": {**UA, "delay": 3}}


class WithRegistry(CommandLine):
    """A command line with a broker and a registry."""

    def __init__(self, bootstrap: str, url: str) -> None:
        super().__init__(bootstrap)
        self.url = url
        self.settings["MILLSTREAM_REGISTRY_URL"] = url
        self.environment["MILLSTREAM_REGISTRY_URL"] = url


@pytest.fixture(scope="module")
def millstream(millstream_broker_session: Any) -> Iterator[WithRegistry]:
    bootstrap = millstream_broker_session.bootstrap_servers
    with registry(bootstrap) as running:
        yield WithRegistry(bootstrap, running.url)


@pytest.fixture
def topic() -> str:
    return f"cli-schemas-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def flight_file(tmp_path: Path) -> str:
    file = tmp_path / "flight.avsc"
    file.write_text(json.dumps(FLIGHT))
    return str(file)


def lines(*values: Any) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def test_avro_goes_in_and_comes_out_as_the_same_json(millstream: WithRegistry, topic: str, flight_file: str) -> None:
    millstream("produce", topic, "--value-serializer", "avro", "--value-schema", flight_file, stdin=lines(UA))
    # The subject has a schema now.
    millstream("produce", topic, "--value-serializer", "auto", stdin=lines(AA))
    for wanted in ("avro", "auto"):
        out = millstream("consume", topic, "--value-deserializer", wanted).out
        assert [json.loads(line) for line in out.splitlines()] == [UA, AA]
    shown = [
        json.loads(line)
        for line in millstream("consume", topic, "--value-deserializer", "avro", "--json").out.splitlines()
    ]
    assert [one["value"] for one in shown] == [UA, AA]
    assert millstream(
        "consume", topic, "--value-deserializer", "avro", "--format", "{offset} {value}", "-n", "1"
    ).out == (f"0 {lines(UA)}")


def test_keys_and_json_schemas(millstream: WithRegistry, topic: str, tmp_path: Path) -> None:
    (tmp_path / "key.avsc").write_text('"string"')
    (tmp_path / "value.json").write_text('{"type": "object", "required": ["a"]}')
    options = ("--key-serializer", "avro", "--key-schema", str(tmp_path / "key.avsc"), "-K", "\t", "--null", "-")
    values = ("--value-serializer", "json", "--value-schema", str(tmp_path / "value.json"))
    millstream("produce", topic, *options, *values, stdin='"k"\t{"a": 1}\n"gone"\t-\n')
    out = millstream(
        "consume", topic, "--key-deserializer", "auto", "--value-deserializer", "auto", "--format", "{key} {value}"
    ).out
    assert out == '"k" {"a": 1}\n"gone" \n'
    refused = millstream("produce", topic, *options, *values, stdin='"k"\t{"b": 1}\n', code=1).err
    assert "'a' is a required property" in refused


def test_protobuf(millstream: WithRegistry, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "airport.proto"
    file.write_text(
        'syntax = "proto3"; message Airport { string code = 1; message Gate { int32 number = 1; } Gate gate = 2; }'
    )
    value = {"code": "ORD", "gate": {"number": 7}}
    millstream("produce", topic, "--value-serializer", "protobuf", "--value-schema", str(file), stdin=lines(value))
    assert millstream("consume", topic, "--value-deserializer", "protobuf").out == lines(value)
    assert (
        "no field named"
        in millstream("produce", topic, "--value-serializer", "protobuf", stdin='{"cod": "x"}\n', code=1).err
    )
    # What another producer wrote, with imports and a time in it.
    other = f"{topic}-other"
    with RegistryClient(millstream.url) as client, Producer(millstream.bootstrap) as producer:
        data = ProtobufSerializer(client)(flight_messages.flight("UA", 3), topic=other)
        producer.send(other, data).result(60)
    (shown,) = [
        json.loads(line) for line in millstream("consume", other, "--value-deserializer", "auto").out.splitlines()
    ]
    assert (shown["airline"], shown["delay"], shown["at"]) == ({"code": "UA"}, 3, "2023-11-14T22:13:20Z")


def test_what_does_not_fit_is_one_sentence(millstream: WithRegistry, topic: str, flight_file: str) -> None:
    def produce(line: str) -> str:
        return millstream("produce", topic, "--value-serializer", "avro", stdin=line, code=1).err

    assert f"ubject '{topic}-value' not found." in produce("{}\n")
    millstream("produce", topic, "--value-serializer", "avro", "--value-schema", flight_file, stdin=lines(UA))
    assert "more fields than the schema specifies: gate" in produce(lines({**UA, "gate": 1}))
    assert "the value '{' does not fit the schema" in produce("{\n")
    assert "'noon'" in produce(lines({**UA, "at": "noon"}))
    assert "is of type avro, not json" in millstream("produce", topic, "--value-serializer", "json", code=1).err
    millstream("produce", topic, stdin="plain\n")
    refused = millstream("consume", topic, "--value-deserializer", "avro", code=1)
    assert refused.out == lines(UA)
    assert f"{topic}-0, offset 1: the value of topic '{topic}': the first byte is 0x70" in refused.err
    for _ in range(2):
        # A group does not pass over it.
        again = millstream("consume", topic, "--group", topic, "--value-deserializer", "auto", code=1)
        assert "offset 1" in again.err
    nobody = millstream("consume", topic, "--value-deserializer", "avro", "--registry", "http://127.0.0.1:1", code=1)
    assert "no registry answered at http://127.0.0.1:1" in nobody.err


def test_wrong_options_are_named(millstream: WithRegistry, topic: str, flight_file: str) -> None:
    assert "--value-serializer" in millstream("produce", topic, "--value-schema", flight_file, code=2).err
    millstream("produce", topic, stdin="plain\n")
    refused = millstream("consume", topic, "--value-deserializer", "avro", "--registry", "localhost", code=2).err
    assert "write http://HOST:PORT" in refused
