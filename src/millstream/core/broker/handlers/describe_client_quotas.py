"""DescribeClientQuotas (key 48): the limits that users, client ids and addresses have (KIP-546).

Versions  0 all of it   1 flexible

No limits can be set yet, so a filter that Kafka takes finds nothing; one that it refuses is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.handlers._admin import CLUSTER_AUTHORIZATION_FAILED
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.describe_client_quotas import (
    ComponentData,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

EXACT, DEFAULT, SPECIFIED = range(3)
_MATCH_TYPES: Final = {DEFAULT: "MATCH_TYPE_DEFAULT", SPECIFIED: "MATCH_TYPE_SPECIFIED"}
_ENTITY_TYPES: Final = frozenset({"user", "client-id", "ip"})


def describe_client_quotas(
    broker: Broker,  # noqa: ARG001
    request: DescribeClientQuotasRequest,
    context: RequestContext,
) -> DescribeClientQuotasResponse:
    """Answer that there are none, or what is wrong with the filter."""
    if not context.permits_cluster(Operation.DESCRIBE_CONFIGS):
        return DescribeClientQuotasResponse(
            error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=CLUSTER_AUTHORIZATION_FAILED, entries=None
        )
    try:
        _check(request.components)
    except KafkaError as error:
        return DescribeClientQuotasResponse(error_code=error.code, error_message=error.message, entries=None)
    return DescribeClientQuotasResponse()


def _check(components: list[ComponentData]) -> None:
    seen: set[str] = set()
    for component in components:
        kind, match = component.entity_type, component.match_type
        if not kind:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Invalid empty entity type.")
        if kind in seen:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"Entity type {kind} cannot appear more than once in the filter."
            )
        if kind not in _ENTITY_TYPES:
            raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, f"Unsupported entity type {kind}")
        if match == EXACT:
            if component.match is None:
                raise KafkaError(
                    ErrorCode.INVALID_REQUEST, "Request specified MATCH_TYPE_EXACT, but set match string to null."
                )
        elif match not in _MATCH_TYPES:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown match type {match}")
        elif component.match is not None:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"Request specified {_MATCH_TYPES[match]}, but also specified a match string.",
            )
        seen.add(kind)
    if "ip" in seen and len(seen) > 1:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "Invalid entity filter component combination. IP filter component should not be used with user or clientId "
            "filter component.",
        )
