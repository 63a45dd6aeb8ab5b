"""Our own members of a group against our own coordinator, in one process, under virtual time; deterministic by a seed.

    VirtualLoop   an asyncio loop whose clock jumps to the next timer: minutes pass in seconds, and load has no say
    SimCluster    one shard of the real coordinator on one of two brokers; a network that delays and loses
    SimMember     the real Membership and OffsetCommitter, with an application that polls, works and commits

Invariants hold at each callback and at each commit that the coordinator takes; `World` checks them.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from tests.support.classic_groups import GROUP, REFUSED
from tests.support.consumer_groups import ConsumerCoordinator, topic_id

from millstream.core.client.backoff import Backoff
from millstream.core.client.cluster import BrokerNode, Cluster, PartitionInfo, TopicInfo, TopicPartition
from millstream.core.client.group_offsets import CommittedOffset
from millstream.core.client.membership import CommitFailedError, Membership, MembershipState
from millstream.core.config.client_config import ClientConfig
from millstream.core.config.client_configs import CONSUMER_CONFIGS
from millstream.core.groups.effects import Effect, Respond
from millstream.core.net import Address
from millstream.core.wire import APIS, ApiKey, ErrorCode, KafkaError, decode, encode
from millstream.core.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatResponse
from millstream.core.wire.messages.find_coordinator import Coordinator as FoundCoordinator
from millstream.core.wire.messages.find_coordinator import FindCoordinatorResponse
from millstream.core.wire.messages.heartbeat import HeartbeatResponse
from millstream.core.wire.messages.join_group import JoinGroupResponse
from millstream.core.wire.messages.leave_group import LeaveGroupResponse
from millstream.core.wire.messages.metadata import MetadataResponse, MetadataResponseTopic
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from millstream.core.wire.messages.offset_fetch import OffsetFetchResponse, OffsetFetchResponseGroup
from millstream.core.wire.messages.sync_group import SyncGroupResponse

T = TypeVar("T")

NODES: Final = (1, 2)
TICK_S: Final = 0.02
_METHODS: Final = {
    ApiKey.JOIN_GROUP: "join_group",
    ApiKey.SYNC_GROUP: "sync_group",
    ApiKey.HEARTBEAT: "heartbeat",
    ApiKey.LEAVE_GROUP: "leave_group",
    ApiKey.OFFSET_COMMIT: "offset_commit",
    ApiKey.CONSUMER_GROUP_HEARTBEAT: "consumer_group_heartbeat",
}
_REFUSALS: Final = {
    ApiKey.JOIN_GROUP: JoinGroupResponse,
    ApiKey.SYNC_GROUP: SyncGroupResponse,
    ApiKey.HEARTBEAT: HeartbeatResponse,
    ApiKey.LEAVE_GROUP: LeaveGroupResponse,
    ApiKey.CONSUMER_GROUP_HEARTBEAT: ConsumerGroupHeartbeatResponse,
}


class _JumpingSelector(selectors.DefaultSelector):
    """Where the loop would wait, time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits, and nothing will ever happen"
            self.now += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop without a clock of its own."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtual(work: Awaitable[T]) -> T:
    """Run to the end, in virtual time; what is left running is cancelled."""
    loop = VirtualLoop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:

            async def main() -> T:
                return await work

            return runner.run(main())
    finally:
        loop.close()


