"""Our declarations against the definitions in the kafka-clients jar: every field of every version that we implement."""

from __future__ import annotations

import json
import re
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from millstream.core.wire import APIS, Api, ApiKey, Message
from millstream.core.wire.fields import ALL_VERSIONS, NO_VERSIONS, SCALARS, Field, Versions

pytestmark = pytest.mark.java

TYPES: Final = {"string": "str", "bytes": "bytes", "records": "record_bytes"} | {name: name for name in SCALARS}
# Lower than what Kafka implements, because clients read more into the range than what they send.
ADVERTISED_BELOW: Final = {ApiKey.PRODUCE}


@cache
def definitions(jars: Path) -> dict[tuple[int, str], Any]:
    """(API key, "request" or "response") -> the definition."""
    (jar,) = jars.glob("kafka-clients-*.jar")
    found = {}
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if name.startswith("common/message/") and name.endswith(".json"):
                text = re.sub(r"(?m)(^|[,{\[])\s*//.*$", r"\1", archive.read(name).decode())
                definition = json.loads(text)
                found[definition.get("apiKey"), definition["type"]] = definition
    return found


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_versions_are_some_of_kafkas(api: Api, jars: Path) -> None:
    for kind in ("request", "response"):
        definition = definitions(jars)[api.key, kind]
        cls: type[Message] = getattr(api, kind)
        theirs = Versions.parse(definition["validVersions"])
        assert api.version_min in theirs
        assert api.version_max in theirs
        assert (api.advertised_min in theirs) == (api.key not in ADVERTISED_BELOW)
        assert definition["name"] == f"{api.name}{kind.capitalize()}" == cls.__name__
        assert cls.__wire__.key == api.key
        assert cls.__wire__.versions == Versions(api.version_min, api.version_max)
        flexible = Versions.parse(definition["flexibleVersions"])
        for version in api.versions:
            assert (version in cls.__wire__.flexible) == (version in flexible) == (version >= api.flexible_from)


@pytest.mark.parametrize("kind", ["request", "response"])
@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_every_field_of_every_version(api: Api, kind: str, jars: Path) -> None:
    definition = definitions(jars)[api.key, kind]
    common = {struct["name"]: struct["fields"] for struct in definition.get("commonStructs", [])}
    for version in api.versions:
        compare(getattr(api, kind), definition["fields"], common, version)


def compare(cls: type[Message], theirs: list[Any], common: dict[str, Any], version: int) -> None:
    wanted = [definition for definition in theirs if version in Versions.parse(definition["versions"])]
    declared = [field for field in cls.__wire__.fields if version in field.versions]
    assert [field.name for field in declared] == [snake_case(definition["name"]) for definition in wanted]
    for field, definition in zip(declared, wanted, strict=True):
        where = f"{cls.__name__}.{field.name} in version {version}"
        type_name = definition["type"].removeprefix("[]")
        assert field.is_array == definition["type"].startswith("[]"), where
        assert field.tag == (definition.get("tag") if version in tagged_versions(definition) else None), where
        if field.tag is None:
            nullable = Versions.parse(definition.get("nullableVersions", "none"))
            assert (version in field.nullable) == (version in nullable), where
        if type_name in TYPES:
            assert field.kind == TYPES[type_name], where
            check_default(field, definition, where)
        else:
            inner = field.struct_class()
            assert inner.__name__.removesuffix("Response") == type_name.removesuffix("Response"), where
            compare(inner, definition.get("fields") or common[type_name], common, version)


def tagged_versions(definition: Any) -> Versions:
    return Versions.parse(definition.get("taggedVersions", "none"))


def check_default(field: Field, definition: Any, where: str) -> None:
    text = str(definition.get("default", ""))
    if field.is_array:
        assert (field.default is None) == (text == "null"), where
        assert (field.factory is list) == (text != "null"), where
    elif text == "null":
        assert field.default is None, where
    elif field.kind == "bool":
        assert field.default is (text.lower() == "true"), where
    elif field.kind == "str":
        assert field.default == text, where
    elif field.kind == "uuid":
        assert field.default == bytes(16), where
    elif field.kind == "record_bytes":
        assert field.default is None, where
    elif field.kind == "bytes":
        assert field.default == b"", where
    else:
        assert field.default == int(text or "0", 0), where


def snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def test_versions_notation() -> None:
    assert [str(Versions.parse(text)) for text in ("3+", "2-4", "7", "none")] == ["3+", "2-4", "7", "none"]
    assert 5 in Versions.parse("3+")
    assert 5 not in Versions.parse("2-4")
    assert 0 in ALL_VERSIONS
    assert 0 not in NO_VERSIONS
