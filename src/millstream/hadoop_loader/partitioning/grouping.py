"""Rows with the same code, put together: by masks where there are few codes, by one sort where there are many.

A coding is a number for each row among names of directories, null where a row has none; None where all rows have the
first name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

_MASKS_MAX: Final = 4

Coding = tuple[pa.Array | None, list[str]]


def below(outer: Coding, inner: Coding) -> Coding:
    """Return the coding of directories that lie in those of `outer` and are named as `inner` says."""
    codes, names = outer
    within, parts = inner
    if codes is None and names:
        return within, [f"{names[0]}/{part}" for part in parts]
    if within is None and parts:
        return codes, [f"{name}/{parts[0]}" for name in names]
    assert codes is not None, names
    assert within is not None, parts
    # Pairs of numbers become one, and that is numbered anew: few of all the pairs occur.
    pairs = pc.add(pc.multiply(codes.cast(pa.int64()), len(parts)), within.cast(pa.int64())).dictionary_encode()
    found = pairs.dictionary.to_pylist()
    return pairs.indices.cast(pa.int64()), [f"{names[pair // len(parts)]}/{parts[pair % len(parts)]}" for pair in found]


def grouped(codes: pa.Array, count: int) -> Iterator[tuple[int, pa.Int64Array]]:
    """Yield each code below `count` that occurs, with its rows, ascending. Rows without a code are left out."""
    if count <= _MASKS_MAX:
        for code in range(count):
            rows = pc.indices_nonzero(pc.equal(codes, pa.scalar(code, codes.type))).cast(pa.int64())
            if len(rows):
                yield code, rows
        return
    # Arrow's sort of an array is stable; nulls come last.
    order = pc.array_sort_indices(codes).cast(pa.int64())
    start = 0
    for found, length in _run_lengths(codes.take(order)):
        if found is not None:
            yield found, order.slice(start, length)
        start += length


def _run_lengths(codes: pa.Array) -> Iterator[tuple[int | None, int]]:
    encoded = pc.run_end_encode(codes)
    start = 0
    for end, code in zip(encoded.run_ends.to_pylist(), encoded.values.to_pylist(), strict=True):
        yield code, end - start
        start = end
