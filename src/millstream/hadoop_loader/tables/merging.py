"""The document of a topic's tables, which the commit log stores, and how schemas are merged into it.

The document is JSON, opaque to the log; nobody changes one, a merge makes another:

    {"format": 1, "table": "orders",                                        where it is not called as its topic
     "generations": [{"generation": 1, "version": 3, "schema": "...Avro..."}, ...],         oldest first
     "writers": {"7": {"generation": 1, "type": "AVRO", "schema": "...", "references": {...}}, ...}}

A message of Protobuf that is not its file's first one is a writer by itself, such as "7:1", with its name as "message".
Keys whose schemas are the registry's have a part of their own, "key": `keys.py`. A document with either has format 2.

Each generation is a table, `orders`, `orders.v2`, ...; a writer's schema belongs to the newest of them that reads it.
A new schema goes into the newest generation that can follow it; where none can and Avro could, into a new one that
reads the old writers as well; else into a new one of its own. So a topic with two kinds of records has two tables, and
two that take turns do not open one after the other. A generation opened by the merge at work has no files, and may
still become anything. Writers of Protobuf go only where others of their own message are, by its full name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from millstream.hadoop_loader.tables.changes import ChangeKind, SchemaChange, SchemaChangedError
from millstream.hadoop_loader.tables.joining import CannotJoinError, Joiner
from millstream.hadoop_loader.tables.keys import KeyColumn, with_key_writer
from millstream.hadoop_loader.tables.naming import GENERATIONS_MAX, table_name
from millstream.hadoop_loader.tables.sources import avro_of, message_of, source_of
from millstream.hadoop_loader.tables.version import SourceSchema, TableVersion
from millstream.hadoop_loader.tables.writers import FIRST_MESSAGE, number_of, path_of, writer_name
from millstream.schemas.parsing import ParsedSchema, SchemaType
from millstream.schemas.parsing.avro import parse_avro
from millstream.schemas.parsing.avro_text import canonical_text

Document = Mapping[str, Any]

FORMAT: Final = 1
# Of documents with keys, or messages that are not their files' first: who knows only the other would lose them.
FORMAT_OF_PARTS: Final = 2


class Merged(NamedTuple):
    """The document to store (the same object where nothing changed), the table as it is now, and what is announced."""

    document: Document
    version: TableVersion
    changes: tuple[SchemaChange, ...]


class TooManyGenerationsError(ValueError):
    """A topic whose schemas would open more tables than GENERATIONS_MAX; another try says the same."""

    is_retriable = False

    def __init__(self, topic: str, sentence: str) -> None:
        self.topic = topic
        super().__init__(sentence)


class _Generation(NamedTuple):
    number: int
    version: int
    schema: str


def merge(
    document: Document | None,
    writers: Mapping[int, ParsedSchema | str],
    policy: Literal["evolve", "fail"] = "evolve",
    *,
    topic: str,
    parquet: bool = True,
    name: str | None = None,
    keys: Mapping[int, ParsedSchema | str] | None = None,
) -> Merged:
    """Merge writers' schemas (Avro JSON, or parsed ones of any type) by number; without any, read the document.

    `parquet`: whether Parquet files are written, whose readers want one type for each column of all files. `name`: of
    the first table, where the document has none yet; the topic's otherwise. `keys` are schemas of keys by id.
    Raises SchemaChangedError under the policy `fail`, UnsupportedSchemaError and InvalidSchemaError for schemas that no
    table can be made of.
    """
    merging = _Merging(document, topic, name or topic, parquet=parquet)
    for schema_id in sorted(writers):
        merging.add(schema_id, source_of(writers[schema_id], schema_id))
    for schema_id, schema in sorted((keys or {}).items()):
        merging.add_key(schema_id, source_of(schema, schema_id).text)
    if policy == "fail" and merging.is_begun and merging.changes:
        raise SchemaChangedError(topic, tuple(merging.changes))
    if document is None or merging.is_changed:
        document = merging.document()
    return Merged(document, merging.table(), tuple(merging.changes))


def table_version(document: Document | None, topic: str) -> TableVersion:
    """Return the table a topic's values go to, as the document has it."""
    return merge(document, {}, topic=topic).version


def all_tables(document: Document | None, topic: str) -> list[TableVersion]:
    """Return every generation's table, oldest first, those among them that take no values any more."""
    merging = _Merging(document, topic, topic, parquet=True)
    return merging.tables() or [merging.table()]


