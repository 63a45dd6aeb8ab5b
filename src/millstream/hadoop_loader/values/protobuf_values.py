"""Protobuf messages to columns, by protobuf's own library: a record at a time, so some ten thousands a second.

What is read is what the table's columns name: fields by their names, at any depth; messages that are not set are null,
other fields are never null but those that are `optional` or in a `oneof`. Enums are the names of their values, a number
without a name its digits. google.protobuf.Timestamp and the wrappers become what the column's type asks for. A value
behind Confluent's prefix says by a path of indexes which message of the file it is; without framing the job does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader.values.framed_values import Schemas
from millstream.hadoop_loader.values.located import FRAMED_SIZE
from millstream.hadoop_loader.values.rows import BadRow
from millstream.schemas.parsing import SchemaType, parse
from millstream.schemas.serdes.framing import FramingError, MessagePath, read_indexes
from millstream.schemas.serdes.protobuf import message_at

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion
    from millstream.schemas.client import RegistryClient

Read = Callable[[bytes], Any]

_UNITS_PER_S: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class ProtobufParse:
    """Protobuf values of one topic to columns."""

    def __init__(self, columns: pa.Schema, table: TableVersion, registry: RegistryClient | None, job: LoadJob) -> None:
        self._columns = columns
        self._table = table
        self._schemas = Schemas(table, registry) if job.value.framing == "registry" else None
        self._readers: dict[tuple[int, MessagePath], Read | str] = {}
        self._plain: Read | None = None
        if self._schemas is None:
            assert job.value.schema_file is not None, "the job has a schema file where nothing names a schema"
            self._plain = _reader_of(Path(job.value.schema_file).read_text(), {}, job.value.message, ())

    def __call__(self, records: pa.RecordBatch, bad: list[BadRow]) -> tuple[pa.RecordBatch, pa.Int64Array | None]:
        """Parse the values that are there."""
        values = records.column("value")
        if self._schemas is None:
            rows = {0: pc.indices_nonzero(pc.is_valid(values)).cast(pa.int64())}
        else:
            rows = self._schemas.rows_by_id(values, bad)
        parsed: list[tuple[int, dict[str, Any]]] = []
        for schema_id, places in rows.items():
            for row, value in zip(places.to_pylist(), values.take(places).to_pylist(), strict=True):
                try:
                    parsed.append((row, self._parsed(schema_id, value)))
                except (ValueError, FramingError) as error:
                    bad.append(BadRow(row, str(error)))
        parsed.sort(key=lambda one: one[0])
        batch = pa.RecordBatch.from_pylist([content for _, content in parsed], schema=self._columns)
        if len(parsed) == records.num_rows:
            return batch, None
        return batch, pa.array([row for row, _ in parsed], pa.int64())

    def _parsed(self, schema_id: int, value: bytes) -> dict[str, Any]:
        """Return a value's columns. Raises ValueError."""
        if self._plain is not None:
            message = self._plain(value)
        else:
            path, start = read_indexes(value, FRAMED_SIZE)
            message = self._reader(schema_id, path)(value[start:])
        return {field.name: _member(message, field.name, field.type) for field in self._columns}

    def _reader(self, schema_id: int, path: MessagePath) -> Read:
        found = self._readers.get((schema_id, path))
        if found is None:
            source = self._table.sources[schema_id]
            try:
                found = _reader_of(source.text, dict(source.references), None, path)
            except ValueError as error:
                found = str(error)
            self._readers[schema_id, path] = found
        if isinstance(found, str):
            raise ValueError(found)  # noqa: TRY004  it says what the schema lacks
        return found


def _reader_of(text: str, resolved: dict[str, str], name: str | None, path: MessagePath) -> Read:
    """Return what makes messages of bytes; `name` or `path` says which of the file. Raises ValueError."""
    from google.protobuf.message import DecodeError
    from google.protobuf.message_factory import GetMessageClass

    schema: Any = parse(SchemaType.PROTOBUF, text, resolved=resolved)
    if name is not None:
        names = [message.name for message in schema.file_descriptor.message_type]
        short = name.rpartition(".")[2]
        if short not in names:
            raise ValueError(f"the schema has no message {name!r} at its top")
        path = (names.index(short),)
    message_type = GetMessageClass(message_at(schema, path or (0,)))

    def read(data: bytes) -> Any:
        try:
            return message_type.FromString(data)
        except DecodeError as error:
            raise ValueError(f"it is no {message_type.DESCRIPTOR.full_name}: {error}") from error

    return read


def _member(message: Any, name: str, type_: pa.DataType) -> Any:
    """Return a field of a message as a column of that type takes it."""
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        return None
    value = getattr(message, name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        content = field.message_type.fields_by_name["value"]
        return [(key, _single(content, value[key], type_.item_type)) for key in value]
    if pa.types.is_list(type_):
        return [_single(field, one, type_.value_type) for one in value]
    if field.has_presence and not message.HasField(name):
        return None
    return _single(field, value, type_)


def _single(field: Any, value: Any, type_: pa.DataType) -> Any:
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return str(value) if named is None else named.name
    if field.message_type is None:
        return value
    if pa.types.is_timestamp(type_):
        return value.seconds * _UNITS_PER_S[type_.unit] + value.nanos * _UNITS_PER_S[type_.unit] // 10**9
    if not pa.types.is_struct(type_):
        return value.value if "value" in field.message_type.fields_by_name else value.SerializeToString()
    return {one.name: _member(value, one.name, one.type) for one in type_}
