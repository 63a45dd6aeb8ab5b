"""JoinGroup: new members, members that come back, static members that were restarted.

A first JoinGroup from version 4 on only gives out a member id (KIP-394), so that a client that repeats itself does not
leave a member behind each time. Owned by the shard.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from millstream.core.groups.classic.group import ClassicGroup, ClassicState
from millstream.core.groups.classic.member import ClassicMember, HeldJoin, Protocols
from millstream.core.groups.classic.rebalances import (
    NEW_MEMBER_JOIN_TIMEOUT_MS,
    Rebalances,
    join_refusal,
    reason_given,
)
from millstream.core.groups.classic.session import Session
from millstream.core.groups.records import GroupMetadataKey
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.join_group import JoinGroupRequest

if TYPE_CHECKING:
    from millstream.core.groups.group import Caller
    from millstream.core.groups.shard import GroupShard

# Versions of JoinGroup from which on: it has a rebalance timeout (KIP-62), a first join only gives out an id (KIP-394),
# a leader may be told not to assign (KIP-814).
_REBALANCE_TIMEOUT_VERSION: Final = 1
_MEMBER_ID_VERSION: Final = 4
_SKIP_ASSIGNMENT_VERSION: Final = 9

# Ids given out by one group and not used yet. They cost nothing to ask for and live for a session timeout, so beyond
# this the oldest goes; a client that is there comes back with its id at once.
PENDING_MEMBERS_MAX: Final = 10_000
# All protocols of one JoinGroup with their metadata. One record holds the subscriptions of a whole group and has to
# fit into a batch, so a member of this size could never become part of a generation anyway.
PROTOCOLS_SIZE_BYTES_MAX: Final = 1 << 20
# Group, instance and protocol names. Requests from version 6 on could carry longer strings than records can, where
# 32,767 bytes is the most; at four bytes a character this is below it.
NAME_CHARS_MAX: Final = 8_000
# The bits of a UUID that say its version and variant, and what they are in one of random bits.
_UUID_FIXED_BITS: Final = 0xF << 76 | 0b11 << 62
_UUID_VERSION_4: Final = 4 << 76 | 0b10 << 62
# A member id begins with what the client calls itself, and is a string of at most 32,767 bytes in records.
ID_PREFIX_CHARS_MAX: Final = 4096

_EMPTY = ClassicState.EMPTY
_PREPARING = ClassicState.PREPARING_REBALANCE
_STABLE = ClassicState.STABLE


def rebalance_timeout_of(request: JoinGroupRequest, caller: Caller) -> int:
    """Return how long its sender has to join again, in ms; version 0 knows of one timeout only."""
    known = caller.api_version >= _REBALANCE_TIMEOUT_VERSION
    return request.rebalance_timeout_ms if known else request.session_timeout_ms


class _Join:
    """One JoinGroup and its surroundings."""

    __slots__ = ("caller", "group", "now_ms", "protocols", "reply", "request")

    def __init__(
        self,
        group: ClassicGroup,
        request: JoinGroupRequest,
        protocols: Protocols,
        caller: Caller,
        reply: object,
        now_ms: int,
    ) -> None:
        self.group = group
        self.request = request
        self.protocols = protocols
        self.caller = caller
        self.reply = reply
        self.now_ms = now_ms

    @property
    def held(self) -> HeldJoin:
        return HeldJoin(self.reply, self.caller.api_version)

    def member(self, member_id: str) -> ClassicMember:
        """Return the member that asks to be taken in."""
        return ClassicMember(
            member_id,
            instance_id=self.request.group_instance_id,
            client_id=self.caller.client_id,
            client_host=self.caller.host,
            session_timeout_ms=self.request.session_timeout_ms,
            rebalance_timeout_ms=rebalance_timeout_of(self.request, self.caller),
            protocols=self.protocols,
        )


class Joins:
    """JoinGroup for the groups of one shard."""

    def __init__(self, shard: GroupShard, rebalances: Rebalances) -> None:
        self._shard = shard
        self._rebalances = rebalances

    def session_timeout_error(self, request: JoinGroupRequest) -> ErrorCode:
        """Say whether the session timeout is within the operator's bounds: NONE or INVALID_SESSION_TIMEOUT."""
        configs = self._shard.configs
        within = configs.session_timeout_min_ms <= request.session_timeout_ms <= configs.session_timeout_max_ms
        return ErrorCode.NONE if within else ErrorCode.INVALID_SESSION_TIMEOUT

    def join_group(self, request: JoinGroupRequest, caller: Caller, reply: object, now_ms: int) -> None:
        """Take a member in, or back, for the next generation; or give it an id to come back with."""
        held = HeldJoin(reply, caller.api_version)
        error = self.session_timeout_error(request)
        if error:
            self._refuse(held, error, request.member_id)
            return
        if _has_long_name(request):
            self._refuse(held, ErrorCode.INVALID_REQUEST, "")
            return
        protocols = _protocols_of(request)
        if protocols is None:
            self._refuse(held, ErrorCode.UNKNOWN_SERVER_ERROR, request.member_id)
            return
        group = self._shard.groups.get(request.group_id)
        if not isinstance(group, ClassicGroup):
            assert group is None, f"{request.group_id} is a group of the other protocol"
            if request.member_id:
                error = ErrorCode.UNKNOWN_MEMBER_ID if protocols else ErrorCode.INCONSISTENT_GROUP_PROTOCOL
                self._refuse(held, error, request.member_id)
                return
            if not request.protocol_type or not protocols:
                # Such a group could have no members, so none is made.
                self._refuse(held, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, "")
                return
            group = self._create(request.group_id, now_ms)
        join = _Join(group, request, protocols, caller, reply, now_ms)
        if not self._has_room(group, request.member_id):
            self._refuse_size(join)
        elif not group.speaks(request.protocol_type, [name for name, _ in protocols]):
            self._refuse(held, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, request.member_id)
        elif not request.member_id:
            self._join_new(join)
        elif request.member_id in group.pending:
            self._join_pending(join)
        else:
            self._join_again(join)

    def _join_new(self, join: _Join) -> None:
        group, request = join.group, join.request
        instance_id = request.group_instance_id
        member_id = self._new_member_id(join.caller.client_id if instance_id is None else instance_id)
        if instance_id is not None:
            known = group.static_member(instance_id)
            if known is None:
                self._add(join, member_id)
            else:
                self._join_in_place(join, known, member_id)
        elif join.caller.api_version >= _MEMBER_ID_VERSION:
            self._add_pending(group, member_id, request.session_timeout_ms, join.now_ms)
            self._refuse(join.held, ErrorCode.MEMBER_ID_REQUIRED, member_id)
        else:
            self._add(join, member_id)

    def _join_pending(self, join: _Join) -> None:
        if join.request.group_instance_id is not None:
            # Ids are given out to dynamic members only.
            self._refuse(join.held, ErrorCode.UNKNOWN_SERVER_ERROR, "")
            return
        join.group.pending.pop(join.request.member_id).cancel()
        self._add(join, join.request.member_id)

    def _join_again(self, join: _Join) -> None:
        group, request = join.group, join.request
        error = group.member_error(request.member_id, request.group_instance_id)
        if error:
            self._refuse(join.held, error, request.member_id)
            return
        member = group.members[request.member_id]
        # The leader of a stable group asks for a rebalance by joining again: it may know of what no subscription shows,
        # such as new partitions. Others, and a leader that missed its answer, get the generation they are in.
        wants_rebalance = (group.state is _STABLE and group.leader_id == member.member_id) or (
            member.protocols != join.protocols
        )
        if group.state is _PREPARING or wants_rebalance:
            self._update(join, member)
            self._rebalances.maybe_rebalance(
                group, f"{member.member_id} joins again{reason_given(request)}", join.now_ms
            )
        else:
            self._shard.outbox.respond(join.reply, self._rebalances.joined(group, member))

    def _join_in_place(self, join: _Join, known: ClassicMember, member_id: str) -> None:
        """A static member was restarted: it takes the place of what it was before (KIP-345)."""
        group = join.group
        if group.state is _STABLE and group.protocol_name == _protocol_after(group, known, join.protocols):
            self._replace_in_stable(join, known, member_id)
            return
        self._fence(group, known)
        member = join.member(member_id)
        member.assignment = known.assignment
        group.replace(known, member)
        self._rebalances.open_session(group, member, join.now_ms, member.session_timeout_ms)
        group.hold_join(member, join.held)
        reason = f"static member {member.instance_id} came back{reason_given(join.request)}"
        self._rebalances.maybe_rebalance(group, reason, join.now_ms)

    def _replace_in_stable(self, join: _Join, known: ClassicMember, member_id: str) -> None:
        """Nobody else needs to know: the new id is recorded along with the assignment of the old one."""
        group = join.group
        former_leader_id = group.leader_id or ""
        value = group.stable_record({each.member_id: each.assignment for each in group.members.values()}, join.now_ms)
        value.members = [
            join.member(member_id).to_record(group.protocol_name, known.assignment)
            if data.member_id == known.member_id
            else data
            for data in value.members
        ]
        if known.member_id == former_leader_id:
            value.leader = member_id
        self._fence(group, known)
        try:
            self._shard.append([(GroupMetadataKey(group=group.group_id), value)])
        except KafkaError:
            # Its new subscription makes the record too large for a batch; the former self stays, as in Kafka.
            self._refuse(join.held, ErrorCode.UNKNOWN_SERVER_ERROR, "")
            return
        member = group.members[member_id]
        group.set_protocols(member, join.protocols)
        self._rebalances.open_session(group, member, join.now_ms, member.session_timeout_ms)
        response = self._rebalances.joined(group, member)
        if join.caller.api_version >= _SKIP_ASSIGNMENT_VERSION:
            response.skip_assignment = group.leader_id == member_id
        else:
            # One that cannot be told to skip the assignment must not find itself leading, or it would assign.
            response.leader = former_leader_id
            response.members = []
        self._shard.outbox.respond(join.reply, response)

    def _fence(self, group: ClassicGroup, known: ClassicMember) -> None:
        """End the requests of a static member's former self."""
        self._rebalances.refuse_waiting(group, known, ErrorCode.FENCED_INSTANCE_ID, known.member_id)

    def _add(self, join: _Join, member_id: str) -> None:
        group = join.group
        member = join.member(member_id)
        member.is_new = True
        if group.state is _PREPARING and group.previous_state is _EMPTY:
            group.joined_since_delay = True
        group.add(member, join.request.protocol_type)
        group.hold_join(member, join.held)
        self._rebalances.open_session(group, member, join.now_ms, NEW_MEMBER_JOIN_TIMEOUT_MS)
        self._rebalances.maybe_rebalance(group, f"{member_id} joins{reason_given(join.request)}", join.now_ms)

    def _update(self, join: _Join, member: ClassicMember) -> None:
        """A member that is here joins again; what it held before will not be answered by this phase."""
        group = join.group
        self._rebalances.refuse_waiting(group, member, ErrorCode.REBALANCE_IN_PROGRESS, member.member_id)
        group.set_protocols(member, join.protocols)
        member.rebalance_timeout_ms = rebalance_timeout_of(join.request, join.caller)
        member.session_timeout_ms = join.request.session_timeout_ms
        group.hold_join(member, join.held)

    def _add_pending(self, group: ClassicGroup, member_id: str, timeout_ms: int, now_ms: int) -> None:
        if len(group.pending) >= PENDING_MEMBERS_MAX:
            group.pending.pop(next(iter(group.pending))).cancel()
        session = Session(self._shard.timers, partial(self._expire_pending, group, member_id))
        session.extend(now_ms, timeout_ms)
        group.pending[member_id] = session

    def _expire_pending(self, group: ClassicGroup, member_id: str, now_ms: int) -> None:
        del group.pending[member_id]
        self._rebalances.maybe_complete_join(group, now_ms)

    def _has_room(self, group: ClassicGroup, member_id: str) -> bool:
        members_max = self._shard.configs.classic_members_max
        member = group.members.get(member_id)
        if group.state is _PREPARING:
            # Those who joined count: where the bound was lowered, the last ones to come back are the ones to go.
            return (member is not None and member.join is not None) or group.joined_count < members_max
        return group.state is _EMPTY or member is not None or len(group.members) < members_max

    def _refuse_size(self, join: _Join) -> None:
        group, member_id = join.group, join.request.member_id
        pending = group.pending.pop(member_id, None)
        if pending is not None:
            pending.cancel()
        member = group.members.get(member_id)
        if member is not None:
            self._rebalances.remove_member(group, member)
        self._refuse(join.held, ErrorCode.GROUP_MAX_SIZE_REACHED, "")
        self._rebalances.maybe_complete_join(group, join.now_ms)

    def _refuse(self, join: HeldJoin, error: ErrorCode, member_id: str) -> None:
        self._shard.outbox.respond(join.reply, join_refusal(error, member_id, join.api_version))

    def _new_member_id(self, prefix: str) -> str:
        # As a UUID of version 4 (RFC 9562) is written; the class takes three times as long.
        digits = f"{self._shard.random.getrandbits(128) & ~_UUID_FIXED_BITS | _UUID_VERSION_4:032x}"
        number = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        return f"{prefix[:ID_PREFIX_CHARS_MAX]}-{number}"

    def _create(self, group_id: str, now_ms: int) -> ClassicGroup:
        value = ClassicGroup(group_id).empty_record(0, now_ms)
        self._shard.append([(GroupMetadataKey(group=group_id), value)])
        group = self._shard.groups[group_id]
        assert isinstance(group, ClassicGroup), group
        return group


