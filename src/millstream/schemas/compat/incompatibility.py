"""One reason why a schema can't read what another wrote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """What is wrong, where in the schema, and what to do about it."""

    kind: str
    """The rule that is broken, by the name Avro's Java (MISSING_UNION_BRANCH, ...) or Confluent's registry gives it."""
    path: str
    """Where: a JSON pointer into the reader's schema (Avro), or a path of `#/...` (JSON Schema, Protobuf)."""
    sentence: str
    """What is wrong there, and how it can be put right."""
    detail: str = ""
    """What the rule has to add: the symbols that lack, the name that is expected; may be empty."""

    def __str__(self) -> str:
        """The form that registries answer with where `verbose=true` was asked."""
        detail = f", additionalInfo:'{self.detail}'" if self.detail else ""
        return f"{{errorType:'{self.kind}', description:'{self.sentence} (path {self.path})'{detail}}}"
