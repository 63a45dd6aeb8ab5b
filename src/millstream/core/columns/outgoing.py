"""What of a table is sent, and whether it can be: columns by name or as arrays, of any type that holds bytes.

Anything with Arrow's C interface is a table here: pyarrow's own, polars, pandas, duckdb, and a mapping of names to
lists. A stream of batches is read batch by batch, so it may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from millstream.core._kernels.record_encoding import BinaryColumn, Rows
from millstream.core.wire import ErrorCode, KafkaError

# Batches of a table that are smaller than this are put together, for the sake of what is sent.
ROWS_TOGETHER: Final = 65_536
_DEFAULTS: Final = ("key", "value")
_NO_TIMESTAMP: Final = -1


class Choice(NamedTuple):
    """What a caller said of each part of a record: a column's name, an array, None; a number where that makes sense."""

    key: Any = None
    value: Any = None
    timestamp: Any = None
    partition: Any = None
    headers: Any = None


class Outgoing(NamedTuple):
    """Rows to encode. `partitions` is an int32 array, or one number for all, or None to go by the keys.

    `first_row` is the place of the first of them in what was given, for errors.
    """

    rows: Rows
    keys: BinaryColumn
    values: BinaryColumn
    partitions: pa.Array | int | None
    first_row: int
    batch: pa.RecordBatch


def outgoing(data: Any, choice: Choice, now_ms: int) -> Iterator[Outgoing]:
    """Yield what is to be sent of `data`, part by part.

    Raises TypeError for what is no table and for a column of a type that cannot be sent, KeyError for a column that is
    not there, ValueError for a null or a negative timestamp, naming its row.
    """
    first_row = 0
    for batch in _batches(data, choice):
        if batch.num_rows == 0:
            continue
        yield _prepared(batch, choice, now_ms, first_row)
        first_row += batch.num_rows


def _batches(data: Any, choice: Choice) -> Iterator[pa.RecordBatch]:
    """Yield batches whose columns are named after parts of a record."""
    if isinstance(data, Mapping):
        data = pa.table(dict(data))
    arrays = {part: given for part, given in choice._asdict().items() if _is_array(given)}
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    elif not isinstance(data, pa.Table):
        if hasattr(data, "__arrow_c_stream__"):
            reader = pa.RecordBatchReader.from_stream(data)
            if not arrays:
                for batch in reader:
                    yield from _chosen(pa.Table.from_batches([batch]), choice, {}).to_batches()
                return
            data = reader.read_all()
        elif hasattr(data, "__arrow_c_array__"):
            data = pa.Table.from_batches([pa.record_batch(data)])
        else:
            raise TypeError(
                f"a {type(data).__name__} is no table: give one of pyarrow, polars, pandas or duckdb, or a mapping"
            )
    table = _chosen(data, choice, arrays)
    if table.num_columns and table.column(0).num_chunks * ROWS_TOGETHER > table.num_rows + ROWS_TOGETHER:
        table = table.combine_chunks()
    yield from table.to_batches()


def _is_array(given: Any) -> bool:
    return given is not None and not isinstance(given, str | int)


def _chosen(table: pa.Table, choice: Choice, arrays: Mapping[str, Any]) -> pa.Table:
    columns: dict[str, Any] = {}
    for part, given in choice._asdict().items():
        if part in arrays:
            columns[part] = _as_array(part, given, table.num_rows)
        elif isinstance(given, str):
            if given not in table.column_names:
                raise KeyError(f"{part}={given!r}: the table has no such column, but {_named(table.column_names)}")
            columns[part] = table.column(given)
        elif given is None and part in _DEFAULTS and part in table.column_names:
            columns[part] = table.column(part)
        elif given is not None and (part != "partition" or isinstance(given, bool)):
            raise TypeError(f"{part} is a column's name or an array, not {given!r}")
    if not columns.keys() & set(_DEFAULTS):
        raise KeyError(f"key= or value= has to name a column: the table has {_named(table.column_names)}")
    return pa.table(columns)


def _as_array(part: str, given: Any, count: int) -> pa.Array | pa.ChunkedArray:
    if not isinstance(given, pa.Array | pa.ChunkedArray):
        given = pa.chunked_array(given) if hasattr(given, "__arrow_c_stream__") else pa.array(given)
    if len(given) != count:
        raise ValueError(f"{part} has {len(given)} rows, the table {count}")
    return given


