"""How many of the rows at hand still go into a file: by its rows, its bytes, and the record time it spans. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import FileLimits


class Extent(NamedTuple):
    """What a file holds: `bytes` about; the times are those of its records, in ms, None while it has none."""

    rows: int
    bytes: int
    min_ms: int | None
    max_ms: int | None


def rows_that_fit(limits: FileLimits, file: Extent, times: pa.Int64Array, bytes_per_row: float) -> int:
    """Return how many of the next rows fit; a file without rows takes one in any case.

    Rows and record time are exact, bytes are an estimate: what a row takes is known only once it is compressed.
    """
    count = len(times)
    if limits.rows is not None:
        count = min(count, limits.rows - file.rows)
    if bytes_per_row > 0:
        count = min(count, int((limits.bytes - file.bytes) / bytes_per_row) + 1)
    elif file.bytes >= limits.bytes:
        count = 0
    if limits.age_s is not None and count > 0:
        count = _young_enough(int(limits.age_s * 1000), file, times.slice(0, count))
    return max(count, 0 if file.rows else 1)


def _young_enough(age_ms: int, file: Extent, times: pa.Int64Array) -> int:
    """Return how many of these records come before the first that makes the file span more than `age_ms`."""
    ends = pc.min_max(times)
    least, greatest = ends["min"].as_py(), ends["max"].as_py()
    file_min = least if file.min_ms is None else file.min_ms
    file_max = greatest if file.max_ms is None else file.max_ms
    if max(greatest, file_max) - min(least, file_min) <= age_ms:
        return len(times)
    highest, lowest = pc.cumulative_max(times), pc.cumulative_min(times)
    if file.max_ms is not None:
        highest = pc.max_element_wise(highest, file.max_ms)
        lowest = pc.min_element_wise(lowest, file.min_ms)
    too_old = pc.greater(pc.subtract(highest, lowest), age_ms)
    found: int = pc.index(too_old, True).as_py()
    return len(times) if found < 0 else found
