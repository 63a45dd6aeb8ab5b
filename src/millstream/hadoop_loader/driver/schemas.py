"""The schemas of a run's tables: from the documents in the commit log on, grown by what splits meet.

A table's schema comes from its writers' schemas alone, and all of them are in the log: a run whose records are of
schemas met before asks no registry. A topic that was never loaded has no table yet; the latest schema of its subject
is tried then, only to spare each of its splits a first attempt that would come back for it. Not so with keys: what
their column begins with decides which of the later ones it follows, so that has to be a schema that records have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.splits import UnknownSchema
from millstream.hadoop_loader.tables.naming import TableNames
from millstream.hadoop_loader.tables.writers import FIRST_MESSAGE, schema_id_of, writer_number

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import Merged, TableVersion
    from millstream.schemas.client import RegistryClient
    from millstream.schemas.parsing import ParsedSchema
    from millstream.schemas.serdes.framing import MessagePath

UNFRAMED_ID: Final = 0  # of the one writer's schema where values name none


class RunSchemas:
    """The tables of the topics of one run, as far as they are known; owned by the driver's thread."""

    def __init__(self, job: LoadJob, documents: Mapping[str, Any], registry: RegistryClient | None) -> None:
        """`documents` are those of the commit log, by topic."""
        self._job = job
        self._documents = dict(documents)
        self._registry = registry
        # What the tables are called.
        self.names = TableNames(job.destination.table_names, documents)
        # Where it did not answer for one new topic, the others do not wait for it too.
        self._registry_is_away = False
        # Topic -> its table; only topics of this run.
        self.tables: dict[str, TableVersion] = {}
        # Topic -> its new document, where it changed.
        self.changed: dict[str, Any] = {}
        # What readers of the tables should know, in order.
        self.announcements: list[str] = []

    def prepare(self, topic: str) -> None:
        """Have the topic's table; where there is none yet its latest schema makes it. Raises ValueError.

        Values that name no schema are all of the job's own, which may be another one than in the last run.
        """
        value = self._job.value
        if value.framing == "none" and value.schema is not None:
            from millstream.hadoop_loader.tables import avro_of_text

            text = avro_of_text(value.format, value.schema, value.message)
            if value.format == "json":
                self._check_json(text)
            self._merge(topic, {UNFRAMED_ID: text})
            return
        # One that is loaded anew has a document without schemas, and begins as a new one does.
        is_begun = bool(self._documents.get(topic, {}).get("writers"))
        first = {} if is_begun else self._first(topic)
        try:
            self._merge(topic, first)
        except ValueError:
            if not first:
                raise
            # What is registered may be of no record yet: those that are there say what they need.
            self._merge(topic, {})

    def learn(self, found: Iterable[UnknownSchema]) -> dict[str, str]:
        """Merge schemas that splits met; return, per topic, why one of its could not be."""
        by_topic: dict[str, dict[int, str | ParsedSchema]] = {}
        keys: dict[str, dict[int, str | ParsedSchema]] = {}
        for one in found:
            by_topic.setdefault(one.topic, {})
            (keys if one.field == "key" else by_topic).setdefault(one.topic, {})[one.schema_id] = one.schema
        from millstream.schemas.client import RegistryError

        refused: dict[str, str] = {}
        for topic, writers in by_topic.items():
            new = [one for one in writers if self.tables[topic].table_of(one) is None]
            try:
                self._merge(topic, {one: self._whole(one, writers[one]) for one in new}, keys.get(topic))
            except (ValueError, RegistryError) as error:
                refused[topic] = str(error)
        return refused

    def _whole(self, schema_id: int, schema: str | ParsedSchema) -> str | ParsedSchema:
        """Return a schema with what it refers to: Avro's says all itself. Raises RegistryError."""
        if self._registry is None or self._job.value.format == "avro":
            return schema
        return self._registry.schema(schema_id_of(schema_id))

    def _merge(
        self,
        topic: str,
        writers: Mapping[int, str | ParsedSchema],
        keys: Mapping[int, str | ParsedSchema] | None = None,
    ) -> None:
        from millstream.hadoop_loader.tables import merge

        before = self._documents.get(topic)
        merged: Merged = merge(
            before,
            writers,
            "fail" if self._job.evolution == "fail" else "evolve",
            topic=topic,
            parquet="parquet" in self._job.destination.formats,
            name=self.names.of(topic),
            keys=keys,
        )
        self._check_columns(merged.version)
        self._check_fields(merged.version)
        self.tables[topic] = merged.version
        if merged.document is not before:
            self._documents[topic] = self.changed[topic] = merged.document
        self.announcements += [change.sentence for change in merged.changes]
        if merged.changes:
            self.announcements += self._hidden(merged.version)

    @staticmethod
    def _check_json(schema: str) -> None:
        """Raise UnsupportedSchemaError for a schema with what no JSON is read into."""
        from millstream.hadoop_loader.tables.parquet import parquet_avro_schema
        from millstream.hadoop_loader.values.json_objects import JsonObjects

        JsonObjects(parquet_avro_schema(schema))

    def _check_columns(self, version: TableVersion) -> None:
        """Raise ValueError where files would have two columns of one name: nobody could read them."""
        from millstream.hadoop_loader.values.file_schema import has_schemas, why_columns_meet

        for table in version.tables():
            # While no schema is known, what the values are is not either: they say it.
            is_known = table.avro_schema is not None or not has_schemas(self._job)
            if is_known and (reason := why_columns_meet(self._job, table)):
                raise ValueError(reason)

    def _hidden(self, version: TableVersion) -> Iterator[str]:
        """Yield a sentence for each table with fields that some readers never see."""
        from millstream.hadoop_loader.partitioning import hidden_by_directories
        from millstream.hadoop_loader.values.file_schema import file_schema

        for table in version.tables():
            if hidden := hidden_by_directories(self._job.partitioning, file_schema(self._job, table).parquet):
                yield (
                    f"table {table.name}: readers show the directories' {', '.join(hidden)} in place of the field's;"
                    " partitioning.pattern may give directories other names"
                )

    def _check_fields(self, version: TableVersion) -> None:
        """Raise ValueError where no row of any table could be placed: a field's name, or its type, is wrong."""
        from millstream.hadoop_loader.partitioning import why_not_placed
        from millstream.hadoop_loader.values.file_schema import file_schema

        tables = [one for one in version.tables() if one.avro_schema is not None]
        reasons = [
            why_not_placed(self._job.partitioning, file_schema(self._job, one).parquet, one.avro_schema)
            for one in tables
        ]
        # Of several kinds of records in one topic some may have no such field.
        if reasons and all(reasons):
            raise ValueError(f"table {tables[0].name}: {reasons[0]}")

    def _first(self, topic: str) -> dict[int, ParsedSchema]:
        from millstream.schemas.client import RegistryError, RegistryUnavailableError

        value = self._job.value
        if self._registry is None or self._registry_is_away or value.framing != "registry" or value.format == "raw":
            return {}
        try:
            latest = self._registry.latest(f"{topic}-value")
        except RegistryError as error:
            # Another naming of subjects, or no registry now: the splits will tell which schemas they met.
            self._registry_is_away = isinstance(error, RegistryUnavailableError)
            return {}
        # Of another type it is no schema of values that this job reads.
        if latest.schema.type != value.format.upper():
            return {}
        path = _expected_message(latest.schema, value.message) if value.format == "protobuf" else FIRST_MESSAGE
        return {} if path is None else {writer_number(latest.id, path): latest.schema}


def _expected_message(schema: ParsedSchema, message: str | None) -> MessagePath | None:
    """Return which message of a schema values will be; None where they have to be asked."""
    from millstream.schemas.avro import UnsupportedSchemaError
    from millstream.schemas.protobuf import message_count, path_of

    if message is None and message_count(schema) != 1:
        return None
    try:
        return path_of(schema, message)
    except UnsupportedSchemaError:
        return None
