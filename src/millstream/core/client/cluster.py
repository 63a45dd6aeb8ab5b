"""What a Metadata answer says: brokers, topics, leaders; immutable, and pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from millstream.core.net import Address
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.metadata import MetadataResponse, MetadataResponseTopic

NO_NODE = -1


class TopicPartition(NamedTuple):
    """A partition's name."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"

    @classmethod
    def of(cls, given: object) -> TopicPartition:
        """Return the partition that a caller names. Raises TypeError for what is none."""
        if isinstance(given, cls):
            return given
        match given:
            case (str(topic), int(partition)):
                return cls(topic, partition)
        raise TypeError(f"{given!r} is no partition: give TopicPartition(topic, number)")


def check_topic_name(name: str) -> None:
    """Raise TypeError, or KafkaError (INVALID_TOPIC_EXCEPTION), for what no request can carry as a topic's name."""
    if not isinstance(name, str):
        raise TypeError(f"a topic's name is a str, not {type(name).__name__}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"topic {name!a}: its name is no Unicode text") from error


@dataclass(frozen=True, slots=True)
class BrokerNode:
    """A broker as its listener is advertised to clients."""

    node_id: int
    address: Address
    rack: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """A partition's leader and replicas; `leader` is -1 where there is none."""

    partition: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    offline_replicas: tuple[int, ...]
    error: ErrorCode = ErrorCode.NONE


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic with its partitions in order; `error` is what the broker said instead of describing it."""

    name: str
    topic_id: bytes
    is_internal: bool
    partitions: tuple[PartitionInfo, ...]
    error: ErrorCode = ErrorCode.NONE


@dataclass(frozen=True, slots=True)
class Cluster:
    """What this client knows of its cluster. Topics are those asked for so far, unless all were."""

    cluster_id: str | None = None
    controller_id: int = NO_NODE
    brokers: Mapping[int, BrokerNode] = field(default_factory=dict)
    topics: Mapping[str, TopicInfo] = field(default_factory=dict)

    def updated(self, response: MetadataResponse, *, all_topics: bool) -> Cluster:
        """Return this view with `response` taken in; topics it does not name are kept unless it names all."""
        named = {topic.name: topic for topic in map(_topic_info, response.topics)}
        return Cluster(
            cluster_id=response.cluster_id if response.cluster_id is not None else self.cluster_id,
            controller_id=response.controller_id,
            brokers={
                broker.node_id: BrokerNode(broker.node_id, Address(broker.host, broker.port), broker.rack)
                for broker in response.brokers
            },
            topics=named if all_topics else {**self.topics, **named},
        )

    def topic(self, name: str) -> TopicInfo:
        """Return a topic that exists. Raises KafkaError (retriable where the broker's answer was)."""
        info = self.topics.get(name)
        if info is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
        if info.error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            raise KafkaError(info.error, f"there is no topic {name!r}; `millstream topics list` shows those there are")
        if info.error is not ErrorCode.NONE:
            raise KafkaError(info.error, f"topic {name!r}: {info.error.sentence}")
        return info

    def leader(self, topic_partition: TopicPartition) -> int:
        """Return the node that leads a partition. Raises KafkaError."""
        partitions = self.topic(topic_partition.topic).partitions
        for info in partitions:
            if info.partition == topic_partition.partition:
                if info.leader == NO_NODE or info.leader not in self.brokers:
                    raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"{topic_partition} has no leader now")
                return info.leader
        raise KafkaError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            f"topic {topic_partition.topic!r} has no partition {topic_partition.partition}: "
            f"it has {len(partitions)}, from 0 on",
        )


def _topic_info(topic: MetadataResponseTopic) -> TopicInfo:
    return TopicInfo(
        name=topic.name or "",
        topic_id=topic.topic_id,
        is_internal=topic.is_internal,
        partitions=tuple(
            PartitionInfo(
                partition=partition.partition_index,
                leader=partition.leader_id,
                leader_epoch=partition.leader_epoch,
                replicas=tuple(partition.replica_nodes),
                isr=tuple(partition.isr_nodes),
                offline_replicas=tuple(partition.offline_replicas),
                error=error_code(partition.error_code),
            )
            for partition in sorted(topic.partitions, key=lambda partition: partition.partition_index)
        ),
        error=error_code(topic.error_code),
    )
