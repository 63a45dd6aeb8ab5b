"""Datums gathered into blocks, and the ids they name: compiled against interpreted against slices of bytes."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.kernels import HOWS, load_kernel

KERNELS = {how: load_kernel("datums", how, "millstream.hadoop_loader._kernels") for how in HOWS}
NOTHING = array("q")


def laid_out(values: list[bytes], *, with_sizes: bool) -> tuple[bytes, array[int], array[int]]:
    """Return values one behind the other, where each begins, and sizes where asked for."""
    data, positions = b"", []
    for value in values:
        positions.append(len(data))
        data += value
    if with_sizes:
        return data, array("q", positions), array("q", map(len, values))
    return data, array("q", [*positions, len(data)]), NOTHING


@settings(deadline=None)
@given(
    values=st.lists(st.binary(min_size=2, max_size=12), min_size=1, max_size=8),
    tails=st.none() | st.lists(st.binary(max_size=3), min_size=8, max_size=8),
    with_sizes=st.booleans(),
    rows=st.lists(st.integers(0, 7), max_size=8),
    skip=st.integers(0, 2),
    room=st.integers(0, 60),
    data=st.data(),
)
def test_datums_are_gathered_as_slices_are(
    values: list[bytes],
    tails: list[bytes] | None,
    with_sizes: bool,
    rows: list[int],
    skip: int,
    room: int,
    data: st.DataObject,
) -> None:
    content, positions, sizes = laid_out(values, with_sizes=with_sizes)
    chosen = [row for row in rows if row < len(values)]
    wanted = [values[row][skip:] + (tails[row] if tails else b"") for row in (chosen or range(len(values)))]
    start = data.draw(st.integers(0, len(wanted)))
    used = data.draw(st.integers(0, room))
    tail_bytes, ends = b"", NOTHING
    if tails is not None:
        tail_bytes = b"".join(tails[: len(values)])
        ends = array("q", [sum(map(len, tails[:row])) for row in range(len(values) + 1)])
    expected, stop = b"", start
    while stop < len(wanted) and len(expected) + len(wanted[stop]) <= room - used:
        expected += wanted[stop]
        stop += 1

    for how, kernel in KERNELS.items():
        out = bytearray(room)
        done = kernel.gather_datums(
            content, positions, sizes, array("q", chosen), start, len(wanted), skip, tail_bytes, ends, out, used
        )
        assert done == (stop, used + len(expected)), how
        assert out[used : used + len(expected)] == expected, how


@settings(deadline=None)
@given(
    values=st.lists(
        st.binary(max_size=4)
        | st.builds(
            lambda n, rest: b"\0" + n.to_bytes(4, "big") + rest, st.integers(0, 2**32 - 1), st.binary(max_size=2)
        ),
        max_size=8,
    ),
    with_sizes=st.booleans(),
)
def test_ids_are_those_behind_the_zero_byte(values: list[bytes], with_sizes: bool) -> None:
    content, positions, sizes = laid_out(values, with_sizes=with_sizes)
    framed = [len(value) >= 5 and value[0] == 0 and value[1] < 128 for value in values]
    expected = [
        int.from_bytes(value[1:5], "big") if is_framed else -1 for value, is_framed in zip(values, framed, strict=True)
    ]
    for how, kernel in KERNELS.items():
        ids = array("i", bytes(4 * len(values)))
        assert kernel.read_ids(content, positions, sizes, ids) == framed.count(False), how
        assert ids.tolist() == expected, how


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    ("positions", "sizes", "rows"),
    [
        ([0, 99], [], []),
        ([-1, 4], [], []),
        ([3, 1], [], []),
        ([0], [99], []),
        ([0], [-1], []),
        ([2**62], [2**62], []),
        ([0, 4], [], [1]),
        ([0, 4], [], [-1]),
    ],
)
def test_what_lies_outside_is_refused(how: str, positions: list[int], sizes: list[int], rows: list[int]) -> None:
    kernel = KERNELS[how]
    with pytest.raises(ValueError, match="is none of"):
        kernel.gather_datums(
            b"abcdef",
            array("q", positions),
            array("q", sizes),
            array("q", rows),
            0,
            1,
            0,
            b"",
            NOTHING,
            bytearray(9),
            0,
        )
