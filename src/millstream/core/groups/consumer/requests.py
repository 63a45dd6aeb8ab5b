"""Requests of the consumer protocol (KIP-848), and the groups they make and change.

One heartbeat does everything: it joins, says what the member wants and has, learns what it is to have, and leaves.
The work on a member is in `member_update`; here it meets the shard: groups come and go, members are fenced, records
are appended and applied, timers run, answers are given.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from millstream.core.groups.consumer.classic_members import ClassicMembers
from millstream.core.groups.consumer.configs import ConsumerGroupConfigs, consumer_group_configs
from millstream.core.groups.consumer.describe import describe
from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.groups.consumer.heartbeats import (
    as_requested,
    assignment_of,
    check_heartbeat,
    check_member_epoch,
    wants_assignment,
)
from millstream.core.groups.consumer.member import (
    JOIN_EPOCH,
    STATIC_LEAVE_EPOCH,
    ConsumerMember,
)
from millstream.core.groups.consumer.member_update import MemberUpdate, check_static_member, member_tombstones
from millstream.core.groups.consumer.migration import Downgrade, Upgrade, may_downgrade
from millstream.core.groups.consumer.regex_refresh import RegexRefresh
from millstream.core.groups.consumer.sessions import Sessions
from millstream.core.groups.consumer.target_refresh import TargetRefresh
from millstream.core.groups.consumer.topic_hash import topics_hash
from millstream.core.groups.group import Record
from millstream.core.groups.records import (
    ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupMetadataKey,
    ConsumerGroupRegularExpressionKey,
)
from millstream.core.wire import ErrorCode, KafkaError, uuid_text
from millstream.core.wire.messages.consumer_group_describe import DescribedGroup
from millstream.core.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterImage
    from millstream.core.groups.group import Caller
    from millstream.core.groups.shard import GroupShard

_log = logging.getLogger(__name__)


class ConsumerRequests:
    """Serves the groups of the consumer protocol of one shard."""

    def __init__(self, shard: GroupShard) -> None:
        self._shard = shard
        self.sessions = Sessions(
            shard, self.configs_of, lambda group, member, now_ms: self.fence(group, [member], now_ms)
        )
        self.regexes = RegexRefresh(shard)
        self._targets = TargetRefresh(shard, self.configs_of)
        self._classic = ClassicMembers(shard, self)
        # Counts the changes of topics; a group that saw fewer looks whether its own have changed.
        self._topics_changes = 0
        # Groups with members that subscribe by regular expression.
        self._by_regex: set[str] = set()

        self.join_group = self._classic.join_group
        self.sync_group = self._classic.sync_group
        self.heartbeat = self._classic.heartbeat
        self.leave_group = self._classic.leave_group

    # Events

    def replay(self, key: Any, value: Any) -> None:
        """Apply one record of a consumer group."""
        groups = self._shard.groups
        group_id = key.group_id
        group = groups.get(group_id)
        if not isinstance(group, ConsumerGroup):
            if value is None:  # What it deletes went before, with another record's tombstone.
                return
            # A group that is here for its offsets alone, or was of the classic protocol, becomes one of this.
            if group is not None:
                group.close()
            group = groups[group_id] = self.new_group(group_id)
        kind = type(key)
        if kind is ConsumerGroupMetadataKey and value is None:
            group.close()
            del groups[group_id]
            self._by_regex.discard(group_id)
            self._shard.offset_requests.handle_group_deleted(group_id)
            return
        group.apply(key, value)
        if kind is ConsumerGroupMemberMetadataKey:
            if group.regexes:
                self._by_regex.add(group_id)
            elif self._by_regex:
                self._by_regex.discard(group_id)

    def resume_loaded(self, group: ConsumerGroup, now_ms: int) -> Iterator[None]:
        """The log was replayed: each member has a whole session from now on. Yields after each."""
        for member_id in list(group.members):
            if self._shard.groups.get(group.group_id) is not group:
                return  # Members that were fenced meanwhile were its last ones of this protocol.
            member = group.members.get(member_id)
            if member is not None:
                self.sessions.begin(group, member, now_ms)
            yield

    def handle_image(self, old: ClusterImage, new: ClusterImage, _now_ms: int) -> None:
        """Topics came, went or grew: each group sees with its next heartbeat whether that changes it."""
        self._topics_changes += 1
        if self._by_regex and not new.topics.keys() <= old.topics.keys():
            for group_id in self._by_regex:
                group = self._shard.groups.get(group_id)
                # A log may have ended it by another way than its tombstones.
                if isinstance(group, ConsumerGroup):
                    group.regex_refresh_due = True

    # Requests

    def consumer_group_heartbeat(
        self, request: ConsumerGroupHeartbeatRequest, caller: Caller, reply: object, now_ms: int
    ) -> None:
        """Answer a ConsumerGroupHeartbeatResponse. Raises KafkaError where nothing was changed."""
        check_heartbeat(request, caller.api_version, self._shard.configs.consumer_assignors)
        if request.member_epoch < JOIN_EPOCH:
            response = self._leave(request, now_ms)
        else:
            response = self._beat(request, caller, now_ms)
        self._shard.outbox.respond(reply, response)

    def describe_group(self, group_id: str, _caller: Caller) -> DescribedGroup:
        """Describe one group; one that is not here, or of the classic protocol, as an error."""
        group = self._shard.groups.get(group_id)
        if not isinstance(group, ConsumerGroup):
            what = f"Group {group_id} not found." if group is None else f"Group {group_id} is not a consumer group."
            return DescribedGroup(group_id=group_id, error_code=ErrorCode.GROUP_ID_NOT_FOUND, error_message=what)
        return describe(group, self._shard.configs.consumer_assignors[0], self._shard.image)

    # A heartbeat

    def _beat(
        self, request: ConsumerGroupHeartbeatRequest, caller: Caller, now_ms: int
    ) -> ConsumerGroupHeartbeatResponse:
        is_joining = request.member_epoch == JOIN_EPOCH
        records: list[Record] = []
        group, upgrade = self._group_for(request.group_id, records, is_joining=is_joining)
        self.check_size(group, request.member_id)
        member_id = request.member_id or uuid_text(self._shard.random.randbytes(16))
        update = MemberUpdate(self._shard, group, records, now_ms)
        member = update.find_member(member_id, request.instance_id, is_joining=is_joining, takes_over=False)
        if update.replaced is None:
            check_member_epoch(member, request)
        updated = as_requested(member, request, caller)
        changed = update.change_subscription(member, updated)
        bump = changed.known
        if bump or group.topics_seen != self._topics_changes:
            update.refresh_epoch(member, updated, bump=bump)
        configs = self.configs_of(request.group_id)
        target_epoch, target = update.refresh_target(member, updated, configs.assignment_interval_ms)
        after = update.reconcile(
            updated,
            target_epoch,
            target,
            subscription_changed=changed.any,
            owned=request.topic_partitions,
        )
        group = self.apply(group, update, after, now_ms)
        if upgrade is not None:
            # Not before: where the records are too large for a batch the classic group lives on.
            upgrade.release()
            self.sessions.start(group, now_ms)
        self.sessions.extend(group, after, now_ms)
        self.regexes.maybe_refresh(group, caller, now_ms)
        response = ConsumerGroupHeartbeatResponse(
            member_id=member_id,
            member_epoch=after.member_epoch,
            heartbeat_interval_ms=configs.heartbeat_interval_ms,
        )
        if wants_assignment(request) or (after.assigned is not member.assigned and after.assigned != member.assigned):
            response.assignment = assignment_of(after)
        return response

    def _group_for(
        self, group_id: str, records: list[Record], *, is_joining: bool
    ) -> tuple[ConsumerGroup, Upgrade | None]:
        """Return the group, a new one or one that was of the classic protocol where a member joins."""
        group = self._shard.groups.get(group_id)
        if isinstance(group, ConsumerGroup):
            return group, None
        if not is_joining:
            what = (
                f"Consumer group {group_id} not found."
                if group is None
                else f"Group {group_id} is not a consumer group."
            )
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, what)
        if group is None:
            return self.new_group(group_id), None
        if group.is_empty():
            records += group.tombstones()
            return self.new_group(group_id), None
        upgrade = Upgrade(self._shard, group, self.new_group(group_id))
        records += upgrade.records
        return upgrade.group, upgrade

    def apply(self, group: ConsumerGroup, update: MemberUpdate, after: ConsumerMember, now_ms: int) -> ConsumerGroup:
        """Append the records of a member's request, and set what runs out; return the group as it is now."""
        if update.records:
            self._shard.append(update.records)
            applied = self._shard.groups[group.group_id]
            assert isinstance(applied, ConsumerGroup), f"{group.group_id} is {applied}"
            group = applied
            if update.replaced is not None:
                self.sessions.cancel(group, update.replaced.member_id)
            self.sessions.await_revocation(group, after, now_ms)
        group.topics_seen = self._topics_changes
        self._targets.maybe_begin(group, now_ms)
        return group

    def _leave(self, request: ConsumerGroupHeartbeatRequest, now_ms: int) -> ConsumerGroupHeartbeatResponse:
        group_id, member_id = request.group_id, request.member_id
        group = self._shard.groups.get(group_id)
        if not isinstance(group, ConsumerGroup):
            what = f"Group {group_id} not found." if group is None else f"Group {group_id} is not a consumer group."
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, what)
        if request.instance_id is None:
            member = group.member(member_id)
        else:
            member = check_static_member(group.static_member(request.instance_id), member_id, request.instance_id)
        if request.instance_id is not None and request.member_epoch == STATIC_LEAVE_EPOCH:
            # It will be back within its session; what it has stays its own, what it was to give up is free.
            away = replace(member, member_epoch=STATIC_LEAVE_EPOCH, pending_revocation={})
            key = ConsumerGroupCurrentMemberAssignmentKey(group_id=group_id, member_id=member_id)
            self._shard.append([(key, away.current_value())])
        else:
            self.fence(group, [member], now_ms)
        return ConsumerGroupHeartbeatResponse(member_id=member_id, member_epoch=request.member_epoch)

    # What others need as well

    def new_group(self, group_id: str) -> ConsumerGroup:
        """Return a group without members; a record puts it into the shard."""
        return ConsumerGroup(group_id, self._topic_id_of)

    def _topic_id_of(self, name: str) -> bytes | None:
        topic = self._shard.image.topics.get(name)
        return None if topic is None else topic.topic_id

    def configs_of(self, group_id: str) -> ConsumerGroupConfigs:
        """Return the configs that hold for a group."""
        return consumer_group_configs(self._shard.configs, self._shard.image.group_configs.get(group_id))

    def check_size(self, group: ConsumerGroup, member_id: str) -> None:
        """Raise KafkaError where a group is full and this is none of its members."""
        limit = self._shard.configs.consumer_members_max
        if len(group.members) >= limit and member_id not in group.members:
            raise KafkaError(
                ErrorCode.GROUP_MAX_SIZE_REACHED,
                f"The consumer group has reached its maximum capacity of {limit} members.",
            )

    @property
    def topics_changes(self) -> int:
        """How often topics have changed."""
        return self._topics_changes

    def fence(self, group: ConsumerGroup, members: Collection[ConsumerMember], now_ms: int) -> None:
        """Take members out of their group, which may have only members of the classic protocol then: it becomes one."""
        if not members:
            return
        if may_downgrade(self._shard, group, gone=members):
            downgrade = Downgrade(self._shard, group, gone=members, now_ms=now_ms)
            self._shard.append(downgrade.records)
            downgrade.resume(rebalance_because="the last member of the consumer protocol left")
            return
        group_id = group.group_id
        records: list[Record] = []
        for member in members:
            records += member_tombstones(group_id, member.member_id)
        unused = _unused_regexes(group, members)
        records += [
            (ConsumerGroupRegularExpressionKey(group_id=group_id, regular_expression=regex), None) for regex in unused
        ]
        topics = group.subscribed_topics_without(members, regexes_gone=unused)
        update = MemberUpdate(self._shard, group, records, now_ms)
        update.bump_epoch(topics_hash(topics, self._shard.image), bump=True)
        self._shard.append(records)
        for member in members:
            self.sessions.cancel(group, member.member_id)


def _unused_regexes(group: ConsumerGroup, gone: Collection[ConsumerMember]) -> list[str]:
    counts: dict[str, int] = {}
    for member in gone:
        if member.subscribed_topic_regex:
            counts[member.subscribed_topic_regex] = counts.get(member.subscribed_topic_regex, 0) + 1
    return [regex for regex, count in counts.items() if group.regexes[regex] == count]
