"""The planner: nothing lost, nothing doubled, and loads that come out alike."""

from __future__ import annotations

import heapq
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.hadoop_loader.planning import Plan, plan_splits, take_share
from millstream.hadoop_loader.splits import OffsetRange

MB = 2**20


@st.composite
def ranges_of_topics(draw: st.DrawFn) -> list[OffsetRange]:
    sizes = draw(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 2**34)), min_size=0, max_size=60))
    return [
        OffsetRange("t", "id", number, 3, start := draw(st.integers(0, 2**40)), start + offsets, size)
        for number, (offsets, size) in enumerate(sizes)
    ]


def covered(plan: Plan) -> dict[tuple[str, int], list[tuple[int, int]]]:
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for split in plan.splits:
        for piece in split.ranges:
            found.setdefault((piece.topic_id, piece.partition), []).append((piece.start_offset, piece.end_offset))
    return {key: sorted(pieces) for key, pieces in found.items()}


def makespan(plan: Plan, workers: int) -> int:
    """Bytes of the busiest worker when splits are handed out in order to whoever is idle."""
    loads = [0] * workers
    for split in plan.splits:
        heapq.heapreplace(loads, loads[0] + split.estimated_bytes)
    return max(loads)


@given(ranges=ranges_of_topics(), workers=st.integers(1, 32), split_mb=st.integers(1, 512))
def test_every_offset_is_in_one_range_of_one_split(ranges: list[OffsetRange], workers: int, split_mb: int) -> None:
    plan = plan_splits(ranges, workers=workers, split_bytes=split_mb * MB)

    pieces = covered(plan)
    assert pieces.keys() == {(each.topic_id, each.partition) for each in ranges}
    for wanted in ranges:
        position = wanted.start_offset
        for start, end in pieces[wanted.topic_id, wanted.partition]:
            assert start == position < end
            position = end
        assert position == wanted.end_offset
    assert plan.estimated_bytes == sum(each.estimated_bytes for each in ranges)
    assert [split.number for split in plan.splits] == list(range(len(plan.splits)))


@given(ranges=ranges_of_topics(), workers=st.integers(1, 32), split_mb=st.integers(1, 512))
def test_splits_are_bounded_and_workers_end_together(ranges: list[OffsetRange], workers: int, split_mb: int) -> None:
    plan = plan_splits(ranges, workers=workers, split_bytes=split_mb * MB)

    assert plan.split_bytes <= split_mb * MB
    for split in plan.splits:
        # Only one offset that is larger than a split by itself makes a larger one.
        alone = len(split.ranges) == 1 and split.ranges[0].end_offset - split.ranges[0].start_offset == 1
        uneven = 1 if split.ranges[0].estimated_bytes else 0
        assert split.estimated_bytes <= plan.split_bytes + len(split.ranges) * uneven or alone
    if plan.splits:
        largest = max(split.estimated_bytes for split in plan.splits)
        assert makespan(plan, workers) <= plan.estimated_bytes / workers + largest


def test_tiny_partitions_share_splits_and_a_hot_one_is_cut() -> None:
    tiny = [OffsetRange("events", "e", number, -1, 0, 10, 1000) for number in range(500)]
    hot = OffsetRange("hot", "h", 0, 7, 0, 3_000_000, 3000 * MB)

    plan = plan_splits([*tiny, hot], workers=4, split_bytes=256 * MB)

    cut = covered(plan)["h", 0]
    assert len(cut) == 12
    assert len(plan.splits) <= 13
    epochs = {piece.start_offset: piece.leader_epoch for split in plan.splits for piece in split.ranges}
    assert epochs[0] in (-1, 7)
    first = next(p for s in plan.splits for p in s.ranges if p.topic == "hot" and p.start_offset == 0)
    assert first.leader_epoch == 7


def test_little_work_is_still_spread_over_the_workers() -> None:
    ranges = [OffsetRange("t", "id", number, -1, 0, 100_000, 12 * MB) for number in range(6)]

    plan = plan_splits(ranges, workers=2, split_bytes=256 * MB)

    assert makespan(plan, 2) == 36 * MB


def test_partitions_filled_alike_are_not_cut_for_what_one_has_more() -> None:
    ranges = [OffsetRange("t", "id", number, -1, 0, 100_000, 12 * MB + number * 1_000) for number in range(6)]

    plan = plan_splits(ranges, workers=2, split_bytes=256 * MB)

    assert [split.ranges for split in plan.splits] == [(each,) for each in reversed(ranges)]
    # Where the job says how large a split may be, that is kept.
    bounded = plan_splits(ranges, workers=2, split_bytes=12 * MB)
    assert max(split.estimated_bytes for split in bounded.splits) <= 12 * MB
    assert bounded.split_bytes == 12 * MB


def test_twenty_thousand_partitions() -> None:
    chance = random.Random(7)
    ranges = [
        OffsetRange(f"topic-{number // 100}", f"id-{number // 100}", number % 100, 5, 0, size // 100 + 1, size)
        for number, size in enumerate(int(chance.paretovariate(0.8) * 10_000) for _ in range(20_000))
    ]

    plan = plan_splits(ranges, workers=64, split_bytes=256 * MB)

    assert sum(len(pieces) for pieces in covered(plan).values()) >= 20_000
    assert makespan(plan, 64) <= plan.estimated_bytes / 64 + plan.split_bytes
    assert len(plan.splits) < 20_000


def test_nothing_to_load_is_no_split() -> None:
    assert plan_splits([], workers=4, split_bytes=MB).splits == ()
    assert plan_splits([OffsetRange("t", "id", 0, -1, 5, 5)], workers=4, split_bytes=MB).splits == ()


@given(ranges=ranges_of_topics(), bytes_max=st.integers(1, 2**36))
@settings(max_examples=50)
def test_a_share_of_every_partition(ranges: list[OffsetRange], bytes_max: int) -> None:
    taken = take_share(ranges, bytes_max)

    assert len(taken) == len(ranges)
    levels = []
    for whole, part in zip(ranges, taken, strict=True):
        assert part.start_offset == whole.start_offset < part.end_offset <= whole.end_offset
        if part.end_offset < whole.end_offset:
            levels.append(part.estimated_bytes)
    # At most an offset of each too much, as nothing is less than that.
    assert sum(part.estimated_bytes for part in taken) <= bytes_max + len(taken)
    assert not levels or max(levels) - min(levels) <= 1
    if sum(each.estimated_bytes for each in ranges) <= bytes_max:
        assert taken == ranges
