"""The client on bytes, for asyncio: works against any Kafka-compatible broker. `millstream` has it with Arrow on top.

producer/      records in                     client.py, connections.py, cluster.py    a cluster: whom to ask
consumer/      records out                    coordinators.py, group_offsets.py,
membership/    belonging to a group           offsets.py                               what several of these ask
admin/         what operators ask             blocking/   a loop's thread for those who do not await; their Admin
"""

from millstream.core.client.admin import (
    Admin,
    ConfigChange,
    ConfigOperation,
    ConfigResource,
    ConfigResourceType,
    ConfigSource,
    ConfigValue,
    GroupDescription,
    GroupListing,
    GroupMember,
    GroupType,
    NewTopic,
    alter_configs,
    create_partitions,
    create_topics,
    delete_groups,
    delete_topics,
    describe_configs,
    describe_groups,
    list_groups,
)
from millstream.core.client.client import Client
from millstream.core.client.cluster import BrokerNode, Cluster, PartitionInfo, TopicInfo, TopicPartition
from millstream.core.client.coordinators import find_coordinators
from millstream.core.client.group_offsets import CommittedOffset, commit_offsets, delete_offsets, fetch_offsets
from millstream.core.client.offsets import EARLIEST, LATEST, MAX_TIMESTAMP, LogOffset, delete_records, list_offsets
from millstream.core.client.producer import (
    BatchHandle,
    BufferFullError,
    DeliveryTimeoutError,
    Producer,
    ProducerClosedError,
    RecordHandle,
    RecordMetadata,
    init_producer_id,
    partition_of_key,
)

__all__ = [
    "EARLIEST",
    "LATEST",
    "MAX_TIMESTAMP",
    "Admin",
    "BatchHandle",
    "BrokerNode",
    "BufferFullError",
    "Client",
    "Cluster",
    "CommittedOffset",
    "ConfigChange",
    "ConfigOperation",
    "ConfigResource",
    "ConfigResourceType",
    "ConfigSource",
    "ConfigValue",
    "DeliveryTimeoutError",
    "GroupDescription",
    "GroupListing",
    "GroupMember",
    "GroupType",
    "LogOffset",
    "NewTopic",
    "PartitionInfo",
    "Producer",
    "ProducerClosedError",
    "RecordHandle",
    "RecordMetadata",
    "TopicInfo",
    "TopicPartition",
    "alter_configs",
    "commit_offsets",
    "create_partitions",
    "create_topics",
    "delete_groups",
    "delete_offsets",
    "delete_records",
    "delete_topics",
    "describe_configs",
    "describe_groups",
    "fetch_offsets",
    "find_coordinators",
    "init_producer_id",
    "list_groups",
    "list_offsets",
    "partition_of_key",
]
