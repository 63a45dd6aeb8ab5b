"""The column of a topic's keys whose schemas only the registry has: one for all of the topic's tables.

In the document of the tables, beside their generations:

    "key": {"version": 2, "schema": "...Avro...", "writers": {"3": "...Avro...", ...}, "refused": {"5": ..., ...}}

The column follows its writers as a field of a table does: members of a record that are new are added, those that went
may be missing. What readers of Parquet cannot follow from file to file opens a new generation where it is of values; a
key opens none, as values of one schema may come with keys of any: keys of such a schema are bad, and the document has
it with the reason ({"schema": ..., "reason": ...}), to try it again whenever the column has changed. While no schema is
known there is no column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from millstream.hadoop_loader.tables.changes import ChangeKind
from millstream.hadoop_loader.tables.joining import CannotJoinError, Joiner
from millstream.schemas.parsing import InvalidSchemaError
from millstream.schemas.parsing.avro import parse_avro
from millstream.schemas.parsing.avro_text import canonical_text

# What a key's schema is joined as a field of: so its own name and kind are held to be what a field's are.
_HOLDER: Final = "KafkaKeyHolder"
_FIELD: Final = "key"
SCHEMAS_MAX: Final = 200
"""Schemas of one topic's keys, refused ones among them: the document has all of them. Keys of more are bad."""


class RefusedKey(NamedTuple):
    """A schema that the column could not follow, and why."""

    schema: str
    reason: str


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """What keys are read to (None: nothing yet), and whose: `writers` by schema id, `refused` with the reason."""

    schema: str | None = None
    # How often the schema was changed; 0: there is none.
    version: int = 0
    writers: Mapping[int, str] = field(default_factory=dict)
    refused: Mapping[int, RefusedKey] = field(default_factory=dict)

    @staticmethod
    def of(document: Mapping[str, Any] | None) -> KeyColumn:
        """Return what the tables' document says of it."""
        if document is None or "key" not in document:
            return KeyColumn()
        held = document["key"]
        writers = {int(one): text for one, text in held["writers"].items()}
        refused = {int(one): RefusedKey(**said) for one, said in held["refused"].items()}
        return KeyColumn(held["schema"], held["version"], writers, refused)

    def document(self) -> Mapping[str, Any]:
        """Return it as a part of the tables' document; nothing while no key was met."""
        if not self.writers and not self.refused:
            return {}
        writers = {str(one): text for one, text in sorted(self.writers.items())}
        refused = {str(one): said._asdict() for one, said in sorted(self.refused.items())}
        return {"key": {"version": self.version, "schema": self.schema, "writers": writers, "refused": refused}}

    def knows(self, schema_id: int) -> bool:
        """Whether a writer's schema was taken in, or refused."""
        return schema_id in self.writers or schema_id in self.refused

    @property
    def count(self) -> int:
        """How many schemas it knows."""
        return len(self.writers) + len(self.refused)

    @property
    def is_full(self) -> bool:
        """Whether schemas that it does not know are not taken any more."""
        return self.count >= SCHEMAS_MAX


def with_key_writer(
    column: KeyColumn, schema_id: int, text: str, *, parquet: bool
) -> tuple[KeyColumn, list[tuple[ChangeKind, str, str]]]:
    """Return the column with one writer's schema taken in, or refused, and what changed, as (kind, path, sentence).

    Schemas that were refused are tried again where the column changed, until it does not.
    """
    changes: list[tuple[ChangeKind, str, str]] = []
    wanted = {schema_id: text}
    while wanted:
        version = column.version
        for one, schema in sorted(wanted.items()):
            column, found = _tried(column, one, schema, parquet=parquet)
            changes += found
        wanted = {one: said.schema for one, said in column.refused.items()} if column.version != version else {}
    return column, changes


def _tried(
    column: KeyColumn, schema_id: int, text: str, *, parquet: bool
) -> tuple[KeyColumn, list[tuple[ChangeKind, str, str]]]:
    from millstream.hadoop_loader.tables.parquet import arrow_schema, without_added
    from millstream.schemas.avro import UnsupportedSchemaError

    joiner = Joiner(None if column.schema is None else parse_avro(_held(column.schema)).root)
    try:
        joined = canonical_text(joiner.add(parse_avro(_held(text)).root))
        arrow_schema(joined)
        reason = "; ".join(joiner.breaking) if parquet else ""
    except (CannotJoinError, UnsupportedSchemaError, InvalidSchemaError) as error:
        reason = str(error)
    if reason:
        said = f"records with keys of schema {schema_id} are bad, as the column cannot follow: {reason}"
        is_new = schema_id not in column.refused
        refused = {**column.refused, schema_id: RefusedKey(text, f"the column of keys cannot follow: {reason}")}
        return replace(column, refused=refused), [(ChangeKind.KEY_REFUSED, _FIELD, said)] if is_new else []
    writers = {**column.writers, schema_id: text}
    refused = {one: said for one, said in column.refused.items() if one != schema_id}
    if column.schema is None:
        return KeyColumn(_key(without_added(joined)), 1, writers, refused), []
    schema = _key(joined)
    if schema == column.schema:
        return replace(column, writers=writers, refused=refused), []
    return KeyColumn(schema, column.version + 1, writers, refused), joiner.changes


def _held(text: str) -> str:
    return json.dumps({"type": "record", "name": _HOLDER, "fields": [{"name": _FIELD, "type": json.loads(text)}]})


def _key(text: str) -> str:
    return canonical_text(parse_avro(json.dumps(json.loads(text)["fields"][0]["type"])).root)
