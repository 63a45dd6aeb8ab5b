"""A member of a group, on the loop: performs what its machine asks for, and tells its owner.

    machine            decides (classic.py, consumer_group.py)
    Membership         sends requests, keeps time, asks for metadata, awaits the owner's callbacks
    OffsetCommitter    commits as the member that the machine is

Tasks: one per request under way, one for the callback under way, one that watches topics. All end with `close`. The
owner's callbacks are awaited one at a time; the group waits for them, and heartbeats go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.membership.assignors import Assignor, assignors_named
from millstream.core.client.membership.classic import ClassicMember
from millstream.core.client.membership.commits import Offsets
from millstream.core.client.membership.consumer_group import ConsumerGroupMember
from millstream.core.client.membership.consumer_protocol import ConsumerProtocol
from millstream.core.client.membership.coordinator import ROUNDS, GroupCoordinator
from millstream.core.client.membership.effects import (
    AskTopics,
    Call,
    CallKind,
    Effect,
    Fail,
    ForgetCoordinator,
    MembershipState,
    RefreshTopics,
    Send,
)
from millstream.core.client.membership.group_protocol import CustomProtocol, GroupProtocol
from millstream.core.client.membership.machine import Identity, MemberConfig, MemberMachine
from millstream.core.client.membership.membership_metrics import MembershipMetrics
from millstream.core.client.membership.offset_committer import CommitsAs, OffsetCommitter
from millstream.core.client.membership.topic_watch import TopicWatch, compiled
from millstream.core.client.unforeseen import unforeseen
from millstream.core.config.client_config import ClientConfig
from millstream.core.config.definition import ConfigError
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatResponse
from millstream.core.wire.messages.join_group import JoinGroupRequest
from millstream.core.wire.messages.leave_group import LeaveGroupRequest

_logger: Final = logging.getLogger(__name__)


class MembershipListener(Protocol):
    """Who owns a Membership. What is told are partitions of consumers, bytes of other protocol types.

    Nothing of these may raise; an error is logged, and the group goes on.
    """

    async def on_assigned(self, assigned: Any) -> None:
        """These came in addition to what it has."""
        ...

    async def on_revoked(self, revoked: Any) -> None:
        """These go once this returns; until then they may be committed."""
        ...

    async def on_lost(self, lost: Any) -> None:
        """These are gone, and may be another member's already: there is nothing to commit any more."""
        ...

    def on_failed(self, error: Exception) -> None:
        """Membership ended with an error that only a person can mend."""
        ...


class GroupMetadata(NamedTuple):
    """Who a member is, for commits by others: a producer's transaction takes it along (KIP-447)."""

    group_id: str
    generation_id: int
    member_id: str
    group_instance_id: str | None


