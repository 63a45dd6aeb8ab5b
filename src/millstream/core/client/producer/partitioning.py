"""Which partition records without a key go to: one at a time, then the next, by how busy each is (KIP-794).

The accumulator asks whenever a partition got a batch's worth of bytes. With adaptive partitioning a partition with
fewer batches waiting is more likely: its weight is the longest queue + 1 less its own. Keys go by murmur2, in the
kernel.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from millstream.core._kernels.record_accumulator import NO_PARTITION

QueueSizes = Sequence[tuple[int, int]]
"""(partition, batches that wait) of each partition that may be chosen."""


def weighted_partition(sizes: QueueSizes, number: int) -> int:
    """Return the partition that the random `number` chooses among those with `sizes`, as Kafka's producer does."""
    longest = max(size for _, size in sizes) + 1
    cumulative = list(accumulate(longest - size for _, size in sizes))
    return sizes[bisect_right(cumulative, number % cumulative[-1])][0]


class StickyChooser:
    """Chooses the next partition of a topic; called on whichever thread sends."""

    def __init__(
        self,
        queue_sizes: Callable[[str], QueueSizes],
        partition_count: Callable[[str], int],
        *,
        is_adaptive: bool,
        generator: random.Random | None = None,
    ) -> None:
        """`queue_sizes` leaves out partitions without a leader; none at all means that nothing is known."""
        self._queue_sizes = queue_sizes
        self._partition_count = partition_count
        self._is_adaptive = is_adaptive
        self._random = generator or random.Random()

    def choose(self, topic: str) -> int:
        """Return the next partition, NO_PARTITION for a topic that was forgotten meanwhile."""
        sizes = self._queue_sizes(topic)
        number = self._random.getrandbits(31)
        if not sizes:
            count = self._partition_count(topic)
            return number % count if count else NO_PARTITION
        if self._is_adaptive:
            return weighted_partition(sizes, number)
        return sizes[number % len(sizes)][0]
