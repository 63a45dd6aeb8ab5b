"""Groups that change their protocol, where that goes wrong half way or the coordinator ends right behind it."""

from __future__ import annotations

from typing import Any

from tests.support.classic_groups import GROUP, join_request, leave_request, sync_request
from tests.support.consumer_groups import Consumer, ConsumerCoordinator

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