class Membership:
    """One member of one group, of either protocol; owned by the loop.

    States: see MembershipState and the machines.
    """

    def __init__(
        self,
        client: Client,
        config: ClientConfig,
        listener: MembershipListener,
        *,
        assignors: Sequence[Assignor] = (),
        protocol: CustomProtocol | None = None,
        consumed: Callable[[], Offsets] = dict,
        random_source: random.Random | None = None,
    ) -> None:
        """Do nothing yet; `subscribe`, or `start` with a protocol of one's own, joins.

        Raises ConfigError for configs that do not go together.
        """
        member = _member_config(config)
        source = random_source or random.Random()
        self._client = client
        self._listener = listener
        self._custom = protocol
        self._coordinator = GroupCoordinator(client, member.group_id)
        self._watch = TopicWatch(
            client,
            auto_create=config.boolean("allow.auto.create.topics"),
            excludes_internal=config.boolean("exclude.internal.topics"),
        )
        self._consumer: ConsumerProtocol | None = None
        self._machine: MemberMachine
        if config.string("group.protocol").lower() == "consumer":
            if protocol is not None or assignors:
                raise ConfigError("With group.protocol=consumer the broker assigns: see group.remote.assignor")
            self._machine = ConsumerGroupMember(member, source)
        else:
            spoken: GroupProtocol
            if protocol is None:
                given = assignors or assignors_named(config.strings("partition.assignment.strategy"))
                spoken = self._consumer = ConsumerProtocol(given, rack=member.rack)
            else:
                spoken = protocol
            self._machine = ClassicMember(member, spoken, source)
        self.committer = OffsetCommitter(
            self._coordinator, config, commits_as=_Member(self), consumed=consumed, backoff=client.backoff
        )
        self.metrics = MembershipMetrics(is_consumer_group=isinstance(self._machine, ConsumerGroupMember))
        self._max_age_s = config.seconds("metadata.max.age.ms")
        self._request_timeout_ms = config.integer("request.timeout.ms")
        # A pattern that is matched here: in a classic group only its members know it.
        self._pattern: re.Pattern[str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._namer: asyncio.Task[None] | None = None
        # Those that wait for a state.
        self._waiters: list[tuple[MembershipState, asyncio.Future[None]]] = []
        self._is_polling = False
        # Whether it is to be in the group; one that is still on its way out comes back then.
        self._wants_in = False
        self._is_closed = False
        # Why topics cannot be looked for, while that does not mend by itself.
        self._watch_failure: KafkaError | None = None
        # What nothing foresaw: the machine may not be right any more, and nothing is done with it.
        self._broken: KafkaError | None = None

    # What it is.

    @property
    def state(self) -> MembershipState:
        """Where it stands."""
        return self._machine.state

    @property
    def failure(self) -> Exception | None:
        """Why membership ended, if it did by itself; `retry` begins again."""
        return self._broken or self._machine.failure or self._watch_failure

    @property
    def member_id(self) -> str:
        """Its id in the group; empty as long as the coordinator has given none."""
        return self._machine.member_id

    @property
    def generation(self) -> int:
        """The generation, or the member epoch of a consumer group; below 0 outside of the group."""
        return self._machine.generation

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions it has, those included that a callback under way gives or takes."""
        if isinstance(self._machine, ConsumerGroupMember):
            return self._machine.owned
        return self._consumer.owned if self._consumer is not None else frozenset()

    @property
    def topics(self) -> frozenset[str]:
        """Topics that it reads, as far as it knows: those a broker matches to a pattern once it has some of them."""
        if self._consumer is not None:
            return self._consumer.topics
        return frozenset(tp.topic for tp in self.assignment)

    def group_metadata(self) -> GroupMetadata:
        """Return who it is now."""
        machine = self._machine
        return GroupMetadata(machine.config.group_id, machine.generation, machine.member_id, machine.config.instance_id)

    def __repr__(self) -> str:
        return (
            f"<Membership in {self._machine.config.group_id!r}: {self.state.value}, generation {self.generation}, "
            f"{len(self.assignment)} partitions>"
        )

    # What the owner does.

    def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group, or tell it, to read these topics."""
        self._pattern = None
        self._subscribe(frozenset(topics))

    def subscribe_pattern(self, pattern: str) -> None:
        """Join the group, or tell it, to read the topics whose names match a regular expression (RE2) end to end.

        A consumer group's broker matches it; a classic group's member does, each metadata.max.age.ms. Raises
        ConfigError.
        """
        if isinstance(self._machine, ConsumerGroupMember):
            self._machine.subscribe(None, pattern, self._now_ms())
            self._begin()
            return
        self._pattern = compiled(pattern)
        self._watch_topics(at_once=True)

    def start(self) -> None:
        """Join, with a protocol of one's own."""
        assert self._custom is not None, "subscribe joins"
        self._begin()

    def retry(self) -> None:
        """Join again after a failure."""
        self._begin()

    def rejoin(self, reason: str) -> None:
        """Have the group share anew. In a consumer group the broker does so by itself, and this does nothing."""
        self._machine.rejoin(reason, self._now_ms())
        self._perform()

    def begin_poll(self) -> None:
        """The application is here: max.poll.interval.ms stands still, and a member that left by it comes back."""
        self._is_polling = True
        self._machine.begin_poll(self._now_ms())
        self._perform()

    def end_poll(self) -> None:
        """The application goes to work: max.poll.interval.ms begins."""
        self._is_polling = False
        self._machine.end_poll(self._now_ms())
        self._perform()

    async def unsubscribe(self, *, timeout_ms: int | None = None, leave_group: bool | None = None) -> None:
        """Give up everything (on_revoked) and leave; returns after `timeout_ms` in any case.

        `leave_group` False lets the session run out instead; by default a static member does that (KIP-1092).
        """
        self._pattern = None
        self._wants_in = False
        self._stop_watching()
        if self._broken is not None:
            # The coordinator notices by the session timeout.
            return
        timeout_s = (self._request_timeout_ms if timeout_ms is None else timeout_ms) / 1000
        deadline = asyncio.get_running_loop().time() + timeout_s
        await self.committer.flush(timeout_ms=round(timeout_s * 1000))
        self._machine.leave(self._now_ms(), for_good=leave_group)
        self._perform()
        left_s = max(deadline - asyncio.get_running_loop().time(), 0)
        if not await self._reaches(MembershipState.OUTSIDE, left_s):
            _logger.warning("%r: did not get out of the group in %g s", self, timeout_s)

    async def close(self, *, timeout_ms: int | None = None, leave_group: bool | None = None) -> None:
        """Leave as `unsubscribe` does, and end every task; nothing may be called after it."""
        if self._is_closed:
            return
        self._is_closed = True
        timeout_ms = self._request_timeout_ms if timeout_ms is None else timeout_ms
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        try:
            await self.unsubscribe(timeout_ms=timeout_ms, leave_group=leave_group)
            await self.committer.close(timeout_ms=max(round((deadline - loop.time()) * 1000), 0))
        finally:
            self._stop_watching()
            if self._timer is not None:
                self._timer.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._coordinator.close()

    async def _reaches(self, state: MembershipState, timeout_s: float) -> bool:
        if self.state is not state:
            reached = asyncio.get_running_loop().create_future()
            self._waiters.append((state, reached))
            await asyncio.wait([reached], timeout=timeout_s)
            self._waiters = [one for one in self._waiters if one[1] is not reached]
        return self.state is state

    # The machine.

    def _now_ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000)

    def _subscribe(self, topics: frozenset[str]) -> None:
        if isinstance(self._machine, ConsumerGroupMember):
            self._machine.subscribe(topics, None, self._now_ms())
        else:
            assert self._consumer is not None, "a protocol of one's own has no topics"
            assert isinstance(self._machine, ClassicMember), self._machine
            self._consumer.subscribe(topics)
            self._machine.handle_subscribed(self._now_ms())
        self._begin()

    def _begin(self) -> None:
        self._wants_in = True
        if self.state is MembershipState.FAILED:
            self._start()
        self._perform()

    def _start(self) -> None:
        now_ms = self._now_ms()
        if not self._is_polling:
            self._machine.end_poll(now_ms)
        self._machine.start(now_ms)

    def _perform(self) -> None:
        """Do what the machine asks for, and come back when it has something due."""
        if self._broken is not None:
            return
        if self._wants_in and self.state is MembershipState.OUTSIDE:
            self._start()
        for effect in self._machine.take_effects():
            self._perform_one(effect)
        self.metrics.note_state(self.state, self._now_ms())
        self._arm()
        for state, waiter in self._waiters:
            if state is self.state and not waiter.done():
                waiter.set_result(None)

    def _perform_one(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._spawn(self._ask(effect))
        elif isinstance(effect, Call):
            self._spawn(self._tell(effect))
        elif isinstance(effect, AskTopics):
            self._spawn(self._learn_topics(effect.topics))
        elif isinstance(effect, RefreshTopics):
            if self._namer is None or self._namer.done():
                self._namer = self._spawn(self._learn_names())
        elif isinstance(effect, ForgetCoordinator):
            self._coordinator.forget()
        else:
            assert isinstance(effect, Fail), effect
            self._listener.on_failed(effect.error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"member of {self._machine.config.group_id}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """Nothing foresaw `error`: it is ours, and nobody may poll for ever without hearing of it."""
        _logger.error("%r failed", self, exc_info=error)
        if self._broken is None:
            self._broken = unforeseen(f"the membership in group {self._machine.config.group_id!r}", error)
            if self._timer is not None:
                self._timer.cancel()
            self._stop_watching()
            self._listener.on_failed(self._broken)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ms = self._machine.next_deadline_ms
        if due_ms is not None:
            self._timer = asyncio.get_running_loop().call_at(due_ms / 1000, self._turn)

    def _turn(self) -> None:
        self._timer = None
        try:
            self._machine.handle_time(self._now_ms())
            self._perform()
        except Exception as error:  # noqa: BLE001  told by every poll from now on
            self._break(error)

    async def _ask(self, send: Send) -> None:
        rounds = not isinstance(send.message, LeaveGroupRequest)
        asked_ms = self._now_ms()
        self.metrics.note_asked(send.message, asked_ms)
        try:
            response = await self._coordinator.request(
                send.message, timeout_s=send.timeout_ms / 1000, lane=ROUNDS if rounds else ""
            )
        except KafkaError as error:
            if error.code is ErrorCode.BROKER_NOT_AVAILABLE:  # it was the coordinator, and left the cluster
                error = KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, error.message)
            self._machine.handle_failure(send.number, error, self._now_ms())
        else:
            self.metrics.note_answered(send.message, response, self._now_ms() - asked_ms, self._now_ms())
            if isinstance(response, ConsumerGroupHeartbeatResponse) and response.assignment is not None:
                assert isinstance(self._machine, ConsumerGroupMember), self._machine
                ids = [topic.topic_id for topic in response.assignment.topic_partitions]
                self._machine.learn_names(self._watch.known_names(ids))
            self._machine.handle_answer(send.number, response, self._now_ms())
            if isinstance(send.message, JoinGroupRequest):
                self._watch_topics()
        self._perform()

    async def _tell(self, call: Call) -> None:
        listener = self._listener
        tell = {
            CallKind.ASSIGNED: listener.on_assigned,
            CallKind.REVOKED: listener.on_revoked,
            CallKind.LOST: listener.on_lost,
        }[call.kind]
        called_ms = self._now_ms()
        try:
            await tell(call.what)
        except Exception:
            _logger.exception("%r: its owner failed to take %s", self, call.kind.value)
        self.metrics.note_called(call.kind, self._now_ms() - called_ms)
        if call.kind is CallKind.REVOKED:
            # What was committed on the way has to be there before another member asks for it.
            await self.committer.flush(timeout_ms=self._request_timeout_ms)
        self._machine.handle_called(self._now_ms())
        self._perform()

    # Topics.

    async def _learn_topics(self, topics: frozenset[str]) -> None:
        assert isinstance(self._machine, ClassicMember), self._machine
        failures = 0
        while True:
            try:
                layouts = await self._watch.layouts(topics)
                break
            except KafkaError as error:
                _logger.warning("%r: no metadata to assign with: %s", self, error)
            failures += 1
            await asyncio.sleep(self._client.backoff.pause_s(failures))
        self._machine.handle_topics(topics, layouts, self._now_ms())
        self._perform()

    async def _learn_names(self) -> None:
        """Ask until every id of the assignment has a name, or the assignment is another one."""
        machine = self._machine
        assert isinstance(machine, ConsumerGroupMember), machine
        failures = 0
        while unnamed := machine.unnamed:
            names = self._watch.known_names(unnamed)
            if len(names) < len(unnamed):
                try:
                    names |= await self._watch.names(unnamed - names.keys())
                except KafkaError as error:
                    _logger.warning("%r: no names of topics: %s", self, error)
            machine.handle_names(names, self._now_ms())
            self._perform()
            failures += 1
            await asyncio.sleep(self._client.backoff.pause_s(failures))

    def _watch_topics(self, *, at_once: bool = False) -> None:
        """See to it that somebody looks at the topics, if this member needs that."""
        if at_once:
            self._stop_watching()
        if self._consumer is not None and (self._watcher is None or self._watcher.done()) and not self._is_closed:
            self._watcher = self._spawn(self._keep_watching(self._consumer))

    def _stop_watching(self) -> None:
        self._watch_failure = None
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _keep_watching(self, consumer: ConsumerProtocol) -> None:
        """Refresh metadata now and then: patterns match new topics, and the leader's topics get new partitions."""
        machine = self._machine
        assert isinstance(machine, ClassicMember), machine
        failures = 0
        while True:
            try:
                complete = await self._look_at_topics(machine, consumer)
                self._watch_failure = None
            except KafkaError as error:
                _logger.warning("%r: no metadata: %s", self, error)
                complete = False
                if not error.code.retriable and self.state is MembershipState.OUTSIDE:
                    # Nobody joins before topics match, so nothing else would say it.
                    self._watch_failure = error
                    self._listener.on_failed(error)
            failures = 0 if complete else failures + 1
            pause_s = self._max_age_s if complete else min(self._client.backoff.pause_s(failures), self._max_age_s)
            await asyncio.sleep(pause_s)

    async def _look_at_topics(self, machine: ClassicMember, consumer: ConsumerProtocol) -> bool:
        """Take in how topics look; return whether all are there that should be."""
        if self._pattern is not None:
            topics = await self._watch.matching(self._pattern)
            if topics != consumer.topics or self.state is MembershipState.OUTSIDE:
                self._subscribe(topics)
        if not machine.is_leader:
            return True
        wanted = consumer.group_topics
        layouts = await self._watch.layouts(wanted)
        if machine.is_leader and wanted == consumer.group_topics:
            machine.handle_topics_seen(layouts, self._now_ms())
            self._perform()
        return layouts.keys() == wanted


class _Member(CommitsAs):
    """As whom a Membership commits: nobody in particular as long as it was never asked to join."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self.is_consumer_group = isinstance(membership._machine, ConsumerGroupMember)

    def identity(self) -> Identity | KafkaError:
        """As the machine says; outside of the group, by hand."""
        if self._membership.state is MembershipState.OUTSIDE:
            return Identity()
        return self._membership._machine.commits_as

    def holds(self, partitions: Iterable[TopicPartition]) -> bool:
        """Whether all of these are its own."""
        return self._membership.assignment >= set(partitions)

    def refused(self, code: ErrorCode, identity: Identity) -> None:
        """Have the machine know."""
        membership = self._membership
        membership._machine.handle_commit_error(code, identity, membership._now_ms())
        membership._perform()


def _member_config(config: ClientConfig) -> MemberConfig:
    group_id = config.string_or_none("group.id")
    if not group_id:
        raise ConfigError("A member of a group needs its name: set group.id", name="group.id")
    session_ms, heartbeat_ms = config.integer("session.timeout.ms"), config.integer("heartbeat.interval.ms")
    if heartbeat_ms >= session_ms:
        raise ConfigError(
            f"heartbeat.interval.ms={heartbeat_ms} must be less than session.timeout.ms={session_ms}",
            name="heartbeat.interval.ms",
        )
    return MemberConfig(
        group_id=group_id,
        instance_id=config.string_or_none("group.instance.id"),
        rack=config.string_or_none("client.rack") or None,
        session_timeout_ms=session_ms,
        max_poll_interval_ms=config.integer("max.poll.interval.ms"),
        heartbeat_interval_ms=heartbeat_ms,
        request_timeout_ms=config.integer("request.timeout.ms"),
        retry_backoff_ms=config.integer("retry.backoff.ms"),
        retry_backoff_max_ms=config.integer("retry.backoff.max.ms"),
        server_assignor=config.string_or_none("group.remote.assignor"),
    )
