"""What an assignor is given of each member, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from millstream.core.groups.consumer.member import Target
from millstream.core.groups.consumer.steps import STEP_COUNT_MAX, Steps

# Member id -> topic id -> partitions, for every member.
Assignment = dict[str, Target]


class MemberSpec(NamedTuple):
    """A member as an assignor sees it."""

    instance_id: str | None
    # Ids of topics that exist; members that subscribe to the same share one set.
    topics: frozenset[bytes]
    # Its target assignment up to now.
    current: Target


Members = Mapping[str, MemberSpec]
# How many partitions each topic has.
PartitionCounts = Mapping[bytes, int]

# Makes an assignment at once, or in steps; nothing that it was given may change meanwhile.
Assignor = Callable[[Members, PartitionCounts], Assignment]
SteppingAssignor = Callable[[Members, PartitionCounts], Steps[Assignment]]


def is_homogeneous(members: Members) -> Steps[bool]:
    """Whether all members subscribe to the same topics. A step for each two sets that have to be compared."""
    first: frozenset[bytes] | None = None
    for member in members.values():
        if first is None:
            first = member.topics
        elif member.topics is not first:
            if member.topics != first:
                return False
            yield
    return True


def frozen_in_steps(members: Members, made: Mapping[str, Mapping[bytes, set[int]]]) -> Steps[Assignment]:
    """Return what was made as an assignment. What did not change stays the same object, and is seen to be at once."""
    assignment: Assignment = {}
    count = 0
    for member_id, member in members.items():
        own = made[member_id]
        current = member.current
        has_changed = len(own) != len(current)
        target: dict[bytes, frozenset[int]] = {}
        for topic_id, partitions in own.items():
            before = current.get(topic_id)
            if before is None or partitions != before:
                has_changed = True
                target[topic_id] = frozenset(partitions)
            else:
                target[topic_id] = before
            count += 1
            if not count % STEP_COUNT_MAX:
                yield
        assignment[member_id] = target if has_changed else current
        count += 1
        if not count % STEP_COUNT_MAX:
            yield
    return assignment
