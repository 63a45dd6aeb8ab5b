"""What the coordinator's shard needs of any group, of whichever protocol."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple, Protocol

# A record as objects of `records.py`: its key, and its value or None to delete what the key stands for.
Record = tuple[object, object | None]

# Given (topic, partition): raises KafkaError where a member may commit, but not this partition; that fails the commit.
PartitionCheck = Callable[[str, int], None]


class Caller(NamedTuple):
    """Who sent a request."""

    client_id: str
    host: str
    api_version: int
    # Of these topics, those that the one who asks may describe; None for all.
    visible_topics: Callable[[Iterable[str]], Collection[str]] | None = None


class OffsetExpiry(NamedTuple):
    """From when on a group's offsets count as unused (KIP-211)."""

    # From a committed offset's timestamp to the moment its retention begins.
    base_timestamp_ms: Callable[[int], int]


class Group(Protocol):
    """One group. Classic groups live in `classic/`, those of the consumer protocol in `consumer/`."""

    @property
    def group_id(self) -> str: ...

    @property
    def protocol_type(self) -> str:
        """What ListGroups says of it: `consumer`, `connect`, ...; empty for a group that only has offsets."""
        ...

    @property
    def state_name(self) -> str:
        """Kafka's name of its state: Empty, PreparingRebalance, Stable, Reconciling, ..."""
        ...

    @property
    def group_type(self) -> str:
        """`Classic` or `Consumer`."""
        ...

    def check_offset_commit(
        self, member_id: str, instance_id: str | None, generation: int, *, api_version: int, transactional: bool
    ) -> PartitionCheck | None:
        """Raise KafkaError unless this member, in this generation or member epoch, may commit offsets; None where it
        may commit those of any partition.
        """
        ...

    def check_offset_fetch(self, member_id: str | None, member_epoch: int) -> None:
        """Raise KafkaError unless this member, in this epoch, may read offsets; (None, -1) always may."""
        ...

    def check_offset_delete(self) -> None:
        """Raise KafkaError unless committed offsets of the group may be deleted by topic."""
        ...

    def check_delete(self) -> None:
        """Raise KafkaError unless the group may be deleted."""
        ...

    def is_subscribed(self, topic: str) -> bool:
        """Whether a member reads this topic, as far as the coordinator knows."""
        ...

    def offset_expiry(self) -> OffsetExpiry | None:
        """Return when its offsets begin to expire; None while they are in use."""
        ...

    def is_empty(self) -> bool:
        """Whether it has no members, so that it goes with its last offset."""
        ...

    def tombstones(self) -> list[Record]:
        """Return the records that delete all that is in the log of it, but for offsets."""
        ...

    def close(self) -> None:
        """Cancel its timers: the shard is closed, or the group was deleted or replaced."""
        ...
