"""Values of an Arrow column as the kernels take them, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from millstream.hadoop_loader._kernels.datums import gather_datums, read_ids
from millstream.hadoop_loader.writing.avro_file import NOTHING
from millstream.schemas._kernels.opcodes import BAD_FRAMING
from millstream.schemas.avro.decoder import SENTENCES, Decoded, TooManyUnknownIdsError, located

NO_ID: Final = SENTENCES[BAD_FRAMING]
"""Why a value is bad that names no schema."""
FRAMED_SIZE: Final = 5  # a zero byte and the schema's id


class Located(NamedTuple):
    """Where values lie: in `data` at `positions`, of `sizes` (negative: null); without sizes one behind the other."""

    data: Any
    positions: Any
    sizes: Any
    length: int


def locate(values: pa.Array) -> Located:
    """Return where the values of a binary column lie."""
    return Located(*located(values), len(values))


def locate_each(values: pa.Array) -> Located:
    """Return the same, with a size for each."""
    where = locate(values)
    if len(where.sizes):
        return where
    sizes = pc.binary_length(values).cast(pa.int64())
    return where._replace(sizes=ints(sizes))


def schema_ids(values: Located) -> pa.Array:
    """Return the id that each value names, as int32, null where it names none."""
    out = pa.allocate_buffer(4 * values.length)
    without = read_ids(values.data, values.positions, values.sizes, memoryview(out).cast("B").cast("i"))
    ids = pa.Array.from_buffers(pa.int32(), values.length, [None, out])
    return ids if not without else pc.if_else(pc.equal(ids, -1), pa.scalar(None, pa.int32()), ids)


def without_prefix(values: pa.Array, rows: pa.Int64Array, skip: int = FRAMED_SIZE) -> pa.BinaryArray:
    """Return the values of `rows` without their first bytes; each has at least so many."""
    where = locate(values)
    sizes = pc.subtract(pc.binary_length(values).take(rows).cast(pa.int64()), skip)
    total = pc.sum(sizes).as_py() or 0
    content = pa.allocate_buffer(total)
    if len(rows):
        chosen = memoryview(rows.buffers()[1]).cast("B").cast("q")[rows.offset : rows.offset + len(rows)]
        out = memoryview(content).cast("B")
        done, _ = gather_datums(
            where.data, where.positions, where.sizes, chosen, 0, len(rows), skip, b"", NOTHING, out, 0
        )
        assert done == len(rows), f"{done} of {len(rows)} values"
    ends = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(sizes)])
    return pa.Array.from_buffers(pa.large_binary(), len(rows), [None, ends.buffers()[1], content]).cast(pa.binary())


def decoded_in_parts(decode: Callable[[int, int], Decoded], start: int, stop: int) -> Decoded:
    """Return what `decode` makes of the values [start, stop); in halves where they name too many ids without a schema.

    A decoder looks only so many up in one call; what it has looked up it remembers.
    """
    try:
        return decode(start, stop)
    except TooManyUnknownIdsError:
        if stop - start < 2:
            raise
    middle = (start + stop) // 2
    first, second = decoded_in_parts(decode, start, middle), decoded_in_parts(decode, middle, stop)
    behind = middle - start
    rows = [
        pa.array(range(count), pa.int64()) if part.rows is None else part.rows
        for part, count in ((first, behind), (second, stop - middle))
    ]
    return Decoded(
        pa.concat_batches([first.batch, second.batch]),
        pa.concat_arrays([rows[0], pc.add(rows[1], behind)]),
        [*first.errors, *(error._replace(row=error.row + behind) for error in second.errors)],
    )


def ints(rows: pa.Int64Array | None) -> Any:
    """Return an int64 column as a kernel takes it; None as nothing."""
    if rows is None:
        return NOTHING
    return memoryview(rows.buffers()[1]).cast("B").cast("q")[rows.offset : rows.offset + len(rows)]


def chosen(values: Located, rows: pa.Int64Array) -> Located:
    """Return where the values of `rows` lie."""
    positions = _array(values.positions, len(values.positions))
    starts = positions.take(rows)
    if len(values.sizes):
        sizes = _array(values.sizes, values.length).take(rows)
    else:
        sizes = pc.subtract(positions.take(pc.add(rows, 1)), starts)
    return Located(values.data, ints(starts), ints(sizes), len(rows))


def _array(view: Any, count: int) -> pa.Int64Array:
    return pa.Array.from_buffers(pa.int64(), count, [None, pa.py_buffer(view)])