class SimCluster:
    """The coordinator, topics, and what is wrong with them."""

    def __init__(self, seed: int, topics: Mapping[str, int]) -> None:
        self.random = random.Random(seed)
        self.coordinator = ConsumerCoordinator(topics, seed=seed)
        self.coordinator.watch = self._watch
        self.topics = dict(topics)
        # The broker that has the shard; None while nobody has.
        self.node: int | None = NODES[0]
        # How often a request or its answer is lost, and how long each takes at most.
        self.loss = 0.0
        self.delay_s = 0.02
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        # Called with each commit that the shard took.
        self.watch_commit: Callable[[Any, Any], None] = lambda _request, _response: None
        self.requests: list[tuple[float, str, Any, Any]] = []

    def _watch(self, effect: Effect) -> None:
        if isinstance(effect, Respond):
            assert isinstance(effect.reply, int)
            waiter = self._waiting.pop(effect.reply, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(effect.response)

    def keep_time(self) -> None:
        """Let the coordinator's time reach the loop's."""
        now_ms = round(asyncio.get_running_loop().time() * 1000)
        self.coordinator.pass_ms(max(now_ms - self.coordinator.now_ms, 0))

    async def tick(self) -> None:
        """Keep the coordinator's timers going."""
        while True:
            self.keep_time()
            await asyncio.sleep(TICK_S)

    def fail(self) -> None:
        """The shard is lost and loaded again, from what was committed."""
        self.keep_time()
        self.coordinator.fail()

    def move(self, node: int | None) -> None:
        """Another broker has the shard, or none for now."""
        self.fail()
        self.node = node

    def add_partitions(self, topic: str, count: int) -> None:
        self.topics[topic] = count
        self.keep_time()
        self.coordinator.set_topics(self.topics)

    def cluster(self, names: Iterable[str] | None) -> Cluster:
        """What Metadata says."""
        chosen = self.topics if names is None else [name for name in names if name in self.topics]
        return Cluster(
            cluster_id="simulated",
            controller_id=NODES[0],
            brokers={node: BrokerNode(node, Address("broker", node)) for node in NODES},
            topics={
                name: TopicInfo(
                    name,
                    topic_id(name),
                    is_internal=False,
                    partitions=tuple(
                        PartitionInfo(each, NODES[0], 0, NODES, NODES, ()) for each in range(self.topics[name])
                    ),
                )
                for name in chosen
            },
        )

    async def ask(self, node: int, key: ApiKey, request: Any, version: int, client_id: str) -> Any:
        """Answer a request as the broker `node` does."""
        self.keep_time()
        if key is ApiKey.FIND_COORDINATOR:
            if self.node is None:
                code, found = ErrorCode.COORDINATOR_NOT_AVAILABLE, -1
            else:
                code, found = ErrorCode.NONE, self.node
            one = FoundCoordinator(key=GROUP, node_id=found, error_code=code)
            return FindCoordinatorResponse(coordinators=[one])
        if node != self.node:
            return refusal(key, request, ErrorCode.NOT_COORDINATOR)
        if key is ApiKey.OFFSET_FETCH:
            group = await self._call("offset_fetch", (request.groups[0], request.require_stable), version, client_id)
            if not isinstance(group, OffsetFetchResponseGroup):
                code = group.code if isinstance(group, KafkaError) else ErrorCode.NOT_COORDINATOR
                group = OffsetFetchResponseGroup(group_id=GROUP, error_code=code)
            return OffsetFetchResponse(groups=[group])
        response = await self._call(_METHODS[key], request, version, client_id)
        if isinstance(response, KafkaError):
            return refusal(key, request, response.code)
        if response == REFUSED:
            return refusal(key, request, ErrorCode.NOT_COORDINATOR)
        if key is ApiKey.OFFSET_COMMIT:
            self.watch_commit(request, response)
        return response

    async def _call(self, method: str, request: Any, version: int, client_id: str) -> Any:
        number = self.coordinator.call(method, request, version=version, client_id=client_id)
        if number not in self.coordinator.unanswered:
            return self.coordinator.answers.pop(number)
        waiter = self._waiting[number] = asyncio.get_running_loop().create_future()
        return await waiter


def refusal(key: ApiKey, request: Any, code: ErrorCode) -> Any:
    """The answer of a broker that does not do it."""
    if key is ApiKey.OFFSET_COMMIT:
        return OffsetCommitResponse(
            topics=[
                OffsetCommitResponseTopic(
                    name=topic.name,
                    partitions=[
                        OffsetCommitResponsePartition(partition_index=each.partition_index, error_code=code)
                        for each in topic.partitions
                    ],
                )
                for topic in request.topics
            ]
        )
    if key is ApiKey.OFFSET_FETCH:
        return OffsetFetchResponse(groups=[OffsetFetchResponseGroup(group_id=GROUP, error_code=code)])
    return _REFUSALS[key](error_code=code)


class SimConnection:
    """One lane to one broker: requests are served one after the other."""

    def __init__(self, client: SimClient, node: int) -> None:
        self._client = client
        self._node = node
        self._turn = asyncio.Lock()

    def version(self, key: ApiKey) -> int:
        return APIS[key].versions[-1]

    async def request(self, message: Any, *, timeout_s: float) -> Any:
        client, cluster = self._client, self._client.sim
        key = ApiKey(message.__wire__.key)
        version = self.version(key)
        request = decode(type(message), version, encode(message, version))[0]
        loses_request = cluster.random.random() < cluster.loss
        loses_answer = cluster.random.random() < cluster.loss

        async def serve() -> Any:
            await asyncio.sleep(cluster.random.uniform(0, cluster.delay_s))
            if loses_request or client.is_dead:
                raise KafkaError(ErrorCode.NETWORK_EXCEPTION, "the request was lost")
            async with self._turn:
                response = await cluster.ask(self._node, key, request, version, client.name)
            cluster.requests.append((asyncio.get_running_loop().time(), client.name, request, response))
            await asyncio.sleep(cluster.random.uniform(0, cluster.delay_s))
            if loses_answer or client.is_dead:
                raise KafkaError(ErrorCode.NETWORK_EXCEPTION, "the answer was lost")
            return decode(type(response), version, encode(response, version))[0]

        try:
            return await asyncio.wait_for(serve(), timeout_s)
        except TimeoutError as error:
            client.drop(self)
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, "no answer in time") from error


