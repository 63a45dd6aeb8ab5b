"""Located records into Arrow's layout: compiled against interpreted against lists of Python's."""

from __future__ import annotations

import struct
import sys
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.batches import INT64, RawRecord, raw_batch, sized
from tests.support.kernels import HOWS, load_kernel

KERNELS = {how: load_kernel("arrow_columns", how) for how in HOWS}
each_kernel = pytest.mark.parametrize("how", HOWS)

contents = st.lists(st.none() | st.binary(max_size=20) | st.integers(0, 40).map(bytes), max_size=20)
Content = bytes | None


def laid_out(rows: list[Content]) -> tuple[bytes, array[int], array[int]]:
    """Return a buffer with the rows in it, where each begins, and its size (-1: null)."""
    data, positions = b"..", []
    for row in rows:
        positions.append(len(data))
        data += (row or b"") + b"."
    return data, array("q", positions), array("q", [-1 if row is None else len(row) for row in rows])


def bits(count: int) -> bytearray:
    return bytearray(b"\xff" * (count // 8 + 1))


def is_set(validity: bytearray, row: int) -> bool:
    return bool(validity[row // 8] >> row % 8 & 1)


@settings(deadline=None)
@given(rows=contents, before=contents, room=st.integers(0, 200))
def test_bytes_are_gathered_behind_each_other(rows: list[Content], before: list[Content], room: int) -> None:
    data, positions, sizes = laid_out([*before, *rows])
    size_before = sum(len(row or b"") for row in before)
    fitting = 0
    while fitting < len(rows) and sum(len(row or b"") for row in rows[: fitting + 1]) <= room:
        fitting += 1
    for how, kernel in KERNELS.items():
        offsets, validity = array("i", bytes(4 * (len(positions) + 1))), bits(len(positions))
        out = bytearray(size_before + room)
        done = kernel.gather_bytes(data, 0, len(before), positions, sizes, 0, offsets, validity, out)
        assert done == (len(before), before.count(None)), how
        done = kernel.gather_bytes(
            data, len(before), len(positions), positions, sizes, len(before), offsets, validity, out
        )
        assert done == (fitting, rows[:fitting].count(None)), how
        for row, content in enumerate([*before, *rows[:fitting]]):
            assert is_set(validity, row) is (content is not None), how
            assert out[offsets[row] : offsets[row + 1]] == (content or b""), how


@settings(deadline=None)
@given(rows=contents, first=st.integers(0, 5))
def test_views_say_where_bytes_lie(rows: list[Content], first: int) -> None:
    data, positions, sizes = laid_out(rows)
    for how, kernel in KERNELS.items():
        views, validity = bytearray(b"\x77" * 16 * (len(rows) + 1)), bits(len(rows) + 1)
        nulls = kernel.view_bytes(data, 0, len(rows), positions, sizes, 1, first, views, validity)
        assert nulls == rows.count(None), how
        assert views[:16] == b"\x77" * 16, how
        for row, content in enumerate(rows):
            view = views[16 * (row + 1) : 16 * (row + 2)]
            assert is_set(validity, row + 1) is (content is not None), how
            if content is None or len(content) <= 12:
                content = content or b""
                assert view == struct.pack("=i12s", len(content), content), how
            else:
                assert view == struct.pack("=i4sii", len(content), content[:4], first, positions[row]), how


def test_a_view_beyond_a_gibibyte_names_a_buffer_that_begins_later() -> None:
    kernel = KERNELS["interpreted"]

    class Huge:
        """So many bytes that nobody has to hold."""

        def __len__(self) -> int:
            return 3 << 30

        def __getitem__(self, place: slice) -> bytes:
            return bytes(place.stop - place.start)

    views, validity = bytearray(16), bits(1)
    position = kernel.VIEW_SPAN * 2 + 5
    kernel.view_bytes(Huge(), 0, 1, array("q", [position]), array("q", [13]), 0, 4, views, validity)
    assert struct.unpack("=i4sii", views) == (13, bytes(4), 6, 5)


header_rows = st.lists(
    st.lists(st.tuples(st.binary(max_size=9), st.none() | st.binary(max_size=9)), max_size=3), max_size=8
)


@settings(deadline=None)
@given(rows=header_rows, room=st.integers(0, 10), bytes_room=st.integers(0, 60))
def test_headers_are_gathered(rows: list[list[tuple[bytes, Content]]], room: int, bytes_room: int) -> None:
    data, positions = b"..", []
    for row in rows:
        positions.append(len(data))
        data += b"".join(sized(name) + sized(content) for name, content in row)
    fitting = 0
    for index in range(1, len(rows) + 1):
        pairs = [pair for row in rows[:index] for pair in row]
        if (
            len(pairs) > room
            or sum(len(name) for name, _ in pairs) > bytes_room
            or sum(len(content or b"") for _, content in pairs) > bytes_room
        ):
            break
        fitting = index
    expected = [pair for row in rows[:fitting] for pair in row]
    counts = array("q", map(len, rows))
    for how, kernel in KERNELS.items():
        lists = array("i", bytes(4 * (len(rows) + 1)))
        name_offsets, value_offsets = array("i", bytes(4 * (room + 1))), array("i", bytes(4 * (room + 1)))
        names, values, validity = bytearray(bytes_room), bytearray(bytes_room), bits(room)
        done, nulls = kernel.gather_headers(
            data,
            0,
            len(rows),
            array("q", positions),
            counts,
            0,
            lists,
            name_offsets,
            names,
            value_offsets,
            validity,
            values,
        )
        assert done == fitting, how
        assert nulls == sum(content is None for _, content in expected), how
        assert [lists[row + 1] - lists[row] for row in range(done)] == [len(row) for row in rows[:done]], how
        for at, (name, content) in enumerate(expected):
            assert names[name_offsets[at] : name_offsets[at + 1]] == name, how
            assert values[value_offsets[at] : value_offsets[at + 1]] == (content or b""), how
            assert is_set(validity, at) is (content is not None), how


@settings(deadline=None)
@given(rows=header_rows, name=st.binary(max_size=2), data=st.data())
def test_one_header_is_located(rows: list[list[tuple[bytes, Content]]], name: bytes, data: st.DataObject) -> None:
    rows = [[(name if data.draw(st.booleans()) else other, value) for other, value in row] for row in rows]
    content, positions = b"..", array("q")
    for row in rows:
        positions.append(len(content))
        content += b"".join(sized(each) + sized(value) for each, value in row)
    start = data.draw(st.integers(0, len(rows)))
    expected = []
    for row in rows[start:]:
        named = [value for each, value in row if each == name and value is not None]
        expected.append(named[-1] if named else None)
    counts = array("q", map(len, rows))
    for how, kernel in KERNELS.items():
        places, sizes = array("q", [7] * len(expected)), array("q", [7] * len(expected))
        found = kernel.locate_header(content, start, len(rows), positions, counts, name, places, sizes)
        assert found == len(expected) - expected.count(None), how
        located = [
            None if size < 0 else content[place : place + size] for place, size in zip(places, sizes, strict=True)
        ]
        assert located == expected, how


@settings(deadline=None)
@given(
    epochs=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=3),
    offset=INT64,
    timestamp=INT64,
    attributes=st.sampled_from([0, 8, 0x18]),
    topic=st.integers(0, 2**31 - 1),
    partition=st.integers(0, 2**31 - 1),
)
def test_records_are_placed(
    epochs: list[int], offset: int, timestamp: int, attributes: int, topic: int, partition: int
) -> None:
    data, batch_positions = b"", array("q")
    for epoch in epochs:
        batch_positions.append(len(data))
        batch = bytearray(raw_batch([RawRecord(0, 0, None, b"v")], attributes=attributes))
        batch[12:16] = struct.pack(">i", epoch)
        data += bytes(batch)
    count = len(epochs)
    for how, kernel in KERNELS.items():
        out: list[Any] = [array(code, [1] * (count + 1)) for code in "iiqqBi"]
        headers = kernel.place_records(
            data,
            0,
            count,
            array("q", [offset] * count),
            array("q", [timestamp] * count),
            array("q", range(count)),
            batch_positions,
            1,
            topic,
            partition,
            *out,
        )
        assert headers == sum(range(count)), how
        assert [column[0] for column in out] == [1] * 6, how
        rows = [tuple(column[row] for column in out) for row in range(1, count + 1)]
        kind = 1 if attributes & 8 else 0
        assert rows == [(topic, partition, offset, timestamp, kind, epoch) for epoch in epochs], how


@each_kernel
def test_what_does_not_lie_in_the_buffer_is_refused(how: str) -> None:
    kernel = KERNELS[how]
    for position, size in [(-1, 2), (3, 3), (6, 1), (0, 2**62), (2**62, 1)]:
        rows = array("q", [position]), array("q", [size])
        with pytest.raises(ValueError, match="does not lie"):
            kernel.gather_bytes(b"12345", 0, 1, *rows, 0, array("i", [0, 0]), bits(1), bytearray(9))
        with pytest.raises(ValueError, match="does not lie"):
            kernel.view_bytes(b"12345", 0, 1, *rows, 0, 0, bytearray(16), bits(1))
    for position in (-1, 6, 2):
        with pytest.raises(ValueError, match="do not lie"):
            kernel.gather_headers(
                b"\x02a\x02b\x02",
                0,
                1,
                array("q", [position]),
                array("q", [2]),
                0,
                array("i", [0, 0]),
                array("i", bytes(40)),
                bytearray(9),
                array("i", bytes(40)),
                bits(9),
                bytearray(9),
            )
        rows = array("q", [position]), array("q", [2])
        with pytest.raises(ValueError, match="do not lie"):
            kernel.locate_header(b"\x02a\x02b\x02", 0, 1, *rows, b"a", array("q", [0]), array("q", [0]))
    one = array("q", [0])
    for position in (-1, 0, 2**62):
        with pytest.raises(ValueError, match="no batch header"):
            kernel.place_records(
                bytes(60),
                0,
                1,
                one,
                one,
                one,
                array("q", [position]),
                0,
                0,
                0,
                *(array(code, [0]) for code in "iiqqBi"),
            )


@each_kernel
@pytest.mark.parametrize(("start", "end", "row"), [(0, 3, 0), (-1, 1, 0), (2, 1, 0), (0, 2, 1), (0, 1, -1)])
def test_ranges_beyond_the_columns_are_refused(how: str, start: int, end: int, row: int) -> None:
    kernel, two = KERNELS[how], array("q", [0, 0])
    with pytest.raises(ValueError, match=r"lie within|fit into"):
        kernel.gather_bytes(b"1", start, end, two, two, row, array("i", [0, 0, 0]), bits(2)[:1], bytearray(9))
    with pytest.raises(ValueError, match=r"lie within|fit into"):
        kernel.view_bytes(b"1", start, end, two, two, row, 0, bytearray(32), bits(2))
    with pytest.raises(ValueError, match=r"lie within|fit into"):
        kernel.place_records(
            bytes(61), start, end, two, two, two, two, row, 0, 0, *(array(code, [0, 0]) for code in "iiqqBi")
        )
    with pytest.raises(ValueError, match=r"lie within|fit into"):
        kernel.gather_headers(
            b"1",
            start,
            end,
            two,
            two,
            row,
            array("i", [0, 0, 0]),
            array("i", [0]),
            bytearray(1),
            array("i", [0]),
            bits(1),
            bytearray(1),
        )
    if not row:
        with pytest.raises(ValueError, match=r"lie within|fit into"):
            kernel.locate_header(b"1", start, end, two, two, b"a", array("q", [0]), array("q", [0]))


def test_numbers_are_in_the_order_of_this_machine() -> None:
    views = bytearray(16)
    KERNELS["compiled"].view_bytes(b"abc", 0, 1, array("q", [0]), array("q", [3]), 0, 0, views, bits(1))
    assert int.from_bytes(views[:4], sys.byteorder) == 3
