"""/subjects/{subject}/versions: registering, and what is registered."""

from __future__ import annotations

from typing import Any, Final

from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.api import Answer, ApiRequest, Endpoint, Kind, Parameter
from millstream.schemas.server.errors import subject_not_found, version_not_found
from millstream.schemas.server.registry import Registry, check_subject
from millstream.schemas.server.routes.parameters import (
    DELETED,
    FIND_TAGS,
    FORMAT,
    NORMALIZE,
    PAGE,
    PERMANENT,
    REFERENCE_FORMAT,
    formatted,
    window,
)
from millstream.schemas.server.state import Version
from millstream.schemas.server.subjects import normalized
from millstream.schemas.server.views import QUALIFIED, registered_view, schema_view


async def list_versions(registry: Registry, request: ApiRequest) -> Any:
    """The numbers of a subject's versions."""
    subject = normalized(request.values["subject"])
    only_deleted, as_negative = request.flag("deletedOnly"), request.flag("deletedAsNegative")
    deleted = request.flag("deleted") or only_deleted
    if not registry.state.has_subject(subject, deleted=deleted):
        raise subject_not_found(subject)
    versions = registry.state.versions(subject)
    if as_negative:
        found = [-one.version if one.deleted else one.version for one in versions]
    elif only_deleted:
        found = [one.version for one in versions if one.deleted]
    else:
        found = [one.version for one in versions if deleted or not one.deleted]
    return found[window(registry, request, "subject.version")]


async def registered_already(registry: Registry, request: ApiRequest) -> Any:
    """Answer for a schema that is there: nothing has to be written."""
    subject = request.values["subject"]
    check_subject(subject)
    asked = request.schema()
    found = await registry.registered(normalized(subject), asked, normalize=request.flag("normalize"))
    return None if found is None else await _registered(registry, request, found)


async def register(registry: Registry, request: ApiRequest) -> Any:
    """Register a schema."""
    version = await registry.register(
        normalized(request.values["subject"]),
        request.schema(),
        normalize=request.flag("normalize"),
        force=request.flag("force"),
    )
    return await _registered(registry, request, version)


async def _registered(registry: Registry, request: ApiRequest, version: Version) -> Any:
    return registered_view(version, text=await formatted(registry, version, request.text("format")))


def _version(registry: Registry, request: ApiRequest) -> Version:
    subject, number = normalized(request.values["subject"]), request.version()
    deleted = request.flag("deleted")
    found = registry.catalog.find_version(subject, number, deleted=deleted)
    if found is None:
        if not registry.state.has_subject(subject, deleted=deleted):
            raise subject_not_found(subject)
        raise version_not_found(number)
    return found


async def version(registry: Registry, request: ApiRequest) -> Any:
    """One version."""
    found = _version(registry, request)
    text = await formatted(registry, found, request.text("format"))
    return schema_view(found, text=text, qualified=request.text("referenceFormat") == QUALIFIED)


async def version_text(registry: Registry, request: ApiRequest) -> Any:
    """Nothing but the schema."""
    found = _version(registry, request)
    text = await formatted(registry, found, request.text("format"))
    return Answer((found.content.text if text is None else text).encode())


async def referenced_by(registry: Registry, request: ApiRequest) -> Any:
    """The ids of schemas that refer to a version."""
    subject, number, deleted = normalized(request.values["subject"]), request.version(), request.flag("deleted")
    found = registry.catalog.find_version(subject, number, deleted=True)
    if found is None:
        return []
    referrers = registry.catalog.referrers(found.subject, found.version, deleted=deleted)
    return [schema_id for _, schema_id in referrers][window(registry, request, "schema")]


async def delete_version(registry: Registry, request: ApiRequest) -> Any:
    """Delete one version."""
    subject, number = normalized(request.values["subject"]), request.version()
    return await registry.delete_version(subject, number, permanent=request.flag("permanent"))


_PATH: Final = "/subjects/{subject}/versions"
_NOT_FOUND: Final = (
    RegistryErrorCode.SUBJECT_NOT_FOUND,
    RegistryErrorCode.VERSION_NOT_FOUND,
    RegistryErrorCode.INVALID_VERSION,
)

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        _PATH,
        list_versions,
        "List the versions of a subject",
        (
            DELETED,
            Parameter("deletedOnly", Kind.FLAG, "Only those that are soft-deleted."),
            Parameter("deletedAsNegative", Kind.FLAG, "All of them; those soft-deleted as negative numbers."),
            *PAGE,
        ),
        answer="Numbers",
        errors=(RegistryErrorCode.SUBJECT_NOT_FOUND,),
    ),
    Endpoint(
        "POST",
        _PATH,
        register,
        "Register a schema under a subject",
        (NORMALIZE, FORMAT, Parameter("force", Kind.FLAG, "Whether compatibility does not matter.")),
        body="SchemaRequest",
        answer="Registered",
        writes=True,
        ahead=registered_already,
        errors=(
            RegistryErrorCode.INCOMPATIBLE_SCHEMA,
            RegistryErrorCode.INVALID_SCHEMA,
            RegistryErrorCode.OPERATION_NOT_PERMITTED,
            RegistryErrorCode.ID_DOES_NOT_MATCH,
            RegistryErrorCode.INVALID_SUBJECT,
            RegistryErrorCode.SCHEMA_TOO_LARGE,
            RegistryErrorCode.INVALID_RULE_SET,
        ),
    ),
    Endpoint(
        "GET",
        _PATH + "/{version}",
        version,
        "Get a version of a subject",
        (FORMAT, REFERENCE_FORMAT, DELETED, FIND_TAGS),
        answer="Schema",
        errors=_NOT_FOUND,
    ),
    Endpoint(
        "DELETE",
        _PATH + "/{version}",
        delete_version,
        "Delete a version of a subject",
        (PERMANENT,),
        answer="Number",
        writes=True,
        errors=(
            *_NOT_FOUND,
            RegistryErrorCode.VERSION_SOFT_DELETED,
            RegistryErrorCode.VERSION_NOT_SOFT_DELETED,
            RegistryErrorCode.OPERATION_NOT_PERMITTED,
            RegistryErrorCode.REFERENCE_EXISTS,
        ),
    ),
    Endpoint(
        "GET",
        _PATH + "/{version}/schema",
        version_text,
        "Get nothing but a version's text",
        (FORMAT, DELETED),
        errors=_NOT_FOUND,
    ),
    Endpoint(
        "GET",
        _PATH + "/{version}/referencedby",
        referenced_by,
        "List the ids of schemas that refer to a version",
        (DELETED, *PAGE),
        answer="Numbers",
        errors=(RegistryErrorCode.INVALID_VERSION,),
    ),
)
