"""FindCoordinator: which broker coordinates a group or a transactional id.

A group's is the one that leads its partition of `__consumer_offsets`, which is created with the first question. For
transactional ids there is none: the answer is a code that clients take for final.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext, ResourceType
from millstream.core.broker.delayed import Delayed
from millstream.core.groups.partitioning import GROUP_TOPIC
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.find_coordinator import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

GROUP: Final = 0
TRANSACTION: Final = 1
_BATCHED_FROM_VERSION: Final = 4  # KIP-699

_NO_TRANSACTIONS: Final = "this broker serves no transactions"


def find_coordinator(
    broker: Broker, request: FindCoordinatorRequest, context: RequestContext
) -> FindCoordinatorResponse | Delayed[FindCoordinatorResponse]:
    """Name the coordinators; who asks first waits until there are any."""
    if request.key_type == GROUP and not broker.coordinators.is_created and _allowed(request, context):
        return Delayed.from_coroutine(broker.loop, _create_and_answer(broker, request, context))
    return _response(broker, request, context)


async def _create_and_answer(
    broker: Broker, request: FindCoordinatorRequest, context: RequestContext
) -> FindCoordinatorResponse:
    with suppress(KafkaError):  # the answer says that there is none
        await broker.coordinators.create_topic()
    return _response(broker, request, context)


def _keys(request: FindCoordinatorRequest, context: RequestContext) -> list[str]:
    return request.coordinator_keys if context.api_version >= _BATCHED_FROM_VERSION else [request.key]


def _allowed(request: FindCoordinatorRequest, context: RequestContext) -> bool:
    return any(context.permits(Operation.DESCRIBE, ResourceType.GROUP, key) for key in _keys(request, context))


def _response(broker: Broker, request: FindCoordinatorRequest, context: RequestContext) -> FindCoordinatorResponse:
    answers = [_answer(broker, key, request.key_type, context) for key in _keys(request, context)]
    if context.api_version >= _BATCHED_FROM_VERSION:
        return FindCoordinatorResponse(coordinators=answers)
    answer = answers[0]
    return FindCoordinatorResponse(
        error_code=answer.error_code,
        error_message=answer.error_message or error_code(answer.error_code).name,  # "NONE", as Kafka says it
        node_id=answer.node_id,
        host=answer.host,
        port=answer.port,
    )


def _answer(broker: Broker, key: str, key_type: int, context: RequestContext) -> Coordinator:
    if key_type == GROUP:
        if not context.permits(Operation.DESCRIBE, ResourceType.GROUP, key):
            return _error(key, ErrorCode.GROUP_AUTHORIZATION_FAILED)
        if not broker.coordinators.is_created:
            return _error(key, ErrorCode.COORDINATOR_NOT_AVAILABLE)
        return _leader(broker, key, context)
    if key_type == TRANSACTION:
        return _error(key, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, _NO_TRANSACTIONS)
    return _error(key, ErrorCode.INVALID_REQUEST, f"no coordinator has the type {key_type}")


def _leader(broker: Broker, key: str, context: RequestContext) -> Coordinator:
    image = broker.metadata.image
    state = image.topics[GROUP_TOPIC].partitions[broker.coordinators.partition_of(key)]
    leader = image.brokers.get(state.leader)
    if leader is None:
        return _error(key, ErrorCode.COORDINATOR_NOT_AVAILABLE)
    if leader.node_id == broker.config.node_id:
        host, port = broker.addresses[context.listener]
    else:
        endpoint = next((each for each in leader.endpoints if each.listener == context.listener), None)
        if endpoint is None:
            return _error(key, ErrorCode.COORDINATOR_NOT_AVAILABLE)
        host, port = endpoint.host, endpoint.port
    return Coordinator(key=key, node_id=leader.node_id, host=host, port=port)


def _error(key: str, code: ErrorCode, message: str | None = None) -> Coordinator:
    message = code.sentence if message is None else message
    return Coordinator(key=key, node_id=-1, host="", port=-1, error_code=code, error_message=message)
