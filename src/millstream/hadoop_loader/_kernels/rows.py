"""Rows put in the order of one column of whole or floating numbers.

words              a key for each row, int64: the number, or the bits of a double; may be the second half of `keys`
validity           Arrow's bitmap, from bit `first` on; empty: nothing is null
keys, rows         int64s and uint32s, two for each row: each pass sorts one half into the other
counts             int64s, COUNTS of them: how many keys have each value of each of their bytes

The sort is a radix sort from the least significant byte on: stable, with no comparisons, and without a pass for bytes
that are the same in all keys. Doubles are in the order of their bits once those of negative numbers are turned round.
"""

from __future__ import annotations

try:
    import cython
except ModuleNotFoundError:
    from millstream.core._kernels import shim as cython

_MAGNITUDE = cython.declare(cython.longlong, 0x7FFF_FFFF_FFFF_FFFF)
_NEGATIVE_ZERO = cython.declare(cython.longlong, ~_MAGNITUDE)
_KEY_BYTES = cython.declare(cython.Py_ssize_t, 8)
_INFINITY = cython.declare(cython.longlong, 0x7FF0_0000_0000_0000)

COUNTS = 8 * 256
"""What `counts` has to have room for."""


def is_compiled() -> bool:
    """Return whether this module runs compiled."""
    return bool(cython.compiled)


def sort_rows(
    words: cython.const[cython.longlong][::1],
    are_doubles: cython.bint,
    descending: cython.bint,
    validity: cython.const[cython.uchar][::1],
    first: cython.Py_ssize_t,
    keys: cython.longlong[::1],
    rows: cython.uint[::1],
    counts: cython.longlong[::1],
) -> int:
    """Write the rows in the order of their keys to `rows`, in either half of it; return where that begins.

    Equal keys keep the order of their rows, as 0.0 and -0.0 do, and all NaNs. In either direction NaNs come behind
    what is a number, and nulls behind those. Raises ValueError where there is too little room.
    """
    count: cython.Py_ssize_t = len(words)
    if len(keys) < 2 * count or len(rows) < 2 * count or len(counts) < COUNTS:
        raise ValueError(f"room for {len(keys)} keys, {len(rows)} rows, {len(counts)} counts is too little for {count}")
    nullable: cython.bint = len(validity) > 0
    if first < 0 or (nullable and first + count > 8 * len(validity)):
        raise ValueError(f"{count} bits from {first} on do not lie within {len(validity)} bytes")
    word: cython.longlong
    row: cython.Py_ssize_t
    at: cython.Py_ssize_t
    digit: cython.Py_ssize_t
    filled: cython.Py_ssize_t = 0
    source: cython.Py_ssize_t = 0
    target: cython.Py_ssize_t = count
    place: cython.longlong
    total: cython.longlong
    held: cython.longlong
    shift: cython.int
    with cython.nogil:
        for at in range(256 * _KEY_BYTES):
            counts[at] = 0
        for row in range(count):
            if nullable and not (validity[(first + row) >> 3] >> ((first + row) & 7)) & 1:
                continue
            word = words[row]
            if are_doubles and (word & _MAGNITUDE) > _INFINITY:
                word = _MAGNITUDE
            else:
                if are_doubles:
                    if word == _NEGATIVE_ZERO:
                        word = 0
                    if word < 0:
                        word ^= _MAGNITUDE
                if descending:
                    word = ~word
            keys[filled] = word
            rows[filled] = row
            filled += 1
            # The most significant byte has the sign, by which negative ones come first.
            counts[word & 255] += 1
            counts[256 + ((word >> 8) & 255)] += 1
            counts[512 + ((word >> 16) & 255)] += 1
            counts[768 + ((word >> 24) & 255)] += 1
            counts[1024 + ((word >> 32) & 255)] += 1
            counts[1280 + ((word >> 40) & 255)] += 1
            counts[1536 + ((word >> 48) & 255)] += 1
            counts[1792 + (((word >> 56) & 255) ^ 128)] += 1
        if filled < count:
            at = filled
            for row in range(count):
                if not (validity[(first + row) >> 3] >> ((first + row) & 7)) & 1:
                    rows[at] = row
                    rows[count + at] = row
                    at += 1
        for digit in range(_KEY_BYTES):
            shift = 8 * cython.cast(cython.int, digit)
            total = 0
            held = 0
            for at in range(256 * digit, 256 * digit + 256):
                place = counts[at]
                held = max(held, place)
                counts[at] = total
                total += place
            if held == filled:
                continue
            for at in range(source, source + filled):
                word = keys[at]
                row = (word >> shift) & 255
                if digit == 7:
                    row ^= 128
                row += 256 * digit
                place = target + counts[row]
                counts[row] += 1
                keys[place] = word
                rows[place] = rows[at]
            source, target = target, source
    return source
