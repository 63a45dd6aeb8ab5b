"""What an operator asks of a cluster: `Admin` for asyncio, over functions of a `Client`, one per API.

async with Admin("127.0.0.1:9092") as admin:
    await admin.create_topic("flights", partitions=6)
"""

from millstream.core.client.admin.admin import ADMIN_APIS, Admin
from millstream.core.client.admin.cluster import ClusterDescription
from millstream.core.client.admin.configs import (
    ConfigChange,
    ConfigOperation,
    ConfigResource,
    ConfigResourceType,
    ConfigSource,
    ConfigValue,
    alter_configs,
    describe_configs,
)
from millstream.core.client.admin.groups import (
    GroupDescription,
    GroupListing,
    GroupMember,
    GroupType,
    delete_groups,
    describe_groups,
    list_groups,
)
from millstream.core.client.admin.partitions import ActiveProducer
from millstream.core.client.admin.quotas import ANY, DEFAULT, Match, QuotaEntity
from millstream.core.client.admin.replicas import LogDirDescription, Reassignment, Replica, ReplicaInLogDir
from millstream.core.client.admin.topics import (
    NewPartitions,
    NewTopic,
    PartitionDescription,
    TopicDescription,
    create_partitions,
    create_topics,
    delete_topics,
)
from millstream.core.client.admin.users import ScramCredential, ScramDeletion, ScramMechanism, ScramPassword

__all__ = [
    "ADMIN_APIS",
    "ANY",
    "DEFAULT",
    "ActiveProducer",
    "Admin",
    "ClusterDescription",
    "ConfigChange",
    "ConfigOperation",
    "ConfigResource",
    "ConfigResourceType",
    "ConfigSource",
    "ConfigValue",
    "GroupDescription",
    "GroupListing",
    "GroupMember",
    "GroupType",
    "LogDirDescription",
    "Match",
    "NewPartitions",
    "NewTopic",
    "PartitionDescription",
    "QuotaEntity",
    "Reassignment",
    "Replica",
    "ReplicaInLogDir",
    "ScramCredential",
    "ScramDeletion",
    "ScramMechanism",
    "ScramPassword",
    "TopicDescription",
    "alter_configs",
    "create_partitions",
    "create_topics",
    "delete_groups",
    "delete_topics",
    "describe_configs",
    "describe_groups",
    "list_groups",
]
