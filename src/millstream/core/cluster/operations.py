"""The operations that change the cluster's metadata: what a commit is made of, and what `changes` hands on.

An operation says what becomes true, not why; it is planned against an image (`topics.py`), committed at that image's
version, and applied by every holder of that image. Topics are named by id, so an operation never meets a later topic
of the same name. (Named tuples, since ten dataclasses cost each start 4 ms; compare operations of one kind only.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from millstream.core.cluster.image import BrokerImage, PartitionState, TopicImage


class CreateTopic(NamedTuple):
    """The topic exists, with its partitions and configs."""

    topic: TopicImage


class DeleteTopic(NamedTuple):
    """The topic, its partitions and its configs are gone."""

    topic_id: bytes


class AddPartitions(NamedTuple):
    """The topic has these partitions behind its old ones, the first of them with index `first_index`."""

    topic_id: bytes
    first_index: int
    partitions: Sequence[PartitionState]


class ChangePartitions(NamedTuple):
    """These partitions of the topic, by index, are in these states."""

    topic_id: bytes
    partitions: Mapping[int, PartitionState]


class AlterTopicConfigs(NamedTuple):
    """These configs of the topic have these values; None: the config is not set any more."""

    topic_id: bytes
    changes: Mapping[str, str | None]


class AlterBrokerConfigs(NamedTuple):
    """These dynamic configs of a broker (its node id as text, or "" for every broker) have these values."""

    broker: str
    changes: Mapping[str, str | None]


class AlterGroupConfigs(NamedTuple):
    """These configs of a group, which need not exist, have these values."""

    group_id: str
    changes: Mapping[str, str | None]


class AdvanceProducerIds(NamedTuple):
    """Every producer id below `next_producer_id` is given away."""

    next_producer_id: int


class RegisterBroker(NamedTuple):
    """The broker is a member, reached at these endpoints."""

    broker: BrokerImage


class UnregisterBroker(NamedTuple):
    """The broker is no member any more."""

    node_id: int


class SetCluster(NamedTuple):
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
    | AlterGroupConfigs
    | AdvanceProducerIds
    | RegisterBroker
    | UnregisterBroker
    | SetCluster
)
