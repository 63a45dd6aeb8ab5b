"""The cluster's metadata: an immutable image, the operations that change it, and the stores that keep it.

`ClusterMetadata` holds the image for a broker; `topics` plans changes; `EmbeddedStore` keeps a single node's metadata.
"""

from millstream.core.cluster.embedded_store import EmbeddedStore
from millstream.core.cluster.image import (
    CLUSTER_DEFAULT,
    NO_LEADER,
    BrokerImage,
    ClusterImage,
    Endpoint,
    PartitionState,
    TopicImage,
)
from millstream.core.cluster.metadata import ClusterMetadata, ProducerIdBlock
from millstream.core.cluster.operations import (
    AddPartitions,
    AdvanceProducerIds,
    AlterBrokerConfigs,
    AlterTopicConfigs,
    ChangePartitions,
    CreateTopic,
    DeleteTopic,
    Operation,
    RegisterBroker,
    SetCluster,
    UnregisterBroker,
)
from millstream.core.cluster.store import (
    Change,
    ChangesGoneError,
    CommitResult,
    MetadataStore,
    SessionLostError,
    StoreWriteError,
)

__all__ = [
    "CLUSTER_DEFAULT",
    "NO_LEADER",
    "AddPartitions",
    "AdvanceProducerIds",
    "AlterBrokerConfigs",
    "AlterTopicConfigs",
    "BrokerImage",
    "Change",
    "ChangePartitions",
    "ChangesGoneError",
    "ClusterImage",
    "ClusterMetadata",
    "CommitResult",
    "CreateTopic",
    "DeleteTopic",
    "EmbeddedStore",
    "Endpoint",
    "MetadataStore",
    "Operation",
    "PartitionState",
    "ProducerIdBlock",
    "RegisterBroker",
    "SessionLostError",
    "SetCluster",
    "StoreWriteError",
    "TopicImage",
    "UnregisterBroker",
]
