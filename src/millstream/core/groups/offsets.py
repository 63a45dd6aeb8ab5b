"""The committed offsets of one shard's groups, and those that open transactions may still bring.

    group -> topic -> partition -> CommittedOffset

Of a transaction's offsets nothing counts before its marker; `latest by record` decides where the same partition was
also committed without one meanwhile. Owned by the shard; changed by replayed records only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

NO_EXPIRY: Final = -1

ByPartition = dict[int, "CommittedOffset"]
ByTopic = dict[str, ByPartition]


class CommittedOffset:
    """One committed offset; never changed.

    It has the fields of OffsetFetch's answer for a partition, so that it is encoded as it is: a group may have 10,000.
    """

    __slots__ = (
        "commit_timestamp_ms",
        "committed_leader_epoch",
        "committed_offset",
        "expire_timestamp_ms",
        "metadata",
        "partition_index",
        "sequence",
        "topic_id",
    )

    error_code: Final = 0

    def __init__(
        self,
        partition_index: int,
        committed_offset: int,
        committed_leader_epoch: int,
        metadata: str,
        commit_timestamp_ms: int,
        expire_timestamp_ms: int,
        topic_id: bytes,
        sequence: int,
    ) -> None:
        self.partition_index = partition_index
        self.committed_offset = committed_offset
        self.committed_leader_epoch = committed_leader_epoch
        self.metadata = metadata
        self.commit_timestamp_ms = commit_timestamp_ms
        # When it ends, where a client of before KIP-211 said so; else NO_EXPIRY, and the group's use decides.
        self.expire_timestamp_ms = expire_timestamp_ms
        # The topic's id where the record has one: offsets of a topic do not outlive it for one of the same name.
        self.topic_id = topic_id
        # Its record's place among all that the shard has replayed.
        self.sequence = sequence


class Offsets:
    """Committed and pending offsets, by group."""

    def __init__(self) -> None:
        self._groups: dict[str, ByTopic] = {}
        # The offsets of open transactions by producer id; and by group which producers have some of a partition.
        # Invariant: both hold the same (producer id, group, topic, partition).
        self._pending: dict[int, dict[str, ByTopic]] = {}
        self._producers: dict[str, dict[tuple[str, int], set[int]]] = {}
        # How many are committed.
        self.count = 0
        # Records replayed so far.
        self.sequence = 0

    def of_group(self, group_id: str) -> Mapping[str, ByPartition]:
        """Return the committed offsets of a group by topic and partition."""
        return self._groups.get(group_id, {})

    def get(self, group_id: str, topic: str, partition: int) -> CommittedOffset | None:
        """Return what was committed last."""
        return self.of_group(group_id).get(topic, {}).get(partition)

    def is_pending(self, group_id: str, topic: str, partition: int) -> bool:
        """Whether an open transaction has committed an offset of this partition."""
        producers = self._producers.get(group_id)
        return producers is not None and (topic, partition) in producers

    def pending_of_group(self, group_id: str) -> Mapping[tuple[str, int], set[int]]:
        """Return the producers with an open transaction, by the (topic, partition) they have committed."""
        return self._producers.get(group_id, {})

    def of_topic(self, topic: str) -> Iterator[tuple[str, int, bytes]]:
        """Yield (group, partition, topic id) of each committed or pending offset of a topic."""
        for groups in (self._groups, *self._pending.values()):
            for group_id, topics in groups.items():
                for partition, offset in topics.get(topic, {}).items():
                    yield group_id, partition, offset.topic_id

    # Replayed

    def put(self, group_id: str, topic: str, offset: CommittedOffset) -> None:
        """A commit without a transaction, or one whose transaction has committed."""
        topics = self._groups.get(group_id)
        if topics is None:
            topics = self._groups[group_id] = {}
        partitions = topics.get(topic)
        if partitions is None:
            partitions = topics[topic] = {}
        partition = offset.partition_index
        if partition not in partitions:
            self.count += 1
        partitions[partition] = offset

    def put_pending(self, producer_id: int, group_id: str, topic: str, offset: CommittedOffset) -> None:
        """A commit in a transaction that is open."""
        groups = self._pending.setdefault(producer_id, {})
        groups.setdefault(group_id, {}).setdefault(topic, {})[offset.partition_index] = offset
        producers = self._producers.setdefault(group_id, {})
        producers.setdefault((topic, offset.partition_index), set()).add(producer_id)

    def remove(self, group_id: str, topic: str, partition: int) -> None:
        """A tombstone: the committed offset goes, and what transactions have pending for it."""
        if _remove(self._groups, group_id, topic, partition):
            self.count -= 1
        for producer_id in self._producers.get(group_id, {}).get((topic, partition), ()):
            pending = self._pending[producer_id]
            _remove(pending, group_id, topic, partition)
            if not pending:
                del self._pending[producer_id]
        producers = self._producers.get(group_id)
        if producers is not None:
            producers.pop((topic, partition), set())
            if not producers:
                del self._producers[group_id]

    def end_transaction(self, producer_id: int, *, committed: bool) -> None:
        """A transaction's marker: its offsets count now, where none was committed behind them; or never do."""
        for group_id, topics in self._pending.pop(producer_id, {}).items():
            for topic, partitions in topics.items():
                for partition, offset in partitions.items():
                    self._forget_producer(producer_id, group_id, topic, partition)
                    if committed:
                        existing = self.get(group_id, topic, partition)
                        if existing is None or existing.sequence < offset.sequence:
                            self.put(group_id, topic, offset)

    def _forget_producer(self, producer_id: int, group_id: str, topic: str, partition: int) -> None:
        producers = self._producers[group_id]
        of_partition = producers[topic, partition]
        of_partition.remove(producer_id)
        if not of_partition:
            del producers[topic, partition]
            if not producers:
                del self._producers[group_id]


def _remove(groups: dict[str, ByTopic], group_id: str, topic: str, partition: int) -> bool:
    topics = groups.get(group_id)
    partitions = None if topics is None else topics.get(topic)
    if topics is None or partitions is None or partitions.pop(partition, None) is None:
        return False
    if not partitions:
        del topics[topic]
        if not topics:
            del groups[group_id]
    return True
