"""The range assignor: of each topic a member gets one run of partitions, and of topics of one size the same run.

So partition 3 of `orders` and of `payments` are read together, where all members read both and they have as many
partitions: a join on the key needs no exchange. Members stand in the order of their instance ids, then of their member
ids, so that a static member that comes back gets its run again.
"""

from __future__ import annotations

from millstream.core.groups.consumer.assignors.spec import Assignment, Members, MemberSpec, PartitionCounts
from millstream.core.groups.consumer.steps import Steps, pieces, sorted_in_steps


def assign_range(members: Members, partition_counts: PartitionCounts) -> Steps[Assignment]:
    """Assign each topic's partitions to its subscribers in runs; the first get one more where it is not even."""
    subscriber_counts: dict[bytes, int] = {}
    for topics in pieces(topic_id for member in members.values() for topic_id in member.topics):
        for topic_id in topics:
            subscriber_counts[topic_id] = subscriber_counts.get(topic_id, 0) + 1
        yield
    # Topic -> (partitions for each, how many more get one more, where the next run begins).
    left: dict[bytes, tuple[int, int, int]] = {}
    for counted in pieces(subscriber_counts.items()):
        for topic_id, count in counted:
            left[topic_id] = (*divmod(partition_counts[topic_id], count), 0)
        yield
    order = yield from sorted_in_steps(members, key=lambda each: _order(each, members[each]))
    assignment: Assignment = {member_id: {} for member_id in members}
    for runs in pieces((member_id, topic_id) for member_id in order for topic_id in members[member_id].topics):
        for member_id, topic_id in runs:
            share, extra, start = left[topic_id]
            end = start + share + (extra > 0)
            left[topic_id] = (share, max(extra - 1, 0), end)
            if start < end:
                target = assignment[member_id]
                assert isinstance(target, dict), target
                target[topic_id] = frozenset(range(start, end))
        yield
    return assignment


def _order(member_id: str, member: MemberSpec) -> tuple[bool, str]:
    return member.instance_id is None, member.instance_id or member_id
