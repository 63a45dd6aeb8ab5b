"""JoinGroup: enter a group of the classic protocol; answered when all its members are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.delayed import Delayed

_NULL_PROTOCOL_FROM_VERSION: Final = 7  # KIP-559


def join_group(
    broker: Broker, request: JoinGroupRequest, context: RequestContext
) -> JoinGroupResponse | Delayed[JoinGroupResponse]:
    """Hand it to the group's coordinator."""
    if not context.permits(Operation.READ, ResourceType.GROUP, request.group_id):
        return _refusal(ErrorCode.GROUP_AUTHORIZATION_FAILED, "", context)
    if not request.group_id:
        return _refusal(ErrorCode.INVALID_GROUP_ID, request.member_id, context)
    return broker.coordinators.request(
        request.group_id, "join_group", request, context, refusal=lambda error: _refusal(error.code, "", context)
    )


def _refusal(code: ErrorCode, member_id: str, context: RequestContext) -> JoinGroupResponse:
    response = JoinGroupResponse(error_code=code, member_id=member_id)
    if context.api_version >= _NULL_PROTOCOL_FROM_VERSION:
        response.protocol_name = None
    return response
