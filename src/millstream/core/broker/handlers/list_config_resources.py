"""ListConfigResources (key 74): what has configs, by kind.

Versions  0 client metrics alone, then named ListClientMetricsResources (KIP-714)   1 every kind (KIP-1142)

There are no subscriptions to clients' metrics here, so their list is empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.cluster.configs import ResourceType
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.list_config_resources import (
    ConfigResource,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

EVERY_KIND_FROM_VERSION: Final = 1


def list_config_resources(
    broker: Broker, request: ListConfigResourcesRequest, context: RequestContext
) -> ListConfigResourcesResponse:
    """Answer the resources of the kinds asked for, of all kinds where none is."""
    if not context.permits_cluster(Operation.DESCRIBE_CONFIGS):
        return ListConfigResourcesResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    every: set[int] = set(ResourceType)
    kinds = set(request.resource_types) or every
    if context.api_version < EVERY_KIND_FROM_VERSION:
        kinds = {ResourceType.CLIENT_METRICS}
    if not kinds <= every:
        return ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    return ListConfigResourcesResponse(
        config_resources=[
            ConfigResource(resource_name=name, resource_type=kind)
            for kind in sorted(kinds)
            for name in _names(broker, kind)
        ]
    )


def _names(broker: Broker, kind: int) -> Iterable[str]:
    image = broker.metadata.image
    match kind:
        case ResourceType.TOPIC:
            return image.topics
        case ResourceType.BROKER | ResourceType.BROKER_LOGGER:
            return map(str, sorted(image.brokers))
        case ResourceType.GROUP:
            return image.group_configs
        case _:
            return ()
