"""One member of a group of the consumer protocol, as one immutable value, and its records.

    STABLE                 it has what its target assignment says, in the epoch of that assignment
    UNREVOKED_PARTITIONS   it was told to give up partitions, and stays in its old epoch until it says that it did
    UNRELEASED_PARTITIONS  it is in the new epoch, and others have not given up all that it is to get
    UNKNOWN                written by a newer program: the member has to begin anew

A member of the classic protocol lives in such a group as well, while its application moves from one to the other
(KIP-848): `classic` is what it joined with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from millstream.core.groups.records import (
    ClassicMemberMetadata,
    ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataValue,
    ConsumerGroupTargetAssignmentMemberValue,
    CurrentTopicPartitions,
    TargetTopicPartition,
)

# Topic id -> partition -> the epoch in which it came to the member (KIP-1251).
Owned = Mapping[bytes, Mapping[int, int]]
# Topic id -> partitions; a topic without any is not in it.
Target = Mapping[bytes, frozenset[int]]

JOIN_EPOCH: Final = 0
LEAVE_EPOCH: Final = -1
STATIC_LEAVE_EPOCH: Final = -2


class MemberState(IntEnum):
    """How far a member is on the way to its target, numbered as in its record. See the module."""

    STABLE = 0
    UNREVOKED_PARTITIONS = 1
    UNRELEASED_PARTITIONS = 2
    UNKNOWN = 127


@dataclass(frozen=True, slots=True)
class ConsumerMember:
    """A member; a change makes a new one.

    Invariant: a partition stands at most once in `assigned` and `pending_revocation` of all members of the group.
    """

    member_id: str
    # JOIN_EPOCH for one that joins, STATIC_LEAVE_EPOCH for a static member that went and will be back.
    member_epoch: int = JOIN_EPOCH
    # The epoch before: a heartbeat that repeats it has not got our last answer.
    previous_member_epoch: int = JOIN_EPOCH
    state: MemberState = MemberState.STABLE
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout_ms: int = -1
    subscribed_topic_names: frozenset[str] = frozenset()
    # Empty where it subscribes by names alone.
    subscribed_topic_regex: str = ""
    server_assignor: str | None = None
    classic: ClassicMemberMetadata | None = None
    assigned: Owned = field(default_factory=dict)
    pending_revocation: Owned = field(default_factory=dict)

    @property
    def is_classic(self) -> bool:
        """Whether it speaks the classic protocol."""
        return self.classic is not None

    @property
    def classic_protocols(self) -> dict[str, bytes]:
        """What a member of the classic protocol can be assigned by, its first choice first, and its metadata for it.

        Each name stands once, though a client may give it twice: the group counts its speakers.
        """
        protocols: dict[str, bytes] = {}
        for protocol in () if self.classic is None else self.classic.supported_protocols:
            protocols.setdefault(protocol.name, protocol.metadata)
        return protocols

    def is_reconciled_to(self, target_epoch: int) -> bool:
        """Whether it has all that its target assignment of this epoch says."""
        return self.state is MemberState.STABLE and self.member_epoch == target_epoch

    def owns(self, topic_id: bytes, partition: int) -> int | None:
        """Return the epoch in which the partition came to the member, while it has not given it up; else None."""
        epoch = self.assigned.get(topic_id, _NO_PARTITIONS).get(partition)
        return self.pending_revocation.get(topic_id, _NO_PARTITIONS).get(partition) if epoch is None else epoch

    def metadata_value(self) -> ConsumerGroupMemberMetadataValue:
        """Return what it subscribes to, as a record."""
        return ConsumerGroupMemberMetadataValue(
            instance_id=self.instance_id,
            rack_id=self.rack_id,
            client_id=self.client_id,
            client_host=self.client_host,
            subscribed_topic_names=sorted(self.subscribed_topic_names),
            subscribed_topic_regex=self.subscribed_topic_regex,
            rebalance_timeout_ms=self.rebalance_timeout_ms,
            server_assignor=self.server_assignor,
            classic_member_metadata=self.classic,
        )

    def with_metadata(self, value: ConsumerGroupMemberMetadataValue) -> ConsumerMember:
        """Return the member as a record says it subscribes."""
        return replace(
            self,
            instance_id=value.instance_id,
            rack_id=value.rack_id,
            client_id=value.client_id,
            client_host=value.client_host,
            rebalance_timeout_ms=value.rebalance_timeout_ms,
            subscribed_topic_names=frozenset(value.subscribed_topic_names),
            subscribed_topic_regex=value.subscribed_topic_regex or "",
            server_assignor=value.server_assignor,
            classic=value.classic_member_metadata,
        )

    def current_value(self) -> ConsumerGroupCurrentMemberAssignmentValue:
        """Return what it has, as a record."""
        return ConsumerGroupCurrentMemberAssignmentValue(
            member_epoch=self.member_epoch,
            previous_member_epoch=self.previous_member_epoch,
            state=self.state,
            assigned_partitions=_current_partitions(self.assigned),
            partitions_pending_revocation=_current_partitions(self.pending_revocation),
        )

    def with_current(self, value: ConsumerGroupCurrentMemberAssignmentValue) -> ConsumerMember:
        """Return the member as a record says what it has."""
        try:
            state = MemberState(value.state)
        except ValueError:
            state = MemberState.UNKNOWN
        return replace(
            self,
            member_epoch=value.member_epoch,
            previous_member_epoch=value.previous_member_epoch,
            state=state,
            assigned=_owned(value.assigned_partitions, value.member_epoch),
            pending_revocation=_owned(value.partitions_pending_revocation, value.member_epoch),
        )


_NO_PARTITIONS: Final[Mapping[int, int]] = {}


def target_value(target: Target) -> ConsumerGroupTargetAssignmentMemberValue:
    """Return a target assignment as a record."""
    return ConsumerGroupTargetAssignmentMemberValue(
        topic_partitions=[
            TargetTopicPartition(topic_id=topic_id, partitions=sorted(partitions))
            for topic_id, partitions in target.items()
        ]
    )


def target_of(value: ConsumerGroupTargetAssignmentMemberValue) -> Target:
    """Return the target assignment that a record holds."""
    return {each.topic_id: frozenset(each.partitions) for each in value.topic_partitions}


def _current_partitions(owned: Owned) -> list[CurrentTopicPartitions]:
    return [
        CurrentTopicPartitions(
            topic_id=topic_id, partitions=list(partitions), assignment_epochs=list(partitions.values())
        )
        for topic_id, partitions in owned.items()
    ]


def _owned(topics: Iterable[CurrentTopicPartitions], member_epoch: int) -> Owned:
    owned: dict[bytes, dict[int, int]] = {}
    for topic in topics:
        epochs = topic.assignment_epochs
        # Kafka before 4.2 wrote none; then a commit is held to the member's epoch at least.
        if epochs is None or len(epochs) != len(topic.partitions):
            epochs = [member_epoch] * len(topic.partitions)
        owned[topic.topic_id] = dict(zip(topic.partitions, epochs, strict=True))
    return owned
