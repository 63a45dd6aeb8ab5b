"""Every partition this broker holds, by topic and index. Owned by the event loop.

The control plane keeps them in step with the metadata image: it creates and deletes logs on worker threads, calls
`add` and `remove`, and says with `handle_applied` which image is served, for which handlers may wait with `applied`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from millstream.core.broker.partition import Partition
from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.cluster import PartitionState
    from millstream.core.log import Log, TopicPartition

logger = logging.getLogger(__name__)

# What the broker keeps for itself, as clients are told; they may read it.
INTERNAL_TOPICS: Final = frozenset({"__consumer_offsets", "__transaction_state"})


class Partitions:
    """The partitions of this broker by topic and index."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._by_topic: dict[str, dict[int, Partition]] = {}
        # The same partitions by (topic name, index) and by (topic id, index). Invariant: those of _by_topic, twice.
        self._by_key: dict[tuple[str | bytes, int], Partition] = {}
        # Version of the newest image whose partitions all answer.
        self.applied_version = -1
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        # Moves whenever a partition comes or goes: whoever keeps Partition objects by name drops them then.
        self.version = 0
        # Who is told of each partition of a topic that came, changed or went.
        self._watchers: dict[str, Callable[[Partition], None]] = {}

    def watch(self, topic: str, callback: Callable[[Partition], None]) -> None:
        """Call `callback` with each partition of `topic` that comes, takes over a new state, or goes (OFFLINE)."""
        self._watchers[topic] = callback

    def __iter__(self) -> Iterator[Partition]:
        for partitions in list(self._by_topic.values()):
            yield from list(partitions.values())

    def __len__(self) -> int:
        return sum(len(partitions) for partitions in self._by_topic.values())

    def get(self, topic: str, index: int) -> Partition | None:
        """Return the partition, whatever its state; None where this broker holds no such one."""
        partitions = self._by_topic.get(topic)
        return partitions.get(index) if partitions is not None else None

    def find(self, key: tuple[str | bytes, int]) -> Partition | None:
        """Return the partition of (topic name or topic id, index), whatever its state."""
        return self._by_key.get(key)

    def of_topic(self, topic: str) -> list[Partition]:
        """Return the partitions of one topic that this broker holds."""
        return list(self._by_topic.get(topic, {}).values())

    def leader(self, topic: str, index: int, current_leader_epoch: int = -1) -> Partition:
        """Return the partition if this broker leads it in the epoch the client knows (-1: any); KafkaError
        otherwise.
        """
        partition = self.get(topic, index)
        if partition is None:
            raise KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                f"this broker holds no partition {topic}-{index}; refresh metadata",
            )
        partition.check_leader(current_leader_epoch)
        return partition

    def add(self, topic_id: bytes, tp: TopicPartition, state: PartitionState, log: Log | None) -> Partition:
        """Serve a partition from its log; one that is here already takes over the new state. Without a log it is
        offline.
        """
        partition = self.get(tp.topic, tp.partition)
        if partition is None or partition.topic_id != topic_id:
            self.version += 1
            if partition is not None:
                self._by_key.pop((partition.topic_id, tp.partition), None)
                partition.become_offline(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            metrics = self._broker.metrics.topic(tp.topic)
            partition = Partition(tp.topic, tp.partition, topic_id, appends=self._broker.appends, metrics=metrics)
            self._by_topic.setdefault(tp.topic, {})[tp.partition] = partition
            self._by_key[tp.topic, tp.partition] = self._by_key[topic_id, tp.partition] = partition
        if log is None:
            partition.leader = state.leader
            partition.leader_epoch = state.leader_epoch
            partition.become_offline(ErrorCode.KAFKA_STORAGE_ERROR)
        else:
            partition.become_leader(
                log,
                leader=state.leader,
                leader_epoch=state.leader_epoch,
                replicas=tuple(state.replicas),
                isr=tuple(state.isr),
            )
        self._tell(partition)
        return partition

    def remove(self, tp: TopicPartition) -> None:
        """Serve a partition no more: its topic is deleted. Whoever waits there is answered."""
        partitions = self._by_topic.get(tp.topic)
        partition = partitions.pop(tp.partition, None) if partitions is not None else None
        if partition is None:
            return
        self._by_key.pop((tp.topic, tp.partition), None)
        self._by_key.pop((partition.topic_id, tp.partition), None)
        self.version += 1
        if not partitions:
            del self._by_topic[tp.topic]
        partition.become_offline(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        self._tell(partition)

    def _tell(self, partition: Partition) -> None:
        watcher = self._watchers.get(partition.topic)
        if watcher is None:
            return
        try:
            watcher(partition)
        except Exception:
            # Who serves on top of a partition must not keep others from being served.
            logger.exception("%s: who watches it failed", partition)

    def handle_applied(self, version: int) -> None:
        """Everything up to the image of this version is served."""
        self.applied_version = max(self.applied_version, version)
        waiters, self._waiters = self._waiters, []
        for wanted, future in waiters:
            if wanted > self.applied_version:
                self._waiters.append((wanted, future))
            elif not future.done():
                future.set_result(None)

    async def applied(self, version: int) -> None:
        """Wait until this broker serves the image of `version`: its logs created, deleted, reconfigured."""
        if self.applied_version < version:
            future: asyncio.Future[None] = self._broker.loop.create_future()
            waiter = (version, future)
            self._waiters.append(waiter)
            try:
                await future
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
