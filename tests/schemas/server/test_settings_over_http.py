"""Configs, modes and contexts, over HTTP, on a real broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.schemas.server.conftest import own_settings
from tests.support.registry import Asker, registry

from millstream.testing import TestBroker


@pytest.fixture
def alone(millstream_broker_session: TestBroker) -> Iterator[Asker]:
    """A registry for one test, which changes what holds for all subjects."""
    with registry(millstream_broker_session.bootstrap_servers, own_settings()) as running:
        yield Asker(running.url)


def test_the_config_of_all_is_the_floor(alone: Asker) -> None:
    assert alone.get("/config").body == {"compatibilityLevel": "BACKWARD"}
    assert alone.ask("PUT", "/config", {"compatibility": "full"}).body == {"compatibility": "FULL"}
    assert alone.get("/config").body == {"compatibilityLevel": "FULL"}
    assert alone.get("/config/s", defaultToGlobal=True).body == {"compatibilityLevel": "FULL"}
    assert alone.get("/config/s").error_code == 40408
    changed = alone.ask("PUT", "/config/s", {"compatibility": "NONE", "normalize": True, "validateFields": False})
    assert changed.body == {"compatibility": "NONE", "normalize": True, "validateFields": False}
    # What is not named stays; null takes it out.
    assert alone.ask("PUT", "/config/s", {"compatibility": None, "compatibilityGroup": "g"}).body == {
        "normalize": True,
        "validateFields": False,
        "compatibilityGroup": "g",
    }
    assert alone.get("/config/s", defaultToGlobal=True).body["compatibilityLevel"] == "FULL"
    others = {
        "defaultMetadata": {"properties": {"a": "b"}},
        "overrideRuleSet": {"domainRules": [{"name": "r", "type": "CEL"}]},
    }
    assert alone.ask("PUT", "/config/t", others).body == others
    # What is null or empty is left out.
    empty = {"overrideRuleSet": {"domainRules": [], "encodingRules": [{"name": "r", "type": "CEL", "tags": None}]}}
    assert alone.ask("PUT", "/config/t", empty).body["overrideRuleSet"] == {
        "encodingRules": [{"name": "r", "type": "CEL"}]
    }
    assert alone.ask("DELETE", "/config/s").status == 200
    assert alone.get("/config/s").error_code == 40408
    assert alone.ask("DELETE", "/config").body == {"compatibilityLevel": "FULL"}
    assert alone.get("/config").body == {"compatibilityLevel": "BACKWARD"}
    for bad, code in (
        ({"compatibility": "SIDEWAYS"}, 42203),
        ({"compatibility": 5}, 422),
        ({"normalize": "yes"}, 422),
        ({"overrideRuleSet": {"domainRules": [{}]}}, 42210),
        ({"overrideRuleSet": {"domainRules": [{"name": "r", "type": "CEL", "disabled": "no"}]}}, 42210),
        ([], 422),
    ):
        assert alone.ask("PUT", "/config/s", bad).error_code == code
    assert alone.ask("PUT", "/config/__GLOBAL", {"compatibility": "NONE"}).error_code == 42208


def test_modes_say_who_may_write(alone: Asker) -> None:
    assert alone.get("/mode").body == {"mode": "READWRITE"}
    alone.register("open", '"int"')
    assert alone.ask("PUT", "/mode/open", {"mode": "readonly"}).body == {"mode": "readonly"}
    assert alone.get("/mode/open").body == {"mode": "READONLY"}
    for answered in (
        alone.register("open", '"long"'),
        alone.ask("DELETE", "/subjects/open"),
        alone.ask("DELETE", "/subjects/open/versions/1"),
        alone.ask("PUT", "/config/open", {"compatibility": "NONE"}),
    ):
        assert answered.error_code == 42205, answered
    # What is there already is no write.
    assert alone.register("open", '"int"').status == 200
    assert alone.ask("DELETE", "/mode/open").body == {"mode": "READONLY"}
    assert alone.register("open", '"long"').status == 200
    alone.ask("PUT", "/mode", {"mode": "READONLY_OVERRIDE"})
    alone.ask("PUT", "/mode/open", {"mode": "READWRITE"})
    assert alone.register("open", '"double"').error_code == 42205
    assert alone.get("/mode/other", defaultToGlobal=True).body == {"mode": "READONLY_OVERRIDE"}
    assert alone.ask("DELETE", "/mode", recursive=True).status == 200
    assert alone.get("/mode/open").error_code == 40409
    assert alone.register("open", '"double"').status == 200
    assert alone.ask("PUT", "/mode", {"mode": "SIDEWAYS"}).error_code == 42204
    assert alone.ask("PUT", "/mode", {"mode": 7}).error_code == 42204


def test_import_keeps_ids_and_versions(alone: Asker) -> None:
    alone.register("local", '"int"')
    assert alone.ask("PUT", "/mode", {"mode": "IMPORT"}).error_code == 42205
    assert alone.ask("PUT", "/mode/copied", {"mode": "IMPORT"}).status == 200
    assert alone.register("copied", '"long"').error_code == 42205
    assert alone.register("copied", '"long"', id=100, version=5).body["id"] == 100
    # No compatibility, any order, and the same once more.
    assert alone.register("copied", '"string"', id=90, version=2).body["version"] == 2
    assert alone.register("copied", '"long"', id=100, version=5).status == 200
    assert alone.get("/subjects/copied/versions").body == [2, 5]
    assert alone.register("copied", '"bytes"', id=100, version=6).error_code == 42205
    assert alone.ask("PUT", "/mode/copied", {"mode": "READWRITE"}).status == 200
    assert alone.register("next", '"bytes"').body["id"] == 101
    assert alone.ask("PUT", "/mode", {"mode": "IMPORT"}, force=True).body == {"mode": "IMPORT"}


def test_import_forgets_what_was_soft_deleted(alone: Asker) -> None:
    alone.register("old", '"int"')
    alone.ask("DELETE", "/subjects/old")
    assert alone.ask("PUT", "/mode/old", {"mode": "IMPORT"}).status == 200
    assert alone.get("/subjects/old/versions", deleted=True).error_code == 40401
    assert alone.register("old", '"long"', id=1, version=1).error_code is None


def test_contexts_are_apart(alone: Asker) -> None:
    here = alone.register("s", '"int"').body
    there = alone.ask("POST", "/contexts/.eu/subjects/s/versions", {"schema": '"long"'}).body
    assert (here["id"], there["id"]) == (1, 1)
    assert alone.get("/contexts").body == [".", ".eu"]
    assert alone.get("/subjects").body == [":.eu:s", "s"]
    assert alone.get("/subjects", subjectPrefix="").body == ["s"]
    assert alone.get("/subjects", subjectPrefix=":.eu:").body == [":.eu:s"]
    assert alone.get("/contexts/eu/subjects").body == [":.eu:s"]
    assert alone.get("/schemas/ids/1").body["schema"] == '"int"'
    assert alone.get("/contexts/.eu/schemas/ids/1").body["schema"] == '"long"'
    assert alone.get("/schemas/ids/1", subject=":.eu:").body["schema"] == '"long"'
    assert alone.get("/contexts/.eu/subjects/s/versions/latest").body["subject"] == ":.eu:s"
    alone.ask("PUT", "/contexts/.eu/config", {"compatibility": "NONE"})
    assert alone.get("/config/:.eu:").body == {"compatibilityLevel": "NONE"}
    assert alone.get("/config/:.eu:s", defaultToGlobal=True).body == {"compatibilityLevel": "NONE"}
    assert alone.get("/config").body == {"compatibilityLevel": "BACKWARD"}
    assert alone.ask("POST", "/subjects/:.eu:s/versions", {"schema": '"string"'}).status == 200
    # A subject that the default context does not have is looked for in the others.
    alone.ask("POST", "/subjects/:.eu:only/versions", {"schema": '"bytes"'})
    assert alone.get("/subjects/only/versions/1").body["subject"] == ":.eu:only"
    assert alone.ask("POST", "/subjects/only", {"schema": '"bytes"'}).body["subject"] == ":.eu:only"
    guid = alone.get("/subjects/only/versions/1").body["guid"]
    assert alone.get(f"/schemas/guids/{guid}/ids").body == [{"context": ".eu", "id": 3}]
    assert alone.ask("DELETE", "/contexts/.eu").error_code == 42211
    for subject in ("s", "only"):
        for permanent in (False, True):
            assert alone.ask("DELETE", f"/subjects/:.eu:{subject}", permanent=permanent).status == 200
    assert alone.ask("DELETE", "/contexts/.eu").status == 204
    assert alone.get("/contexts").body == ["."]


def test_the_global_context_holds_for_all(alone: Asker) -> None:
    alone.ask("PUT", "/config/:.__GLOBAL:", {"compatibility": "NONE"})
    assert alone.get("/config/:.us:s", defaultToGlobal=True).body == {"compatibilityLevel": "NONE"}
    assert alone.get("/config/s", defaultToGlobal=True).body == {"compatibilityLevel": "NONE"}


def test_it_says_who_and_how_it_is(alone: Asker) -> None:
    assert alone.get("/").body == {}
    assert alone.ask("POST", "/", {}).body == {}
    clusters = alone.get("/v1/metadata/id").body["scope"]["clusters"]
    assert clusters["kafka-cluster"]
    assert clusters["schema-registry-cluster"].startswith("registries-")
    assert alone.get("/v1/metadata/version").body["version"]
    assert alone.get("/v1/metadata/deployment").body == {"attributes": []}
    assert sorted(alone.get("/schemas/types").body) == ["AVRO", "JSON", "PROTOBUF"]
    alone.register("s", '"int"')
    health = alone.get("/healthz").body
    assert (health["status"], health["is_leader"], health["leader"]) == ("ok", True, alone.url)
    metrics = alone.get("/metrics")
    assert metrics.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert 'millstream_registry_held{what="schemas"} 1' in metrics.body
    assert "/openapi.json" in alone.get("/docs").body.replace("openapi.json", "/openapi.json")
