"""The cluster's metadata as one immutable value: brokers, topics with their partitions and configs, producer ids.

Every reader holds a `ClusterImage` and sees one moment of the cluster; a change makes a new image (`apply`) that shares
all that did not change. Applying an operation copies the dictionaries it touches, so its cost is that of copying
20,000 references (0.1 ms), not of copying topics. Nothing here does I/O or knows time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from millstream.core.cluster.operations import (
    AddPartitions,
    AdvanceProducerIds,
    AlterBrokerConfigs,
    AlterGroupConfigs,
    AlterTopicConfigs,
    ChangePartitions,
    CreateTopic,
    DeleteTopic,
    Operation,
    RegisterBroker,
    SetCluster,
    UnregisterBroker,
)

NO_LEADER: Final = -1
DELETED_TOPICS_MAX: Final = 10_000
CLUSTER_DEFAULT: Final = ""
"""The name under which `broker_configs` keeps the configs that hold for every broker."""


class PartitionState(NamedTuple):
    """Who holds a partition. Equal states are shared, so a single node with 20,000 partitions holds few of them.

    `leader` is a node id or NO_LEADER. `partition_epoch` counts the changes of this state, `leader_epoch` those of its
    leader (KIP-101). Invariant: isr is a subset of replicas; leader is in replicas or NO_LEADER.
    """

    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    partition_epoch: int


class TopicImage(NamedTuple):
    """One topic: its 16-byte id never names another topic; `configs` are its own settings as text, no defaults."""

    name: str
    topic_id: bytes
    partitions: tuple[PartitionState, ...]
    configs: Mapping[str, str]


class Endpoint(NamedTuple):
    """Where clients reach a broker: the listener's name, its security protocol, the advertised host and port."""

    listener: str
    security_protocol: str
    host: str
    port: int


class BrokerImage(NamedTuple):
    """A registered broker."""

    node_id: int
    endpoints: tuple[Endpoint, ...]
    rack: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterImage:
    """All metadata at `version`, which the store counts up by one per commit.

    `broker_configs` maps a node id as text, or CLUSTER_DEFAULT, to dynamic configs. Producer ids below
    `next_producer_id` are given away for ever.
    """

    version: int = 0
    cluster_id: str = ""
    controller_id: int = -1
    brokers: Mapping[int, BrokerImage] = field(default_factory=dict)
    topics: Mapping[str, TopicImage] = field(default_factory=dict)
    broker_configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # Configs of consumer groups by group id; a group need not exist to have some.
    group_configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    next_producer_id: int = 0
    # Ids of the topics deleted last, oldest first, at most DELETED_TOPICS_MAX: a folder of theirs that a crash has left
    # is deleted by the next start, where a folder of an unknown topic is kept.
    deleted_topics: Mapping[bytes, None] = field(default_factory=dict)
    # The name of each topic by its id, and by its name with '.' as '_' (two such names would be one metric).
    # Invariant: the first holds exactly the topics of `topics`, the second one topic of each metric name in it.
    _names_by_id: Mapping[bytes, str] = field(default_factory=dict, repr=False, compare=False)
    _names_by_metric: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        topics: Iterable[TopicImage],
        *,
        version: int = 0,
        cluster_id: str = "",
        controller_id: int = -1,
        brokers: Mapping[int, BrokerImage] | None = None,
        broker_configs: Mapping[str, Mapping[str, str]] | None = None,
        group_configs: Mapping[str, Mapping[str, str]] | None = None,
        next_producer_id: int = 0,
        deleted_topics: Iterable[bytes] = (),
    ) -> ClusterImage:
        """Return the image that holds these topics; the way a store builds it, all at once."""
        by_name = {topic.name: topic for topic in topics}
        return cls(
            version=version,
            cluster_id=cluster_id,
            controller_id=controller_id,
            brokers=brokers or {},
            topics=by_name,
            broker_configs=broker_configs or {},
            group_configs=group_configs or {},
            next_producer_id=next_producer_id,
            deleted_topics=dict.fromkeys(deleted_topics),
            _names_by_id={topic.topic_id: name for name, topic in by_name.items()},
            _names_by_metric={metric_name(name): name for name in by_name},
        )

    def topic_by_id(self, topic_id: bytes) -> TopicImage | None:
        """Return the topic with this id."""
        name = self._names_by_id.get(topic_id)
        return None if name is None else self.topics[name]

    def topic_like(self, name: str) -> str | None:
        """Return the topic whose metric name equals that of `name` ('.' and '_' are one there), itself included."""
        return self._names_by_metric.get(metric_name(name))

    def dynamic_configs(self, node_id: int) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the dynamic configs of one broker, and those of every broker."""
        return self.broker_configs.get(str(node_id), {}), self.broker_configs.get(CLUSTER_DEFAULT, {})

    def apply(self, version: int, operations: Iterable[Operation]) -> ClusterImage:
        """Return the image after `operations`, at `version`. They must have been planned on this image."""
        draft = self.draft()
        for operation in operations:
            draft.apply(operation)
        return draft.image(version)

    def draft(self) -> ImageDraft:
        """Return what gathers operations for the next image, one by one; nobody sees them in this one."""
        return ImageDraft(self)


def metric_name(name: str) -> str:
    """Return the topic's name as it stands in metric names, where '.' becomes '_'."""
    return name.replace(".", "_")


