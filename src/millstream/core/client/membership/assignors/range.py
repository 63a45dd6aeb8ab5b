"""range: topic by topic, each member gets a run of partitions; Kafka's default, with its results.

Members that subscribe to the same topics get the same partition numbers of each, so that topics partitioned alike can
be joined. With racks (KIP-881) a member is first given partitions that its rack has replicas of, as far as its share of
the topic goes, and topics with equally many partitions still go together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.membership.assignors.assignor import (
    MemberSubscription,
    RebalanceProtocol,
    TopicLayout,
    Topics,
    subscribers,
    uses_racks,
)


class RangeAssignor:
    """See the module."""

    name: Final = "range"
    protocols: Final = (RebalanceProtocol.EAGER,)

    def user_data(self, _topics: Iterable[str]) -> None:
        """It needs to know nothing more."""

    def on_assignment(self, _partitions: Collection[TopicPartition], _generation: int) -> None:
        """It keeps nothing from one assignment to the next."""

    def assign(self, members: Sequence[MemberSubscription], topics: Topics) -> dict[str, list[TopicPartition]]:
        """Share partitions by number, topic by topic."""
        shares: dict[str, list[TopicPartition]] = {member.member_id: [] for member in members}
        sharings = [
            _Sharing(topic, topics[topic], them, shares) for topic, them in subscribers(members, topics).items()
        ]
        by_rack = any(sharing.uses_racks for sharing in sharings)
        if by_rack:
            _match_racks(sharings)
        for sharing in sharings:
            sharing.give_ranges(lambda _member, _partition: True)
        if by_rack:
            for share in shares.values():
                share.sort()
        return shares


class _Sharing:
    """One topic being shared."""

    def __init__(
        self,
        topic: str,
        layout: TopicLayout,
        members: list[MemberSubscription],
        shares: dict[str, list[TopicPartition]],
    ) -> None:
        self.topic = topic
        self.layout = layout
        # By member id, in Kafka's order, the rack.
        self.racks = {member.member_id: member.rack for member in members}
        self.uses_racks = uses_racks({rack for rack in self.racks.values() if rack is not None}, [layout])
        self._shares = shares
        self._left = dict.fromkeys(range(layout.partition_count))
        self._counts = dict.fromkeys(self.racks, 0)
        # Each gets `_share` partitions, and the first `_extra` that come one more.
        self._share, self._extra = divmod(layout.partition_count, len(members))

    @property
    def has_member_racks(self) -> bool:
        return any(rack is not None for rack in self.racks.values())

    def room(self, member_id: str) -> int:
        """How many more this member may get."""
        return max(0, self._share + (self._extra > 0) - self._counts[member_id])

    def matches(self, member_id: str, partition: int) -> bool:
        """Whether the member's rack has a replica of the partition; a member without a rack is content with any."""
        rack = self.racks[member_id]
        return rack is None or rack in self.layout.racks[partition]

    def give(self, member_id: str, partitions: list[int]) -> None:
        self._shares[member_id] += (TopicPartition(self.topic, partition) for partition in partitions)
        self._counts[member_id] += len(partitions)
        if self._counts[member_id] > self._share:
            self._extra -= 1
        for partition in partitions:
            del self._left[partition]

    def give_ranges(self, may_have: Callable[[str, int], bool]) -> None:
        """Give each member, in order, the first partitions left that it may have, until its share is full."""
        for member_id in self.racks:
            room = self.room(member_id)
            fitting = (partition for partition in self._left if may_have(member_id, partition))
            if chosen := [partition for partition, _ in zip(fitting, range(room), strict=False)]:
                self.give(member_id, chosen)


def _match_racks(sharings: list[_Sharing]) -> None:
    """Give members partitions of their racks. Topics with the same members and as many partitions go together."""
    together: dict[tuple[object, int], list[_Sharing]] = {}
    for sharing in sharings:
        # Kafka looks at no racks of a topic whose members have none.
        count = sharing.layout.partition_count if sharing.has_member_racks else 0
        together.setdefault((frozenset(sharing.racks.items()), count), []).append(sharing)
    for (_, count), alike in together.items():
        if len(alike) > 1:
            _match_together(alike, count)
        elif alike[0].uses_racks:
            alike[0].give_ranges(alike[0].matches)


def _match_together(alike: list[_Sharing], partition_count: int) -> None:
    """Give each partition number, of all these topics, to the first member whose rack has a replica of each."""
    remaining = list(alike[0].racks)
    for partition in range(partition_count):
        chosen = next(
            (one for one in remaining if all(each.matches(one, partition) and each.room(one) for each in alike)), None
        )
        if chosen is None:
            continue
        for each in alike:
            each.give(chosen, [partition])
        if not any(each.room(chosen) for each in alike):
            remaining.remove(chosen)
