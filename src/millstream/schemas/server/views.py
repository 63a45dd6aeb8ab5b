"""How what the registry holds looks in answers: Confluent's fields, in its order; what is empty is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from millstream.schemas.parsing import Reference
from millstream.schemas.server.content import Content
from millstream.schemas.server.state import Version
from millstream.schemas.server.subjects import DEFAULT_CONTEXT, context_of, referred

QUALIFIED: Final = "qualified"
CONFIG_FIELDS: Final = (
    "alias",
    "aliasForDeks",
    "normalize",
    "validateFields",
    "validateNewSchemas",
    "validateRules",
    "compatibilityLevel",
    "compatibilityPolicy",
    "compatibilityGroup",
    "defaultMetadata",
    "overrideMetadata",
    "defaultRuleSet",
    "overrideRuleSet",
)


def schema_view(version: Version, *, text: str | None = None, qualified: bool = False) -> dict[str, Any]:
    """Return a version of a subject; `text` in place of its own, references with their contexts where `qualified`."""
    content = version.content
    view: dict[str, Any] = {"subject": version.subject, "version": version.version, "id": version.id}
    view |= _content_view(content, text, _references(version, qualified=qualified))
    return view | {"ts": version.timestamp, "deleted": version.deleted}


def registered_view(version: Version, *, text: str | None = None) -> dict[str, Any]:
    """Return what registering answers with: the version without its subject."""
    view = {"id": version.id, "version": version.version}
    view |= _content_view(version.content, text, version.content.references)
    return view | {"ts": version.timestamp, "deleted": version.deleted}


def id_view(
    version: Version, *, text: str | None = None, with_subject: bool, qualified: bool, id_highest: int | None
) -> dict[str, Any]:
    """Return a schema that was asked for by id."""
    named = {"subject": version.subject, "version": version.version} if with_subject else {}
    view = named | _content_view(version.content, text, _references(version, qualified=qualified))
    if id_highest is not None:
        view["maxId"] = id_highest
    return view | {"ts": version.timestamp, "deleted": version.deleted}


def config_view(config: Mapping[str, Any], *, level_name: str = "compatibilityLevel") -> dict[str, Any]:
    """Return a config; answers to PUT call its level `compatibility`."""
    view = {name: config[name] for name in CONFIG_FIELDS if name in config}
    if level_name != "compatibilityLevel" and "compatibilityLevel" in view:
        view[level_name] = view.pop("compatibilityLevel")
    return view


def _content_view(content: Content, text: str | None, references: Sequence[Reference]) -> dict[str, Any]:
    view: dict[str, Any] = {"guid": content.guid, "schemaType": content.schema_type}
    if references:
        view["references"] = [reference._asdict() for reference in references]
    if content.metadata:
        view["metadata"] = content.metadata
    if content.rule_set:
        view["ruleSet"] = content.rule_set
    view["schema"] = content.text if text is None else text
    return view


def _references(version: Version, *, qualified: bool) -> Sequence[Reference]:
    references = version.content.references
    if not qualified or context_of(version.subject) == DEFAULT_CONTEXT:
        return references
    return [one._replace(subject=referred(version.subject, one.subject)) for one in references]
