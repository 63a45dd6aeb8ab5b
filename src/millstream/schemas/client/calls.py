"""The calls of a registry client without I/O: each a generator that yields Exchanges and is sent their answers.

So one text serves both faces: RegistryClient runs the steps with a blocking HTTP client, AsyncRegistryClient awaits
them, and the serdes, which need several calls for one schema, are written as steps too.

    steps = calls.schema(7)
    exchange = next(steps)                     # Exchange("GET", "schemas/ids/7")
    steps.send({"schema": '"string"'})         # StopIteration, its value the parsed schema

A refusal is thrown into the steps as RegistryError, so that they may do something about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

from millstream.schemas.client.cache import BoundedCache
from millstream.schemas.client.errors import RegistryError
from millstream.schemas.client.registered import (
    ListedSchema,
    Mode,
    RegisteredSchema,
    SchemaText,
    SubjectConfig,
    SubjectVersion,
)
from millstream.schemas.compat import Level
from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.parsing import ParsedSchema, Reference, SchemaType, parse

T = TypeVar("T")

REFERENCES_MAX: Final = 1_000
"""How many schemas one schema may refer to, all levels together."""

# What stands before the subject's own name: `:.context:`.
_CONTEXT: Final = re.compile(r":\.[^:]*:")
_DEFAULT_CONTEXT: Final = ":.:"


class Exchange(NamedTuple):
    """One HTTP request.

    `is_idempotent`: doing it twice is doing it once, so it may be tried again at any time. `may_lag`: what one replica
    of the registry does not know yet, another may.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    is_idempotent: bool = True
    may_lag: bool = False


Steps: TypeAlias = Generator[Exchange, Any, T]
SchemaLike: TypeAlias = ParsedSchema | SchemaText | str
"""A parsed schema, one that was not parsed, or the text of one of type AVRO."""


