"""The APIs: key, name, the versions implemented here, and which of them are advertised.

What a broker lists in ApiVersions is this table less the APIs that it has no handler for. The ranges are the smallest
that serve every client of today in full: the floors are those of Kafka 4 (KIP-896), the tops leave out what only a
feature that is not here would use (topic ids in Produce, transactions of the second protocol, tiered storage).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

from millstream.core.wire.fields import Message

NEVER_FLEXIBLE: Final = 2**15


class ApiKey(IntEnum):
    """The number of an API in a request's header."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    WRITE_TXN_MARKERS = 27
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    ALTER_REPLICA_LOG_DIRS = 34
    DESCRIBE_LOG_DIRS = 35
    SASL_AUTHENTICATE = 36
    CREATE_PARTITIONS = 37
    DELETE_GROUPS = 42
    ELECT_LEADERS = 43
    INCREMENTAL_ALTER_CONFIGS = 44
    ALTER_PARTITION_REASSIGNMENTS = 45
    LIST_PARTITION_REASSIGNMENTS = 46
    OFFSET_DELETE = 47
    DESCRIBE_CLIENT_QUOTAS = 48
    ALTER_CLIENT_QUOTAS = 49
    DESCRIBE_USER_SCRAM_CREDENTIALS = 50
    ALTER_USER_SCRAM_CREDENTIALS = 51
    DESCRIBE_CLUSTER = 60
    DESCRIBE_PRODUCERS = 61
    CONSUMER_GROUP_HEARTBEAT = 68
    CONSUMER_GROUP_DESCRIBE = 69
    LIST_CONFIG_RESOURCES = 74
    DESCRIBE_TOPIC_PARTITIONS = 75


@dataclass(frozen=True)
class Api:
    """One API. `request` and `response` import its module of `messages` on first use."""

    key: ApiKey
    name: str
    version_min: int
    version_max: int
    # The first version with compact lengths and tagged fields, in the body and in both headers.
    flexible_from: int = NEVER_FLEXIBLE
    # Lower than version_min where clients read more into the range than what they will send; see APIS.
    advertised_min: int = -1

    def __post_init__(self) -> None:
        if self.advertised_min < 0:
            object.__setattr__(self, "advertised_min", self.version_min)
        assert 0 <= self.advertised_min <= self.version_min <= self.version_max, self

    @property
    def versions(self) -> range:
        """The versions that can be decoded and encoded."""
        return range(self.version_min, self.version_max + 1)

    @cached_property
    def request(self) -> type[Message]:
        """The class of the request."""
        return self._class("Request")

    @cached_property
    def response(self) -> type[Message]:
        """The class of the response."""
        return self._class("Response")

    def _class(self, suffix: str) -> type[Message]:
        module: Any = import_module(f"millstream.core.wire.messages.{self.key.name.lower()}")
        found: type[Message] = getattr(module, self.name + suffix)
        return found


