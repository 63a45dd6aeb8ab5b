"""What a consumer asks a cluster beside reading: offsets at times and ends, partitions, topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from millstream.core.client.client import Client
from millstream.core.client.cluster import PartitionInfo, TopicInfo, TopicPartition
from millstream.core.client.consumer.settings import ConsumerSettings
from millstream.core.client.offsets import EARLIEST, LATEST, LogOffset, list_offsets


class ClusterQueries:
    """The base of Consumer that answers them; each opens the consumer where that has not been done."""

    _client: Client
    _settings: ConsumerSettings

    async def start(self) -> None:
        """Have `_client`."""
        raise AssertionError("a consumer has its own")

    async def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int], *, timeout_s: float | None = None
    ) -> dict[TopicPartition, LogOffset | None]:
        """Return the first record at or after each time (milliseconds since 1970), None where none is as young."""
        if any(timestamp < 0 for timestamp in timestamps.values()):
            raise ValueError("a time before 1970 cannot be looked for; beginning_offsets and end_offsets find the ends")
        found = await self._list(timestamps, timeout_s)
        return {tp: at if at.offset >= 0 else None for tp, at in found.items()}

    async def beginning_offsets(
        self, partitions: Iterable[TopicPartition], *, timeout_s: float | None = None
    ) -> dict[TopicPartition, int]:
        """Return the offset of the first record of each partition."""
        found = await self._list(dict.fromkeys(partitions, EARLIEST), timeout_s)
        return {tp: at.offset for tp, at in found.items()}

    async def end_offsets(
        self, partitions: Iterable[TopicPartition], *, timeout_s: float | None = None
    ) -> dict[TopicPartition, int]:
        """Return the offset behind the last record that can be read of each partition."""
        found = await self._list(dict.fromkeys(partitions, LATEST), timeout_s)
        return {tp: at.offset for tp, at in found.items()}

    async def partitions_for(self, topic: str, *, timeout_s: float | None = None) -> list[PartitionInfo]:
        """Return the partitions of a topic. Raises KafkaError where there is none of that name."""
        await self.start()
        cluster = await self._client.metadata([topic], timeout_ms=self._timeout_ms(timeout_s))
        return list(cluster.topic(topic).partitions)

    async def topics(self, *, timeout_s: float | None = None) -> dict[str, TopicInfo]:
        """Return every topic that this client may see, by name."""
        await self.start()
        cluster = await self._client.metadata(None, timeout_ms=self._timeout_ms(timeout_s))
        return dict(cluster.topics)

    async def _list(
        self, timestamps: Mapping[TopicPartition, int], timeout_s: float | None
    ) -> dict[TopicPartition, LogOffset]:
        await self.start()
        return await list_offsets(
            self._client,
            {TopicPartition.of(tp): timestamp for tp, timestamp in timestamps.items()},
            read_committed=self._settings.read_committed,
            timeout_ms=self._timeout_ms(timeout_s),
        )

    def _timeout_ms(self, timeout_s: float | None) -> int:
        return self._settings.api_timeout_ms if timeout_s is None else int(timeout_s * 1000)