class RegistryCalls:
    """What can be asked of a registry, and what is remembered of its answers.

    Remembered is what never changes: schemas by id and GUID, referenced versions, the id that a schema got. `deleted`
    everywhere: what is softly deleted counts too.
    """

    def __init__(self, entries_max: int) -> None:
        self._by_id: BoundedCache[tuple[int, str | None], ParsedSchema] = BoundedCache(entries_max)
        self._by_guid: BoundedCache[UUID, ParsedSchema] = BoundedCache(entries_max)
        self._ids: BoundedCache[tuple[str, SchemaLike, bool], int] = BoundedCache(entries_max)
        self._registered: BoundedCache[tuple[str, SchemaLike, bool], RegisteredSchema] = BoundedCache(entries_max)
        # Referenced text and what it refers to itself, by subjects with their contexts.
        self._referenced: BoundedCache[tuple[str, int], tuple[str, tuple[Reference, ...]]] = BoundedCache(entries_max)

    def forget(self) -> None:
        """Forget all answers."""
        for cache in (self._by_id, self._by_guid, self._ids, self._registered, self._referenced):
            cache.clear()

    # Schemas

    def cached_schema(self, schema_id: int, subject: str | None = None) -> ParsedSchema | None:
        """The schema of an id where it is remembered: no request is needed for it."""
        return self._by_id.get((schema_id, subject))

    def schema(self, schema_id: int, subject: str | None = None) -> Steps[ParsedSchema]:
        key = (schema_id, subject)
        found = self._by_id.get(key)
        if found is None:
            answer = yield _get(f"schemas/ids/{schema_id:d}", subject=subject)._replace(may_lag=True)
            found = self._by_id.put(key, (yield from self._parsed(answer, subject)))
        return found

    def schema_by_guid(self, guid: UUID | str) -> Steps[ParsedSchema]:
        guid = guid if isinstance(guid, UUID) else UUID(guid)
        found = self._by_guid.get(guid)
        if found is None:
            answer = yield _get(f"schemas/guids/{guid}")._replace(may_lag=True)
            subject = None
            if _references(answer):
                # The answer says no subject, and so not where its references are looked for.
                contexts = [*(yield from self.ids_of_guid(guid))]
                subject = f":{contexts[0]}:" if contexts else None
            found = self._by_guid.put(guid, (yield from self._parsed(answer, subject)))
        return found

    def ids_of_guid(self, guid: UUID | str) -> Steps[dict[str, int]]:
        answer = yield _get(f"schemas/guids/{guid}/ids")._replace(may_lag=True)
        return {str(_field(one, "context")): _integer(_field(one, "id")) for one in _list(answer)}

    def schema_types(self) -> Steps[list[str]]:
        return _strings((yield _get("schemas/types")))

    def versions_of(self, schema_id: int, *, deleted: bool = False) -> Steps[list[SubjectVersion]]:
        answer = yield _get(f"schemas/ids/{schema_id:d}/versions", deleted=deleted)
        return [SubjectVersion(str(_field(one, "subject")), _integer(_field(one, "version"))) for one in _list(answer)]

    def listed(
        self, prefix: str | None = None, *, latest_only: bool = False, deleted: bool = False
    ) -> Steps[list[ListedSchema]]:
        answer = yield _get("schemas", subjectPrefix=prefix, latestOnly=latest_only, deleted=deleted)
        return [
            ListedSchema(
                str(_field(one, "subject")),
                _integer(_field(one, "version")),
                _integer(_field(one, "id")),
                _named(SchemaType, one.get("schemaType") or SchemaType.AVRO),
            )
            for one in _list(answer)
        ]

    # Subjects and versions

    def subjects(self, prefix: str | None = None, *, deleted: bool = False) -> Steps[list[str]]:
        return _strings((yield _get("subjects", subjectPrefix=prefix, deleted=deleted)))

    def versions(self, subject: str, *, deleted: bool = False) -> Steps[list[int]]:
        return _integers((yield _get(f"{_subject(subject)}/versions", deleted=deleted)))

    def version(self, subject: str, version: int | str, *, deleted: bool = False) -> Steps[RegisteredSchema]:
        answer = yield _get(f"{_subject(subject)}/versions/{_version(version)}", deleted=deleted)
        return (yield from self._registered_schema(answer, subject))

    def latest_with_metadata(self, subject: str, metadata: Mapping[str, str]) -> Steps[RegisteredSchema]:
        pairs = [pair for name, value in metadata.items() for pair in (("key", name), ("value", value))]
        answer = yield Exchange("GET", f"{_subject(subject)}/metadata?{urlencode(pairs)}")
        return (yield from self._registered_schema(answer, subject))

    def lookup(
        self, subject: str, schema: SchemaLike, *, normalize: bool = False, deleted: bool = False
    ) -> Steps[RegisteredSchema]:
        key = (subject, schema, normalize)
        found = self._registered.get(key)
        if found is None:
            path = _path(_subject(subject), normalize=normalize, deleted=deleted)
            answer = yield Exchange("POST", path, _body(schema))
            found = yield from self._registered_schema(answer, subject)
            if not deleted:
                self._registered.put(key, found)
        return found

    def register(self, subject: str, schema: SchemaLike, *, normalize: bool = False) -> Steps[int]:
        key = (subject, schema, normalize)
        found = self._ids.get(key)
        if found is None:
            path = _path(f"{_subject(subject)}/versions", normalize=normalize)
            answer = yield Exchange("POST", path, _body(schema))
            found = self._ids.put(key, _integer(_field(answer, "id")))
        return found

    def referenced_by(self, subject: str, version: int | str) -> Steps[list[int]]:
        return _integers((yield _get(f"{_subject(subject)}/versions/{_version(version)}/referencedby")))

    def delete_subject(self, subject: str, *, permanent: bool = False) -> Steps[list[int]]:
        self._forget_subject(subject)
        path = _path(_subject(subject), permanent=permanent)
        deleted = _integers((yield Exchange("DELETE", path, is_idempotent=False)))
        # Another thread may have asked meanwhile.
        self._forget_subject(subject)
        return deleted

    def delete_version(self, subject: str, version: int | str, *, permanent: bool = False) -> Steps[int]:
        self._forget_subject(subject)
        path = _path(f"{_subject(subject)}/versions/{_version(version)}", permanent=permanent)
        deleted = _integer((yield Exchange("DELETE", path, is_idempotent=False)))
        self._forget_subject(subject)
        return deleted

    # Compatibility

    def compatible(
        self, subject: str, schema: SchemaLike, version: int | str | None = None, *, normalize: bool = False
    ) -> Steps[list[str]]:
        path = f"compatibility/{_subject(subject)}/versions" + ("" if version is None else f"/{_version(version)}")
        answer = yield Exchange("POST", _path(path, verbose=True, normalize=normalize), _body(schema))
        if _field(answer, "is_compatible"):
            return []
        return [str(one) for one in answer.get("messages") or ["the registry gives no reason"]]

    # Configs and modes; a subject of None: all of them

    def config(self, subject: str | None = None, *, default_to_global: bool = False) -> Steps[SubjectConfig]:
        return _config((yield _get(_of("config", subject), defaultToGlobal=default_to_global)))

    def set_config(self, subject: str | None, wanted: SubjectConfig) -> Steps[SubjectConfig]:
        body = {
            name: value
            for name, value in (
                ("compatibility", wanted.compatibility_level),
                ("normalize", wanted.normalize),
                ("alias", wanted.alias),
                ("compatibilityGroup", wanted.compatibility_group),
            )
            if value is not None
        }
        return _config((yield Exchange("PUT", _of("config", subject), body)))

    def delete_config(self, subject: str | None = None) -> Steps[SubjectConfig]:
        return _config((yield Exchange("DELETE", _of("config", subject), is_idempotent=False)))

    def mode(self, subject: str | None = None, *, default_to_global: bool = False) -> Steps[Mode]:
        return _mode((yield _get(_of("mode", subject), defaultToGlobal=default_to_global)))

    def set_mode(self, mode: Mode | str, subject: str | None = None, *, force: bool = False) -> Steps[Mode]:
        path = _path(_of("mode", subject), force=force)
        return _mode((yield Exchange("PUT", path, {"mode": str(mode)})))

    def delete_mode(self, subject: str | None = None) -> Steps[Mode]:
        return _mode((yield Exchange("DELETE", _of("mode", subject), is_idempotent=False)))

    # Contexts

    def contexts(self) -> Steps[list[str]]:
        return _strings((yield _get("contexts")))

    def delete_context(self, context: str) -> Steps[None]:
        yield Exchange("DELETE", f"contexts/{_segment(context)}", is_idempotent=False)

    # What answers hold

    def _registered_schema(self, answer: Any, subject: str) -> Steps[RegisteredSchema]:
        schema = yield from self._parsed(answer, subject)
        version, schema_id = _integer(_field(answer, "version")), _integer(_field(answer, "id"))
        return RegisteredSchema(str(answer.get("subject") or subject), version, schema_id, answer.get("guid"), schema)

    def _parsed(self, answer: Any, subject: str | None) -> Steps[ParsedSchema]:
        """Parse the schema of an answer, after fetching what it refers to, all levels of it.

        Its references stay as they were registered, or it would be another schema to whoever looks it up again; what
        they mean depends on the context of the subject that the answer names, or else of the one that was asked for.
        """
        text, references = str(_field(answer, "schema")), _references(answer)
        resolved: dict[str, str] = {}
        yield from self._resolve(_qualified(references, str(answer.get("subject") or subject or "")), resolved)
        return parse(answer.get("schemaType") or SchemaType.AVRO, text, references, resolved)

    def _resolve(self, references: tuple[Reference, ...], resolved: dict[str, str]) -> Steps[None]:
        """Add the texts of `references` to `resolved`, each behind those it needs itself."""
        pending = list(reversed(references))
        begun: set[str] = set()
        while pending:
            reference = pending[-1]
            if reference.name in resolved:
                pending.pop()
                continue
            text, further = yield from self._reference(reference)
            missing = [one for one in further if one.name not in resolved and one.name not in begun]
            if missing and reference.name not in begun:
                begun.add(reference.name)
                if len(begun) + len(resolved) > REFERENCES_MAX:
                    raise RegistryError(
                        RegistryErrorCode.INVALID_SCHEMA, 200, f"a schema refers to over {REFERENCES_MAX} others"
                    )
                pending.extend(reversed(missing))
                continue
            pending.pop()
            resolved[reference.name] = text

    def _reference(self, reference: Reference) -> Steps[tuple[str, tuple[Reference, ...]]]:
        key = (reference.subject, reference.version)
        found = self._referenced.get(key)
        if found is None:
            # A version that was softly deleted still holds up those that refer to it.
            asked = _get(f"{_subject(reference.subject)}/versions/{_version(reference.version)}", deleted=True)
            answer = yield asked._replace(may_lag=True)
            further = _qualified(_references(answer), reference.subject)
            found = self._referenced.put(key, (str(_field(answer, "schema")), further))
        return found

    def _forget_subject(self, subject: str) -> None:
        def of_subject(key: tuple[str, SchemaLike, bool]) -> bool:
            return key[0] == subject

        self._ids.drop(of_subject)
        self._registered.drop(of_subject)
        self._referenced.drop(lambda key: key[0] == subject)


