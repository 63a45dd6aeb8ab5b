"""What clients ask of groups of the classic protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

Each method takes a request and answers it through the shard's outbox, now or when the group got there. Error codes and
the fields beside them are those of Kafka 4.3's coordinator. Owned by the shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from millstream.core.groups.classic.group import ClassicGroup, ClassicState
from millstream.core.groups.classic.joins import Joins
from millstream.core.groups.classic.rebalances import Rebalances, reason_given
from millstream.core.groups.records import GroupMetadataKey, GroupMetadataValue
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.describe_groups import DescribedGroup
from millstream.core.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from millstream.core.wire.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
)
from millstream.core.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse

if TYPE_CHECKING:
    from millstream.core.groups.classic.member import Protocols
    from millstream.core.groups.group import Caller, Group
    from millstream.core.groups.shard import GroupShard
    from millstream.core.wire.messages.join_group import JoinGroupRequest

# The version of DescribeGroups from which on a group that is not there is an error (KIP-1043).
_NOT_FOUND_VERSION: Final = 6
# That of LeaveGroup from which on it names several members (KIP-345).
_BATCHED_LEAVE_VERSION: Final = 3

_EMPTY = ClassicState.EMPTY
_PREPARING = ClassicState.PREPARING_REBALANCE
_COMPLETING = ClassicState.COMPLETING_REBALANCE
_STABLE = ClassicState.STABLE


class ClassicRequests:
    """The classic protocol of one shard."""

    def __init__(self, shard: GroupShard) -> None:
        self._shard = shard
        self._rebalances = Rebalances(shard)
        self._joins = Joins(shard, self._rebalances)

    # Records.

    def replay(self, key: GroupMetadataKey, value: GroupMetadataValue | None) -> None:
        """Put a GroupMetadata record in place, at load or right after it was appended."""
        groups = self._shard.groups
        there = groups.get(key.group)
        group = self._find(key.group)
        if value is None:
            if group is not None:
                group.close()
                del groups[key.group]
                self._shard.offset_requests.handle_group_deleted(key.group)
            return
        if group is None:
            if there is not None:
                there.close()
            group = groups[key.group] = ClassicGroup(key.group)
        group.replay(value)

    def resume_loaded(self, group: ClassicGroup, now_ms: int) -> Iterator[None]:
        """The log was replayed: every member has a session timeout to show that it is there. Yields after each."""
        for member in list(group.members.values()):
            if group.members.get(member.member_id) is member:
                self._rebalances.open_session(group, member, now_ms, member.session_timeout_ms)
            yield
        if len(group.members) > self._shard.configs.classic_members_max:
            self._rebalances.maybe_rebalance(group, "it is larger than group.max.size", now_ms)

    # Seams for the offset store and for groups that change their protocol.

    def get_or_create(self, group_id: str) -> Group:
        """Return the group, or a new one that nobody joined: offsets may be kept under any name. No record says so."""
        group = self._shard.groups.get(group_id)
        if group is None:
            group = self._shard.groups[group_id] = ClassicGroup(group_id)
        return group

    def extend_session(self, group: Group, member_id: str, now_ms: int) -> None:
        """A member committed offsets: it is there. In the sync phase that is no sign of it."""
        if isinstance(group, ClassicGroup) and group.state in (_STABLE, _PREPARING):
            member = group.members.get(member_id)
            if member is not None:
                member.extend_session(now_ms)

    def describe_group(self, group_id: str, caller: Caller) -> DescribedGroup:
        """Return its part of a DescribeGroups answer, with an error in it where there is none of this protocol."""
        group = self._find(group_id)
        if group is not None:
            return group.describe()
        answer = DescribedGroup(group_id=group_id, group_state=ClassicState.DEAD.value)
        if caller.api_version >= _NOT_FOUND_VERSION:
            answer.error_code = ErrorCode.GROUP_ID_NOT_FOUND
            known = group_id in self._shard.groups
            answer.error_message = (
                f"Group {group_id} is not a classic group." if known else f"Group {group_id} not found."
            )
        return answer

    def resume(
        self,
        group: ClassicGroup,
        now_ms: int,
        *,
        protocols: Mapping[str, Protocols] | None = None,
        rebalance_because: str | None = None,
    ) -> None:
        """Begin the sessions of a group that was of the other protocol.

        `protocols` gives by member id what members speak besides the one protocol that a record holds. With a reason
        the group rebalances at once.
        """
        for member in group.members.values():
            if protocols is not None and member.member_id in protocols:
                group.set_protocols(member, protocols[member.member_id])
            self._rebalances.open_session(group, member, now_ms, member.session_timeout_ms)
        if rebalance_because is not None:
            self._rebalances.prepare(group, rebalance_because, now_ms)

    def release(self, group: ClassicGroup, error: ErrorCode) -> None:
        """Answer whatever waits with an error and stop all timers: another kind of group takes this one's place."""
        for member in group.members.values():
            self._rebalances.refuse_waiting(group, member, error, member.member_id)
        group.close()

    # JoinGroup.

    def session_timeout_error(self, request: JoinGroupRequest) -> ErrorCode:
        """Say whether the session timeout is within the operator's bounds: NONE or INVALID_SESSION_TIMEOUT."""
        return self._joins.session_timeout_error(request)

    def join_group(self, request: JoinGroupRequest, caller: Caller, reply: object, now_ms: int) -> None:
        """Take a member in, or back, for the next generation; or give it an id to come back with."""
        self._joins.join_group(request, caller, reply, now_ms)

    def _find(self, group_id: str) -> ClassicGroup | None:
        group = self._shard.groups.get(group_id)
        return group if isinstance(group, ClassicGroup) else None

    # SyncGroup.

    def sync_group(self, request: SyncGroupRequest, caller: Caller, reply: object, now_ms: int) -> None:
        """Give a member its assignment, once the leader has handed in those of all."""
        del caller
        group = self._find(request.group_id)
        error = ErrorCode.UNKNOWN_MEMBER_ID if group is None else _sync_error(group, request)
        if error or group is None:
            self._shard.outbox.respond(reply, SyncGroupResponse(error_code=error))
            return
        member = group.members[request.member_id]
        if group.state is _STABLE:
            self._rebalances.handle_sync(group, member)
            self._shard.outbox.respond(reply, self._rebalances.synced(group, member))
            return
        if member.sync is not None:
            # The client asks again, so it does not listen to the former request any more.
            self._shard.outbox.respond(member.sync, SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS))
        member.sync = reply
        self._rebalances.handle_sync(group, member)
        if group.leader_id == member.member_id:
            self._assign(group, {given.member_id: given.assignment for given in request.assignments}, now_ms)

    def _assign(self, group: ClassicGroup, assignments: dict[str, bytes], now_ms: int) -> None:
        key = GroupMetadataKey(group=group.group_id)
        try:
            self._shard.append([(key, group.stable_record(assignments, now_ms))])
        except KafkaError as error:
            # Too large for a batch. Kafka finds out later, and says the same.
            self._rebalances.refuse_syncs(group, ErrorCode.UNKNOWN_SERVER_ERROR, now_ms)
            self._rebalances.prepare(group, f"its record cannot be written: {error.message}", now_ms)
            return
        self._rebalances.answer_syncs(group, now_ms)

    # Heartbeat.

    def heartbeat(self, request: HeartbeatRequest, caller: Caller, reply: object, now_ms: int) -> None:
        """Note that a member is there, and tell it of a rebalance."""
        del caller
        group = self._find(request.group_id)
        if group is None:
            error = ErrorCode.UNKNOWN_MEMBER_ID
        else:
            error = group.member_error(request.member_id, request.group_instance_id)
            if not error and request.generation_id != group.generation:
                error = ErrorCode.ILLEGAL_GENERATION
            elif not error:
                group.members[request.member_id].extend_session(now_ms)
                if group.state is _PREPARING:
                    error = ErrorCode.REBALANCE_IN_PROGRESS
        self._shard.outbox.respond(reply, HeartbeatResponse(error_code=error))

    # LeaveGroup.

    def leave_group(self, request: LeaveGroupRequest, caller: Caller, reply: object, now_ms: int) -> None:
        """Remove members, each with its own answer; up to version 2 a request names one and has one error."""
        batched = caller.api_version >= _BATCHED_LEAVE_VERSION
        group = self._find(request.group_id)
        answers = []
        left = []
        for identity in request.members if batched else [MemberIdentity(member_id=request.member_id)]:
            error = ErrorCode.UNKNOWN_MEMBER_ID if group is None else self._leave(group, identity)
            if not error:
                left.append(identity)
            answers.append(
                MemberResponse(
                    member_id=identity.member_id, group_instance_id=identity.group_instance_id, error_code=error
                )
            )
        if group is not None and left:
            self._after_leave(group, left, now_ms)
        response = LeaveGroupResponse(members=answers) if batched else LeaveGroupResponse(error_code=error)
        self._shard.outbox.respond(reply, response)

    def _leave(self, group: ClassicGroup, identity: MemberIdentity) -> ErrorCode:
        instance_id = identity.group_instance_id
        pending = group.pending.pop(identity.member_id, None)
        if pending is not None:
            pending.cancel()
            return ErrorCode.NONE
        if identity.member_id:
            error = group.member_error(identity.member_id, instance_id)
            member = None if error else group.members[identity.member_id]
        else:
            # An administrator names static members by their instance ids alone.
            member = None if instance_id is None else group.static_member(instance_id)
            error = ErrorCode.NONE if member is not None else ErrorCode.UNKNOWN_MEMBER_ID
        if member is not None:
            self._rebalances.remove_member(group, member)
        return error

    def _after_leave(self, group: ClassicGroup, left: list[MemberIdentity], now_ms: int) -> None:
        if group.state is _PREPARING:
            self._rebalances.maybe_complete_join(group, now_ms)
        elif group.state in (_STABLE, _COMPLETING):
            self._rebalances.prepare(group, f"{len(left)} members left{reason_given(left[0])}", now_ms)


def _sync_error(group: ClassicGroup, request: SyncGroupRequest) -> ErrorCode:
    """Say why a SyncGroup cannot be served now, or NONE."""
    error = group.member_error(request.member_id, request.group_instance_id)
    if error:
        return error
    if request.generation_id != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    # Versions up to 4 do not say what the member takes for the protocol.
    if request.protocol_type not in (None, group.protocol_type):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if group.protocol_name is not None and request.protocol_name not in (None, group.protocol_name):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    return ErrorCode.REBALANCE_IN_PROGRESS if group.state is _PREPARING else ErrorCode.NONE
