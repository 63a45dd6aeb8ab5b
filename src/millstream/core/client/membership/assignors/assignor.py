"""What an assignor is: the rule by which a group's leader shares partitions among its members.

Whichever member leads runs it, so every member of a group needs the same ones under the same names. A group uses the
first of a member's list that all its members have. Pure: what it needs comes in, the shares go out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from millstream.core.client.cluster import TopicPartition

Shares = Mapping[str, Sequence[TopicPartition]]
"""Partitions by member id."""


class RebalanceProtocol(IntEnum):
    """What members do with their partitions in a rebalance: give up all before it, or only those they lose after it."""

    EAGER = 0
    COOPERATIVE = 1


@dataclass(frozen=True, slots=True)
class TopicLayout:
    """A topic as an assignor sees it: for each of its partitions, from 0 on, the racks that have a replica."""

    racks: tuple[frozenset[str], ...]

    @classmethod
    def of(cls, partition_count: int) -> TopicLayout:
        """A topic whose racks nobody knows."""
        return cls((frozenset(),) * partition_count)

    @property
    def partition_count(self) -> int:
        return len(self.racks)


Topics = Mapping[str, TopicLayout]


@dataclass(frozen=True, slots=True)
class MemberSubscription:
    """A member as the leader knows it from its JoinGroup."""

    member_id: str
    topics: frozenset[str]
    instance_id: str | None = None
    rack: str | None = None
    # What it says it holds, and the generation it was given that in; -1 where it does not say.
    owned: tuple[TopicPartition, ...] = ()
    generation: int = -1
    # What its own assignor of this name wanted to say.
    user_data: bytes | None = None

    @property
    def rank(self) -> tuple[bool, str]:
        """Kafka's order of members: static ones by instance id, then the others by member id."""
        return self.instance_id is None, self.member_id if self.instance_id is None else self.instance_id


class Assignor(Protocol):
    """A rule to share partitions. Give objects as `assignors` to use your own."""

    @property
    def name(self) -> str:
        """What members call it to each other."""
        ...

    @property
    def protocols(self) -> Collection[RebalanceProtocol]:
        """The ways to rebalance that it allows; members use the best that all their assignors allow."""
        ...

    def user_data(self, topics: Iterable[str]) -> bytes | None:
        """Return what the leader's assignor is to know of this member besides its subscription."""
        ...

    def assign(self, members: Sequence[MemberSubscription], topics: Topics) -> Shares:
        """Share all partitions of the topics that each member subscribes to; a topic not in `topics` is not there."""
        ...

    def on_assignment(self, partitions: Collection[TopicPartition], generation: int) -> None:
        """Note what this member was given."""
        ...


def uses_racks(member_racks: Collection[str], layouts: Iterable[TopicLayout]) -> bool:
    """Whether racks make a difference: some member's rack has replicas, and not every rack has one of each partition.

    KIP-881.
    """
    each = [racks for layout in layouts for racks in layout.racks]
    everywhere = frozenset[str]().union(*each)
    return not everywhere.isdisjoint(member_racks) and any(racks != everywhere for racks in each)


def subscribers(members: Iterable[MemberSubscription], topics: Topics) -> dict[str, list[MemberSubscription]]:
    """Return who subscribes to each topic that is there and has partitions, topics and members in order."""
    found: dict[str, list[MemberSubscription]] = {}
    for member in sorted(members, key=lambda member: member.rank):
        for topic in member.topics:
            if topic in topics and topics[topic].partition_count:
                found.setdefault(topic, []).append(member)
    return dict(sorted(found.items()))
