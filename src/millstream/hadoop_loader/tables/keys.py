"""The column of a topic's keys whose schemas only the registry has: one for all of the topic's tables.

In the document of the tables, beside their generations:

    "key": {"version": 2, "schema": "...Avro...", "writers": {"3": "...Avro...", ...}, "refused": {"5": "why", ...}}

The column follows its writers as a field of a table does: members of a record that are new are added, those that went
may be missing. What readers of Parquet cannot follow from file to file opens a new generation where it is of values; a
key opens none, as values of one schema may come with keys of any: keys of such a schema are bad, and the document has
the reason. While no schema is known there is no column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from millstream.hadoop_loader.tables.changes import ChangeKind
from millstream.hadoop_loader.tables.joining import CannotJoinError, Joiner
from millstream.schemas.parsing.avro import parse_avro
from millstream.schemas.parsing.avro_text import canonical_text

# What a key's schema is joined as a field of: so its own name and kind are held to be what a field's are.
_HOLDER: Final = "KafkaKeyHolder"
_FIELD: Final = "key"


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """What keys are read to (None: nothing yet), and whose: `writers` by schema id, `refused` with the reason."""

    schema: str | None = None
    # How often the schema was changed; 0: there is none.
    version: int = 0
    writers: Mapping[int, str] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)

    @staticmethod
    def of(document: Mapping[str, Any] | None) -> KeyColumn:
        """Return what the tables' document says of it."""
        if document is None or "key" not in document:
            return KeyColumn()
        held = document["key"]
        writers, refused = ({int(one): said for one, said in held[name].items()} for name in ("writers", "refused"))
        return KeyColumn(held["schema"], held["version"], writers, refused)

    def document(self) -> Mapping[str, Any]:
        """Return it as a part of the tables' document; nothing while no key was met."""
        if not self.writers and not self.refused:
            return {}
        writers, refused = (
            {str(one): said for one, said in sorted(held.items())} for held in (self.writers, self.refused)
        )
        return {"key": {"version": self.version, "schema": self.schema, "writers": writers, "refused": refused}}

    def knows(self, schema_id: int) -> bool:
        """Whether a writer's schema was taken in, or refused for good."""
        return schema_id in self.writers or schema_id in self.refused


def with_key_writer(
    column: KeyColumn, schema_id: int, text: str, *, parquet: bool
) -> tuple[KeyColumn, list[tuple[ChangeKind, str, str]]]:
    """Return the column with one writer's schema taken in, or refused, and what changed, as (kind, path, sentence)."""
    from millstream.hadoop_loader.tables.parquet import arrow_schema, without_added
    from millstream.schemas.avro import UnsupportedSchemaError

    joiner = Joiner(None if column.schema is None else parse_avro(_held(column.schema)).root)
    try:
        joined = canonical_text(joiner.add(parse_avro(_held(text)).root))
        arrow_schema(joined)
        reason = "; ".join(joiner.breaking) if parquet else ""
    except (CannotJoinError, UnsupportedSchemaError) as error:
        reason = str(error)
    if reason:
        said = f"records with keys of schema {schema_id} are bad, as the column cannot follow: {reason}"
        refused = {**column.refused, schema_id: f"the column of keys cannot follow: {reason}"}
        return replace(column, refused=refused), [(ChangeKind.KEY_REFUSED, _FIELD, said)]
    writers = {**column.writers, schema_id: text}
    if column.schema is None:
        return KeyColumn(_key(without_added(joined)), 1, writers, column.refused), []
    schema = _key(joined)
    if schema == column.schema:
        return replace(column, writers=writers), []
    return KeyColumn(schema, column.version + 1, writers, column.refused), joiner.changes


def _held(text: str) -> str:
    return json.dumps({"type": "record", "name": _HOLDER, "fields": [{"name": _FIELD, "type": json.loads(text)}]})


def _key(text: str) -> str:
    return canonical_text(parse_avro(json.dumps(json.loads(text)["fields"][0]["type"])).root)
