"""A shard of the group coordinator on a log in memory, under virtual time: for tests of the classic protocol.

The log can delay (`hold`, then `commit`), and fail or be taken away (`fail`): the shard is closed then, requests it has
not answered are refused, and a new one replays what was committed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from millstream.core.cluster import ClusterImage
from millstream.core.config import BrokerConfig
from millstream.core.groups.classic import ClassicGroup
from millstream.core.groups.configs import GroupConfigs
from millstream.core.groups.effects import Append, Effect, KeyedRecord, Respond
from millstream.core.groups.group import Caller
from millstream.core.groups.shard import GroupShard
from millstream.core.groups.timer_wheel import TimerWheel
from millstream.core.wire.messages.heartbeat import HeartbeatRequest
from millstream.core.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from millstream.core.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from millstream.core.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

GROUP: Final = "g"
HOST: Final = "/10.0.0.1"
# A consumer's metadata: it reads the topic `flights` (ConsumerProtocolSubscription, version 0). Apache Kafka never ends
# the rebalance of consumers whose metadata it can't read.
SUBSCRIPTION: Final = b"\0\0" + b"\0\0\0\1" + b"\0\7flights" + b"\xff\xff\xff\xff"
# A cluster without topics.
NO_TOPICS: Final = ClusterImage()
# What a request gets that the shard did not answer before it was closed.
REFUSED: Final = "NOT_COORDINATOR"

CONFIGS: Final = replace(
    GroupConfigs.from_broker(BrokerConfig.load(None, {})),
    session_timeout_min_ms=6_000,
    session_timeout_max_ms=1_800_000,
    initial_rebalance_delay_ms=3_000,
    classic_members_max=100,
)


class Coordinator:
    """One shard after the other on the same log. `answers` maps each request's number to its response."""

    def __init__(self, configs: GroupConfigs = CONFIGS, *, seed: int = 0, image: ClusterImage = NO_TOPICS) -> None:
        self.configs = configs
        self.now_ms = 0
        self.image = image
        # What is committed, and what is written behind it.
        self.log: list[KeyedRecord] = []
        self.written: list[Append] = []
        self.holds = False
        self.answers: dict[int, Any] = {}
        self.unanswered: set[int] = set()
        # Called with each effect, and with each refusal, as they happen.
        self.watch: Callable[[Effect], None] = lambda _: None
        # Called when an event is over.
        self.watch_settled: Callable[[], None] = lambda: None
        self._random = random.Random(seed)
        self._requests = 0
        self.timers = TimerWheel()
        self.shard = self._load()

    def _load(self) -> GroupShard:
        shard = self.replayed()
        shard.handle_loaded(self.now_ms)
        return shard

    def replayed(self) -> GroupShard:
        """A shard that has replayed the log, and is to resume."""
        self.timers = TimerWheel()
        shard = GroupShard(
            0,
            configs=self.configs,
            image=self.image,
            timers=self.timers,
            random_source=self._random,
            emit=self._perform,
        )
        for key, value in self.log:
            shard.replay(key, value)
        return shard

    @property
    def group(self) -> ClassicGroup | None:
        found = self.shard.groups.get(GROUP)
        assert found is None or isinstance(found, ClassicGroup)
        return found

    # Effects.

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Append):
            self.written.append(effect)
        else:
            self._answer(effect)
        self.watch(effect)

    def _answer(self, effect: Respond) -> None:
        number = effect.reply
        assert isinstance(number, int)
        assert number in self.unanswered, f"request {number} is answered again: {effect.response}"
        self.unanswered.remove(number)
        self.answers[number] = effect.response

    def commit(self) -> None:
        """Everything written is committed."""
        while self.written:
            append = self.written.pop(0)
            self.log += append.records
            self.shard.handle_committed(append.number)

    def fail(self) -> None:
        """What is written and not committed is lost; another shard takes over."""
        self.shard.close()
        self.written.clear()
        for number in sorted(self.unanswered):
            refusal = Respond(number, REFUSED)
            self._answer(refusal)
            self.watch(refusal)
        self.shard = self._load()
        self._settle()

    def _settle(self) -> None:
        if not self.holds:
            self.commit()
        self.watch_settled()

    # Events.

    def call(self, method: str, request: object, *, version: int = 9, client_id: str = "client") -> int:
        """Send a request; returns its number in `answers`."""
        self._requests += 1
        number = self._requests
        self.unanswered.add(number)
        getattr(self.shard, method)(request, Caller(client_id, HOST, version), number, self.now_ms)
        self._settle()
        return number

    def pass_ms(self, duration_ms: int) -> None:
        """Let time go by, timer by timer."""
        end_ms = self.now_ms + duration_ms
        while (next_ms := self.timers.next_deadline_ms) is not None and next_ms <= end_ms:
            self.now_ms = max(self.now_ms, next_ms)
            self.timers.advance(self.now_ms)
            self._settle()
        self.now_ms = end_ms


def join_request(
    member_id: str = "",
    *,
    instance_id: str | None = None,
    protocols: Iterable[tuple[str, bytes]] = (("range", SUBSCRIPTION),),
    protocol_type: str = "consumer",
    session_ms: int = 10_000,
    rebalance_ms: int = 60_000,
    group_id: str = GROUP,
) -> JoinGroupRequest:
    """A JoinGroup as a consumer sends it."""
    return JoinGroupRequest(
        group_id=group_id,
        session_timeout_ms=session_ms,
        rebalance_timeout_ms=rebalance_ms,
        member_id=member_id,
        group_instance_id=instance_id,
        protocol_type=protocol_type,
        protocols=[JoinGroupRequestProtocol(name=name, metadata=metadata) for name, metadata in protocols],
    )


def sync_request(
    member_id: str,
    generation: int,
    assignments: Iterable[tuple[str, bytes]] = (),
    *,
    instance_id: str | None = None,
    protocol_type: str | None = None,
    protocol_name: str | None = None,
    group_id: str = GROUP,
) -> SyncGroupRequest:
    """A SyncGroup; the leader's has assignments."""
    return SyncGroupRequest(
        group_id=group_id,
        generation_id=generation,
        member_id=member_id,
        group_instance_id=instance_id,
        protocol_type=protocol_type,
        protocol_name=protocol_name,
        assignments=[SyncGroupRequestAssignment(member_id=name, assignment=data) for name, data in assignments],
    )


def heartbeat_request(
    member_id: str, generation: int, *, instance_id: str | None = None, group_id: str = GROUP
) -> HeartbeatRequest:
    """A Heartbeat."""
    return HeartbeatRequest(
        group_id=group_id, generation_id=generation, member_id=member_id, group_instance_id=instance_id
    )


def leave_request(*members: tuple[str, str | None], group_id: str = GROUP) -> LeaveGroupRequest:
    """A LeaveGroup of (member id, instance id)s, as of version 3."""
    return LeaveGroupRequest(
        group_id=group_id,
        members=[MemberIdentity(member_id=member_id, group_instance_id=instance) for member_id, instance in members],
    )
