"""The sorter against Arrow's own sort, with so little memory that it spills and merges."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.hadoop_loader.compaction.sorting import ExternalSorter

KEYS = st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**40), 2**40))


def table(rows: Sequence[tuple[int | None, str]]) -> pa.Table:
    return pa.table(
        {"key": pa.array([key for key, _ in rows], pa.int64()), "text": pa.array([text for _, text in rows])}
    )


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(st.lists(st.tuples(KEYS, st.text(max_size=3)), min_size=1, max_size=30), max_size=8),
    memory=st.sampled_from([64, 4_000, 1 << 24]),
    second=st.sampled_from(["ascending", "descending"]),
)
def test_all_rows_come_out_in_order(
    parts: list[list[tuple[int | None, str]]], memory: int, second: Literal["ascending", "descending"]
) -> None:
    with ExternalSorter([("key", "ascending"), ("text", second)], memory_bytes=memory) as sorter:
        for part in parts:
            sorter.add(table(part))
        found = [row for piece in sorter.sorted() for row in zip(*piece.to_pydict().values(), strict=True)]

    rows = [row for part in parts for row in part]
    in_order = sorted(rows, key=lambda row: row[1].encode(), reverse=second == "descending")
    in_order.sort(key=lambda row: (row[0] is None, row[0] or 0))
    assert found == in_order


@given(
    parts=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), max_size=12),
    memory=st.sampled_from([64, 500, 4_000]),
)
def test_rows_with_equal_keys_keep_their_order_through_a_spill(parts: list[list[int]], memory: int) -> None:
    rows = [(key, str(number)) for number, key in enumerate(key for part in parts for key in part)]
    with ExternalSorter([("key", "ascending")], memory_bytes=memory) as sorter:
        start = 0
        for part in parts:
            sorter.add(table(rows[start : start + len(part)]))
            start += len(part)
        found = [row for piece in sorter.sorted() for row in zip(*piece.to_pydict().values(), strict=True)]

    assert found == sorted(rows, key=lambda row: row[0])


def test_many_runs_are_merged_in_steps_and_nothing_is_left_behind(tmp_path: Path) -> None:
    chosen = random.Random(3)
    rows = [(chosen.randrange(100), f"text {number}") for number in range(40_000)]
    descriptors = Path("/proc/self/fd")
    held = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    files: list[int] = []
    with ExternalSorter([("key", "ascending")], memory_bytes=80_000, directory=tmp_path) as sorter:
        for start in range(0, len(rows), 1_000):
            part = rows[start : start + 1_000]
            # Each part has a dictionary of its own.
            kinds = pa.array([f"kind {number % (start + 2)}" for number in range(len(part))]).dictionary_encode()
            sorter.add(table(part).append_column("kind", kinds))
            files.append(len(list(descriptors.iterdir())) - held if descriptors.exists() else 0)
        assert list(tmp_path.iterdir()) == [], "a killed process leaves nothing behind"
        pieces = list(sorter.sorted())
        runs = sorter.runs

    assert runs > 20
    assert max(files) < 10, "what was spilled is merged before too many files are open"
    found = [row for piece in pieces for row in zip(*piece.to_pydict().values(), strict=True)]
    expected = [(key, text, f"kind {at % 1_000 % (at // 1_000 * 1_000 + 2)}") for at, (key, text) in enumerate(rows)]
    assert found == sorted(expected, key=lambda row: row[0]), "rows with equal keys stay in the order they came in"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("direction", ["ascending", "descending"])
def test_numbers_that_are_none_come_behind_those_that_are_through_a_spill(
    direction: Literal["ascending", "descending"],
) -> None:
    special = [0.0, -0.0, math.nan, None, math.inf, -math.inf, -2.5]
    keys = [special[number % 7] if number % 3 else number * 37 % 101 / 7 for number in range(20_000)]
    rows = pa.table({"key": pa.array(keys, pa.float64()), "text": [f"{number:>40}" for number in range(20_000)]})
    with ExternalSorter([("key", direction)], memory_bytes=200_000) as sorter:
        for start in range(0, rows.num_rows, 1_000):
            sorter.add(rows.slice(start, 1_000))
        found = pa.concat_tables(list(sorter.sorted()))

    assert sorter.runs > 5
    expected = rows.take(pc.sort_indices(rows, sort_keys=[("key", direction)]))
    assert found.column("text").to_pylist() == expected.column("text").to_pylist()


@pytest.mark.parametrize("rows_at_a_time", [700, 20_000, 70_000])
def test_rows_are_gathered_block_by_block(rows_at_a_time: int) -> None:
    # Several blocks and pieces without a run spilled, of batches smaller and larger than a block.
    rows = table([(number * 7_919 % 1_009, f"{number:>200}") for number in range(70_000)])
    with ExternalSorter([("key", "ascending")], memory_bytes=1 << 28) as sorter:
        for start in range(0, rows.num_rows, rows_at_a_time):
            sorter.add(rows.slice(start, rows_at_a_time))
        pieces = list(sorter.sorted())

    assert sorter.runs == 0
    assert len(pieces) > 1
    assert pa.concat_tables(pieces).equals(rows.take(pc.sort_indices(rows, sort_keys=[("key", "ascending")])))
