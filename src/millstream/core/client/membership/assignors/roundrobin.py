"""roundrobin: all partitions of all topics in order, dealt out one by one to those who subscribe; Kafka's results."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.membership.assignors.assignor import (
    MemberSubscription,
    RebalanceProtocol,
    Topics,
    subscribers,
)


class RoundRobinAssignor:
    """See the module."""

    name: Final = "roundrobin"
    protocols: Final = (RebalanceProtocol.EAGER,)

    def user_data(self, _topics: Iterable[str]) -> None:
        """It needs to know nothing more."""

    def on_assignment(self, _partitions: Collection[TopicPartition], _generation: int) -> None:
        """It keeps nothing from one assignment to the next."""

    def assign(self, members: Sequence[MemberSubscription], topics: Topics) -> dict[str, list[TopicPartition]]:
        """Deal out partitions; who does not subscribe to a partition's topic is passed over."""
        shares: dict[str, list[TopicPartition]] = {member.member_id: [] for member in members}
        circle = sorted(members, key=lambda member: member.rank)
        turn = 0
        for topic in subscribers(members, topics):
            for partition in range(topics[topic].partition_count):
                while topic not in circle[turn].topics:
                    turn = (turn + 1) % len(circle)
                shares[circle[turn].member_id].append(TopicPartition(topic, partition))
                turn = (turn + 1) % len(circle)
        return shares
