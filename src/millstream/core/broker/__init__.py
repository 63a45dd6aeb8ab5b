"""The broker: sockets, one handler module per API, partitions, purgatory.

A request's way: `connection` finds frames in received bytes, `dispatch` decodes them and calls the handler
(`handlers`), which works on `partitions`; `appends` writes what a pass accepted; answers leave through the connection
in their order.
"""

from millstream.core.broker.broker import Broker, run
from millstream.core.broker.context import (
    AllowAll,
    Authorizer,
    Operation,
    RequestContext,
    ResourceType,
)
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers import HANDLERS
from millstream.core.broker.partition import Partition, ReplicaState
from millstream.core.broker.partitions import Partitions

__all__ = [
    "HANDLERS",
    "AllowAll",
    "Authorizer",
    "Broker",
    "Delayed",
    "Operation",
    "Partition",
    "Partitions",
    "ReplicaState",
    "RequestContext",
    "ResourceType",
    "run",
]
