"""Groups that move between the classic and the consumer protocol while they have members (KIP-848).

    upgrade     a member of the consumer protocol joins a classic group of consumers: all live on in a consumer group
    downgrade   the last member of the consumer protocol goes, or a static member comes back in the classic one: what is
                left is a classic group again

`group.consumer.migration.policy` says which of the two may happen. Either is one batch of records: those that delete
the old group and those that make the new one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from millstream.core.groups.classic.group import ClassicGroup
from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.groups.consumer.member import ConsumerMember, Target, target_value
from millstream.core.groups.consumer.member_update import member_tombstones
from millstream.core.groups.consumer.topic_hash import topics_hash
from millstream.core.groups.group import Group, Record
from millstream.core.groups.records import (
    ClassicMemberMetadata,
    ClassicProtocol,
    ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue,
    ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMetadataValue,
    GroupMetadataKey,
    GroupMetadataValue,
    MemberMetadata,
)
from millstream.core.wire import ErrorCode, KafkaError, WireError
from millstream.core.wire.embedded_protocol import (
    CONSUMER_PROTOCOL_TYPE,
    ConsumerAssignment,
    OwnedTopic,
    decode_assignment,
    decode_subscription,
    embedded_version,
    encode_assignment,
)

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterImage
    from millstream.core.groups.classic.member import ClassicMember
    from millstream.core.groups.shard import GroupShard

_log = logging.getLogger(__name__)

_UPGRADING: Final = frozenset({"upgrade", "bidirectional"})
_DOWNGRADING: Final = frozenset({"downgrade", "bidirectional"})


class Upgrade:
    """A classic group as a group of the consumer protocol: `group`, made by `records` and not in the shard yet.

    Its members stay in the generation that they are in, as their epoch, and have what they had; those that wait in a
    rebalance are told to join again. Raises KafkaError where the group can't move.
    """

    def __init__(self, shard: GroupShard, classic: Group, group: ConsumerGroup) -> None:
        self._shard = shard
        assert isinstance(classic, ClassicGroup), f"{classic.group_id} is {classic}"
        self._classic = classic
        self._check()
        self.group = group
        made = self._records()
        for key, value in made:
            group.apply(key, value)
        self.records: list[Record] = [*classic.tombstones(), *made]

    def release(self) -> None:
        """Tell those that wait in a rebalance to join again."""
        self._shard.classic.release(self._classic, ErrorCode.REBALANCE_IN_PROGRESS)
        _log.info("group %s: becomes a group of the consumer protocol", self._classic.group_id)

    def _check(self) -> None:
        configs = self._shard.configs
        if configs.consumer_migration_policy not in _UPGRADING:
            raise self._refusal("online upgrade is disabled.")
        if self._classic.protocol_type != CONSUMER_PROTOCOL_TYPE:
            raise self._refusal("the group does not use the consumer embedded protocol.")
        if len(self._classic.members) > configs.consumer_members_max:
            raise self._refusal("the group size exceeds the consumer group maximum size.")

    def _refusal(self, why: str) -> KafkaError:
        return KafkaError(
            ErrorCode.GROUP_ID_NOT_FOUND,
            f"Cannot upgrade classic group {self._classic.group_id} to consumer group because {why}",
        )

    def _records(self) -> list[Record]:
        group_id, epoch = self._classic.group_id, self._classic.generation
        try:
            members = [self._member(member, epoch) for member in self._classic.members.values()]
        except WireError as error:
            raise self._refusal("the embedded consumer protocol is malformed.") from error
        names = {name for member in members for name in member.subscribed_topic_names}
        return [
            *(
                (ConsumerGroupMemberMetadataKey(group_id=group_id, member_id=each.member_id), each.metadata_value())
                for each in members
            ),
            (
                ConsumerGroupMetadataKey(group_id=group_id),
                ConsumerGroupMetadataValue(epoch=epoch, metadata_hash=topics_hash(names, self._shard.image)),
            ),
            *(
                (
                    ConsumerGroupTargetAssignmentMemberKey(group_id=group_id, member_id=each.member_id),
                    target_value({topic_id: frozenset(owned) for topic_id, owned in each.assigned.items()}),
                )
                for each in members
            ),
            (
                ConsumerGroupTargetAssignmentMetadataKey(group_id=group_id),
                ConsumerGroupTargetAssignmentMetadataValue(assignment_epoch=epoch),
            ),
            *(
                (
                    ConsumerGroupCurrentMemberAssignmentKey(group_id=group_id, member_id=each.member_id),
                    each.current_value(),
                )
                for each in members
            ),
        ]

    def _member(self, member: ClassicMember, epoch: int) -> ConsumerMember:
        name = self._classic.protocol_name
        metadata = next((data for each, data in member.protocols if each == name), member.protocols[0][1])
        subscription = decode_subscription(metadata)
        assignment = decode_assignment(member.assignment)
        if assignment.user_data:
            raise self._refusal(
                "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default "
                "assignor before re-attempting the upgrade."
            )
        topics = self._shard.image.topics
        return ConsumerMember(
            member_id=member.member_id,
            member_epoch=epoch,
            previous_member_epoch=epoch,
            instance_id=member.instance_id,
            rack_id=subscription.rack_id or None,
            client_id=member.client_id,
            client_host=member.client_host,
            rebalance_timeout_ms=member.rebalance_timeout_ms,
            subscribed_topic_names=frozenset(subscription.topics),
            classic=ClassicMemberMetadata(
                session_timeout_ms=member.session_timeout_ms,
                supported_protocols=[
                    ClassicProtocol(name=name, metadata=bytes(data)) for name, data in member.protocols
                ],
            ),
            assigned={
                topic.topic_id: dict.fromkeys(owned.partitions, epoch)
                for owned in assignment.assigned_partitions
                if (topic := topics.get(owned.topic)) is not None
            },
        )


def may_downgrade(shard: GroupShard, group: ConsumerGroup, *, gone: Collection[ConsumerMember]) -> bool:
    """Whether a group becomes a classic one once these members have gone."""
    left = len(group.members) - len(gone)
    return left > 0 and _may_downgrade(shard, group, gone, left)


def may_downgrade_by(shard: GroupShard, group: ConsumerGroup, replaced: ConsumerMember) -> bool:
    """Whether a group becomes a classic one once a member of the classic protocol takes this one's place."""
    return _may_downgrade(shard, group, (replaced,), len(group.members))


