"""AlterClientQuotas (key 49): sets and removes the limits of users, client ids and addresses (KIP-546).

Versions  0 all of it   1 flexible

Nobody is throttled here yet, so a limit is refused; to remove one that is not set changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.handlers._admin import CLUSTER_AUTHORIZATION_FAILED, NO_FAULT, Fault
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.alter_client_quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    EntityDataResponse,
    EntryData,
    EntryDataResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

_ENTITY_TYPES: Final = frozenset({"user", "client-id", "ip"})


def alter_client_quotas(
    broker: Broker,  # noqa: ARG001
    request: AlterClientQuotasRequest,
    context: RequestContext,
) -> AlterClientQuotasResponse:
    """Answer per entity."""
    denied = not context.permits_cluster(Operation.ALTER_CONFIGS)
    response = AlterClientQuotasResponse()
    for entry in request.entries:
        fault = Fault(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED) if denied else _alter(entry)
        response.entries.append(
            EntryDataResponse(
                error_code=fault.code,
                error_message=fault.message,
                entity=[
                    EntityDataResponse(entity_type=part.entity_type, entity_name=part.entity_name)
                    for part in entry.entity
                ],
            )
        )
    return response


def _alter(entry: EntryData) -> Fault:
    if not entry.entity:
        return Fault(ErrorCode.INVALID_REQUEST, "Invalid empty client quota entity")
    for part in entry.entity:
        if part.entity_type not in _ENTITY_TYPES:
            return Fault(ErrorCode.INVALID_REQUEST, f"Unhandled client quota entity type: {part.entity_type}")
    if all(operation.remove for operation in entry.ops):
        return NO_FAULT
    return Fault(
        ErrorCode.UNSUPPORTED_VERSION, "Client quotas are not kept by this broker yet: nobody would be throttled."
    )
