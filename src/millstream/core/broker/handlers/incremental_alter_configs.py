"""IncrementalAlterConfigs (key 44): sets, deletes, appends to and subtracts from single configs (KIP-339).

Versions  0 all of it   1 flexible
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from millstream.core.broker.context import RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._admin import Fault
from millstream.core.broker.handlers._config_changes import ResourceChanges, alter_resources
from millstream.core.cluster.configs import ConfigChange
from millstream.core.wire.messages.incremental_alter_configs import (
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def incremental_alter_configs(
    broker: Broker, request: IncrementalAlterConfigsRequest, context: RequestContext
) -> Delayed[IncrementalAlterConfigsResponse]:
    """Answer per resource; an answer without an error means that the change is in effect on this broker."""
    resources = [
        ResourceChanges(
            item.resource_type,
            item.resource_name,
            [ConfigChange(config.name, config.config_operation, config.value) for config in item.configs],
            replaces_all=False,
        )
        for item in request.resources
    ]
    return alter_resources(broker, resources, validate_only=request.validate_only, context=context, answer=_response)


def _response(outcomes: Sequence[tuple[ResourceChanges, Fault]]) -> IncrementalAlterConfigsResponse:
    return IncrementalAlterConfigsResponse(
        responses=[
            AlterConfigsResourceResponse(
                error_code=fault.code,
                error_message=fault.message,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )
            for resource, fault in outcomes
        ]
    )
