"""One request of one member, worked out: what it changes of the member, of the group's epoch and target, as records.

The steps are the same whether the member speaks the consumer protocol or the classic one (KIP-848):

    find or make the member -> what it subscribes to -> a new group epoch? -> a new target? -> its next step toward it

Nothing is changed here: the records are applied once all of them are known, or the request fails and none is.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.groups.consumer.member import (
    JOIN_EPOCH,
    STATIC_LEAVE_EPOCH,
    ConsumerMember,
    Target,
    target_value,
)
from millstream.core.groups.consumer.reconciliation import TopicPartitions, reconcile
from millstream.core.groups.consumer.regexes import check_regex
from millstream.core.groups.consumer.target_assignment import TopicIds, assignment_records, compute_assignment
from millstream.core.groups.consumer.target_refresh import is_large
from millstream.core.groups.consumer.topic_hash import topics_hash
from millstream.core.groups.group import Record
from millstream.core.groups.records import (
    ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue,
    ConsumerGroupPartitionMetadataKey,
    ConsumerGroupRegularExpressionKey,
    ConsumerGroupTargetAssignmentMemberKey,
)
from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.groups.shard import GroupShard


class SubscriptionChange(NamedTuple):
    """What a request changed of a member's subscription."""

    # It reads other topics, or another regular expression.
    any: bool
    # That is known already, so that a new target can be made now; a new regular expression is resolved first.
    known: bool


