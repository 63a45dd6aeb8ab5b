"""Regular expressions over many topics: right, visible topics alone, and never long at a time."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.classic_groups import HOST
from tests.support.consumer_groups import Consumer, ConsumerCoordinator

from millstream.core.groups.consumer import regexes
from millstream.core.groups.consumer.regex_refresh import PASSES_MAX
from millstream.core.groups.consumer.regexes import TopicMatching, check_regex
from millstream.core.groups.consumer.steps import STEP_COUNT_MAX
from millstream.core.groups.consumer.topic_hash import topics_hash
from millstream.core.groups.group import Caller
from millstream.core.groups.timer_wheel import TICK_MS
from millstream.core.wire import ErrorCode, KafkaError

TOPICS = [f"team-{number % 40}.service-{number}" for number in range(20_000)]


def test_topics_match_as_a_whole() -> None:
    matching = TopicMatching(["team-7\\..*", "service", ".*-19999"], TOPICS)
    while not matching.step():
        pass
    assert matching.matches == {
        "team-7\\..*": {topic for topic in TOPICS if topic.startswith("team-7.")},
        "service": set(),
        ".*-19999": {"team-39.service-19999"},
    }


def test_no_slice_matches_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = regexes._matcher, 0

    class CountedMatcher:
        def __init__(self, regex: str) -> None:
            self._matcher = made(regex)

        def Match(self, topic: str) -> Any:  # noqa: N802 - as RE2's
            nonlocal asked
            asked += 1
            return self._matcher.Match(topic)

    monkeypatch.setattr(regexes, "_matcher", CountedMatcher)
    matching = TopicMatching([".*", "(team-[0-9]+\\.)*service-.*"], TOPICS)
    slices, done = [], False
    while not done:
        asked = 0
        done = matching.step()
        slices.append(asked)
    assert max(slices) <= regexes.SLICE_MATCHES
    assert sum(slices) == 2 * len(TOPICS)
    assert matching.matches[".*"] == set(TOPICS)


@pytest.mark.parametrize("regex", ["[", "a{2000}", "(?=x)", "\\1", "(a{999}){999}"])
def test_what_re2_does_not_take_is_refused(regex: str) -> None:
    with pytest.raises(KafkaError, match="is not a valid regular expression") as raised:
        check_regex(regex)
    assert raised.value.code is ErrorCode.INVALID_REGULAR_EXPRESSION


def test_an_expression_is_compiled_when_its_turn_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    made, compiled = regexes._matcher, list[str]()

    def count(regex: str) -> Any:
        compiled.append(regex)
        return made(regex)

    monkeypatch.setattr(regexes, "_matcher", count)
    matching = TopicMatching(["(bad", "team-1\\..*", "x"], TOPICS[:10])
    assert compiled == []
    assert not matching.step()
    assert compiled == ["(bad"]
    assert not matching.step()
    assert matching.step()
    assert compiled == ["(bad", "team-1\\..*", "x"]
    assert matching.matches == {"(bad": set(), "team-1\\..*": {"team-1.service-1"}, "x": set()}


def test_an_expression_longer_than_a_record_can_hold_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regexes, "_matcher", lambda _: pytest.fail("compiled"))
    with pytest.raises(KafkaError) as refused:
        check_regex("x" * 3_000_000)
    assert refused.value.code is ErrorCode.INVALID_REGULAR_EXPRESSION


def test_only_topics_that_the_member_may_see_are_matched() -> None:
    coordinator = ConsumerCoordinator({"t-open": 1, "t-secret": 1})
    member = Consumer(coordinator, "m", None, regex="t-.*")
    caller = Caller("m", HOST, 1, lambda topics: [topic for topic in topics if "secret" not in topic])
    coordinator.call("consumer_group_heartbeat", member.request(), caller=caller)
    coordinator.pass_ms(1_000)
    assert coordinator.consumer_group.resolved_regexes["t-.*"].topics == {"t-open"}


def test_more_matches_than_a_batch_holds_leave_the_group_as_it_was() -> None:
    coordinator = ConsumerCoordinator({f"topic-{number}": 1 for number in range(50)})
    coordinator.shard.append_size_bytes_max = 600
    member = Consumer(coordinator, "m", None, regex="topic-.*")
    assert member.beat().member_epoch == 1
    coordinator.pass_ms(1_000)
    group = coordinator.consumer_group
    assert (group.resolved_regexes, group.is_resolving) == ({}, True)
    coordinator.shard.append_size_bytes_max = 1 << 20
    coordinator.pass_ms(10_000)
    assert member.beat().member_epoch == 1
    coordinator.pass_ms(1_000)
    assert len(group.resolved_regexes["topic-.*"].topics) == 50


def test_a_member_that_no_batch_can_take_out_is_tried_again() -> None:
    coordinator = ConsumerCoordinator({"t": 1})
    Consumer(coordinator, "m").beat()
    coordinator.shard.append_size_bytes_max = 10
    coordinator.pass_ms(46_000)
    assert coordinator.consumer_group.members.keys() == {"m"}
    coordinator.shard.append_size_bytes_max = 1 << 20
    coordinator.pass_ms(46_000)
    assert coordinator.consumer_group.is_empty()


def test_what_matched_is_written_in_many_steps_and_what_changes_meanwhile_counts() -> None:
    coordinator = ConsumerCoordinator(dict.fromkeys(TOPICS, 1))
    coordinator.shard.append_size_bytes_max = 16 << 20
    Consumer(coordinator, "m", None, regex="team-.*").beat()
    group = coordinator.consumer_group
    count = 0
    while group.is_resolving:
        coordinator.timers.advance(coordinator.now_ms, is_over=lambda: True)
        count += 1
        if count == 3 * len(TOPICS) // STEP_COUNT_MAX:
            # The hash is being made. Another topic is read from here on, and that is seen before anything is written.
            assert not group.resolved_regexes
            coordinator.set_topics({**dict.fromkeys(TOPICS, 1), "other": 3})
            Consumer(coordinator, "m2", ["other"]).beat()
        coordinator.now_ms += TICK_MS
    # Matched, put in order (twice all of them), hashed; and hashed again, since the first hash was no longer right.
    assert count >= 4 * len(TOPICS) // STEP_COUNT_MAX
    assert group.resolved_regexes["team-.*"].topics == set(TOPICS)
    assert group.metadata_hash == topics_hash([*TOPICS, "other"], coordinator.image)


def test_a_cluster_that_changes_all_the_time_is_resolved_too() -> None:
    coordinator = ConsumerCoordinator(dict.fromkeys(TOPICS, 1))
    coordinator.shard.append_size_bytes_max = 16 << 20
    Consumer(coordinator, "m", None, regex="team-.*").beat()
    group = coordinator.consumer_group
    count = 0
    while group.is_resolving:
        coordinator.timers.advance(coordinator.now_ms, is_over=lambda: True)
        count += 1
        assert count < (PASSES_MAX + 8) * len(TOPICS) // STEP_COUNT_MAX, "each change begins it anew"
        if count % (len(TOPICS) // STEP_COUNT_MAX // 2) == 0:
            coordinator.set_topics({**dict.fromkeys(TOPICS, 1), f"other-{count}": 1})
        coordinator.now_ms += TICK_MS
    assert group.resolved_regexes["team-.*"].topics == set(TOPICS)
