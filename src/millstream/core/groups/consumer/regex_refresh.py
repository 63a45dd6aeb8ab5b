"""When regular expressions of groups are resolved, and what comes of it.

All expressions of a group are resolved together, so that they cost one rebalance: as soon as one is new, when topics
were created, and every `group.consumer.regex.refresh.interval.ms`; never more often than every ten seconds. A heartbeat
begins it, and the result is a change of its own: members see it with a later heartbeat.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.groups.consumer.member_update import MemberUpdate
from millstream.core.groups.consumer.regexes import TopicMatching
from millstream.core.groups.consumer.steps import Steps, pieces, sorted_in_steps
from millstream.core.groups.consumer.topic_hash import topics_hash, topics_hash_in_steps
from millstream.core.groups.group import Record
from millstream.core.groups.records import ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue
from millstream.core.groups.timer_wheel import TICK_MS
from millstream.core.wire import KafkaError

if TYPE_CHECKING:
    from millstream.core.groups.group import Caller
    from millstream.core.groups.shard import GroupShard

_logger = logging.getLogger(__name__)

# Between two resolutions of one group's expressions.
REFRESH_INTERVAL_MS_MIN: Final = 10_000
# How often what is read is looked at anew, in steps, because the group or its topics changed meanwhile.
PASSES_MAX: Final = 4


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
            write(self._resolved(group, matching, image.version, caller, now_ms), now_ms)

        def write(steps: Steps[None], now_ms: int) -> None:
            if self._shard.groups.get(group.group_id) is not group:
                return
            try:
                next(steps)
            except KafkaError as error:
                # More topics than a batch can hold: heartbeats begin no other resolution for a while.
                _logger.warning("group %s: regular expressions stay as they were: %s", group.group_id, error)
                self._shard.timers.set(now_ms + REFRESH_INTERVAL_MS_MIN, done)
            except StopIteration:
                done(now_ms)
            except Exception:
                _logger.exception("group %s: regular expressions stay as they were", group.group_id)
                self._shard.timers.set(now_ms + REFRESH_INTERVAL_MS_MIN, done)
            else:
                self._shard.timers.soon(now_ms, partial(write, steps))

        def done(_now_ms: int) -> None:
            group.is_resolving = False

        self._shard.timers.set(now_ms, step)

    def _resolved(
        self, group: ConsumerGroup, matching: TopicMatching, version: int, caller: Caller, now_ms: int
    ) -> Steps[None]:
        """Write what was matched, in steps: with 20,000 topics each look at all of them takes milliseconds."""
        matches: dict[str, frozenset[str]] = {}
        visible: set[str] | None = None
        if caller.visible_topics is not None:
            visible = set()
            for piece in pieces(set().union(*matching.matches.values())):
                visible.update(caller.visible_topics(piece))
                yield
        values: dict[str, ConsumerGroupRegularExpressionValue] = {}
        for regex, topics in matching.matches.items():
            matches[regex] = frozenset(topics if visible is None else topics & visible)
            yield
            in_order = yield from sorted_in_steps(matches[regex])
            values[regex] = ConsumerGroupRegularExpressionValue(topics=in_order, version=version, timestamp=now_ms)
        metadata_hash = None
        for _ in range(PASSES_MAX):
            epoch, image, regexes = group.group_epoch, self._shard.image, list(group.regexes)
            read: set[str] = set(group.names)
            for regex in regexes:
                read |= _topics(group, regex, matches)
                yield
            found = yield from topics_hash_in_steps(read, image)
            # Members that came, left or subscribed to something else meanwhile, and new topics, make it another one.
            if group.group_epoch == epoch and self._shard.image is image and list(group.regexes) == regexes:
                metadata_hash = found
                break
        if metadata_hash is None:
            # Something has changed each time: rather one long step than none that ends.
            read = set(group.names).union(*(_topics(group, regex, matches) for regex in group.regexes))
            metadata_hash = topics_hash(read, self._shard.image)
        records: list[Record] = []
        has_changed = False
        for regex in group.regexes:
            if regex in values:
                old = group.resolved_regexes.get(regex)
                has_changed |= matches[regex] != (old.topics if old is not None else frozenset())
                key = ConsumerGroupRegularExpressionKey(group_id=group.group_id, regular_expression=regex)
                records.append((key, values[regex]))
        if not records:
            return
        update = MemberUpdate(self._shard, group, records, now_ms)
        update.bump_epoch(metadata_hash, bump=has_changed)
        self._shard.append(records)
        _logger.debug("group %s: regular expressions %s were resolved", group.group_id, list(matches))


def _topics(group: ConsumerGroup, regex: str, matches: dict[str, frozenset[str]]) -> frozenset[str]:
    """What an expression stands for. One that came up while the others were matched is resolved next time."""
    if regex in matches:
        return matches[regex]
    old = group.resolved_regexes.get(regex)
    return old.topics if old is not None else frozenset()
