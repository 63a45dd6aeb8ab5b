"""One group of the consumer protocol (KIP-848): its members, what each has and is to have, and in which epoch.

    group epoch        moves up when members or what they subscribe to, or their topics, change: a new target is due
    assignment epoch   the group epoch that the target assignment was made for
    member epoch       the assignment epoch that the member has come to

Everything but the timers is in records and changes in `apply` alone, at load and later alike. Owned by its shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from millstream.core.groups import records
from millstream.core.groups.classic.session import Session
from millstream.core.groups.consumer.member import LEAVE_EPOCH, ConsumerMember, Owned, Target, target_of
from millstream.core.groups.group import OffsetExpiry, PartitionCheck, Record
from millstream.core.groups.timer_wheel import Timer
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.embedded_protocol import CONSUMER_PROTOCOL_TYPE

# The epoch of a group that nobody has subscribed to anything in; 0 is for members that join.
FIRST_EPOCH: Final = 1
# OffsetCommit that carries a member epoch.
OFFSET_COMMIT_WITH_EPOCH: Final = 9


class ResolvedRegex(NamedTuple):
    """The topics that a regular expression matched, in which metadata and when."""

    topics: frozenset[str]
    # Version of the cluster's metadata.
    version: int
    timestamp_ms: int


class MemberTimers:
    """What runs out on one member; volatile."""

    __slots__ = ("join", "rebalance", "session", "sync")

    def __init__(self, session: Session) -> None:
        self.session = session
        # To give up partitions.
        self.rebalance: Timer | None = None
        # Of a member of the classic protocol: to send JoinGroup, and SyncGroup after it.
        self.join: Timer | None = None
        self.sync: Timer | None = None

    def cancel(self) -> None:
        """Stop all of them."""
        self.session.cancel()
        for timer in (self.rebalance, self.join, self.sync):
            if timer is not None:
                timer.cancel()


class ConsumerGroup:
    """A group; `group.Group` says what the shard needs of it.

    States, told from members and epochs: Empty (no member) -> Assigning (the target is behind the group epoch) ->
    Reconciling (a member has not come to its target) -> Stable.
    """

    group_type: Final = "Consumer"
    protocol_type: Final = CONSUMER_PROTOCOL_TYPE

    def __init__(self, group_id: str, topic_id_of: Callable[[str], bytes | None]) -> None:
        self.group_id = group_id
        # The id that a topic's name has now.
        self._topic_id_of = topic_id_of
        # Invariant: assignment_epoch <= group_epoch.
        self.group_epoch = FIRST_EPOCH
        self.assignment_epoch = FIRST_EPOCH
        # When the target was made; 0 where none was.
        self.assignment_timestamp_ms = 0
        # Hash of the topics that the group reads, as of its epoch.
        self.metadata_hash = 0
        self.members: dict[str, ConsumerMember] = {}
        # Instance id -> member id.
        self.static_members: dict[str, str] = {}
        self.targets: dict[str, Target] = {}
        self.resolved_regexes: dict[str, ResolvedRegex] = {}
        # Members by what they subscribe to, use, or can be assigned by; counts are above 0.
        self.names: Counter[str] = Counter()
        self.regexes: Counter[str] = Counter()
        self.server_assignors: Counter[str] = Counter()
        self.classic_protocols: Counter[str] = Counter()
        self.classic_count = 0
        # Regular expressions by the topics they matched.
        self._regex_topics: Counter[str] = Counter()
        # Topic id -> partition -> the member that has it, and has not given it up.
        self._owners: dict[bytes, dict[int, str]] = {}
        # Kafka before 4.1 kept the metadata of topics in a record of its own; it is to be deleted.
        self.has_partition_metadata = False

        # Volatile: how many changes of the cluster's topics the metadata hash has seen (`ConsumerRequests`).
        self.topics_seen = -1
        # Volatile: topics were created since its regular expressions were resolved, or it was just loaded.
        self.regex_refresh_due = True
        # Volatile: a resolution of the regular expressions is under way.
        self.is_resolving = False
        # Volatile: its next target is being made in slices.
        self.is_assigning = False
        self.timers: dict[str, MemberTimers] = {}

    # What the shard asks

    @property
    def state_name(self) -> str:
        """Kafka's name of its state."""
        if not self.members:
            return "Empty"
        if self.group_epoch > self.assignment_epoch:
            return "Assigning"
        epoch = self.assignment_epoch
        return "Stable" if all(each.is_reconciled_to(epoch) for each in self.members.values()) else "Reconciling"

    def is_empty(self) -> bool:
        """Whether it has no members."""
        return not self.members

    def check_offset_commit(
        self, member_id: str, instance_id: str | None, generation: int, *, api_version: int, transactional: bool
    ) -> PartitionCheck | None:
        """See `group.Group`: a member may commit in its epoch, and in an earlier one what it has had since (KIP-1251).

        Raises KafkaError.
        """
        # An admin client, or a consumer that assigns itself.
        if generation < 0 and not self.members:
            return None
        # A transactional producer that says nothing of the consumer.
        if transactional and generation == LEAVE_EPOCH and member_id == "" and instance_id is None:
            return None
        member = self.member(member_id)
        if not transactional and not member.is_classic and api_version < OFFSET_COMMIT_WITH_EPOCH:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION,
                "OffsetCommit version 9 or above must be used by members using the consumer group protocol",
            )
        if generation == member.member_epoch:
            return None
        stale, word = ErrorCode.STALE_MEMBER_EPOCH, "member epoch"
        if member.is_classic:
            stale, word = ErrorCode.ILLEGAL_GENERATION, "generation id"
        if generation > member.member_epoch:
            raise KafkaError(
                stale, f"Received {word} {generation} is newer than current member epoch {member.member_epoch}."
            )

        def check(topic: str, partition: int) -> None:
            topic_id = self._topic_id_of(topic)
            epoch = None if topic_id is None else member.owns(topic_id, partition)
            if epoch is None:
                raise KafkaError(
                    stale, f"Partition {topic}-{partition} is not assigned or pending revocation for member."
                )
            if generation < epoch:
                raise KafkaError(
                    stale,
                    f"Received {word} {generation} is older than assignment epoch {epoch} for partition "
                    f"{topic}-{partition}.",
                )

        return check

    def handle_offset_commit(self, member_id: str, now_ms: int) -> None:
        """A commit is no sign of life in this protocol."""

    def check_offset_fetch(self, member_id: str | None, member_epoch: int) -> None:
        """Raise KafkaError unless this member, in this epoch, may read offsets; (None, -1) always may."""
        if member_id is None and member_epoch < 0:
            return
        member = self.member(member_id or "")
        if member_epoch == member.member_epoch:
            return
        if member.is_classic:
            raise KafkaError(
                ErrorCode.ILLEGAL_GENERATION,
                f"The received generation id {member_epoch} does not match the expected member epoch "
                f"{member.member_epoch}.",
            )
        raise KafkaError(
            ErrorCode.STALE_MEMBER_EPOCH,
            f"The received member epoch {member_epoch} does not match the expected member epoch {member.member_epoch}.",
        )

    def check_offset_delete(self) -> None:
        """Offsets of topics that nobody reads may always be deleted."""

    def check_delete(self) -> None:
        """Raise KafkaError while it has members."""
        if self.members:
            raise KafkaError(ErrorCode.NON_EMPTY_GROUP)

    def is_subscribed(self, topic: str) -> bool:
        """Whether a member reads this topic."""
        return topic in self.names or topic in self._regex_topics

    def offset_expiry(self) -> OffsetExpiry | None:
        """Offsets expire by their own age; topics with subscribers are held back by `is_subscribed`."""
        return OffsetExpiry(lambda commit_timestamp_ms: commit_timestamp_ms)

    def tombstones(self) -> list[Record]:
        """Return the records that delete all that is in the log of it."""
        group_id = self.group_id
        return [
            *((records.ConsumerGroupCurrentMemberAssignmentKey(group_id=group_id, member_id=each), None)
              for each in self.members),
            *((records.ConsumerGroupTargetAssignmentMemberKey(group_id=group_id, member_id=each), None)
              for each in {**self.members, **self.targets}),
            (records.ConsumerGroupTargetAssignmentMetadataKey(group_id=group_id), None),
            *((records.ConsumerGroupMemberMetadataKey(group_id=group_id, member_id=each), None)
              for each in self.members),
            *((records.ConsumerGroupRegularExpressionKey(group_id=group_id, regular_expression=each), None)
              for each in self.resolved_regexes),
            *([(records.ConsumerGroupPartitionMetadataKey(group_id=group_id), None)]
              if self.has_partition_metadata else []),
            (records.ConsumerGroupMetadataKey(group_id=group_id), None),
        ]  # fmt: skip

    def close(self) -> None:
        """Cancel its timers."""
        for timers in self.timers.values():
            timers.cancel()
        self.timers.clear()

    # What requests ask

    def member(self, member_id: str) -> ConsumerMember:
        """Return a member; raises KafkaError UNKNOWN_MEMBER_ID."""
        member = self.members.get(member_id)
        if member is None:
            raise KafkaError(
                ErrorCode.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a member of group {self.group_id}."
            )
        return member

    def static_member(self, instance_id: str | None) -> ConsumerMember | None:
        """Return the member of an instance id."""
        member_id = None if instance_id is None else self.static_members.get(instance_id)
        return None if member_id is None else self.members.get(member_id)

    def owner_of(self, topic_id: bytes, partition: int) -> str | None:
        """Return the member that has a partition and has not given it up."""
        owners = self._owners.get(topic_id)
        return None if owners is None else owners.get(partition)

    def target_of(self, member: ConsumerMember) -> Target:
        """Return what a member is to have; a static member has that of whom it follows."""
        member_id = member.member_id
        if member.instance_id is not None:
            member_id = self.static_members.get(member.instance_id, "")
        return self.targets.get(member_id, _NO_TARGET)

    def subscribed_topics(self) -> Iterable[str]:
        """Return the names of all topics that a member reads."""
        return {**self.names, **self._regex_topics} if self._regex_topics else self.names.keys()

    def subscribed_topics_without(
        self, gone: Iterable[ConsumerMember], added: Iterable[ConsumerMember] = (), *, regexes_gone: Iterable[str] = ()
    ) -> Iterable[str]:
        """Return the names of all topics that are read once `gone` have gone and `added` have come."""
        names = self.names.copy()
        for member in gone:
            names.subtract(member.subscribed_topic_names)
        for member in added:
            names.update(member.subscribed_topic_names)
        topics = {name for name, count in names.items() if count > 0}
        dropped = set(regexes_gone)
        for regex, resolved in self.resolved_regexes.items():
            if regex not in dropped:
                topics |= resolved.topics
        return topics

    def topics_of(self, member: ConsumerMember) -> frozenset[str]:
        """Return the names of the topics that a member reads; a regular expression without a result matches none."""
        resolved = self.resolved_regexes.get(member.subscribed_topic_regex) if member.subscribed_topic_regex else None
        if resolved is None:
            return member.subscribed_topic_names
        return member.subscribed_topic_names | resolved.topics

    def is_target_due(self, now_ms: int, interval_ms: int) -> bool:
        """Whether a new target may be made already: at most one per interval (KIP-1263), the first at once."""
        return (
            not interval_ms or not self.assignment_timestamp_ms or now_ms >= self.assignment_timestamp_ms + interval_ms
        )

    def preferred_assignor(self, old: ConsumerMember | None = None, new: ConsumerMember | None = None) -> str | None:
        """Return the assignor that most members ask for, with `old` become `new`."""
        counts = self.server_assignors
        if old is not None and old.member_id in self.members and old.server_assignor is not None:
            counts = counts - Counter([old.server_assignor])
        if new is not None and new.server_assignor is not None:
            counts = counts + Counter([new.server_assignor])
        return max(counts, key=counts.__getitem__) if counts else None

    @property
    def regexes_resolved_at_ms(self) -> int | None:
        """When regular expressions were resolved last; None where none ever was."""
        return max((each.timestamp_ms for each in self.resolved_regexes.values()), default=None)

    @property
    def regexes_version(self) -> int:
        """The metadata version that the regular expressions were resolved in last."""
        return max((each.version for each in self.resolved_regexes.values()), default=-1)

    # Records

    def apply(self, key: Any, value: Any) -> None:
        """Change as a record says; one of `records.ConsumerGroup*Key`, and its value or None."""
        self._APPLY[type(key)](self, key, value)

    def _apply_epoch(self, _: Any, value: records.ConsumerGroupMetadataValue | None) -> None:
        if value is not None:
            self.group_epoch = value.epoch
            self.metadata_hash = value.metadata_hash

    def _apply_partition_metadata(self, _: Any, value: object | None) -> None:
        self.has_partition_metadata = value is not None

    def _apply_member(
        self,
        key: records.ConsumerGroupMemberMetadataKey,
        value: records.ConsumerGroupMemberMetadataValue | None,
    ) -> None:
        old = self.members.get(key.member_id)
        if value is not None:
            self._update(old, (old or ConsumerMember(key.member_id)).with_metadata(value))
        elif old is not None:
            self._update(old, None)

    def _apply_target_epoch(self, _: Any, value: records.ConsumerGroupTargetAssignmentMetadataValue | None) -> None:
        if value is None:
            self.assignment_epoch, self.assignment_timestamp_ms = FIRST_EPOCH, 0
        else:
            self.assignment_epoch, self.assignment_timestamp_ms = value.assignment_epoch, value.assignment_timestamp

    def _apply_target(
        self,
        key: records.ConsumerGroupTargetAssignmentMemberKey,
        value: records.ConsumerGroupTargetAssignmentMemberValue | None,
    ) -> None:
        if value is None:
            self.targets.pop(key.member_id, None)
        else:
            self.targets[key.member_id] = target_of(value)

    def _apply_current(
        self,
        key: records.ConsumerGroupCurrentMemberAssignmentKey,
        value: records.ConsumerGroupCurrentMemberAssignmentValue | None,
    ) -> None:
        old = self.members.get(key.member_id)
        if value is not None:
            self._update(old, (old or ConsumerMember(key.member_id)).with_current(value))
        elif old is not None:
            gone = replace(
                old, member_epoch=LEAVE_EPOCH, previous_member_epoch=LEAVE_EPOCH, assigned={}, pending_revocation={}
            )
            self._update(old, gone)

    def _apply_regex(
        self,
        key: records.ConsumerGroupRegularExpressionKey,
        value: records.ConsumerGroupRegularExpressionValue | None,
    ) -> None:
        old = self.resolved_regexes.pop(key.regular_expression, None)
        if old is not None:
            _count(self._regex_topics, old.topics, -1)
        if value is not None:
            resolved = ResolvedRegex(frozenset(value.topics), value.version, value.timestamp)
            self.resolved_regexes[key.regular_expression] = resolved
            _count(self._regex_topics, resolved.topics, 1)

    _APPLY: Final[Mapping[type[Any], Callable[[ConsumerGroup, Any, Any], None]]] = {
        records.ConsumerGroupMetadataKey: _apply_epoch,
        records.ConsumerGroupPartitionMetadataKey: _apply_partition_metadata,
        records.ConsumerGroupMemberMetadataKey: _apply_member,
        records.ConsumerGroupTargetAssignmentMetadataKey: _apply_target_epoch,
        records.ConsumerGroupTargetAssignmentMemberKey: _apply_target,
        records.ConsumerGroupCurrentMemberAssignmentKey: _apply_current,
        records.ConsumerGroupRegularExpressionKey: _apply_regex,
    }

    def _update(self, old: ConsumerMember | None, new: ConsumerMember | None) -> None:
        """Put a member, or take it away, with all that is counted of it."""
        if old is not None:
            self._count(old, -1)
            self._release(old.member_id, old.assigned)
            self._release(old.member_id, old.pending_revocation)
            if old.instance_id is not None and self.static_members.get(old.instance_id) == old.member_id:
                del self.static_members[old.instance_id]
            del self.members[old.member_id]
        if new is not None:
            self._count(new, 1)
            self._take(new.member_id, new.assigned)
            self._take(new.member_id, new.pending_revocation)
            if new.instance_id is not None:
                self.static_members[new.instance_id] = new.member_id
            self.members[new.member_id] = new

    def _count(self, member: ConsumerMember, by: int) -> None:
        _count(self.names, member.subscribed_topic_names, by)
        if member.subscribed_topic_regex:
            _count(self.regexes, (member.subscribed_topic_regex,), by)
        if member.server_assignor is not None:
            _count(self.server_assignors, (member.server_assignor,), by)
        if member.is_classic:
            self.classic_count += by
            _count(self.classic_protocols, member.classic_protocols, by)

    def _take(self, member_id: str, owned: Owned) -> None:
        for topic_id, partitions in owned.items():
            self._owners.setdefault(topic_id, {}).update(dict.fromkeys(partitions, member_id))

    def _release(self, member_id: str, owned: Owned) -> None:
        # While a log that was compacted is replayed, a partition may have been taken before it was released.
        for topic_id, partitions in owned.items():
            owners = self._owners.get(topic_id)
            if owners is None:
                continue
            for partition in partitions:
                if owners.get(partition) == member_id:
                    del owners[partition]
            if not owners:
                del self._owners[topic_id]


_NO_TARGET: Final[Target] = {}


def _count(counter: Counter[str], names: Iterable[str], by: int) -> None:
    for name in names:
        count = counter[name] + by
        if count > 0:
            counter[name] = count
        else:
            counter.pop(name, None)
