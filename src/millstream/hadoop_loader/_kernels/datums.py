"""Avro datums, which lie anywhere in a buffer, copied behind each other: what a block of a container file is made of.

gather_datums   the copy                 read_ids   the schema that each value names, in Confluent's framing

positions, sizes   where each value lies in `data`, int64s. Without sizes a value ends where the next one begins
rows               which of them are wanted, in this order; empty: all
skip               bytes before the datum of each value: the prefix that names its schema
tails, tail_ends   for each value bytes to be put behind its datum, those of trailing fields; tail_ends has the
                   end of each behind a first 0. Empty: there are none
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

if cython.compiled:
    from cython.cimports.millstream.hadoop_loader._kernels.native import copy_bytes
else:
    from millstream.core._kernels.interpreted import copy_bytes


def is_compiled() -> bool:
    """Return whether this module runs compiled."""
    return bool(cython.compiled)


def gather_datums(
    data: cython.const[cython.uchar][::1],
    positions: cython.const[cython.longlong][::1],
    sizes: cython.const[cython.longlong][::1],
    rows: cython.const[cython.longlong][::1],
    start: cython.Py_ssize_t,
    stop: cython.Py_ssize_t,
    skip: cython.Py_ssize_t,
    tails: cython.const[cython.uchar][::1],
    tail_ends: cython.const[cython.longlong][::1],
    out: cython.uchar[::1],
    at: cython.Py_ssize_t,
) -> tuple[int, int]:
    """Copy datums start to stop of the wanted ones to out[at:]; return how far it came, and the end in `out`.

    It stops before the one that does not fit. Raises ValueError for a row or a value that is not there.
    """
    size: cython.longlong = len(data)
    room: cython.longlong = len(out)
    tail_size: cython.longlong = len(tails)
    sized: cython.bint = len(sizes) > 0
    count: cython.longlong = len(sizes) if sized else max(0, len(positions) - 1)
    if len(positions) < count:
        raise ValueError(f"{len(positions)} positions are not enough for {count} values")
    chosen: cython.bint = len(rows) > 0
    wanted: cython.longlong = len(rows) if chosen else count
    tailed: cython.bint = len(tail_ends) > 0
    if tailed and len(tail_ends) != count + 1:
        raise ValueError(f"{len(tail_ends)} ends are not those of {count} tails")
    if not 0 <= start <= stop <= wanted:
        raise ValueError(f"[{start}, {stop}) does not lie within {wanted} datums")
    if skip < 0 or not 0 <= at <= room:
        raise ValueError(f"{skip} bytes to skip, {at} of {room} bytes used")
    if start == stop:
        return start, at
    base: cython.p_const_uchar = b""
    if size > 0:
        base = cython.address(data[0]) if cython.compiled else data
    tail_base: cython.p_const_uchar = b""
    if tail_size > 0:
        tail_base = cython.address(tails[0]) if cython.compiled else tails
    target: cython.p_uchar = b""
    if room > 0:
        target = cython.address(out[0]) if cython.compiled else out
    row: cython.longlong
    position: cython.longlong
    end: cython.longlong
    tail_start: cython.longlong = 0
    tail_end: cython.longlong = 0
    outside: cython.bint = False
    with cython.nogil:
        while start < stop:
            row = rows[start] if chosen else start
            if row < 0 or row >= count:
                outside = True
                break
            position = positions[row]
            if position < 0 or position > size or (sized and sizes[row] > size - position):
                outside = True
                break
            end = position + sizes[row] if sized else positions[row + 1]
            if tailed:
                tail_start, tail_end = tail_ends[row], tail_ends[row + 1]
            if end < position or end > size or skip > end - position:
                outside = True
                break
            if tail_start < 0 or tail_end < tail_start or tail_end > tail_size:
                outside = True
                break
            position += skip
            if end - position > room - at or tail_end - tail_start > room - at - (end - position):
                break
            copy_bytes(target, at, base, position, end)
            at += end - position
            if tailed:
                copy_bytes(target, at, tail_base, tail_start, tail_end)
                at += tail_end - tail_start
            start += 1
    if outside:
        raise ValueError(f"datum {start} is none of {count} values in {size} bytes")
    return start, at


def read_ids(
    data: cython.const[cython.uchar][::1],
    positions: cython.const[cython.longlong][::1],
    sizes: cython.const[cython.longlong][::1],
    ids_out: cython.int[::1],
) -> int:
    """Write for each value the id behind its zero byte, -1 for one without; return how many those are.

    Raises ValueError where there is no room, or a value lies outside of `data`.
    """
    size: cython.longlong = len(data)
    sized: cython.bint = len(sizes) > 0
    count: cython.Py_ssize_t = len(sizes) if sized else max(0, len(positions) - 1)
    if len(positions) < count or len(ids_out) < count:
        raise ValueError(f"{len(positions)} positions and room for {len(ids_out)} ids are not enough for {count}")
    if count == 0:
        return 0
    base: cython.p_const_uchar = b""
    if size > 0:
        base = cython.address(data[0]) if cython.compiled else data
    row: cython.Py_ssize_t
    position: cython.longlong
    length: cython.longlong
    without: cython.Py_ssize_t = 0
    outside: cython.bint = False
    with cython.nogil:
        for row in range(count):
            position = positions[row]
            length = sizes[row] if sized else positions[row + 1] - position
            if position < 0 or position > size or length > size - position:
                outside = True
                break
            if length < 5 or base[position] != 0 or base[position + 1] > 127:
                ids_out[row] = -1
                without += 1
                continue
            ids_out[row] = (
                (base[position + 1] << 24) | (base[position + 2] << 16) | (base[position + 3] << 8) | base[position + 4]
            )
    if outside:
        raise ValueError(f"value {row} lies outside of {size} bytes")
    return without
