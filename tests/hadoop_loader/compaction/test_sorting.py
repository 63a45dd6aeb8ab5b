"""The sorter against Arrow's own sort, with so little memory that it spills and merges."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
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


def test_many_runs_are_merged_in_steps_and_nothing_is_left_behind(tmp_path: Path) -> None:
    chosen = random.Random(3)
    rows = [(chosen.randrange(10**6), f"text {number}") for number in range(40_000)]
    with ExternalSorter([("key", "ascending")], memory_bytes=80_000, directory=tmp_path) as sorter:
        for start in range(0, len(rows), 1_000):
            part = rows[start : start + 1_000]
            # Each part has a dictionary of its own.
            kinds = pa.array([f"kind {key % (start + 2)}" for key, _ in part]).dictionary_encode()
            sorter.add(table(part).append_column("kind", kinds))
        pieces = list(sorter.sorted())
        runs = sorter.runs

    assert runs > 20
    found = [row for piece in pieces for row in zip(*piece.to_pydict().values(), strict=True)]
    expected = [(key, text, f"kind {key % (at // 1_000 * 1_000 + 2)}") for at, (key, text) in enumerate(rows)]
    assert sorted(found) == sorted(expected)
    assert [key for key, _, _ in found] == sorted(key for key, _ in rows)
    assert list(tmp_path.iterdir()) == []
