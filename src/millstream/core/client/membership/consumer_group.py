"""A member of a consumer group (KIP-848): one kind of request, the heartbeat, says and brings everything.

Sans-I/O; see machine.py for how it is fed. The coordinator tells what this member is to have; the member takes it step
by step, and says in its next heartbeat what it has then:

    a heartbeat's answer brings an assignment, by topic ids
      -> REVOKED, what is not in it (others get it only after it was acknowledged)
      -> ASSIGNED, what is new in it, as far as the topics' names are known
      -> a heartbeat at once, with all it has

A heartbeat says only what changed since the last one that was answered, and everything after one that was not.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.membership.effects import (
    Call,
    CallKind,
    Fail,
    ForgetCoordinator,
    MembershipState,
    RefreshTopics,
)
from millstream.core.client.membership.machine import (
    COORDINATOR_GONE,
    Identity,
    MemberConfig,
    MemberMachine,
    earliest,
)
from millstream.core.client.membership.refusals import refused
from millstream.core.wire import ErrorCode, KafkaError, error_code, uuid_text
from millstream.core.wire.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)

JOIN_EPOCH: Final = 0
LEAVE_EPOCH: Final = -1
STATIC_LEAVE_EPOCH: Final = -2

_FENCED: Final = frozenset({ErrorCode.FENCED_MEMBER_EPOCH, ErrorCode.UNKNOWN_MEMBER_ID})
_ASK_AGAIN: Final = COORDINATOR_GONE | {
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NETWORK_EXCEPTION,
}

Held = frozenset[tuple[bytes, int]]
"""Partitions as (topic id, number)."""


class Phase(Enum):
    """See ConsumerGroupMember."""

    OUTSIDE = "outside"
    JOINING = "joining"
    MEMBER = "member"
    FENCED = "fenced"
    LEAVING = "leaving"
    STALE = "stale"
    FAILED = "failed"


class _Told(NamedTuple):
    """What the coordinator has been told of this member."""

    topics: frozenset[str] | None
    pattern: str | None
    held: Held


class ConsumerGroupMember(MemberMachine):
    """One member.

    States: OUTSIDE -> JOINING (start) -> MEMBER (the first answer)
            MEMBER, JOINING -> FENCED (the coordinator knows another epoch, or not this member) -> JOINING (all let go)
            any but OUTSIDE -> LEAVING (leave) -> OUTSIDE
            any -> STALE (not polled for max.poll.interval.ms) -> JOINING (begin_poll)
            any -> FAILED (what only a person can mend) -> JOINING (start)
    """

    def __init__(self, config: MemberConfig, random_source: random.Random) -> None:
        super().__init__(config, random_source)
        # Made here (KIP-1082), so that a join whose answer is lost makes no second member.
        self.member_id = uuid_text(random_source.randbytes(16))
        self.phase = Phase.OUTSIDE
        # The member epoch: 0 until it was taken in.
        self.epoch = JOIN_EPOCH
        # One of both is set, once `subscribe` was called.
        self._topics: frozenset[str] | None = None
        self._pattern: str | None = None
        # Names of topics by id, as far as they came up. Invariant: every id in `held` is in it.
        self._names: dict[bytes, str] = {}
        # What it has. During a REVOKED or LOST call it still has it.
        self.held: Held = frozenset()
        # What it is to have, None where nothing was said since it joined; and what of that has no name yet.
        self._target: Held | None = None
        self._unnamed: frozenset[bytes] = frozenset()
        # Whether the target was put in place as far as it has names.
        self._is_reconciled = True
        # None where it has to be told everything.
        self._told: _Told | None = None
        # What the heartbeat under way tells.
        self._telling: _Told | None = None
        self._asked: int | None = None
        self._beat_interval_ms = config.heartbeat_interval_ms
        self._next_beat_ms: int | None = None
        # Whether the coordinator was told what this member has, and has not answered: it may take the rest of the
        # target for free and give it to others, so nothing is added until then.
        self._is_reporting = False
        # Whether the last assignment waits to be acknowledged.
        self._must_acknowledge = False
        # Whether an ASSIGNED call was made since it joined: the first one is, of no partitions too.
        self._has_assignment = False
        # What the call under way is about, by ids.
        self._calling_held: Held = frozenset()
        # The epoch to leave with, None to leave without a word; and the same once everything is given up.
        self._goodbye: int | None = None
        self._leave_epoch: int | None = None
        self._leave_deadline_ms: int | None = None

    # What the owner sees.

    @property
    def state(self) -> MembershipState:
        """As every machine says it."""
        if self.phase is Phase.MEMBER:
            return MembershipState.STABLE if self._is_reconciled else MembershipState.RECONCILING
        if self.phase is Phase.FENCED:
            return MembershipState.JOINING
        return MembershipState(self.phase.value)

    @property
    def generation(self) -> int:
        """The member epoch; 0 and less outside of the group."""
        return self.epoch

    @property
    def owned(self) -> frozenset[TopicPartition]:
        """What it has, by names."""
        return self._named(self.held)

    @property
    def unnamed(self) -> frozenset[bytes]:
        """Ids in its assignment that no name is known of yet."""
        return self._unnamed

    @property
    def commits_as(self) -> Identity | KafkaError:
        """As whom offsets are committed now, or why none can be."""
        if self.epoch > JOIN_EPOCH:
            return Identity(self.epoch, self.member_id, self.config.instance_id)
        return self.not_a_member()

    @property
    def next_deadline_ms(self) -> int | None:
        """When handle_time has something to do."""
        beat_ms = self._next_beat_ms if self._may_beat else None
        poll_ms = self.poll_deadline_ms if self._may_go_stale else None
        return earliest(beat_ms, poll_ms, self._leave_deadline_ms)

    @property
    def _may_beat(self) -> bool:
        beats = self.phase in (Phase.JOINING, Phase.MEMBER) or (
            self.phase is Phase.LEAVING and self._leave_epoch is not None
        )
        return beats and self._asked is None

    @property
    def _may_go_stale(self) -> bool:
        return self.phase in (Phase.JOINING, Phase.MEMBER, Phase.FENCED)

    # Events from the owner.

    def subscribe(self, topics: Iterable[str] | None, pattern: str | None, now_ms: int) -> None:
        """Want to read these topics, or those that match a pattern (RE2), from now on."""
        self._topics = None if topics is None else frozenset(topics)
        self._pattern = pattern
        if self.phase is Phase.MEMBER:
            self._next_beat_ms = now_ms
            self.handle_time(now_ms)

    def start(self, now_ms: int) -> None:
        """Enter the group, or do so again after leaving it or a failure."""
        if self.phase not in (Phase.OUTSIDE, Phase.FAILED):
            return
        self.failure = None
        self._failures = 0
        self.phase = Phase.FENCED
        self._advance(now_ms)

    def rejoin(self, reason: str, now_ms: int) -> None:
        """Nothing to do: the broker shares whenever something has changed, and a member has no say in it."""

    def leave(self, now_ms: int, *, for_good: bool | None = None) -> None:
        """Give everything up and leave. By default a static member stays listed, since it will come back."""
        if self.phase in (Phase.OUTSIDE, Phase.LEAVING):
            return
        if for_good is None:
            for_good = self.config.instance_id is None
        goodbye = LEAVE_EPOCH if for_good else STATIC_LEAVE_EPOCH
        # One that the coordinator does not know need not say it, nor one that is to run into its session timeout.
        is_known = self.phase in (Phase.JOINING, Phase.MEMBER)
        stays_listed = goodbye == STATIC_LEAVE_EPOCH and self.config.instance_id is None
        self._goodbye = goodbye if is_known and not stays_listed else None
        self._drop()
        self._failures = 0
        self.phase = Phase.LEAVING
        self._advance(now_ms)

    def handle_names(self, names: Mapping[bytes, str], now_ms: int) -> None:
        """Names of topics became known."""
        if not self._unnamed.isdisjoint(names):
            self._names.update((topic_id, names[topic_id]) for topic_id in self._unnamed & names.keys())
            self._is_reconciled = False
            self._advance(now_ms)

    def _drop(self) -> None:
        """What is under way does not count any more, its answer will be passed over."""
        self._asked = None
        self._told = None
        self._target = None
        self._unnamed = frozenset()
        self._is_reconciled = True
        self._is_reporting = False
        self._must_acknowledge = False
        self._next_beat_ms = None

    # Steps.

    def _named(self, held: Held) -> frozenset[TopicPartition]:
        return frozenset(TopicPartition(self._names[topic_id], partition) for topic_id, partition in held)

    def _make(self, kind: CallKind, held: Held) -> None:
        self._calling_held = held
        if kind is CallKind.ASSIGNED:
            self.held |= held
        self._call(kind, self._named(held))

    def _called(self, call: Call) -> None:
        if call.kind is not CallKind.ASSIGNED:
            self.held -= self._calling_held
        wanted = {topic_id for topic_id, _ in self.held | (self._target or frozenset())}
        self._names = {topic_id: name for topic_id, name in self._names.items() if topic_id in wanted}

    def _advance(self, now_ms: int) -> None:
        if self.calling is not None:
            return
        if self.phase is Phase.MEMBER:
            self._reconcile(now_ms)
        elif self.phase is Phase.LEAVING:
            self._leave(now_ms)
        elif self.phase in (Phase.FENCED, Phase.STALE, Phase.FAILED):
            if self.held:
                self._make(CallKind.LOST, self.held)
            elif self.phase is Phase.FENCED or (self.phase is Phase.STALE and self.poll_deadline_ms is None):
                self._join(now_ms)

    def _join(self, now_ms: int) -> None:
        self._drop()
        self.epoch = JOIN_EPOCH
        self.phase = Phase.JOINING
        self._next_beat_ms = now_ms
        self.handle_time(now_ms)

    def _reconcile(self, now_ms: int) -> None:
        """Take one step towards the target."""
        target = self._target
        if target is None or self._is_reconciled:
            return
        known = frozenset(one for one in target if one[0] in self._names)
        if revoked := self.held - target:
            self._make(CallKind.REVOKED, revoked)
        elif (added := known - self.held) or (known == target and not self._has_assignment):
            if self._is_reporting:
                return
            self._has_assignment = True
            self._make(CallKind.ASSIGNED, added)
        else:
            self._unnamed = frozenset(topic_id for topic_id, _ in target - known)
            self._is_reconciled = True
            if self._unnamed:
                self._emit(RefreshTopics(self._unnamed))
            # What has no name yet is not acknowledged by what it has: that would give it away.
            acknowledges = self._must_acknowledge and not self._unnamed
            if acknowledges or self._told is None or self._told.held != self.held:
                self._must_acknowledge = True
                self._next_beat_ms = now_ms
                self.handle_time(now_ms)

    def _fence(self, now_ms: int) -> None:
        """The coordinator goes on without this member: it lets go of everything and joins anew."""
        self._drop()
        self.epoch = JOIN_EPOCH
        self.phase = Phase.FENCED
        self._advance(now_ms)

    def _fail(self, error: Exception, now_ms: int) -> None:
        self._drop()
        self.epoch = JOIN_EPOCH
        self.failure = error
        self.phase = Phase.FAILED
        self._emit(Fail(error))
        self._advance(now_ms)

    # Heartbeats.

    def handle_time(self, now_ms: int) -> None:
        """Do what is due."""
        if self.poll_deadline_ms is not None and self._may_go_stale and now_ms >= self.poll_deadline_ms:
            self._go_stale(now_ms)
        if self._leave_deadline_ms is not None and now_ms >= self._leave_deadline_ms:
            self._be_outside()
        if self._may_beat and self._next_beat_ms is not None and now_ms >= self._next_beat_ms:
            self._beat(now_ms)

    def _beat(self, now_ms: int) -> None:
        request = self._request() if self._leave_epoch is None else self._bare_request(self._leave_epoch)
        self._next_beat_ms = now_ms + self._beat_interval_ms
        self._asked = self._send(request, self.config.request_timeout_ms)

    def _bare_request(self, epoch: int) -> ConsumerGroupHeartbeatRequest:
        return ConsumerGroupHeartbeatRequest(
            group_id=self.config.group_id,
            member_id=self.member_id,
            member_epoch=epoch,
            instance_id=self.config.instance_id,
        )

    def _request(self) -> ConsumerGroupHeartbeatRequest:
        request = self._bare_request(self.epoch)
        told = self._told
        now = _Told(self._topics, self._pattern, self.held)
        if told is None:
            request.rack_id = self.config.rack
            request.rebalance_timeout_ms = self.config.max_poll_interval_ms
            request.server_assignor = self.config.server_assignor
            # Neither may be left out by one who joins; a pattern alone is no list of topics.
            request.subscribed_topic_names = None if self._topics is None else sorted(self._topics)
            request.subscribed_topic_regex = self._pattern
        else:
            if told.topics != now.topics:
                request.subscribed_topic_names = sorted(now.topics or ())
            if told.pattern != now.pattern:
                request.subscribed_topic_regex = now.pattern or ""
        if self.epoch == JOIN_EPOCH:
            request.topic_partitions = []
        elif told is None or (self._must_acknowledge and not self._unnamed) or told.held != self.held:
            topics: dict[bytes, TopicPartitions] = {}
            for topic_id, partition in sorted(self.held):
                topics.setdefault(topic_id, TopicPartitions(topic_id=topic_id)).partitions.append(partition)
            request.topic_partitions = list(topics.values())
            self._is_reporting = True
            self._must_acknowledge = False
        else:
            now = now._replace(held=told.held)
        self._telling = now
        return request

    def handle_answer(self, number: int, response: Any, now_ms: int) -> None:
        """A heartbeat was answered."""
        if number != self._asked:
            return
        self._asked = None
        assert isinstance(response, ConsumerGroupHeartbeatResponse), response
        code = error_code(response.error_code)
        if self.phase is Phase.LEAVING:
            self._handle_goodbye(code, now_ms)
        elif code is ErrorCode.NONE:
            self._handle_beat(response, now_ms)
        elif code in _FENCED and self.phase is Phase.MEMBER:
            self._fence(now_ms)
        elif code in _ASK_AGAIN or code in _FENCED:
            if code in COORDINATOR_GONE:
                self._emit(ForgetCoordinator())
            self._tell_all_again(now_ms)
        else:
            self._fail(self._refused(code, response.error_message), now_ms)

    def handle_failure(self, number: int, error: KafkaError, now_ms: int) -> None:
        """A heartbeat was not sent, or not answered; of what it did nothing is known."""
        if number != self._asked:
            return
        self._asked = None
        if not error.code.retriable and self.phase is not Phase.LEAVING:
            if error.code is ErrorCode.UNSUPPORTED_VERSION:
                error = self._refused(error.code, None)
            self._fail(error, now_ms)
            return
        self._emit(ForgetCoordinator())
        self._tell_all_again(now_ms)

    def _tell_all_again(self, now_ms: int) -> None:
        self._told = None
        self._next_beat_ms = now_ms + self._pause_ms()

    def _refused(self, code: ErrorCode, message: str | None) -> KafkaError:
        return refused(code, self.config, protocol="consumer", message=message)

    def _handle_beat(self, response: ConsumerGroupHeartbeatResponse, now_ms: int) -> None:
        self._failures = 0
        self._told = self._telling
        self._is_reporting = False
        if self.phase is Phase.JOINING:
            self.phase = Phase.MEMBER
            self._has_assignment = False
        if response.member_id:
            self.member_id = response.member_id
        self.epoch = response.member_epoch
        self._beat_interval_ms = response.heartbeat_interval_ms or self._beat_interval_ms
        # One that was due while this one was under way, to say something new, stays due.
        acknowledges = self._must_acknowledge and self._is_reconciled and not self._unnamed
        says_more = acknowledges or self._has_news(self._telling)
        self._next_beat_ms = now_ms if says_more else now_ms + self._beat_interval_ms
        if response.assignment is not None:
            self._take(response.assignment)
        self._advance(now_ms)
        self.handle_time(now_ms)

    def _has_news(self, told: _Told | None) -> bool:
        return told is not None and (told.topics != self._topics or told.pattern != self._pattern)

    def _take(self, assignment: Assignment) -> None:
        target = frozenset((topic.topic_id, each) for topic in assignment.topic_partitions for each in topic.partitions)
        # Said again by a coordinator that was told everything: it may wait for the acknowledgement all the same.
        self._target = target
        self._is_reconciled = False
        self._must_acknowledge = True

    def learn_names(self, names: Mapping[bytes, str]) -> None:
        """Names that the surroundings know already; call it before an answer with an assignment is handed in."""
        self._names.update(names)

    def handle_commit_error(self, code: ErrorCode, sent_as: Identity, now_ms: int) -> None:
        """A commit was refused in a way that says something of this member: a heartbeat finds out what."""
        if sent_as.generation == self.epoch and self.phase is Phase.MEMBER and code in _FENCED:
            self._next_beat_ms = now_ms
            self.handle_time(now_ms)

    # Leaving.

    def _go_stale(self, now_ms: int) -> None:
        """The application does not poll: let others have the partitions."""
        goodbye = LEAVE_EPOCH if self.config.instance_id is None else STATIC_LEAVE_EPOCH
        if self.phase is not Phase.FENCED:
            self._send(self._bare_request(goodbye), self.config.request_timeout_ms)
        self._drop()
        self.epoch = goodbye
        self.phase = Phase.STALE
        self._advance(now_ms)

    def _leave(self, now_ms: int) -> None:
        if self.held:
            # Fenced before, or never in: what it has is lost.
            self._make(CallKind.REVOKED if self.epoch > JOIN_EPOCH else CallKind.LOST, self.held)
        elif self._goodbye is None:
            self._be_outside()
        elif self._leave_epoch is None:
            self._leave_epoch = self._goodbye
            self._leave_deadline_ms = now_ms + self.config.request_timeout_ms
            self._next_beat_ms = now_ms
            self.handle_time(now_ms)

    def _handle_goodbye(self, code: ErrorCode, now_ms: int) -> None:
        if code not in _ASK_AGAIN:
            self._be_outside()
            return
        if code in COORDINATOR_GONE:
            self._emit(ForgetCoordinator())
        self._next_beat_ms = now_ms + self._pause_ms()

    def _be_outside(self) -> None:
        self._drop()
        self._leave_epoch = None
        self._leave_deadline_ms = None
        self.epoch = LEAVE_EPOCH
        self.phase = Phase.OUTSIDE
