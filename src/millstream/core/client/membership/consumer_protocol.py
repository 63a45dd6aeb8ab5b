"""The protocol of consumers in a classic group: subscriptions up, assignments down (ConsumerProtocol 0-3).

Eager: everything is given up before a join. Cooperative (KIP-429): what a member holds it keeps through the rebalance;
what the new assignment takes away it gives up after it, and joins again so that others can have it. Which of the two is
decided by the assignors in the list: cooperative only where all of them allow it.

The leader remembers what the topics looked like when it assigned; once they look different the group shares anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.membership.assignors import Assignor, MemberSubscription, RebalanceProtocol, Topics
from millstream.core.client.membership.effects import Call, CallKind
from millstream.core.client.membership.group_protocol import JoinedMember, Taken
from millstream.core.client.membership.machine import NO_GENERATION
from millstream.core.config.definition import ConfigError
from millstream.core.wire import ErrorCode, KafkaError, WireError
from millstream.core.wire.embedded_protocol import (
    CONSUMER_PROTOCOL_TYPE,
    EMBEDDED_VERSION_MAX,
    ConsumerAssignment,
    OwnedTopic,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)

_logger: Final = logging.getLogger(__name__)


class ConsumerProtocol:
    """What one consumer says, has and is told. Owned by its ClassicMember, but for `subscribe`."""

    protocol_type: Final = CONSUMER_PROTOCOL_TYPE

    def __init__(self, assignors: Sequence[Assignor], *, rack: str | None = None) -> None:
        """Raises ConfigError for assignors that cannot stand in one list."""
        if not assignors:
            raise ConfigError("A group needs an assignor", name="partition.assignment.strategy")
        self._assignors = {assignor.name: assignor for assignor in assignors}
        if len(self._assignors) < len(assignors):
            raise ConfigError("Two assignors have the same name", name="partition.assignment.strategy")
        common = set(RebalanceProtocol).intersection(*(assignor.protocols for assignor in assignors))
        if not common:
            raise ConfigError(
                f"{', '.join(self._assignors)} have no way to rebalance in common", name="partition.assignment.strategy"
            )
        self.is_cooperative = max(common) is RebalanceProtocol.COOPERATIVE
        self._rack = rack
        # Names of the topics it wants to read, and those it said it wants when it last joined.
        self.topics: frozenset[str] = frozenset()
        self._joined_topics: frozenset[str] | None = None
        # What it has, and the generation it was given that in. During a REVOKED or LOST call it still has it.
        self.owned: frozenset[TopicPartition] = frozenset()
        self._generation = NO_GENERATION
        # On the leader: topics of any member, and how they looked when it assigned, or when it was first told of them.
        self._group_topics: frozenset[str] = frozenset()
        self._assigned_topics: Topics | None = None
        self._group_has_racks = False

    def subscribe(self, topics: Iterable[str]) -> None:
        """Want to read these from now on; the group learns of it by a rejoin."""
        self.topics = frozenset(topics)

    @property
    def group_topics(self) -> frozenset[str]:
        """On the leader, what any member reads."""
        return self._group_topics

    # JoinGroup.

    def offers(self) -> list[tuple[str, bytes]]:
        """Return the subscription, once for each assignor with what that wants to say."""
        self._joined_topics = self.topics
        owned: dict[str, OwnedTopic] = {}
        for topic, partition in sorted(self.owned):
            owned.setdefault(topic, OwnedTopic(topic=topic)).partitions.append(partition)
        return [
            (
                name,
                encode_subscription(
                    Subscription(
                        topics=sorted(self.topics),
                        user_data=assignor.user_data(self.topics),
                        owned_partitions=list(owned.values()),
                        generation_id=self._generation,
                        rack_id=self._rack,
                    ),
                    EMBEDDED_VERSION_MAX,
                ),
            )
            for name, assignor in self._assignors.items()
        ]

    def before_join(self, *, is_lost: bool) -> Call | None:
        """All of it where it is lost or the group is eager; else what it does not want to read any more."""
        if is_lost:
            return _call(CallKind.LOST, self.owned)
        if self.is_cooperative:
            return _call(CallKind.REVOKED, frozenset(tp for tp in self.owned if tp.topic not in self.topics))
        return _call(CallKind.REVOKED, self.owned)

    def before_leave(self, *, is_lost: bool) -> Call | None:
        """All of it."""
        return _call(CallKind.LOST if is_lost else CallKind.REVOKED, self.owned)

    # On the leader.

    def topics_to_know(self, _name: str, members: Sequence[JoinedMember]) -> frozenset[str]:
        """Return what any member subscribes to."""
        subscriptions = list(map(_subscription, members))
        self._group_topics = frozenset[str]().union(*(one.topics for one in subscriptions))
        self._group_has_racks = any(one.rack is not None for one in subscriptions)
        self._assigned_topics = None
        return self._group_topics

    def assign(self, name: str, members: Sequence[JoinedMember], topics: Topics) -> Mapping[str, bytes]:
        """Have the assignor share the partitions. Raises KafkaError for shares that can't be."""
        assignor = self._assignors.get(name)
        if assignor is None:
            raise KafkaError(
                ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
                f"the group chose assignor {name!r}, and this member has {', '.join(self._assignors)}",
            )
        subscriptions = list(map(_subscription, members))
        shares = assignor.assign(subscriptions, topics)
        _check(name, subscriptions, shares, is_cooperative=self.is_cooperative)
        self._assigned_topics = self._view(topics)
        return {member.member_id: _encoded(shares.get(member.member_id, ())) for member in members}

    def _view(self, topics: Topics) -> Topics:
        """What of the topics an assignment depends on: racks only where members have some."""
        seen = {name: topics[name] for name in self._group_topics if name in topics}
        if self._group_has_racks:
            return seen
        return {name: type(layout).of(layout.partition_count) for name, layout in seen.items()}

    # SyncGroup.

    def take(self, name: str, generation: int, assignment: bytes) -> Taken:
        """Give up what is not in it, have what is; one that does not fit the subscription is not taken."""
        decoded = decode_assignment(assignment)
        given = frozenset(
            TopicPartition(one.topic, each) for one in decoded.assigned_partitions for each in one.partitions
        )
        foreign = sorted({tp.topic for tp in given} - self.topics)
        if foreign:
            return Taken((), f"the assignment has topics not subscribed to: {', '.join(foreign)[:200]}")
        self._generation = generation
        self._assignors[name].on_assignment(given, generation)
        revoked = self.owned - given
        added = Call(CallKind.ASSIGNED, given - self.owned)
        if not revoked:
            return Taken((added,))
        return Taken((Call(CallKind.REVOKED, revoked), added), f"gave up {len(revoked)} partitions for others to have")

    def handle_calling(self, call: Call) -> None:
        """From here on it has what it is told to have."""
        if call.kind is CallKind.ASSIGNED:
            self.owned |= call.what

    def handle_called(self, call: Call) -> None:
        """It has let go of what it was told to."""
        if call.kind is not CallKind.ASSIGNED:
            self.owned -= call.what
            if not self.owned:
                self._generation = NO_GENERATION

    def wants_rejoin(self, topics: Topics | None, *, is_leader: bool) -> str | None:
        """Say whether the subscription changed, or the topics did under the leader's assignment."""
        if self._joined_topics is not None and self._joined_topics != self.topics:
            return "the subscription has changed"
        if is_leader and topics is not None:
            now = self._view(topics)
            if self._assigned_topics is None:
                self._assigned_topics = now  # it leads a group whose assignment stands (KIP-814)
            for name in sorted(now.keys() | self._assigned_topics.keys()):
                if now.get(name) != self._assigned_topics.get(name):
                    return f"partitions of topic {name} have changed"
        return None


