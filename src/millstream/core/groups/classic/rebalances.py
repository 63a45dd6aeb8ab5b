"""The phases of a rebalance, and the timers that keep one from lasting for ever.

    join phase   members hold a JoinGroup each, until all are there or the greatest rebalance timeout among them is up.
                 A group that was empty waits a while for more to come, and longer as they do: an application starts
                 its members one after another, and each later one would cost a rebalance.
    sync phase   the next generation has a leader who assigns; members hold a SyncGroup each until it has. Those that
                 have not synced after the rebalance timeout are removed.
    stable       sessions of silent members expire, and that begins the next join phase.

Each step costs the members it is about; a rebalance of N members costs O(N) in all.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from millstream.core.groups.classic.group import ClassicGroup, ClassicState
from millstream.core.groups.classic.session import Session
from millstream.core.groups.records import GroupMetadataKey
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.join_group import JoinGroupResponse, JoinGroupResponseMember
from millstream.core.wire.messages.sync_group import SyncGroupResponse

if TYPE_CHECKING:
    from millstream.core.groups.classic.member import ClassicMember
    from millstream.core.groups.shard import GroupShard
    from millstream.core.wire.messages.join_group import JoinGroupRequest
    from millstream.core.wire.messages.leave_group import MemberIdentity

logger = logging.getLogger(__name__)

# A new member that waits in a join phase can send no heartbeat, and the coordinator does not see a client hang up. So
# it is given up after this time; one that is still there joins again.
NEW_MEMBER_JOIN_TIMEOUT_MS: Final = 300_000

# The version of JoinGroup from which on an answer may lack a protocol (KIP-559).
NULL_PROTOCOL_VERSION: Final = 7
# Of the reason a client gives.
_REASON_CHARS_MAX: Final = 255

_EMPTY = ClassicState.EMPTY
_PREPARING = ClassicState.PREPARING_REBALANCE
_COMPLETING = ClassicState.COMPLETING_REBALANCE
_STABLE = ClassicState.STABLE


class Rebalances:
    """Moves the groups of one shard through their states."""

    def __init__(self, shard: GroupShard) -> None:
        self._shard = shard

    # Begin.

    def maybe_rebalance(self, group: ClassicGroup, reason: str, now_ms: int) -> None:
        """Begin a rebalance; in one that is going on, go ahead if this was what it waited for."""
        if group.state is _PREPARING:
            self.maybe_complete_join(group, now_ms)
        else:
            self.prepare(group, reason, now_ms)

    def prepare(self, group: ClassicGroup, reason: str, now_ms: int) -> None:
        """Begin the join phase: members learn of it by their next heartbeat, those that wait for a sync at once."""
        if group.state is _COMPLETING:
            self.refuse_syncs(group, ErrorCode.REBALANCE_IN_PROGRESS, now_ms)
        group.pending_sync.clear()
        self._stop_sync_timer(group)
        initial = group.state is _EMPTY
        group.enter(_PREPARING, now_ms)
        logger.info("Group %s leaves generation %d to rebalance: %s", group.group_id, group.generation, reason)
        if initial:
            delay_ms = self._shard.configs.initial_rebalance_delay_ms
            remaining_ms = max(group.rebalance_timeout_ms - delay_ms, 0)
            group.joined_since_delay = False
            self._delay_initial(group, delay_ms, remaining_ms, now_ms)
        elif group.all_joined:
            self.complete_join(group, now_ms)
        else:
            self._set_join_timer(group, now_ms)

    def _delay_initial(self, group: ClassicGroup, delay_ms: int, remaining_ms: int, now_ms: int) -> None:
        group.join_timer = self._shard.timers.set(
            now_ms + delay_ms, partial(self._end_initial_delay, group, delay_ms, remaining_ms)
        )

    def _end_initial_delay(self, group: ClassicGroup, delay_ms: int, remaining_ms: int, now_ms: int) -> None:
        if group.joined_since_delay and remaining_ms:
            group.joined_since_delay = False
            next_delay_ms = min(self._shard.configs.initial_rebalance_delay_ms, remaining_ms)
            self._delay_initial(group, next_delay_ms, max(remaining_ms - delay_ms, 0), now_ms)
        else:
            self.complete_join(group, now_ms)

    # The join phase.

    def _set_join_timer(self, group: ClassicGroup, now_ms: int) -> None:
        deadline_ms = now_ms + max(group.rebalance_timeout_ms, 0)
        group.join_timer = self._shard.timers.set(deadline_ms, partial(self.complete_join, group))

    def maybe_complete_join(self, group: ClassicGroup, now_ms: int) -> None:
        """End the join phase if nobody is missing; one that began from an empty group runs its time."""
        if group.state is _PREPARING and group.previous_state is not _EMPTY and group.all_joined:
            self.complete_join(group, now_ms)

    def complete_join(self, group: ClassicGroup, now_ms: int) -> None:
        """End the join phase: drop dynamic members that did not come, and begin the next generation with the others."""
        if group.join_timer is not None:
            group.join_timer.cancel()
            group.join_timer = None
        absent = [member for member in group.members.values() if member.join is None and member.instance_id is None]
        for member in absent:
            group.remove(member)
        if absent:
            logger.info("Group %s removes %d members that did not join again", group.group_id, len(absent))
        if not group.members:
            self._shard.append(
                [(GroupMetadataKey(group=group.group_id), group.empty_record(group.generation + 1, now_ms))]
            )
            logger.info("Group %s is empty in generation %d", group.group_id, group.generation)
        elif not group.elect_leader():
            # Static members are the only ones left and none has come: they stay until their sessions expire.
            self._set_join_timer(group, now_ms)
        else:
            self._begin_generation(group, now_ms)

    def _begin_generation(self, group: ClassicGroup, now_ms: int) -> None:
        group.begin_generation(now_ms)
        logger.info(
            "Group %s begins generation %d with %d members", group.group_id, group.generation, len(group.members)
        )
        for member in group.members.values():
            join = group.take_join(member)
            if join is not None:
                self._shard.outbox.respond(join.reply, self.joined(group, member))
            member.extend_session(now_ms)
            member.is_new = False
        group.sync_timer = self._shard.timers.set(
            now_ms + max(group.rebalance_timeout_ms, 0), partial(self._expire_syncs, group, group.generation)
        )

    def joined(self, group: ClassicGroup, member: ClassicMember) -> JoinGroupResponse:
        """Return the answer to a JoinGroup in this generation; the leader's holds the members."""
        leads = group.leader_id == member.member_id
        return JoinGroupResponse(
            generation_id=group.generation,
            protocol_type=group.protocol_type,
            protocol_name=group.protocol_name,
            leader=group.leader_id or "",
            member_id=member.member_id,
            members=self.members_of(group) if leads else [],
        )

    def members_of(self, group: ClassicGroup) -> list[JoinGroupResponseMember]:
        """Return what a leader needs to assign."""
        name = group.protocol_name
        return [
            JoinGroupResponseMember(
                member_id=member.member_id, group_instance_id=member.instance_id, metadata=member.metadata(name)
            )
            for member in group.members.values()
        ]

    # The sync phase.

    def handle_sync(self, group: ClassicGroup, member: ClassicMember) -> None:
        """A member of this generation has synced."""
        group.pending_sync.discard(member.member_id)
        if not group.pending_sync:
            self._stop_sync_timer(group)

    def answer_syncs(self, group: ClassicGroup, now_ms: int) -> None:
        """The group has become stable: give those who wait what they were assigned."""
        for member in group.members.values():
            if member.sync is not None:
                reply, member.sync = member.sync, None
                self._shard.outbox.respond(reply, self.synced(group, member))
                member.extend_session(now_ms)

    def refuse_syncs(self, group: ClassicGroup, error: ErrorCode, now_ms: int) -> None:
        """There will be no assignment in this generation."""
        for member in group.members.values():
            member.assignment = b""
            if member.sync is not None:
                reply, member.sync = member.sync, None
                self._shard.outbox.respond(reply, SyncGroupResponse(error_code=error))
                member.extend_session(now_ms)

    def synced(self, group: ClassicGroup, member: ClassicMember) -> SyncGroupResponse:
        """Return the answer to a SyncGroup of a stable group."""
        return SyncGroupResponse(
            protocol_type=group.protocol_type, protocol_name=group.protocol_name, assignment=member.assignment
        )

    def _expire_syncs(self, group: ClassicGroup, generation: int, now_ms: int) -> None:
        group.sync_timer = None
        assert generation == group.generation, f"{group.group_id} went from {generation} to {group.generation}"
        missing = list(group.pending_sync)
        if not missing:
            # The last one that was waited for came back under another id.
            return
        for member_id in missing:
            self.remove_member(group, group.members[member_id])
        self.prepare(group, f"{len(missing)} members never synced", now_ms)

    def _stop_sync_timer(self, group: ClassicGroup) -> None:
        if group.sync_timer is not None:
            group.sync_timer.cancel()
            group.sync_timer = None

    # Sessions.

    def open_session(self, group: ClassicGroup, member: ClassicMember, now_ms: int, timeout_ms: int) -> None:
        """A member was added: watch whether it is there."""
        member.session = Session(self._shard.timers, partial(self._expire_session, group, member))
        member.session.extend(now_ms, timeout_ms)

    def _expire_session(self, group: ClassicGroup, member: ClassicMember, now_ms: int) -> None:
        if member.is_excused:
            # Its session is extended when the request that waits is answered.
            return
        self.remove_member(group, member)
        self.after_removal(group, f"the session of {member.member_id} expired", now_ms)

    def remove_member(self, group: ClassicGroup, member: ClassicMember) -> None:
        """Let a member go; a client that waits for an answer is told so, and joins anew."""
        self.refuse_waiting(group, member, ErrorCode.UNKNOWN_MEMBER_ID, "")
        group.remove(member)

    def refuse_waiting(self, group: ClassicGroup, member: ClassicMember, error: ErrorCode, member_id: str) -> None:
        """Answer whatever a member waits for with an error."""
        join = group.take_join(member)
        if join is not None:
            self._shard.outbox.respond(join.reply, join_refusal(error, member_id, join.api_version))
        if member.sync is not None:
            reply, member.sync = member.sync, None
            self._shard.outbox.respond(reply, SyncGroupResponse(error_code=error))

    def after_removal(self, group: ClassicGroup, reason: str, now_ms: int) -> None:
        """Members or ids given out are gone: rebalance, or go on where only they were missing."""
        if group.state is _PREPARING:
            self.maybe_complete_join(group, now_ms)
        elif group.state is not _EMPTY:
            self.prepare(group, reason, now_ms)


def join_refusal(error: ErrorCode, member_id: str, api_version: int) -> JoinGroupResponse:
    """Return the answer to a JoinGroup that leads to no generation."""
    response = JoinGroupResponse(error_code=error, member_id=member_id)
    if api_version >= NULL_PROTOCOL_VERSION:
        response.protocol_name = None
    return response


def reason_given(told: JoinGroupRequest | MemberIdentity) -> str:
    """Return the end of a sentence: why the client says it does this (KIP-800)."""
    return f"; it says: {told.reason[:_REASON_CHARS_MAX]!r}" if told.reason else ""