class MemberUpdate:
    """The work on one request; `records` are what it takes."""

    def __init__(self, shard: GroupShard, group: ConsumerGroup, records: list[Record], now_ms: int) -> None:
        self._shard = shard
        self._group = group
        self._now_ms = now_ms
        self.records = records
        # The group's epoch once the records are applied.
        self.group_epoch = group.group_epoch
        # The static member that this one takes the place of.
        self.replaced: ConsumerMember | None = None

    # The member

    def find_member(
        self, member_id: str, instance_id: str | None, *, is_joining: bool, takes_over: bool
    ) -> ConsumerMember:
        """Return the member, a new one where it joins.

        `takes_over`: the member before it need not have left, since one of the two speaks the classic protocol.
        Raises KafkaError.
        """
        group = self._group
        if instance_id is None:
            member = group.members.get(member_id)
            return member if member is not None else self._new(member_id, is_joining=is_joining)
        existing = group.static_member(instance_id)
        if not is_joining:
            return check_static_member(existing, member_id, instance_id)
        if existing is None:
            return group.members.get(member_id) or ConsumerMember(member_id)
        if not takes_over and not existing.is_classic and existing.member_epoch != STATIC_LEAVE_EPOCH:
            raise KafkaError(
                ErrorCode.UNRELEASED_INSTANCE_ID,
                f"Static member {member_id} with instance id {instance_id} cannot join the group because the instance "
                f"id is owned by {existing.member_id} member.",
            )
        return self._replace(existing, member_id)

    def _new(self, member_id: str, *, is_joining: bool) -> ConsumerMember:
        return ConsumerMember(member_id) if is_joining else self._group.member(member_id)

    def _replace(self, existing: ConsumerMember, member_id: str) -> ConsumerMember:
        group_id = self._group.group_id
        self.replaced = existing
        member = replace(existing, member_id=member_id, member_epoch=JOIN_EPOCH, previous_member_epoch=JOIN_EPOCH)
        self.records += member_tombstones(group_id, existing.member_id)
        self.records += [
            (ConsumerGroupMemberMetadataKey(group_id=group_id, member_id=member_id), member.metadata_value()),
            (
                ConsumerGroupTargetAssignmentMemberKey(group_id=group_id, member_id=member_id),
                target_value(self._group.targets.get(existing.member_id, {})),
            ),
            (ConsumerGroupCurrentMemberAssignmentKey(group_id=group_id, member_id=member_id), member.current_value()),
        ]
        return member

    # What it subscribes to

    def change_subscription(self, member: ConsumerMember, updated: ConsumerMember) -> SubscriptionChange:
        """Record what the member says of itself, where that is new. Raises KafkaError for a bad expression."""
        group = self._group
        if updated is not member and updated != member:
            key = ConsumerGroupMemberMetadataKey(group_id=group.group_id, member_id=updated.member_id)
            self.records.append((key, updated.metadata_value()))
        known = updated.subscribed_topic_names != member.subscribed_topic_names
        old, new = member.subscribed_topic_regex, updated.subscribed_topic_regex
        if old == new:
            return SubscriptionChange(any=known, known=known)
        if old and group.regexes[old] == 1:
            key_of_old = ConsumerGroupRegularExpressionKey(group_id=group.group_id, regular_expression=old)
            self.records.append((key_of_old, None))
        if not new:
            known = True
        elif new not in group.regexes:
            check_regex(new)
        elif new in group.resolved_regexes:
            known = True
        return SubscriptionChange(any=True, known=known)

    # The group's epoch

    def refresh_epoch(self, member: ConsumerMember, updated: ConsumerMember, *, bump: bool) -> None:
        """Give the group its next epoch where its members changed (`bump`), or its topics did."""
        group = self._group
        before = [each for each in (self.replaced or member,) if each.member_id in group.members]
        regex = member.subscribed_topic_regex
        unused = regex and regex != updated.subscribed_topic_regex and group.regexes[regex] == 1
        if not before or before[0].subscribed_topic_names != updated.subscribed_topic_names or unused:
            topics = group.subscribed_topics_without(before, (updated,), regexes_gone=(regex,) if unused else ())
        else:
            topics = group.subscribed_topics()
        self.bump_epoch(topics_hash(topics, self._shard.image), bump=bump)

    def bump_epoch(self, metadata_hash: int, *, bump: bool) -> None:
        """Give the group its next epoch if `bump`, or if the hash of its topics is another."""
        group = self._group
        if bump or metadata_hash != group.metadata_hash:
            self.group_epoch = group.group_epoch + 1
            self.records.append(
                (
                    ConsumerGroupMetadataKey(group_id=group.group_id),
                    ConsumerGroupMetadataValue(epoch=self.group_epoch, metadata_hash=metadata_hash),
                )
            )
        if group.has_partition_metadata:
            self.records.append((ConsumerGroupPartitionMetadataKey(group_id=group.group_id), None))

    # The target, and the way to it

    def refresh_target(self, member: ConsumerMember, updated: ConsumerMember, interval_ms: int) -> tuple[int, Target]:
        """Make a new target where the group's epoch is ahead of it, at most one per interval (KIP-1263).

        Returns the epoch of the target that holds now, and what the member is to have. The target of a large group is
        made behind the request (`TargetRefresh`).
        """
        group = self._group
        if (
            self.group_epoch <= group.assignment_epoch
            or not group.is_target_due(self._now_ms, interval_ms)
            or group.is_assigning
            or is_large(group, self._shard.image, self.replaced or member, updated)
        ):
            return group.assignment_epoch, group.target_of(updated)
        assignors = self._shard.configs.consumer_assignors
        preferred = group.preferred_assignor(self.replaced or member, updated)
        # An assignor that the operator took away meanwhile is not used, though members ask for it.
        assignor = preferred if preferred in assignors else assignors[0]
        assignment = compute_assignment(group, updated, assignor, self._shard.image)
        self.records += assignment_records(group, assignment, self.group_epoch, self._now_ms)
        return self.group_epoch, assignment[updated.member_id]

    def reconcile(
        self,
        member: ConsumerMember,
        target_epoch: int,
        target: Target,
        *,
        subscription_changed: bool,
        owned: Iterable[TopicPartitions] | None,
    ) -> ConsumerMember:
        """Return the member after its next step toward the target."""
        if not subscription_changed and member.is_reconciled_to(target_epoch):
            return member
        group = self._group
        after = reconcile(
            member,
            target_epoch=target_epoch,
            target=target,
            subscription_changed=subscription_changed,
            subscribed=self._subscribed_ids(member),
            owner_of=group.owner_of,
            owned=owned,
        )
        if after is not member and after != member:
            key = ConsumerGroupCurrentMemberAssignmentKey(group_id=group.group_id, member_id=member.member_id)
            self.records.append((key, after.current_value()))
        return after

    def _subscribed_ids(self, member: ConsumerMember) -> Container[bytes]:
        return TopicIds(self._shard.image).of(self._group.topics_of(member))


def check_static_member(existing: ConsumerMember | None, member_id: str, instance_id: str) -> ConsumerMember:
    """Return the member of an instance id; raises KafkaError unless it has this member id."""
    if existing is None:
        raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")
    if existing.member_id != member_id:
        raise KafkaError(
            ErrorCode.FENCED_INSTANCE_ID,
            f"Static member {member_id} with instance id {instance_id} was fenced by member {existing.member_id}.",
        )
    return existing


def member_tombstones(group_id: str, member_id: str) -> list[Record]:
    """Return the records that take a member away; what it has goes first."""
    return [
        (ConsumerGroupCurrentMemberAssignmentKey(group_id=group_id, member_id=member_id), None),
        (ConsumerGroupTargetAssignmentMemberKey(group_id=group_id, member_id=member_id), None),
        (ConsumerGroupMemberMetadataKey(group_id=group_id, member_id=member_id), None),
    ]