def _call(kind: CallKind, partitions: frozenset[TopicPartition]) -> Call | None:
    return Call(kind, partitions) if partitions else None


def _subscription(member: JoinedMember) -> MemberSubscription:
    """Read what a member says. One that nobody can read takes part with nothing, rather than stop the whole group."""
    try:
        told = decode_subscription(member.metadata)
    except WireError as error:
        _logger.warning("member %s gets no partitions: its subscription can't be read: %s", member.member_id, error)
        told = Subscription()
    return MemberSubscription(
        member_id=member.member_id,
        topics=frozenset(told.topics),
        instance_id=member.instance_id,
        rack=told.rack_id,
        owned=tuple(TopicPartition(one.topic, each) for one in told.owned_partitions for each in one.partitions),
        generation=told.generation_id,
        user_data=None if told.user_data is None else bytes(told.user_data),
    )


def _check(
    name: str,
    members: Sequence[MemberSubscription],
    shares: Mapping[str, Sequence[TopicPartition]],
    *,
    is_cooperative: bool,
) -> None:
    """Raise KafkaError for what a faulty assignor makes: two owners of a partition, now or until one lets go."""
    holders = {tp: member.member_id for member in members for tp in member.owned} if is_cooperative else {}
    keeps = {(member.member_id, tp) for member in members for tp in member.owned}
    known = {member.member_id for member in members}
    owners: dict[TopicPartition, str] = {}
    for member_id, share in shares.items():
        wrong = None
        if member_id not in known:
            wrong = f"gives partitions to {member_id!r}, who is no member"
        for tp in share:
            if owners.setdefault(tp, member_id) != member_id:
                wrong = f"gives {tp} to two members"
            elif holders.get(tp, member_id) != member_id and (member_id, tp) not in keeps:
                wrong = f"gives {tp} to a member before {holders[tp]} has let go of it"
        if wrong is not None:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"assignor {name!r} {wrong}")


def _encoded(share: Iterable[TopicPartition]) -> bytes:
    topics: dict[str, OwnedTopic] = {}
    for topic, partition in sorted(share):
        topics.setdefault(topic, OwnedTopic(topic=topic)).partitions.append(partition)
    return encode_assignment(ConsumerAssignment(assigned_partitions=list(topics.values())), EMBEDDED_VERSION_MAX)
