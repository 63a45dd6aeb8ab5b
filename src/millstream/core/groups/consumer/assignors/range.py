"""The range assignor: of each topic a member gets one run of partitions, and of topics of one size the same run.

So partition 3 of `orders` and of `payments` are read together, where all members read both and they have as many
partitions: a join on the key needs no exchange. Members stand in the order of their instance ids, then of their member
ids, so that a static member that comes back gets its run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from millstream.core.groups.consumer.assignors.spec import Assignment, MemberSpec


def assign_range(members: Mapping[str, MemberSpec], partition_counts: Mapping[bytes, int]) -> Assignment:
    """Assign each topic's partitions to its subscribers in runs; the first get one more where it is not even."""
    subscriber_counts: Counter[bytes] = Counter()
    for member in members.values():
        subscriber_counts.update(member.topics)
    # Topic -> (partitions for each, how many more get one more, where the next run begins).
    left = {topic_id: (*divmod(partition_counts[topic_id], count), 0) for topic_id, count in subscriber_counts.items()}
    assignment: Assignment = {}
    for member_id in sorted(members, key=lambda each: _order(each, members[each])):
        runs: dict[bytes, frozenset[int]] = {}
        for topic_id in members[member_id].topics:
            share, extra, start = left[topic_id]
            end = start + share + (extra > 0)
            left[topic_id] = (share, max(extra - 1, 0), end)
            if start < end:
                runs[topic_id] = frozenset(range(start, end))
        assignment[member_id] = runs
    return assignment


def _order(member_id: str, member: MemberSpec) -> tuple[bool, str]:
    return member.instance_id is None, member.instance_id or member_id
