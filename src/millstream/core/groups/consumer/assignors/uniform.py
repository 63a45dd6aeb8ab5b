"""The uniform assignor: every member gets as many partitions as any other, and keeps as many of its own as it can.

Where all members subscribe to the same topics that is exact: counts differ by one at most, and no partition moves that
need not. Where they do not, a member can't have what it does not read; partitions go from members that have many to
subscribers of the same topic that have fewer, until no move makes it more even.
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from typing import Final

from millstream.core.groups.consumer.assignors.spec import (
    Assignment,
    Members,
    PartitionCounts,
    frozen_in_steps,
    is_homogeneous,
)
from millstream.core.groups.consumer.steps import STEP_COUNT_MAX, Steps, pieces, sorted_in_steps

# Passes over all topics that even out a heterogeneous group. Each pass about halves what is uneven, and an assignment
# that is a little uneven is better than one that comes late.
BALANCING_PASSES_MAX: Final = 16

_Owned = dict[bytes, set[int]]


def assign_uniform(members: Members, partition_counts: PartitionCounts) -> Steps[Assignment]:
    """Assign every partition of subscribed topics, evenly; partitions move only where that makes it more even."""
    if not members:
        return {}
    if (yield from is_homogeneous(members)):
        return (yield from _assign_homogeneous(members, partition_counts))
    return (yield from _assign_heterogeneous(members, partition_counts))


def _kept(members: Members, free: dict[bytes, set[int]]) -> Steps[tuple[dict[str, _Owned], dict[str, int]]]:
    """Take what each member has and may keep out of `free`; return it, and how much it is."""
    kept: dict[str, _Owned] = {member_id: {} for member_id in members}
    sizes = dict.fromkeys(members, 0)
    for piece in pieces(
        (member_id, topic_id, partitions)
        for member_id, member in members.items()
        for topic_id, partitions in member.current.items()
        if topic_id in member.topics
    ):
        for member_id, topic_id, partitions in piece:
            still = partitions & free[topic_id]
            if still:
                free[topic_id] -= still
                kept[member_id][topic_id] = set(still)
                sizes[member_id] += len(still)
        yield
    return kept, sizes


def _assign_homogeneous(members: Members, partition_counts: PartitionCounts) -> Steps[Assignment]:
    topics = yield from sorted_in_steps(next(iter(members.values())).topics)
    free: dict[bytes, set[int]] = {}
    partitions_count = 0
    for piece in pieces(topics):
        for topic_id in piece:
            free[topic_id] = set(range(partition_counts[topic_id]))
            partitions_count += partition_counts[topic_id]
        yield
    share, extra = divmod(partitions_count, len(members))
    kept, sizes = yield from _kept(members, free)
    # Those that have most keep the odd partitions: it moves the fewest.
    order = yield from sorted_in_steps(members, key=lambda member_id: (-sizes[member_id], member_id))
    wanting: list[tuple[str, int]] = []
    for rank, member_id in enumerate(order):
        quota = share + (rank < extra)
        missing = quota - sizes[member_id]
        if missing < 0:
            yield from _give_up(kept[member_id], -missing, free)
        elif missing > 0:
            wanting.append((member_id, missing))
        if not rank % STEP_COUNT_MAX:
            yield
    # Turn by turn, so that a topic's partitions spread over those that still want some.
    turn = 0
    still_wanting: list[tuple[str, int]] = []
    for unassigned in pieces((topic_id, partition) for topic_id in topics for partition in sorted(free[topic_id])):
        for topic_id, partition in unassigned:
            if turn == len(wanting):
                wanting, still_wanting, turn = still_wanting, [], 0
            member_id, missing = wanting[turn]
            turn += 1
            kept[member_id].setdefault(topic_id, set()).add(partition)
            if missing > 1:
                still_wanting.append((member_id, missing - 1))
        yield
    assert turn == len(wanting), f"{len(wanting) - turn} members want more partitions than there are"
    assert not still_wanting, f"{len(still_wanting)} members want more partitions than there are"
    return (yield from frozen_in_steps(members, kept))


def _give_up(own: _Owned, count: int, free: dict[bytes, set[int]]) -> Steps[None]:
    """Move `count` of a member's partitions to `free`, from the topics that it has most of."""
    by_size: dict[int, list[bytes]] = {}
    for piece in pieces(own):
        for topic_id in piece:
            by_size.setdefault(len(own[topic_id]), []).append(topic_id)
        yield
    # One of each topic of the greatest size, then they are of the next. Of equal topics the greatest id comes first.
    size = max(by_size, default=0)
    while count:
        topics = yield from sorted_in_steps(by_size.pop(size))
        topics = topics[: -count - 1 : -1]
        for piece in pieces(topics):
            for topic_id in piece:
                partition = max(own[topic_id])
                own[topic_id].discard(partition)
                free[topic_id].add(partition)
                if size == 1:
                    del own[topic_id]
            yield
        count -= len(topics)
        size -= 1
        if count:
            by_size.setdefault(size, []).extend(topics)


