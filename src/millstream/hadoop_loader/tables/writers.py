"""Numbers of a topic's writers: the id of a schema and, of Protobuf, which of its messages.

    bits 0-31    the schema's id
    above them   the path of the message as values have it before them, read as one big-endian number

A file of Protobuf holds messages that have nothing to do with each other, and each value says which of them it is: so
every one that values name is a writer by itself. The first message has no bits above the id, as Avro and JSON have
none. People, and the document of the tables, are told `7`, and `7:1.0` of the first message in the second.
"""

from __future__ import annotations

from typing import Final

from millstream.schemas.serdes.framing import MessagePath, encode_indexes, read_indexes

FIRST_MESSAGE: Final[MessagePath] = (0,)
_ID_BITS: Final = 32


def writer_number(schema_id: int, path: MessagePath = FIRST_MESSAGE) -> int:
    """Return the number of a schema's message."""
    # Of the first message that is a single zero; of every other the first byte, a count, is not zero.
    return schema_id | int.from_bytes(encode_indexes(path), "big") << _ID_BITS


def schema_id_of(number: int) -> int:
    """Return the id of a writer's schema."""
    return number & (1 << _ID_BITS) - 1


def path_of(number: int) -> MessagePath:
    """Return which message of its schema a writer's values are."""
    above = number >> _ID_BITS
    return read_indexes(above.to_bytes(max(1, (above.bit_length() + 7) // 8), "big"), 0)[0]


def writer_name(number: int) -> str:
    """Return the number as people read it."""
    path = path_of(number)
    message = "" if path == FIRST_MESSAGE else f":{'.'.join(map(str, path))}"
    return f"{schema_id_of(number)}{message}"


def number_of(name: str) -> int:
    """Return what `writer_name` makes of a number as that number."""
    schema_id, _, path = name.partition(":")
    return writer_number(int(schema_id), tuple(map(int, path.split("."))) if path else FIRST_MESSAGE)
