"""Questions to the registry's contents: what a subject falls back on, whether a schema is there, whether it may come.

Nothing here changes anything or waits. Parsed schemas are kept, as many as `schema.cache.size` says; a schema is parsed
when it is first asked for, never when it is read from the topic.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, NamedTuple, TypeVar

from millstream.schemas.compat import Level, verbose_messages
from millstream.schemas.error_codes import RegistryErrorCode
from millstream.schemas.parsing import InvalidSchemaError, ParsedSchema, Reference, parse
from millstream.schemas.server.content import Content
from millstream.schemas.server.errors import RegistryRefusal
from millstream.schemas.server.settings import RegistryConfig
from millstream.schemas.server.state import RegistryState, Version
from millstream.schemas.server.subjects import (
    DEFAULT_CONTEXT,
    EVERY_CONTEXT,
    GLOBAL_SUBJECT,
    context_of,
    referred,
    split,
)

LATEST: Final = -1
READWRITE: Final = "READWRITE"
READONLY: Final = "READONLY"
READONLY_OVERRIDE: Final = "READONLY_OVERRIDE"
IMPORT: Final = "IMPORT"
FORWARD: Final = "FORWARD"
MODES: Final = (READWRITE, READONLY, READONLY_OVERRIDE, IMPORT)
READ_ONLY_MODES: Final = (READONLY, READONLY_OVERRIDE)
# FORWARD is Confluent Cloud's; a topic may hold it. Ids come with the schemas in both.
IMPORT_MODES: Final = (IMPORT, FORWARD)
# Schemas that one schema may need, directly or by way of others.
REFERENCES_MAX: Final = 1_000
# Stored schemas of which it is remembered what they are in canonical form.
CANONICAL_MAX: Final = 100_000
_LEVELS: Final = frozenset(map(str, Level))
# Characters of a schema that an error message shows.
_SHOWN_MAX: Final = 500

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that keeps what was used last."""

    def __init__(self, count_max: int, weight_max: int) -> None:
        self._count_max = count_max
        self._weight_max = weight_max
        # Invariant: _weight is the sum of the entries' weights, and at most _weight_max where there are several.
        self._weight = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get_or_make(self, key: K, make: Callable[[], V], weight: int = 1) -> V:
        """Return what is kept under `key`, made now if it is not there; `weight` counts against the bound."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
            return found[0]
        value = make()
        self._entries[key] = value, weight
        self._weight += weight
        while len(self._entries) > 1 and (len(self._entries) > self._count_max or self._weight > self._weight_max):
            self._weight -= self._entries.popitem(last=False)[1][1]
        return value

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)


class SchemaRequest(NamedTuple):
    """A schema as somebody sends it. `id` is -1 and `version` 0 where they leave that to the registry."""

    schema_type: str = "AVRO"
    text: str = ""
    references: tuple[Reference, ...] = ()
    metadata: Mapping[str, Any] | None = None
    rule_set: Mapping[str, Any] | None = None
    id: int = -1
    version: int = 0


class ParseTask(NamedTuple):
    """A schema to be parsed, with all it refers to; `run` may take long and is for any thread."""

    request: SchemaRequest
    references: tuple[Reference, ...]
    resolved: Mapping[str, str]
    digests: tuple[bytes, ...]
    normalize: bool
    # Whether it is new, and has to be right in ways that those which are there need not be.
    strict: bool

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What makes two tasks one."""
        return self.request.schema_type, self.request.text, self.references, self.digests, self.normalize, self.strict

    @property
    def weight(self) -> int:
        """Characters to be parsed: about what work it makes, and what the outcome takes of memory."""
        return len(self.request.text) + sum(map(len, self.resolved.values()))

    def run(self) -> ParsedSchema:
        """Parse. Raises RegistryRefusal."""
        request = self.request
        try:
            parsed = parse(request.schema_type, request.text, self.references, self.resolved, strict=self.strict)
            return parsed.normalized() if self.normalize else parsed
        except InvalidSchemaError as error:
            shown = request.text if len(request.text) <= _SHOWN_MAX else f"{request.text[:_SHOWN_MAX]}..."
            raise RegistryRefusal(
                RegistryErrorCode.INVALID_SCHEMA,
                f"Invalid schema of type {request.schema_type}, details: {error}; the schema is {shown!r}",
            ) from error
        except UnicodeEncodeError as error:
            raise RegistryRefusal(
                RegistryErrorCode.INVALID_SCHEMA, f"Invalid schema, details: it is no Unicode text: {error.reason}"
            ) from error


class CanonicalTask(NamedTuple):
    """A stored schema whose canonical form is asked for; `run` may take long and is for any thread."""

    digest: bytes
    parsing: ParseTask

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What makes two tasks one."""
        return self.digest, self.parsing.digests

    def run(self) -> bytes | None:
        """Return the digest of the canonical text; None for a schema that this registry can't read."""
        try:
            return _text_digest(self.parsing.run().text)
        except RegistryRefusal:
            return None


