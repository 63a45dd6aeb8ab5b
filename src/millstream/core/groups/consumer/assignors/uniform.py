"""The uniform assignor: every member gets as many partitions as any other, and keeps as many of its own as it can.

Where all members subscribe to the same topics that is exact: counts differ by one at most, and no partition moves that
need not. Where they do not, a member can't have what it does not read; partitions go from members that have many to
subscribers of the same topic that have fewer, until no move makes it more even.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heapreplace
from typing import Final

from millstream.core.groups.consumer.assignors.spec import Assignment, MemberSpec, is_homogeneous

# Passes over all topics that even out a heterogeneous group. Each pass about halves what is uneven, and an assignment
# that is a little uneven is better than one that comes late.
BALANCING_PASSES_MAX: Final = 16

# Turns the order of topic ids round.
_INVERTED: Final = bytes(range(255, -1, -1))

_Owned = dict[bytes, set[int]]


def assign_uniform(members: Mapping[str, MemberSpec], partition_counts: Mapping[bytes, int]) -> Assignment:
    """Assign every partition of subscribed topics, evenly; partitions move only where that makes it more even."""
    if is_homogeneous(members):
        return _assign_homogeneous(members, partition_counts)
    return _assign_heterogeneous(members, partition_counts)


def _kept(members: Mapping[str, MemberSpec], free: dict[bytes, set[int]]) -> tuple[dict[str, _Owned], dict[str, int]]:
    """Take what each member has and may keep out of `free`; return it, and how much it is."""
    kept: dict[str, _Owned] = {}
    sizes: dict[str, int] = {}
    for member_id, member in members.items():
        own: _Owned = {}
        size = 0
        for topic_id, partitions in member.current.items():
            if topic_id in member.topics:
                still = partitions & free[topic_id]
                if still:
                    free[topic_id] -= still
                    own[topic_id] = set(still)
                    size += len(still)
        kept[member_id] = own
        sizes[member_id] = size
    return kept, sizes


def _assign_homogeneous(members: Mapping[str, MemberSpec], partition_counts: Mapping[bytes, int]) -> Assignment:
    if not members:
        return {}
    topics = sorted(next(iter(members.values())).topics)
    free = {topic_id: set(range(partition_counts[topic_id])) for topic_id in topics}
    share, extra = divmod(sum(map(len, free.values())), len(members))
    kept, sizes = _kept(members, free)
    # Those that have most keep the odd partitions: it moves the fewest.
    order = sorted(members, key=lambda member_id: (-sizes[member_id], member_id))
    wanting: list[tuple[str, int]] = []
    for rank, member_id in enumerate(order):
        quota = share + (rank < extra)
        missing = quota - sizes[member_id]
        if missing < 0:
            _give_up(kept[member_id], -missing, free)
        elif missing > 0:
            wanting.append((member_id, missing))
    unassigned = [(topic_id, partition) for topic_id in topics for partition in sorted(free[topic_id])]
    # Turn by turn, so that a topic's partitions spread over those that still want some.
    position = 0
    while wanting:
        still_wanting: list[tuple[str, int]] = []
        for member_id, missing in wanting:
            topic_id, partition = unassigned[position]
            position += 1
            kept[member_id].setdefault(topic_id, set()).add(partition)
            if missing > 1:
                still_wanting.append((member_id, missing - 1))
        wanting = still_wanting
    assert position == len(unassigned), f"{position} of {len(unassigned)} partitions were assigned"
    return _frozen(members, kept)


def _give_up(own: _Owned, count: int, free: dict[bytes, set[int]]) -> None:
    """Move `count` of a member's partitions to `free`, from the topics that it has most of."""
    # Of equal topics the one with the greatest id. A heap, since one that reads 20,000 topics gives up thousands.
    heap = [(-len(partitions), topic_id.translate(_INVERTED), topic_id) for topic_id, partitions in own.items()]
    heapify(heap)
    ordered: dict[bytes, list[int]] = {}
    for _ in range(count):
        negative_size, inverted, topic_id = heap[0]
        partitions = own[topic_id]
        if topic_id not in ordered:
            ordered[topic_id] = sorted(partitions)
        partition = ordered[topic_id].pop()
        partitions.discard(partition)
        free[topic_id].add(partition)
        if partitions:
            heapreplace(heap, (negative_size + 1, inverted, topic_id))
        else:
            del own[topic_id]
            heappop(heap)


def _assign_heterogeneous(members: Mapping[str, MemberSpec], partition_counts: Mapping[bytes, int]) -> Assignment:
    subscribers: dict[bytes, list[str]] = {}
    for member_id in sorted(members):
        for topic_id in members[member_id].topics:
            subscribers.setdefault(topic_id, []).append(member_id)
    free = {topic_id: set(range(partition_counts[topic_id])) for topic_id in subscribers}
    kept, sizes = _kept(members, free)
    # Topics that weigh most on each of their subscribers first; what is left can even out the others.
    topics = sorted(
        subscribers, key=lambda each: (-partition_counts[each] / len(subscribers[each]), len(subscribers[each]), each)
    )
    for topic_id in topics:
        if free[topic_id]:
            lightest = [(sizes[member_id], member_id) for member_id in subscribers[topic_id]]
            heapify(lightest)
            for partition in sorted(free[topic_id]):
                size, member_id = lightest[0]
                kept[member_id].setdefault(topic_id, set()).add(partition)
                sizes[member_id] = size + 1
                heapreplace(lightest, (size + 1, member_id))
    for _ in range(BALANCING_PASSES_MAX):
        moves = [_balance(topic_id, subscribers[topic_id], kept, sizes) for topic_id in topics]
        if not any(moves):
            break
    return _frozen(members, kept)


def _balance(topic_id: bytes, subscribers: list[str], kept: dict[str, _Owned], sizes: dict[str, int]) -> bool:
    """Move partitions of one topic from those that have most to those that have least; return whether any moved."""
    lightest = [(sizes[member_id], member_id) for member_id in subscribers]
    heapify(lightest)
    has_moved = False
    owners = sorted(
        (member_id for member_id in subscribers if topic_id in kept[member_id]),
        key=lambda member_id: (-sizes[member_id], member_id),
    )
    for owner in owners:
        own = kept[owner][topic_id]
        while own:
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


def _frozen(members: Mapping[str, MemberSpec], kept: dict[str, _Owned]) -> Assignment:
    assignment: Assignment = {}
    for member_id, member in members.items():
        own = kept[member_id]
        current = member.current
        # What did not change stays the same object, and is seen to be at once.
        assignment[member_id] = current if own == current else {each: frozenset(own[each]) for each in own}
    return assignment