def _has_long_name(request: JoinGroupRequest) -> bool:
    if (
        len(request.group_id) > NAME_CHARS_MAX
        or len(request.protocol_type) > NAME_CHARS_MAX
        or (request.group_instance_id is not None and len(request.group_instance_id) > NAME_CHARS_MAX)
    ):
        return True
    for protocol in request.protocols:  # noqa: SIM110  a generator costs more than all else here
        if len(protocol.name) > NAME_CHARS_MAX:
            return True
    return False


def _protocols_of(request: JoinGroupRequest) -> Protocols | None:
    """Return a request's protocols, the first of each name; None where they are too large."""
    protocols: dict[str, bytes] = {}
    size_bytes = 0
    for protocol in request.protocols:
        size_bytes += len(protocol.name) + len(protocol.metadata)
        protocols.setdefault(protocol.name, protocol.metadata)
    return tuple(protocols.items()) if size_bytes <= PROTOCOLS_SIZE_BYTES_MAX else None


def _protocol_after(group: ClassicGroup, known: ClassicMember, protocols: Protocols) -> str:
    """Return what the group would speak if a member came back with other protocols."""
    before = known.protocols
    group.set_protocols(known, protocols)
    chosen = group.choose_protocol()
    group.set_protocols(known, before)
    return chosen