class _Merging:
    """One merge at work."""

    def __init__(self, document: Document | None, topic: str, name: str, *, parquet: bool) -> None:
        if document is not None and document["format"] not in (FORMAT, FORMAT_OF_PARTS):
            raise ValueError(
                f"topic {topic!r}: the tables' document has format {document['format']}: written by a newer version of"
                " millstream; use that one here"
            )
        self._topic = topic
        # Of the first table.
        self._name = name if document is None else document.get("table", topic)
        self._parquet = parquet
        self.changes: list[SchemaChange] = []
        self.is_changed = False
        self._generations: list[_Generation] = []
        # Numbers of those that this merge opened.
        self._fresh: set[int] = set()
        self._writers: dict[int, tuple[int, SourceSchema]] = {}
        self._key = KeyColumn.of(document)
        # Whether values or keys had a schema before this merge.
        self.is_begun = document is not None and (bool(document["generations"]) or self._key.version > 0)
        if document is not None:
            self._generations = [
                _Generation(one["generation"], one["version"], one["schema"]) for one in document["generations"]
            ]
            self._writers = {
                number_of(name): (
                    one["generation"],
                    SourceSchema(one["type"], one["schema"], one.get("references", {}), one.get("message")),
                )
                for name, one in document["writers"].items()
            }

    def add(self, schema_id: int, source: SourceSchema) -> None:
        """Take in one writer's schema."""
        held = self._writers.get(schema_id)
        if held is not None and held[1] == source:
            return
        self.is_changed = True
        text = avro_of(source)
        message = message_of(source)
        number = self._follow(schema_id, text, message)
        if number is None:
            number = self._open(schema_id, text, message)
        self._writers[schema_id] = number, source

    def add_key(self, schema_id: int, text: str) -> None:
        """Take in one schema of keys."""
        if self._key.knows(schema_id) or self._key.is_full:
            return
        self.is_changed = True
        self._key, changes = with_key_writer(self._key, schema_id, text, parquet=self._parquet)
        self._announce(schema_id, max(1, len(self._generations)), changes)

    def _may_take(self, generation: _Generation, message: str | None) -> bool:
        """Whether a generation may take values of a message: one that takes such already. Those of no message may try.

        The Avro schemas that messages stand for have their short names, which are those of others elsewhere.
        """
        return message is None or message in self._messages(generation)

    def _messages(self, generation: _Generation) -> set[str | None]:
        return {message_of(source) for at, source in self._writers.values() if at == generation.number}

    def _follow(self, schema_id: int, text: str, message: str | None) -> int | None:
        """Have the newest generation that can follow a schema do so; return its number, None where none can."""
        for at in range(len(self._generations) - 1, -1, -1):
            generation = self._generations[at]
            if not self._may_take(generation, message):
                continue
            is_fresh = generation.number in self._fresh
            joined = _joined(generation.schema, text)
            if joined is None or (self._parquet and joined.breaking and not is_fresh):
                continue
            if joined.schema == generation.schema:
                return generation.number
            if is_fresh:
                self._generations[at] = generation._replace(schema=_without_added(joined.schema))
            else:
                self._generations[at] = generation._replace(version=generation.version + 1, schema=joined.schema)
                self._announce(schema_id, generation.number, joined.changes)
            return generation.number
        return None

    def _open(self, schema_id: int, text: str, message: str | None) -> int:
        """Open a generation for a schema, one that also reads what the newest possible other did; return its number."""
        number = len(self._generations) + 1
        if number > GENERATIONS_MAX:
            raise TooManyGenerationsError(
                self._topic,
                f"topic {self._topic!r}: schema {writer_name(schema_id)} would open table number {number}, and"
                f" {GENERATIONS_MAX} are the most; keep one kind of record in a topic",
            )
        readable = [held for held in reversed(self._generations) if self._may_take(held, message)]
        joined = next((one for held in readable if (one := _joined(held.schema, text))), None)
        taken = _Joined(_first(text), [], []) if joined is None else joined
        name = table_name(self._name, number)
        if not self._generations:
            self._announce(schema_id, 1, [(ChangeKind.TABLE_CREATED, "", f"table {name} is new")])
        else:
            newest = table_name(self._name, number - 1)
            why = "; ".join(taken.breaking)
            if not why and not self._may_take(self._generations[-1], message):
                why = f"its values are of another message, {message}"
            why = why or _why_not(self._generations[-1].schema, text)
            said = f"table {name} begins beside {newest}: {why}"
            self._announce(schema_id, number, [(ChangeKind.GENERATION_OPENED, "", said), *taken.changes])
        self._generations.append(_Generation(number, 1, _without_added(taken.schema)))
        self._fresh.add(number)
        if joined is not None:
            self._move_readable(message)
        return number

    def _move_readable(self, message: str | None) -> None:
        """Give the newest generation the writers that it reads as it is, of the same message where it is of one."""
        newest = self._generations[-1]
        for schema_id, (_number, source) in self._writers.items():
            if message_of(source) != message:
                continue
            joined = _joined(newest.schema, avro_of(source))
            if joined is not None and joined.schema == newest.schema:
                self._writers[schema_id] = newest.number, source

    def _announce(self, schema_id: int, number: int, changes: list[tuple[ChangeKind, str, str]]) -> None:
        name = table_name(self._name, number)
        self.changes += [
            SchemaChange(
                kind, self._topic, name, schema_id, path, said if said.startswith("table ") else f"{name}: {said}"
            )
            for kind, path, said in changes
        ]

    def document(self) -> Document:
        """Return the document as it is now."""
        key = self._key.document()
        has_parts = bool(key) or any(path_of(number) != FIRST_MESSAGE for number in self._writers)
        return {
            "format": FORMAT_OF_PARTS if has_parts else FORMAT,
            **({} if self._name == self._topic else {"table": self._name}),
            "generations": [
                {"generation": one.number, "version": one.version, "schema": one.schema} for one in self._generations
            ],
            "writers": {
                writer_name(schema_id): {"generation": number, "type": source.type, "schema": source.text}
                | ({"references": dict(source.references)} if source.references else {})
                | ({"message": source.message} if source.message is not None else {})
                for schema_id, (number, source) in sorted(self._writers.items())
            },
            **key,
        }

    def table(self) -> TableVersion:
        """Return the newest table, with the others that take values too."""
        if not self._generations:
            return TableVersion(self._topic, self._name, version=1 + self._key.version, key=self._key)
        versions = self.tables()[::-1]
        newest = versions[0]
        others = tuple(one for one in versions[1:] if one.writers)
        return TableVersion(
            self._topic,
            newest.name,
            newest.generation,
            newest.version,
            newest.avro_schema,
            newest.writers,
            newest.sources,
            others,
            self._key,
        )

    def tables(self) -> list[TableVersion]:
        """Return all tables, oldest first."""
        return [self._version(generation) for generation in self._generations]

    def _version(self, generation: _Generation) -> TableVersion:
        mine = {schema_id: source for schema_id, (at, source) in self._writers.items() if at == generation.number}
        return TableVersion(
            self._topic,
            table_name(self._name, generation.number),
            generation.number,
            # Files of one run that have the same one have the same columns.
            generation.version + self._key.version,
            generation.schema,
            {schema_id: avro_of(source) for schema_id, source in mine.items()},
            {schema_id: source for schema_id, source in mine.items() if source.type != SchemaType.AVRO},
            key=self._key,
        )