def _may_downgrade(shard: GroupShard, group: ConsumerGroup, gone: Collection[ConsumerMember], size: int) -> bool:
    # Some member of the consumer protocol goes, and all of them do.
    consumers_gone = sum(not member.is_classic for member in gone)
    if not consumers_gone or len(group.members) - group.classic_count != consumers_gone:
        return False
    if shard.configs.consumer_migration_policy not in _DOWNGRADING:
        _log.info("group %s: stays of the consumer protocol, since downgrades are disabled", group.group_id)
        return False
    if size > shard.configs.classic_members_max:
        _log.info("group %s: is larger than a group of the classic protocol may be", group.group_id)
        return False
    return True


class Downgrade:
    """What is left of a consumer group as a classic one, made by `records`: its epoch is the generation."""

    def __init__(
        self,
        shard: GroupShard,
        group: ConsumerGroup,
        *,
        gone: Collection[ConsumerMember],
        now_ms: int,
        joining: ConsumerMember | None = None,
        epoch: int | None = None,
    ) -> None:
        """Take `joining` for the one member in `gone`, whose records the caller has changed into its own."""
        self._shard = shard
        self._group_id = group.group_id
        self._now_ms = now_ms
        gone_ids = {member.member_id for member in gone}
        members = {each.member_id: each for each in group.members.values() if each.member_id not in gone_ids}
        targets = {member_id: group.targets.get(member_id, {}) for member_id in members}
        self.records: list[Record] = group.tombstones()
        if joining is not None:
            members[joining.member_id] = joining
            targets[joining.member_id] = group.target_of(joining)
            self.records = [*member_tombstones(group.group_id, joining.member_id), *self.records]
        self._protocols = {
            each.member_id: tuple(each.classic_protocols.items()) for each in members.values() if each.is_classic
        }
        name = _select_protocol(self._protocols.values())
        self.records.append(
            (
                GroupMetadataKey(group=group.group_id),
                GroupMetadataValue(
                    protocol_type=CONSUMER_PROTOCOL_TYPE,
                    generation=group.group_epoch if epoch is None else epoch,
                    protocol=name,
                    leader=next(iter(members)),
                    current_state_timestamp=now_ms,
                    members=[
                        self._member(each, dict(self._protocols[each.member_id])[name], targets[each.member_id])
                        for each in members.values()
                    ],
                ),
            )
        )

    def resume(self, *, rebalance_because: str | None) -> None:
        """The records are applied: begin the sessions, and a rebalance where there is a reason for one."""
        group = self._shard.groups[self._group_id]
        assert isinstance(group, ClassicGroup), f"{self._group_id} is {group}"
        self._shard.classic.resume(group, self._now_ms, protocols=self._protocols, rebalance_because=rebalance_because)
        _log.info("group %s: is a group of the classic protocol again", self._group_id)

    def _member(self, member: ConsumerMember, metadata: bytes, target: Target) -> MemberMetadata:
        assert member.classic is not None, f"{member.member_id} is of the consumer protocol"
        return MemberMetadata(
            member_id=member.member_id,
            group_instance_id=member.instance_id,
            client_id=member.client_id,
            client_host=member.client_host,
            rebalance_timeout=member.rebalance_timeout_ms,
            session_timeout=member.classic.session_timeout_ms,
            subscription=metadata,
            assignment=embedded_assignment(target, self._shard.image, embedded_version(metadata)),
        )


def embedded_assignment(partitions: Target, image: ClusterImage, version: int) -> bytes:
    """Return an assignment as consumers of the classic protocol read it; topics that are gone are left out."""
    return encode_assignment(
        ConsumerAssignment(
            assigned_partitions=[
                OwnedTopic(topic=topic.name, partitions=sorted(indexes))
                for topic_id, indexes in partitions.items()
                if (topic := image.topic_by_id(topic_id)) is not None
            ]
        ),
        version,
    )


def _select_protocol(members: Iterable[tuple[tuple[str, bytes], ...]]) -> str:
    """Return the protocol that most members put first among those that all of them know."""
    lists = [[name for name, _ in protocols] for protocols in members]
    shared = set(lists[0]).intersection(*lists[1:])
    votes = Counter(next(name for name in names if name in shared) for names in lists)
    return votes.most_common(1)[0][0]
