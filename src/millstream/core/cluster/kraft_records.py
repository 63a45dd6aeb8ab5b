"""The records of Apache Kafka's metadata log that make up topics, configs, brokers and producer ids (KIP-631).

A record's value is framed: frame version (1), kind, version, all unsigned varints, then the body in the flexible
encoding. Kinds that are not declared here are told apart by their number alone and skipped; `UNKEPT` names those that
an operator would miss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from millstream.core.wire.fields import field, int8, int16, int32, int64, message, struct, uint16, uuid

FRAME_VERSION: Final = 1
LEADER_UNCHANGED: Final = -2


@struct
class BrokerEndpoint:
    """Where a broker can be reached; `security_protocol` is a number, 0 for PLAINTEXT."""

    name: str = ""
    host: str = ""
    port: uint16 = 0
    security_protocol: int16 = 0


@struct
class BrokerFeature:
    """The levels of a feature that a broker supports."""

    name: str = ""
    min_supported_version: int16 = 0
    max_supported_version: int16 = 0


@message(key=0, versions="0-4", flexible="0+")
class RegisterBrokerRecord:
    """A broker joined, or joined again."""

    broker_id: int32 = 0
    is_migrating_zk_broker: bool = field(versions="2+", default=False)
    incarnation_id: uuid = bytes(16)
    broker_epoch: int64 = 0
    end_points: list[BrokerEndpoint] = field(factory=list)
    features: list[BrokerFeature] = field(factory=list)
    rack: str | None = ""
    fenced: bool = True
    in_controlled_shutdown: bool = field(versions="1+", default=False)
    log_dirs: list[uuid] = field(versions="3+", tag=0, factory=list)
    cordoned_log_dirs: list[uuid] | None = field(versions="4+", tag=1, default=None)


@message(key=1, versions="0", flexible="0+")
class UnregisterBrokerRecord:
    """A broker left for good."""

    broker_id: int32 = 0
    broker_epoch: int64 = 0


@message(key=2, versions="0", flexible="0+")
class TopicRecord:
    """A topic was created."""

    name: str = ""
    topic_id: uuid = bytes(16)


@message(key=3, versions="0-2", flexible="0+")
class PartitionRecord:
    """A partition was created; directories since version 1 (KIP-858), eligible leaders since 2 (KIP-966)."""

    partition_id: int32 = -1
    topic_id: uuid = bytes(16)
    replicas: list[int32] = field(factory=list)
    isr: list[int32] = field(factory=list)
    removing_replicas: list[int32] = field(factory=list)
    adding_replicas: list[int32] = field(factory=list)
    leader: int32 = -1
    leader_recovery_state: int8 = field(tag=0, default=0)
    leader_epoch: int32 = -1
    partition_epoch: int32 = -1
    directories: list[uuid] = field(versions="1+", factory=list)
    eligible_leader_replicas: list[int32] | None = field(versions="2+", tag=1, default=None)
    last_known_elr: list[int32] | None = field(versions="2+", tag=2, default=None)


@message(key=4, versions="0", flexible="0+")
class ConfigRecord:
    """A config of a resource was set, or taken away (null). `resource_type` as in the protocol."""

    resource_type: int8 = 0
    resource_name: str = ""
    name: str = ""
    value: str | None = ""


@message(key=5, versions="0-2", flexible="0+")
class PartitionChangeRecord:
    """A partition's state changed; what is null (leader: LEADER_UNCHANGED) is as it was."""

    partition_id: int32 = -1
    topic_id: uuid = bytes(16)
    isr: list[int32] | None = field(tag=0, default=None)
    leader: int32 = field(tag=1, default=LEADER_UNCHANGED)
    replicas: list[int32] | None = field(tag=2, default=None)
    removing_replicas: list[int32] | None = field(tag=3, default=None)
    adding_replicas: list[int32] | None = field(tag=4, default=None)
    leader_recovery_state: int8 = field(tag=5, default=-1)
    eligible_leader_replicas: list[int32] | None = field(versions="2+", tag=6, default=None)
    last_known_elr: list[int32] | None = field(versions="2+", tag=7, default=None)
    directories: list[uuid] | None = field(versions="1+", tag=8, default=None)


@message(key=9, versions="0", flexible="0+")
class RemoveTopicRecord:
    """A topic was deleted."""

    topic_id: uuid = bytes(16)


@message(key=12, versions="0", flexible="0+")
class FeatureLevelRecord:
    """A feature of the cluster was finalized at a level; 0 takes it away."""

    name: str = ""
    feature_level: int16 = 0


@message(key=15, versions="0", flexible="0+")
class ProducerIdsRecord:
    """Producer ids below `next_producer_id` are given away."""

    broker_id: int32 = 0
    broker_epoch: int64 = -1
    next_producer_id: int64 = 0


@message(key=23, versions="0", flexible="0+")
class BeginTransactionRecord:
    """The records from here to the end of the transaction hold together or not at all (KIP-868)."""

    name: str | None = field(tag=0, default=None)


@message(key=24, versions="0", flexible="0+")
class EndTransactionRecord:
    """The transaction's records hold."""


@message(key=25, versions="0", flexible="0+")
class AbortTransactionRecord:
    """The transaction's records never were."""

    reason: str | None = field(tag=0, default=None)


_KINDS: Final[tuple[Any, ...]] = (
    RegisterBrokerRecord,
    UnregisterBrokerRecord,
    TopicRecord,
    PartitionRecord,
    ConfigRecord,
    PartitionChangeRecord,
    RemoveTopicRecord,
    FeatureLevelRecord,
    ProducerIdsRecord,
    BeginTransactionRecord,
    EndTransactionRecord,
    AbortTransactionRecord,
)
KINDS: Final[Mapping[int, Any]] = {kind.__wire__.key: kind for kind in _KINDS}

# Kinds whose loss an operator must hear of, by number: there is nothing here yet that would obey them.
UNKEPT: Final = {
    10: "delegation tokens",
    11: "SCRAM users",
    14: "client quotas",
    18: "access control entries",
}
