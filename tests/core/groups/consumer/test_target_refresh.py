"""Targets of large groups: made in slices behind the heartbeats, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from tests.core.groups.consumer.test_model import Groups
from tests.support.consumer_groups import Consumer, ConsumerCoordinator, topic_id

from millstream.core.groups.consumer import steps, target_refresh
from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.groups.consumer.steps import STEP_COUNT_MAX
from millstream.core.wire import KafkaError

TOPICS_COUNT = 20_000
NAMES = [f"topic-{number}" for number in range(TOPICS_COUNT)]


def one_step(coordinator: ConsumerCoordinator) -> None:
    """Fire one timer that is due, as a pass of the loop does whose time is over."""
    coordinator.timers.advance(coordinator.now_ms, is_over=lambda: True)
    coordinator._settle()


def steps_until_assigned(coordinator: ConsumerCoordinator) -> int:
    count = 0
    while coordinator.consumer_group.is_assigning:
        one_step(coordinator)
        count += 1
    return count


def sizes(group: ConsumerGroup) -> dict[str, int]:
    return {member_id: sum(map(len, target.values())) for member_id, target in group.targets.items()}


def many_topics() -> ConsumerCoordinator:
    return ConsumerCoordinator(dict.fromkeys([*NAMES, "t"], 1))


def test_twenty_thousand_topics_are_assigned_in_many_steps() -> None:
    coordinator = many_topics()
    coordinator.shard.append_size_bytes_max = 16 << 20
    first = Consumer(coordinator, "m1", NAMES)
    answer = first.beat()
    group = coordinator.consumer_group
    assert (answer.member_epoch, first.partitions) == (1, 0)
    assert (group.state_name, group.group_epoch, group.assignment_epoch) == ("Assigning", 2, 1)
    # Others are served meanwhile.
    one_step(coordinator)
    other = Consumer(coordinator, "m", ["t"], group_id="small")
    assert other.beat().member_epoch > 0
    assert other.partitions == 1
    assert group.is_assigning
    assert steps_until_assigned(coordinator) >= TOPICS_COUNT // STEP_COUNT_MAX
    assert (group.group_epoch, group.assignment_epoch) == (2, 2)
    assert first.beat().member_epoch == 2
    assert first.partitions == TOPICS_COUNT

    second = Consumer(coordinator, "m2", NAMES)
    assert second.beat().member_epoch == 2
    assert steps_until_assigned(coordinator) >= TOPICS_COUNT // STEP_COUNT_MAX
    # What one is to have the other one gives up first.
    for client in (second, first):
        client.beat()
        client.acknowledge()
    second.beat()
    assert (first.partitions, second.partitions) == (TOPICS_COUNT // 2, TOPICS_COUNT // 2)
    assert not first.assigned.keys() & second.assigned.keys()


def test_a_small_group_has_its_target_with_the_heartbeat_that_asks() -> None:
    coordinator = ConsumerCoordinator({"t": 8})
    client = Consumer(coordinator, "m")
    client.beat()
    assert client.partitions == 8
    assert not coordinator.consumer_group.is_assigning


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_refresh, "WORK_AT_ONCE_MAX", 0)
    monkeypatch.setattr(steps, "STEP_COUNT_MAX", 1)


@pytest.mark.usefixtures("everything_is_large")
def test_what_changes_while_a_target_is_made_counts() -> None:
    coordinator = ConsumerCoordinator({"s": 2, "t": 4})
    gone, fickle, static = (
        Consumer(coordinator, "gone", ["t"]),
        Consumer(coordinator, "fickle", ["s", "t"]),
        Consumer(coordinator, "static", ["t"], instance_id="i"),
    )
    for client in (gone, fickle, static):
        client.beat()
    group = coordinator.consumer_group
    steps_until_assigned(coordinator)
    late = Consumer(coordinator, "late", ["t"])
    late.beat()
    assert group.is_assigning
    one_step(coordinator)
    # One leaves, one reads less, one comes back under another id: the result is that of the epoch it was begun in.
    epoch = group.group_epoch
    gone.epoch = -1
    gone.beat()
    fickle.topics = ["t"]
    fickle.beat(subscribed_topic_names=["t"])
    static.epoch = -2
    static.beat()
    back = Consumer(coordinator, "back", ["t"], instance_id="i")
    assert not isinstance(back.beat(), KafkaError)
    assert group.is_assigning
    while group.assignment_epoch < epoch:
        one_step(coordinator)
    assert group.assignment_epoch == epoch < group.group_epoch
    assert group.targets.keys() <= {"fickle", "back", "late"}
    assert group.targets["fickle"].keys() <= {topic_id("t")}, "it was given what it reads no more"
    given = [(each, partition) for target in group.targets.values() for each in target for partition in target[each]]
    assert len(given) == len(set(given)), "a partition has one owner"
    # And the next target is under way.
    assert group.is_assigning
    steps_until_assigned(coordinator)
    assert group.assignment_epoch == group.group_epoch
    targets = group.targets.values()
    assert {(each, one) for target in targets for each in target for one in target[each]} == {
        (topic_id("t"), partition) for partition in range(4)
    }


@pytest.mark.usefixtures("everything_is_large")
def test_a_static_member_that_comes_back_meanwhile_has_what_its_former_self_was_given() -> None:
    coordinator = ConsumerCoordinator({"t": 8})
    static = Consumer(coordinator, "static", ["t"], instance_id="i")
    static.beat()
    steps_until_assigned(coordinator)
    group = coordinator.consumer_group
    assert sizes(group) == {"static": 8}
    late = Consumer(coordinator, "late", ["t"])
    late.beat()
    one_step(coordinator)
    static.epoch = -2
    static.beat()
    assert not isinstance(Consumer(coordinator, "back", ["t"], instance_id="i").beat(), KafkaError)
    steps_until_assigned(coordinator)
    assert sizes(group) == {"back": 4, "late": 4}


@pytest.mark.usefixtures("everything_is_large")
def test_a_group_that_ends_or_fails_over_leaves_nothing_under_way() -> None:
    coordinator = ConsumerCoordinator({"t": 4})
    client = Consumer(coordinator, "m")
    client.beat()
    one_step(coordinator)
    coordinator.fail()
    group = coordinator.consumer_group
    assert not group.is_assigning
    client.beat()
    steps_until_assigned(coordinator)
    client.beat()
    assert client.partitions == 4
    Consumer(coordinator, "m2").beat()
    one_step(coordinator)
    coordinator.pass_ms(46_000)
    assert coordinator.consumer_group.is_empty()


@pytest.mark.usefixtures("everything_is_large")
def test_a_target_that_no_batch_can_hold_is_tried_again() -> None:
    coordinator = ConsumerCoordinator({f"topic-{number}": 1 for number in range(100)})
    client = Consumer(coordinator, "m", [f"topic-{number}" for number in range(100)])
    client.beat()
    coordinator.shard.append_size_bytes_max = 600
    coordinator.pass_ms(100)
    group = coordinator.consumer_group
    assert (group.assignment_epoch, group.is_assigning) == (1, True)
    coordinator.shard.append_size_bytes_max = 1 << 20
    coordinator.pass_ms(target_refresh.RETRY_MS + 1_000)
    client.beat()
    assert client.partitions == 100


@pytest.mark.usefixtures("everything_is_large")
def test_a_mistake_in_an_assignor_does_not_end_the_group(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Iterator[None]:
        yield
        raise RuntimeError("ours")

    coordinator = ConsumerCoordinator({f"topic-{number}": 1 for number in range(100)})
    client = Consumer(coordinator, "m", [f"topic-{number}" for number in range(100)])
    with monkeypatch.context() as patched:
        patched.setattr(target_refresh, "assignment_in_steps", broken)
        client.beat()
        coordinator.pass_ms(100)
    assert "ours" in caplog.text
    coordinator.pass_ms(target_refresh.RETRY_MS + 1_000)
    client.beat()
    assert client.partitions == 100


class SlicedGroups(Groups):
    """The same, with every target made in slices; some are made between any two events."""

    @rule(count=st.integers(1, 8))
    def some_steps(self, count: int) -> None:
        for _ in range(count):
            one_step(self.coordinator)


@pytest.mark.usefixtures("everything_is_large")
def test_whatever_clients_do(soak: bool) -> None:
    run_state_machine_as_test(
        SlicedGroups,
        settings=settings(
            max_examples=1_000 if soak else 40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
