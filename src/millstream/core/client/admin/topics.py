"""Topics: created, described page by page, given more partitions, deleted.

Calls on several topics return what failed per topic, since a broker changes some and refuses others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from millstream.core.client.admin.results import error_of as _error
from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicInfo
from millstream.core.wire import ApiKey, ErrorCode, KafkaError, uuid_text
from millstream.core.wire.messages.create_partitions import (
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
)
from millstream.core.wire.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse, DeleteTopicState
from millstream.core.wire.messages.describe_topic_partitions import (
    Cursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponseTopic,
    TopicRequest,
)

DEFAULT_COUNT: Final = -1  # the broker's own num.partitions or default.replication.factor
PAGE_PARTITIONS: Final = 2_000  # of a DescribeTopicPartitions answer, at most


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to create; counts of -1 leave the choice to the broker.

    `assignments`, the brokers of each partition, the leader first, stand in place of both counts.
    """

    name: str
    partitions: int = DEFAULT_COUNT
    replication_factor: int = DEFAULT_COUNT
    configs: Mapping[str, str] = field(default_factory=dict)
    assignments: Sequence[Sequence[int]] = ()


@dataclass(frozen=True, slots=True)
class NewPartitions:
    """The number of partitions a topic is to have; `assignments` are the brokers of those that are new."""

    count: int
    assignments: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """A partition with its replicas; `leader` is -1 where there is none.

    Eligible leaders (KIP-966) are None where the broker does not say.
    """

    partition: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    offline_replicas: tuple[int, ...]
    eligible_leader_replicas: tuple[int, ...] | None = None
    last_known_eligible_leader_replicas: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic with its partitions in order."""

    name: str
    topic_id: bytes
    is_internal: bool
    partitions: tuple[PartitionDescription, ...]

    def __repr__(self) -> str:
        internal = ", internal" if self.is_internal else ""
        return (
            f"<TopicDescription {self.name!r}, {len(self.partitions)} partitions, id {uuid_text(self.topic_id)}"
            f"{internal}>"
        )


async def create_topics(
    client: Client, topics: Sequence[NewTopic], *, validate_only: bool = False, timeout_ms: int | None = None
) -> dict[str, KafkaError | None]:
    """Create topics; return per name None or why it was not created."""
    request = CreateTopicsRequest(
        topics=[
            CreatableTopic(
                name=topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication_factor,
                assignments=[
                    CreatableReplicaAssignment(partition_index=index, broker_ids=list(brokers))
                    for index, brokers in enumerate(topic.assignments)
                ],
                configs=[CreatableTopicConfig(name=name, value=value) for name, value in topic.configs.items()],
            )
            for topic in topics
        ],
        timeout_ms=_timeout_ms(client, timeout_ms),
        validate_only=validate_only,
    )
    response: CreateTopicsResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    client.forget(topic.name for topic in topics)
    return {
        result.name: _error(
            result.error_code, result.error_message, f"topic {result.name!r} was not created", result.name
        )
        for result in response.topics
    }


async def delete_topics(
    client: Client, names: Iterable[str], *, timeout_ms: int | None = None
) -> dict[str, KafkaError | None]:
    """Delete topics; return per name None or why it was not deleted."""
    listed = list(names)
    request = DeleteTopicsRequest(
        topics=[DeleteTopicState(name=name) for name in listed],
        topic_names=listed,
        timeout_ms=_timeout_ms(client, timeout_ms),
    )
    response: DeleteTopicsResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    client.forget(listed)
    return {
        result.name or "": _error(
            result.error_code, result.error_message, f"topic {result.name!r} was not deleted", result.name
        )
        for result in response.responses
    }


async def create_partitions(
    client: Client,
    counts: Mapping[str, int | NewPartitions],
    *,
    validate_only: bool = False,
    timeout_ms: int | None = None,
) -> dict[str, KafkaError | None]:
    """Raise topics to the given numbers of partitions; return per name None or why it was refused."""
    request = CreatePartitionsRequest(
        topics=[_partitions_topic(name, wanted) for name, wanted in counts.items()],
        timeout_ms=_timeout_ms(client, timeout_ms),
        validate_only=validate_only,
    )
    response: CreatePartitionsResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    client.forget(counts)
    return {
        result.name: _error(
            result.error_code, result.error_message, f"topic {result.name!r} was not altered", result.name
        )
        for result in response.results
    }


async def describe_topics(
    client: Client, names: Iterable[str], *, page_partitions: int = PAGE_PARTITIONS, timeout_ms: int | None = None
) -> dict[str, TopicDescription | KafkaError]:
    """Describe topics, by pages of `page_partitions` where the broker serves pages (KIP-966)."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    connection = await client.connection()
    if ApiKey.DESCRIBE_TOPIC_PARTITIONS not in connection.versions:
        cluster = await client.metadata(wanted, timeout_ms=timeout_ms)
        return {name: _of_metadata(name, cluster.topics.get(name)) for name in wanted}
    found: dict[str, TopicDescription | KafkaError] = {}
    cursor: Cursor | None = None
    while True:
        request = DescribeTopicPartitionsRequest(
            topics=[TopicRequest(name=name) for name in wanted if cursor is None or name >= cursor.topic_name],
            response_partition_limit=page_partitions,
            cursor=cursor,
        )
        response: DescribeTopicPartitionsResponse = await client.request(request, timeout_ms=timeout_ms)
        for topic in response.topics:
            name = topic.name or ""
            found[name] = _with_page(found.get(name), topic)
        following = response.next_cursor
        if following is None:
            return found
        cursor = Cursor(topic_name=following.topic_name, partition_index=following.partition_index)


