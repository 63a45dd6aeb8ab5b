"""DescribeCluster (key 60): the brokers of the cluster, its id and its controller.

Versions  0 (KIP-700)   1 brokers or controllers (KIP-919)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int8, int16, int32, message, struct


@message(key=60, versions="0-1", flexible="0+")
class DescribeClusterRequest:
    include_cluster_authorized_operations: bool = False
    # 1 brokers, 2 controllers.
    endpoint_type: int8 = field(versions="1+", default=1)


@struct
class DescribeClusterBroker:
    broker_id: int32 = 0
    host: str = ""
    port: int32 = 0
    rack: str | None = None


@message(key=60, versions="0-1", flexible="0+")
class DescribeClusterResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = 0
    error_message: str | None = None
    endpoint_type: int8 = field(versions="1+", default=1)
    cluster_id: str = ""
    controller_id: int32 = -1
    brokers: list[DescribeClusterBroker] = field(factory=list)
    cluster_authorized_operations: int32 = -(2**31)
