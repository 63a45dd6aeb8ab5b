"""ListPartitionReassignments (key 46): the moves of partitions between brokers that are under way (KIP-455).

Versions  0 all of it

On one node there is never one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.handlers._admin import CLUSTER_AUTHORIZATION_FAILED
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def list_partition_reassignments(
    broker: Broker,  # noqa: ARG001
    request: ListPartitionReassignmentsRequest,  # noqa: ARG001
    context: RequestContext,
) -> ListPartitionReassignmentsResponse:
    """Answer that nothing is moving; partitions that do not exist are left out, as all are."""
    if not context.permits_cluster(Operation.DESCRIBE):
        return ListPartitionReassignmentsResponse(
            error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=CLUSTER_AUTHORIZATION_FAILED
        )
    return ListPartitionReassignmentsResponse(error_message=None)