class Comparison(NamedTuple):
    """A schema to be held against earlier ones (the newest first); `run` may take long and is for any thread."""

    level: Level
    new: ParsedSchema
    earlier: tuple[tuple[Version, ParsedSchema], ...]

    def run(self) -> list[str]:
        """Return in words what is incompatible with the first that something is; empty where nothing is."""
        # The library takes them oldest first, and looks at the last where the level is not transitive.
        oldest_first = self.earlier[::-1]
        messages = verbose_messages(
            self.level, self.new, [parsed for _, parsed in oldest_first], [one.version for one, _ in oldest_first]
        )
        if messages:
            messages.append(f"{{validateFields: 'false', compatibility: '{self.level}'}}")
        return messages


class Catalog:
    """The read side of one registry."""

    def __init__(self, config: RegistryConfig, state: RegistryState) -> None:
        self._state = state
        self._config = config
        self._validates_by_default = config.boolean("schema.validate.new.schemas")
        self._level_default = config.string("schema.compatibility.level").upper()
        self._parsed: Recent[tuple[Hashable, ...], ParsedSchema] = Recent(
            config.integer("schema.cache.size"), config.integer("schema.cache.characters.max")
        )
        # The digest of a stored schema's canonical text, by the task that found it; None where it has none.
        self._canonical: Recent[tuple[Hashable, ...], bytes | None] = Recent(CANONICAL_MAX, CANONICAL_MAX)

    # What holds for a subject.

    def mode(self, subject: str | None) -> str:
        """Return the mode that holds for a subject: its own, its context's, or that of all; READONLY_OVERRIDE wins."""
        state = self._state
        for around in (state.mode_around(subject), state.mode(GLOBAL_SUBJECT)):
            if around == READONLY_OVERRIDE:
                return around
        return state.mode(subject) or state.mode_around(subject) or READWRITE

    def config(self, subject: str | None) -> dict[str, Any]:
        """Return the config that holds for a subject: what is set for it, over what is set around it."""
        state = self._state
        own = state.config(subject)
        if subject is None or own is None:
            return self._with_level(own or state.config_around(subject) or {})
        return self._with_level({**_understood(state.config(None) or {}), **_understood(own)})

    def own_config(self, subject: str | None) -> dict[str, Any] | None:
        """Return what is set for exactly this subject or context; the default level where that is for all of them."""
        own = self._state.config(subject)
        if own is None and subject not in (None, GLOBAL_SUBJECT):
            return None
        return self._with_level(own or {})

    def _with_level(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"compatibilityLevel": self._level_default, **_understood(config)}

    def own_mode(self, subject: str | None) -> str | None:
        """Return the mode set for exactly this subject or context; READWRITE where that is for all of them."""
        return self._state.mode(subject) or (READWRITE if subject in (None, GLOBAL_SUBJECT) else None)

    def validates(self, subject: str) -> bool:
        """Whether new schemas of a subject have to be right in ways that older registries did not ask for."""
        return self.config(subject).get("validateNewSchemas", self._validates_by_default) is not False

    def normalizes(self, subject: str, asked: bool) -> bool:
        """Whether schemas of a subject are normalised."""
        return asked or self.config(subject).get("normalize") is True

    def aliased(self, subject: str) -> str:
        """Return which subject is meant: the one that its config's alias names."""
        config = self._state.config(subject)
        alias = config.get("alias") if config else None
        return referred(subject, alias) if isinstance(alias, str) and alias else subject

    # Schemas.

    def parse(
        self, subject: str, request: SchemaRequest, *, normalize: bool = False, strict: bool = False
    ) -> ParsedSchema:
        """Return the schema in canonical form, its references resolved. Raises RegistryRefusal."""
        task = self.parsing(subject, request, normalize=normalize, strict=strict)
        return self._parsed.get_or_make(task.key, task.run, task.weight)

    def parsing(
        self, subject: str, request: SchemaRequest, *, normalize: bool = False, strict: bool = False
    ) -> ParseTask:
        """Return what `parse` would do. Raises RegistryRefusal for references that lead nowhere."""
        return ParseTask(request, *self._resolved(subject, request.references), normalize, strict)

    def is_parsed(self, task: ParseTask) -> bool:
        """Whether it was done, and the outcome is kept."""
        return task.key in self._parsed

    def keep(self, task: ParseTask, parsed: ParsedSchema) -> None:
        """Keep what a task came to."""
        self._parsed.get_or_make(task.key, lambda: parsed, task.weight)

    def parse_version(self, version: Version) -> ParsedSchema:
        """Return a registered schema as it was parsed. Raises RegistryRefusal for one that this registry can't read."""
        return self.parse(version.subject, request_of(version.content))

    def content(self, parsed: ParsedSchema, request: SchemaRequest) -> Content:
        """Return what would be stored for a schema that was sent."""
        return Content(str(parsed.type), parsed.text, parsed.references, request.metadata, request.rule_set)

    def registered(
        self, subject: str, request: SchemaRequest, *, normalize: bool, deleted: bool = False
    ) -> Version | None:
        """Return the version of a subject that a schema was registered as; a soft-deleted one with `deleted`.

        Without metadata and rules of its own a schema is found by those of the subject's latest version as well. Raises
        RegistryRefusal.
        """
        state = self._state
        parsed = self.parse(subject, request, normalize=normalize)
        for variant in self._variants(subject, request, deleted=deleted):
            content = self.content(parsed, variant)
            version = self._as_stored(subject, content, deleted=deleted)
            if version is not None:
                return version
            for version in reversed(state.versions(subject)):
                if (deleted or not version.deleted) and self._is_same(version, parsed, content):
                    return version
        return None

    def unread(self, subject: str, request: SchemaRequest, *, normalize: bool, deleted: bool) -> list[CanonicalTask]:
        """Return what `registered` would have to read of the subject's versions. Raises RegistryRefusal."""
        parsed = self.parse(subject, request, normalize=normalize)
        if self._as_stored(subject, self.content(parsed, request), deleted=deleted) is not None:
            return []
        tasks: list[CanonicalTask] = []
        for version in self._state.versions(subject):
            content = version.content
            if (content.schema_type, content.references) == (str(parsed.type), parsed.references):
                with suppress(RegistryRefusal):  # what it refers to is not there
                    tasks.append(self._canonical_task(version))
        return [task for task in tasks if task.key not in self._canonical]

    def keep_canonical(self, task: CanonicalTask, digest: bytes | None) -> None:
        """Keep what a task came to."""
        self._canonical.get_or_make(task.key, lambda: digest)

    def _canonical_task(self, version: Version) -> CanonicalTask:
        return CanonicalTask(version.content.digest, self.parsing(version.subject, request_of(version.content)))

    def _as_stored(self, subject: str, content: Content, *, deleted: bool) -> Version | None:
        """Return the version of a subject that was stored word for word as `content`."""
        found = self._state.find_content(context_of(subject), content)
        if found is None or subject not in found[1]:
            return None
        version = self._state.find_version(subject, found[1][subject])
        if version is not None and version.content == content and (deleted or not version.deleted):
            return version
        return None

    def _variants(self, subject: str, request: SchemaRequest, *, deleted: bool) -> Iterable[SchemaRequest]:
        yield request
        latest = self._state.latest(subject)
        if latest is None and deleted:
            latest = next(reversed(self._state.versions(subject)), None)
        if latest is not None and (latest.content.metadata or latest.content.rule_set):
            inherited = self.inherited(request, latest)
            if inherited != request:
                yield inherited

    def inherited(self, request: SchemaRequest, latest: Version | None) -> SchemaRequest:
        """Return a request with what it leaves out taken from the version before."""
        if latest is None:
            return request
        if not request.text.strip():
            content = latest.content
            request = request._replace(
                text=content.text, schema_type=content.schema_type, references=content.references
            )
        return request._replace(
            metadata=request.metadata if request.metadata is not None else latest.content.metadata,
            rule_set=request.rule_set if request.rule_set is not None else latest.content.rule_set,
        )

    def _is_same(self, version: Version, parsed: ParsedSchema, content: Content) -> bool:
        """Whether a version says what `content` does, though it was stored in other words by another registry."""
        there = version.content
        if (there.schema_type, there.references) != (content.schema_type, content.references):
            return False
        if (there.metadata, there.rule_set) != (content.metadata, content.rule_set):
            return False
        if there.text == content.text:
            return True
        try:
            task = self._canonical_task(version)
        except RegistryRefusal:
            return False
        return self._canonical.get_or_make(task.key, task.run) == _text_digest(parsed.text)

    def earlier(self, subject: str, request: SchemaRequest, previous: Sequence[Version]) -> list[Version]:
        """Return which of `previous` (ascending) a schema must go with, the newest first."""
        config = self.config(subject)
        level = Level(config["compatibilityLevel"])
        if level is Level.NONE:
            return []
        group = config.get("compatibilityGroup")
        if isinstance(group, str) and group:
            of_group = _property(request.metadata, group)
            previous = [one for one in previous if _property(one.content.metadata, group) == of_group]
        return list(reversed(previous if level.is_transitive else previous[-1:]))

    def comparison(self, subject: str, new: ParsedSchema, earlier: Sequence[Version]) -> Comparison:
        """Return what holds a schema against what `earlier` returned."""
        level = Level(self.config(subject)["compatibilityLevel"])
        return Comparison(level, new, tuple((one, self.parse_version(one)) for one in earlier))

    # Finding.

    def find_version(self, subject: str, number: int, *, deleted: bool = False) -> Version | None:
        """Return a version of a subject, the latest for LATEST; in the default context the others are searched too."""
        found = self._find_version(subject, number, deleted=deleted)
        if found is not None or context_of(subject) != DEFAULT_CONTEXT:
            return found
        for context in self._state.contexts()[1:]:
            found = self._find_version(f":{context}:{subject}", number, deleted=deleted)
            if found is not None:
                return found
        return None

    def _find_version(self, subject: str, number: int, *, deleted: bool) -> Version | None:
        if number == LATEST:
            return self._state.latest(subject)
        version = self._state.find_version(subject, number)
        return version if version is not None and (deleted or not version.deleted) else None

    def find_id(self, schema_id: int, subject: str | None) -> Version | None:
        """Return a version that has an id: in the subject's context, or by the subject's name in any other one."""
        of = split(subject or "")
        found = self._state.find_id(of.context, schema_id, str(of))
        if found is not None or not of.name or of.context != DEFAULT_CONTEXT:
            return found
        for context in self._state.contexts()[1:]:
            found = self._state.find_id(context, schema_id, f":{context}:{of.name}")
            if found is not None:
                return found
        return self._state.find_id(DEFAULT_CONTEXT, schema_id)

    def find_digest(self, digest: bytes) -> list[tuple[str, int]]:
        """Return context and id of a schema in every context that has it."""
        found = ((context, self._state.find_digest(context, digest)) for context in self._state.contexts())
        return [(context, one[0]) for context, one in found if one is not None and one[1]]

    def referrers(self, subject: str, number: int, *, deleted: bool) -> list[tuple[str, int]]:
        """Return context and id of schemas that refer to a version; of those that are deleted with `deleted` alone."""
        return sorted(
            (context, schema_id)
            for context, schema_id in self._state.referrers(subject, number)
            if deleted or any(not one.deleted for one in self._state.versions_of_id(context, schema_id))
        )

    def subjects(self, prefix: str) -> list[str]:
        """Return the subjects that begin with `prefix`, in order; `:*:` before it means in every context."""
        if prefix.startswith(EVERY_CONTEXT):
            name = prefix.removeprefix(EVERY_CONTEXT)
            return sorted(one for one in self._state.subjects() if split(one).name.startswith(name))
        found = (one for one in self._state.subjects() if one.startswith(prefix))
        in_default = not prefix.startswith(":")
        return sorted(one for one in found if not (in_default and one.startswith(":.")))

    def _resolved(
        self, subject: str, references: tuple[Reference, ...]
    ) -> tuple[tuple[Reference, ...], dict[str, str], tuple[bytes, ...]]:
        """Return the references with their versions as numbers, every text they need by name, and digests of those."""
        if not references:
            return (), {}, ()
        direct: list[Reference] = []
        texts: dict[str, str] = {}
        digests: list[bytes] = []
        waiting = [(subject, reference, True) for reference in references]
        for parent, reference, is_direct in waiting:
            if len(waiting) > REFERENCES_MAX:
                raise RegistryRefusal(
                    RegistryErrorCode.INVALID_SCHEMA,
                    f"Invalid schema, details: it needs more than {REFERENCES_MAX} others",
                )
            found = self.find_version(referred(parent, reference.subject), reference.version, deleted=True)
            if found is None:
                raise RegistryRefusal(
                    RegistryErrorCode.INVALID_SCHEMA,
                    f'Invalid schema, details: No schema reference found for subject "{reference.subject}" and version '
                    f"{reference.version}",
                )
            if is_direct:
                direct.append(reference._replace(version=found.version))
            if reference.name in texts:
                continue
            texts[reference.name] = found.content.text
            digests.append(found.content.digest)
            waiting += [(found.subject, further, False) for further in found.content.references]
        return tuple(direct), texts, tuple(digests)


def request_of(content: Content) -> SchemaRequest:
    """Return the request that would register `content`."""
    return SchemaRequest(content.schema_type, content.text, content.references, content.metadata, content.rule_set)


def _understood(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without what is null, and without a level that only the registry which wrote it knows."""
    level = config.get("compatibilityLevel")
    is_known = isinstance(level, str) and level in _LEVELS
    return {name: one for name, one in config.items() if one is not None and (is_known or name != "compatibilityLevel")}


def _text_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _property(metadata: Mapping[str, Any] | None, name: str) -> object:
    properties = metadata.get("properties") if metadata else None
    return properties.get(name) if isinstance(properties, Mapping) else None
