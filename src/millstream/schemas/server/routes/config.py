"""/config: compatibility level and more, for all, a context, or a subject."""

from __future__ import annotations

from typing import Any, Final

from millstream.schemas.compat import Level
from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.server.api import ApiRequest, Endpoint, Kind, Parameter, stored_object
from millstream.schemas.server.errors import RegistryRefusal, subject_not_found
from millstream.schemas.server.registry import Registry, check_subject
from millstream.schemas.server.subjects import is_default_context, normalized
from millstream.schemas.server.views import config_view

# What may be set, and what it is; a level is called `compatibility` where it is set.
_FIELDS: Final[dict[str, type]] = {
    "alias": str,
    "aliasForDeks": str,
    "normalize": bool,
    "validateFields": bool,
    "validateNewSchemas": bool,
    "validateRules": bool,
    "compatibility": str,
    "compatibilityPolicy": str,
    "compatibilityGroup": str,
    "defaultMetadata": dict,
    "overrideMetadata": dict,
    "defaultRuleSet": dict,
    "overrideRuleSet": dict,
}


def setting_of(request: ApiRequest) -> str | None:
    """Return the subject or context whose settings are meant; None for the default context."""
    subject = request.values.get("subject", "")
    return None if is_default_context(subject) else normalized(subject)


async def get_config(registry: Registry, request: ApiRequest) -> Any:
    """What is set, or with defaultToGlobal what holds."""
    subject = setting_of(request)
    config = (
        registry.catalog.config(subject) if request.flag("defaultToGlobal") else registry.catalog.own_config(subject)
    )
    if config is None:
        raise RegistryRefusal(
            RegistryErrorCode.SUBJECT_COMPATIBILITY_NOT_CONFIGURED,
            f"Subject '{subject}' does not have subject-level compatibility configured",
        )
    return config_view(config)


async def put_config(registry: Registry, request: ApiRequest) -> Any:
    """Set some fields."""
    subject = setting_of(request)
    if subject is not None:
        check_subject(subject, is_setting=True)
    changes = _changes(request.fields())
    return config_view(await registry.update_config(subject, changes), level_name="compatibility")


async def delete_config(registry: Registry, request: ApiRequest) -> Any:
    """Forget what is set."""
    subject = setting_of(request)
    config = registry.catalog.own_config(subject)
    if config is None:
        raise subject_not_found(str(subject))
    await registry.delete_config(subject)
    return config_view(config)


def _changes(fields: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, kind in _FIELDS.items():
        if name not in fields:
            continue
        value: Any = fields[name]
        if value is not None and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
            raise RegistryRefusal(
                RegistryErrorCode.UNPROCESSABLE,
                f"{name} is a {type(value).__name__}, and has to be a {kind.__name__}",
            )
        if isinstance(value, dict):
            value = stored_object(name, value)
        if name == "compatibility":
            changes["compatibilityLevel"] = _level(value) if isinstance(value, str) else None
        else:
            changes[name] = value
    return changes


def _level(given: str) -> str:
    try:
        return str(Level(given.upper()))
    except ValueError:
        raise RegistryRefusal(
            RegistryErrorCode.INVALID_COMPATIBILITY_LEVEL,
            f"Invalid compatibility level. Valid values are {', '.join(Level)}",
        ) from None


_DEFAULT_TO_GLOBAL: Final = Parameter("defaultToGlobal", Kind.FLAG, "What holds, where nothing is set.")
_PUT_ERRORS: Final = (
    RegistryErrorCode.INVALID_COMPATIBILITY_LEVEL,
    RegistryErrorCode.OPERATION_NOT_PERMITTED,
    RegistryErrorCode.INVALID_RULE_SET,
)

ENDPOINTS: Final = (
    Endpoint("GET", "/config", get_config, "Get the config of all", (_DEFAULT_TO_GLOBAL,), answer="Config"),
    Endpoint(
        "PUT",
        "/config",
        put_config,
        "Set fields of the config of all",
        body="ConfigRequest",
        answer="ConfigRequest",
        writes=True,
        errors=_PUT_ERRORS,
    ),
    Endpoint(
        "DELETE",
        "/config",
        delete_config,
        "Forget the config of all",
        answer="Config",
        writes=True,
        errors=(RegistryErrorCode.OPERATION_NOT_PERMITTED,),
    ),
    Endpoint(
        "GET",
        "/config/{subject}",
        get_config,
        "Get the config of a subject",
        (_DEFAULT_TO_GLOBAL,),
        answer="Config",
        errors=(RegistryErrorCode.SUBJECT_COMPATIBILITY_NOT_CONFIGURED,),
    ),
    Endpoint(
        "PUT",
        "/config/{subject}",
        put_config,
        "Set fields of a subject's config",
        body="ConfigRequest",
        answer="ConfigRequest",
        writes=True,
        errors=(*_PUT_ERRORS, RegistryErrorCode.INVALID_SUBJECT),
    ),
    Endpoint(
        "DELETE",
        "/config/{subject}",
        delete_config,
        "Forget a subject's config",
        answer="Config",
        writes=True,
        errors=(RegistryErrorCode.SUBJECT_NOT_FOUND, RegistryErrorCode.OPERATION_NOT_PERMITTED),
    ),
)
