"""Directories named by values of fields, as Hive names them.

Hive escapes only what a path or its own syntax cannot have, one byte each as %XX; text beyond ASCII stays as it is. A
null, and a text without a character, is `__HIVE_DEFAULT_PARTITION__`.
"""

from __future__ import annotations

import re
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
# What Hive's FileUtils.escapePathName escapes.
_ESCAPED: Final = re.compile(r"[\x00-\x1f\"#%'*/:=?\\\x7f{\[\]^]")


def escaped(text: str) -> str:
    """Return a name or value as a part of a Hive path."""
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", text)


def directory_part(name: str, value: str | None) -> str:
    """Return `name=value`."""
    return f"{escaped(name)}={escaped(value) if value else NO_VALUE}"


def codes(columns: list[tuple[str, pa.Array]]) -> tuple[pa.Array | None, list[str]]:
    """Return for each row a number among the directories returned; None where all are in the first one."""
    combined: pa.Array | None = None
    directories = [""]
    for name, column in columns:
        encoded = _dictionary(column)
        values = encoded.dictionary.to_pylist()
        parts = [directory_part(name, value) for value in values]
        if len(parts) == 1:
            directories = [_joined(directory, parts[0]) for directory in directories]
            continue
        if combined is None:
            combined = encoded.indices.cast(pa.int64())
            directories = [_joined(directories[0], part) for part in parts]
            continue
        # Pairs of numbers become one, and that is numbered anew: few of all the pairs occur.
        pairs = pc.add(pc.multiply(combined, len(parts)), encoded.indices.cast(pa.int64())).dictionary_encode()
        directories = [
            _joined(directories[pair // len(parts)], parts[pair % len(parts)]) for pair in pairs.dictionary.to_pylist()
        ]
        combined = pairs.indices.cast(pa.int64())
    return combined, directories


def _dictionary(column: pa.Array) -> pa.DictionaryArray:
    """Return a column as numbers of distinct texts, null among them."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    encoded = column.dictionary_encode(null_encoding="encode")
    return pa.DictionaryArray.from_arrays(encoded.indices, _texts(encoded.dictionary))


def _texts(values: pa.Array) -> pa.StringArray:
    """Return values as Hive shows them."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_binary(values.type) or pa.types.is_fixed_size_binary(values.type):
        return pa.array([None if v is None else v.decode(errors="replace") for v in values.to_pylist()], pa.string())
    if pa.types.is_timestamp(values.type):
        return pc.strftime(values.cast(pa.timestamp("us")), "%Y-%m-%d %H:%M:%S")
    return values.cast(pa.string())


def _joined(before: str, part: str) -> str:
    return f"{before}/{part}" if before else part
