"""Columns without what Arrow wraps them in, and their types likewise: what the encoder writes from.

Run ends, extension types, and dictionaries of nested values are decoded; views of lists become lists; a union of
Arrow's becomes the struct that decoding makes of Avro's: a field for each branch, all null but one; a column of nothing
but nulls becomes one of the type that is wanted.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def unwrapped(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Return a column of the type that `unwrapped_type` says; a dictionary of plain values stays one."""
    while True:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        elif isinstance(column, pa.RunEndEncodedArray):
            column = _without_run_ends(column)
        elif isinstance(column, pa.DictionaryArray) and (
            pa.types.is_nested(column.type.value_type) or column.dictionary.null_count
        ):
            # Nulls of the dictionary would be values.
            column = column.dictionary_decode()
        elif isinstance(column, pa.UnionArray):
            column = _as_struct(column)
        elif pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
            column = _as_list(column)
        elif pa.types.is_null(column.type) and pa.types.is_nested(wanted):
            return pa.nulls(len(column), wanted)
        else:
            return column


def unwrapped_type(type_: pa.DataType, wanted: pa.DataType) -> pa.DataType:
    """Return what a type is without its wrapping."""
    while True:
        if isinstance(type_, pa.BaseExtensionType):
            type_ = type_.storage_type
        elif pa.types.is_run_end_encoded(type_) or pa.types.is_dictionary(type_):
            type_ = type_.value_type
        elif pa.types.is_union(type_):
            type_ = pa.struct(_branches(type_))
        elif pa.types.is_null(type_):
            return wanted
        else:
            return type_


def _without_run_ends(column: pa.RunEndEncodedArray) -> pa.Array:
    runs = pc.indices_nonzero(pa.repeat(True, len(column.values)))
    places = pa.RunEndEncodedArray.from_arrays(column.run_ends, runs)
    return column.values.take(pc.run_end_decode(places.slice(column.offset, len(column))))


def _as_list(column: pa.Array) -> pa.ListArray:
    """Return views as a list. pyarrow 26's cast of them loses items."""
    sizes = pc.fill_null(pc.list_value_length(column), 0).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum_checked(sizes)])
    is_null = column.is_null() if column.null_count else None
    return pa.ListArray.from_arrays(offsets, column.flatten(), mask=is_null)


def _branches(type_: pa.UnionType) -> list[pa.Field]:
    return [field for field in type_ if not pa.types.is_null(field.type)]


def _as_struct(column: pa.UnionArray) -> pa.StructArray:
    rows, buffers = len(column), column.buffers()
    # pyarrow's own type_codes and offsets forget that a column is a slice.
    codes = pa.Array.from_buffers(pa.int8(), rows, [None, buffers[1]], 0, column.offset)
    if column.type.mode == "dense":
        places = pa.Array.from_buffers(pa.int32(), rows, [None, buffers[2]], 0, column.offset)
    else:
        places = pc.indices_nonzero(pa.repeat(True, rows)).cast(pa.int32())
    parts = []
    for number, (code, field) in enumerate(zip(column.type.type_codes, column.type, strict=True)):
        if not pa.types.is_null(field.type):
            of_branch = pc.if_else(pc.equal(codes, code), places, pa.scalar(None, pa.int32()))
            parts.append(column.field(number).take(of_branch))
    branches = [field.with_nullable(True) for field in _branches(column.type)]
    if not parts:
        return pa.Array.from_buffers(pa.struct([]), rows, [None])
    return pa.StructArray.from_arrays(parts, fields=branches)
