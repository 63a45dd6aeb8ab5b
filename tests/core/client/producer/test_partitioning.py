"""Sticky partitions by load: the examples that Kafka's own partitioner documents, and the sharing out it promises."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from millstream.core.client.producer.partitioning import StickyChooser, weighted_partition


@pytest.mark.parametrize(("number", "partition"), [(0, 0), (3, 0), (4, 1), (5, 2), (7, 2), (8, 0), (12, 1)], ids=str)
def test_kafka_s_example_of_weights(number: int, partition: int) -> None:
    """Queues of 0, 3 and 1 batches weigh 4, 1 and 3 (KIP-794)."""
    assert weighted_partition([(0, 0), (1, 3), (2, 1)], number) == partition


def test_partitions_without_a_leader_are_left_out() -> None:
    chooser = StickyChooser(lambda _: [(1, 5), (4, 5)], lambda _: 6, is_adaptive=True, generator=random.Random(1))
    assert {chooser.choose("t") for _ in range(100)} == {1, 4}


@pytest.mark.parametrize("is_adaptive", [True, False])
def test_shares(is_adaptive: bool) -> None:
    sizes = [(0, 0), (1, 9), (2, 4)]
    chooser = StickyChooser(lambda _: sizes, lambda _: 3, is_adaptive=is_adaptive, generator=random.Random(1))
    chosen = Counter(chooser.choose("t") for _ in range(16_000))
    expected = {0: 10_000, 1: 1_000, 2: 5_000} if is_adaptive else dict.fromkeys(range(3), 16_000 / 3)
    for partition, count in expected.items():
        assert chosen[partition] == pytest.approx(count, rel=0.15)


def test_any_partition_where_nothing_is_known() -> None:
    chooser = StickyChooser(lambda _: [], lambda _: 3, is_adaptive=True, generator=random.Random(1))
    assert {chooser.choose("t") for _ in range(100)} == {0, 1, 2}
    assert StickyChooser(lambda _: [], lambda _: 0, is_adaptive=True).choose("gone") == -1
