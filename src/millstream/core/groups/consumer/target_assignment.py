"""A group's target assignment: what each member is to have, made anew for a group epoch by an assignor."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Final

from millstream.core.groups.consumer.assignors import (
    ASSIGNORS,
    STEPPING_ASSIGNORS,
    Assignment,
    MemberSpec,
)
from millstream.core.groups.consumer.group import ConsumerGroup, ResolvedRegex
from millstream.core.groups.consumer.member import ConsumerMember, Target, target_value
from millstream.core.groups.consumer.steps import Steps, pieces
from millstream.core.groups.group import Record
from millstream.core.groups.records import (
    ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMetadataValue,
)

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterImage

_NOTHING: Final[Target] = {}


class TopicIds:
    """Ids of the topics that members subscribe to; members that subscribe to the same share one set."""

    def __init__(self, image: ClusterImage) -> None:
        self._image = image
        self._ids: dict[frozenset[str], frozenset[bytes]] = {}
        self.partition_counts: dict[bytes, int] = {}

    def of(self, names: frozenset[str]) -> frozenset[bytes]:
        """Return the ids of those that exist."""
        ids = self._ids.get(names)
        if ids is None:
            found = [topic for name in names if (topic := self._image.topics.get(name)) is not None]
            for topic in found:
                self.partition_counts[topic.topic_id] = len(topic.partitions)
            ids = self._ids[names] = frozenset(topic.topic_id for topic in found)
        return ids


def compute_assignment(group: ConsumerGroup, updated: ConsumerMember, assignor: str, image: ClusterImage) -> Assignment:
    """Return what every member is to have, `updated` being a member as it is about to become."""
    topic_ids = TopicIds(image)
    members = dict(group.members)
    previous_id = updated.member_id
    if updated.instance_id is not None:
        previous_id = group.static_members.get(updated.instance_id, previous_id)
        # A static member that comes back stands for the one before it.
        members.pop(previous_id, None)
    members[updated.member_id] = updated
    targets = group.targets
    specs = {
        member_id: MemberSpec(
            member.instance_id,
            topic_ids.of(group.topics_of(member)),
            targets.get(previous_id if member is updated else member_id, _NOTHING),
        )
        for member_id, member in members.items()
    }
    return ASSIGNORS[assignor](specs, topic_ids.partition_counts)


def assignment_in_steps(
    members: Mapping[str, ConsumerMember],
    resolved: Mapping[str, ResolvedRegex],
    targets: Mapping[str, Target],
    assignor: str,
    image: ClusterImage,
) -> Steps[Assignment]:
    """Do the same for members as they are, in steps; nothing that is given may change meanwhile."""
    # By names and regular expression: members that subscribe to the same share one set.
    ids: dict[tuple[frozenset[str], str | None], frozenset[bytes]] = {}
    partition_counts: dict[bytes, int] = {}
    specs: dict[str, MemberSpec] = {}
    for member_id, member in members.items():
        subscription = (member.subscribed_topic_names, member.subscribed_topic_regex)
        topics = ids.get(subscription)
        yield  # Two sets may have been compared to say so.
        if topics is None:
            matched = resolved.get(subscription[1]) if subscription[1] else None
            found: list[bytes] = []
            for piece in pieces(chain(subscription[0], matched.topics if matched is not None else ())):
                for name in piece:
                    topic = image.topics.get(name)
                    if topic is not None:
                        partition_counts[topic.topic_id] = len(topic.partitions)
                        found.append(topic.topic_id)
                yield
            topics = ids[subscription] = frozenset(found)
        specs[member_id] = MemberSpec(member.instance_id, topics, targets.get(member_id, _NOTHING))
    return (yield from STEPPING_ASSIGNORS[assignor](specs, partition_counts))


def assignment_records(group: ConsumerGroup, assignment: Assignment, epoch: int, now_ms: int) -> list[Record]:
    """Return the records that make `assignment` the target of `epoch`: what differs from the one before."""
    targets = group.targets
    records: list[Record] = []
    for member_id, target in assignment.items():
        before = targets.get(member_id)
        if before is not target and before != target:
            key = ConsumerGroupTargetAssignmentMemberKey(group_id=group.group_id, member_id=member_id)
            records.append((key, target_value(target)))
    records.append(
        (
            ConsumerGroupTargetAssignmentMetadataKey(group_id=group.group_id),
            ConsumerGroupTargetAssignmentMetadataValue(assignment_epoch=epoch, assignment_timestamp=now_ms),
        )
    )
    return records
