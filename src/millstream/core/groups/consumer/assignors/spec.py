"""What an assignor is given of each member, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from millstream.core.groups.consumer.member import Target

# Member id -> topic id -> partitions, for every member.
Assignment = dict[str, Target]


class MemberSpec(NamedTuple):
    """A member as an assignor sees it."""

    instance_id: str | None
    # Ids of topics that exist; members that subscribe to the same share one set.
    topics: frozenset[bytes]
    # Its target assignment up to now.
    current: Target


def is_homogeneous(members: Mapping[str, MemberSpec]) -> bool:
    """Whether all members subscribe to the same topics."""
    first: frozenset[bytes] | None = None
    for member in members.values():
        if first is None:
            first = member.topics
        elif member.topics is not first and member.topics != first:
            return False
    return True
