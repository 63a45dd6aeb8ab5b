"""What merging a schema changed in a table: said to the operator, kept in the run's report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from millstream.hadoop_loader.tables.writers import writer_name


class ChangeKind(StrEnum):
    """What happened to the table."""

    TABLE_CREATED = "table_created"  # the first schema of the topic
    FIELD_ADDED = "field_added"
    FIELD_OPTIONAL = "field_optional"  # a writer no longer has it: null, or its default, from then on
    MADE_NULLABLE = "made_nullable"
    SYMBOLS_ADDED = "symbols_added"
    BRANCH_ADDED = "branch_added"
    PROMOTED = "promoted"
    RENAMED = "renamed"
    GENERATION_OPENED = "generation_opened"
    KEY_REFUSED = "key_refused"  # keys of a schema that the column of keys cannot follow are bad


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One change: of which table, by which writer's schema, where, and a sentence for people."""

    kind: ChangeKind
    topic: str
    table: str
    schema_id: int
    path: str  # of the field, "" for the table as a whole
    sentence: str


class SchemaChangedError(ValueError):
    """A writer's schema that the table does not cover, under the policy `fail`; nothing was changed.

    The rest of the run goes on without the topic, and another try says the same.
    """

    is_retriable = False

    def __init__(self, topic: str, changes: tuple[SchemaChange, ...]) -> None:
        self.topic = topic
        self.changes = changes
        first = changes[0]
        more = f", and {len(changes) - 1} more changes" if len(changes) > 1 else ""
        super().__init__(
            f"topic {topic!r}: schema {writer_name(first.schema_id)} needs what the table {first.table!r} does not"
            f' have: {first.sentence}{more}; set evolution = "evolve" to let the table follow, or keep such records out'
        )
