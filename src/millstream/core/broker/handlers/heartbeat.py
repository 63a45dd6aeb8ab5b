"""Heartbeat: a member of a group of the classic protocol is there, and hears whether a rebalance is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.delayed import Delayed


def heartbeat(
    broker: Broker, request: HeartbeatRequest, context: RequestContext
) -> HeartbeatResponse | Delayed[HeartbeatResponse]:
    """Hand it to the group's coordinator."""
    if not context.permits(Operation.READ, ResourceType.GROUP, request.group_id):
        return HeartbeatResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if not request.group_id:
        return HeartbeatResponse(error_code=ErrorCode.INVALID_GROUP_ID)
    return broker.coordinators.request(request.group_id, "heartbeat", request, context, refusal=_refusal)


def _refusal(error: KafkaError) -> HeartbeatResponse:
    # A coordinator that reads its log begins every session anew once it has, so there is nothing to tell the member.
    loading = error.code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    return HeartbeatResponse(error_code=ErrorCode.NONE if loading else error.code)
