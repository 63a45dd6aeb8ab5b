"""/subjects: the listing, looking a schema up, deleting."""

from __future__ import annotations

from typing import Any, Final

from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.api import ApiRequest, Endpoint, Kind, Parameter
from millstream.schemas.server.errors import schema_not_found, subject_not_found
from millstream.schemas.server.registry import Registry
from millstream.schemas.server.routes.parameters import (
    DELETED,
    FORMAT,
    NORMALIZE,
    PAGE,
    PERMANENT,
    formatted,
    window,
)
from millstream.schemas.server.subjects import EVERY_CONTEXT, normalized
from millstream.schemas.server.views import schema_view


async def list_subjects(registry: Registry, request: ApiRequest) -> Any:
    """The names of subjects."""
    only_deleted = request.flag("deletedOnly")
    deleted = request.flag("deleted") or only_deleted
    state = registry.state
    found = [
        one
        for one in registry.catalog.subjects(request.text("subjectPrefix", EVERY_CONTEXT))
        if (deleted or state.latest(one) is not None) and not (only_deleted and state.latest(one) is not None)
    ]
    return found[window(registry, request, "subject")]


async def look_up(registry: Registry, request: ApiRequest) -> Any:
    """The version that a schema is registered as."""
    subject = normalized(request.values["subject"])
    deleted = request.flag("deleted")
    found = await registry.find(subject, request.schema(), normalize=request.flag("normalize"), deleted=deleted)
    if found is None:
        if not registry.state.has_subject(subject, deleted=deleted):
            raise subject_not_found(subject)
        raise schema_not_found()
    return schema_view(found, text=await formatted(registry, found, request.text("format")))


async def latest_with_metadata(registry: Registry, request: ApiRequest) -> Any:
    """The highest version whose metadata says certain things."""
    subject = normalized(request.values["subject"])
    deleted = request.flag("deleted")
    wanted = dict(zip(request.texts("key"), request.texts("value"), strict=False))
    for version in reversed(registry.state.versions(subject)):
        metadata = version.content.metadata
        if (version.deleted and not deleted) or metadata is None:
            continue
        properties = metadata.get("properties") or {}
        if all(properties.get(name) == value for name, value in wanted.items()):
            return schema_view(version, text=await formatted(registry, version, request.text("format")))
    if not registry.state.has_subject(subject, deleted=deleted):
        raise subject_not_found(subject)
    raise schema_not_found()


async def delete_subject(registry: Registry, request: ApiRequest) -> Any:
    """Delete all versions."""
    return await registry.delete_subject(normalized(request.values["subject"]), permanent=request.flag("permanent"))


ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/subjects",
        list_subjects,
        "List subjects",
        (
            Parameter("subjectPrefix", Kind.TEXT, "Only those that begin with it; `:*:` before it: in every context."),
            DELETED,
            Parameter("deletedOnly", Kind.FLAG, "Only those whose versions are all soft-deleted."),
            *PAGE,
        ),
        answer="Texts",
    ),
    Endpoint(
        "POST",
        "/subjects/{subject}",
        look_up,
        "Find the version that a schema is registered as",
        (NORMALIZE, FORMAT, DELETED),
        body="SchemaRequest",
        answer="Schema",
        errors=(
            RegistryErrorCode.SUBJECT_NOT_FOUND,
            RegistryErrorCode.SCHEMA_NOT_FOUND,
            RegistryErrorCode.INVALID_SCHEMA,
        ),
    ),
    Endpoint(
        "DELETE",
        "/subjects/{subject}",
        delete_subject,
        "Delete a subject",
        (PERMANENT,),
        answer="Numbers",
        writes=True,
        errors=(
            RegistryErrorCode.SUBJECT_NOT_FOUND,
            RegistryErrorCode.SUBJECT_SOFT_DELETED,
            RegistryErrorCode.SUBJECT_NOT_SOFT_DELETED,
            RegistryErrorCode.OPERATION_NOT_PERMITTED,
            RegistryErrorCode.REFERENCE_EXISTS,
        ),
    ),
    Endpoint(
        "GET",
        "/subjects/{subject}/metadata",
        latest_with_metadata,
        "Get the highest version whose metadata has these properties",
        (
            Parameter("key", Kind.TEXT, "The name of a property; may be repeated."),
            Parameter("value", Kind.TEXT, "Its value; as many as there are keys."),
            FORMAT,
            DELETED,
        ),
        answer="Schema",
        errors=(RegistryErrorCode.SUBJECT_NOT_FOUND, RegistryErrorCode.SCHEMA_NOT_FOUND),
    ),
)
