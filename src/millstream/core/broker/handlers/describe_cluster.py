"""DescribeCluster (key 60): the brokers, the controller, the cluster's id (KIP-700).

Versions  0 all of it   1 endpoint type (KIP-919)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import RequestContext
from millstream.core.broker.handlers._admin import cluster_operations
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

_BROKERS: Final = 1
_CONTROLLERS: Final = 2


def describe_cluster(
    broker: Broker, request: DescribeClusterRequest, context: RequestContext
) -> DescribeClusterResponse:
    """Answer the endpoints of the listener that was asked; a broker without that listener is left out."""
    if request.endpoint_type == _CONTROLLERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            error_message="The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type "
            "CONTROLLER",
        )
    if request.endpoint_type != _BROKERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
            error_message=f"Unsupported endpoint type {request.endpoint_type}",
        )
    image = broker.metadata.image
    response = DescribeClusterResponse(cluster_id=image.cluster_id, controller_id=image.controller_id)
    for node_id, member in sorted(image.brokers.items()):
        for endpoint in member.endpoints:
            if endpoint.listener == context.listener:
                response.brokers.append(
                    DescribeClusterBroker(broker_id=node_id, host=endpoint.host, port=endpoint.port, rack=member.rack)
                )
    if request.include_cluster_authorized_operations:
        response.cluster_authorized_operations = cluster_operations(context)
    return response