class _Joined(NamedTuple):
    schema: str
    changes: list[tuple[ChangeKind, str, str]]
    breaking: list[str]


def _joined(table: str, writer: str) -> _Joined | None:
    """Return the table's schema with a writer's joined to it; None where no schema reads both."""
    from millstream.schemas.avro import UnsupportedSchemaError

    joiner = Joiner(parse_avro(table).root)
    try:
        schema = canonical_text(joiner.add(parse_avro(writer).root))
        if schema != table:
            _check(schema)
    except (CannotJoinError, UnsupportedSchemaError):
        return None
    return _Joined(schema, joiner.changes, joiner.breaking)


def _first(writer: str) -> str:
    """Return the schema of a table that has only this writer's."""
    return canonical_text(Joiner(None).add(parse_avro(writer).root))


def _without_added(schema: str) -> str:
    from millstream.hadoop_loader.tables.parquet import without_added

    return without_added(schema)


def _why_not(table: str, writer: str) -> str:
    from millstream.schemas.avro import UnsupportedSchemaError

    try:
        _check(canonical_text(Joiner(parse_avro(table).root).add(parse_avro(writer).root)))
    except (CannotJoinError, UnsupportedSchemaError) as error:
        return str(error)
    raise AssertionError("a schema that can be joined")


def _check(schema: str) -> None:
    """Raises UnsupportedSchemaError for a schema that has no columns, or too many."""
    from millstream.hadoop_loader.tables.parquet import arrow_schema

    arrow_schema(schema)