class SimClient:
    """What Membership needs of a Client."""

    def __init__(self, sim: SimCluster, name: str) -> None:
        self.sim = sim
        self.name = name
        self.is_dead = False
        self.request_timeout_ms = 5_000
        self.backoff = Backoff(0.1, 1.0, generator=random.Random(name))
        self.cluster = Cluster()
        self._lanes: dict[tuple[int, str], SimConnection] = {}

    def drop(self, connection: SimConnection) -> None:
        self._lanes = {lane: each for lane, each in self._lanes.items() if each is not connection}

    async def connection(self, node: int | None = None, *, lane: str = "") -> SimConnection:
        key = (node or NODES[0], lane)
        if key not in self._lanes:
            self._lanes[key] = SimConnection(self, key[0])
        return self._lanes[key]

    async def metadata(self, topics: Iterable[str] | None = None, **_: Any) -> Cluster:
        names = None if topics is None else list(topics)
        await self._travel()
        seen = self.sim.cluster(names)
        self.cluster = Cluster(
            seen.cluster_id, seen.controller_id, seen.brokers, {**self.cluster.topics, **seen.topics}
        )
        return self.cluster

    async def request(self, message: Any, **_: Any) -> Any:
        """Metadata by topic ids."""
        await self._travel()
        names = {topic_id(name): name for name in self.sim.topics}
        return MetadataResponse(
            topics=[
                MetadataResponseTopic(name=names[topic.topic_id], topic_id=topic.topic_id)
                for topic in message.topics
                if topic.topic_id in names
            ]
        )

    async def _travel(self) -> None:
        await asyncio.sleep(self.sim.random.uniform(0, 2 * self.sim.delay_s))
        if self.is_dead or self.sim.random.random() < self.sim.loss:
            raise KafkaError(ErrorCode.NETWORK_EXCEPTION, "the metadata was lost")

    async def retried(self, attempt: Callable[[], Awaitable[T]], **_: Any) -> T:
        failures = 0
        while True:
            try:
                return await attempt()
            except KafkaError as error:
                failures += 1
                if not error.code.retriable or failures > 60:
                    raise
            await asyncio.sleep(self.backoff.pause_s(failures))


