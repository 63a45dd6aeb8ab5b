"""Every partition this broker holds, kept in step with the metadata image.

`apply` compares two images and creates, reconfigures or deletes logs on worker threads, a slice of partitions at a time
so that the loop stays free; `applied` lets a handler wait until an image is served. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from millstream.core.broker.partition import Partition
from millstream.core.log import LogConfig, LogDirectoryError, TopicPartition
from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.cluster import ClusterImage

logger = logging.getLogger(__name__)


class Partitions:
    """The partitions of this broker by topic and index."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._by_topic: dict[str, dict[int, Partition]] = {}
        # Version of the last image whose partitions all answer.
        self.applied_version = -1
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def __iter__(self) -> Iterator[Partition]:
        for partitions in list(self._by_topic.values()):
            yield from list(partitions.values())

    def __len__(self) -> int:
        return sum(len(partitions) for partitions in self._by_topic.values())

    def get(self, topic: str, index: int) -> Partition | None:
        """Return the partition, whatever its state; None where this broker holds no such one."""
        partitions = self._by_topic.get(topic)
        return partitions.get(index) if partitions is not None else None

    def of_topic(self, topic: str) -> list[Partition]:
        """Return the partitions of one topic that this broker holds."""
        return list(self._by_topic.get(topic, {}).values())

    def leader(self, topic: str, index: int, current_leader_epoch: int = -1) -> Partition:
        """Return the partition if this broker leads it in the epoch the client knows (-1: none); KafkaError otherwise."""
        partition = self.get(topic, index)
        if partition is None:
            raise KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                f"this broker holds no partition {topic}-{index}; refresh metadata",
            )
        partition.check_leader(current_leader_epoch)
        return partition

    async def applied(self, version: int) -> None:
        """Wait until this broker serves the image of `version`: its logs created, deleted, reconfigured."""
        if self.applied_version < version:
            future: asyncio.Future[None] = self._broker.loop.create_future()
            self._waiters.append((version, future))
            await future
