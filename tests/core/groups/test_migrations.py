"""Groups that change their protocol, where that goes wrong half way or the coordinator ends right behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.classic_groups import GROUP, heartbeat_request, join_request, leave_request, sync_request
from tests.support.consumer_groups import CONSUMER_CONFIGS, Consumer, ConsumerCoordinator

from millstream.core.groups.classic import ClassicGroup
from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.embedded_protocol import Subscription, encode_subscription
from millstream.core.wire.messages.join_group import JoinGroupResponse
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from millstream.core.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from millstream.core.wire.messages.offset_fetch import OffsetFetchRequestGroup

METADATA = encode_subscription(Subscription(topics=["t"]), 1)


def ask(coordinator: ConsumerCoordinator, method: str, request: object, *, version: int = 9) -> Any:
    return coordinator.answers.get(coordinator.call(method, request, version=version))


def committed(coordinator: ConsumerCoordinator) -> list[int]:
    asked = OffsetFetchRequestGroup(group_id=GROUP, topics=None)
    topics = ask(coordinator, "offset_fetch", (asked, False)).topics
    return [partition.committed_offset for topic in topics for partition in topic.partitions]


def commit(coordinator: ConsumerCoordinator, offset: int) -> None:
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
    request = OffsetCommitRequest(
        group_id=GROUP,
        generation_id_or_member_epoch=-1,
        topics=[OffsetCommitRequestTopic(name="t", partitions=[partition])],
    )
    assert not ask(coordinator, "offset_commit", request).topics[0].partitions[0].error_code


def test_offsets_survive_a_member_of_the_classic_protocol_that_never_came_to_a_generation() -> None:
    coordinator = ConsumerCoordinator({"t": 1})
    consumer = Consumer(coordinator, "m")
    consumer.beat()
    consumer.epoch = -1
    consumer.beat()
    commit(coordinator, 7)
    answer = ask(coordinator, "join_group", join_request(protocols=[("range", METADATA)]))
    assert answer.error_code == ErrorCode.MEMBER_ID_REQUIRED
    assert committed(coordinator) == [7]
    coordinator.fail()
    assert committed(coordinator) == [7]


def test_a_group_that_was_emptied_and_is_joined_in_the_classic_protocol_is_recorded_as_such() -> None:
    coordinator = ConsumerCoordinator({"t": 1})
    consumer = Consumer(coordinator, "m")
    consumer.beat()
    consumer.epoch = -1
    consumer.beat()
    answer = ask(coordinator, "join_group", join_request(protocols=[("range", METADATA)]))
    assert answer.error_code == ErrorCode.MEMBER_ID_REQUIRED
    coordinator.fail()
    assert isinstance(coordinator.shard.groups[GROUP], ClassicGroup)


def test_a_group_that_is_too_large_to_be_upgraded_goes_on() -> None:
    coordinator = ConsumerCoordinator({"t": 4})
    joined = []
    for version in (3, 3):
        number = coordinator.call(
            "join_group", join_request(protocols=[("range", METADATA + bytes(400))]), version=version
        )
        joined.append(number)
    coordinator.pass_ms(10_000)
    leader, follower = (coordinator.answers[number] for number in joined)
    assert isinstance(leader, JoinGroupResponse)
    generation = leader.generation_id
    waits = coordinator.call("sync_group", sync_request(follower.member_id, generation))
    coordinator.shard.append_size_bytes_max = 1_500
    answer = Consumer(coordinator, "m").beat()
    assert isinstance(answer, KafkaError)
    assert answer.code is ErrorCode.UNKNOWN_SERVER_ERROR
    coordinator.shard.append_size_bytes_max = 1 << 20
    assert waits in coordinator.unanswered
    answer = ask(coordinator, "sync_group", sync_request(leader.member_id, generation))
    assert answer.error_code == ErrorCode.NONE
    assert coordinator.answers[waits].error_code == ErrorCode.NONE
    assert isinstance(coordinator.shard.groups[GROUP], ClassicGroup)
    assert Consumer(coordinator, "m").beat().member_epoch == generation + 1
    assert isinstance(coordinator.shard.groups[GROUP], ConsumerGroup)


def test_a_leave_group_that_names_nobody_names_nobody() -> None:
    coordinator = ConsumerCoordinator({"t": 1})
    Consumer(coordinator, "m").beat()
    assert ask(coordinator, "leave_group", leave_request(), version=5).members == []


def upgraded(coordinator: ConsumerCoordinator) -> tuple[str, Consumer]:
    """A group with a member of the classic protocol, and a static one of the consumer protocol: (its id, the other)."""
    number = coordinator.call("join_group", join_request(protocols=[("range", METADATA)]), version=3)
    coordinator.pass_ms(3_000)
    joined = coordinator.answers[number]
    ask(coordinator, "sync_group", sync_request(joined.member_id, joined.generation_id, [(joined.member_id, b"")]))
    consumer = Consumer(coordinator, "m", instance_id="i")
    consumer.beat()
    assert isinstance(coordinator.shard.groups[GROUP], ConsumerGroup)
    return joined.member_id, consumer


def test_a_static_member_that_comes_back_in_the_classic_protocol_takes_the_group_along() -> None:
    coordinator = ConsumerCoordinator({"t": 4})
    other_id, consumer = upgraded(coordinator)
    epoch = consumer.epoch
    answer = ask(coordinator, "join_group", join_request(instance_id="i", protocols=[("range", METADATA)]))
    assert answer.error_code == ErrorCode.NONE
    group = coordinator.shard.groups[GROUP]
    assert isinstance(group, ClassicGroup)
    assert set(group.members) == {other_id, answer.member_id}
    assert group.static_member("i") is group.members[answer.member_id]
    assert group.generation >= epoch
    # The former self is fenced, wherever it asks.
    fenced = consumer.beat()
    assert isinstance(fenced, KafkaError)
    heartbeat = heartbeat_request(consumer.member_id, group.generation, instance_id="i")
    assert ask(coordinator, "heartbeat", heartbeat).error_code == ErrorCode.FENCED_INSTANCE_ID
    generation, members = group.generation, set(group.members)
    coordinator.fail()
    group = coordinator.shard.groups[GROUP]
    assert isinstance(group, ClassicGroup)
    assert (group.generation, set(group.members)) == (generation, members)


def test_a_full_group_takes_no_other_member_and_keeps_those_it_has() -> None:
    configs = replace(CONSUMER_CONFIGS, consumer_members_max=2, classic_members_max=2)
    coordinator = ConsumerCoordinator({"t": 4}, configs)
    other_id, consumer = upgraded(coordinator)
    refused = Consumer(coordinator, "third").beat()
    assert isinstance(refused, KafkaError)
    assert refused.code is ErrorCode.GROUP_MAX_SIZE_REACHED
    refused = ask(coordinator, "join_group", join_request(protocols=[("range", METADATA)]))
    assert isinstance(refused, KafkaError)
    assert refused.code is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert consumer.acknowledge().member_epoch == consumer.epoch
    group = coordinator.shard.groups[GROUP]
    assert isinstance(group, ConsumerGroup)
    assert set(group.members) == {other_id, "m"}


def test_what_a_live_member_may_not_do() -> None:
    coordinator = ConsumerCoordinator({"t": 4})
    other_id, consumer = upgraded(coordinator)
    group = coordinator.consumer_group

    def commit_of(member_id: str, epoch: int, version: int = 9) -> Any:
        partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=1)
        request = OffsetCommitRequest(
            group_id=GROUP,
            member_id=member_id,
            generation_id_or_member_epoch=epoch,
            topics=[OffsetCommitRequestTopic(name="t", partitions=[partition])],
        )
        answer = ask(coordinator, "offset_commit", request, version=version)
        return answer.code if isinstance(answer, KafkaError) else answer.topics[0].partitions[0].error_code

    generation = group.member(other_id).member_epoch
    assert commit_of("m", consumer.epoch) == ErrorCode.NONE
    assert commit_of("m", consumer.epoch + 1) == ErrorCode.STALE_MEMBER_EPOCH
    assert commit_of("m", consumer.epoch, version=8) == ErrorCode.UNSUPPORTED_VERSION
    assert commit_of("stranger", consumer.epoch) == ErrorCode.UNKNOWN_MEMBER_ID
    assert commit_of("", -1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert commit_of(other_id, generation) == ErrorCode.NONE
    assert commit_of(other_id, generation + 1) == ErrorCode.ILLEGAL_GENERATION
    topics = [OffsetDeleteRequestTopic(name="t", partitions=[OffsetDeleteRequestPartition(partition_index=0)])]
    deleted = ask(coordinator, "offset_delete", OffsetDeleteRequest(group_id=GROUP, topics=topics))
    assert deleted.topics[0].partitions[0].error_code == ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
    refused = ask(coordinator, "delete_group", GROUP)
    assert isinstance(refused, KafkaError)
    assert refused.code is ErrorCode.NON_EMPTY_GROUP
    assert committed(coordinator) == [1]


def test_a_protocol_that_a_member_names_twice_counts_once() -> None:
    coordinator = ConsumerCoordinator({"t": 4})
    consumer = Consumer(coordinator, "m")
    consumer.beat()

    def join(*names: str) -> Any:
        request = join_request(protocols=[(name, METADATA) for name in names])
        answer = ask(coordinator, "join_group", request, version=3)
        return answer.code if isinstance(answer, KafkaError) else answer.error_code

    assert join("range", "range") == ErrorCode.NONE
    assert join("sticky") == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert join("sticky", "range") == ErrorCode.NONE
    # All that are left have one in common, so the group can be of the classic protocol again.
    consumer.epoch = -1
    consumer.beat()
    group = coordinator.shard.groups[GROUP]
    assert isinstance(group, ClassicGroup)
    assert group.choose_protocol() == "range"


def test_a_member_that_knows_of_one_timeout_only_has_that_to_sync() -> None:
    coordinator = ConsumerCoordinator({"t": 4})
    Consumer(coordinator, "m").beat()
    request = join_request(protocols=[("range", METADATA)])
    request.rebalance_timeout_ms = -1  # what version 0 decodes to
    member_id = ask(coordinator, "join_group", request, version=0).member_id
    group = coordinator.shard.groups[GROUP]
    assert isinstance(group, ConsumerGroup)
    coordinator.pass_ms(request.session_timeout_ms - 1_000)
    assert member_id in group.members
    coordinator.pass_ms(2_000)
    assert member_id not in group.members
