"""FindCoordinator: which broker coordinates a group or a transactional id. None does until groups are served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.find_coordinator import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

GROUP: Final = 0
TRANSACTION: Final = 1
_BATCHED_FROM_VERSION: Final = 4  # KIP-699

_NO_TRANSACTIONS: Final = "this broker serves no transactions"


def find_coordinator(
    _broker: Broker, request: FindCoordinatorRequest, context: RequestContext
) -> FindCoordinatorResponse:
    """Say for groups that there is none at the moment; for transactional ids a code that clients take for final."""
    batched = context.api_version >= _BATCHED_FROM_VERSION
    keys = request.coordinator_keys if batched else [request.key]
    answers = [_answer(key, request.key_type, context) for key in keys]
    if batched:
        return FindCoordinatorResponse(coordinators=answers)
    answer = answers[0]
    return FindCoordinatorResponse(
        error_code=answer.error_code, error_message=answer.error_message, node_id=-1, host="", port=-1
    )


def _answer(key: str, key_type: int, context: RequestContext) -> Coordinator:
    if key_type == GROUP:
        allowed = context.permits(Operation.DESCRIBE, ResourceType.GROUP, key)
        code = ErrorCode.COORDINATOR_NOT_AVAILABLE if allowed else ErrorCode.GROUP_AUTHORIZATION_FAILED
        message = code.sentence
    elif key_type == TRANSACTION:
        code, message = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, _NO_TRANSACTIONS
    else:
        code, message = ErrorCode.INVALID_REQUEST, f"no coordinator has the type {key_type}"
    return Coordinator(key=key, node_id=-1, host="", port=-1, error_code=code, error_message=message)
