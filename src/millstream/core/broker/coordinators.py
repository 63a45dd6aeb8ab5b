"""The group coordinator of this broker: a shard for each partition of `__consumer_offsets` that it leads.

A group is kept in the partition that its id says (`groups/partitioning.py`); `request` hands a request to the shard of
its group and returns the answer to come. The topic is created with the first group that looks for its coordinator.
What a shard does to its partition is `shard_host.py`'s; here are what all share: which shards there are, the timers,
the writes of one pass of the loop, metadata, expiry. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from millstream.core.broker.context import AllowAll, Operation, ResourceType
from millstream.core.broker.delayed import Delayed
from millstream.core.groups import partitioning
from millstream.core.groups.partitioning import GROUP_TOPIC
from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.context import RequestContext
    from millstream.core.broker.partition import Partition
    from millstream.core.broker.shard_host import Refusal, ShardHost
    from millstream.core.cluster import ClusterImage, CreateTopic
    from millstream.core.groups.effects import Emit
    from millstream.core.groups.group import Caller
    from millstream.core.groups.shard import GroupShard

logger = logging.getLogger(__name__)

# Shards loaded at a time: each holds a piece of its log meanwhile.
LOADS_COUNT_MAX: Final = 2
# How long one who looks for his coordinator waits for the topic to be created.
CREATION_MS_MAX: Final = 10_000
# Group ids whose partition is remembered.
PARTITIONS_KEPT_MAX: Final = 10_000
# What is remembered of those who ask: client id, host and version of the API.
CALLERS_KEPT_MAX: Final = 10_000
# Longer client ids and group ids are not remembered: a client may make them of 32 KiB.
KEPT_NAME_LENGTH_MAX: Final = 256
# What expiry does in one pass of the loop.
EXPIRY_SLICE_S: Final = 0.001
# What timers do in one pass of the loop.
TIMERS_SLICE_S: Final = 0.001

NEVER_MS: Final = 2**63

_kept_partition_for = lru_cache(PARTITIONS_KEPT_MAX)(partitioning.partition_for)


def _partition_for(group_id: str, count: int) -> int:
    keep = len(group_id) <= KEPT_NAME_LENGTH_MAX
    return _kept_partition_for(group_id, count) if keep else partitioning.partition_for(group_id, count)


def _new_caller(client_id: str, host: str, api_version: int) -> Caller:
    """Return one who may describe every topic."""
    from millstream.core.groups.group import Caller

    return Caller(client_id, f"/{host}", api_version)


_kept_caller = lru_cache(CALLERS_KEPT_MAX)(_new_caller)


class Coordinators:
    """The shards of this broker, and what they share.

    States: STOPPED -> RUNNING (start: the partitions led here are loaded, and those to come) -> STOPPED (stop).
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.loads = asyncio.Semaphore(LOADS_COUNT_MAX)
        # Made with the first shard: who serves no groups does not pay for their modules.
        self._timers: Any = None
        # What the operator set, dynamic configs included.
        self.configs: Any = None
        self._random = random.Random()
        self._hosts: dict[int, ShardHost] = {}
        # Hosts whose shards appended in this pass of the loop.
        self._to_write: dict[ShardHost, None] = {}
        # The wheel is turned next by this, at the time in ms.
        self._turning: asyncio.TimerHandle | None = None
        self._turning_ms = NEVER_MS
        self._creation: asyncio.Task[None] | None = None
        # Shards count time from here: sessions must not end because somebody sets the clock.
        self._time_offset_ms = broker.clock.now_ms() - broker.clock.monotonic_ms()
        self._running = False

    def start(self) -> None:
        """Load what is led here, and follow what comes."""
        self._running = True
        broker = self.broker
        broker.metadata.subscribe(self._handle_image)
        broker.partitions.watch(GROUP_TOPIC, self._handle_partition)
        for partition in broker.partitions.of_topic(GROUP_TOPIC):
            self._handle_partition(partition)

    async def stop(self) -> None:
        """Resign from everything; whoever waits is refused."""
        self._running = False
        if self._turning is not None:
            self._turning.cancel()
        hosts = list(self._hosts.values())
        for host in hosts:
            host.stop()
        self._hosts.clear()
        tasks = [host.task for host in hosts if host.task is not None]
        if self._creation is not None:
            tasks.append(self._creation)
        await asyncio.gather(*tasks, return_exceptions=True)

    def now_ms(self) -> int:
        """Return the shards' time: the wall's at the start, and as long as has passed since."""
        return self.broker.clock.monotonic_ms() + self._time_offset_ms

    # Requests

    def host_of(self, group_id: str) -> ShardHost:
        """Return the host of the shard that keeps a group.

        Raises KafkaError: NOT_COORDINATOR where this broker does not lead its partition,
        COORDINATOR_LOAD_IN_PROGRESS while it is loaded.
        """
        topic = self.broker.metadata.image.topics.get(GROUP_TOPIC)
        if topic is not None:
            host = self._hosts.get(_partition_for(group_id, len(topic.partitions)))
            if host is not None:
                if host.serving is None:
                    raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
                return host
        raise KafkaError(ErrorCode.NOT_COORDINATOR)

    def shard_of(self, group_id: str) -> GroupShard:
        """Return the shard that keeps a group; raises as `host_of`."""
        shard = self.host_of(group_id).serving
        assert shard is not None, "a host that answers has a shard"
        return shard

    def shards(self) -> list[GroupShard]:
        """Return the shards that serve."""
        return [host.serving for host in self._hosts.values() if host.serving is not None]

    def counts(self) -> dict[str, int]:
        """Return how many shards serve, and how many are being loaded."""
        active = len(self.shards())
        return {"active": active, "loading": len(self._hosts) - active}

    def request(
        self, group_id: str, name: str, request: Any, context: RequestContext, *, refusal: Refusal | None = None
    ) -> Delayed[Any]:
        """Hand a request to the method `name` of the shard that keeps the group, and return its answer to come.

        `refusal` makes of an error the answer of the API; without one the Delayed fails with it.
        """
        try:
            host = self.host_of(group_id)
        except KafkaError as error:
            delayed: Delayed[Any] = Delayed()
            if refusal is None:
                delayed.fail(error)
            else:
                delayed.complete(refusal(error))
            return delayed
        now_ms = self.now_ms()
        return self._ask(host, name, request, context, now_ms, refusal)

    def request_all(self, name: str, request: Any, context: RequestContext, *, refusal: Refusal) -> list[Delayed[Any]]:
        """Hand a request to every shard of this broker; `refusal` is the answer of those that are being loaded."""
        answers = []
        now_ms = self.now_ms()
        for host in list(self._hosts.values()):
            if host.serving is None:
                delayed: Delayed[Any] = Delayed()
                delayed.complete(refusal(KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)))
                answers.append(delayed)
            else:
                answers.append(self._ask(host, name, request, context, now_ms, refusal))
        return answers

    def _ask(
        self, host: ShardHost, name: str, request: Any, context: RequestContext, now_ms: int, refusal: Refusal | None
    ) -> Delayed[Any]:
        client_id = context.client_id or ""
        make_caller = _kept_caller if len(client_id) <= KEPT_NAME_LENGTH_MAX else _new_caller
        caller = make_caller(client_id, context.host, context.api_version)
        if type(context.authorizer) is not AllowAll:
            caller = caller._replace(
                visible_topics=lambda names: context.authorize(Operation.DESCRIBE, ResourceType.TOPIC, names, str)[0]
            )
        delayed = host.request(name, request, caller, now_ms, refusal)
        self.turn_timers()
        return delayed

    # The topic

    @property
    def is_created(self) -> bool:
        """Whether `__consumer_offsets` is there and served."""
        return GROUP_TOPIC in self.broker.metadata.image.topics and bool(self.broker.partitions.of_topic(GROUP_TOPIC))

    def partition_of(self, group_id: str) -> int:
        """Return the partition that keeps a group; the topic is there."""
        return _partition_for(group_id, len(self.broker.metadata.image.topics[GROUP_TOPIC].partitions))

    async def create_topic(self) -> None:
        """Create `__consumer_offsets`, and wait until it is served; KafkaError where it cannot be."""
        if self._creation is None:
            self._creation = self.broker.loop.create_task(self._create_topic())
            self._creation.add_done_callback(self._created)
        try:
            async with asyncio.timeout(CREATION_MS_MAX / 1000):
                await asyncio.shield(self._creation)
        except TimeoutError as error:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"{GROUP_TOPIC} is still being created") from error

    def _created(self, task: asyncio.Task[None]) -> None:
        self._creation = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("%s could not be created: %s", GROUP_TOPIC, error)

    async def _create_topic(self) -> None:
        from millstream.core.cluster.topics import TopicDefaults, plan_create_topic

        config = self.broker.config

        def plan(image: ClusterImage) -> Sequence[CreateTopic]:
            if GROUP_TOPIC in image.topics:
                return []
            return plan_create_topic(
                image,
                GROUP_TOPIC,
                num_partitions=config.integer("offsets.topic.num.partitions"),
                replication_factor=min(config.integer("offsets.topic.replication.factor"), max(len(image.brokers), 1)),
                configs={
                    "cleanup.policy": "compact",
                    "compression.type": "producer",
                    "segment.bytes": str(config.integer("offsets.topic.segment.bytes")),
                },
                defaults=TopicDefaults(config.num_partitions, config.default_replication_factor),
            )

        image = await self.broker.metadata.commit(plan)
        await self.broker.partitions.applied(image.version)

    # Shards

    def make_shard(self, partition: Partition, emit: Emit) -> GroupShard:
        """Return a new shard for a partition, to be loaded."""
        from millstream.core.groups.shard import GroupShard
        from millstream.core.groups.timer_wheel import TimerWheel

        if self._timers is None:
            self._timers = TimerWheel()
            self._take_configs(self.broker.metadata.image)
        return GroupShard(
            partition.index,
            configs=self.configs,
            image=self.broker.metadata.image,
            timers=self._timers,
            random_source=self._random,
            emit=emit,
            append_size_bytes_max=partition.rules.max_message_bytes,
        )

    def forget(self, host: ShardHost) -> None:
        """The host serves nothing any more."""
        host.stop()
        if self._hosts.get(host.partition.index) is host:
            del self._hosts[host.partition.index]

    def _handle_partition(self, partition: Partition) -> None:
        """A partition of the topic came, went, or is led by another."""
        from millstream.core.broker.shard_host import ShardHost

        if not self._running:
            return
        host = self._hosts.get(partition.index)
        if host is not None and (host.partition is not partition or not partition.is_leader):
            self.forget(host)
            host = None
        if host is not None:
            host.check()
        elif partition.is_leader:
            host = self._hosts[partition.index] = ShardHost(self, partition)
            host.start()

    def _handle_image(self, old: ClusterImage, new: ClusterImage) -> None:
        if old.broker_configs is not new.broker_configs and self.configs is not None:
            self._take_configs(new)
            for shard in self.shards():
                shard.reconfigure(self.configs)
        now_ms = self.now_ms()
        for shard in self.shards():
            shard.handle_image(new, now_ms)
        self.turn_timers()

    def _take_configs(self, image: ClusterImage) -> None:
        from millstream.core.groups.configs import GroupConfigs

        self.configs = GroupConfigs.from_broker(self.broker.config.with_dynamic(image.broker_configs))

    # Writes, timers, expiry

    def write_soon(self, host: ShardHost) -> None:
        """Write what the host's shard appended, with what others append in this pass of the loop."""
        if not self._to_write:
            self.broker.loop.call_soon(self._write)
        self._to_write[host] = None

    def _write(self) -> None:
        hosts, self._to_write = self._to_write, {}
        for host in hosts:
            host.write()
        connections = self.broker.connections
        connections.hold_answers()
        try:
            self.broker.appends.submit()
        finally:
            connections.send_held()

    def turn_timers(self) -> None:
        """See to it that the wheel is turned when its next timer falls due."""
        deadline_ms = None if self._timers is None else self._timers.next_deadline_ms
        if deadline_ms is None or deadline_ms >= self._turning_ms or not self._running:
            return
        if self._turning is not None:
            self._turning.cancel()
        self._turning_ms = deadline_ms
        pause_s = max(deadline_ms - self.now_ms(), 0) / 1000
        self._turning = self.broker.loop.call_later(pause_s, self._turn)

    def _turn(self) -> None:
        self._turning, self._turning_ms = None, NEVER_MS
        try:
            until = self.broker.loop.time() + TIMERS_SLICE_S
            self._timers.advance(self.now_ms(), is_over=lambda: self.broker.loop.time() >= until)
        except Exception:
            # One group's trouble is not that of the others, whose timers stand in the same wheel.
            logger.exception("a timer of the group coordinator failed")
        self.turn_timers()

    async def expire_offsets(self) -> None:
        """Delete the committed offsets that have expired (KIP-211)."""
        loop = self.broker.loop
        until = loop.time() + EXPIRY_SLICE_S
        for host in list(self._hosts.values()):
            shard = host.serving
            if shard is None:
                continue
            for _ in shard.expire_offsets(self.now_ms()):
                if loop.time() >= until:
                    await asyncio.sleep(0)
                    until = loop.time() + EXPIRY_SLICE_S
                    if host.serving is not shard:
                        break
