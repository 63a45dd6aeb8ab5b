"""JSON by the schema of a job: pyarrow's reader for what it can, Python's for the rest.

Which values pyarrow's reader cannot read nobody knows beforehand: it takes times that are text and none that are
numbers. So it is asked first, and what it calls bad is read again; where that is most of a batch, as with times in
milliseconds in every value, it is not asked any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from millstream.schemas.avro.decoder import Decoded

if TYPE_CHECKING:
    from millstream.hadoop_loader.values.json_objects import JsonObjects
    from millstream.schemas.avro import JsonDecoder

_FIRST_VALUES: Final = 64
"""Values that are tried first: of bad ones the quick reader takes a pass for each."""


class TypedJson:
    """Reads JSON values into columns of a job's schema; one thread at a time."""

    def __init__(self, quick: JsonDecoder, exact: JsonObjects) -> None:
        self._quick: JsonDecoder | None = quick if exact.is_plain else None
        self._exact = exact
        self._is_tried = False

    def decode(self, values: pa.Array) -> Decoded:
        """Decode `binary` values; nulls are in neither the batch nor the errors."""
        if self._quick is not None and not self._is_tried and len(values):
            self._is_tried = True
            self._decode_quickly(self._quick, values[:_FIRST_VALUES])
        if self._quick is None:
            return self._exact.decode(values)
        return self._decode_quickly(self._quick, values)

    def _decode_quickly(self, quick: JsonDecoder, values: pa.Array) -> Decoded:
        decoded = quick.decode(values)
        columns = zip(decoded.batch.columns, self._exact.schema, strict=True)
        if any(_lacks(column, field.type) for column, field in columns):
            return self._exact.decode(values)
        if not decoded.errors:
            return decoded
        refused = pa.array([error.row for error in decoded.errors], pa.int64())
        again = self._exact.decode(values.take(refused))
        errors = [error._replace(row=refused[error.row].as_py()) for error in again.errors]
        if again.batch.num_rows * 2 > len(values):
            self._quick = None
        assert decoded.rows is not None, "a value was refused"
        read = refused if again.rows is None else refused.take(again.rows)
        rows = pa.concat_arrays([decoded.rows, read])
        order = pc.array_sort_indices(rows)
        batch = pa.concat_batches([decoded.batch, again.batch]).take(order)
        return Decoded(batch, None if len(rows) == len(values) else rows.take(order), errors)


def _lacks(column: pa.Array, type_: pa.DataType) -> bool:
    """Whether a struct or list has a null within it that must not be there."""
    if pt.is_struct(type_):
        return any(
            (not field.nullable and child.null_count > column.null_count) or _lacks(child, field.type)
            for field, child in zip(type_, column.flatten(), strict=True)
        )
    if pt.is_list(type_):
        items = column.flatten()
        return bool(not type_.value_field.nullable and items.null_count) or _lacks(items, type_.value_type)
    return False