class ImageDraft:
    """An image being changed: each dictionary is copied when it is first touched."""

    def __init__(self, base: ClusterImage) -> None:
        self._base = base
        self._brokers: dict[int, BrokerImage] | None = None
        self._topics: dict[str, TopicImage] | None = None
        self._names_by_id: dict[bytes, str] | None = None
        self._names_by_metric: dict[str, str] | None = None
        self._broker_configs: dict[str, Mapping[str, str]] | None = None
        self._group_configs: dict[str, Mapping[str, str]] | None = None
        self._cluster_id = base.cluster_id
        self._controller_id = base.controller_id
        self._next_producer_id = base.next_producer_id
        self._deleted_topics: dict[bytes, None] | None = None

    def image(self, version: int) -> ClusterImage:
        """Return the image with all that was applied, at `version`; apply nothing after that."""
        base = self._base
        return ClusterImage(
            version=version,
            cluster_id=self._cluster_id,
            controller_id=self._controller_id,
            brokers=base.brokers if self._brokers is None else self._brokers,
            topics=base.topics if self._topics is None else self._topics,
            broker_configs=base.broker_configs if self._broker_configs is None else self._broker_configs,
            group_configs=base.group_configs if self._group_configs is None else self._group_configs,
            next_producer_id=self._next_producer_id,
            deleted_topics=base.deleted_topics if self._deleted_topics is None else self._deleted_topics,
            _names_by_id=base._names_by_id if self._names_by_id is None else self._names_by_id,
            _names_by_metric=base._names_by_metric if self._names_by_metric is None else self._names_by_metric,
        )

    def apply(self, operation: Operation) -> None:
        """Make one change; it must have been planned on the base."""
        match operation:
            case CreateTopic(topic):
                assert topic.name not in self.topics(), f"{topic.name} exists"
                self.topics()[topic.name] = topic
                self._by_id()[topic.topic_id] = topic.name
                self._by_metric()[metric_name(topic.name)] = topic.name
            case DeleteTopic(topic_id):
                name = self._by_id().pop(topic_id)
                del self.topics()[name]
                deleted = self.deleted_topics()
                deleted[topic_id] = None
                if len(deleted) > DELETED_TOPICS_MAX:
                    del deleted[next(iter(deleted))]
                metric = metric_name(name)
                if self._by_metric()[metric] == name:
                    del self._by_metric()[metric]
                    if len(self.topics()) > len(self._by_metric()):
                        # An adopted cluster may hold two topics that share one: the other has it for itself now.
                        shared = next((each for each in self.topics() if metric_name(each) == metric), None)
                        if shared is not None:
                            self._by_metric()[metric] = shared
            case AddPartitions(topic_id, first_index, partitions):
                topic = self._topic(topic_id)
                assert first_index == len(topic.partitions), f"{topic.name} has {len(topic.partitions)} partitions"
                self.topics()[topic.name] = topic._replace(partitions=topic.partitions + tuple(partitions))
            case ChangePartitions(topic_id, changed):
                topic = self._topic(topic_id)
                states = list(topic.partitions)
                for index, state in changed.items():
                    states[index] = state
                self.topics()[topic.name] = topic._replace(partitions=tuple(states))
            case AlterTopicConfigs(topic_id, changes):
                topic = self._topic(topic_id)
                self.topics()[topic.name] = topic._replace(configs=altered(topic.configs, changes))
            case AlterBrokerConfigs(broker, changes):
                if self._broker_configs is None:
                    self._broker_configs = dict(self._base.broker_configs)
                _alter(self._broker_configs, broker, changes)
            case AlterGroupConfigs(group_id, changes):
                if self._group_configs is None:
                    self._group_configs = dict(self._base.group_configs)
                _alter(self._group_configs, group_id, changes)
            case AdvanceProducerIds(next_producer_id):
                assert next_producer_id >= self._next_producer_id, (
                    f"producer ids go back from {self._next_producer_id} to {next_producer_id}"
                )
                self._next_producer_id = next_producer_id
            case RegisterBroker(broker_image):
                self.brokers()[broker_image.node_id] = broker_image
            case UnregisterBroker(node_id):
                self.brokers().pop(node_id, None)
            case SetCluster(cluster_id, controller_id):
                self._cluster_id, self._controller_id = cluster_id, controller_id

    def topics(self) -> dict[str, TopicImage]:
        if self._topics is None:
            self._topics = dict(self._base.topics)
        return self._topics

    def deleted_topics(self) -> dict[bytes, None]:
        if self._deleted_topics is None:
            self._deleted_topics = dict(self._base.deleted_topics)
        return self._deleted_topics

    def brokers(self) -> dict[int, BrokerImage]:
        if self._brokers is None:
            self._brokers = dict(self._base.brokers)
        return self._brokers

    def _by_id(self) -> dict[bytes, str]:
        if self._names_by_id is None:
            self._names_by_id = dict(self._base._names_by_id)
        return self._names_by_id

    def _by_metric(self) -> dict[str, str]:
        if self._names_by_metric is None:
            self._names_by_metric = dict(self._base._names_by_metric)
        return self._names_by_metric

    def _topic(self, topic_id: bytes) -> TopicImage:
        names = self._base._names_by_id if self._names_by_id is None else self._names_by_id
        topics = self._base.topics if self._topics is None else self._topics
        return topics[names[topic_id]]


def _alter(every: dict[str, Mapping[str, str]], name: str, changes: Mapping[str, str | None]) -> None:
    configs = altered(every.get(name, {}), changes)
    if configs:
        every[name] = configs
    else:
        every.pop(name, None)


def altered(configs: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return `configs` with each change made; None takes the config away."""
    result = dict(configs)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result
