"""The same conversations with consumer groups, held with Millstream and with Apache Kafka: every answer must be alike.

Member and topic ids differ, so they are named by whom they belong to; so is what only tells the moment.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from millstream.core.cluster import ClusterImage, PartitionState, TopicImage
from millstream.core.config import BrokerConfig
from millstream.core.groups.configs import GroupConfigs
from millstream.core.groups.group import Caller
from millstream.core.groups.shard import GroupShard
from millstream.core.groups.timer_wheel import TimerWheel
from millstream.core.records import iter_batches, iter_records
from millstream.core.wire import error_code
from millstream.core.wire.embedded_protocol import (
    OwnedTopic,
    Subscription,
    decode_assignment,
    encode_subscription,
)
from millstream.core.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from millstream.core.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    TopicPartitions,
)
from millstream.core.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.heartbeat import HeartbeatRequest
from millstream.core.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from millstream.core.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from millstream.core.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from millstream.core.wire.messages.list_config_resources import ListConfigResourcesRequest
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from millstream.core.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from millstream.core.wire.messages.sync_group import SyncGroupRequest
from millstream.testing import broker
from millstream.testing.kafka import ApacheKafka
from millstream.testing.raw import RawConnection

pytestmark = pytest.mark.java

# Both assign with every epoch, so that no answer depends on how much time went by.
CONFIGS: Final = {
    "group.consumer.assignment.interval.ms": "0",
    "group.consumer.min.assignment.interval.ms": "0",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
}
GROUP: Final = 32
PARTITION: Final = PartitionState(leader=1, leader_epoch=0, replicas=(1,), isr=(1,), partition_epoch=0)
TOPICS: Final = {"a-topic": 4, "b-topic": 2}


class Conversation:
    """One connection to one broker; answers come back as plain data."""

    def __init__(self, bootstrap: str) -> None:
        self.raw = RawConnection(bootstrap)
        self.names: dict[bytes, str] = {}

    def make_topics(self) -> None:
        for name, count in TOPICS.items():
            self.raw.create_topic(name, partitions=count)
        # Apache Kafka makes its __consumer_offsets when a coordinator is first asked for.
        find = FindCoordinatorRequest(key_type=0, coordinator_keys=["g"])
        until(lambda: self.raw.call(find, version=4).coordinators[0].error_code, lambda code: code == 0)
        answer = self.raw.call(MetadataRequest(topics=[MetadataRequestTopic(name=name) for name in TOPICS]))
        self.names = {topic.topic_id: topic.name for topic in answer.topics}
        assert all(len(topic.partitions) == TOPICS[topic.name] for topic in answer.topics)

    def id_of(self, name: str) -> bytes:
        return next(topic_id for topic_id, each in self.names.items() if each == name)

    def beat(self, group: str, member: str, epoch: int, *, version: int = 1, owned: Any = None, **fields: Any) -> Any:
        partitions = None
        if owned is not None:
            partitions = [
                TopicPartitions(topic_id=self.id_of(name), partitions=list(each)) for name, each in owned.items()
            ]
        request = ConsumerGroupHeartbeatRequest(
            group_id=group, member_id=member, member_epoch=epoch, topic_partitions=partitions, **fields
        )
        deadline = time.monotonic() + 60
        while True:
            answer = self.raw.call(request, version=version)
            code = error_code(answer.error_code).name
            if not code.startswith(("COORDINATOR_", "NOT_COORDINATOR")) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assigned = None
        if answer.assignment is not None:
            assigned = {
                self.names[each.topic_id]: sorted(each.partitions) for each in answer.assignment.topic_partitions
            }
        return code, answer.error_message, answer.member_epoch, answer.heartbeat_interval_ms, assigned

    def join(self, group: str, member: str, **fields: Any) -> Any:
        return self.beat(
            group,
            member,
            0,
            owned={},
            **{"rebalance_timeout_ms": 60_000, "subscribed_topic_names": ["a-topic"], **fields},
        )

    def describe(self, group: str, *, version: int = 1) -> Any:
        return shown_group(self.raw.call(ConsumerGroupDescribeRequest(group_ids=[group]), version=version).groups[0])

    def commit(self, group: str, member: str, epoch: int, topic: str, partition: int, *, version: int = 9) -> str:
        answer = self.raw.call(
            OffsetCommitRequest(
                group_id=group,
                generation_id_or_member_epoch=epoch,
                member_id=member,
                topics=[
                    OffsetCommitRequestTopic(
                        name=topic,
                        partitions=[OffsetCommitRequestPartition(partition_index=partition, committed_offset=1)],
                    )
                ],
            ),
            version=version,
        )
        return error_code(answer.topics[0].partitions[0].error_code).name

    def fetch(self, group: str, member: str | None, epoch: int) -> str:
        answer = self.raw.call(
            OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, member_id=member, member_epoch=epoch)]),
            version=9,
        )
        return error_code(answer.groups[0].error_code).name


def shown_group(answer: Any) -> Any:
    """A DescribedGroup as plain data."""

    def shown(assignment: Any) -> dict[str, list[int]]:
        return {each.topic_name: sorted(each.partitions) for each in assignment.topic_partitions}

    members = sorted(
        (
            each.member_id, each.instance_id, each.rack_id, each.member_epoch, each.client_id, each.client_host,
            sorted(each.subscribed_topic_names), each.subscribed_topic_regex, shown(each.assignment),
            shown(each.target_assignment), each.member_type,
        )
        for each in answer.members
    )  # fmt: skip
    return (
        error_code(answer.error_code).name, answer.error_message, answer.group_state, answer.group_epoch,
        answer.assignment_epoch, answer.assignor_name, members,
    )  # fmt: skip


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[tuple[Conversation, Conversation]]:
    """The two, each with the topics."""
    with (
        ApacheKafka(tmp_path_factory.mktemp("kafka") / "kafka", properties=CONFIGS) as kafka,
        broker(CONFIGS) as ours,
    ):
        both = Conversation(ours.bootstrap_servers), Conversation(kafka.bootstrap_servers)
        for conversation in both:
            conversation.make_topics()
        yield both
        for conversation in both:
            conversation.raw.close()


Story = Callable[[Conversation], Any]


def validations(talk: Conversation) -> Any:
    yield talk.join("", "m")
    yield talk.join("v", "")
    yield talk.beat("v", "", 0, version=0, owned={}, rebalance_timeout_ms=1000, subscribed_topic_names=[])[0]
    yield talk.join("v", "m", instance_id="")
    yield talk.join("v", "m", rack_id="")
    yield talk.join("v", "m", rebalance_timeout_ms=-1)
    yield talk.beat("v", "m", 0, rebalance_timeout_ms=1, subscribed_topic_names=["a-topic"])
    yield talk.beat("v", "m", 0, owned={"a-topic": [1]}, rebalance_timeout_ms=1, subscribed_topic_names=["a-topic"])
    yield talk.join("v", "m", subscribed_topic_names=None)
    yield talk.join("v", "m", server_assignor="sticky")
    yield talk.beat("v", "", 5)
    yield talk.beat("v", "m", -2)
    yield talk.beat("v", "m", -3)
    yield talk.beat("v", "m", 7)
    yield talk.beat("nobody", "m", -1)
    yield talk.join("regex", "m", subscribed_topic_names=None, subscribed_topic_regex="[")[0]
    yield talk.describe("nobody")
    yield talk.describe("")


def one_member(talk: Conversation) -> Any:
    yield talk.join("one", "m", server_assignor="range", rack_id="r")
    yield talk.describe("one")
    yield talk.describe("one", version=0)
    yield talk.beat("one", "m", 2)
    yield talk.beat("one", "m", 2, owned={"a-topic": [0, 1, 2, 3]})
    yield talk.beat("one", "m", 3)
    yield talk.beat("one", "other", 2)
    yield talk.beat("one", "m", 2, subscribed_topic_names=["a-topic", "b-topic"])
    yield talk.beat("one", "m", 2)
    yield talk.beat("one", "m", 2, owned={"a-topic": [0]})
    yield talk.beat("one", "m", 3, subscribed_topic_names=["b-topic"])
    yield talk.describe("one")
    yield talk.beat("one", "m", 3, owned={"b-topic": [0, 1]})
    yield talk.describe("one")
    yield talk.join("one", "m", subscribed_topic_names=["b-topic"])
    yield talk.beat("one", "m", -1)
    yield talk.describe("one")
    yield talk.beat("one", "m", 5)


def two_members(talk: Conversation) -> Any:
    yield talk.join("two", "m1")
    yield talk.join("two", "m2")
    yield talk.describe("two")[:6]
    yield talk.beat("two", "m1", 2)[:4]
    yield talk.beat("two", "m2", 3)
    yield talk.describe("two")[:6]
    kept = talk.describe("two")[-1][0][8]
    yield talk.beat("two", "m1", 2, owned=kept)[:4]
    yield talk.beat("two", "m2", 3)[:4]
    yield [len(each[8].get("a-topic", [])) for each in talk.describe("two")[-1]]
    yield talk.describe("two")[:6]
    yield talk.beat("two", "m2", -1)
    yield talk.describe("two")[:6]
    yield talk.beat("two", "m1", 3)
    yield talk.describe("two")[:6]


def offsets(talk: Conversation) -> Any:
    yield talk.join("off", "m1")
    yield talk.commit("off", "m1", 2, "a-topic", 0)
    yield talk.commit("off", "m1", 2, "a-topic", 0, version=8)
    yield talk.commit("off", "m1", 3, "a-topic", 0)
    yield talk.commit("off", "m1", 0, "a-topic", 0)
    yield talk.commit("off", "m2", 1, "a-topic", 0)
    yield talk.commit("off", "", -1, "a-topic", 0)
    yield (
        talk.fetch("off", "m1", 1),
        talk.fetch("off", "m1", 2),
        talk.fetch("off", "m9", 1),
        talk.fetch("off", None, -1),
    )
    yield talk.beat("off", "m1", 2, subscribed_topic_names=["a-topic", "b-topic"])
    # What it has had since epoch 2 it may still commit in it; what came with epoch 3 it may not.
    yield talk.commit("off", "m1", 2, "a-topic", 0)
    yield talk.commit("off", "m1", 2, "b-topic", 0)
    yield talk.commit("off", "m1", 3, "b-topic", 0)
    yield talk.beat("off", "m1", -1)
    yield talk.commit("off", "", -1, "a-topic", 0)


def static_members(talk: Conversation) -> Any:
    yield talk.join("static", "m1", instance_id="i")
    yield talk.join("static", "m2", instance_id="i")
    yield talk.beat("static", "m2", 2, instance_id="i")
    yield talk.beat("static", "m1", 2, instance_id="other")
    yield talk.beat("static", "m1", -2, instance_id="i")
    yield talk.describe("static")
    yield talk.join("static", "m2", instance_id="i")
    yield talk.describe("static")
    yield talk.beat("static", "m1", 2, instance_id="i")
    yield talk.beat("static", "m2", 2, instance_id="i")
    yield talk.beat("static", "m2", -1, instance_id="i")
    yield talk.describe("static")


def until(work: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 60
    while not wanted(answer := work()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


def regexes(talk: Conversation) -> Any:
    yield talk.join("regex", "m", subscribed_topic_names=None, subscribed_topic_regex=".-topic")
    yield until(lambda: talk.beat("regex", "m", 1, owned={}), lambda answer: answer[2] == 2)
    yield talk.describe("regex")
    yield talk.beat("regex", "m", 2, subscribed_topic_regex="")
    # Apache Kafka leaves the former target in place, where it has no effect.
    yield talk.describe("regex")[:6]


def subscription(*topics: str, owned: dict[str, list[int]] | None = None) -> bytes:
    return encode_subscription(
        Subscription(
            topics=list(topics),
            owned_partitions=[OwnedTopic(topic=name, partitions=each) for name, each in (owned or {}).items()],
        ),
        1,
    )


def classic_join(talk: Conversation, group: str, member: str, metadata: bytes, instance: str | None = None) -> Any:
    return until(
        lambda: talk.raw.call(
            JoinGroupRequest(
                group_id=group,
                member_id=member,
                group_instance_id=instance,
                session_timeout_ms=30_000,
                rebalance_timeout_ms=30_000,
                protocol_type="consumer",
                protocols=[JoinGroupRequestProtocol(name="range", metadata=metadata)],
            ),
            version=7,
        ),
        lambda answer: not error_code(answer.error_code).name.startswith(("COORDINATOR_", "NOT_COORDINATOR")),
    )


def classic_sync(talk: Conversation, group: str, member: str, generation: int) -> Any:
    answer = talk.raw.call(
        SyncGroupRequest(
            group_id=group, member_id=member, generation_id=generation, protocol_type="consumer", protocol_name="range"
        ),
        version=5,
    )
    assigned = decode_assignment(bytes(answer.assignment)).assigned_partitions if not answer.error_code else []
    return (
        error_code(answer.error_code).name,
        answer.protocol_name,
        {each.topic: sorted(each.partitions) for each in assigned},
    )


def classic_beat(talk: Conversation, group: str, member: str, generation: int) -> str:
    answer = talk.raw.call(HeartbeatRequest(group_id=group, member_id=member, generation_id=generation), version=4)
    return error_code(answer.error_code).name


def migration(talk: Conversation) -> Any:
    """A classic group is upgraded by a member of the consumer protocol, and is classic again once that has gone."""
    first = classic_join(talk, "mig", "", subscription("a-topic"))
    classic = first.member_id
    joined = classic_join(talk, "mig", classic, subscription("a-topic"))
    yield error_code(joined.error_code).name, joined.generation_id, joined.leader == classic
    yield classic_sync(talk, "mig", classic, 1)[0]
    # Which of the partitions it gets is for the assignor to say.
    yield talk.join("mig", "new")[:4]
    described = talk.describe("mig")
    yield described[:6], sorted((each[10], each[3], len(each[8].get("a-topic", []))) for each in described[-1])
    yield classic_beat(talk, "mig", classic, 1)
    again = classic_join(talk, "mig", classic, subscription("a-topic"))
    yield error_code(again.error_code).name, again.generation_id, again.protocol_name, again.leader, len(again.members)
    yield classic_sync(talk, "mig", classic, again.generation_id)[:2]
    yield classic_beat(talk, "mig", classic, again.generation_id)
    yield classic_beat(talk, "mig", classic, again.generation_id + 9)
    yield classic_sync(talk, "mig", classic, again.generation_id + 9)
    yield classic_beat(talk, "mig", "nobody", 1)
    yield classic_beat(talk, "mig", "new", 2)
    described = talk.describe("mig")
    yield described[:6], sorted((each[10], each[3], [*each[8]], [*each[9]]) for each in described[-1])
    leave = talk.raw.call(
        LeaveGroupRequest(
            group_id="mig", members=[MemberIdentity(member_id="new"), MemberIdentity(member_id="nobody")]
        ),
        version=5,
    )
    yield [error_code(each.error_code).name for each in leave.members]
    yield talk.beat("mig", "new", -1)
    yield talk.describe("mig")
    yield classic_beat(talk, "mig", classic, again.generation_id)
    last = classic_join(talk, "mig", classic, subscription("a-topic"))
    yield error_code(last.error_code).name, last.leader == classic, [each.member_id == classic for each in last.members]
    yield last.generation_id


def group_configs(talk: Conversation) -> Any:
    name = "consumer.session.timeout.ms"
    known = [name, "consumer.heartbeat.interval.ms", "consumer.assignment.interval.ms"]

    def shown(keys: list[str]) -> Any:
        request = DescribeConfigsRequest(
            resources=[DescribeConfigsResource(resource_type=GROUP, resource_name="c", configuration_keys=keys)],
            include_synonyms=True,
        )
        result = talk.raw.call(request, version=4).results[0]
        return result.error_code, sorted(
            (
                each.name, each.value, each.read_only, each.config_source, each.is_sensitive, each.config_type,
                [(synonym.name, synonym.value, synonym.source) for synonym in each.synonyms],
            )
            for each in result.configs
        )  # fmt: skip

    def alter(group: str, config: str, operation: int, value: str | None) -> Any:
        config_change = AlterableConfig(name=config, config_operation=operation, value=value)
        resource = AlterConfigsResource(resource_type=GROUP, resource_name=group, configs=[config_change])
        result = talk.raw.call(IncrementalAlterConfigsRequest(resources=[resource]), version=1).responses[0]
        return result.error_code, result.error_message

    yield shown(known)
    yield alter("c", name, 0, "50000")
    yield until(lambda: shown([name]), lambda answer: answer[1][0][1] == "50000")
    for group, config, operation, value in (
        ("c", name, 0, "10"), ("c", name, 0, "70000"), ("c", name, 0, "x"), ("c", name, 0, "0"), ("c", "nope", 0, "1"),
        ("", name, 0, "50000"), ("c", name, 2, "1"), ("c", "consumer.heartbeat.interval.ms", 0, "1"),
    ):  # fmt: skip
        yield alter(group, config, operation, value)
    yield alter("c", "consumer.heartbeat.interval.ms", 0, "6000")
    until(lambda: shown(known[1:2]), lambda answer: answer[1][0][1] == "6000")
    # What members are told follows it; Apache Kafka describes a config a moment before it is in force.
    yield until(lambda: talk.join("c", "m")[:4], lambda answer: answer[3] == 6000)
    yield talk.raw.call(ListConfigResourcesRequest(resource_types=[GROUP]), version=1)
    yield alter("c", name, 1, None), alter("c", "consumer.heartbeat.interval.ms", 1, None)
    until(lambda: shown([name]), lambda answer: answer[1][0][1] == "45000")


STORIES: Final[dict[str, Callable[[Conversation], Iterator[Any]]]] = {
    story.__name__: story
    for story in (validations, one_member, two_members, offsets, static_members, regexes, migration, group_configs)
}


def test_what_apache_kafka_wrote_is_read(brokers: tuple[Conversation, Conversation]) -> None:
    """A shard that loads Apache Kafka's own __consumer_offsets describes its groups as Apache Kafka does."""
    _, kafka = brokers
    members: dict[str, dict[str, Any]] = {
        "m1": {"instance_id": "i1", "rack_id": "r"},
        "m2": {"subscribed_topic_names": ["b-topic", "a-topic"], "server_assignor": "range"},
        "m3": {"subscribed_topic_names": None, "subscribed_topic_regex": "b.*"},
    }
    for name, fields in members.items():
        assert kafka.join("kept", name, **fields)[0] == "NONE"
    until(lambda: kafka.describe("kept")[3], lambda epoch: epoch == 4)
    kafka.beat("kept", "m1", 2, instance_id="i1")
    shard = GroupShard(
        0,
        configs=GroupConfigs.from_broker(BrokerConfig.load(None, {})),
        image=ClusterImage.of(
            TopicImage(name, topic_id, (PARTITION,) * TOPICS[name], {}) for topic_id, name in kafka.names.items()
        ),
        timers=TimerWheel(),
        random_source=random.Random(0),
        emit=lambda effect: None,
    )
    offset = 0
    while offset < kafka.raw.offset("__consumer_offsets", 0):
        records = kafka.raw.fetch("__consumer_offsets", 0, offset).records
        for header, batch in iter_batches(bytes(records)):
            for record in () if header.is_control else iter_records(batch):
                shard.replay(record.key, record.value)
            offset = header.last_offset + 1
    shard.handle_loaded(0)
    assert shown_group(shard.consumer.describe_group("kept", Caller("", "", 1))) == kafka.describe("kept")


@pytest.mark.parametrize("name", STORIES)
def test_both_answer_alike(brokers: tuple[Conversation, Conversation], name: str) -> None:
    ours, theirs = ([*STORIES[name](talk)] for talk in brokers)
    assert ours == theirs
