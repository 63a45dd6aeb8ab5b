"""/schemas: by id, by guid, and all of them."""

from __future__ import annotations

from typing import Any, Final

from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.parsing import SchemaType
from millstream.schemas.server.api import Answer, ApiRequest, Endpoint, Kind, Parameter
from millstream.schemas.server.content import RULE_KINDS, digest_of_guid
from millstream.schemas.server.errors import schema_not_found
from millstream.schemas.server.registry import Registry
from millstream.schemas.server.routes.parameters import (
    DELETED,
    FIND_TAGS,
    FORMAT,
    PAGE,
    REFERENCE_FORMAT,
    SUBJECT,
    formatted,
    window,
)
from millstream.schemas.server.state import Version
from millstream.schemas.server.subjects import context_of, is_context, normalized, referred
from millstream.schemas.server.views import QUALIFIED, id_view, schema_view


async def list_schemas(registry: Registry, request: ApiRequest) -> Any:
    """Every version of the subjects with a prefix."""
    deleted, latest_only = request.flag("deleted"), request.flag("latestOnly")
    rule_type = request.text("ruleType")
    prefix = request.text("subjectPrefix")
    names = dict.fromkeys(registry.catalog.subjects(normalized(prefix) if not is_context(prefix) else prefix))
    aliases: dict[str, list[str]] = {}
    if request.flag("aliases"):
        for subject, config in registry.state.configs():
            if subject is not None and isinstance(config.get("alias"), str) and subject.startswith(prefix):
                aliases.setdefault(referred(subject, config["alias"]), []).append(subject)
        names.update(dict.fromkeys(aliases))
    found: list[dict[str, Any]] = []
    wanted = window(registry, request, "schema")
    for name in sorted(names):
        versions = [one for one in registry.state.versions(name) if deleted or not one.deleted]
        for version in versions[-1:] if latest_only else versions:
            if rule_type and not _has_rule(version, rule_type):
                continue
            found.append(schema_view(version) | ({"aliases": sorted(aliases[name])} if name in aliases else {}))
        if len(found) >= wanted.stop:
            break
    return found[wanted]


def _has_rule(version: Version, rule_type: str) -> bool:
    rules = version.content.rule_set or {}
    return any(rule.get("type") == rule_type for kind in RULE_KINDS for rule in rules.get(kind) or ())


def _by_id(registry: Registry, request: ApiRequest) -> Version:
    schema_id = request.path_number("id")
    found = registry.catalog.find_id(schema_id, request.text("subject"))
    if found is None:
        raise schema_not_found(schema_id)
    return found


async def schema_by_id(registry: Registry, request: ApiRequest) -> Any:
    """A schema by its id."""
    version = _by_id(registry, request)
    highest = registry.state.next_id(context_of(version.subject)) - 1
    return id_view(
        version,
        text=await formatted(registry, version, request.text("format")),
        with_subject=request.has("subject"),
        qualified=request.text("referenceFormat") == QUALIFIED,
        id_highest=highest if request.flag("fetchMaxId") else None,
    )


async def schema_text_by_id(registry: Registry, request: ApiRequest) -> Any:
    """Nothing but the schema."""
    version = _by_id(registry, request)
    text = await formatted(registry, version, request.text("format"))
    return Answer((version.content.text if text is None else text).encode())


def _holders(registry: Registry, request: ApiRequest) -> list[Version]:
    version = _by_id(registry, request)
    deleted = request.flag("deleted")
    found = registry.state.versions_of_id(context_of(version.subject), version.id)
    return [one for one in found if deleted or not one.deleted]


async def subjects_of_id(registry: Registry, request: ApiRequest) -> Any:
    """The subjects a schema is registered under."""
    return [one.subject for one in _holders(registry, request)][window(registry, request, "subject")]


async def versions_of_id(registry: Registry, request: ApiRequest) -> Any:
    """The versions that a schema is."""
    found = [{"subject": one.subject, "version": one.version} for one in _holders(registry, request)]
    return found[window(registry, request, "subject.version")]


def _by_guid(registry: Registry, request: ApiRequest) -> list[tuple[str, int]]:
    digest = digest_of_guid(request.values["guid"])
    return [] if digest is None else registry.catalog.find_digest(digest)


async def schema_by_guid(registry: Registry, request: ApiRequest) -> Any:
    """A schema by its guid, which is the same in every registry."""
    found = _by_guid(registry, request)
    version = registry.state.find_id(*found[0]) if found else None
    if version is None:
        raise schema_not_found(request.values["guid"][:100])
    text = await formatted(registry, version, request.text("format"))
    return id_view(version, text=text, with_subject=False, qualified=False, id_highest=None)


async def ids_of_guid(registry: Registry, request: ApiRequest) -> Any:
    """The ids that a schema has, by context."""
    return [{"context": context, "id": schema_id} for context, schema_id in sorted(_by_guid(registry, request))]


async def schema_types(_registry: Registry, _request: ApiRequest) -> Any:
    """The types of schemas there are."""
    return [str(SchemaType.JSON), str(SchemaType.PROTOBUF), str(SchemaType.AVRO)]


_NOT_FOUND: Final = (RegistryErrorCode.SCHEMA_NOT_FOUND,)

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/schemas",
        list_schemas,
        "List schemas, ordered by subject and version",
        (
            Parameter(
                "subjectPrefix", Kind.TEXT, "Only subjects that begin with it; `:*:` before it: in every context."
            ),
            Parameter("aliases", Kind.FLAG, "Whether subjects that an alias leads to count as well."),
            DELETED,
            Parameter("latestOnly", Kind.FLAG, "Only the highest version of each subject."),
            Parameter("ruleType", Kind.TEXT, "Only schemas with a rule of this type."),
            Parameter("resourceType", Kind.TEXT, "Taken and without effect: associations are not kept here."),
            *PAGE,
        ),
        answer="Schemas",
    ),
    Endpoint(
        "GET",
        "/schemas/ids/{id:int}",
        schema_by_id,
        "Get a schema by its id",
        (
            SUBJECT,
            FORMAT,
            REFERENCE_FORMAT,
            FIND_TAGS,
            Parameter("fetchMaxId", Kind.FLAG, "Whether the answer says the highest id there is."),
        ),
        answer="SchemaString",
        errors=_NOT_FOUND,
    ),
    Endpoint(
        "GET",
        "/schemas/ids/{id:int}/schema",
        schema_text_by_id,
        "Get nothing but a schema's text, by its id",
        (SUBJECT, FORMAT),
        errors=_NOT_FOUND,
    ),
    Endpoint(
        "GET",
        "/schemas/ids/{id:int}/subjects",
        subjects_of_id,
        "List the subjects a schema is registered under",
        (SUBJECT, DELETED, *PAGE),
        answer="Texts",
        errors=_NOT_FOUND,
    ),
    Endpoint(
        "GET",
        "/schemas/ids/{id:int}/versions",
        versions_of_id,
        "List the versions of subjects that a schema is",
        (SUBJECT, DELETED, *PAGE),
        answer="SubjectVersions",
        errors=_NOT_FOUND,
    ),
    Endpoint(
        "GET",
        "/schemas/guids/{guid}",
        schema_by_guid,
        "Get a schema by its guid",
        (FORMAT,),
        answer="SchemaString",
        errors=_NOT_FOUND,
    ),
    Endpoint(
        "GET", "/schemas/guids/{guid}/ids", ids_of_guid, "List the ids of a schema, by context", answer="ContextIds"
    ),
    Endpoint("GET", "/schemas/types", schema_types, "List the types of schemas", answer="Texts"),
)
