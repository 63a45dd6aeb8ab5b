"""Committed offsets against Apache Kafka 4.3: the same requests to both brokers, and the same answers.

Each step is a request and the versions to send it in; answers are compared whole, but for the order of a list's items,
hosts and ports. What belongs to members of a group is compared where groups are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.records import BatchBuilder
from millstream.core.wire import APIS, ApiKey, ErrorCode
from millstream.core.wire.messages import (
    delete_groups,
    delete_topics,
    describe_groups,
    find_coordinator,
    list_groups,
    metadata,
    offset_commit,
    offset_delete,
    offset_fetch,
    produce,
)
from millstream.testing.kafka import ApacheKafka
from millstream.testing.raw import RawConnection

pytestmark = pytest.mark.java

NOWHERE = "offsets-nowhere"
SETTLED_S_MAX = 90.0
SETTLING = {
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
}


class Step(NamedTuple):
    """A request, and the versions to send it in (None: all that both serve)."""

    request: Any
    versions: tuple[int, ...] | None = None


@pytest.fixture(scope="module")
def millstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    settings = {"message.max.bytes": "2097152", "offsets.topic.num.partitions": "1"}  # as the shared Kafka has it
    with BrokerThread(tmp_path_factory.mktemp("groups") / "data", settings) as broker:
        yield broker


@pytest.fixture(scope="module")
def both(millstream: BrokerThread, apache_kafka: ApacheKafka) -> Iterator[tuple[RawConnection, RawConnection]]:
    """Connections to both, whose coordinators serve."""
    with RawConnection(millstream.bootstrap_servers) as ours, RawConnection(apache_kafka.bootstrap_servers) as theirs:
        for raw in (ours, theirs):
            deadline = time.monotonic() + SETTLED_S_MAX
            for name in ("offsets-a", "offsets-b"):
                raw.create_topic(name, 3)
            while raw.call(commit("settled", ("offsets-a", 0, 1))).topics[0].partitions[0].error_code in SETTLING:
                raw.call(find_coordinator.FindCoordinatorRequest(coordinator_keys=["settled"]))
                assert time.monotonic() < deadline, "no coordinator came up"
                time.sleep(0.02)
        yield ours, theirs


def commit(
    group: str,
    *offsets: tuple[str, int, int] | tuple[str, int, int, str | None],
    generation: int = -1,
    member: str = "",
    instance: str | None = None,
    retention_ms: int = -1,
) -> Any:
    topics: dict[str, list[Any]] = {}
    for topic, partition, offset, *text in offsets:
        topics.setdefault(topic, []).append(
            offset_commit.OffsetCommitRequestPartition(
                partition_index=partition,
                committed_offset=offset,
                committed_leader_epoch=0,
                committed_metadata=text[0] if text else "",
            )
        )
    return offset_commit.OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=generation,
        member_id=member,
        group_instance_id=instance,
        retention_time_ms=retention_ms,
        topics=[offset_commit.OffsetCommitRequestTopic(name=name, partitions=each) for name, each in topics.items()],
    )


def fetch(
    group: str,
    topics: dict[str, list[int]] | None,
    *,
    member: str | None = None,
    epoch: int = -1,
    stable: bool = False,
) -> Any:
    asked: Any = (
        None
        if topics is None
        else [
            offset_fetch.OffsetFetchRequestTopics(name=name, partition_indexes=indexes)
            for name, indexes in topics.items()
        ]
    )
    return offset_fetch.OffsetFetchRequest(
        group_id=group,
        topics=asked,  # the fields of both versions' classes are the same
        groups=[
            offset_fetch.OffsetFetchRequestGroup(group_id=group, member_id=member, member_epoch=epoch, topics=asked)
        ],
        require_stable=stable,
    )


def forget(group: str, topics: dict[str, list[int]]) -> Any:
    return offset_delete.OffsetDeleteRequest(
        group_id=group,
        topics=[
            offset_delete.OffsetDeleteRequestTopic(
                name=name,
                partitions=[offset_delete.OffsetDeleteRequestPartition(partition_index=index) for index in indexes],
            )
            for name, indexes in topics.items()
        ],
    )


def find(*keys: str, kind: int = 0) -> Any:
    return find_coordinator.FindCoordinatorRequest(key=keys[0], key_type=kind, coordinator_keys=list(keys))


def describe(*groups: str, operations: bool = False) -> Any:
    return describe_groups.DescribeGroupsRequest(groups=list(groups), include_authorized_operations=operations)


def delete(*groups: str) -> Any:
    return delete_groups.DeleteGroupsRequest(groups_names=list(groups))


def listed(*, states: list[str] | None = None, types: list[str] | None = None) -> Any:
    return list_groups.ListGroupsRequest(states_filter=states or [], types_filter=types or [])


def write(topic: str) -> Any:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, b"k", b"v")
    data = produce.PartitionProduceData(index=0, records=bytes(builder.build()))
    return produce.ProduceRequest(
        acks=-1, timeout_ms=5000, topic_data=[produce.TopicProduceData(name=topic, partition_data=[data])]
    )


LONG = "x" * 4096
ALL = None

STORIES: dict[str, list[Step]] = {
    "commit and fetch": [
        Step(commit("simple", ("offsets-a", 0, 10, "text"), ("offsets-a", 1, 11, None), ("offsets-b", 2, 12, "ä€𝄞"))),
        Step(fetch("simple", {"offsets-a": [0, 1, 2], "offsets-b": [2, 7], NOWHERE: [0]})),
        Step(fetch("simple", None), tuple(range(2, 10))),
        Step(fetch("simple", {})),
        Step(fetch("simple", None, stable=True), (7, 8, 9)),
        Step(fetch("simple", {"offsets-a": [0, 0]})),
        Step(commit("simple", ("offsets-a", 0, 9))),
        Step(fetch("simple", {"offsets-a": [0]})),
        Step(commit("simple", ("offsets-a", 0, -1), ("offsets-a", 1, -7))),
        Step(fetch("simple", {"offsets-a": [0, 1]})),
    ],
    "commits that are refused": [
        Step(commit("refused", (NOWHERE, 0, 1))),
        Step(commit("refused", ("offsets-a", 3, 1), ("offsets-a", 1, 1), (NOWHERE, 0, 1), ("offsets-b", -1, 1))),
        Step(commit("refused")),
        Step(commit("refused", ("offsets-a", 0, 1, LONG), ("offsets-a", 1, 1, LONG + "y"))),
        Step(commit("refused", ("offsets-a", 2, 1, LONG[: len(LONG) // 2 - 1] + "𝄞" * 1024 + "z"))),
        Step(commit("refused", ("offsets-a", 2, 1, "𝄞" * 2048))),
        Step(commit("refused", ("offsets-a", 2, 1, "𝄞" * 2048 + "y"))),
        Step(fetch("refused", None), (8, 9)),
        Step(commit("refused", ("offsets-a", 0, 1), generation=0)),
        Step(commit("refused", ("offsets-a", 0, 1), generation=5, member="nobody")),
        Step(commit("refused", ("offsets-a", 0, 1), member="nobody")),
        Step(commit("refused", ("offsets-a", 0, 1), instance="nobody")),
        Step(commit("refused", ("offsets-a", 0, 1), generation=-2)),
        Step(commit("refused-new", ("offsets-a", 0, 1), generation=0)),
        Step(commit("refused-new", ("offsets-a", 0, 1), generation=3, member="nobody")),
        Step(commit("refused-new", generation=3, member="nobody")),
        Step(commit("refused-member", ("offsets-a", 0, 1), member="nobody")),
        Step(describe("refused-new", "refused-member")),
        Step(commit("", ("offsets-a", 0, 1))),
        Step(fetch("", {"offsets-a": [0]})),
        Step(commit("retained", ("offsets-a", 0, 1), retention_ms=3_600_000), (2, 3, 4)),
        Step(fetch("retained", {"offsets-a": [0]})),
    ],
    "fetches of what is not there": [
        Step(fetch("fetched-unknown", {"offsets-a": [0]})),
        Step(fetch("fetched-unknown", None), tuple(range(2, 10))),
        Step(fetch("fetched-unknown", {"offsets-a": [0]}, member="m", epoch=1), (9,)),
        Step(commit("fetched", ("offsets-a", 0, 1))),
        Step(fetch("fetched", {"offsets-a": [0]}, member="m", epoch=1), (9,)),
        Step(fetch("fetched", {"offsets-a": [0]}, member="m", epoch=-1), (9,)),
        Step(
            offset_fetch.OffsetFetchRequest(
                groups=[
                    offset_fetch.OffsetFetchRequestGroup(group_id=group, topics=None)
                    for group in ("fetched", "fetched-unknown", "", "fetched")
                ]
            ),
            (8, 9),
        ),
        Step(offset_fetch.OffsetFetchRequest(groups=[]), (8, 9)),
    ],
    "offsets are deleted": [
        Step(forget("deleted-unknown", {"offsets-a": [0]})),
        Step(forget("deleted-unknown", {NOWHERE: [0]})),
        Step(forget("deleted-unknown", {})),
        Step(commit("deleted", ("offsets-a", 0, 1), ("offsets-a", 1, 1), ("offsets-b", 0, 1)), (9,)),
        Step(forget("deleted", {"offsets-a": [0, 2, 5], NOWHERE: [0], "offsets-b": []})),
        Step(fetch("deleted", None), (9,)),
        Step(forget("deleted", {"offsets-a": [0, 1], "offsets-b": [0]})),
        Step(fetch("deleted", None), (9,)),
        Step(describe("deleted")),
        Step(forget("", {"offsets-a": [0]})),
    ],
    "groups are deleted": [
        Step(delete("gone-unknown")),
        Step(commit("gone", ("offsets-a", 0, 1)), (9,)),
        Step(commit("gone-2", ("offsets-a", 0, 1)), (9,)),
        Step(describe("gone")),
        Step(delete("gone", "gone-unknown", "gone"), (2,)),
        Step(delete("gone")),
        Step(delete("gone-2"), (0,)),
        Step(fetch("gone", None), (9,)),
        Step(describe("gone")),
        Step(delete()),
        Step(commit("", ("offsets-a", 0, 1)), (9,)),
        Step(delete(""), (2,)),
        Step(delete(""), (2,)),
    ],
    "coordinators are found": [
        Step(find("found")),
        Step(find("")),
        Step(find("found", "found-2", "found", ""), (4, 5, 6)),
        Step(find_coordinator.FindCoordinatorRequest(coordinator_keys=[]), (4, 5, 6)),
    ],
    "groups are described": [
        Step(describe("described-unknown")),
        Step(describe("")),
        Step(describe()),
        Step(commit("described", ("offsets-a", 0, 1)), (9,)),
        Step(describe("described", "described-unknown", "described")),
        Step(describe("described", "described-unknown", operations=True), (3, 4, 5, 6)),
    ],
    "internal topics": [
        Step(write("__consumer_offsets"), (9,)),
        Step(metadata.MetadataRequest(topics=[metadata.MetadataRequestTopic(name="__consumer_offsets")]), (9,)),
    ],
}
FILTERS = [
    listed(),
    listed(states=["Empty"]),
    listed(states=["eMPTY", "Stable"]),
    listed(states=["Stable"]),
    listed(states=["nonsense"]),
    listed(types=["classic"]),
    listed(types=["Consumer"]),
    listed(types=["CLASSIC"], states=["empty"]),
    listed(types=["nonsense"]),
]


def comparable(message: Any) -> Any:
    """The fields of a response, without what differs between two brokers; lists of structs in one order."""
    if isinstance(message, list):
        items = [comparable(item) for item in message]
        return sorted(items, key=repr) if message and hasattr(message[0], "__wire__") else items
    if hasattr(message, "__wire__"):
        left_out = {"host", "port", "throttle_time_ms", "topic_id", "cluster_id", "brokers", "log_start_offset", "rack"}
        return {
            field.name: comparable(getattr(message, field.name))
            for field in message.__wire__.fields
            if field.name not in left_out
        }
    return message


def versions(step: Step) -> tuple[int, ...]:
    return tuple(APIS[ApiKey(step.request.__wire__.key)].versions) if step.versions is None else step.versions


@pytest.mark.parametrize("story", STORIES)
def test_the_same_answers(both: tuple[RawConnection, RawConnection], story: str) -> None:
    for number, step in enumerate(STORIES[story]):
        for version in versions(step):
            if step.request.__wire__.key == ApiKey.OFFSET_FETCH and version == 1 and step.request.topics is None:
                continue
            ours, theirs = (comparable(raw.call(step.request, version)) for raw in both)
            assert ours == theirs, f"step {number}, version {version}: {step.request}"


@pytest.mark.parametrize("version", APIS[ApiKey.LIST_GROUPS].versions)
def test_the_same_groups_are_listed(both: tuple[RawConnection, RawConnection], version: int) -> None:
    for raw in both:
        raw.call(commit("listed-1", ("offsets-a", 0, 1)))
        raw.call(commit("listed-2", ("offsets-a", 0, 1)))
    for request in FILTERS:
        if (request.states_filter and version < 4) or (request.types_filter and version < 5):
            continue
        answers = [raw.call(request, version) for raw in both]
        for answer in answers:
            answer.groups = [group for group in answer.groups if group.group_id.startswith("listed-")]
        assert comparable(answers[0]) == comparable(answers[1]), f"version {version}: {request}"


def test_offsets_go_with_their_topic(both: tuple[RawConnection, RawConnection]) -> None:
    answers = []
    for raw in both:
        raw.create_topic("offsets-going", 1)
        assert raw.call(commit("going", ("offsets-going", 0, 5), ("offsets-a", 0, 6))).topics[0].partitions
        topic = delete_topics.DeleteTopicState(name="offsets-going")
        raw.call(delete_topics.DeleteTopicsRequest(topics=[topic], timeout_ms=30_000))
        deadline = time.monotonic() + SETTLED_S_MAX
        while len(raw.call(fetch("going", None)).groups[0].topics) > 1:
            assert time.monotonic() < deadline, "the offsets of a deleted topic stay"
            time.sleep(0.02)
        answers.append(comparable(raw.call(fetch("going", None))))
    assert answers[0] == answers[1]