class World:
    """Who has what, over all members; what must hold is checked as it happens."""

    def __init__(self, sim: SimCluster) -> None:
        self.sim = sim
        self.members: list[SimMember] = []
        # Highest offset that the coordinator took, by partition.
        self.committed: dict[TopicPartition, int] = {}
        self.commits = 0
        # What must not be, in the order it happened.
        self.broken: list[str] = []
        sim.watch_commit = self._check_commit

    def known_ids(self) -> set[str]:
        """Members in the group, as the coordinator has it."""
        group = self.sim.coordinator.shard.groups.get(GROUP)
        return set(getattr(group, "members", {}))

    def check_assigned(self, member: SimMember, assigned: frozenset[TopicPartition]) -> None:
        """Nobody else whom the coordinator knows has any of it."""
        known = self.known_ids()
        for other in self.members:
            both = other.held & assigned if other is not member else frozenset()
            if both and other.membership.member_id in known:
                self.broken.append(f"{member.name} is given {sorted(both)}, which {other!r} has, in the group as well")

    def _check_commit(self, request: Any, response: Any) -> None:
        codes = {
            (topic.name, each.partition_index): each.error_code
            for topic in response.topics
            for each in topic.partitions
        }
        for topic in request.topics:
            for each in topic.partitions:
                if codes[topic.name, each.partition_index] == ErrorCode.NONE:
                    tp = TopicPartition(topic.name, each.partition_index)
                    before = self.committed.get(tp, 0)
                    if each.committed_offset < before:
                        self.broken.append(
                            f"{request.member_id} set {tp} back from {before} to {each.committed_offset}"
                        )
                    self.committed[tp] = each.committed_offset
                    self.commits += 1


