"""What the registry holds: schemas by id and by subject, configs, modes, references; fed by the records of the topic.

Sans-I/O and deterministic: whoever applies the same records in order comes to the same state, whether it reads them
once at the start or writes them itself and reads them back. Nothing here is changed but by `apply`. Owned by one loop.

A record that would break a promise is rejected, by everybody alike: one of a former leader (`term.py`), and one that
gives an id another schema's text. The topic's compaction knows nothing of that and would keep the rejected record as
the newest of its key, so the key is noted in `damaged`, and the leader writes it again as it should be (`repairs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, TypeVar

from millstream.schemas.parsing import Reference
from millstream.schemas.server.content import Content
from millstream.schemas.server.records import (
    Key,
    KeyType,
    SchemaRecord,
    UnknownRecordError,
    Value,
    decode_key,
    decode_value,
)
from millstream.schemas.server.subjects import (
    DEFAULT_CONTEXT,
    GLOBAL_CONTEXT,
    GLOBAL_SUBJECT,
    context_of,
    is_within,
    referred,
    split,
)
from millstream.schemas.server.term import IDS_FIELD, NO_MARK, Mark

_T = TypeVar("_T")

ID_MAX: Final = 2**31 - 1


class Applied(Enum):
    """What became of a record."""

    ACCEPTED = "accepted"
    UNKNOWN = "of a kind that is not known here"
    FENCED = "written by a former leader"
    DUPLICATE_ID = "its id is another schema's"


class Version:
    """A version of a subject."""

    __slots__ = ("content", "deleted", "id", "subject", "timestamp", "version")

    def __init__(self, subject: str, version: int, record: SchemaRecord, timestamp: int) -> None:
        self.subject = subject
        self.version = version
        self.id = record.id
        self.content = record.content
        # Soft-deleted: found by id and with deleted=true, not counted otherwise.
        self.deleted = record.deleted
        # When it was written, in milliseconds since 1970.
        self.timestamp = timestamp

    @property
    def key(self) -> Key:
        """The key of its record."""
        return Key(KeyType.SCHEMA, self.subject, self.version)

    def record(self, *, deleted: bool | None = None) -> SchemaRecord:
        """The value of its record."""
        return SchemaRecord(self.id, self.content, self.deleted if deleted is None else deleted)

    def __repr__(self) -> str:
        return f"<{self.subject!r} version {self.version}: id {self.id}{', deleted' if self.deleted else ''}>"


class _Context:
    """The ids of one context."""

    __slots__ = ("by_digest", "by_id", "id_highest")

    def __init__(self) -> None:
        # id -> subject -> the version of it that has the id: of several the highest that is not deleted, if one is not.
        self.by_id: dict[int, dict[str, int]] = {}
        self.by_digest: dict[bytes, int] = {}
        # The highest id given out so far; ids of schemas that are gone count.
        self.id_highest = 0


class RegistryState:
    """The registry's contents; see the module."""

    def __init__(self) -> None:
        # Grows with each record that changed something: what was computed from the state holds as long as it stands.
        self.revision = 0
        self.clear()

    def clear(self) -> None:
        """Hold nothing: the log that was read is gone."""
        self.revision += 1
        # Subject -> version -> what it is; versions ascend.
        self._subjects: dict[str, dict[int, Version]] = {}
        self._contexts: dict[str, _Context] = {}
        # Contexts that were announced by a CONTEXT record; the default one needs none.
        self._announced: dict[str, None] = {}
        self._configs: dict[str | None, Mapping[str, Any]] = {}
        self._modes: dict[str | None, str] = {}
        # (subject, id) -> the versions of the subject that have the id, where they are several.
        self._repeated: dict[tuple[str, int], set[int]] = {}
        # (subject, version) -> the (context, id) of schemas that refer to it.
        self._referrers: dict[tuple[str, int], set[tuple[str, int]]] = {}
        # One Content, and one text, for all that have the same digest.
        self._contents: dict[bytes, Content] = {}
        # The newest term in the log so far; None where no leader of ours wrote yet.
        self.term: int | None = None
        # Keys whose newest record was rejected.
        self.damaged: dict[Key, None] = {}
        # How many records were passed over, by why.
        self.passed_over = dict.fromkeys((one for one in Applied if one is not Applied.ACCEPTED), 0)

    # Records.

    def apply_record(
        self, key_data: bytes | None, data: bytes | None, offset: int, timestamp: int, mark: Mark
    ) -> Applied:
        """Take in the record at `offset` of the topic, as it was read."""
        try:
            key = decode_key(key_data)
            value = decode_value(key, data)
        except UnknownRecordError:
            self.passed_over[Applied.UNKNOWN] += 1
            return Applied.UNKNOWN
        return self.apply(key, value, offset, timestamp, mark)

    def apply(self, key: Key, value: Value, offset: int, timestamp: int, mark: Mark = NO_MARK) -> Applied:
        """Take in a decoded record."""
        outcome = self._judge(key, value, offset, mark)
        if outcome is not Applied.ACCEPTED:
            self.passed_over[outcome] += 1
            if key.type is not KeyType.NOOP:
                self.damaged[key] = None
            return outcome
        self.damaged.pop(key, None)
        self._take(key, value, timestamp)
        self.revision += 1
        return outcome

    def _judge(self, key: Key, value: Value, offset: int, mark: Mark) -> Applied:
        if mark.begins_term:
            self.term = offset
        elif mark.term is not None:
            if self.term is not None and mark.term < self.term:
                return Applied.FENCED
            # The record that began this term may be compacted away.
            self.term = mark.term
        if isinstance(value, SchemaRecord):
            known = self.find_id(context_of(key.subject or ""), value.id)
            if known is not None and known.content.text != value.content.text:
                return Applied.DUPLICATE_ID
        return Applied.ACCEPTED

    def _take(self, key: Key, value: Value, timestamp: int) -> None:
        kind, subject = key.type, key.subject
        if kind is KeyType.SCHEMA:
            assert subject is not None, key
            self._forget(subject, key.version)
            if value is not None:
                assert isinstance(value, SchemaRecord), value
                self._add(subject, key.version, value, timestamp)
            return
        assert not isinstance(value, SchemaRecord), key
        if kind is KeyType.CONFIG:
            if value is None:
                self._configs.pop(subject, None)
            else:
                self._configs[subject] = {name: one for name, one in value.items() if name != "subject"}
        elif kind is KeyType.MODE:
            if value is None or not isinstance(value.get("mode"), str):
                self._modes.pop(subject, None)
            else:
                self._modes[subject] = value["mode"]
        elif kind is KeyType.CONTEXT:
            assert subject is not None, key
            if value is None:
                self._announced.pop(subject, None)
            else:
                self._announced[subject] = None
        elif value is None:
            return
        elif kind is KeyType.DELETE_SUBJECT:
            self._soft_delete(subject or "", value.get("version"))
        elif kind is KeyType.CLEAR_SUBJECT:
            self._clear(subject)
        elif kind is KeyType.NOOP and isinstance(ids := value.get(IDS_FIELD), dict):
            for context, highest in ids.items():
                if isinstance(highest, int):
                    self._note_id(context, highest)

    def _add(self, subject: str, number: int, record: SchemaRecord, timestamp: int) -> None:
        content = self._contents.setdefault(record.content.digest, record.content)
        if content is not record.content:
            record = record._replace(content=content)
        version = Version(subject, number, record, timestamp)
        versions = self._subjects.setdefault(subject, {})
        ascending = not versions or number > next(reversed(versions))
        versions[number] = version
        if not ascending:
            self._subjects[subject] = dict(sorted(versions.items()))
        name = context_of(subject)
        context = self._note_id(name, record.id)
        of_id = context.by_id.setdefault(record.id, {})
        other = of_id.setdefault(subject, number)
        if other != number:
            self._repeated.setdefault((subject, record.id), {other}).add(number)
            self._choose_version(subject, record.id)
        context.by_digest[content.digest] = record.id
        for reference in content.references:
            self._referrers.setdefault(_place(subject, reference), set()).add((name, record.id))

    def _note_id(self, name: str, highest: int) -> _Context:
        context = self._contexts.setdefault(name, _Context())
        context.id_highest = max(context.id_highest, min(highest, ID_MAX))
        return context

    def _forget(self, subject: str, number: int) -> None:
        """Remove a version from everywhere, if it is there."""
        versions = self._subjects.get(subject)
        version = versions.pop(number, None) if versions is not None else None
        if version is None:
            return
        if not versions:
            del self._subjects[subject]
        name = context_of(subject)
        context = self._contexts[name]
        of_id = context.by_id.get(version.id, {})
        repeated = self._repeated.get((subject, version.id))
        if repeated is not None:
            repeated.remove(number)
            self._choose_version(subject, version.id)
            if len(repeated) == 1:
                del self._repeated[subject, version.id]
        elif of_id.get(subject) == number:
            del of_id[subject]
        if of_id or version.id not in context.by_id:
            return
        # Nobody has the id any more: it names nothing and refers to nothing.
        del context.by_id[version.id]
        if context.by_digest.get(version.content.digest) == version.id:
            del context.by_digest[version.content.digest]
        if not any(version.content.digest in one.by_digest for one in self._contexts.values()):
            self._contents.pop(version.content.digest, None)
        for reference in version.content.references:
            place = _place(subject, reference)
            referrers = self._referrers.get(place, set())
            referrers.discard((name, version.id))
            if not referrers:
                self._referrers.pop(place, None)

    def _choose_version(self, subject: str, schema_id: int) -> None:
        """Of several versions of a subject that have one id, have the id name the right one."""
        versions, of_id = self._subjects[subject], self._contexts[context_of(subject)].by_id[schema_id]
        of_id[subject] = max(
            self._repeated[subject, schema_id], key=lambda number: (not versions[number].deleted, number)
        )

    def _soft_delete(self, subject: str, last: object) -> None:
        if not isinstance(last, int):
            return
        for number, version in self._subjects.get(subject, {}).items():
            if number <= last:
                version.deleted = True
                if (subject, version.id) in self._repeated:
                    self._choose_version(subject, version.id)

    def _clear(self, subject: str | None) -> None:
        """Forget the soft-deleted versions of a subject, of a context, or of all."""
        for name in self.matching(subject):
            for number in [one.version for one in self._subjects[name].values() if one.deleted]:
                self._forget(name, number)

    def repairs(self) -> Iterator[tuple[Key, Value]]:
        """Return the records that put right what rejected ones would leave behind in a compacted topic."""
        for key in self.damaged:
            subject = key.subject
            if key.type is KeyType.SCHEMA:
                version = self.find_version(subject or "", key.version)
                yield key, None if version is None else version.record()
            elif key.type is KeyType.CONFIG:
                config = self._configs.get(subject)
                yield key, None if config is None else {**_named(subject), **config}
            elif key.type is KeyType.MODE:
                mode = self._modes.get(subject)
                yield key, None if mode is None else {**_named(subject), "mode": mode}
            elif key.type is KeyType.CONTEXT:
                yield key, {"tenant": "default", "context": subject} if subject in self._announced else None
            else:
                # The deletion that stood there before is written into each version it holds for.
                for version in self.versions(subject or ""):
                    if version.deleted:
                        yield version.key, version.record()
                yield key, None

    # Schemas.

    def versions(self, subject: str) -> list[Version]:
        """Return the versions of a subject, ascending, deleted ones included."""
        return list(self._subjects.get(subject, {}).values())

    def find_version(self, subject: str, number: int) -> Version | None:
        """Return a version of a subject, deleted or not."""
        return self._subjects.get(subject, {}).get(number)

    def latest(self, subject: str) -> Version | None:
        """Return the highest version of a subject that is not deleted."""
        versions = self._subjects.get(subject)
        if versions is None:
            return None
        return next((one for one in reversed(versions.values()) if not one.deleted), None)

    def next_version(self, subject: str) -> int:
        """Return the number that a new version of a subject gets: deleted ones count."""
        versions = self._subjects.get(subject)
        return next(reversed(versions)) + 1 if versions else 1

    def find_id(self, context: str, schema_id: int, subject: str = "") -> Version | None:
        """Return a version that has this id: that of `subject`, or where no name is given any one in the context."""
        known = self._contexts.get(context)
        of_id = known.by_id.get(schema_id) if known is not None else None
        if not of_id:
            return None
        if not split(subject).name:
            subject = next(iter(of_id))
        number = of_id.get(subject)
        return None if number is None else self._subjects[subject].get(number)

    def find_content(self, context: str, content: Content) -> tuple[int, Mapping[str, int]] | None:
        """Return the id that a schema has in a context, and its version by subject."""
        return self.find_digest(context, content.digest)

    def find_digest(self, context: str, digest: bytes) -> tuple[int, Mapping[str, int]] | None:
        """Return the id that the schema of a digest has in a context, and its version by subject."""
        known = self._contexts.get(context)
        schema_id = known.by_digest.get(digest) if known is not None else None
        if known is None or schema_id is None:
            return None
        return schema_id, known.by_id.get(schema_id, {})

    def versions_of_id(self, context: str, schema_id: int) -> list[Version]:
        """Return the versions that have an id, of all subjects of the context."""
        known = self._contexts.get(context)
        of_id = known.by_id.get(schema_id, {}) if known is not None else {}
        return [self._subjects[subject][number] for subject, number in of_id.items()]

    def referrers(self, subject: str, number: int) -> set[tuple[str, int]]:
        """Return context and id of the schemas that refer to a version."""
        return set(self._referrers.get((subject, number), ()))

    def next_id(self, context: str) -> int:
        """Return the id that the next new schema of a context gets."""
        known = self._contexts.get(context)
        return 1 if known is None else known.id_highest + 1

    def highest_ids(self) -> dict[str, int]:
        """Return the highest id given out, by context."""
        return {name: one.id_highest for name, one in self._contexts.items() if one.id_highest}

    # Subjects and contexts.

    def subjects(self) -> Iterable[str]:
        """Return every subject there is, in no order."""
        return self._subjects.keys()

    def matching(self, subject: str | None) -> list[str]:
        """Return the subject itself if it is there, the subjects of a context, or (None) all."""
        if subject is None:
            return list(self._subjects)
        if split(subject).name:
            return [subject] if subject in self._subjects else []
        return [one for one in self._subjects if one == subject or is_within(one, subject)]

    def has_subject(self, subject: str | None, *, deleted: bool) -> bool:
        """Whether there is a version in what `matching` returns; a soft-deleted one counts with `deleted`."""
        return any(
            deleted or not version.deleted for one in self.matching(subject) for version in self._subjects[one].values()
        )

    def contexts(self) -> list[str]:
        """Return the contexts there are, the default one first."""
        return [DEFAULT_CONTEXT, *sorted(self._announced)]

    def is_announced(self, context: str) -> bool:
        """Whether a context needs no CONTEXT record any more."""
        return context == DEFAULT_CONTEXT or context in self._announced

    def counts(self) -> dict[str, int]:
        """Return how much there is of what."""
        return {
            "subjects": len(self._subjects),
            "versions": sum(map(len, self._subjects.values())),
            "schemas": sum(len(one.by_id) for one in self._contexts.values()),
            "contexts": 1 + len(self._announced),
        }

    # Settings.

    def config(self, subject: str | None) -> Mapping[str, Any] | None:
        """Return what is set for exactly this subject, context, or (None) the default context."""
        return self._configs.get(subject)

    def configs(self) -> Iterable[tuple[str | None, Mapping[str, Any]]]:
        """Return every config that is set."""
        return self._configs.items()

    def config_around(self, subject: str | None) -> Mapping[str, Any] | None:
        """Return what holds around a subject: its context's config, then that of all contexts."""
        return _around(self._configs, subject)

    def mode(self, subject: str | None) -> str | None:
        """Return the mode of exactly this subject, context, or (None) the default context."""
        return self._modes.get(subject)

    def mode_around(self, subject: str | None) -> str | None:
        """Return what holds around a subject: its context's mode, then that of all contexts."""
        return _around(self._modes, subject)

    def modes_within(self, context: str | None) -> list[str]:
        """Return the subjects of a context that have modes of their own."""
        return [one for one in self._modes if one is not None and split(one).name and is_within(one, context or "")]


def _around(settings: Mapping[str | None, _T], subject: str | None) -> _T | None:
    context = split(subject or "")
    around = settings.get(context.prefix or None) if context.context != GLOBAL_CONTEXT else None
    return around if around is not None else settings.get(GLOBAL_SUBJECT)


def _named(subject: str | None) -> dict[str, str]:
    return {} if subject is None else {"subject": subject}


def _place(subject: str, reference: Reference) -> tuple[str, int]:
    """Return which version a reference of `subject` means."""
    return referred(subject, reference.subject), reference.version
