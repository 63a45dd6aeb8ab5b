"""What runs out on members of consumer groups: their sessions, and the time to give up partitions, to join, to sync.

Timers are volatile: a coordinator that takes a group over gives each member a whole session. A timer finds its group
and member by their ids when it fires, so that one left behind by a group that is gone does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from millstream.core.groups.classic.session import Session
from millstream.core.groups.consumer.configs import ConsumerGroupConfigs
from millstream.core.groups.consumer.group import ConsumerGroup, MemberTimers
from millstream.core.groups.consumer.member import ConsumerMember, MemberState
from millstream.core.wire import KafkaError

if TYPE_CHECKING:
    from millstream.core.groups.shard import GroupShard
    from millstream.core.groups.timer_wheel import Timer

_log = logging.getLogger(__name__)

# Fences a member: (group, member, now_ms).
Fence = Callable[[ConsumerGroup, ConsumerMember, int], None]


class Sessions:
    """The timers of one shard's consumer groups."""

    def __init__(self, shard: GroupShard, configs_of: Callable[[str], ConsumerGroupConfigs], fence: Fence) -> None:
        self._shard = shard
        self._configs_of = configs_of
        self._fence = fence

    def timeout_ms(self, group_id: str, member: ConsumerMember) -> int:
        """Return how long a member may be silent: what it joined with, or what the group's configs say."""
        if member.classic is not None:
            return member.classic.session_timeout_ms
        return self._configs_of(group_id).session_timeout_ms

    def extend(self, group: ConsumerGroup, member: ConsumerMember, now_ms: int) -> None:
        """The member gave a sign of life."""
        self._of(group, member.member_id).session.extend(now_ms, self.timeout_ms(group.group_id, member))

    def await_revocation(self, group: ConsumerGroup, member: ConsumerMember, now_ms: int) -> None:
        """Give a member of the consumer protocol its time to give up partitions, where it has some to give up."""
        if member.is_classic:  # It has its time to join instead.
            return
        timers = self._of(group, member.member_id)
        if timers.rebalance is not None:
            timers.rebalance.cancel()
            timers.rebalance = None
        if member.state is not MemberState.UNREVOKED_PARTITIONS:
            return
        epoch = member.member_epoch

        def expired(group: ConsumerGroup, member: ConsumerMember, now_ms: int) -> None:
            if member.member_epoch == epoch:
                self._expire(group, member, now_ms, f"it failed to leave epoch {epoch} within its rebalance timeout")

        timers.rebalance = self._set(group, member, now_ms + member.rebalance_timeout_ms, expired)

    def await_join(self, group: ConsumerGroup, member: ConsumerMember, now_ms: int) -> None:
        """Give a member of the classic protocol its time to join again, from the first time it is told to."""
        timers = self._of(group, member.member_id)
        if timers.join is None or not timers.join.is_active:
            timers.join = self._set(
                group,
                member,
                now_ms + member.rebalance_timeout_ms,
                lambda group, member, now_ms: self._expire(
                    group, member, now_ms, "the classic member failed to join within the rebalance timeout"
                ),
            )

    def await_sync(self, group: ConsumerGroup, member: ConsumerMember, now_ms: int) -> None:
        """A member of the classic protocol joined: give it its time to sync."""
        timers = self._of(group, member.member_id)
        if timers.join is not None:
            timers.join.cancel()
        if timers.sync is not None:
            timers.sync.cancel()
        timers.sync = self._set(
            group,
            member,
            now_ms + member.rebalance_timeout_ms,
            lambda group, member, now_ms: self._expire(
                group, member, now_ms, "the member failed to sync within timeout"
            ),
        )

    def synced(self, group: ConsumerGroup, member: ConsumerMember, now_ms: int) -> None:
        """A member of the classic protocol has its assignment."""
        timers = self._of(group, member.member_id)
        if timers.sync is not None:
            timers.sync.cancel()
            timers.sync = None
        self.extend(group, member, now_ms)

    def cancel(self, group: ConsumerGroup, member_id: str) -> None:
        """The member is gone."""
        timers = group.timers.pop(member_id, None)
        if timers is not None:
            timers.cancel()

    def start(self, group: ConsumerGroup, now_ms: int) -> None:
        """The group came from the classic protocol: begin a session of every member."""
        for member in group.members.values():
            self.begin(group, member, now_ms)

    def begin(self, group: ConsumerGroup, member: ConsumerMember, now_ms: int) -> None:
        """Begin a member's session, and its time to give up partitions where it has to."""
        self.extend(group, member, now_ms)
        self.await_revocation(group, member, now_ms)

    def _of(self, group: ConsumerGroup, member_id: str) -> MemberTimers:
        timers = group.timers.get(member_id)
        if timers is None:
            session = Session(self._shard.timers, self._found(group.group_id, member_id, self._session_expired))
            timers = group.timers[member_id] = MemberTimers(session)
        return timers

    def _set(self, group: ConsumerGroup, member: ConsumerMember, deadline_ms: int, act: Fence) -> Timer:
        return self._shard.timers.set(deadline_ms, self._found(group.group_id, member.member_id, act))

    def _found(self, group_id: str, member_id: str, act: Fence) -> Callable[[int], None]:
        def fire(now_ms: int) -> None:
            group = self._shard.groups.get(group_id)
            if isinstance(group, ConsumerGroup) and (member := group.members.get(member_id)) is not None:
                act(group, member, now_ms)

        return fire

    def _session_expired(self, group: ConsumerGroup, member: ConsumerMember, now_ms: int) -> None:
        self._expire(group, member, now_ms, "the member session expired")

    def _expire(self, group: ConsumerGroup, member: ConsumerMember, now_ms: int, reason: str) -> None:
        _log.info("group %s: member %s is fenced because %s", group.group_id, member.member_id, reason)
        try:
            self._fence(group, member, now_ms)
        except KafkaError as error:
            # Nothing was changed: it is tried again at the end of another session.
            _log.error("group %s: member %s can't be taken out: %s", group.group_id, member.member_id, error)
            self.extend(group, member, now_ms)
