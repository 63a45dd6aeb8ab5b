"""/mode: whether schemas may be registered, for all, a context, or a subject."""

from __future__ import annotations

from typing import Any, Final

from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.api import ApiRequest, Endpoint, Kind, Parameter
from millstream.schemas.server.errors import RegistryRefusal, subject_not_found
from millstream.schemas.server.registry import Registry, check_subject, invalid_mode
from millstream.schemas.server.routes.config import setting_of


async def get_mode(registry: Registry, request: ApiRequest) -> Any:
    """What is set, or with defaultToGlobal what holds."""
    subject = setting_of(request)
    mode = registry.catalog.mode(subject) if request.flag("defaultToGlobal") else registry.catalog.own_mode(subject)
    if mode is None:
        raise RegistryRefusal(
            RegistryErrorCode.SUBJECT_MODE_NOT_CONFIGURED,
            f"Subject '{subject}' does not have subject-level mode configured",
        )
    return {"mode": mode}


async def put_mode(registry: Registry, request: ApiRequest) -> Any:
    """Set a mode."""
    subject = setting_of(request)
    if subject is not None:
        check_subject(subject, is_setting=True)
    fields = request.fields()
    mode = fields.get("mode")
    if mode is not None and not isinstance(mode, str):
        raise invalid_mode()
    await registry.update_mode(subject, None if mode is None else mode.upper(), force=request.flag("force"))
    return {} if mode is None else {"mode": mode}


async def delete_mode(registry: Registry, request: ApiRequest) -> Any:
    """Forget what is set."""
    subject, recursive = setting_of(request), request.flag("recursive")
    mode = registry.catalog.own_mode(subject)
    if mode is None and not recursive:
        raise subject_not_found(str(subject))
    await registry.delete_mode(subject, recursive=recursive)
    return {} if mode is None else {"mode": mode}


_DEFAULT_TO_GLOBAL: Final = Parameter("defaultToGlobal", Kind.FLAG, "What holds, where nothing is set.")
_FORCE: Final = Parameter("force", Kind.FLAG, "IMPORT though there are schemas.")
_RECURSIVE: Final = Parameter("recursive", Kind.FLAG, "The modes of all subjects in the context as well.")
_PUT_ERRORS: Final = (
    RegistryErrorCode.INVALID_MODE,
    RegistryErrorCode.OPERATION_NOT_PERMITTED,
    RegistryErrorCode.REFERENCE_EXISTS,
)

ENDPOINTS: Final = (
    Endpoint("GET", "/mode", get_mode, "Get the mode of all", (_DEFAULT_TO_GLOBAL,), answer="Mode"),
    Endpoint(
        "PUT",
        "/mode",
        put_mode,
        "Set the mode of all",
        (_FORCE,),
        body="ModeRequest",
        answer="ModeRequest",
        writes=True,
        errors=_PUT_ERRORS,
    ),
    Endpoint(
        "DELETE",
        "/mode",
        delete_mode,
        "Forget the mode of all",
        (_RECURSIVE,),
        answer="Mode",
        writes=True,
        errors=(RegistryErrorCode.OPERATION_NOT_PERMITTED,),
    ),
    Endpoint(
        "GET",
        "/mode/{subject}",
        get_mode,
        "Get the mode of a subject",
        (_DEFAULT_TO_GLOBAL,),
        answer="Mode",
        errors=(RegistryErrorCode.SUBJECT_MODE_NOT_CONFIGURED,),
    ),
    Endpoint(
        "PUT",
        "/mode/{subject}",
        put_mode,
        "Set the mode of a subject",
        (_FORCE,),
        body="ModeRequest",
        answer="ModeRequest",
        writes=True,
        errors=(*_PUT_ERRORS, RegistryErrorCode.INVALID_SUBJECT),
    ),
    Endpoint(
        "DELETE",
        "/mode/{subject}",
        delete_mode,
        "Forget the mode of a subject",
        (_RECURSIVE,),
        answer="Mode",
        writes=True,
        errors=(RegistryErrorCode.SUBJECT_NOT_FOUND, RegistryErrorCode.OPERATION_NOT_PERMITTED),
    ),
)
