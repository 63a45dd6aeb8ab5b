"""Even shares with few moves: what the sticky assignors compute, by numbers of partitions alone.

Two ways. Where all members subscribe to the same topics each has a quota, and keeps what it had up to that. Else shares
are first filled up from what is free, and then evened out along chains: a member that has two more than another passes
a partition to it, over others that can take one and give one where it has none that the other subscribes to.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.membership.assignors.assignor import (
    MemberSubscription,
    Topics,
    subscribers,
    uses_racks,
)

Shares = dict[str, list[TopicPartition]]


def balance(
    members: Sequence[MemberSubscription], topics: Topics, had: Mapping[str, Sequence[TopicPartition]]
) -> Shares:
    """Share every partition among those who subscribe to its topic. `had` names no partition twice."""
    by_topic = subscribers(members, topics)
    kept: Shares = {}
    for member in sorted(members, key=lambda member: member.rank):
        mine = member.topics
        kept[member.member_id] = [
            tp
            for tp in had.get(member.member_id, ())
            if tp.topic in mine and tp.topic in by_topic and tp.partition < topics[tp.topic].partition_count
        ]
    if len({member.topics.intersection(by_topic) for member in members}) <= 1:
        shares = _Quotas(members, topics, by_topic, kept).fill()
    else:
        shares = _Chains(topics, by_topic, kept).even_out()
    for share in shares.values():
        share.sort()
    return shares


def _free(topics: Topics, names: Iterable[str], shares: Shares) -> list[TopicPartition]:
    taken = {tp for share in shares.values() for tp in share}
    every = (TopicPartition(name, partition) for name in names for partition in range(topics[name].partition_count))
    return [tp for tp in every if tp not in taken]


class _Quotas:
    """All members subscribe to the same topics."""

    def __init__(
        self,
        members: Sequence[MemberSubscription],
        topics: Topics,
        by_topic: Mapping[str, list[MemberSubscription]],
        kept: Shares,
    ) -> None:
        self._topics = topics
        self._names = list(by_topic)
        self._shares = kept
        racks = {member.member_id: member.rack for member in members}
        known = {rack for rack in racks.values() if rack is not None}
        # By member id; empty where racks make no difference.
        self._racks = racks if uses_racks(known, (topics[name] for name in by_topic)) else {}
        total = sum(topics[name].partition_count for name in by_topic)
        self._quota, self._extra = divmod(total, max(len(members), 1))

    def fill(self) -> Shares:
        """Cut each share to its quota and deal out what is free, first by rack, then to the smallest share."""
        for member_id, share in self._shares.items():
            share.sort(key=lambda tp, member_id=member_id: (not self._matches(member_id, tp), tp))  # type: ignore[misc]
            del share[self._room(0) :]
            self._extra -= len(share) > self._quota
        free = _free(self._topics, self._names, self._shares)
        if self._racks:
            free = self._deal_by_rack(free)
        smallest = [(len(share), number, member_id) for number, (member_id, share) in enumerate(self._shares.items())]
        heapq.heapify(smallest)
        for tp in free:
            size, number, member_id = smallest[0]
            self._shares[member_id].append(tp)
            heapq.heapreplace(smallest, (size + 1, number, member_id))
        return self._shares

    def _deal_by_rack(self, free: list[TopicPartition]) -> list[TopicPartition]:
        """Give out what a member's rack has a replica of; return the rest."""
        by_rack: dict[str, list[str]] = {}
        for member_id, rack in self._racks.items():
            if rack is not None:
                by_rack.setdefault(rack, []).append(member_id)
        rest = []
        for tp in free:
            near = [one for rack in self._topics[tp.topic].racks[tp.partition] for one in by_rack.get(rack, ())]
            open_to = [one for one in near if self._room(len(self._shares[one]))]
            if not open_to:
                rest.append(tp)
                continue
            chosen = min(open_to, key=lambda one: (len(self._shares[one]), one))
            self._shares[chosen].append(tp)
            self._extra -= len(self._shares[chosen]) > self._quota
        return rest

    def _room(self, count: int) -> int:
        return max(0, self._quota + (self._extra > 0) - count)

    def _matches(self, member_id: str, tp: TopicPartition) -> bool:
        rack = self._racks.get(member_id)
        return rack is None or rack in self._topics[tp.topic].racks[tp.partition]


class _Chains:
    """Members subscribe to different topics."""

    def __init__(self, topics: Topics, by_topic: Mapping[str, list[MemberSubscription]], kept: Shares) -> None:
        self._takers = {name: [member.member_id for member in them] for name, them in by_topic.items()}
        self._racks = {member.member_id: member.rack for them in by_topic.values() for member in them}
        self._topics = topics
        self._counts = {member_id: len(share) for member_id, share in kept.items()}
        # By member and topic what it holds, the partitions it had before first: those added are the first to go.
        self._held: dict[str, dict[str, list[int]]] = {member_id: {} for member_id in kept}
        for member_id, share in kept.items():
            for topic, partition in share:
                self._held[member_id].setdefault(topic, []).append(partition)
        self._free = _free(topics, by_topic, kept)

    def even_out(self) -> Shares:
        """Give out what is free, the topics that fewest can take first, and then pass on along chains."""
        for tp in sorted(self._free, key=lambda tp: (len(self._takers[tp.topic]), tp)):
            racks = self._topics[tp.topic].racks[tp.partition]
            taker = min(
                self._takers[tp.topic],
                key=lambda one: (self._counts[one], self._racks[one] is not None and self._racks[one] not in racks),
            )
            self._held[taker].setdefault(tp.topic, []).append(tp.partition)
            self._counts[taker] += 1
        while self._pass_over_all():
            pass
        return {
            member_id: [TopicPartition(topic, each) for topic, partitions in held.items() for each in partitions]
            for member_id, held in self._held.items()
        }

    def _pass_over_all(self) -> bool:
        """Have each give what it can, the largest share first; return whether anything was moved."""
        moved = False
        # Those that can reach nobody with two fewer than they have.
        settled: set[str] = set()
        for giver in sorted(self._counts, key=lambda one: -self._counts[one]):
            while giver not in settled:
                path, reached = self._find_path(giver)
                if not path:
                    settled |= {one for one in reached if self._counts[one] <= self._counts[giver]}
                    break
                self._move(path)
                moved = True
        return moved

    def _find_path(self, giver: str) -> tuple[list[tuple[str, str, str]], set[str]]:
        """Return the shortest chain of (giver, topic, taker) to one with two fewer, and all it can reach."""
        came_from: dict[str, tuple[str, str]] = {}
        reached = {giver}
        asked_topics: set[str] = set()
        waiting = deque([giver])
        while waiting:
            member_id = waiting.popleft()
            for topic, partitions in self._held[member_id].items():
                if not partitions or topic in asked_topics:
                    continue
                asked_topics.add(topic)
                new = [taker for taker in self._takers[topic] if taker not in reached]
                reached.update(new)
                came_from.update((taker, (member_id, topic)) for taker in new)
                waiting.extend(new)
                lowest = min(new, key=self._counts.__getitem__, default=giver)
                if self._counts[lowest] + 1 < self._counts[giver]:
                    path = []
                    while lowest != giver:
                        before, by = came_from[lowest]
                        path.append((before, by, lowest))
                        lowest = before
                    return path, reached
        return [], reached

    def _move(self, path: list[tuple[str, str, str]]) -> None:
        for giver, topic, taker in path:
            self._held[taker].setdefault(topic, []).append(self._held[giver][topic].pop())
            self._counts[giver] -= 1
            self._counts[taker] += 1
