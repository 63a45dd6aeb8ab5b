"""SyncGroup: the leader of a group hands in the assignment, and each member gets its part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.delayed import Delayed

_PROTOCOL_FROM_VERSION: Final = 5  # KIP-559


def sync_group(
    broker: Broker, request: SyncGroupRequest, context: RequestContext
) -> SyncGroupResponse | Delayed[SyncGroupResponse]:
    """Hand it to the group's coordinator."""
    names_protocol = request.protocol_type is not None and request.protocol_name is not None
    if context.api_version >= _PROTOCOL_FROM_VERSION and not names_protocol:
        return SyncGroupResponse(error_code=ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    if not context.permits(Operation.READ, ResourceType.GROUP, request.group_id):
        return SyncGroupResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    if not request.group_id:
        return SyncGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID)
    return broker.coordinators.request(request.group_id, "sync_group", request, context, refusal=_refusal)


def _refusal(error: KafkaError) -> SyncGroupResponse:
    return SyncGroupResponse(error_code=error.code)
