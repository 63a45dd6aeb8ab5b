"""ConsumerGroupHeartbeat: join, stay in and leave a group, and learn what to read, all in one (KIP-848)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.handlers._groups import permits_group, permits_topic
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.delayed import Delayed

# The protocol as `group.coordinator.rebalance.protocols` names it.
CONSUMER: Final = "consumer"


def consumer_group_heartbeat(
    broker: Broker, request: ConsumerGroupHeartbeatRequest, context: RequestContext
) -> ConsumerGroupHeartbeatResponse | Delayed[ConsumerGroupHeartbeatResponse]:
    """Hand it to the group's coordinator; a member names only topics that it may describe."""
    if CONSUMER not in broker.config.strings("group.coordinator.rebalance.protocols"):
        return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    if not permits_group(context, Operation.READ, request.group_id):
        return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED)
    for topic in request.subscribed_topic_names or ():
        if not permits_topic(context, Operation.DESCRIBE, topic):
            return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED)
    if not request.group_id:
        # No group has this name, so no coordinator is asked.
        return _refusal(KafkaError(ErrorCode.INVALID_REQUEST, "GroupId can't be empty."))
    return broker.coordinators.request(request.group_id, "consumer_group_heartbeat", request, context, refusal=_refusal)


def _refusal(error: KafkaError) -> ConsumerGroupHeartbeatResponse:
    return ConsumerGroupHeartbeatResponse(error_code=error.code, error_message=error.message)
