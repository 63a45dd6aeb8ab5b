"""`millstream schemas` as a user types it, on the real registry."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import CommandLine
from tests.support.registry import Asker, registry

from millstream.schemas import RegistryClient

_numbers = itertools.count()

FLIGHT = {"type": "record", "name": "Flight", "fields": [{"name": "carrier", "type": "string"}]}
WIDER = {**FLIGHT, "fields": [*FLIGHT["fields"], {"name": "gate", "type": "string"}]}


@pytest.fixture(scope="module")
def millstream(millstream_broker_session: Any) -> Iterator[CommandLine]:
    with registry(millstream_broker_session.bootstrap_servers) as running:
        commands = CommandLine()
        commands.settings["MILLSTREAM_REGISTRY_URL"] = running.url
        commands.environment["MILLSTREAM_REGISTRY_URL"] = running.url
        yield commands


@pytest.fixture
def subject() -> str:
    return f"cli-{os.getpid()}-{next(_numbers)}-value"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    for name, schema in (("flight", FLIGHT), ("wider", WIDER)):
        (tmp_path / f"{name}.avsc").write_text(json.dumps(schema))
    return {name: str(tmp_path / f"{name}.avsc") for name in ("flight", "wider")}


def test_a_schema_is_registered_listed_and_shown(millstream: CommandLine, subject: str, files: dict[str, str]) -> None:
    out = millstream("schemas", "register", subject, files["flight"]).out
    assert out.startswith(f"{subject} version 1, id ")
    assert millstream("schemas", "register", subject, files["flight"]).out == out
    schema_id = int(out.split()[-1])
    (row,) = millstream("schemas", "list", "--prefix", subject, "--json").json
    assert row == {"subject": subject, "version": 1, "id": schema_id, "type": "avro"}
    assert subject in millstream("schemas", "list").out
    assert json.loads(millstream("schemas", "show", subject).out) == FLIGHT
    assert millstream("schemas", "show", "--id", str(schema_id)).out == millstream("schemas", "show", subject).out
    shown = millstream("schemas", "show", subject, "--version", "1", "--json").json
    assert (shown["version"], shown["id"], json.loads(shown["schema"])) == (1, schema_id, FLIGHT)


def test_a_failed_check_names_path_rule_and_remedy(
    millstream: CommandLine, subject: str, files: dict[str, str]
) -> None:
    assert "0 versions" in millstream("schemas", "check", subject, files["flight"]).out
    millstream("schemas", "register", subject, files["flight"])
    assert "BACKWARD compatible with" in millstream("schemas", "check", subject, files["flight"]).out
    refused = millstream("schemas", "check", subject, files["wider"], code=1)
    assert "/fields/1  READER_FIELD_MISSING_DEFAULT_VALUE" in refused.out
    assert "default" in refused.out.splitlines()[1]
    assert f"not BACKWARD compatible with version 1 of {subject}: 1 reason" in refused.err
    not_registered = millstream("schemas", "register", subject, files["wider"], code=1).err
    assert f"is incompatible with an earlier one of {subject}" in not_registered
    assert f"`millstream schemas check {subject} {files['wider']}`" in not_registered
    assert millstream("schemas", "check", subject, files["wider"], "--level", "forward").out.startswith("FORWARD")
    found = millstream("schemas", "check", subject, files["wider"], "--json", code=1).json
    assert (found["compatible"], found["against"], found["level"]) == (False, 1, "BACKWARD")
    assert found["incompatibilities"][0]["path"] == "/fields/1"
    assert (
        "there are NONE, BACKWARD"
        in millstream("schemas", "check", subject, files["flight"], "--level", "SOME", code=2).err
    )


def test_a_check_leaves_groups_to_the_registry(millstream: CommandLine, subject: str, files: dict[str, str]) -> None:
    """Versions of another group are not what the schema is held against."""
    with RegistryClient(millstream.settings["MILLSTREAM_REGISTRY_URL"]) as client:
        client.set_config(subject, compatibility_group="major")
    asker = Asker(millstream.settings["MILLSTREAM_REGISTRY_URL"])
    asker.register(subject, json.dumps(FLIGHT), metadata={"properties": {"major": "1"}})
    assert "BACKWARD compatible with" in millstream("schemas", "check", subject, files["wider"]).out
    millstream("schemas", "check", subject, files["wider"], "--level", "BACKWARD", code=1)
    asker.register(subject, json.dumps(FLIGHT), metadata={"properties": {"other": "2"}})
    refused = millstream("schemas", "check", subject, files["wider"], code=1)
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in refused.out
    assert "/fields/1" in refused.out


def test_versions_are_compared(millstream: CommandLine, subject: str, files: dict[str, str], tmp_path: Path) -> None:
    millstream("schemas", "register", subject, files["flight"])
    assert "one version only" in millstream("schemas", "diff", subject, code=1).err
    narrower = {**FLIGHT, "fields": [*FLIGHT["fields"], {"name": "gate", "type": "string", "default": "?"}]}
    (tmp_path / "next.avsc").write_text(json.dumps(narrower))
    millstream("schemas", "register", subject, str(tmp_path / "next.avsc"))
    out = millstream("schemas", "diff", subject).out
    assert out.startswith(f"--- {subject} version 1\n+++ {subject} version 2\n")
    assert '+      "name": "gate",' in out
    assert "version 2 reads what version 1 wrote" in out
    assert millstream("schemas", "diff", subject, "1", "1").out.startswith("versions 1 and 1 are the same")
    assert millstream("schemas", "diff", subject, "2", "1", "--json").json["new_reads_old"] == []


def test_references_and_types(millstream: CommandLine, subject: str, files: dict[str, str], tmp_path: Path) -> None:
    millstream("schemas", "register", subject, files["flight"])
    (tmp_path / "leg.json").write_text('{"type":"record","name":"Leg","fields":[{"name":"of","type":"Flight"}]}')
    leg = str(tmp_path / "leg.json")
    reference = ("--type", "avro", "--reference", f"Flight={subject}:1")
    millstream("schemas", "register", f"{subject}-leg", leg, *reference)
    shown = millstream("schemas", "show", f"{subject}-leg", "--json").json
    assert shown["references"] == [{"name": "Flight", "subject": subject, "version": 1}]
    assert "does not say of which type" in millstream("schemas", "register", subject, leg, code=2).err
    assert (
        "write NAME=SUBJECT:VERSION"
        in millstream("schemas", "check", subject, leg, "-t", "avro", "-r", "x", code=2).err
    )
    assert "no type is named 'Flight'" in millstream("schemas", "check", subject, leg, "-t", "avro", code=1).err
    (tmp_path / "flight.proto").write_text('syntax = "proto3"; message Flight { string carrier = 1; }')
    millstream("schemas", "register", f"{subject}-proto", str(tmp_path / "flight.proto"))
    assert "message Flight {\n" in millstream("schemas", "show", f"{subject}-proto").out


def test_what_is_not_there_is_one_sentence(millstream: CommandLine, subject: str) -> None:
    assert f"subject '{subject}' not found" in millstream("schemas", "show", subject, code=1).err
    assert f"no subject begins with '{subject}'" in millstream("schemas", "list", "--prefix", subject).err
    assert "give a subject" in millstream("schemas", "show", code=2).err
    nobody = millstream("schemas", "list", "--registry", "http://127.0.0.1:1", "--timeout", "2", code=1)
    assert "no registry answered at http://127.0.0.1:1" in nobody.err


def test_what_is_no_schema_is_said_with_its_file(millstream: CommandLine, subject: str, tmp_path: Path) -> None:
    for name, content, sentence in (
        ("binary.avsc", b"\xff\xfe", "is no text in UTF-8: invalid start byte at byte 0"),
        ("empty.avsc", b"", "is not valid: no valid JSON"),
        ("unknown.avsc", b'{"type":"array","items":"strng"}', "is not valid: no type is named 'strng'"),
        ("broken.proto", b'syntax = "proto3"; message M { int64 id = ; }', "line 1, column 43"),
    ):
        (tmp_path / name).write_bytes(content)
        for command in ("check", "register"):
            err = millstream("schemas", command, subject, str(tmp_path / name), code=1).err
            assert str(tmp_path / name) in err, err
            assert sentence in err, err


def test_a_version_that_is_not_there_is_said_with_those_that_are(
    millstream: CommandLine, subject: str, files: dict[str, str]
) -> None:
    millstream("schemas", "register", subject, files["flight"])
    there = f"{subject} has no version 9; it has 1"
    assert there in millstream("schemas", "show", subject, "--version", "9", code=1).err
    assert there in millstream("schemas", "diff", subject, "1", "9", code=1).err
    reference = ("--reference", f"Flight={subject}:9")
    assert there in millstream("schemas", "register", f"{subject}-leg", files["flight"], *reference, code=1).err
    assert "a subject has a name" in millstream("schemas", "register", "", files["flight"], code=2).err
    assert "a subject has a name" in millstream("schemas", "show", "", code=2).err
