"""What the routes are made of: an endpoint with what it takes, a request as its handler sees it, an answer.

The table of endpoints is data: the app routes by it, and the OpenAPI description is written from it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.parsing import Reference
from millstream.schemas.server.catalog import LATEST, SchemaRequest
from millstream.schemas.server.content import RULE_KINDS
from millstream.schemas.server.errors import RegistryRefusal, not_found
from millstream.schemas.server.records import to_json
from millstream.schemas.server.state import ID_MAX

if TYPE_CHECKING:
    from millstream.schemas.server.registry import Registry

JSON_TYPES: Final = (
    "application/vnd.schemaregistry.v1+json",
    "application/vnd.schemaregistry+json",
    "application/json",
)
BODY_TYPES: Final = (*JSON_TYPES, "application/octet-stream")
TEXT_MAX: Final = 64 * 1024
REFERENCES_GIVEN_MAX: Final = 1_000


class Kind(Enum):
    """What a parameter is."""

    TEXT = "string"
    NUMBER = "integer"
    FLAG = "boolean"


class Parameter(NamedTuple):
    """A parameter of the query."""

    name: str
    kind: Kind
    doc: str


class Answer(NamedTuple):
    """What a handler answers with; None as `body` has none at all."""

    body: bytes | None
    status: int = 200
    content_type: str | None = None
    # Of a write: the offset behind what it wrote, so that another instance can read that far before it passes this on.
    position: int | None = None


Handler = Callable[["Registry", "ApiRequest"], Awaitable[Any]]
"""Returns what is answered as JSON, or an Answer."""


class Endpoint(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    handler: Handler
    summary: str
    parameters: tuple[Parameter, ...] = ()
    # The name of the body's description in openapi.py, and that of the answer.
    body: str | None = None
    answer: str = "Any"
    # Whether it changes something, which only the leader does.
    writes: bool = False
    # Asked before a write, on any instance: what it answers with, if that is not None, is the answer.
    ahead: Handler | None = None
    # Whether the answer depends on nothing but what the registry holds.
    cached: bool = True
    # Status and error codes it may answer with.
    errors: tuple[RegistryErrorCode, ...] = ()


class ApiRequest:
    """A request as handlers see it: everything decoded, nothing trusted."""

    __slots__ = ("_query", "body", "headers", "method", "path", "query_string", "values")

    def __init__(
        self,
        method: str,
        path: str,
        values: Mapping[str, str],
        query: Mapping[str, list[str]],
        headers: Mapping[str, str],
        body: bytes,
        query_string: str,
    ) -> None:
        self.method = method
        # As it is routed: contexts and aliases are put in, each segment quoted.
        self.path = path
        # What stands in the path, by name.
        self.values = values
        self._query = query
        # By lower-case name.
        self.headers = headers
        self.body = body
        self.query_string = query_string

    def text(self, name: str, default: str = "") -> str:
        """Return the first value of a parameter."""
        values = self._query.get(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        """Return all values of a parameter."""
        return self._query.get(name, [])

    def has(self, name: str) -> bool:
        """Whether a parameter is given."""
        return name in self._query

    def flag(self, name: str) -> bool:
        """Return whether a parameter says true."""
        return self.text(name).strip().lower() == "true"

    def number(self, name: str, default: int) -> int:
        """Return a whole number. Raises RegistryRefusal (404, as Confluent's) for what is none."""
        return _number(self.text(name)) if self.has(name) else default

    def path_number(self, name: str) -> int:
        """Return a whole number of the path. Raises RegistryRefusal."""
        return _number(self.values[name])

    def version(self) -> int:
        """Return the version that the path names, LATEST for `latest`. Raises RegistryRefusal."""
        given = self.values["version"].strip()
        if given.lower() == "latest":
            return LATEST
        try:
            version = int(given) if given.isascii() else 0
        except ValueError:
            version = 0
        if version == LATEST or 0 < version <= ID_MAX:
            return version
        raise RegistryRefusal(
            RegistryErrorCode.INVALID_VERSION,
            f"The specified version '{given[:100]}' is not a valid version id. Allowed values are between [1, 2^31-1] "
            'and the string "latest"',
        )

    def window(self, limit_default: int, limit_max: int) -> slice:
        """Return which part of a listing is wanted: `offset` and `limit`, within the bounds."""
        offset = max(self.number("offset", 0), 0)
        limit = self.number("limit", -1)
        return slice(offset, offset + (limit if 0 < limit <= limit_max else limit_default))

    def fields(self) -> dict[str, Any]:
        """Return the body, which is a JSON object. Raises RegistryRefusal."""
        try:
            fields = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise RegistryRefusal(RegistryErrorCode.BAD_REQUEST, f"The body is no JSON: {error}") from error
        if not isinstance(fields, dict):
            raise _unprocessable(f"The body is a JSON object, not {type(fields).__name__}")
        return fields

    def schema(self) -> SchemaRequest:
        """Return the schema in the body. Raises RegistryRefusal."""
        fields = self.fields()
        kind = _field(fields, "schemaType", str) or "AVRO"
        references = _field(fields, "references", list) or []
        if len(references) > REFERENCES_GIVEN_MAX:
            raise _unprocessable(f"references has {len(references)} entries, at most {REFERENCES_GIVEN_MAX} are taken")
        schema_id, version = _field(fields, "id", int), _field(fields, "version", int)
        for name, number in (("id", schema_id), ("version", version)):
            if number is not None and not LATEST <= number <= ID_MAX:
                raise _unprocessable(f"{name} is {number}, and has to be a number from 0 to 2^31-1")
        return SchemaRequest(
            kind,
            _field(fields, "schema", str) or "",
            tuple(map(_reference, references)),
            _object(fields, "metadata"),
            _object(fields, "ruleSet"),
            LATEST if schema_id is None else schema_id,
            version or 0,
        )


def answer_of(result: Any) -> Answer:
    """Return the answer that a handler's result stands for."""
    return result if isinstance(result, Answer) else Answer(to_json(result))


def error_answer(error: RegistryRefusal) -> Answer:
    """Return a refusal as it is answered."""
    message = error.message.encode(errors="replace").decode()
    return Answer(to_json({"error_code": int(error.code), "message": message}), error.code.status)


def _number(text: str) -> int:
    try:
        number = int(text) if text.isascii() and len(text) <= 20 else None
    except ValueError:
        number = None
    if number is None or not -ID_MAX - 1 <= number <= ID_MAX:
        raise not_found()
    return number


def _field(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    value = fields.get(name)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise _unprocessable(f"{name} is a {type(value).__name__}, and has to be a {kind.__name__}")
    return value


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = _field(fields, name, dict)
    return None if value is None else stored_object(name, value) or None


def stored_object(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return metadata or a rule set in the form in which it is stored: what is null or empty is left out.

    Raises RegistryRefusal where it is none.
    """
    try:
        value: dict[str, Any] = _pruned(given)
        to_json(value)
    except (RecursionError, UnicodeEncodeError) as error:
        raise _unprocessable(f"{name} can't be stored: {error}") from error
    if name.lower().endswith("metadata"):
        texts = (value.get("properties", {}), value.get("tags", {}))
        lists = [value.get("sensitive", []), *(texts[1].values() if isinstance(texts[1], dict) else [None])]
        right = (
            all(isinstance(one, dict) for one in texts)
            and all(isinstance(one, str) for one in texts[0].values())
            and all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists)
        )
        if not right:
            raise _unprocessable(f"{name} has properties (texts by name), tags (lists of texts by name) and sensitive")
        return value
    for kind in RULE_KINDS:
        rules = value.get(kind, [])
        if not isinstance(rules, list) or not all(_is_rule(one) for one in rules):
            raise RegistryRefusal(RegistryErrorCode.INVALID_RULE_SET, f"{name}: {kind} is a list of named, typed rules")
        names = [one["name"] for one in rules]
        if len(set(names)) < len(names):
            raise RegistryRefusal(RegistryErrorCode.INVALID_RULE_SET, f"{name}: two of the {kind} have the same name")
    if not isinstance(value.get("enableAt", ""), str):
        raise _unprocessable(f"{name}: enableAt is a text")
    return value


def _is_rule(rule: object) -> bool:
    if not isinstance(rule, dict) or not isinstance(rule.get("name"), str) or not isinstance(rule.get("type"), str):
        return False
    texts = (rule.get(name, "") for name in ("doc", "kind", "mode", "expr", "onSuccess", "onFailure"))
    tags, params = rule.get("tags", []), rule.get("params", {})
    return (
        all(isinstance(one, str) for one in texts)
        and isinstance(rule.get("disabled", False), bool)
        and isinstance(tags, list)
        and all(isinstance(one, str) for one in tags)
        and isinstance(params, dict)
        and all(isinstance(one, str) for one in params.values())
    )


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _pruned(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one is not None and one != [] and one != {}}
    return [_pruned(one) for one in value] if isinstance(value, list) else value


def _reference(given: object) -> Reference:
    if not isinstance(given, dict):
        raise _unprocessable("a reference is an object with name, subject and version")
    name, subject, version = (given.get(field) for field in ("name", "subject", "version"))
    if not isinstance(name, str) or not isinstance(subject, str) or not name or not subject:
        raise _unprocessable("a reference has a name and a subject")
    if not isinstance(version, int) or isinstance(version, bool) or not LATEST <= version <= ID_MAX or version == 0:
        raise _unprocessable(f"the reference {name!r} has to have the number of a version, or -1 for the latest")
    return Reference(name, subject, version)


def _unprocessable(message: str) -> RegistryRefusal:
    return RegistryRefusal(RegistryErrorCode.UNPROCESSABLE, message)