def _get(path: str, **query: str | bool | None) -> Exchange:
    return Exchange("GET", _path(path, **query))


def _path(path: str, **query: str | bool | None) -> str:
    """Add what differs from the registry's defaults to `path`."""
    given = {name: "true" if value is True else value for name, value in query.items() if value not in {None, False}}
    return f"{path}?{urlencode(given)}" if given else path


def _subject(subject: str) -> str:
    if not subject:
        raise ValueError("a subject has a name: '' is none")
    return f"subjects/{_segment(subject)}"


def _version(version: int | str) -> str:
    """Return a version as it stands in a path; which numbers there are is the registry's to say."""
    text = str(version)
    if text != "latest" and not (text.isascii() and text.removeprefix("-").isdigit()):
        raise ValueError(f"{version!r} is no version of a subject: a number, or 'latest'")
    return text


def _of(path: str, subject: str | None) -> str:
    return path if subject is None else f"{path}/{_segment(subject)}"


def _segment(text: str) -> str:
    """Quote a segment of a path; "." and ".." would be steps of the path."""
    return text.replace(".", "%2E") if text in {".", ".."} else quote(text, safe="")


def _body(schema: SchemaLike) -> dict[str, Any]:
    if isinstance(schema, str):
        return {"schema": schema}
    body: dict[str, Any] = {"schema": schema.text}
    if schema.type is not SchemaType.AVRO:
        body["schemaType"] = schema.type.value
    if schema.references:
        body["references"] = [reference._asdict() for reference in schema.references]
    return body


