"""Protobuf values to Arrow: `ProtobufDecoder`, with the same result as AvroDecoder.

    decoder = ProtobufDecoder(registry)
    decoded = decoder.decode(batch.column("value"))
    decoded.batch, decoded.rows, decoded.errors

protobuf's runtime (upb, in C) parses each value; what it made of a slice of them is read column by column
(`layout.py`). A slice that cannot be columns is halved until the values that are to blame stand alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from millstream.schemas.avro.columns import DecodedTooLargeError
from millstream.schemas.avro.decoder import (
    FAILED_LOOKUPS_MAX,
    UNKNOWN_KEPT_S,
    BadDatum,
    Decoded,
    Framing,
    OnRecursion,
    Schemas,
    TooManyUnknownIdsError,
    lookup_of,
)
from millstream.schemas.avro.layout import UnsupportedSchemaError
from millstream.schemas.parsing import InvalidSchemaError, ParsedSchema, SchemaType, parse
from millstream.schemas.protobuf.layout import Layout, descriptor_at, descriptor_of
from millstream.schemas.serdes.framing import FramingError, MessagePath, read_indexes, read_prefix

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

TYPES_MAX: Final = 256
"""Message types of writers known at a time; over it all are forgotten."""

# What is there at once as messages, each an object.
_SLICE_ROWS: Final = 10_000
_SLICE_BYTES: Final = 16 << 20
_ID_SIZE: Final = 5
_FIRST_MESSAGE: Final = b"\0"


class _Kind(NamedTuple):
    """How the values of one prefix are read: where they begin, and as which message."""

    start: int
    message: str
    parse: Callable[[bytes], Message]
    layout: Layout


class _Unknown(NamedTuple):
    """Why values cannot be read, and until when that is believed."""

    reason: str
    until: float


class ProtobufDecoder:
    """Decodes values into record batches of one Arrow schema."""

    def __init__(
        self,
        schemas: Schemas | None = None,
        reader_schema: ParsedSchema | str | None = None,
        *,
        message: str | None = None,
        columns: pa.Schema | None = None,
        why_not: Callable[[int, MessagePath, Descriptor], str | None] | None = None,
        framing: Framing = "confluent",
        on_recursion: OnRecursion = "refuse",
    ) -> None:
        """Decode to the columns of a message of `reader_schema`, its first one unless `message` names another.

        Without a reader's schema that is the message of the first value met. As ever in Protobuf, numbers say which
        field is which; `schemas` knows the writers' by the ids before values, so that one of another message is told.
        With `columns` instead, each value is read as its writer's message and columns are found by their names.
        `why_not` is asked of messages that values name, by schema id and path: what it returns makes them bad.
        Without framing values are bare messages of `reader_schema`.
        Raises UnsupportedSchemaError for a message that Arrow has no type for, InvalidSchemaError.
        """
        if framing not in {"confluent", "none"}:
            raise ValueError(f"framing is 'confluent' or 'none', not {framing!r}")
        if on_recursion not in {"refuse", "binary"}:
            raise ValueError(f"on_recursion is 'refuse' or 'binary', not {on_recursion!r}")
        self._lock = threading.Lock()
        self._framed = framing == "confluent"
        self._find = None if schemas is None else lookup_of(schemas)
        self._columns = columns
        self._why_not = why_not
        self._on_recursion: OnRecursion = on_recursion
        # How values that begin so are read, or why they cannot be.
        self._kinds: dict[bytes, _Kind | _Unknown] = {}
        # Looking up costs nothing there, and who fills it may do so at any time.
        self._is_mapping = isinstance(schemas, Mapping)
        self._failed_lookups = 0  # of the call under way
        self._reader: Descriptor | None = None
        self._reader_kind: _Kind | None = None
        if reader_schema is not None:
            self._become(descriptor_of(as_protobuf(reader_schema), message))
        elif not self._framed:
            raise ValueError("bare messages need the schema they were written with")
        elif schemas is None:
            raise ValueError("the messages' schema must be given, or looked up by the ids before them")

    @property
    def schema(self) -> pa.Schema | None:
        """The columns; None until the first schema is met, where neither they nor a reader's was given."""
        if self._columns is not None:
            return self._columns
        return None if self._reader_kind is None else self._reader_kind.layout.schema

    def decode(self, values: pa.Array | pa.ChunkedArray) -> Decoded:
        """Decode `binary` values, of any width or as views.

        One that cannot be decoded is reported with its row. Nulls are in neither the batch nor the errors. Raises what
        looking a schema up raises when nobody could answer, TooManyUnknownIdsError where over FAILED_LOOKUPS_MAX ids
        had no schema, DecodedTooLargeError where a column takes more than Arrow's 32-bit offsets can say.
        """
        with self._lock:
            run = _Run(len(values))
            self._failed_lookups = 0
            chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
            row = 0
            for chunk in chunks:
                rows = min(_SLICE_ROWS, max(1, len(chunk) * _SLICE_BYTES // max(1, chunk.nbytes)))
                for start in range(0, len(chunk), rows):
                    part = chunk.slice(start, rows)
                    self._decode_slice(part, row, run)
                    row += len(part)
            return run.finish(self.schema)

    def _decode_slice(self, values: pa.Array, first_row: int, run: _Run) -> None:
        contents = [one.encode() if isinstance(one, str) else one for one in values.to_pylist()]
        rows = (
            range(len(contents))
            if not values.null_count
            else [at for at, one in enumerate(contents) if one is not None]
        )
        if not self._framed:
            assert self._reader_kind is not None
            self._parse(self._reader_kind, contents, rows, first_row, run)
            return
        of_head: dict[bytes, list[int]] = {}
        for row in rows:
            of_head.setdefault(contents[row][: _ID_SIZE + 1], []).append(row)
        for head, alike in of_head.items():
            if head[_ID_SIZE:] == _FIRST_MESSAGE:
                self._parse(self._kind_of(contents[alike[0]]), contents, alike, first_row, run)
            else:
                # What follows says which message it is.
                for row in alike:
                    self._parse(self._kind_of(contents[row]), contents, [row], first_row, run)

    def _parse(self, kind: _Kind | str, contents: list[bytes], rows: Sequence[int], first_row: int, run: _Run) -> None:
        """Make columns of values of one kind, those at `rows`; bad ones are noted."""
        if isinstance(kind, str):
            for row in rows:
                run.reject(first_row + row, kind, self._id_of(contents[row]))
            return
        parse, start = kind.parse, kind.start
        try:
            messages = [parse(contents[row][start:]) for row in rows]
        except DecodeError as error:
            if len(rows) == 1:
                run.reject(first_row + rows[0], f"it is no {kind.message}: {error}", self._id_of(contents[rows[0]]))
                return
            middle = len(rows) // 2
            self._parse(kind, contents, rows[:middle], first_row, run)
            self._parse(kind, contents, rows[middle:], first_row, run)
            return
        if kind.layout.has_required:
            for row, message in zip(rows, messages, strict=True):
                if not message.IsInitialized():
                    lacking = ", ".join(message.FindInitializationErrors())
                    run.reject(first_row + row, f"required fields are not set: {lacking}", self._id_of(contents[row]))
            rows = [row for row, message in zip(rows, messages, strict=True) if message.IsInitialized()]
            messages = [message for message in messages if message.IsInitialized()]
        if messages:
            run.add(kind.layout, messages, [first_row + row for row in rows], self._id_of(contents[rows[0]]))

    def _id_of(self, value: bytes) -> int | None:
        named = self._framed and len(value) >= _ID_SIZE and value[0] == 0
        return int.from_bytes(value[1:_ID_SIZE], "big") if named else None

    def _kind_of(self, value: bytes) -> _Kind | str:
        """Return how a value is read, or why it cannot be."""
        try:
            framed = read_prefix(value)
            if not isinstance(framed.schema_id, int):
                return "a GUID before the value is not looked up here"
            path, start = read_indexes(value, framed.start)
        except FramingError as error:
            return str(error)
        head = value[:start]
        found = self._kinds.get(head)
        if found is None or (isinstance(found, _Unknown) and found.until <= time.monotonic()):
            if len(self._kinds) >= TYPES_MAX:
                self._kinds.clear()
            found = self._kinds[head] = self._learn(framed.schema_id, path, start)
        return found.reason if isinstance(found, _Unknown) else found

    def _learn(self, schema_id: int, path: MessagePath, start: int) -> _Kind | _Unknown:
        """Return how values of a schema's message are read; what cannot be is believed for a while."""
        if self._find is None:
            assert self._reader_kind is not None
            return self._reader_kind._replace(start=start)
        if self._failed_lookups >= FAILED_LOOKUPS_MAX and not self._is_mapping:
            raise TooManyUnknownIdsError(
                f"the values have more than {FAILED_LOOKUPS_MAX} schema ids without a schema, {schema_id} may be"
                " another; decode fewer values at once"
            )
        found = self._look_up(self._find, schema_id, path, start)
        if isinstance(found, str):
            self._failed_lookups += 1
            return _Unknown(found, time.monotonic() + (0.0 if self._is_mapping else UNKNOWN_KEPT_S))
        return found

    def _look_up(
        self, find: Callable[[int], ParsedSchema | str], schema_id: int, path: MessagePath, start: int
    ) -> _Kind | str:
        try:
            schema = as_protobuf(find(schema_id))
        except LookupError:
            return f"schema {schema_id} is not known"
        except Exception as error:
            # A registry's: what it refuses is the value's fault, what it cannot answer is nobody's.
            if not isinstance(error, InvalidSchemaError) and getattr(error, "is_outage", True):
                raise
            return f"schema {schema_id} cannot be used: {error}"
        try:
            written = descriptor_at(schema, path)
            if self._why_not is not None and (reason := self._why_not(schema_id, path, written)) is not None:
                return reason
            if self._columns is not None and self._reader is None:
                return _kind(written, start, Layout(written, self._columns, on_recursion=self._on_recursion))
        except UnsupportedSchemaError as error:
            return f"schema {schema_id} cannot be used: {error}"
        if self._reader is None:
            self._become(written)
        assert self._reader is not None
        assert self._reader_kind is not None
        if written.full_name != self._reader.full_name:
            return f"it is a {written.full_name}, not a {self._reader.full_name}"
        return self._reader_kind._replace(start=start)

    def _become(self, message: Descriptor) -> None:
        layout = Layout(message, self._columns, on_recursion=self._on_recursion)
        self._reader, self._reader_kind = message, _kind(message, 0, layout)


class _Run:
    """One call of a decoder."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[int] = []
        self._errors: list[BadDatum] = []

    def reject(self, row: int, reason: str, schema_id: int | None) -> None:
        self._errors.append(BadDatum(row, reason, schema_id))

    def add(self, layout: Layout, messages: Sequence[Message], rows: Sequence[int], schema_id: int | None) -> None:
        """Make columns of messages; halve them where that cannot be."""
        waiting = [(0, len(messages))]
        while waiting:
            start, stop = waiting.pop()
            try:
                batch = layout.batch(messages[start:stop])
            except (ValueError, OverflowError, pa.ArrowException) as error:
                if stop - start == 1:
                    self.reject(rows[start], str(error), schema_id)
                else:
                    middle = (start + stop) // 2
                    waiting += [(middle, stop), (start, middle)]
                continue
            self._batches.append(batch)
            self._rows += rows[start:stop]

    def finish(self, schema: pa.Schema | None) -> Decoded:
        """Return the batch, its rows in the order of the values."""
        if not self._batches:
            empty = pa.schema([]) if schema is None else schema
            batch = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in empty], schema=empty)
        else:
            batch = self._batches[0] if len(self._batches) == 1 else _joined(self._batches)
        rows = pa.array(self._rows, pa.int64())
        in_order = all(before < row for before, row in zip(self._rows, self._rows[1:], strict=False))
        if not in_order:
            order = pa.array(sorted(range(len(self._rows)), key=self._rows.__getitem__), pa.int64())
            batch, rows = batch.take(order), rows.take(order)
        return Decoded(batch, None if len(rows) == self._count else rows, sorted(self._errors, key=lambda one: one.row))


def as_protobuf(schema: ParsedSchema | str) -> ParsedSchema:
    """Return a parsed Protobuf schema. Raises InvalidSchemaError."""
    if isinstance(schema, str):
        return parse(SchemaType.PROTOBUF, schema)
    if schema.type != SchemaType.PROTOBUF:
        raise InvalidSchemaError(f"a Protobuf schema is needed, and this is one of {SchemaType(schema.type).value}")
    return schema


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    try:
        return pa.concat_batches(batches)
    except pa.ArrowInvalid as error:
        raise DecodedTooLargeError(f"the columns are too large, decode fewer values at once: {error}") from error


def _kind(message: Descriptor, start: int, layout: Layout) -> _Kind:
    return _Kind(start, message.full_name, GetMessageClass(message).FromString, layout)
