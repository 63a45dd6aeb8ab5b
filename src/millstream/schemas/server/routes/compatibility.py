"""/compatibility: whether a schema may follow those that are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.api import ApiRequest, Endpoint
from millstream.schemas.server.catalog import LATEST
from millstream.schemas.server.errors import RegistryRefusal, version_not_found
from millstream.schemas.server.registry import Registry
from millstream.schemas.server.routes.parameters import NORMALIZE, VERBOSE
from millstream.schemas.server.state import Version
from millstream.schemas.server.subjects import normalized


async def check_version(registry: Registry, request: ApiRequest) -> Any:
    """Whether a schema is compatible with one version."""
    subject, number = normalized(request.values["subject"]), request.version()
    found = registry.state.latest(subject) if number == LATEST else registry.state.find_version(subject, number)
    if (found is None or found.deleted) and number != LATEST:
        raise version_not_found(number)
    return await _check(registry, request, subject, [] if found is None else [found])


async def check_all(registry: Registry, request: ApiRequest) -> Any:
    """Whether a schema is compatible with as many versions as the level says."""
    subject = normalized(request.values["subject"])
    return await _check(
        registry, request, subject, [one for one in registry.state.versions(subject) if not one.deleted]
    )


async def _check(registry: Registry, request: ApiRequest, subject: str, previous: Sequence[Version]) -> Any:
    verbose = request.flag("verbose")
    schema = request.schema()
    try:
        messages = await registry.check(subject, schema, previous, normalize=request.flag("normalize"))
    except RegistryRefusal as error:
        if not verbose or error.code is not RegistryErrorCode.INVALID_SCHEMA:
            raise
        messages = [error.message]
    return {"is_compatible": not messages} | ({"messages": messages} if verbose else {})


ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/compatibility/subjects/{subject}/versions/{version}",
        check_version,
        "Say whether a schema is compatible with a version",
        (NORMALIZE, VERBOSE),
        body="SchemaRequest",
        answer="Compatible",
        errors=(
            RegistryErrorCode.VERSION_NOT_FOUND,
            RegistryErrorCode.INVALID_VERSION,
            RegistryErrorCode.INVALID_SCHEMA,
        ),
    ),
    Endpoint(
        "POST",
        "/compatibility/subjects/{subject}/versions",
        check_all,
        "Say whether a schema could be registered",
        (NORMALIZE, VERBOSE),
        body="SchemaRequest",
        answer="Compatible",
        errors=(RegistryErrorCode.INVALID_SCHEMA,),
    ),
)