class SimMember:
    """A member with its application: polls, runs callbacks in its polls, works on what it has, commits."""

    def __init__(
        self, world: World, name: str, topics: Iterable[str], *, pattern: str | None = None, **configs: Any
    ) -> None:
        self.world = world
        self.name = name
        self.topics = frozenset(topics)
        self.pattern = pattern
        self.instance_id = configs.get("group_instance_id")
        self.random = random.Random(name)
        self.client = SimClient(world.sim, name)
        settings = {
            "group_id": GROUP,
            "session_timeout_ms": 10_000,
            "heartbeat_interval_ms": 500,
            "max_poll_interval_ms": 20_000,
            "request_timeout_ms": 5_000,
            "metadata_max_age_ms": 2_000,
            "auto_commit_interval_ms": 700,
            **configs,
        }
        config = ClientConfig.load(CONSUMER_CONFIGS, "broker:1", settings)
        self.membership = Membership(
            self.client,  # type: ignore[arg-type]
            config,
            self,
            consumed=self.consumed,
            random_source=random.Random(name),
        )
        self.held: frozenset[TopicPartition] = frozenset()
        # How far it has come with each partition it knows the committed offset of.
        self.positions: dict[TopicPartition, int] = {}
        self.events: list[tuple[str, frozenset[TopicPartition]]] = []
        self.failures: list[Exception] = []
        self.answered: list[int] = []
        self._asked = 0
        # A callback that waits for a poll, and the one that is running.
        self._pending: tuple[Callable[[], Awaitable[None]], asyncio.Future[None]] | None = None
        self._in_callback = False
        # How long the application works between polls.
        self.work_s = 0.05
        self._app: asyncio.Task[None] | None = None
        self._closing = False

    def __repr__(self) -> str:
        return f"{self.name} {self.membership!r}"

    def start(self) -> None:
        self.world.members.append(self)
        if self.pattern is not None:
            self.membership.subscribe_pattern(self.pattern)
        else:
            self.membership.subscribe(self.topics)
        self.membership.committer.start_auto_commit()
        self._app = asyncio.create_task(self._run(), name=f"application {self.name}")

    def consumed(self) -> dict[TopicPartition, CommittedOffset]:
        return {tp: CommittedOffset(at) for tp, at in self.positions.items() if tp in self.held}

    # The listener.

    def _demand(self, is_so: bool, message: str) -> None:
        """Fail the test: what a listener raises is only logged."""
        if not is_so:
            self.world.broken.append(message)

    async def _in_poll(self, work: Callable[[], Awaitable[None]]) -> None:
        self._demand(not self._in_callback, f"{self.name}: two callbacks at once")
        self._in_callback = True
        if self._closing:
            await work()
        else:
            done = asyncio.get_running_loop().create_future()
            self._pending = (work, done)
            await done
        self._in_callback = False

    async def on_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        self._demand(not assigned & self.held, f"{self.name} is given {assigned & self.held} again")
        self.world.check_assigned(self, assigned)
        self.held |= assigned
        self.events.append(("assigned", assigned))

        async def begin() -> None:
            pass

        await self._in_poll(begin)

    async def on_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        self._demand(revoked <= self.held, f"{self.name} is to give up {revoked - self.held}, which it has not")

        async def give_up() -> None:
            await self.membership.committer.commit_consumed(timeout_ms=3_000)

        await self._in_poll(give_up)
        self.events.append(("revoked", revoked))
        self._drop(revoked)

    async def on_lost(self, lost: frozenset[TopicPartition]) -> None:
        self._demand(lost <= self.held, f"{self.name} loses {lost - self.held}, which it has not")

        async def nothing() -> None:
            pass

        await self._in_poll(nothing)
        self.events.append(("lost", lost))
        self._drop(lost)

    def on_failed(self, error: Exception) -> None:
        self.failures.append(error)

    def _drop(self, gone: frozenset[TopicPartition]) -> None:
        self.held -= gone
        self.positions = {tp: at for tp, at in self.positions.items() if tp not in gone}

    # The application.

    async def _run(self) -> None:
        committer = self.membership.committer
        while True:
            self.membership.begin_poll()
            await self._run_pending()
            await self._maybe_retry()
            await self._find_positions()
            self.membership.end_poll()
            for tp in self.held & self.positions.keys():
                self.positions[tp] += self.random.randrange(3)
            if self.random.random() < 0.2 and self._may_commit():
                await self._commit(committer)
            elif self.random.random() < 0.3 and self._may_commit():
                self._asked += 1
                committer.commit_soon(self.consumed(), partial(self._committed, self._asked))
            await asyncio.sleep(self.random.uniform(0, 2 * self.work_s))

    async def _run_pending(self) -> None:
        if self._pending is not None:
            work, done = self._pending
            await work()
            self._pending = None
            if not done.done():
                done.set_result(None)

    def _committed(self, number: int, _offsets: Any, _error: KafkaError | None) -> None:
        self.answered.append(number)

    async def _maybe_retry(self) -> None:
        """One that crashed may still be listed under the instance's name: start again, as a supervisor does."""
        if self.membership.state is MembershipState.FAILED:
            codes = {error.code for error in self.failures if isinstance(error, KafkaError)}
            if codes <= {ErrorCode.UNRELEASED_INSTANCE_ID}:
                self.failures.clear()
                await asyncio.sleep(1)
                self.membership.retry()

    def _may_commit(self) -> bool:
        return bool(self.held & self.positions.keys())

    async def _commit(self, committer: Any) -> None:
        try:
            await committer.commit(self.consumed(), timeout_ms=4_000)
        except CommitFailedError:
            pass
        except KafkaError as error:
            if not error.code.retriable:
                raise

    async def _find_positions(self) -> None:
        missing = [tp for tp in sorted(self.held) if tp not in self.positions]
        if not missing:
            return
        try:
            committed = await self.membership.committer.committed(missing, timeout_ms=2_000)
        except KafkaError:
            return
        for tp in missing:
            if tp in self.held:
                offset = committed[tp].offset if tp in committed else 0
                self.positions[tp] = offset

    async def close(self) -> None:
        """End in order."""
        self._closing = True
        await self._end_application()
        await self._run_pending()
        await self.membership.close(timeout_ms=20_000)
        self.world.members.remove(self)

    async def crash(self) -> None:
        """End at once: nobody hears of it again."""
        self.client.is_dead = True
        await self._end_application()
        self._closing = True
        if self._pending is not None:
            self._pending[1].cancel()
        await self.membership.close(timeout_ms=0)
        self.world.members.remove(self)

    async def _end_application(self) -> None:
        if self._app is not None:
            self._app.cancel()
            await asyncio.gather(self._app, return_exceptions=True)
            if not self._app.cancelled() and (error := self._app.exception()) is not None:
                raise error

    def check(self) -> None:
        """Raise what its application failed with or what must not be, and check callbacks of commits."""
        assert not self.world.broken, self.world.broken
        if self._app is not None and self._app.done() and not self._app.cancelled():
            self._app.result()
        assert self.answered == sorted(self.answered), f"{self.name}: callbacks out of order: {self.answered}"


def is_settled(world: World, topics: Iterable[str]) -> bool:
    """Whether every partition has one member, and everybody is at rest."""
    wanted = {TopicPartition(name, each) for name in topics for each in range(world.sim.topics[name])}
    held = [tp for member in world.members for tp in member.held]
    return sorted(held) == sorted(wanted) and all(
        member.membership.state is MembershipState.STABLE and member.held == member.membership.assignment
        for member in world.members
    )
