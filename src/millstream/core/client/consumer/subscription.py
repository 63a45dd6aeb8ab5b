"""What a consumer reads: what the application subscribed to, and the partitions assigned to it, by hand or by a group.

Sans-I/O; owned by the loop. One kind of subscription holds at a time; another needs `unsubscribe` first, as in Kafka.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Final, NamedTuple

from millstream.core.client.cluster import NO_NODE, Cluster, TopicPartition, check_topic_name
from millstream.core.client.consumer.errors import ConsumerStateError
from millstream.core.client.consumer.partition_state import AssignedPartition, Position

_INT32_MAX: Final = 2**31 - 1


class TopicPattern(NamedTuple):
    """A pattern of RE2 syntax that whole topic names must match. With KIP-848 the broker applies it (KIP-848)."""

    pattern: str


class SubscriptionKind(Enum):
    """How the assignment comes about."""

    NONE = "nothing"
    TOPICS = "topics subscribed to"
    PATTERN = "topics of a pattern"
    BY_HAND = "partitions assigned by hand"


class SubscriptionState:
    """The subscription and the assigned partitions, in the order in which they take turns."""

    def __init__(self) -> None:
        self.kind = SubscriptionKind.NONE
        # The topics given, or those that the pattern matches now.
        self.topics: frozenset[str] = frozenset()
        self.pattern: re.Pattern[str] | TopicPattern | None = None
        # Those that had their turn last stand at the end.
        self._assigned: dict[TopicPartition, AssignedPartition] = {}
        # Kept, as they are asked for all the time and change rarely.
        self._names: frozenset[TopicPartition] = frozenset()
        self._topics_assigned: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[AssignedPartition]:
        return iter(self._assigned.values())

    def __len__(self) -> int:
        return len(self._assigned)

    def __contains__(self, tp: object) -> bool:
        return tp in self._assigned

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """The partitions assigned now."""
        return self._names

    @property
    def assigned_topics(self) -> frozenset[str]:
        """Their topics."""
        return self._topics_assigned

    def find(self, tp: TopicPartition) -> AssignedPartition | None:
        """Return the state of `tp`, None where it is not assigned."""
        return self._assigned.get(tp)

    def get(self, tp: TopicPartition) -> AssignedPartition:
        """Return the state of `tp`. Raises ConsumerStateError where it is not assigned."""
        found = self._assigned.get(tp)
        if found is None:
            raise ConsumerStateError(f"{tp} is not assigned to this consumer")
        return found

    def subscribe_topics(self, topics: Iterable[str]) -> None:
        """Have a group assign partitions of `topics`. Raises TypeError, KafkaError for what is no name."""
        wanted = frozenset(topics)
        for topic in wanted:
            check_topic_name(topic)
        self._become(SubscriptionKind.TOPICS)
        self.topics = wanted

    def subscribe_pattern(self, pattern: re.Pattern[str] | TopicPattern) -> None:
        """Have a group assign partitions of topics that match."""
        self._become(SubscriptionKind.PATTERN)
        self.pattern = pattern

    def assign_by_hand(self, tps: Iterable[TopicPartition]) -> None:
        """Read exactly these; those that were assigned before keep their state.

        Raises TypeError, KafkaError for what is no topic's name, ValueError for what is no partition's number.
        """
        wanted = list(tps)
        for topic, partition in wanted:
            check_topic_name(topic)
            if not 0 <= partition <= _INT32_MAX:
                raise ValueError(f"topic {topic!r}: {partition} is no partition's number")
        self._become(SubscriptionKind.BY_HAND)
        self.set_assigned(wanted)

    def unsubscribe(self) -> None:
        """Read nothing."""
        self.kind = SubscriptionKind.NONE
        self.topics, self.pattern = frozenset(), None
        self.set_assigned(())

    def set_assigned(self, tps: Iterable[TopicPartition]) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """Make `tps` the assignment; return those added and those removed."""
        wanted = [TopicPartition.of(tp) for tp in tps]
        before = self._assigned
        self._assigned = {tp: before.get(tp) or AssignedPartition(tp) for tp in dict.fromkeys(wanted)}
        self._names = frozenset(self._assigned)
        self._topics_assigned = frozenset(tp.topic for tp in self._names)
        return [tp for tp in self._assigned if tp not in before], [tp for tp in before if tp not in self._assigned]

    def move_to_end(self, tp: TopicPartition) -> None:
        """Let the others have their turn first: `tp` has just got something."""
        state = self._assigned.pop(tp, None)
        if state is not None:
            self._assigned[tp] = state

    def handle_cluster(self, cluster: Cluster) -> list[TopicPartition]:
        """Take leaders and epochs from metadata; return the partitions that exist no longer or have no leader."""
        missing = []
        for tp, state in self._assigned.items():
            topic = cluster.topics.get(tp.topic)
            info = None
            if topic is not None:
                info = next((one for one in topic.partitions if one.partition == tp.partition), None)
            if topic is None or info is None:
                missing.append(tp)
                continue
            state.handle_topic_id(topic.topic_id)
            leader = info.leader if info.leader in cluster.brokers else NO_NODE
            if leader == NO_NODE:
                missing.append(tp)
            state.handle_leader(leader, info.leader_epoch)
        return missing

    def positions(self) -> Mapping[TopicPartition, Position]:
        """Return where each partition that has a position stands: what a commit would say."""
        return {tp: state.position for tp, state in self._assigned.items() if state.position is not None}

    def _become(self, kind: SubscriptionKind) -> None:
        if self.kind not in (SubscriptionKind.NONE, kind):
            raise ConsumerStateError(
                f"this consumer reads {self.kind.value}, and cannot read {kind.value} as well: unsubscribe first"
            )
        self.kind = kind
