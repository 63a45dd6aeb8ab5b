"""The client on bytes: connections, metadata, produce, fetch, admin. Works against any Kafka-compatible broker.

async with Client("127.0.0.1:9092") as client:
    async with BatchWriter(client, idempotent=True) as producer:
        producer.append(TopicPartition("flights", 0), b"key", b"value")
    async with Fetcher(client, {TopicPartition("flights", 0): 0}, end_offsets=...) as fetcher:
        async for fetched in fetcher:
            for record in fetched.records(): ...
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
from millstream.core.client.batch_writer import BatchWriter
from millstream.core.client.client import Client
from millstream.core.client.cluster import BrokerNode, Cluster, PartitionInfo, TopicInfo, TopicPartition
from millstream.core.client.coordinators import find_coordinators
from millstream.core.client.fetcher import Fetched, Fetcher
from millstream.core.client.group_offsets import CommittedOffset, commit_offsets, delete_offsets, fetch_offsets
from millstream.core.client.offsets import EARLIEST, LATEST, MAX_TIMESTAMP, LogOffset, delete_records, list_offsets
from millstream.core.client.partitioner import KeylessPartitioner, partition_of_key
from millstream.core.client.producer import (
    BatchHandle,
    BufferFullError,
    DeliveryTimeoutError,
    Producer,
    ProducerClosedError,
    RecordHandle,
    RecordMetadata,
    init_producer_id,
)

__all__ = [
    "EARLIEST",
    "LATEST",
    "MAX_TIMESTAMP",
    "Admin",
    "BatchHandle",
    "BatchWriter",
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
    "Fetched",
    "Fetcher",
    "GroupDescription",
    "GroupListing",
    "GroupMember",
    "GroupType",
    "KeylessPartitioner",
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
