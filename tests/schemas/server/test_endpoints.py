"""Every endpoint and every parameter of Confluent's interface, one by one, each held against what it changes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from tests.schemas.server.conftest import own_settings
from tests.support.registry import Asker, registry

from millstream.schemas.server.routes import ENDPOINTS
from millstream.testing import TestBroker

DOCS: Final = Path(__file__).parents[3] / "docs"
# Confluent's, but for associations and tags.
CONFLUENT: Final = {
    "GET /": "",
    "POST /": "",
    "GET /schemas": "subjectPrefix aliases deleted latestOnly ruleType resourceType offset limit",
    "GET /schemas/ids/{id}": "subject format referenceFormat findTags fetchMaxId",
    "GET /schemas/ids/{id}/schema": "subject format",
    "GET /schemas/ids/{id}/subjects": "subject deleted offset limit",
    "GET /schemas/ids/{id}/versions": "subject deleted offset limit",
    "GET /schemas/guids/{guid}": "format",
    "GET /schemas/guids/{guid}/ids": "",
    "GET /schemas/types": "",
    "GET /subjects": "subjectPrefix offset limit deleted deletedOnly",
    "POST /subjects/{subject}": "normalize format deleted",
    "DELETE /subjects/{subject}": "permanent",
    "GET /subjects/{subject}/metadata": "key value format deleted",
    "GET /subjects/{subject}/versions": "deleted deletedOnly deletedAsNegative offset limit",
    "POST /subjects/{subject}/versions": "normalize format force",
    "GET /subjects/{subject}/versions/{version}": "format deleted",
    "DELETE /subjects/{subject}/versions/{version}": "permanent",
    "GET /subjects/{subject}/versions/{version}/schema": "format deleted",
    "GET /subjects/{subject}/versions/{version}/referencedby": "deleted offset limit",
    "POST /compatibility/subjects/{subject}/versions/{version}": "normalize verbose",
    "POST /compatibility/subjects/{subject}/versions": "normalize verbose",
    "GET /config": "defaultToGlobal",
    "PUT /config": "",
    "DELETE /config": "",
    "GET /config/{subject}": "defaultToGlobal",
    "PUT /config/{subject}": "",
    "DELETE /config/{subject}": "",
    "GET /mode": "defaultToGlobal",
    "PUT /mode": "force",
    "DELETE /mode": "recursive",
    "GET /mode/{subject}": "defaultToGlobal",
    "PUT /mode/{subject}": "force",
    "DELETE /mode/{subject}": "recursive",
    "GET /contexts": "offset limit",
    "DELETE /contexts/{context}": "",
    "GET /v1/metadata/id": "",
    "GET /v1/metadata/version": "",
    "GET /v1/metadata/deployment": "",
}
LEFT_OUT: Final = ("/associations", "/associations:batchGet", "/subjects/base/versions/1/tags", "/dek-registry/v1/keks")


def plain(path: str) -> str:
    """A path without the types of what is in it."""
    return re.sub(r":\w+}", "}", path)


OURS: Final = {f"{one.method} {plain(one.path)}": one for one in ENDPOINTS}

BASE: Final = json.dumps({"type": "record", "name": "Base", "fields": [{"name": "x", "type": "int"}]})
WIDER: Final = BASE.replace("]}", ', {"name": "y", "type": "int", "default": 0}]}')
OTHER: Final = BASE.replace('"x"', '"z"')
USER: Final = json.dumps({"type": "record", "name": "User", "fields": [{"name": "base", "type": "Base"}]})
# One record, its properties in one order and in another.
SPELLED: Final = '{"type": "record", "name": "Same", "fields": [], "first": "1", "second": "2"}'
SPELLED_ANEW: Final = '{"type": "record", "name": "Same", "fields": [], "second": "2", "first": "1"}'
PROTO: Final = 'syntax = "proto3"; message Order { string id = 1; }'
RULES: Final = {"domainRules": [{"name": "r", "type": "CEL", "kind": "CONDITION", "mode": "WRITE"}]}
REFERENCE: Final = {"name": "Base", "subject": "base", "version": 1}


class World(NamedTuple):
    """A registry with something of every kind in it, and what its ids are."""

    asker: Asker
    ids: dict[str, int]
    guids: dict[str, str]


@pytest.fixture(scope="module")
def world(millstream_broker_session: TestBroker) -> Iterator[World]:
    with registry(millstream_broker_session.bootstrap_servers, own_settings()) as running:
        asker = Asker(running.url)
        ids: dict[str, int] = {}
        guids: dict[str, str] = {}

        def register(subject: str, schema: str, **fields: Any) -> None:
            answered = asker.register(subject, schema, **fields)
            assert answered.status == 200, answered
            ids[subject], guids[subject] = answered.body["id"], answered.body["guid"]

        for subject in ("base", "base", ":.c:base"):
            register(subject, BASE)
        register("base", WIDER)
        register("base", BASE.replace("]}", ', {"name": "w", "type": "int", "default": 0}]}'))
        asker.ask("DELETE", "/subjects/base/versions/3")
        for subject in ("user", ":.c:user", "user-deleted", "user-too"):
            register(subject, USER if subject != "user-too" else USER.replace("User", "Too"), references=[REFERENCE])
        register("proto", PROTO, schemaType="PROTOBUF")
        register("proto", PROTO.replace("}", "string two = 2; }"), schemaType="PROTOBUF", metadata=owned_by("ops"))
        register("ruled", '"bytes"', ruleSet=RULES)
        register("deleted", '"double"', metadata=owned_by("dev"))
        register("deleted-too", '"double"', metadata=owned_by("dev"))
        for subject in ("deleted", "user-deleted"):
            asker.ask("DELETE", f"/subjects/{subject}")
        asker.ask("PUT", "/config/nickname", {"alias": "base"})
        asker.ask("PUT", "/contexts/.c/config", {"compatibility": "FULL"})
        asker.ask("PUT", "/contexts/.c/mode", {"mode": "READONLY"})
        yield World(asker, ids, guids)


def owned_by(owner: str) -> dict[str, Any]:
    return {"properties": {"owner": owner}}


def test_all_of_confluents_endpoints_and_parameters_are_there() -> None:
    for name, parameters in CONFLUENT.items():
        assert set(parameters.split()) <= {one.name for one in OURS[name].parameters}, name
    assert OURS.keys() - CONFLUENT.keys() == {"GET /healthz", "GET /metrics"}


def test_the_pages_name_all_of_them() -> None:
    rows = [
        f"| `{name}` | {one.summary} | {' '.join(f'`{parameter.name}`' for parameter in one.parameters)} |"
        for name, one in OURS.items()
    ]
    page = (DOCS / "registry.md").read_text(encoding="utf-8")
    assert "\n".join(rows) in page
    states = re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", (DOCS / "schemas.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(states) == sorted(OURS)


@pytest.mark.parametrize("path", LEFT_OUT)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_left_out_is_not_found(world: World, method: str, path: str) -> None:
    answered = world.asker.ask(method, path, {} if method == "POST" else None)
    assert (answered.status, answered.error_code) == (404, 404)


Ask = Callable[..., Any]
ALL: Final = ["base", "deleted-too", "proto", "ruled", "user", "user-too"]


def names(body: Any) -> list[str]:
    return list(dict.fromkeys(one["subject"] for one in body))


def numbers(body: Any) -> list[int]:
    return [one["version"] for one in body]


def text_of(body: Any) -> str:
    """The schema of an answer; where it is nothing but that, what was sent."""
    return str(body["schema"]) if isinstance(body, dict) and "schema" in body else json.dumps(body)


def check_format(ask: Ask, path: str, *arguments: Any, **query: Any) -> None:
    """`resolved` writes out what an Avro schema refers to; what a type does not know has no effect."""
    plain_text = text_of(ask(path, *arguments, **query))
    assert '"x"' not in plain_text
    assert text_of(ask(path, *arguments, format="serialized", **query)) == plain_text
    assert '"x"' in text_of(ask(path, *arguments, format="resolved", **query))


def check_window(ask: Ask, path: str, **query: Any) -> None:
    """`offset` and `limit` take a part of a listing, and the rest is behind it."""
    whole = ask(path, **query)
    assert len(whole) > 1
    assert ask(path, limit=1, **query) == whole[:1]
    assert ask(path, offset=1, **query) == whole[1:]
    assert ask(path, offset=1, limit=1, **query) == whole[1:2]


def root(ask: Ask, world: World) -> None:
    assert ask("/") == {}


def list_schemas(ask: Ask, world: World) -> None:
    assert names(ask("/schemas")) == ALL
    assert names(ask("/schemas", subjectPrefix="prot")) == ["proto"]
    assert names(ask("/schemas", subjectPrefix="nick")) == []
    assert names(ask("/schemas", subjectPrefix="nick", aliases=True)) == ["base"]
    assert numbers(ask("/schemas", subjectPrefix="base")) == [1, 2]
    assert numbers(ask("/schemas", subjectPrefix="base", deleted=True)) == [1, 2, 3]
    assert numbers(ask("/schemas", subjectPrefix="base", latestOnly=True)) == [2]
    assert names(ask("/schemas", ruleType="CEL")) == ["ruled"]
    assert ask("/schemas", ruleType="OTHER") == []
    assert names(ask("/schemas", resourceType="topic")) == ALL
    check_window(ask, "/schemas")


def schema_by_id(ask: Ask, world: World) -> None:
    user, there = f"/schemas/ids/{world.ids['user']}", f"/schemas/ids/{world.ids[':.c:user']}"
    assert "subject" not in ask(user)
    assert ask(there, subject=":.c:user")["subject"] == ":.c:user"
    assert ask(there, subject=":.c:user")["references"] == [REFERENCE]
    qualified = ask(there, subject=":.c:user", referenceFormat="qualified")["references"]
    assert qualified == [{**REFERENCE, "subject": ":.c:base"}]
    assert ask(user, findTags="PII") == ask(user)
    assert "maxId" not in ask(user)
    assert ask(user, fetchMaxId=True)["maxId"] == max(world.ids.values())
    check_format(ask, user)
    proto = f"/schemas/ids/{world.ids['proto']}"
    assert "syntax" in text_of(ask(proto))
    assert "syntax" not in text_of(ask(proto, format="serialized"))


def text_by_id(ask: Ask, world: World) -> None:
    there = f"/schemas/ids/{world.ids[':.c:user']}/schema"
    assert ask(there, subject=":.c:") == json.loads(USER)
    assert ask(there) == json.loads(WIDER)
    check_format(ask, f"/schemas/ids/{world.ids['user']}/schema")


def subjects_of_id(ask: Ask, world: World) -> None:
    path = f"/schemas/ids/{world.ids['deleted']}/subjects"
    assert ask(path) == ["deleted-too"]
    check_window(ask, path, deleted=True)
    assert ask(f"/schemas/ids/{world.ids[':.c:base']}/subjects", subject=":.c:") == [":.c:base"]


def versions_of_id(ask: Ask, world: World) -> None:
    path = f"/schemas/ids/{world.ids['deleted']}/versions"
    assert names(ask(path)) == ["deleted-too"]
    check_window(ask, path, deleted=True)
    there = ask(f"/schemas/ids/{world.ids[':.c:base']}/versions", subject=":.c:")
    assert there == [{"subject": ":.c:base", "version": 1}]


def schema_by_guid(ask: Ask, world: World) -> None:
    check_format(ask, f"/schemas/guids/{world.guids['user-too']}")


def ids_of_guid(ask: Ask, world: World) -> None:
    assert ask(f"/schemas/guids/{world.guids[':.c:base']}/ids") == [
        {"context": ".", "id": 1},
        {"context": ".c", "id": 1},
    ]


def schema_types(ask: Ask, world: World) -> None:
    assert ask("/schemas/types") == ["JSON", "PROTOBUF", "AVRO"]


def list_subjects(ask: Ask, world: World) -> None:
    assert ask("/subjects", subjectPrefix="") == ALL
    assert ask("/subjects") == [":.c:base", ":.c:user", *ALL]
    assert ask("/subjects", subjectPrefix="de") == ["deleted-too"]
    assert ask("/subjects", subjectPrefix="de", deleted=True) == ["deleted", "deleted-too"]
    assert ask("/subjects", deletedOnly=True) == ["deleted", "user-deleted"]
    check_window(ask, "/subjects")


def look_up(ask: Ask, world: World) -> None:
    path = "/subjects/spelled"
    assert world.asker.register("spelled", SPELLED, NORMALIZE=True).status == 200
    assert ask(path, {"schema": SPELLED_ANEW})["error_code"] == 40403
    assert ask(path, {"schema": SPELLED_ANEW}, normalize=True)["subject"] == "spelled"
    assert ask("/subjects/deleted", {"schema": '"double"'})["error_code"] == 40401
    assert ask("/subjects/deleted", {"schema": '"double"'}, deleted=True)["deleted"] is True
    check_format(ask, "/subjects/user", {"schema": USER, "references": [REFERENCE]})
    world.asker.ask("DELETE", path)
    world.asker.ask("DELETE", path, permanent=True)


def delete_subject(ask: Ask, world: World) -> None:
    world.asker.register("going", '"long"')
    assert ask("/subjects/going", permanent=True)["error_code"] == 40405
    assert ask("/subjects/going") == [1]
    assert world.asker.get("/subjects/going/versions", deleted=True).body == [1]
    assert ask("/subjects/going", permanent=True) == [1]
    assert world.asker.get("/subjects/going/versions", deleted=True).error_code == 40401


def latest_with_metadata(ask: Ask, world: World) -> None:
    assert ask("/subjects/proto/metadata", key="owner", value="ops")["version"] == 2
    assert ask("/subjects/proto/metadata", key="owner", value="dev")["error_code"] == 40403
    proto = ask("/subjects/proto/metadata", key="owner", value="ops", format="serialized")
    assert "syntax" not in proto["schema"]
    assert ask("/subjects/deleted/metadata", key="owner", value="dev")["error_code"] == 40401
    assert ask("/subjects/deleted/metadata", key="owner", value="dev", deleted=True)["version"] == 1


def list_versions(ask: Ask, world: World) -> None:
    path = "/subjects/base/versions"
    assert ask(path) == [1, 2]
    assert ask(path, deleted=True) == [1, 2, 3]
    assert ask(path, deletedOnly=True) == [3]
    assert ask(path, deletedAsNegative=True) == [1, 2, -3]
    check_window(ask, path)


def register_version(ask: Ask, world: World) -> None:
    path = "/subjects/registering/versions"
    check_format(ask, path, {"schema": USER, "references": [REFERENCE]})
    refused = {"schema": BASE.replace("Base", "User")}
    assert ask(path, refused)["error_code"] == 40901
    assert ask(path, refused, force=True)["version"] == 2
    normal = "/subjects/normal/versions"
    first = ask(normal, {"schema": SPELLED}, normalize=True)
    assert ask(normal, {"schema": SPELLED_ANEW}, normalize=True)["version"] == first["version"]
    assert ask(normal, {"schema": SPELLED_ANEW})["version"] == first["version"] + 1
    for subject in ("registering", "normal"):
        for permanent in (False, True):
            world.asker.ask("DELETE", f"/subjects/{subject}", permanent=permanent)


def get_version(ask: Ask, world: World) -> None:
    path = "/subjects/:.c:user/versions/1"
    check_format(ask, path)
    assert ask(path)["references"] == [REFERENCE]
    assert ask(path, referenceFormat="qualified")["references"] == [{**REFERENCE, "subject": ":.c:base"}]
    assert ask(path, findTags="PII") == ask(path)
    assert ask("/subjects/base/versions/3")["error_code"] == 40402
    assert ask("/subjects/base/versions/3", deleted=True)["version"] == 3


def delete_version(ask: Ask, world: World) -> None:
    world.asker.register("shrinking", '"long"')
    path = "/subjects/shrinking/versions/1"
    assert ask(path, permanent=True)["error_code"] == 40407
    assert ask(path) == 1
    assert ask(path, permanent=True) == 1


def version_text(ask: Ask, world: World) -> None:
    check_format(ask, "/subjects/user/versions/1/schema")
    assert ask("/subjects/deleted/versions/1/schema")["error_code"] == 40401
    assert ask("/subjects/deleted/versions/1/schema", deleted=True) == "double"


def referenced_by(ask: Ask, world: World) -> None:
    path = "/subjects/base/versions/1/referencedby"
    assert ask(path) == sorted([world.ids["user"], world.ids["user-too"]])
    check_window(ask, path)
    world.asker.ask("DELETE", "/subjects/user-too")
    assert ask(path) == [world.ids["user"]]
    assert world.ids["user-too"] in ask(path, deleted=True)
    world.asker.register("user-too", USER.replace("User", "Too"), references=[REFERENCE])


def check_compatibility(ask: Ask, path: str) -> None:
    assert ask(path, {"schema": WIDER}) == {"is_compatible": True}
    assert ask(path, {"schema": OTHER}) == {"is_compatible": False}
    verbose = ask(path, {"schema": OTHER}, verbose=True)
    assert any("READER_FIELD_MISSING_DEFAULT_VALUE" in one for one in verbose["messages"])
    assert ask(path, {"schema": OTHER}, normalize=True) == {"is_compatible": False}


def compatible_with_version(ask: Ask, world: World) -> None:
    check_compatibility(ask, "/compatibility/subjects/base/versions/latest")


def compatible_with_all(ask: Ask, world: World) -> None:
    check_compatibility(ask, "/compatibility/subjects/base/versions")


def get_config(ask: Ask, world: World) -> None:
    assert ask("/config") == ask("/config", defaultToGlobal=True) == {"compatibilityLevel": "BACKWARD"}


def put_config(ask: Ask, world: World) -> None:
    assert ask("/config", {"normalize": False}) == {"normalize": False}
    world.asker.ask("DELETE", "/config")


def delete_config(ask: Ask, world: World) -> None:
    assert ask("/config") == {"compatibilityLevel": "BACKWARD"}


def get_config_of_subject(ask: Ask, world: World) -> None:
    assert ask("/config/:.c:user")["error_code"] == 40408
    assert ask("/config/:.c:user", defaultToGlobal=True) == {"compatibilityLevel": "FULL"}


def put_config_of_subject(ask: Ask, world: World) -> None:
    fields = {
        "alias": "a",
        "aliasForDeks": "d",
        "compatibilityGroup": "g",
        "compatibilityPolicy": "STRICT",
        "normalize": True,
        "validateFields": True,
        "validateNewSchemas": False,
        "validateRules": True,
        "defaultMetadata": owned_by("a"),
        "overrideMetadata": owned_by("b"),
        "defaultRuleSet": RULES,
        "overrideRuleSet": RULES,
    }
    assert ask("/config/set", {"compatibility": "FULL", **fields}) == {"compatibility": "FULL", **fields}
    assert world.asker.get("/config/set").body == {"compatibilityLevel": "FULL", **fields}


def delete_config_of_subject(ask: Ask, world: World) -> None:
    world.asker.ask("PUT", "/config/unset", {"compatibility": "NONE"})
    assert ask("/config/unset") == {"compatibilityLevel": "NONE"}
    assert ask("/config/unset")["error_code"] == 40401


def get_mode(ask: Ask, world: World) -> None:
    assert ask("/mode") == ask("/mode", defaultToGlobal=True) == {"mode": "READWRITE"}


def put_mode(ask: Ask, world: World) -> None:
    assert ask("/mode", {"mode": "IMPORT"})["error_code"] == 42205
    assert ask("/mode", {"mode": "READONLY"}, force=True) == {"mode": "READONLY"}
    world.asker.ask("DELETE", "/mode")


def delete_mode(ask: Ask, world: World) -> None:
    world.asker.ask("PUT", "/mode/inner", {"mode": "READONLY"})
    assert ask("/mode") == {"mode": "READWRITE"}
    assert world.asker.get("/mode/inner").body == {"mode": "READONLY"}
    assert ask("/mode", recursive=True) == {"mode": "READWRITE"}
    assert world.asker.get("/mode/inner").error_code == 40409


def get_mode_of_subject(ask: Ask, world: World) -> None:
    assert ask("/mode/:.c:user")["error_code"] == 40409
    assert ask("/mode/:.c:user", defaultToGlobal=True) == {"mode": "READONLY"}


def put_mode_of_subject(ask: Ask, world: World) -> None:
    assert ask("/mode/user", {"mode": "IMPORT"})["error_code"] == 42205
    assert ask("/mode/user", {"mode": "IMPORT"}, force=True) == {"mode": "IMPORT"}
    world.asker.ask("DELETE", "/mode/user")


def delete_mode_of_subject(ask: Ask, world: World) -> None:
    for path in ("/mode/:.d:", "/mode/:.d:x"):
        world.asker.ask("PUT", path, {"mode": "READONLY"})
    assert ask("/mode/:.d:") == {"mode": "READONLY"}
    assert world.asker.get("/mode/:.d:x").body == {"mode": "READONLY"}
    assert ask("/mode/:.d:", recursive=True) == {}
    assert world.asker.get("/mode/:.d:x").error_code == 40409


def list_contexts(ask: Ask, world: World) -> None:
    assert ask("/contexts") == [".", ".c"]
    assert ask("/contexts", contextPrefix=".c") == [".c"]
    check_window(ask, "/contexts")


def delete_context(ask: Ask, world: World) -> None:
    assert ask("/contexts/.c")["error_code"] == 42211


def metadata_id(ask: Ask, world: World) -> None:
    assert ask("/v1/metadata/id")["scope"]["clusters"]["kafka-cluster"]


def metadata_version(ask: Ask, world: World) -> None:
    assert ask("/v1/metadata/version")["version"]


def metadata_deployment(ask: Ask, world: World) -> None:
    assert ask("/v1/metadata/deployment") == {"attributes": []}


CHECKS: Final = dict(
    zip(
        CONFLUENT,
        [
            *(root, root, list_schemas, schema_by_id, text_by_id, subjects_of_id, versions_of_id, schema_by_guid),
            *(ids_of_guid, schema_types, list_subjects, look_up, delete_subject, latest_with_metadata, list_versions),
            *(register_version, get_version, delete_version, version_text, referenced_by),
            *(compatible_with_version, compatible_with_all),
            *(get_config, put_config, delete_config),
            *(get_config_of_subject, put_config_of_subject, delete_config_of_subject),
            *(get_mode, put_mode, delete_mode, get_mode_of_subject, put_mode_of_subject, delete_mode_of_subject),
            *(list_contexts, delete_context, metadata_id, metadata_version, metadata_deployment),
        ],
        strict=True,
    )
)


@pytest.mark.parametrize("name", CONFLUENT)
def test_every_parameter_does_what_it_says(world: World, name: str) -> None:
    used: set[str] = set()

    def ask(path: str, body: Any = None, **query: Any) -> Any:
        used.update(query)
        if name == "POST /":
            body = {}
        answered = world.asker.ask(name.split(maxsplit=1)[0], path, body, **query)
        assert answered.status < 500, answered
        return answered.body

    CHECKS[name](ask, world)
    assert used == {one.name for one in OURS[name].parameters}