def _field(answer: Any, name: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise _unreadable(f"an object with {name!r}", answer)
    return answer[name]


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise _unreadable("an object", answer)
    return answer


def _list(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise _unreadable("a list", answer)
    return answer


def _unreadable(wanted: str, answer: Any) -> RegistryError:
    return RegistryError(200, 200, f"the registry answered {str(answer)[:200]!r} in place of {wanted}")


def _strings(answer: Any) -> list[str]:
    return [str(one) for one in _list(answer)]


def _integers(answer: Any) -> list[int]:
    return [_integer(one) for one in _list(answer)]


def _integer(answer: Any) -> int:
    if not isinstance(answer, int) or isinstance(answer, bool):
        raise _unreadable("a whole number", answer)
    return answer


def _references(answer: Any) -> tuple[Reference, ...]:
    return tuple(
        Reference(str(_field(one, "name")), str(_field(one, "subject")), _integer(_field(one, "version")))
        for one in _list(_object(answer).get("references") or [])
    )


def _qualified(references: tuple[Reference, ...], parent: str) -> tuple[Reference, ...]:
    """Return references with the context that `parent`, a subject, lies in, where they name none themselves."""
    context = _CONTEXT.match(parent)
    if context is None or context[0] == _DEFAULT_CONTEXT:
        return references
    return tuple(
        one._replace(subject=context[0] + one.subject.removeprefix(_DEFAULT_CONTEXT))
        if (named := _CONTEXT.match(one.subject)) is None or named[0] == _DEFAULT_CONTEXT
        else one
        for one in references
    )


def _config(answer: Any) -> SubjectConfig:
    if not isinstance(answer, dict):
        raise _unreadable("a config", answer)
    # An answer to GET has the first name, one to PUT the second.
    level = answer.get("compatibilityLevel") or answer.get("compatibility")
    return SubjectConfig(
        None if level is None else _named(Level, level),
        answer.get("normalize"),
        answer.get("alias"),
        answer.get("compatibilityGroup"),
    )


def _mode(answer: Any) -> Mode:
    return _named(Mode, _field(answer, "mode"))


def _named(names: Callable[[str], T], name: str) -> T:
    try:
        return names(name)
    except ValueError as error:
        raise _unreadable(f"one of {names}", name) from error
