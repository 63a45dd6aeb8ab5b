"""What an id stands for: type, text, references, metadata and rules of a schema; and the digest it is found by.

The digest is Confluent's: MD5 over the text, then each reference, then metadata and rules, each behind a byte of 1
where there are some. Written as a UUID it is the schema's guid, the same in every registry.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from millstream.schemas.parsing import Reference

_INT: Final = struct.Struct(">i")
RULE_KINDS: Final = ("migrationRules", "domainRules", "encodingRules")


class Content:
    """A schema as it is stored; immutable. Two are equal where their digests are."""

    __slots__ = ("digest", "metadata", "references", "rule_set", "schema_type", "text")

    def __init__(
        self,
        schema_type: str,
        text: str,
        references: tuple[Reference, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        rule_set: Mapping[str, Any] | None = None,
    ) -> None:
        """Take what was parsed or read. Raises UnicodeEncodeError for text that is no Unicode."""
        self.schema_type = schema_type
        self.text = text
        self.references = references
        self.metadata = metadata
        self.rule_set = rule_set
        self.digest = _digest(self)

    @property
    def guid(self) -> str:
        """The digest as a UUID."""
        return str(uuid.UUID(bytes=self.digest))

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Content) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<{self.schema_type} {self.guid} {self.text[:60]!r}>"


def digest_of_guid(text: str) -> bytes | None:
    """Return the digest that a guid, or its 32 hexadecimal digits, stands for; None for anything else."""
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        return None


def _digest(content: Content) -> bytes:
    hashed = hashlib.md5(content.text.encode(), usedforsecurity=False)
    for name, subject, version in content.references:
        hashed.update(name.encode() + subject.encode() + _INT.pack(version))
    if content.metadata is not None:
        hashed.update(b"\x01")
        tags, properties = content.metadata.get("tags") or {}, content.metadata.get("properties") or {}
        for key in sorted(tags):
            _add(hashed, [key, *sorted(tags[key])])
        for key in sorted(properties):
            _add(hashed, [key, properties[key]])
        _add(hashed, sorted(content.metadata.get("sensitive") or ()))
    if content.rule_set is not None:
        hashed.update(b"\x01")
        for kind in RULE_KINDS:
            for rule in content.rule_set.get(kind) or ():
                _add_rule(hashed, rule)
        _add(hashed, [content.rule_set.get("enableAt")])
    return hashed.digest()


def _add_rule(hashed: hashlib._Hash, rule: Mapping[str, Any]) -> None:
    _add(hashed, [rule.get(name) for name in ("name", "doc", "kind", "mode", "type")])
    _add(hashed, sorted(rule.get("tags") or ()))
    params: Mapping[str, str] = rule.get("params") or {}
    for key in sorted(params):
        _add(hashed, [key, params[key]])
    _add(hashed, [rule.get(name) for name in ("expr", "onSuccess", "onFailure")])
    if rule.get("disabled"):
        hashed.update(b"\x01")


def _add(hashed: hashlib._Hash, texts: Iterable[str | None] | Sequence[str]) -> None:
    for text in texts:
        if text is not None:
            hashed.update(text.encode())
