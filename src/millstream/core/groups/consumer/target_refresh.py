"""New targets of large groups, made in slices behind the heartbeat that asked for one.

A small group gets its new target within the request that moved its epoch (`MemberUpdate.refresh_target`). One that
reads thousands of topics would hold the loop for half a second; its target is made in steps, between which others run.
Meanwhile members are told what they have, as they are while `group.consumer.assignment.interval.ms` lasts, and the
result is a change of its own that they see with a later heartbeat.

What changes meanwhile counts with the next target, which begins at once: the result is that of the epoch it was begun
in. Members that have gone since get nothing of it, and those that read other topics only what they still read.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from millstream.core.groups.consumer.assignors import Assignment
from millstream.core.groups.consumer.group import ConsumerGroup, ResolvedRegex
from millstream.core.groups.consumer.member import ConsumerMember
from millstream.core.groups.consumer.target_assignment import (
    TopicIds,
    assignment_in_steps,
    assignment_records,
)
from millstream.core.wire import KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from millstream.core.cluster import ClusterImage
    from millstream.core.groups.consumer.configs import ConsumerGroupConfigs
    from millstream.core.groups.shard import GroupShard

_logger = logging.getLogger(__name__)

# Members, partitions that are read, and topics of each member, together: up to here a target is made at once.
WORK_AT_ONCE_MAX: Final = 4_096
# Where a target cannot be made or written, the next one is tried after this.
RETRY_MS: Final = 10_000


def is_large(
    group: ConsumerGroup,
    image: ClusterImage,
    member: ConsumerMember | None = None,
    updated: ConsumerMember | None = None,
) -> bool:
    """Whether a new target is more than one step's work, with `member` become `updated`."""
    work = len(group.members)
    if updated is not None:
        work += _topics_count(group, updated)
        if member is not None and member.member_id in group.members:
            work -= _topics_count(group, member)
    topics = image.topics
    for name, count in group.names.items():
        topic = topics.get(name)
        work += count + (len(topic.partitions) if topic is not None else 0)
        if work > WORK_AT_ONCE_MAX:
            return True
    for regex, count in group.regexes.items():
        resolved = group.resolved_regexes.get(regex)
        if resolved is not None:
            # Each topic for its readers, and once for the partition that it has at least.
            work += len(resolved.topics) * (count + 1)
    return work > WORK_AT_ONCE_MAX


def _topics_count(group: ConsumerGroup, member: ConsumerMember) -> int:
    resolved = group.resolved_regexes.get(member.subscribed_topic_regex) if member.subscribed_topic_regex else None
    return len(member.subscribed_topic_names) + (len(resolved.topics) if resolved is not None else 0)


class TargetRefresh:
    """Makes the targets of one shard's large groups."""

    def __init__(self, shard: GroupShard, configs_of: Callable[[str], ConsumerGroupConfigs]) -> None:
        self._shard = shard
        self._configs_of = configs_of

    def maybe_begin(self, group: ConsumerGroup, now_ms: int) -> None:
        """Begin to make a target if one is due and is too much for one request."""
        if group.is_assigning or group.group_epoch <= group.assignment_epoch:
            return
        interval_ms = self._configs_of(group.group_id).assignment_interval_ms
        if not group.is_target_due(now_ms, interval_ms) or not is_large(group, self._shard.image):
            return
        group.is_assigning = True
        epoch = group.group_epoch
        members = dict(group.members)
        assignors = self._shard.configs.consumer_assignors
        preferred = group.preferred_assignor()
        assignor = preferred if preferred in assignors else assignors[0]
        resolved = dict(group.resolved_regexes)
        steps = assignment_in_steps(members, resolved, dict(group.targets), assignor, self._shard.image)

        def step(now_ms: int) -> None:
            if self._shard.groups.get(group.group_id) is not group:
                return
            try:
                next(steps)
            except StopIteration as end:
                self._finish(group, self._present(group, members, resolved, end.value), epoch, now_ms)
            except Exception:
                _logger.exception("group %s: no target was made for epoch %d", group.group_id, epoch)
                self._try_again(group, now_ms)
            else:
                self._shard.timers.soon(now_ms, step)

        self._shard.timers.soon(now_ms, step)

    def _present(
        self,
        group: ConsumerGroup,
        members: Mapping[str, ConsumerMember],
        resolved: Mapping[str, ResolvedRegex],
        assignment: Assignment,
    ) -> Assignment:
        """Return of an assignment what holds for the members that there are now."""
        present: Assignment = {}
        topic_ids = TopicIds(self._shard.image)
        for member_id, target in assignment.items():
            before = members[member_id]
            now_id = member_id
            if member_id not in group.members:
                # A static member that came back has what its former self was given.
                now_id = group.static_members.get(before.instance_id or "", "")
            member = group.members.get(now_id)
            if member is None:
                continue
            regex = member.subscribed_topic_regex
            reads_the_same = (
                member.subscribed_topic_names is before.subscribed_topic_names
                or member.subscribed_topic_names == before.subscribed_topic_names
            ) and (
                regex == before.subscribed_topic_regex
                and (not regex or group.resolved_regexes.get(regex) is resolved.get(regex))
            )
            if reads_the_same:
                present[now_id] = target
            else:
                subscribed = topic_ids.of(group.topics_of(member))
                present[now_id] = {topic_id: each for topic_id, each in target.items() if topic_id in subscribed}
        return present

    def _finish(self, group: ConsumerGroup, assignment: Assignment, epoch: int, now_ms: int) -> None:
        try:
            self._shard.append(assignment_records(group, assignment, epoch, now_ms))
        except KafkaError as error:
            _logger.warning("group %s: the target of epoch %d cannot be written: %s", group.group_id, epoch, error)
            self._try_again(group, now_ms)
            return
        group.is_assigning = False
        self.maybe_begin(group, now_ms)

    def _try_again(self, group: ConsumerGroup, now_ms: int) -> None:
        def again(now_ms: int) -> None:
            group.is_assigning = False
            if self._shard.groups.get(group.group_id) is group:
                self.maybe_begin(group, now_ms)

        self._shard.timers.set(now_ms + RETRY_MS, again)
