"""JSON values to Arrow, with the same result as Avro's: pyarrow's reader, made to answer for each row.

Of what was measured (values of 8 fields, a second of CPU; `bench/avro.py`) pyarrow.json reads 0.9 M, json with
`from_pylist` 0.2 M; polars (1.7 M) and DuckDB (1.8 M) are twice as quick and whole engines to carry about, and neither
tells which row was to blame. So pyarrow, which is here anyway. It reads lines and stops at the first mistake, whose row
it mostly tells: values are joined by newlines, those before the mistake are read without the others, and where no row
was told the values are halved. How many are tried together follows from how many were good together, so that a batch of
nothing but mistakes costs one attempt for each.

Rows cannot slip against values: each value must begin and end as an object. Two cannot run together, as behind a `}`
and a newline no `{` may follow within an object or array, and a newline may not stand in a string. So each value gives
one row at least, and where there are as many rows as values, each value is one.

pyarrow's reader takes any bytes for text, and NaN for a number. Neither is JSON, and both are looked for here: a text
that is none would end every reader of the file that it gets into.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.types as pt

from millstream.schemas.avro.columns import DecodedTooLargeError
from millstream.schemas.avro.decoder import BadDatum, Decoded

_BEGINS: Final = r"^[ \t\r\n]*\{"
_ENDS: Final = r"\}[ \t\r\n]*$"
_SIZE_BYTES_MAX: Final = 1 << 30  # of one read: pyarrow counts in 32 bits
_TRIED_BEHIND_A_MISTAKE: Final = 16  # values: another one is likely
# JSON has no infinite numbers, so such a one was too large.
_NO_NUMBERS: Final = (
    (pc.is_inf, "has a number that is more than its type holds"),
    (pc.is_nan, "has NaN, which is no number of JSON"),
)


class _Mistake(NamedTuple):
    """Why values cannot be read, and how many objects before the mistake could be, where that is told.

    A mistake in the very first object is the first value's: no other begins within it.
    """

    reason: str
    row: int | None = None


class _Rows(NamedTuple):
    """Values that could be read, a row each, and by row why some are none all the same."""

    table: pa.Table
    wrong: dict[int, str]


class JsonDecoder:
    """Decodes JSON objects into record batches of one Arrow schema; members that it does not name are left out."""

    def __init__(self, schema: pa.Schema) -> None:
        """Decode to `schema`: its types are those that pyarrow.json can read from text and numbers."""
        self.schema = schema

    def decode(self, values: pa.Array | pa.ChunkedArray) -> Decoded:
        """Decode `binary` or `string` values; one that is no object of the schema is reported with its row.

        What is neither in the batch nor in the errors was null. Raises DecodedTooLargeError where a column takes more
        than Arrow's 32-bit offsets can say.
        """
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        whole = values.cast(pa.large_binary())
        errors = _not_text(whole)
        if errors:
            refused = {error.row for error in errors}
            is_refused = pa.array([row in refused for row in range(len(whole))])
            whole = pc.if_else(is_refused, pa.scalar(None, whole.type), whole)
        begins = pc.match_substring_regex(whole, _BEGINS)
        ends = pc.match_substring_regex(whole, _ENDS)
        places = pc.indices_nonzero(pc.and_(begins, ends)).cast(pa.int64())
        errors += [
            BadDatum(row, f"the value does not {verb} as a JSON object", None)
            for verb, wrong in (("begin", pc.invert(begins)), ("end", pc.and_not(begins, ends)))
            for row in pc.indices_nonzero(wrong).to_pylist()
        ]
        tables: list[pa.Table] = []
        good: list[pa.Array] = []
        waiting = whole.take(places) if len(places) < len(whole) else whole
        start, count = 0, len(waiting)
        while start < len(waiting):
            piece = waiting.slice(start, count)
            read = self._read(piece)
            if isinstance(read, _Rows):
                found, rows_read = read.table, places.slice(start, len(piece))
                if read.wrong:
                    errors += [BadDatum(rows_read[row].as_py(), reason, None) for row, reason in read.wrong.items()]
                    right = pa.array([row for row in range(len(piece)) if row not in read.wrong], pa.int64())
                    found, rows_read = found.take(right), rows_read.take(right)
                tables.append(found)
                good.append(rows_read)
                start += len(piece)
                count = 4 * len(piece)
            elif len(piece) == 1 or read.row == 0:
                errors.append(BadDatum(places[start].as_py(), read.reason, None))
                start += 1
                count = min(count, _TRIED_BEHIND_A_MISTAKE)
            else:
                count = read.row if read.row is not None and read.row < len(piece) else len(piece) // 2
        table = pa.concat_tables([self.schema.empty_table(), *tables]).combine_chunks()
        batches = table.to_batches()
        if len(batches) > 1:
            raise DecodedTooLargeError(
                "a column takes more than 2^31 - 1 bytes in one batch; decode fewer values at once"
            )
        columns = [pa.array([], field.type) for field in self.schema]
        batch = batches[0] if batches else pa.RecordBatch.from_arrays(columns, schema=self.schema)
        rows = None if batch.num_rows == len(values) else pa.concat_arrays([places.slice(0, 0), *good])
        return Decoded(batch, rows, sorted(errors))

    def _read(self, values: pa.LargeBinaryArray) -> _Rows | _Mistake:
        """Return as many rows as there are values, or why that cannot be."""
        lines = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
        data = pc.binary_join(lines, pa.scalar(b"\n", values.type)).buffers()[2]
        if data.size > _SIZE_BYTES_MAX:
            return _Mistake(f"the value takes more than {_SIZE_BYTES_MAX} bytes")
        try:
            table = pyarrow.json.read_json(
                pa.BufferReader(data),
                read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=data.size + 1),
                parse_options=pyarrow.json.ParseOptions(
                    explicit_schema=self.schema, newlines_in_values=True, unexpected_field_behavior="ignore"
                ),
            )
        except pa.ArrowInvalid as error:
            said, _, row = str(error).rpartition(" in row ")
            return _Mistake(said, int(row)) if said and row.isdecimal() else _Mistake(str(error))
        if table.num_rows != len(values):
            return _Mistake(f"{table.num_rows} JSON objects instead of one")
        table = table.select(self.schema.names).cast(self.schema)
        wrong: dict[int, str] = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            for is_wrong, said in _NO_NUMBERS:
                for row in _rows_with(column.combine_chunks(), is_wrong).to_pylist():
                    wrong.setdefault(row, f"{name} {said}")
        return _Rows(table, wrong)


def _rows_with(values: pa.Array, is_one: Callable[[pa.Array], pa.Array]) -> pa.Int64Array:
    """Return the rows that have a number of a kind, at any depth; some of them more than once."""
    found: list[pa.Array] = [pa.array([], pa.int64())]
    if pt.is_floating(values.type):
        found.append(pc.indices_nonzero(is_one(values)))
    elif pt.is_struct(values.type):
        found += [_rows_with(child, is_one) for child in values.flatten()]
    elif pt.is_list(values.type):
        found.append(pc.list_parent_indices(values).take(_rows_with(values.flatten(), is_one)))
    return pa.concat_arrays([rows.cast(pa.int64()) for rows in found])


def _not_text(values: pa.LargeBinaryArray) -> list[BadDatum]:
    """Return which values are no UTF-8, and where not."""
    try:
        values.cast(pa.large_string())
    except pa.ArrowInvalid:
        pass
    else:
        return []
    errors: list[BadDatum] = []
    for row, value in enumerate(values.to_pylist()):
        try:
            (value or b"").decode()
        except UnicodeDecodeError as error:
            errors.append(BadDatum(row, f"the value is no UTF-8: byte {error.start}", None))
    return errors
