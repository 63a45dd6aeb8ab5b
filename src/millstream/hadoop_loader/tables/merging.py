"""The document of a topic's tables, which the commit log stores, and how schemas are merged into it.

The document is JSON, opaque to the log:

    {"format": 1, "topic": "orders",
     "generations": [{"generation": 1, "version": 3, "schema": {...Avro...}}, ...],
     "writers": {"7": {"type": "AVRO", "schema": "...", "references": {...}, "generation": 1}, ...}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from millstream.hadoop_loader.tables.changes import SchemaChange
from millstream.hadoop_loader.tables.version import TableVersion
from millstream.schemas.parsing import ParsedSchema

Document = Mapping[str, Any]


class Merged(NamedTuple):
    """The document to store (the same object where nothing changed), the table as it is now, and what is announced."""

    document: Document
    version: TableVersion
    changes: tuple[SchemaChange, ...]


def merge(
    document: Document | None,
    writers: Mapping[int, ParsedSchema | str],
    policy: Literal["evolve", "fail"] = "evolve",
    *,
    topic: str,
    parquet: bool = True,
) -> Merged:
    """Merge writers' schemas (Avro JSON, or parsed ones of any type) by id; without any, return what the document says.

    `parquet`: whether Parquet files are written, whose readers want one type for each column of all files.
    Raises SchemaChangedError under the policy `fail`, UnsupportedSchemaError and InvalidSchemaError for schemas that no
    table can be made of.
    """
    raise AssertionError("being written")


def table_version(document: Document | None, topic: str) -> TableVersion:
    """Return the table a topic's values go to, as the document has it."""
    return merge(document, {}, topic=topic).version
