"""The checks by schema type, and a new schema against a subject's versions under a level."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.schemas.compat.incompatibility import Incompatibility
from millstream.schemas.compat.level import Level
from millstream.schemas.parsing import ParsedSchema


def incompatibilities(reader: ParsedSchema, writer: ParsedSchema) -> list[Incompatibility]:
    """Return why data written with `writer` can't be read with `reader`; empty where it can."""
    if reader.type is not writer.type or reader.text != writer.text:
        return [Incompatibility("TYPE_MISMATCH", "/", "the schemas differ")]
    return []


def check(level: Level | str, new: ParsedSchema, previous: Sequence[ParsedSchema]) -> list[Incompatibility]:
    """Return what `new` breaks of `level` towards `previous` (oldest first); empty where it is compatible."""
    level = Level(level)
    found: list[Incompatibility] = []
    for earlier in previous if level.is_transitive else previous[-1:]:
        if level.is_backward:
            found += incompatibilities(new, earlier)
        if level.is_forward:
            found += incompatibilities(earlier, new)
    return found