def _with_page(
    before: TopicDescription | KafkaError | None, topic: DescribeTopicPartitionsResponseTopic
) -> TopicDescription | KafkaError:
    """Return a topic with the partitions of one more page."""
    name = topic.name or ""
    if error := _error(topic.error_code, None, f"topic {name!r}", name):
        return error
    earlier = before.partitions if isinstance(before, TopicDescription) else ()
    page = tuple(
        PartitionDescription(
            partition=one.partition_index,
            leader=one.leader_id,
            leader_epoch=one.leader_epoch,
            replicas=tuple(one.replica_nodes),
            isr=tuple(one.isr_nodes),
            offline_replicas=tuple(one.offline_replicas),
            eligible_leader_replicas=_or_none(one.eligible_leader_replicas),
            last_known_eligible_leader_replicas=_or_none(one.last_known_elr),
        )
        for one in topic.partitions
    )
    partitions = tuple(sorted((*earlier, *page), key=lambda one: one.partition))
    return TopicDescription(name, topic.topic_id, topic.is_internal, partitions)


def _or_none(replicas: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if replicas is None else tuple(replicas)


def _of_metadata(name: str, info: TopicInfo | None) -> TopicDescription | KafkaError:
    if info is None:
        return KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
    if error := _error(info.error, None, f"topic {name!r}", name):
        return error
    return TopicDescription(
        info.name,
        info.topic_id,
        info.is_internal,
        tuple(
            PartitionDescription(
                one.partition, one.leader, one.leader_epoch, one.replicas, one.isr, one.offline_replicas
            )
            for one in info.partitions
        ),
    )


def _partitions_topic(name: str, wanted: int | NewPartitions) -> CreatePartitionsTopic:
    new = wanted if isinstance(wanted, NewPartitions) else NewPartitions(wanted)
    return CreatePartitionsTopic(
        name=name,
        count=new.count,
        assignments=None
        if new.assignments is None
        else [CreatePartitionsAssignment(broker_ids=list(brokers)) for brokers in new.assignments],
    )


def _timeout_ms(client: Client, timeout_ms: int | None) -> int:
    return client.request_timeout_ms if timeout_ms is None else timeout_ms
