"""LeaveGroup: members go at once, without waiting for their sessions to expire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.delayed import Delayed


def leave_group(
    broker: Broker, request: LeaveGroupRequest, context: RequestContext
) -> LeaveGroupResponse | Delayed[LeaveGroupResponse]:
    """Hand it to the group's coordinator."""
    if not context.permits(Operation.READ, ResourceType.GROUP, request.group_id):
        return LeaveGroupResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if not request.group_id:
        return LeaveGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID)
    return broker.coordinators.request(request.group_id, "leave_group", request, context, refusal=_refusal)


def _refusal(error: KafkaError) -> LeaveGroupResponse:
    return LeaveGroupResponse(error_code=error.code)
