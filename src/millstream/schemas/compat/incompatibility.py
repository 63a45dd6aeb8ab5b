"""One reason why a schema can't read what another wrote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """What is wrong, where in the schema, and what to do about it; the text is as Confluent's `verbose=true` gives it."""

    kind: str
    """The rule that is broken, by the name Avro's Java (MISSING_UNION_BRANCH, ...) or Confluent's registry gives it."""
    path: str
    """Where: a JSON pointer into the reader's schema (Avro), or a path of `#/...` (JSON Schema, Protobuf)."""
    sentence: str
    """What is wrong there, and how it can be put right."""

    def __str__(self) -> str:
        return f"{{errorType:'{self.kind}', description:'{self.sentence}'}}"