_TABLE: Final = (
    # Produce is advertised from 0 though nothing below 3 is implemented: librdkafka before 2.11.1 takes a higher
    # minimum for a broker that knows no compression, and sends uncompressed without a word (KAFKA-18659).
    Api(ApiKey.PRODUCE, "Produce", 3, 11, flexible_from=9, advertised_min=0),
    Api(ApiKey.FETCH, "Fetch", 4, 16, flexible_from=12),
    Api(ApiKey.LIST_OFFSETS, "ListOffsets", 1, 8, flexible_from=6),
    Api(ApiKey.METADATA, "Metadata", 0, 12, flexible_from=9),
    Api(ApiKey.OFFSET_COMMIT, "OffsetCommit", 2, 9, flexible_from=8),
    Api(ApiKey.OFFSET_FETCH, "OffsetFetch", 1, 9, flexible_from=6),
    Api(ApiKey.FIND_COORDINATOR, "FindCoordinator", 0, 6, flexible_from=3),
    Api(ApiKey.JOIN_GROUP, "JoinGroup", 0, 9, flexible_from=6),
    Api(ApiKey.HEARTBEAT, "Heartbeat", 0, 4, flexible_from=4),
    Api(ApiKey.LEAVE_GROUP, "LeaveGroup", 0, 5, flexible_from=4),
    Api(ApiKey.SYNC_GROUP, "SyncGroup", 0, 5, flexible_from=4),
    Api(ApiKey.DESCRIBE_GROUPS, "DescribeGroups", 0, 6, flexible_from=5),
    Api(ApiKey.LIST_GROUPS, "ListGroups", 0, 5, flexible_from=3),
    Api(ApiKey.SASL_HANDSHAKE, "SaslHandshake", 0, 1),
    Api(ApiKey.API_VERSIONS, "ApiVersions", 0, 4, flexible_from=3),
    Api(ApiKey.CREATE_TOPICS, "CreateTopics", 2, 7, flexible_from=5),
    Api(ApiKey.DELETE_TOPICS, "DeleteTopics", 1, 6, flexible_from=4),
    Api(ApiKey.DELETE_RECORDS, "DeleteRecords", 0, 2, flexible_from=2),
    Api(ApiKey.INIT_PRODUCER_ID, "InitProducerId", 0, 4, flexible_from=2),
    Api(ApiKey.OFFSET_FOR_LEADER_EPOCH, "OffsetForLeaderEpoch", 2, 4, flexible_from=4),
    Api(ApiKey.ADD_PARTITIONS_TO_TXN, "AddPartitionsToTxn", 0, 3, flexible_from=3),
    Api(ApiKey.ADD_OFFSETS_TO_TXN, "AddOffsetsToTxn", 0, 3, flexible_from=3),
    Api(ApiKey.END_TXN, "EndTxn", 0, 3, flexible_from=3),
    Api(ApiKey.WRITE_TXN_MARKERS, "WriteTxnMarkers", 1, 1, flexible_from=1),
    Api(ApiKey.TXN_OFFSET_COMMIT, "TxnOffsetCommit", 0, 3, flexible_from=3),
    Api(ApiKey.DESCRIBE_CONFIGS, "DescribeConfigs", 1, 4, flexible_from=4),
    Api(ApiKey.ALTER_CONFIGS, "AlterConfigs", 0, 2, flexible_from=2),
    Api(ApiKey.ALTER_REPLICA_LOG_DIRS, "AlterReplicaLogDirs", 1, 2, flexible_from=2),
    Api(ApiKey.DESCRIBE_LOG_DIRS, "DescribeLogDirs", 1, 4, flexible_from=2),
    Api(ApiKey.SASL_AUTHENTICATE, "SaslAuthenticate", 0, 2, flexible_from=2),
    Api(ApiKey.CREATE_PARTITIONS, "CreatePartitions", 0, 3, flexible_from=2),
    Api(ApiKey.DELETE_GROUPS, "DeleteGroups", 0, 2, flexible_from=2),
    Api(ApiKey.ELECT_LEADERS, "ElectLeaders", 0, 2, flexible_from=2),
    Api(ApiKey.INCREMENTAL_ALTER_CONFIGS, "IncrementalAlterConfigs", 0, 1, flexible_from=1),
    Api(ApiKey.ALTER_PARTITION_REASSIGNMENTS, "AlterPartitionReassignments", 0, 0, flexible_from=0),
    Api(ApiKey.LIST_PARTITION_REASSIGNMENTS, "ListPartitionReassignments", 0, 0, flexible_from=0),
    Api(ApiKey.OFFSET_DELETE, "OffsetDelete", 0, 0),
    Api(ApiKey.DESCRIBE_CLIENT_QUOTAS, "DescribeClientQuotas", 0, 1, flexible_from=1),
    Api(ApiKey.ALTER_CLIENT_QUOTAS, "AlterClientQuotas", 0, 1, flexible_from=1),
    Api(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, "DescribeUserScramCredentials", 0, 0, flexible_from=0),
    Api(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, "AlterUserScramCredentials", 0, 0, flexible_from=0),
    Api(ApiKey.DESCRIBE_CLUSTER, "DescribeCluster", 0, 1, flexible_from=0),
    Api(ApiKey.DESCRIBE_PRODUCERS, "DescribeProducers", 0, 0, flexible_from=0),
    Api(ApiKey.CONSUMER_GROUP_HEARTBEAT, "ConsumerGroupHeartbeat", 0, 1, flexible_from=0),
    Api(ApiKey.CONSUMER_GROUP_DESCRIBE, "ConsumerGroupDescribe", 0, 1, flexible_from=0),
    Api(ApiKey.LIST_CONFIG_RESOURCES, "ListConfigResources", 0, 1, flexible_from=0),
    Api(ApiKey.DESCRIBE_TOPIC_PARTITIONS, "DescribeTopicPartitions", 0, 0, flexible_from=0),
)

APIS: Final[Mapping[ApiKey, Api]] = MappingProxyType({api.key: api for api in _TABLE})

assert len(APIS) == len(ApiKey) == len(_TABLE), "each ApiKey has one row"
