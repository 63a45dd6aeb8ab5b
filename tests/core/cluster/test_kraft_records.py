"""The declared metadata records against the JSON definitions in Kafka's own jar."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from millstream.core.cluster.kraft_records import KINDS, UNKEPT
from millstream.core.wire.fields import Versions


def snake(name: str) -> str:
    """Return a JSON field's name as it is declared here."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def definitions(jars: Path) -> dict[int, dict[str, Any]]:
    """Return the definitions of metadata records by their number."""
    (jar,) = jars.glob("kafka-metadata-*.jar")
    found = {}
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if name.startswith("common/metadata/") and name.endswith(".json"):
                text = re.sub(r"^\s*//.*$", "", archive.read(name).decode(), flags=re.MULTILINE)
                definition = json.loads(text)
                found[definition["apiKey"]] = definition
    return found


def assert_same_fields(declared: Any, fields: list[dict[str, Any]]) -> None:
    """Check names in order, versions, tags and types, into structs as well."""
    ours = declared.__wire__.fields
    assert {field.name for field in ours} == {snake(field["name"]) for field in fields}, declared
    assert [field.name for field in ours if field.tag is None] == [
        snake(field["name"]) for field in fields if "tag" not in field
    ]
    theirs = {snake(field["name"]): field for field in fields}
    for field in ours:
        definition = theirs[field.name]
        assert field.versions == Versions.parse(definition["versions"]), field
        assert field.tag == definition.get("tag"), field
        assert field.is_array == definition["type"].startswith("[]"), field
        kind = definition["type"].removeprefix("[]")
        if "fields" in definition:
            assert_same_fields(field.struct_class(), definition["fields"])
        else:
            assert field.kind == {"string": "str"}.get(kind, kind), field


@pytest.mark.java
def test_every_declared_record_is_kafkas(jars: Path) -> None:
    kafkas = definitions(jars)
    for key, declared in KINDS.items():
        definition = kafkas[key]
        assert declared.__name__ == definition["name"]
        assert declared.__wire__.versions == Versions.parse(definition["validVersions"]), declared
        assert_same_fields(declared, definition["fields"])
    assert {kafkas[key]["name"] for key in UNKEPT} == {
        "DelegationTokenRecord",
        "UserScramCredentialRecord",
        "ClientQuotaRecord",
        "AccessControlEntryRecord",
    }
