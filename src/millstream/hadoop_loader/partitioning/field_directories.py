"""Directories named by values of fields, as Hive names them.

Hive escapes only what a path or its own syntax cannot have, one byte each as %XX; text beyond ASCII stays as it is. A
null, and a text without a character, is `__HIVE_DEFAULT_PARTITION__`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import reduce
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.partitioning.grouping import Coding, below

NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
# What Hive's FileUtils.escapePathName escapes.
_ESCAPED: Final = re.compile(r"[\x00-\x1f\"#%'*/:=?\\\x7f{\[\]^]")

_NO_NUMBERS: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def escaped(text: str) -> str:
    """Return a name or value as a part of a Hive path."""
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", text)


def directory_part(name: str, value: str | None) -> str:
    """Return `name=value`."""
    return f"{escaped(name)}={escaped(value) if value else NO_VALUE}"


def codes(columns: list[tuple[str, pa.Array]]) -> Coding:
    """Return the directories of rows, the first column's outermost."""
    return reduce(below, [_codes_of(name, column) for name, column in columns])


def _codes_of(name: str, column: pa.Array) -> Coding:
    encoded = _dictionary(column)
    parts = [directory_part(name, value) for value in encoded.dictionary.to_pylist()]
    return (None if len(parts) == 1 else encoded.indices), parts


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
        # Arrow shows as many digits of a second as the type has, Hive no zeros at their end.
        shown = values.cast(pa.timestamp(values.type.unit)).cast(pa.string())
        return pc.replace_substring_regex(shown, r"\.?0*$", "") if values.type.unit != "s" else shown
    if pa.types.is_floating(values.type):
        return pa.array([None if one is None else _java_number(one) for one in _shortest(values)], pa.string())
    return values.cast(pa.string())


def _shortest(numbers: pa.Array) -> list[str | None]:
    """Return numbers with as many digits as tell them from their neighbours in the type."""
    return [None if number is None else str(number) for number in numbers.cast(pa.string()).to_pylist()]


def _java_number(text: str) -> str:
    """Return a number as Java shows it: 1.0, 1.0E7."""
    if text in _NO_NUMBERS:
        return _NO_NUMBERS[text]
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int), text
    shown = "".join(map(str, digits)).rstrip("0") or "0"
    point = len(digits) + exponent if shown != "0" else 1  # digits before it
    if -3 < point <= 7:
        padded = shown.rjust(len(shown) - point + 1, "0") if point <= 0 else shown.ljust(point, "0")
        whole = max(point, 1)
        text = f"{padded[:whole]}.{padded[whole:] or '0'}"
    else:
        text = f"{shown[0]}.{shown[1:] or '0'}E{point - 1}"
    return f"-{text}" if sign else text
