"""JoinGroup: enter a group of the classic protocol; answered when all its members are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.wire import ErrorCode, KafkaError
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
        response = JoinGroupResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
        if context.api_version >= _NULL_PROTOCOL_FROM_VERSION:
            response.protocol_name = None
        return response
    if not request.group_id:
        return JoinGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID, member_id=request.member_id)
    return broker.coordinators.request(request.group_id, "join_group", request, context, refusal=_refusal)


def _refusal(error: KafkaError) -> JoinGroupResponse:
    return JoinGroupResponse(error_code=error.code)
