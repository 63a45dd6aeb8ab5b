"""Members of the classic protocol in a group of the consumer protocol: how JoinGroup and its kin are served there.

Such a member's epoch is its generation. It is assigned by the coordinator as all others, but learns of it in its own
way: a heartbeat says REBALANCE_IN_PROGRESS, JoinGroup is answered at once, with the member as no leader, and SyncGroup
brings what it has. One that must give up partitions is told so by a smaller assignment, and joins again without them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core.groups.classic.joins import rebalance_timeout_of
from millstream.core.groups.classic.rebalances import join_refusal
from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.groups.consumer.member import ConsumerMember, MemberState
from millstream.core.groups.consumer.member_update import MemberUpdate, check_static_member
from millstream.core.groups.consumer.migration import Downgrade, embedded_assignment, may_downgrade_by
from millstream.core.groups.group import Record
from millstream.core.groups.records import ClassicMemberMetadata, ClassicProtocol
from millstream.core.wire import ErrorCode, KafkaError, WireError, uuid_text
from millstream.core.wire.embedded_protocol import (
    CONSUMER_PROTOCOL_TYPE,
    OwnedTopic,
    decode_subscription,
    embedded_version,
)
from millstream.core.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from millstream.core.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse
from millstream.core.wire.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
)
from millstream.core.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse

if TYPE_CHECKING:
    from millstream.core.groups.consumer.requests import ConsumerRequests
    from millstream.core.groups.group import Caller
    from millstream.core.groups.shard import GroupShard

# From this version on a member is given its id before it may join (KIP-394).
MEMBER_ID_REQUIRED_VERSION: Final = 4
# That of LeaveGroup from which on it names several members (KIP-345).
BATCHED_LEAVE_VERSION: Final = 3


class _OwnedPartitions(NamedTuple):
    topic_id: bytes
    partitions: list[int]


class ClassicMembers:
    """Serves members of the classic protocol in the consumer groups of one shard."""

    def __init__(self, shard: GroupShard, requests: ConsumerRequests) -> None:
        self._shard = shard
        self._requests = requests

    def _group(self, group_id: str) -> ConsumerGroup:
        group = self._shard.groups[group_id]
        assert isinstance(group, ConsumerGroup), f"{group_id} is {group}"
        return group

    # JoinGroup

    def join_group(self, request: JoinGroupRequest, caller: Caller, reply: object, now_ms: int) -> None:
        """Answer a JoinGroupResponse. Raises KafkaError where nothing was changed."""
        group = self._group(request.group_id)
        if error := self._shard.classic.session_timeout_error(request):
            self._shard.outbox.respond(reply, join_refusal(error, request.member_id, caller.api_version))
            return
        if group.is_empty():
            self._join_empty(group, request, caller, reply, now_ms)
            return
        member_id = request.member_id or self._new_member_id(caller)
        self._requests.check_size(group, member_id)
        self._check_protocols(group, request, member_id)
        if (
            request.group_instance_id is None
            and request.member_id == ""
            and caller.api_version >= MEMBER_ID_REQUIRED_VERSION
        ):
            response = join_refusal(ErrorCode.MEMBER_ID_REQUIRED, member_id, caller.api_version)
        else:
            response = self._join(group, request, member_id, caller, now_ms)
        self._shard.outbox.respond(reply, response)

    def _join_empty(
        self, group: ConsumerGroup, request: JoinGroupRequest, caller: Caller, reply: object, now_ms: int
    ) -> None:
        # Nobody is left in it: it becomes a classic group, with its offsets.
        if request.member_id:
            error = ErrorCode.UNKNOWN_MEMBER_ID if request.protocols else ErrorCode.INCONSISTENT_GROUP_PROTOCOL
            self._shard.outbox.respond(reply, join_refusal(error, request.member_id, caller.api_version))
            return
        self._shard.append(group.tombstones())
        self._shard.classic.join_group(request, caller, reply, now_ms)

    def _new_member_id(self, caller: Caller) -> str:
        del caller
        return uuid_text(self._shard.random.randbytes(16))

    def _check_protocols(self, group: ConsumerGroup, request: JoinGroupRequest, member_id: str) -> None:
        is_supported = request.protocol_type == CONSUMER_PROTOCOL_TYPE and any(
            group.classic_protocols[protocol.name] == group.classic_count for protocol in request.protocols
        )
        if not is_supported:
            raise KafkaError(
                ErrorCode.INCONSISTENT_GROUP_PROTOCOL, f"Member {member_id}'s protocols are not supported."
            )

    def _join(
        self, group: ConsumerGroup, request: JoinGroupRequest, member_id: str, caller: Caller, now_ms: int
    ) -> JoinGroupResponse:
        try:
            subscription = decode_subscription(bytes(request.protocols[0].metadata))
        except WireError as error:
            raise KafkaError(
                ErrorCode.UNKNOWN_SERVER_ERROR,
                "Malformed embedded consumer protocol in subscription deserialization.",
            ) from error
        records: list[Record] = []
        update = MemberUpdate(self._shard, group, records, now_ms)
        instance_id = request.group_instance_id
        member = update.find_member(
            member_id,
            instance_id,
            is_joining=instance_id is None or request.member_id == "",
            takes_over=True,
        )
        existing = group.static_member(instance_id)
        is_downgrade = existing is not None and may_downgrade_by(self._shard, group, existing)
        timeout_ms = rebalance_timeout_of(request, caller)
        updated = replace(
            member,
            instance_id=instance_id if instance_id is not None else member.instance_id,
            rack_id=subscription.rack_id or member.rack_id,
            rebalance_timeout_ms=timeout_ms if timeout_ms >= 0 else member.rebalance_timeout_ms,
            subscribed_topic_names=frozenset(subscription.topics),
            subscribed_topic_regex="",
            client_id=caller.client_id,
            client_host=caller.host,
            classic=ClassicMemberMetadata(
                session_timeout_ms=request.session_timeout_ms,
                supported_protocols=[
                    ClassicProtocol(name=protocol.name, metadata=bytes(protocol.metadata))
                    for protocol in request.protocols
                ],
            ),
        )
        changed = update.change_subscription(member, updated)
        if changed.any or group.topics_seen != self._requests.topics_changes:
            update.refresh_epoch(member, updated, bump=changed.any)
        owned = self._owned(subscription.owned_partitions)
        if is_downgrade:
            after = self._downgrade(group, update, updated, changed=changed.any, owned=owned, now_ms=now_ms)
        else:
            interval_ms = self._requests.configs_of(group.group_id).assignment_interval_ms
            target_epoch, target = update.refresh_target(member, updated, interval_ms)
            after = update.reconcile(updated, target_epoch, target, subscription_changed=changed.any, owned=owned)
            group = self._requests.apply(group, update, after, now_ms)
            self._requests.sessions.extend(group, after, now_ms)
            self._requests.sessions.await_sync(group, after, now_ms)
        return JoinGroupResponse(
            member_id=after.member_id,
            generation_id=after.member_epoch,
            protocol_type=CONSUMER_PROTOCOL_TYPE,
            protocol_name=next(iter(after.classic_protocols)),
        )

    def _downgrade(
        self,
        group: ConsumerGroup,
        update: MemberUpdate,
        updated: ConsumerMember,
        *,
        changed: bool,
        owned: Iterable[_OwnedPartitions],
        now_ms: int,
    ) -> ConsumerMember:
        """A static member came back in the classic protocol, and it was the last of the other: all are classic now."""
        is_stale = changed or update.group_epoch > group.assignment_epoch
        after = updated
        if not is_stale:
            after = update.reconcile(
                updated, group.assignment_epoch, group.target_of(updated), subscription_changed=False, owned=owned
            )
        replaced = update.replaced or group.member(updated.member_id)
        downgrade = Downgrade(
            self._shard, group, gone=[replaced], now_ms=now_ms, joining=after, epoch=update.group_epoch
        )
        self._shard.append([*update.records, *downgrade.records])
        downgrade.resume(
            rebalance_because="its assignment was stale as it came from the consumer protocol" if is_stale else None
        )
        return after

    def _owned(self, topics: Iterable[OwnedTopic]) -> list[_OwnedPartitions]:
        image = self._shard.image
        return [
            _OwnedPartitions(topic.topic_id, owned.partitions)
            for owned in topics
            if (topic := image.topics.get(owned.topic)) is not None
        ]

    # SyncGroup and Heartbeat

    def sync_group(self, request: SyncGroupRequest, caller: Caller, reply: object, now_ms: int) -> None:
        """Answer a SyncGroupResponse with what the member has. Raises KafkaError."""
        del caller
        group = self._group(request.group_id)
        member = self._member(group, request.member_id, request.group_instance_id)
        _check_generation(member, request.generation_id)
        assert member.classic is not None, f"{member.member_id} is of the consumer protocol"
        protocol = member.classic.supported_protocols[0]
        if request.protocol_type is not None and request.protocol_type != CONSUMER_PROTOCOL_TYPE:
            raise KafkaError(
                ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
                f"The protocol type {request.protocol_type} from member {member.member_id} request is not equal to the "
                f"group protocol type {CONSUMER_PROTOCOL_TYPE}.",
            )
        if request.protocol_name is not None and request.protocol_name != protocol.name:
            raise KafkaError(
                ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
                f"The protocol name {request.protocol_name} from member {member.member_id} request is not equal to the "
                f"protocol name {protocol.name} returned in the join response.",
            )
        # One that gives up partitions has joined for this already; it will again once it has.
        if _joinable_epoch(group) > member.member_epoch and member.state is not MemberState.UNREVOKED_PARTITIONS:
            self._requests.sessions.await_join(group, member, now_ms)
            raise KafkaError(
                ErrorCode.REBALANCE_IN_PROGRESS,
                f"A new rebalance is triggered in group {group.group_id} and member {member.member_id} should rejoin "
                "to catch up.",
            )
        self._requests.sessions.synced(group, member, now_ms)
        partitions = {topic_id: frozenset(owned) for topic_id, owned in member.assigned.items()}
        self._shard.outbox.respond(
            reply,
            SyncGroupResponse(
                protocol_type=request.protocol_type,
                protocol_name=request.protocol_name,
                assignment=embedded_assignment(
                    partitions, self._shard.image, embedded_version(bytes(protocol.metadata))
                ),
            ),
        )

    def heartbeat(self, request: HeartbeatRequest, caller: Caller, reply: object, now_ms: int) -> None:
        """Answer a HeartbeatResponse that says whether the member is to join again. Raises KafkaError."""
        del caller
        group = self._group(request.group_id)
        member = self._member(group, request.member_id, request.group_instance_id)
        _check_generation(member, request.generation_id)
        self._requests.sessions.extend(group, member, now_ms)
        error = ErrorCode.NONE
        if (
            member.member_epoch < _joinable_epoch(group)
            or member.state is MemberState.UNREVOKED_PARTITIONS
            or (member.state is MemberState.UNRELEASED_PARTITIONS and not _waits_for_others(group, member))
        ):
            error = ErrorCode.REBALANCE_IN_PROGRESS
            self._requests.sessions.await_join(group, member, now_ms)
        self._shard.outbox.respond(reply, HeartbeatResponse(error_code=error))

    def _member(self, group: ConsumerGroup, member_id: str, instance_id: str | None) -> ConsumerMember:
        if instance_id is None:
            member = group.member(member_id)
        else:
            existing = group.static_member(instance_id)
            if existing is None:
                raise KafkaError(
                    ErrorCode.UNKNOWN_MEMBER_ID,
                    f"Member with instance id {instance_id} is not a member of group {group.group_id}.",
                )
            member = check_static_member(existing, member_id, instance_id)
        return _classic(member)

    # LeaveGroup

    def leave_group(self, request: LeaveGroupRequest, caller: Caller, reply: object, now_ms: int) -> None:
        """Answer a LeaveGroupResponse with what became of each member; an admin removes those of either protocol."""
        group = self._group(request.group_id)
        batched = caller.api_version >= BATCHED_LEAVE_VERSION
        identities = request.members if batched else [MemberIdentity(member_id=request.member_id)]
        leaving: dict[str, ConsumerMember] = {}
        responses: list[MemberResponse] = []
        for identity in identities:
            answer = MemberResponse(member_id=identity.member_id, group_instance_id=identity.group_instance_id)
            responses.append(answer)
            try:
                member = self._leaving(group, identity)
            except KafkaError as error:
                answer.error_code = error.code
                continue
            leaving[member.member_id] = member
        self._requests.fence(group, list(leaving.values()), now_ms)
        response = (
            LeaveGroupResponse(members=responses) if batched else LeaveGroupResponse(error_code=responses[0].error_code)
        )
        self._shard.outbox.respond(reply, response)

    def _leaving(self, group: ConsumerGroup, identity: MemberIdentity) -> ConsumerMember:
        instance_id = identity.group_instance_id
        if instance_id is None:
            return group.member(identity.member_id)
        existing = group.static_member(instance_id)
        # An admin removes a static member by its instance id alone.
        member_id = identity.member_id or (existing.member_id if existing is not None else "")
        return check_static_member(existing, member_id, instance_id)


def _classic(member: ConsumerMember) -> ConsumerMember:
    if not member.is_classic:
        raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, f"Member {member.member_id} does not use the classic protocol.")
    return member


def _check_generation(member: ConsumerMember, generation: int) -> None:
    if member.member_epoch != generation:
        raise KafkaError(
            ErrorCode.ILLEGAL_GENERATION,
            f"The request generation id {generation} is not equal to the member epoch {member.member_epoch} of member "
            f"{member.member_id}.",
        )


def _waits_for_others(group: ConsumerGroup, member: ConsumerMember) -> bool:
    """Whether another member still has a partition that this one is to get."""
    for topic_id, partitions in group.target_of(member).items():
        has = member.assigned.get(topic_id, {})
        if any(group.owner_of(topic_id, partition) is not None for partition in partitions if partition not in has):
            return True
    return False


def _joinable_epoch(group: ConsumerGroup) -> int:
    """The epoch that members are to have: while a large target is made there is nothing newer to join for."""
    return group.assignment_epoch if group.is_assigning else group.group_epoch