def _assign_heterogeneous(members: Members, partition_counts: PartitionCounts) -> Steps[Assignment]:
    subscribers: dict[bytes, list[str]] = {}
    order = yield from sorted_in_steps(members)
    for piece in pieces((member_id, topic_id) for member_id in order for topic_id in members[member_id].topics):
        for member_id, topic_id in piece:
            subscribers.setdefault(topic_id, []).append(member_id)
        yield
    free: dict[bytes, set[int]] = {}
    for found in pieces(subscribers):
        for topic_id in found:
            free[topic_id] = set(range(partition_counts[topic_id]))
        yield
    kept, sizes = yield from _kept(members, free)
    # Topics that weigh most on each of their subscribers first; what is left can even out the others.
    topics = yield from sorted_in_steps(
        subscribers, key=lambda each: (-partition_counts[each] / len(subscribers[each]), len(subscribers[each]), each)
    )
    done = 0
    for topic_id in topics:
        if free[topic_id]:
            lightest = [(sizes[member_id], member_id) for member_id in subscribers[topic_id]]
            heapify(lightest)
            done += len(lightest)
            for partition in sorted(free[topic_id]):
                size, member_id = lightest[0]
                kept[member_id].setdefault(topic_id, set()).add(partition)
                sizes[member_id] = size + 1
                heapreplace(lightest, (size + 1, member_id))
                done += 1
                if done >= STEP_COUNT_MAX:
                    done = 0
                    yield
        done += 1
    for _ in range(BALANCING_PASSES_MAX):
        has_moved = False
        done = 0
        for topic_id in topics:
            has_moved |= yield from _balance(topic_id, subscribers[topic_id], kept, sizes)
            done += len(subscribers[topic_id])
            if done >= STEP_COUNT_MAX:
                done = 0
                yield
        if not has_moved:
            break
    return (yield from frozen_in_steps(members, kept))


def _balance(topic_id: bytes, subscribers: list[str], kept: dict[str, _Owned], sizes: dict[str, int]) -> Steps[bool]:
    """Move partitions of one topic from those that have most to those that have least; return whether any moved."""
    lightest = [(sizes[member_id], member_id) for member_id in subscribers]
    heapify(lightest)
    has_moved = False
    owners = sorted(
        (member_id for member_id in subscribers if topic_id in kept[member_id]),
        key=lambda member_id: (-sizes[member_id], member_id),
    )
    done = 0
    for owner in owners:
        own = kept[owner][topic_id]
        while own:
            done += 1
            if done >= STEP_COUNT_MAX:
                done = 0
                yield
            size, receiver = lightest[0]
            if size != sizes[receiver]:  # It gave partitions away since.
                heapreplace(lightest, (sizes[receiver], receiver))
                continue
            if sizes[owner] - size < 2:
                break
            partition = max(own)
            own.discard(partition)
            kept[receiver].setdefault(topic_id, set()).add(partition)
            sizes[owner] -= 1
            sizes[receiver] = size + 1
            heapreplace(lightest, (size + 1, receiver))
            has_moved = True
        if not own:
            del kept[owner][topic_id]
    return has_moved
