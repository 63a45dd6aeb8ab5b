"""The cluster itself: its brokers, its controller (KIP-700)."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.core.client.admin.results import check
from millstream.core.client.client import Client
from millstream.core.client.cluster import BrokerNode
from millstream.core.net import Address
from millstream.core.wire.messages.describe_cluster import DescribeClusterRequest, DescribeClusterResponse


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """The brokers by id; `controller_id` is the broker that takes changes, -1 where there is none now."""

    cluster_id: str
    controller_id: int
    brokers: tuple[BrokerNode, ...]


async def describe_cluster(client: Client, *, timeout_ms: int) -> ClusterDescription:
    """Return the brokers of the cluster as they are advertised to this client."""
    response: DescribeClusterResponse = await client.request(DescribeClusterRequest(), timeout_ms=timeout_ms)
    check(response.error_code, response.error_message, "the cluster was not described")
    brokers = sorted(response.brokers, key=lambda broker: broker.broker_id)
    return ClusterDescription(
        cluster_id=response.cluster_id,
        controller_id=response.controller_id,
        brokers=tuple(BrokerNode(one.broker_id, Address(one.host, one.port), one.rack) for one in brokers),
    )
