"""DescribeUserScramCredentials (key 50): which users have passwords for SCRAM (KIP-554).

Versions  0 all of it

Nobody is authenticated here yet, so no user has one.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.handlers._admin import CLUSTER_AUTHORIZATION_FAILED
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.describe_user_scram_credentials import (
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def describe_user_scram_credentials(
    broker: Broker,  # noqa: ARG001
    request: DescribeUserScramCredentialsRequest,
    context: RequestContext,
) -> DescribeUserScramCredentialsResponse:
    """Answer each named user that there is no such one; nothing where all are asked for."""
    if not context.permits_cluster(Operation.DESCRIBE):
        return DescribeUserScramCredentialsResponse(
            error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED, error_message=CLUSTER_AUTHORIZATION_FAILED
        )
    response = DescribeUserScramCredentialsResponse()
    for name, count in Counter(user.name for user in request.users or ()).items():
        result = DescribeUserScramCredentialsResult(
            user=name,
            error_code=ErrorCode.RESOURCE_NOT_FOUND,
            error_message=f"Attempt to describe a user credential that does not exist: {name}",
        )
        if count > 1:
            result.error_code = ErrorCode.DUPLICATE_RESOURCE
            result.error_message = (
                f"Cannot describe SCRAM credentials for the same user twice in a single request: {name}"
            )
        response.results.append(result)
    return response
