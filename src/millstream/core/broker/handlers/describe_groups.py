"""DescribeGroups: state, members and assignments of groups of the classic protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._groups import done, gather, permits_group
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.describe_groups import DescribedGroup, DescribeGroupsRequest, DescribeGroupsResponse

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

_OPERATIONS: Final = (
    Operation.READ,
    Operation.DELETE,
    Operation.DESCRIBE,
    Operation.DESCRIBE_CONFIGS,
    Operation.ALTER_CONFIGS,
)


def describe_groups(
    broker: Broker, request: DescribeGroupsRequest, context: RequestContext
) -> Delayed[DescribeGroupsResponse]:
    """Answer each group for itself."""

    def described(group_id: str) -> Delayed[DescribedGroup]:
        if not permits_group(context, Operation.DESCRIBE, group_id):
            return done(DescribedGroup(group_id=group_id, error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED))
        return broker.coordinators.request(
            group_id,
            "describe_group",
            group_id,
            context,
            refusal=lambda error: DescribedGroup(group_id=group_id, error_code=error.code),
        )

    def combined(groups: list[DescribedGroup]) -> DescribeGroupsResponse:
        if request.include_authorized_operations:
            for group in groups:
                if not group.error_code:
                    group.authorized_operations = group_operations(context, group.group_id)
        return DescribeGroupsResponse(groups=groups)

    return gather([described(group_id) for group_id in request.groups], combined)


def group_operations(context: RequestContext, group_id: str) -> int:
    """Return the operations on a group that the one who asks may do, as the protocol's bit field."""
    return sum(1 << operation for operation in _OPERATIONS if permits_group(context, operation, group_id))
