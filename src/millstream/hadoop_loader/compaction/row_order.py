"""The order of a table's rows: by one column of numbers with a radix sort of our own, by anything else with Arrow's.

Narrow rows are Arrow's to sort as well, and all where the kernel is not compiled. Both sorts are stable and agree:
nulls come last, behind NaNs, whichever way the numbers go.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader._kernels import rows as _rows

Key = tuple[str, Literal["ascending", "descending"]]

# What the radix sort needs for a row while it works: a key of eight bytes and a number of four, both twice.
_RADIX_ROW_BYTES: Final = 24
_ROWS_MAX: Final = (1 << 32) - 1
_NO_BITS: Final = b""


def sorted_rows(table: pa.Table, keys: Sequence[Key]) -> pa.Array:
    """Return the numbers of a table's rows in order; equal ones keep theirs."""
    if len(keys) == 1:
        name, direction = keys[0]
        column = table.column(name)
        # Of narrow rows the keys would be more than the rows themselves.
        is_wide = table.nbytes >= _RADIX_ROW_BYTES * table.num_rows
        if _is_number(column.type) and is_wide and table.num_rows <= _ROWS_MAX and _rows.is_compiled():
            return _by_number(column, is_descending=direction == "descending")
    columns = [table.column(name) for name, _ in keys]
    # Arrow sorts by no dictionaries.
    plain = [one.cast(one.type.value_type) if pa.types.is_dictionary(one.type) else one for one in columns]
    return pc.sort_indices(pa.table(plain, names=[name for name, _ in keys]), sort_keys=list(keys))


def _is_number(type_: pa.DataType) -> bool:
    """Whether values are numbers, or stand for numbers, that an int64 or a double holds."""
    if pa.types.is_integer(type_):
        return not pa.types.is_uint64(type_)
    return bool(
        pa.types.is_float32(type_)
        or pa.types.is_float64(type_)
        or (pa.types.is_temporal(type_) and not pa.types.is_interval(type_))
    )


def _by_number(column: pa.ChunkedArray, *, is_descending: bool) -> pa.Array:
    count = len(column)
    keys, rows = pa.allocate_buffer(16 * count), pa.allocate_buffer(8 * count)
    key_bytes = memoryview(keys).cast("B")
    at = 8 * count
    for chunk in column.chunks:
        words = _words(chunk)
        start, stop = 8 * words.offset, 8 * (words.offset + len(words))
        if start < stop:
            key_bytes[at : at + stop - start] = memoryview(words.buffers()[1]).cast("B")[start:stop]
            at += stop - start
    validity = pc.is_valid(column).combine_chunks() if column.null_count else None
    start = _rows.sort_rows(
        key_bytes[8 * count :].cast("q"),
        pa.types.is_floating(column.type),
        is_descending,
        _NO_BITS if validity is None else memoryview(validity.buffers()[1]).cast("B"),
        0 if validity is None else validity.offset,
        key_bytes.cast("q"),
        memoryview(rows).cast("B").cast("I"),
        array("q", bytes(8 * _rows.COUNTS)),
    )
    return pa.Array.from_buffers(pa.uint32(), count, [None, rows.slice(4 * start, 4 * count)])


def _words(values: pa.Array) -> pa.Array:
    """Numbers, or what stands for one, as int64s; of doubles their bits."""
    type_ = values.type
    if pa.types.is_floating(type_):
        return values.cast(pa.float64()).view(pa.int64())
    if not pa.types.is_integer(type_):
        values = values.view(pa.int64() if type_.bit_width == 64 else pa.int32())
    return values.cast(pa.int64())
