"""The records of the topic `_schemas`, in Confluent's own format, so that either registry can take over from the other.

Key and value are JSON, compact and in UTF-8. A key's fields stand in one fixed order: compaction compares bytes.

    {"keytype":"SCHEMA","subject":"s","version":1,"magic":1}        a version of a subject; null: gone for good
    {"keytype":"CONFIG","subject":null,"magic":0}                   the config of a subject, a context, or (null) of all
    {"keytype":"MODE","subject":"s","magic":0}                      the mode, likewise
    {"keytype":"DELETE_SUBJECT","subject":"s","magic":0}            versions up to the value's are soft-deleted
    {"keytype":"CLEAR_SUBJECT","subject":"s","magic":0}             soft-deleted versions are forgotten
    {"keytype":"CONTEXT","tenant":"default","context":".c","magic":0}
    {"keytype":"NOOP","magic":0}                                    says how far the log goes; see `term.py` for ours

What this does not know (associations, rules of newer registries) is a key of its own kind, kept in the topic and passed
over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from millstream.schemas.parsing import Reference
from millstream.schemas.server.content import Content

TENANT: Final = "default"
_MAGICS: Final = {"SCHEMA": 1}
_SCHEMA_MAGICS: Final = (0, 1)
# Of Java's int, which versions and ids are.
INT_MIN: Final = -(2**31)
INT_MAX: Final = 2**31 - 1


class KeyType(StrEnum):
    """Kinds of records that change what the registry holds."""

    SCHEMA = "SCHEMA"
    CONFIG = "CONFIG"
    MODE = "MODE"
    DELETE_SUBJECT = "DELETE_SUBJECT"
    CLEAR_SUBJECT = "CLEAR_SUBJECT"
    CONTEXT = "CONTEXT"
    NOOP = "NOOP"


class Key(NamedTuple):
    """A record's key: a version is there for SCHEMA alone; for CONTEXT the subject is the context's name."""

    type: KeyType
    subject: str | None = None
    version: int = 0

    def encoded(self) -> bytes:
        """Return the key as it is written."""
        fields: dict[str, Any] = {"keytype": str(self.type)}
        if self.type is KeyType.CONTEXT:
            fields |= {"tenant": TENANT, "context": self.subject}
        elif self.type is not KeyType.NOOP:
            fields["subject"] = self.subject
        if self.type is KeyType.SCHEMA:
            fields["version"] = self.version
        return to_json({**fields, "magic": _MAGICS.get(self.type, 0)})


NOOP: Final = Key(KeyType.NOOP)


class UnknownRecordError(ValueError):
    """A record that this registry does not know, or that is damaged; it is passed over."""


class SchemaRecord(NamedTuple):
    """The value of a SCHEMA record, its subject and version aside: those are the key's."""

    id: int
    content: Content
    deleted: bool


Value = SchemaRecord | Mapping[str, Any] | None


def to_json(value: Any) -> bytes:
    """Return JSON as Confluent's registry writes it: no blanks, text as UTF-8.

    Raises UnicodeEncodeError for text that is no Unicode (half of a surrogate pair).
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def decode_key(data: bytes | None) -> Key:
    """Read a key. Raises UnknownRecordError."""
    fields = _object(data)
    try:
        kind = KeyType(str(fields.get("keytype")))
    except ValueError:
        raise UnknownRecordError(f"records of type {fields.get('keytype')!r} are not known here") from None
    if kind is KeyType.NOOP:
        return NOOP
    if kind is KeyType.CONTEXT:
        return Key(kind, _text(fields, "context"))
    subject = fields.get("subject")
    if subject is None and kind in (KeyType.CONFIG, KeyType.MODE, KeyType.CLEAR_SUBJECT):
        return Key(kind)
    if kind is not KeyType.SCHEMA:
        return Key(kind, _text(fields, "subject"))
    if fields.get("magic") not in _SCHEMA_MAGICS:
        raise UnknownRecordError(f"a SCHEMA key of magic {fields.get('magic')!r}; known are 0 and 1")
    return Key(kind, _text(fields, "subject"), _integer(fields, "version", 1))


def decode_value(key: Key, data: bytes | None) -> Value:
    """Read the value that belongs to `key`; None where it is null. Raises UnknownRecordError."""
    if data is None:
        return None
    fields = _object(data)
    if key.type is not KeyType.SCHEMA:
        return fields
    references = fields.get("references") or ()
    try:
        content = Content(
            schema_type=_text(fields, "schemaType") if fields.get("schemaType") else "AVRO",
            text=_text(fields, "schema"),
            references=tuple(map(_reference, references)),
            metadata=fields.get("metadata") or None,
            rule_set=fields.get("ruleSet") or None,
        )
        return SchemaRecord(_integer(fields, "id", 0), content, bool(fields.get("deleted")))
    except (TypeError, LookupError, AttributeError) as error:
        raise UnknownRecordError(f"the value of {key} can't be read: {error!r}") from error


def encode_value(key: Key, value: Value) -> bytes | None:
    """Return a value as it is written."""
    if value is None:
        return None
    if not isinstance(value, SchemaRecord):
        return to_json(value)
    content = value.content
    fields: dict[str, Any] = {"subject": key.subject, "version": key.version, "id": value.id}
    fields["schemaType"] = content.schema_type
    if content.references:
        fields["references"] = [reference._asdict() for reference in content.references]
    if content.metadata:
        fields["metadata"] = content.metadata
    if content.rule_set:
        fields["ruleSet"] = content.rule_set
    return to_json({**fields, "schema": content.text, "deleted": value.deleted})


def _object(data: bytes | None) -> dict[str, Any]:
    try:
        fields = json.loads(data or b"")
        # Half of a surrogate pair has to be escaped; who reads it could neither answer with it nor write it again.
        if data is not None and b"\\u" in data:
            to_json(fields)
    except (ValueError, RecursionError) as error:
        raise UnknownRecordError(f"this is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UnknownRecordError(f"a {type(fields).__name__} stands where an object belongs")
    return fields


def _reference(fields: Mapping[str, Any]) -> Reference:
    return Reference(_text(fields, "name"), _text(fields, "subject"), _integer(fields, "version"))


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise UnknownRecordError(f"{name} is {value!r}, and has to be text")
    return value


def _integer(fields: Mapping[str, Any], name: str, least: int = INT_MIN) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= INT_MAX:
        raise UnknownRecordError(f"{name} is {value!r}, and has to be a whole number from {least} to {INT_MAX}")
    return value
