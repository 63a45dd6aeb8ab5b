"""Fields that a job names directories by, held against what its values have: before a run, not record by record."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.types as pt

from millstream.hadoop_loader.partitioning.field_times import is_time
from millstream.hadoop_loader.partitioning.partitioner import RECORD_TIME, avro_type_at, type_at
from millstream.schemas.parsing.avro_types import logical_type

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import Partitioning

_NESTING_MAX: Final = 10


def why_not_placed(settings: Partitioning, columns: pa.Schema, avro_schema: str | None) -> str | None:
    """Return why no row of these columns could be placed, None where one could.

    `avro_schema` is that of the values, which says what the numbers of some columns mean.
    """
    if settings.kind not in ("fields", "time"):
        return None
    for name in settings.fields:
        key = f'partitioning.fields has "{name}"'
        type_ = type_at(columns, name)
        if type_ is None:
            return f"{key}: {_nothing(name, columns)}"
        if pt.is_nested(type_):
            return f"{key}: the field is {_named(type_)}, which names no directory; name one within it"
    name = settings.timestamp
    if settings.kind != "time" or name == RECORD_TIME:
        return None
    key, type_ = f'partitioning.timestamp = "{name}"', type_at(columns, name)
    if type_ is None:
        return f"{key}: {_nothing(name, columns)}"
    if not is_time(type_):
        return f"{key}: the field is {_named(type_)}; it takes a timestamp, a date, text of ISO 8601 or a number"
    found = None if avro_schema is None else avro_type_at(avro_schema, name)
    logical = None if found is None else logical_type(found)
    what = "" if logical is None else logical.name
    if what.startswith("time-"):
        return f"{key}: the field is a time of day, of no day; name a timestamp or a date"
    if what.endswith("timestamp-nanos") and settings.timestamp_unit != "ns":
        return f'{key}: the field has nanoseconds; set partitioning.timestamp_unit = "ns"'
    return None


def hidden_by_directories(settings: Partitioning, columns: pa.Schema) -> list[str]:
    """Return the columns that are called as a part of the time's directories, `key=`, whatever the case.

    Readers that take directories for columns show what is in the name in place of what is in the file, or refuse both.
    """
    if settings.kind != "time":
        return []
    keys = {key.casefold() for key in re.findall(r"([^/=]+)=", settings.time_pattern)}
    return [name for name in columns.names if name.casefold() in keys]


def _nothing(name: str, columns: pa.Schema) -> str:
    known = {path.casefold(): path for path in _paths(columns, "")}
    near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.6)
    return "the values have no such field" + (f"; did you mean {known[near[0]]}?" if near else "")


def _paths(fields: pa.Schema | pa.StructType, before: str) -> Iterator[str]:
    for field in fields:
        yield f"{before}{field.name}"
        if pt.is_struct(field.type) and before.count(".") < _NESTING_MAX:
            yield from _paths(field.type, f"{before}{field.name}.")


def _named(type_: pa.DataType) -> str:
    if pt.is_struct(type_):
        return "a record"
    return "an enum" if pt.is_dictionary(type_) else str(type_)