def _prepared(batch: pa.RecordBatch, choice: Choice, now_ms: int, first_row: int) -> Outgoing:
    present = set(batch.schema.names)
    count = batch.num_rows
    keys = _content(batch.column("key"), "key") if "key" in present else BinaryColumn(count)
    values = _content(batch.column("value"), "value") if "value" in present else BinaryColumn(count)
    timestamps = None
    if "timestamp" in present:
        timestamps = _timestamps(batch.column("timestamp"), first_row)
    lists: tuple[Any, ...] = ()
    if "headers" in present:
        lists = _headers(batch.column("headers"), first_row)
    rows = Rows(keys, values, now_ms, timestamps, *lists)
    partitions: pa.Array | int | None = choice.partition if isinstance(choice.partition, int) else None
    if "partition" in present:
        partitions = _partitions(batch.column("partition"), first_row)
    return Outgoing(rows, keys, values, partitions, first_row, batch)


def _content(array: pa.Array, part: str) -> BinaryColumn:
    """Look at an array of bytes or text the way the kernels do. Raises TypeError."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
            # Arrow cannot look views up in a dictionary (polars' Categorical and Enum are such).
            array = pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(pa.large_binary()))
    if pa.types.is_null(kind):
        return BinaryColumn(len(array))
    holds_bytes = (
        pa.types.is_binary(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_string_view(kind)
    )
    if not holds_bytes:
        raise TypeError(f"{part} is a column of {array.type}: records hold bytes or text, cast or serialize it first")
    plain = array.cast(pa.large_binary())
    validity, offsets, content = plain.buffers()
    return BinaryColumn(
        len(plain),
        _int64s(offsets),
        _bytes(content),
        _bytes(validity) if plain.null_count else b"",
        plain.offset,
    )


def _timestamps(array: pa.Array, first_row: int) -> memoryview:
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms", tz=getattr(array.type, "tz", None)), safe=False).cast(pa.int64())
    elif pa.types.is_integer(array.type):
        array = array.cast(pa.int64())
    else:
        raise TypeError(f"timestamp is a column of {array.type}: give a timestamp, or milliseconds as integers")
    _refuse(pc.is_null(array), first_row, "its timestamp is null")
    _refuse(pc.less(array, 0), first_row, "its timestamp is before 1970")
    return _numbers(array)


def _partitions(array: pa.Array, first_row: int) -> pa.Array:
    if not pa.types.is_integer(array.type):
        raise TypeError(f"partition is a column of {array.type}: give integers")
    _refuse(pc.is_null(array), first_row, "its partition is null")
    _refuse(pc.or_(pc.less(array, 0), pc.greater(array, 2**31 - 1)), first_row, "its partition is no partition")
    return array.cast(pa.int32())


def _headers(array: pa.Array, first_row: int) -> tuple[Any, BinaryColumn, BinaryColumn]:
    kind = array.type
    if pa.types.is_null(kind):
        array = pa.nulls(len(array), pa.list_(pa.struct({"key": pa.string(), "value": pa.binary()})))
        kind = array.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind)
    if not is_list or not pa.types.is_struct(array.values.type) or array.values.type.num_fields != 2:
        raise TypeError(f"headers is a column of {kind}: give a list of structs of key and value, or a map")
    if array.null_count:
        # A null list may still have something in its place.
        array = pc.coalesce(array, pa.scalar([], array.type))
    pairs = array.values
    names, contents = pairs.flatten()
    if names.null_count:
        bad = pc.index(pc.is_null(names), True).as_py()
        row = first_row + sum(1 for end in array.offsets.to_pylist()[1:] if end <= bad)
        raise ValueError(f"row {row}: the key of a header is null")
    lists = array.offsets.cast(pa.int64())
    return _numbers(lists), _content(names, "the key of headers"), _content(contents, "the value of headers")


def _refuse(bad: pa.Array, first_row: int, why: str) -> None:
    at = pc.index(bad, True).as_py()
    if at >= 0:
        raise ValueError(f"row {first_row + at}: {why}")


def _numbers(array: pa.Array) -> memoryview:
    """Return the values of an int64 array."""
    return _int64s(array.buffers()[1])[array.offset : array.offset + len(array)]


def _int64s(buffer: pa.Buffer) -> memoryview:
    whole = memoryview(buffer).cast("B")
    return whole[: len(whole) // 8 * 8].cast("q")


def _bytes(buffer: pa.Buffer | None) -> memoryview | bytes:
    return memoryview(buffer).cast("B") if buffer is not None and buffer.size else b""


def _named(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none at all"


def refuse_row(row: int, size_bytes: int, size_bytes_max: int) -> KafkaError:
    """Return what a row raises that no batch can take."""
    return KafkaError(
        ErrorCode.MESSAGE_TOO_LARGE,
        f"row {row}: its record takes {size_bytes} bytes in a batch, more than the {size_bytes_max} "
        "that max_request_size and buffer_memory allow",
    )
