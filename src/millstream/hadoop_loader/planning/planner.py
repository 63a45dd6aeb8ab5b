"""The planner: ranges of offsets -> splits of about the same number of bytes each.

    1. The size of a split is chosen: `split_bytes`, or less where that would leave workers without one.
    2. A range larger than a split is cut into equal pieces of at most that size (a hot partition is read by several
       workers); its bytes are taken to lie evenly over its offsets. One that is a little larger stays whole, within
       `split_bytes`: partitions filled alike would otherwise be cut in two, those of them that are above the mean.
    3. Ranges that fill a split on their own become one. The others are packed, largest first, each into the split with
       the most room (worst fit): tiny partitions share a split, and the splits come out alike.
    4. Splits are numbered by size, largest first, so that the last ones to be handed out are short and the workers end
       at about the same time.

What holds: every offset is in exactly one range of one split; no split of more than one range is larger than the split
size, and none larger than what stays whole (but for what a partition cannot be cut by: an offset); with the greedy
hand-out of an engine no worker is busy for longer than an equal share plus the largest split.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from millstream.hadoop_loader.splits import OffsetRange, Split

# Splits a worker should have, so that one that is slower than thought costs little.
SPLITS_PER_WORKER: Final = 3
# By one part in so many a range may be larger than a split and stay whole.
SPARE: Final = 8
# Below this a split costs more to begin than to read.
SPLIT_BYTES_MIN: Final = 1024 * 1024
# Of one split: its open files and its task are bounded.
RANGES_PER_SPLIT_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """The splits of a run, largest first."""

    splits: tuple[Split, ...]
    # What a split has at most.
    split_bytes: int

    @property
    def estimated_bytes(self) -> int:
        """What all splits are reckoned to be."""
        return sum(split.estimated_bytes for split in self.splits)


def plan_splits(ranges: Sequence[OffsetRange], *, workers: int, split_bytes: int) -> Plan:
    """Return the splits for `ranges` over so many workers, each about `split_bytes` or smaller."""
    assert workers > 0, workers
    assert split_bytes > 0, split_bytes
    wanted = [each for each in ranges if each.end_offset > each.start_offset]
    if not wanted:
        return Plan((), split_bytes)
    total = sum(_weight(each) for each in wanted)
    size = min(split_bytes, max(SPLIT_BYTES_MIN, -(-total // (workers * SPLITS_PER_WORKER))))
    whole = min(split_bytes, size + size // SPARE)
    pieces = [piece for each in wanted for piece in _cut(each, size, whole)]
    pieces.sort(key=lambda piece: (-_weight(piece), _place(piece)))
    packed = _packed(pieces, size)
    packed.sort(key=lambda held: (-sum(map(_weight, held)), _place(held[0])))
    return Plan(tuple(Split(number, tuple(sorted(held, key=_place))) for number, held in enumerate(packed)), whole)


def _place(given: OffsetRange) -> tuple[str, int, int]:
    return given.topic, given.partition, given.start_offset


def _weight(given: OffsetRange) -> int:
    """The bytes of a range; also one that is reckoned to be nothing costs a request."""
    return max(1, given.estimated_bytes)


def _cut(given: OffsetRange, size: int, whole: int) -> list[OffsetRange]:
    offsets = given.end_offset - given.start_offset
    count = min(-(-_weight(given) // size), offsets)
    if count <= 1 or _weight(given) <= whole:
        return [given]
    pieces = []
    for index in range(count):
        first = given.start_offset + offsets * index // count
        end = given.start_offset + offsets * (index + 1) // count
        bytes_before = given.estimated_bytes * index // count
        bytes_after = given.estimated_bytes * (index + 1) // count
        pieces.append(
            replace(
                given,
                start_offset=first,
                end_offset=end,
                # What the record before a later piece had is not known here: its reader learns it.
                leader_epoch=given.leader_epoch if index == 0 else -1,
                estimated_bytes=bytes_after - bytes_before,
            )
        )
    return pieces


def _packed(pieces: Sequence[OffsetRange], size: int) -> list[list[OffsetRange]]:
    """Pack pieces, which come largest first, into bins of `size` bytes.

    The bins that are still open are a heap by what is in them: the emptiest is the one with the most room, and where a
    piece does not fit into that one it fits nowhere.
    """
    bins: list[list[OffsetRange]] = []
    open_bins: list[tuple[int, int]] = []  # bytes in it, and its place in `bins`
    # As many as the bytes fill are opened at once, so that the large pieces spread.
    total = sum(map(_weight, pieces))
    for _ in range(max(1, -(-total // size))):
        bins.append([])
        open_bins.append((0, len(bins) - 1))
    for piece in pieces:
        weight = _weight(piece)
        held, place = open_bins[0] if open_bins else (size + 1, -1)
        if held and held + weight > size:
            bins.append([piece])
            heapq.heappush(open_bins, (weight, len(bins) - 1))
            continue
        bins[place].append(piece)
        if len(bins[place]) >= RANGES_PER_SPLIT_MAX:
            heapq.heappop(open_bins)
        else:
            heapq.heapreplace(open_bins, (held + weight, place))
    return [each for each in bins if each]
