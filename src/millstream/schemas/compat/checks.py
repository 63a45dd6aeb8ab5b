"""The checks by schema type, and a new schema against a subject's versions under a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from millstream.schemas.compat.incompatibility import Incompatibility
from millstream.schemas.compat.level import Level
from millstream.schemas.parsing import ParsedSchema, SchemaType

SHOWN_SCHEMA_CHARACTERS_MAX: Final = 10 * 1024
"""How much of an earlier schema a message shows: Confluent's bound."""


def incompatibilities(
    reader: ParsedSchema, writer: ParsedSchema, *, reader_is: str = "reader's", writer_is: str = "writer's"
) -> list[Incompatibility]:
    """Return why data written with `writer` can't be read with `reader`; empty where it can.

    `reader_is` and `writer_is` are what the sentences call the two schemas.
    """
    if reader.type is not writer.type:
        sentence = (
            f"the {reader_is} schema is of type {reader.type} and the {writer_is} one of type {writer.type};"
            " use another subject for another type"
        )
        return [Incompatibility("SCHEMA_TYPE_MISMATCH", "/", sentence)]
    if reader.type is SchemaType.AVRO:
        from millstream.schemas.compat.avro import avro_incompatibilities
        from millstream.schemas.parsing.avro import AvroSchema

        assert isinstance(reader, AvroSchema), reader
        assert isinstance(writer, AvroSchema), writer
        return avro_incompatibilities(reader, writer, reader_is, writer_is)
    if reader.type is SchemaType.JSON:
        from millstream.schemas.compat.json_schema import json_schema_incompatibilities
        from millstream.schemas.parsing.json_schema import JsonSchema

        assert isinstance(reader, JsonSchema), reader
        assert isinstance(writer, JsonSchema), writer
        return json_schema_incompatibilities(reader, writer, reader_is, writer_is)
    from millstream.schemas.compat.protobuf import protobuf_incompatibilities
    from millstream.schemas.parsing.protobuf import ProtobufSchema

    assert isinstance(reader, ProtobufSchema), reader
    assert isinstance(writer, ProtobufSchema), writer
    return protobuf_incompatibilities(reader, writer, reader_is, writer_is)


def check(level: Level | str, new: ParsedSchema, previous: Sequence[ParsedSchema]) -> list[Incompatibility]:
    """Return what `new` breaks of `level` towards `previous` (oldest first); empty where it is compatible.

    Transitive levels look from the newest version back and stop at the first that is not compatible.
    """
    return check_versions(level, new, previous)[1]


def check_versions(
    level: Level | str, new: ParsedSchema, previous: Sequence[ParsedSchema]
) -> tuple[int, list[Incompatibility]]:
    """As `check`, with the index into `previous` of the version that is not compatible, -1 where there is none."""
    level = Level(level)
    if level is Level.NONE:
        return -1, []
    first = 0 if level.is_transitive else max(0, len(previous) - 1)
    for index in range(len(previous) - 1, first - 1, -1):
        found: list[Incompatibility] = []
        if new.type is not previous[index].type:
            found = incompatibilities(new, previous[index], reader_is="new", writer_is="old")
        else:
            if level.is_forward:
                found += incompatibilities(previous[index], new, reader_is="old", writer_is="new")
            if level.is_backward:
                found += incompatibilities(new, previous[index], reader_is="new", writer_is="old")
        if found:
            return index, found
    return -1, []


def verbose_messages(
    level: Level | str, new: ParsedSchema, previous: Sequence[ParsedSchema], versions: Sequence[int] = ()
) -> list[str]:
    """Return what a registry answers to `verbose=true`: each incompatibility, then the version and schema it is with.

    `versions` are the version numbers of `previous`, where they are known. Empty where `new` is compatible.
    """
    index, found = check_versions(level, new, previous)
    messages = [str(incompatibility) for incompatibility in found]
    if index >= 0:
        if versions:
            messages.append(f"{{oldSchemaVersion: {versions[index]}}}")
        text = previous[index].text
        if len(text) <= SHOWN_SCHEMA_CHARACTERS_MAX:
            messages.append(f"{{oldSchema: '{text}'}}")
        else:
            messages.append(f"{{oldSchema: <truncated> '{text[:SHOWN_SCHEMA_CHARACTERS_MAX]}...'}}")
    return messages
