"""When regular expressions of groups are resolved, and what comes of it.

All expressions of a group are resolved together, so that they cost one rebalance: as soon as one is new, when topics
were created, and every `group.consumer.regex.refresh.interval.ms`; never more often than every ten seconds. A heartbeat
begins it, and the result is a change of its own: members see it with a later heartbeat.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.groups.consumer.member_update import MemberUpdate
from millstream.core.groups.consumer.regexes import TopicMatching
from millstream.core.groups.consumer.topic_hash import topics_hash
from millstream.core.groups.group import Record
from millstream.core.groups.records import ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue
from millstream.core.groups.timer_wheel import TICK_MS
from millstream.core.wire import KafkaError

if TYPE_CHECKING:
    from millstream.core.groups.group import Caller
    from millstream.core.groups.shard import GroupShard

_log = logging.getLogger(__name__)

# Between two resolutions of one group's expressions.
REFRESH_INTERVAL_MS_MIN: Final = 10_000


class RegexRefresh:
    """Resolves the regular expressions of one shard's groups."""

    def __init__(self, shard: GroupShard) -> None:
        self._shard = shard

    def maybe_refresh(self, group: ConsumerGroup, caller: Caller, now_ms: int) -> None:
        """Begin a resolution if one is due. Only topics that `caller` may see count."""
        if not group.regexes or group.is_resolving:
            return
        resolved_at_ms = group.regexes_resolved_at_ms
        if resolved_at_ms is not None:
            if now_ms <= resolved_at_ms + REFRESH_INTERVAL_MS_MIN:
                return
            is_due = (
                group.regex_refresh_due
                or group.regexes.keys() != group.resolved_regexes.keys()
                or now_ms > resolved_at_ms + self._shard.configs.consumer_regex_refresh_interval_ms
            )
            if not is_due:
                return
        group.is_resolving = True
        group.regex_refresh_due = False
        image = self._shard.image
        matching = TopicMatching(group.regexes, image.topics)

        def step(now_ms: int) -> None:
            if self._shard.groups.get(group.group_id) is not group:
                return
            if not matching.step():
                self._shard.timers.set(now_ms + TICK_MS, step)
                return
            try:
                self._resolved(group, matching, image.version, caller, now_ms)
            except KafkaError as error:
                # More topics than a batch can hold: heartbeats begin no other resolution for a while.
                _log.error("group %s: regular expressions stay as they were: %s", group.group_id, error)
                self._shard.timers.set(now_ms + REFRESH_INTERVAL_MS_MIN, done)
            else:
                done(now_ms)

        def done(_now_ms: int) -> None:
            group.is_resolving = False

        self._shard.timers.set(now_ms, step)

    def _resolved(
        self, group: ConsumerGroup, matching: TopicMatching, version: int, caller: Caller, now_ms: int
    ) -> None:
        matches = matching.matches
        if caller.visible_topics is not None:
            visible = set(caller.visible_topics(sorted(set().union(*matches.values()))))
            matches = {regex: topics & visible for regex, topics in matches.items()}
        records: list[Record] = []
        read: set[str] = set(group.names)
        has_changed = False
        for regex in group.regexes:
            old = group.resolved_regexes.get(regex)
            # One that came up while this went on is resolved next time.
            topics = matches.get(regex) if regex in matches else None
            if topics is None:
                read |= old.topics if old is not None else set()
                continue
            read |= topics
            if topics != (old.topics if old is not None else frozenset()):
                has_changed = True
            value = ConsumerGroupRegularExpressionValue(topics=sorted(topics), version=version, timestamp=now_ms)
            key = ConsumerGroupRegularExpressionKey(group_id=group.group_id, regular_expression=regex)
            records.append((key, value))
        if not records:
            return
        update = MemberUpdate(self._shard, group, records, now_ms)
        update.bump_epoch(topics_hash(read, self._shard.image), bump=has_changed)
        self._shard.append(records)
        _log.debug("group %s: regular expressions %s were resolved", group.group_id, list(matches))
