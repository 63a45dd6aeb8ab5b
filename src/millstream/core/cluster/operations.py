"""The operations that change the cluster's metadata: what a commit is made of, and what `changes` hands on.

An operation says what becomes true, not why; it is planned against an image (`topics.py`), committed at that image's
version, and applied by every holder of that image. Topics are named by id, so an operation never meets a later topic
of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.core.cluster.image import BrokerImage, PartitionState, TopicImage


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """The topic exists, with its partitions and configs."""

    topic: TopicImage


@dataclass(frozen=True, slots=True)
class DeleteTopic:
    """The topic, its partitions and its configs are gone."""

    topic_id: bytes


@dataclass(frozen=True, slots=True)
class AddPartitions:
    """The topic has these partitions behind its old ones, the first of them with index `first_index`."""

    topic_id: bytes
    first_index: int
    partitions: Sequence[PartitionState]


@dataclass(frozen=True, slots=True)
class ChangePartitions:
    """These partitions of the topic, by index, are in these states."""

    topic_id: bytes
    partitions: Mapping[int, PartitionState]


@dataclass(frozen=True, slots=True)
class AlterTopicConfigs:
    """These configs of the topic have these values; None: the config is not set any more."""

    topic_id: bytes
    changes: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class AlterBrokerConfigs:
    """These dynamic configs of a broker (its node id as text, or "" for every broker) have these values."""

    broker: str
    changes: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class AdvanceProducerIds:
    """Every producer id below `next_producer_id` is given away."""

    next_producer_id: int


@dataclass(frozen=True, slots=True)
class RegisterBroker:
    """The broker is a member, reached at these endpoints."""

    broker: BrokerImage


@dataclass(frozen=True, slots=True)
class UnregisterBroker:
    """The broker is no member any more."""

    node_id: int


@dataclass(frozen=True, slots=True)
class SetCluster:
    """The cluster has this id, and this node is its controller."""

    cluster_id: str
    controller_id: int


Operation = (
    CreateTopic
    | DeleteTopic
    | AddPartitions
    | ChangePartitions
    | AlterTopicConfigs
    | AlterBrokerConfigs
    | AdvanceProducerIds
    | RegisterBroker
    | UnregisterBroker
    | SetCluster
)
