"""What a registry answers: registered schemas and configs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from millstream.schemas.compat import Level
from millstream.schemas.parsing import ParsedSchema, Reference, SchemaType


class Mode(StrEnum):
    """What a subject, or all of them, allow."""

    READWRITE = "READWRITE"
    READONLY = "READONLY"
    READONLY_OVERRIDE = "READONLY_OVERRIDE"
    IMPORT = "IMPORT"


class SchemaText(NamedTuple):
    """A schema that was not parsed here: the registry will."""

    type: SchemaType
    text: str
    references: tuple[Reference, ...] = ()


class SubjectVersion(NamedTuple):
    """One version of a subject."""

    subject: str
    version: int


class ListedSchema(NamedTuple):
    """One line of a listing: a version, without its schema."""

    subject: str
    version: int
    id: int
    type: SchemaType


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema as a version of a subject; `guid` is None where the registry knows none (before Confluent's 7.9)."""

    subject: str
    version: int
    id: int
    guid: str | None
    schema: ParsedSchema


@dataclass(frozen=True, slots=True)
class SubjectConfig:
    """What is configured for a subject, or for all; None: not set there."""

    compatibility_level: Level | None = None
    normalize: bool | None = None
    alias: str | None = None
    compatibility_group: str | None = None
