"""The OpenAPI description, written from the table of endpoints, and a page that shows it."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from typing import Any, Final

import millstream
from millstream.schemas.compat import Level
from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.parsing import SchemaType
from millstream.schemas.server.api import JSON_TYPES, Answer, ApiRequest, Endpoint, Kind
from millstream.schemas.server.catalog import MODES
from millstream.schemas.server.records import to_json
from millstream.schemas.server.registry import Registry
from millstream.schemas.server.routes import ENDPOINTS
from millstream.schemas.server.state import ID_MAX

_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "integer", "format": "int32"}
_FLAG: Final = {"type": "boolean"}
_OBJECT: Final = {"type": "object"}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _object(required: tuple[str, ...] = (), /, **properties: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"type": "object", "properties": properties}
    return described | ({"required": list(required)} if required else {})


def _named(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_STORED: Final = {
    "guid": _TEXT,
    "schemaType": _TEXT,
    "references": _list(_named("Reference")),
    "metadata": _named("Metadata"),
    "ruleSet": _named("RuleSet"),
    "schema": _TEXT,
    "ts": {"type": "integer", "format": "int64"},
    "deleted": _FLAG,
}
_SETTINGS: Final = {
    "alias": _TEXT,
    "aliasForDeks": _TEXT,
    "normalize": _FLAG,
    "validateFields": _FLAG,
    "validateNewSchemas": _FLAG,
    "validateRules": _FLAG,
    "compatibilityPolicy": _TEXT,
    "compatibilityGroup": _TEXT,
    "defaultMetadata": _named("Metadata"),
    "overrideMetadata": _named("Metadata"),
    "defaultRuleSet": _named("RuleSet"),
    "overrideRuleSet": _named("RuleSet"),
}
_LEVEL: Final = {"type": "string", "enum": [str(level) for level in Level]}
_MODE: Final = {"type": "string", "enum": list(MODES)}

_COMPONENTS: Final[dict[str, Any]] = {
    "Any": {},
    "Object": _OBJECT,
    "Number": _NUMBER,
    "Numbers": _list(_NUMBER),
    "Texts": _list(_TEXT),
    "Reference": _object(
        ("name", "subject", "version"),
        name={"type": "string", "minLength": 1},
        subject={"type": "string", "minLength": 1},
        version={"type": "integer", "minimum": 1, "maximum": ID_MAX},
    ),
    "Metadata": _object(
        tags={"type": "object", "additionalProperties": _list(_TEXT)},
        properties={"type": "object", "additionalProperties": _TEXT},
        sensitive=_list(_TEXT),
    ),
    "Rule": _object(
        ("name", "type"),
        name=_TEXT,
        doc=_TEXT,
        kind=_TEXT,
        mode=_TEXT,
        type=_TEXT,
        expr=_TEXT,
        onSuccess=_TEXT,
        onFailure=_TEXT,
        tags=_list(_TEXT),
        params={"type": "object", "additionalProperties": _TEXT},
        disabled=_FLAG,
    ),
    "RuleSet": _object(
        migrationRules=_list(_named("Rule")), domainRules=_list(_named("Rule")), encodingRules=_list(_named("Rule"))
    ),
    "SchemaRequest": _object(
        schemaType={"type": "string", "enum": [str(one) for one in SchemaType], "default": "AVRO"},
        schema=_TEXT,
        references=_list(_named("Reference")),
        metadata=_named("Metadata"),
        ruleSet=_named("RuleSet"),
        id={"type": "integer", "minimum": -1, "maximum": ID_MAX},
        version={"type": "integer", "minimum": -1, "maximum": ID_MAX},
    ),
    "Schema": _object(("subject", "version", "id", "schema"), subject=_TEXT, version=_NUMBER, id=_NUMBER, **_STORED),
    "Schemas": _list(_named("Schema")),
    "SchemaString": _object(("schema",), subject=_TEXT, version=_NUMBER, maxId=_NUMBER, **_STORED),
    "Registered": _object(("id",), id=_NUMBER, version=_NUMBER, **_STORED),
    "SubjectVersions": _list(_object(("subject", "version"), subject=_TEXT, version=_NUMBER)),
    "ContextIds": _list(_object(("context", "id"), context=_TEXT, id=_NUMBER)),
    "Compatible": _object(("is_compatible",), is_compatible=_FLAG, messages=_list(_TEXT)),
    "Config": _object(compatibilityLevel=_LEVEL, **_SETTINGS),
    "ConfigRequest": _object(compatibility=_LEVEL, **_SETTINGS),
    "Mode": _object(mode=_TEXT),
    "ModeRequest": _object(mode=_MODE),
    "Error": _object(("error_code", "message"), error_code=_NUMBER, message=_TEXT),
}

_IN_PATH: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_PATH_DOCS: Final = {
    "subject": ("A subject; `:.context:subject` outside of the default context.", {"type": "string", "minLength": 1}),
    "version": ("A version's number, or `latest`.", {"type": "string", "pattern": "^([1-9][0-9]{0,8}|latest|-1)$"}),
    "id": ("A schema's id.", {"type": "integer", "minimum": 0, "maximum": ID_MAX}),
    "guid": ("A schema's guid.", {"type": "string", "format": "uuid"}),
    "context": ("A context, with its dot.", {"type": "string", "pattern": "^\\.[a-z0-9]+$"}),
}


def _plain(path: str) -> str:
    """Return a path without the types of what is in it."""
    return _IN_PATH.sub(r"{\1}", path)


@cache
def description() -> dict[str, Any]:
    """Return the description as a JSON object."""
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(_plain(endpoint.path), {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Millstream Schema Registry",
            "version": millstream.__version__,
            "description": "Confluent's interface to a schema registry. Each path is also there within a context, "
            "behind /contexts/{context}.",
        },
        "paths": paths,
        "components": {"schemas": _COMPONENTS},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    for name in _IN_PATH.findall(endpoint.path):
        doc, schema = _PATH_DOCS[name]
        parameters.append({"name": name, "in": "path", "required": True, "description": doc, "schema": schema})
    for parameter in endpoint.parameters:
        schema = {"type": parameter.kind.value} | ({"format": "int32"} if parameter.kind is Kind.NUMBER else {})
        parameters.append({"name": parameter.name, "in": "query", "description": parameter.doc, "schema": schema})
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__
        + ("_" + endpoint.method.lower() if endpoint.path == "/" else "")
        + ("_of_subject" if endpoint.path in ("/config/{subject}", "/mode/{subject}") else ""),
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": _responses(endpoint),
    }
    if endpoint.body is not None:
        content = {one: {"schema": _named(endpoint.body)} for one in (JSON_TYPES[0], JSON_TYPES[2])}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.answer == "Nothing":
        responses: dict[str, Any] = {"204": {"description": "Done."}}
    elif endpoint.answer == "Any":
        responses = {"200": {"description": "As it is stored.", "content": {"*/*": {"schema": {}}}}}
    else:
        content = {one: {"schema": _named(endpoint.answer)} for one in JSON_TYPES}
        responses = {"200": {"description": "Done.", "content": content}}
    codes: dict[int, list[str]] = {status: [RegistryErrorCode(status).sentence] for status in (400, 404, 500)}
    if endpoint.body is not None:
        codes |= {status: [RegistryErrorCode(status).sentence] for status in (408, 413, 415, 422)}
    for code in endpoint.errors:
        codes.setdefault(code.status, []).append(f"{int(code)}: {code.sentence}")
    content = {one: {"schema": _named("Error")} for one in JSON_TYPES}
    for status, named in sorted(codes.items()):
        responses[str(status)] = {"description": "; ".join(named), "content": content}
    return responses


async def openapi_json(_registry: Registry, _request: ApiRequest) -> Any:
    """The description."""
    return Answer(to_json(description()), content_type="application/json")


async def openapi_page(_registry: Registry, _request: ApiRequest) -> Any:
    """The same for people, without a script."""
    rows = "".join(
        f"<tr><td><code>{one.method}</code></td><td><code>{escape(_plain(one.path))}</code></td>"
        f"<td>{escape(one.summary)}</td><td>{' '.join(f'<code>{escape(p.name)}</code>' for p in one.parameters)}</td>"
        f"<td>{' '.join(str(int(code)) for code in one.errors)}</td></tr>"
        for one in ENDPOINTS
    )
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Schema registry</title><style>"
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}"
        "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;"
        "text-align:left;vertical-align:top}</style>"
        f"<h1>Millstream Schema Registry {escape(millstream.__version__)}</h1>"
        "<p>Confluent's interface. <a href=openapi.json>openapi.json</a> describes it for programs. Each path is also "
        "there within a context: <code>/contexts/{context}/...</code>.</p>"
        "<table><tr><th>Method<th>Path<th>What it does<th>Parameters<th>Error codes</tr>" + rows + "</table></html>"
    )
    return Answer(page.encode(), content_type="text/html; charset=utf-8")


OPENAPI_ENDPOINTS: Final = (
    Endpoint("GET", "/openapi.json", openapi_json, "Get this description"),
    Endpoint("GET", "/docs", openapi_page, "Get this page"),
)
