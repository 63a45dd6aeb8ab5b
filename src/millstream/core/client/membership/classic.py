"""A member of a classic group: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

Sans-I/O; see machine.py for how it is fed. What members say to each other inside these requests is a GroupProtocol's.

One round of a rebalance:

    PREPARING   the owner gives up what it must (calls), under the generation that still holds
    JOINING     JoinGroup waits at the coordinator until all members are there
    ASSIGNING   the leader learns how the topics look now, and assigns
    SYNCING     SyncGroup waits for the leader's assignment
    TAKING      the owner is told what it has (calls)
    STABLE      heartbeats; one of them says when the next round begins

Membership is lost where the coordinator does not know the member or its generation any more: then others may have its
partitions already, and the owner is told LOST instead of REVOKED.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from millstream.core.client.membership.assignors import Topics
from millstream.core.client.membership.effects import (
    AskTopics,
    Call,
    Fail,
    ForgetCoordinator,
    MembershipState,
)
from millstream.core.client.membership.errors import RebalanceInProgressError
from millstream.core.client.membership.group_protocol import GroupProtocol, JoinedMember
from millstream.core.client.membership.machine import (
    COORDINATOR_GONE,
    NO_GENERATION,
    Identity,
    MemberConfig,
    MemberMachine,
    earliest,
)
from millstream.core.client.membership.refusals import refused
from millstream.core.wire import ErrorCode, KafkaError, WireError, error_code
from millstream.core.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from millstream.core.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from millstream.core.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity
from millstream.core.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse

# How much longer than the rebalance may take its JoinGroup is waited for.
_JOIN_MARGIN_MS: Final = 5_000
# Kafka refuses longer ones (KIP-800).
_REASON_CHARS_MAX: Final = 255
# Asking again is all it takes.
_ASK_AGAIN: Final = COORDINATOR_GONE | {
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NETWORK_EXCEPTION,
}
_LOST: Final = frozenset({ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION})


class Phase(Enum):
    """See ClassicMember."""

    OUTSIDE = "outside"
    PREPARING = "preparing"
    JOINING = "joining"
    ASSIGNING = "assigning"
    SYNCING = "syncing"
    TAKING = "taking"
    STABLE = "stable"
    LEAVING = "leaving"
    STALE = "stale"
    FAILED = "failed"


_BEATING: Final = frozenset({Phase.PREPARING, Phase.ASSIGNING, Phase.TAKING, Phase.STABLE})
_STATES: Final = {
    Phase.OUTSIDE: MembershipState.OUTSIDE,
    Phase.PREPARING: MembershipState.JOINING,
    Phase.JOINING: MembershipState.JOINING,
    Phase.ASSIGNING: MembershipState.JOINING,
    Phase.SYNCING: MembershipState.JOINING,
    Phase.TAKING: MembershipState.RECONCILING,
    Phase.STABLE: MembershipState.STABLE,
    Phase.LEAVING: MembershipState.LEAVING,
    Phase.STALE: MembershipState.STALE,
    Phase.FAILED: MembershipState.FAILED,
}


class ClassicMember(MemberMachine):
    """One member.

    States: OUTSIDE -> PREPARING (start)
            PREPARING -> JOINING (nothing left to give up) -> ASSIGNING (the leader) -> SYNCING -> TAKING -> STABLE
            JOINING, SYNCING -> PREPARING (refused: another round, or membership was lost)
            STABLE -> PREPARING (a heartbeat or a commit says so; subscription or topics changed; rejoin)
            any but OUTSIDE -> LEAVING (leave) -> OUTSIDE
            any -> STALE (not polled for max.poll.interval.ms) -> PREPARING (begin_poll)
            any -> FAILED (what only a person can mend) -> PREPARING (start)
    """

    def __init__(self, config: MemberConfig, protocol: GroupProtocol, random_source: random.Random) -> None:
        super().__init__(config, random_source)
        self.protocol = protocol
        self.phase = Phase.OUTSIDE
        self.is_leader = False
        self.protocol_name = ""
        # -1 where the coordinator is not known to know this member.
        self._generation = NO_GENERATION
        # The request of the round, or the LeaveGroup, that is not answered; and the heartbeat.
        self._asked: int | None = None
        self._beat: int | None = None
        # What the heartbeat under way was sent as.
        self._beat_as = Identity()
        self._next_beat_ms: int | None = None
        # When to take the round's next step, after a pause.
        self._retry_ms: int | None = None
        # Calls that put an assignment in place, behind the one that is being made.
        self._planned: list[Call] = []
        # Why to join again when this round is over; None for no reason.
        self._rejoin_because: str | None = None
        # What the leader was told, until it has assigned.
        self._members: tuple[JoinedMember, ...] = ()
        # The topics that it asked for to assign them.
        self._asked_topics: frozenset[str] = frozenset()
        # The topics as last seen; a leader compares them with what it assigned.
        self._topics: Topics | None = None
        self._sends_leave = True
        self._leave_deadline_ms: int | None = None

    # What the owner sees.

    @property
    def state(self) -> MembershipState:
        """As every machine says it."""
        return _STATES[self.phase]

    @property
    def generation(self) -> int:
        """The generation it is in; -1 outside of the group."""
        return self._generation

    @property
    def identity(self) -> Identity:
        """Who it is to the coordinator."""
        return Identity(self._generation, self.member_id, self.config.instance_id)

    @property
    def commits_as(self) -> Identity | KafkaError:
        """As whom offsets are committed now, or why none can be."""
        if self.phase in (Phase.JOINING, Phase.ASSIGNING, Phase.SYNCING) or self._retry_ms is not None:
            return RebalanceInProgressError(
                ErrorCode.REBALANCE_IN_PROGRESS,
                f"offsets were not committed: group {self.config.group_id!r} is rebalancing; poll, then commit again",
            )
        if self._generation == NO_GENERATION:
            return self.not_a_member()
        return self.identity

    @property
    def next_deadline_ms(self) -> int | None:
        """When handle_time has something to do."""
        beat_ms = self._next_beat_ms if self._may_beat else None
        poll_ms = self.poll_deadline_ms if self._may_go_stale else None
        return earliest(beat_ms, poll_ms, self._retry_ms, self._leave_deadline_ms)

    @property
    def _may_beat(self) -> bool:
        # After a lost answer the group may be a generation further, with this member in it: it joins before it beats.
        is_in = self._generation != NO_GENERATION and self._retry_ms is None
        return self.phase in _BEATING and is_in and self._beat is None

    @property
    def _may_go_stale(self) -> bool:
        return self.phase not in (Phase.OUTSIDE, Phase.LEAVING, Phase.STALE, Phase.FAILED)

    # Events from the owner.

    def start(self, now_ms: int) -> None:
        """Enter the group, or do so again after leaving it or a failure."""
        if self.phase not in (Phase.OUTSIDE, Phase.FAILED):
            return
        self.failure = None
        self._failures = 0
        self.phase = Phase.PREPARING
        self._advance(now_ms)

    def rejoin(self, reason: str, now_ms: int) -> None:
        """Have the group share anew, once the round under way is over."""
        if self.phase in (Phase.OUTSIDE, Phase.LEAVING, Phase.STALE, Phase.FAILED):
            return
        self._rejoin_because = reason
        self._advance(now_ms)

    def handle_subscribed(self, now_ms: int) -> None:
        """The protocol has something new to say."""
        self._advance(now_ms)

    def handle_topics_seen(self, topics: Topics, now_ms: int) -> None:
        """Metadata was refreshed: these topics look so."""
        self._topics = topics
        self._advance(now_ms)

    def leave(self, now_ms: int, *, for_good: bool | None = None) -> None:
        """Give everything up and leave. By default a static member stays listed, since it will come back."""
        if self.phase in (Phase.OUTSIDE, Phase.LEAVING):
            return
        self._sends_leave = self.config.instance_id is None if for_good is None else for_good
        self._drop_round()
        self._failures = 0
        self.phase = Phase.LEAVING
        self._advance(now_ms)

    def _drop_round(self) -> None:
        """What is under way does not count any more, its answers will be passed over."""
        self._asked = None
        self._retry_ms = None
        self._planned = []
        self._members = ()
        self._rejoin_because = None

    # Steps.

    def _called(self, call: Call) -> None:
        self.protocol.handle_called(call)

    def _make(self, call: Call) -> None:
        self.protocol.handle_calling(call)
        self._call(call.kind, call.what)

    def _advance(self, now_ms: int) -> None:
        if self.calling is not None or self._asked is not None or self._retry_ms is not None:
            return
        if self.phase is Phase.TAKING and self._planned:
            self._make(self._planned.pop(0))
        elif self.phase in (Phase.TAKING, Phase.STABLE):
            self._settle()
        elif self.phase is Phase.PREPARING:
            self._prepare()
        elif self.phase is Phase.LEAVING:
            self._leave(now_ms)
        elif self.phase in (Phase.STALE, Phase.FAILED):
            if call := self.protocol.before_leave(is_lost=True):
                self._make(call)
            elif self.phase is Phase.STALE and self.poll_deadline_ms is None:
                self.phase = Phase.PREPARING
                self._prepare()

    def _settle(self) -> None:
        """Nothing is under way: stay, or begin another round if there is a reason to."""
        self.phase = Phase.STABLE
        if self._generation == NO_GENERATION:
            reason = self._rejoin_because or "membership was lost"
        else:
            changed = self.protocol.wants_rejoin(self._topics, is_leader=self.is_leader)
            reason = self._rejoin_because or changed or ""
        if reason:
            self._rejoin_because = reason
            self.phase = Phase.PREPARING
            self._prepare()

    def _prepare(self) -> None:
        call = self.protocol.before_join(is_lost=self._generation == NO_GENERATION)
        if call is not None:
            self._make(call)
            return
        self._join()

    def _join(self) -> None:
        self.phase = Phase.JOINING
        self.is_leader = False
        self._members = ()
        reason, self._rejoin_because = self._rejoin_because, None
        request = JoinGroupRequest(
            group_id=self.config.group_id,
            session_timeout_ms=self.config.session_timeout_ms,
            rebalance_timeout_ms=self.config.max_poll_interval_ms,
            member_id=self.member_id,
            group_instance_id=self.config.instance_id,
            protocol_type=self.protocol.protocol_type,
            protocols=[JoinGroupRequestProtocol(name=name, metadata=data) for name, data in self.protocol.offers()],
            reason=None if reason is None else reason[:_REASON_CHARS_MAX],
        )
        waits_ms = self.config.max_poll_interval_ms + _JOIN_MARGIN_MS
        self._asked = self._send(request, max(waits_ms, self.config.request_timeout_ms))

    def _pause(self, now_ms: int) -> None:
        """Begin the round again in a while."""
        self._asked = None
        self.phase = Phase.PREPARING if self.phase is not Phase.LEAVING else Phase.LEAVING
        self._retry_ms = now_ms + self._pause_ms()

    def _reset(self, *, keeps_id: bool = False) -> None:
        """The coordinator does not know this generation any more, or the member itself."""
        self._generation = NO_GENERATION
        self._next_beat_ms = None
        self._planned = []
        if not keeps_id:
            self.member_id = ""

    def _fail(self, error: Exception) -> None:
        self._drop_round()
        self.failure = error
        self.phase = Phase.FAILED
        self._reset()
        self._emit(Fail(error))

    def _refused(self, code: ErrorCode) -> KafkaError:
        return refused(code, self.config, protocol="classic", kind=self.protocol.protocol_type)

    # Events from the coordinator.

    def handle_answer(self, number: int, response: Any, now_ms: int) -> None:
        """A request was answered."""
        if number == self._beat:
            self._beat = None
            self._handle_beat(response, now_ms)
        elif number == self._asked:
            self._asked = None
            if isinstance(response, JoinGroupResponse):
                self._handle_join(response, now_ms)
            elif isinstance(response, SyncGroupResponse):
                self._handle_sync(response, now_ms)
            else:
                assert isinstance(response, LeaveGroupResponse), response
                self._handle_leave(response, now_ms)

    def handle_failure(self, number: int, error: KafkaError, now_ms: int) -> None:
        """A request was not sent, or not answered; of what it did nothing is known."""
        if number == self._beat:
            self._beat = None
            self._handle_beat_failure(error, now_ms)
        elif number == self._asked:
            self._asked = None
            if not error.code.retriable and self.phase is not Phase.LEAVING:
                self._fail(error)
                self._advance(now_ms)
                return
            self._emit(ForgetCoordinator())
            self._pause(now_ms)

    def _handle_join(self, response: JoinGroupResponse, now_ms: int) -> None:
        code = error_code(response.error_code)
        if code is ErrorCode.NONE:
            self._handle_joined(response, now_ms)
        elif code is ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = response.member_id
            self._join()
        elif code in _ASK_AGAIN or code is ErrorCode.REBALANCE_IN_PROGRESS:
            if code in COORDINATOR_GONE:
                self._emit(ForgetCoordinator())
            self._pause(now_ms)
        elif code in _LOST:
            self._reset(keeps_id=code is ErrorCode.ILLEGAL_GENERATION)
            self._pause(now_ms)
        else:
            self._fail(self._refused(code))
            self._advance(now_ms)

    def _handle_joined(self, response: JoinGroupResponse, now_ms: int) -> None:
        self._failures = 0
        self.member_id = response.member_id
        # Before version 7 the answer does not say it.
        if response.protocol_type not in (None, self.protocol.protocol_type):
            self._fail(self._refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
            self._advance(now_ms)
            return
        self._generation = response.generation_id
        self._next_beat_ms = now_ms + self.config.heartbeat_interval_ms
        self.protocol_name = response.protocol_name or ""
        self.is_leader = response.leader == response.member_id
        self._topics = None
        if not self.is_leader:
            self._sync({})
            return
        self._members = tuple(
            JoinedMember(member.member_id, member.group_instance_id, bytes(member.metadata))
            for member in response.members
        )
        topics = self.protocol.topics_to_know(self.protocol_name, self._members)
        if response.skip_assignment:
            # A static leader came back, and the assignment stands (KIP-814): it leads from here, and watches topics.
            self._sync({})
        elif topics is None:
            self._assign({}, now_ms)
        else:
            self.phase = Phase.ASSIGNING
            self._asked_topics = topics
            self._emit(AskTopics(topics))

    def handle_topics(self, asked: frozenset[str], topics: Topics, now_ms: int) -> None:
        """How the topics look that the leader asked for; one that is not in `topics` is not there."""
        # What a former round asked for may come late, and lack what this one needs.
        if self.phase is Phase.ASSIGNING and asked == self._asked_topics:
            self._topics = topics
            self._assign(topics, now_ms)

    def _assign(self, topics: Topics, now_ms: int) -> None:
        try:
            shares = self.protocol.assign(self.protocol_name, self._members, topics)
        except Exception as error:  # noqa: BLE001  whatever the owner's assignor raises is the owner's to see
            # The others wait for the assignment: let them choose another leader.
            self._send(self._leave_request("its assignor failed"), self.config.request_timeout_ms)
            self._fail(error)
            self._advance(now_ms)
            return
        self._members = ()
        self._sync(shares)

    def _sync(self, shares: Mapping[str, bytes]) -> None:
        self.phase = Phase.SYNCING
        request = SyncGroupRequest(
            group_id=self.config.group_id,
            generation_id=self._generation,
            member_id=self.member_id,
            group_instance_id=self.config.instance_id,
            protocol_type=self.protocol.protocol_type,
            protocol_name=self.protocol_name,
            assignments=[SyncGroupRequestAssignment(member_id=one, assignment=data) for one, data in shares.items()],
        )
        self._asked = self._send(request, self.config.request_timeout_ms)

    def _handle_sync(self, response: SyncGroupResponse, now_ms: int) -> None:
        code = error_code(response.error_code)
        if code is ErrorCode.NONE:
            self._handle_synced(response, now_ms)
        elif code is ErrorCode.REBALANCE_IN_PROGRESS:
            self.phase = Phase.PREPARING
            self._advance(now_ms)
        elif code in _LOST:
            self._reset(keeps_id=code is ErrorCode.ILLEGAL_GENERATION)
            self.phase = Phase.PREPARING
            self._advance(now_ms)
        elif code in _ASK_AGAIN:
            if code in COORDINATOR_GONE:
                self._emit(ForgetCoordinator())
            self._pause(now_ms)
        else:
            self._fail(self._refused(code))
            self._advance(now_ms)

    def _handle_synced(self, response: SyncGroupResponse, now_ms: int) -> None:
        self._failures = 0
        if response.protocol_type not in (None, self.protocol.protocol_type) or response.protocol_name not in (
            None,
            self.protocol_name,
        ):
            self._fail(self._refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
            self._advance(now_ms)
            return
        try:
            taken = self.protocol.take(self.protocol_name, self._generation, bytes(response.assignment))
        except WireError as error:
            self._fail(
                KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, f"the leader's assignment can't be read: {error}")
            )
            self._advance(now_ms)
            return
        self.phase = Phase.TAKING
        self._planned = list(taken.calls)
        if taken.rejoin is not None:
            self._rejoin_because = taken.rejoin
        self._advance(now_ms)

    # Heartbeats.

    def handle_time(self, now_ms: int) -> None:
        """Do what is due."""
        if self.poll_deadline_ms is not None and self._may_go_stale and now_ms >= self.poll_deadline_ms:
            self._go_stale(now_ms)
        if self._leave_deadline_ms is not None and now_ms >= self._leave_deadline_ms:
            self._be_outside()
        if self._may_beat and self._next_beat_ms is not None and now_ms >= self._next_beat_ms:
            self._beat_as = self.identity
            request = HeartbeatRequest(
                group_id=self.config.group_id,
                generation_id=self._generation,
                member_id=self.member_id,
                group_instance_id=self.config.instance_id,
            )
            self._next_beat_ms = now_ms + self.config.heartbeat_interval_ms
            self._beat = self._send(request, min(self.config.request_timeout_ms, self.config.session_timeout_ms))
        if self._retry_ms is not None and now_ms >= self._retry_ms:
            self._retry_ms = None
            self._advance(now_ms)

    def _handle_beat(self, response: HeartbeatResponse, now_ms: int) -> None:
        code = error_code(response.error_code)
        if self._beat_as != self.identity or self.phase not in _BEATING:
            return  # of another round
        if code is ErrorCode.NONE:
            return
        if code is ErrorCode.REBALANCE_IN_PROGRESS:
            if self.phase in (Phase.TAKING, Phase.STABLE):
                self.rejoin("the group is rebalancing", now_ms)
        elif code in _LOST:
            self._lose(code, now_ms)
        elif code in _ASK_AGAIN:
            if code in COORDINATOR_GONE:
                self._emit(ForgetCoordinator())
            self._beat_soon(now_ms)
        else:
            self._fail(self._refused(code))
            self._advance(now_ms)

    def _handle_beat_failure(self, error: KafkaError, now_ms: int) -> None:
        if not error.code.retriable:
            self._fail(error)
            self._advance(now_ms)
            return
        self._emit(ForgetCoordinator())
        self._beat_soon(now_ms)

    def _beat_soon(self, now_ms: int) -> None:
        if self._next_beat_ms is not None:
            self._next_beat_ms = min(self._next_beat_ms, now_ms + self.config.retry_backoff_ms)

    def _lose(self, code: ErrorCode, now_ms: int) -> None:
        """The coordinator does not know this member in this generation: all it has is lost, and it joins again."""
        self._reset(keeps_id=code is ErrorCode.ILLEGAL_GENERATION)
        self._asked = None
        self._members = ()
        self._rejoin_because = f"the coordinator said {code.name}"
        self.phase = Phase.PREPARING
        self._advance(now_ms)

    def handle_commit_error(self, code: ErrorCode, sent_as: Identity, now_ms: int) -> None:
        """A commit was refused in a way that says something of this member."""
        if sent_as != self.identity or self.phase not in _BEATING:
            return
        if code is ErrorCode.FENCED_INSTANCE_ID:
            self._fail(self._refused(code))
            self._advance(now_ms)
        elif code in _LOST:
            self._lose(code, now_ms)
        elif code is ErrorCode.REBALANCE_IN_PROGRESS:
            self.rejoin("the group is rebalancing", now_ms)

    # Leaving.

    def _go_stale(self, now_ms: int) -> None:
        """The application does not poll: let others have the partitions."""
        if self.config.instance_id is None and self.member_id:
            reason = f"not polled for {self.config.max_poll_interval_ms} ms"
            self._send(self._leave_request(reason), self.config.request_timeout_ms)
        self._drop_round()
        self._reset()
        self.phase = Phase.STALE
        self._advance(now_ms)

    def _leave_request(self, reason: str) -> LeaveGroupRequest:
        identity = MemberIdentity(
            member_id=self.member_id, group_instance_id=self.config.instance_id, reason=reason[:_REASON_CHARS_MAX]
        )
        return LeaveGroupRequest(group_id=self.config.group_id, member_id=self.member_id, members=[identity])

    def _leave(self, now_ms: int) -> None:
        call = self.protocol.before_leave(is_lost=self._generation == NO_GENERATION)
        if call is not None:
            self._make(call)
        elif self._sends_leave and self.member_id:
            if self._leave_deadline_ms is None:
                self._leave_deadline_ms = now_ms + self.config.request_timeout_ms
            left_ms = max(self._leave_deadline_ms - now_ms, 1)
            self._asked = self._send(self._leave_request("the consumer is closed or unsubscribed"), left_ms)
        else:
            self._be_outside()

    def _handle_leave(self, response: LeaveGroupResponse, now_ms: int) -> None:
        codes = {response.error_code, *(member.error_code for member in response.members)}
        again = next((code for one in codes if (code := error_code(one)) in _ASK_AGAIN), None)
        if again is None:
            self._be_outside()
            return
        if again in COORDINATOR_GONE:
            self._emit(ForgetCoordinator())
        self._pause(now_ms)

    def _be_outside(self) -> None:
        self._drop_round()
        self._leave_deadline_ms = None
        self._reset()
        self.phase = Phase.OUTSIDE
