"""Rows of columns into records: compiled against interpreted against a dumb encoder."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.batches import RawRecord, raw_record
from tests.support.kernels import HOWS, load_kernel

from millstream.core.client import partition_of_key

KERNELS = {how: load_kernel("record_encoding", how) for how in HOWS}
each_kernel = pytest.mark.parametrize("how", HOWS)

Content = bytes | None
content = st.one_of(st.none(), st.binary(max_size=12), st.integers(50, 200).map(bytes))
NOTHING = array("q")


class Row(NamedTuple):
    """One row to send."""

    key: Content
    value: Content
    timestamp: int
    headers: tuple[tuple[bytes, Content], ...]


row_lists = st.lists(
    st.builds(
        Row,
        content,
        content,
        st.integers(0, 3) | st.integers(0, 2**63 - 1),
        st.lists(st.tuples(st.binary(max_size=5), content), max_size=2).map(tuple),
    ),
    max_size=12,
)


def column(kernel: Any, given_contents: Sequence[Content], shift: int = 0) -> Any:
    """Lay contents out as Arrow's large_binary does, `shift` rows in."""
    contents: list[Content] = [*[b"x"] * shift, *given_contents]
    offsets, data, validity = array("q", [0]), b"", bytearray(len(contents) // 8 + 1)
    for index, each in enumerate(contents):
        data += each or b""
        offsets.append(len(data))
        validity[index // 8] |= (each is not None) << index % 8
    has_nulls = None in contents
    return kernel.BinaryColumn(len(contents) - shift, offsets, data, validity if has_nulls else b"", shift)


def rows_of(kernel: Any, rows: list[Row], shift: int = 0) -> Any:
    names = [name for row in rows for name, _ in row.headers]
    values = [value for row in rows for _, value in row.headers]
    lists = array("q", [0])
    for row in rows:
        lists.append(lists[-1] + len(row.headers))
    with_headers: tuple[Any, ...] = ()
    if names:
        with_headers = lists, column(kernel, names, shift), column(kernel, values, shift)
    return kernel.Rows(
        column(kernel, [row.key for row in rows], shift),
        column(kernel, [row.value for row in rows], shift),
        -1,
        array("q", [row.timestamp for row in rows]),
        *with_headers,
    )


def dumb(rows: list[Row]) -> list[bytes]:
    return [
        raw_record(RawRecord(index, row.timestamp - rows[0].timestamp, row.key, row.value, row.headers))
        for index, row in enumerate(rows)
    ]


@settings(deadline=None)
@given(rows=row_lists, size_max=st.integers(0, 600), shift=st.integers(0, 9), data=st.data())
def test_batches_agree_with_a_dumb_encoder(rows: list[Row], size_max: int, shift: int, data: st.DataObject) -> None:
    order = data.draw(st.just([]) | st.permutations(range(len(rows))))
    ordered = [rows[row] for row in order] if order else rows
    first = data.draw(st.integers(0, len(rows)))
    encoded = dumb(ordered[first:])
    fitting = 0
    while fitting < len(encoded) and (fitting == 0 or sum(map(len, encoded[: fitting + 1])) <= size_max):
        fitting += 1
    expected = b"".join(encoded[:fitting])
    times = [row.timestamp for row in ordered[first : first + fitting]]
    for how, kernel in KERNELS.items():
        given_rows, given_order = rows_of(kernel, rows, shift), array("q", order)
        count, size, base, latest = kernel.measure_batch(given_rows, given_order, first, len(rows), size_max)
        assert (count, size) == (fitting, len(expected)), how
        if count:
            assert (base, latest) == (times[0], max(times)), how
        out = bytearray(b"!" * (3 + size + 2))
        assert kernel.encode_batch(given_rows, given_order, first, first + count, out, 3) == 3 + size, how
        assert bytes(out) == b"!!!" + expected + b"!!", how
        if size:
            with pytest.raises(ValueError, match="do not fit"):
                kernel.encode_batch(given_rows, given_order, first, first + count, bytearray(size - 1), 0)


@each_kernel
def test_columns_that_are_not_there_are_null_and_one_time_is_for_all(how: str) -> None:
    kernel = KERNELS[how]
    rows = kernel.Rows(kernel.BinaryColumn(3), kernel.BinaryColumn(3), 77)
    count, size, base, latest = kernel.measure_batch(rows, NOTHING, 0, 3, 1000)
    out = bytearray(size)
    kernel.encode_batch(rows, NOTHING, 0, 3, out, 0)
    assert (count, base, latest) == (3, 77, 77)
    assert bytes(out) == b"".join(dumb([Row(None, None, 77, ())] * 3))


@settings(deadline=None)
@given(keys=st.lists(st.none() | st.binary(max_size=40), max_size=30), count=st.integers(1, 9) | st.just(2**31 - 1))
def test_keys_go_where_java_sends_them(keys: list[Content], count: int) -> None:
    for how, kernel in KERNELS.items():
        partitions = array("i", [-9] * len(keys))
        assert kernel.partition_rows(column(kernel, keys, 3), count, partitions) == keys.count(None), how
        assert list(partitions) == [-1 if key is None else partition_of_key(key, count) for key in keys], how


@settings(deadline=None)
@given(
    given_partitions=st.lists(st.integers(-1, 4), max_size=30),
    sizes=st.lists(st.none() | st.integers(0, 50), min_size=30, max_size=30),
    first=st.integers(0, 5),
    bytes_max=st.integers(0, 300),
)
def test_keyless_rows_stick_to_a_partition(
    given_partitions: list[int], sizes: list[int | None], first: int, bytes_max: int
) -> None:
    values = [None if size is None else bytes(size) for size in sizes[: len(given_partitions)]]
    expected, taken, row = list(given_partitions), 0, first
    while row < len(expected) and taken < bytes_max:
        if expected[row] < 0:
            expected[row] = 7
            taken += 12 + len(values[row] or b"")
        row += 1
    for how, kernel in KERNELS.items():
        partitions = array("i", given_partitions)
        assert kernel.stick_rows(column(kernel, values), partitions, first, 7, bytes_max) == row, how
        assert list(partitions) == expected, how


@settings(deadline=None)
@given(partitions=st.lists(st.integers(-1, 4), max_size=30), count=st.integers(1, 5))
def test_rows_are_ordered_by_partition(partitions: list[int], count: int) -> None:
    bad = next((row for row, each in enumerate(partitions) if not 0 <= each < count), len(partitions))
    for how, kernel in KERNELS.items():
        starts, rows = array("q", [9] * (count + 1)), array("q", [9] * len(partitions))
        assert kernel.order_rows(array("i", partitions), len(partitions), starts, rows) == bad, how
        if bad < len(partitions):
            continue
        assert list(rows) == sorted(range(len(partitions)), key=lambda row: partitions[row]), how
        for partition in range(count):
            of_it = rows[starts[partition] : starts[partition + 1]]
            assert [partitions[row] for row in of_it] == [partition] * partitions.count(partition), how


@each_kernel
def test_what_is_not_as_arrow_has_it_is_refused(how: str) -> None:
    kernel = KERNELS[how]
    for arguments in [
        (2, array("q", [0, 1]), b"a"),
        (1, array("q", [1, 0]), b"a"),
        (1, array("q", [-1, 1]), b"a"),
        (1, array("q", [0, 2]), b"a"),
        (-1, array("q", [0, 1]), b"a"),
        (1, array("q", [0, 1]), b"a", b"", 1),
        (9, array("q", [0] * 10), b"", b"\xff"),
    ]:
        with pytest.raises(ValueError, match="rows from"):
            kernel.BinaryColumn(*arguments)
    one, two = kernel.BinaryColumn(1), kernel.BinaryColumn(2)
    with pytest.raises(ValueError, match="1 keys and 2 values"):
        kernel.Rows(one, two, 0)
    with pytest.raises(ValueError, match="1 timestamps"):
        kernel.Rows(two, two, 0, array("q", [1]))
    with pytest.raises(ValueError, match="ends of header lists"):
        kernel.Rows(one, one, 0, None, array("q", [0]), one, one)
    with pytest.raises(ValueError, match="ascend"):
        kernel.Rows(one, one, 0, None, array("q", [0, 3]), two, two)
    rows = kernel.Rows(two, two, 0)
    for order, first, end in [(NOTHING, 0, 3), (NOTHING, -1, 1), (array("q", [0]), 0, 2)]:
        with pytest.raises(ValueError, match="does not lie"):
            kernel.measure_batch(rows, order, first, end, 100)
    for row in (-1, 2):
        with pytest.raises(ValueError, match="of 2"):
            kernel.encode_batch(rows, array("q", [row]), 0, 1, bytearray(100), 0)
    with pytest.raises(ValueError, match="places"):
        kernel.partition_rows(two, 1, array("i", [0]))
    with pytest.raises(ValueError, match="0 partitions"):
        kernel.partition_rows(two, 0, array("i", [0, 0]))
    with pytest.raises(ValueError, match="rows 0 to 2"):
        kernel.stick_rows(two, array("i", [0]), 0, 0, 10)
    with pytest.raises(ValueError, match="2 rows"):
        kernel.order_rows(array("i", [0, 0]), 2, array("q", [0, 0]), array("q", [0]))
