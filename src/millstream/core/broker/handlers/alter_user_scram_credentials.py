"""AlterUserScramCredentials (key 51): gives users passwords for SCRAM and takes them away (KIP-554).

Versions  0 all of it

Nobody is authenticated here yet: a password that would let nobody in, and keep nobody out, is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.handlers._admin import CLUSTER_AUTHORIZATION_FAILED, Fault
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker

ITERATIONS_MIN: Final = 4096
ITERATIONS_MAX: Final = 16384
_MECHANISMS: Final = frozenset({1, 2})  # SCRAM-SHA-256 and SCRAM-SHA-512
_NO_NAME: Final = Fault(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Username must not be empty")
_NO_MECHANISM: Final = Fault(ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism")


def alter_user_scram_credentials(
    broker: Broker,  # noqa: ARG001
    request: AlterUserScramCredentialsRequest,
    context: RequestContext,
) -> AlterUserScramCredentialsResponse:
    """Answer per user, the first fault that is found."""
    faults: dict[str, Fault] = {}
    if not context.permits_cluster(Operation.ALTER):
        denied = Fault(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED)
        names = [*(each.name for each in request.deletions), *(each.name for each in request.upsertions)]
        faults = dict.fromkeys(names, denied)
    else:
        for deletion in request.deletions:
            faults.setdefault(deletion.name, _deletion_fault(deletion.name, deletion.mechanism))
        for upsertion in request.upsertions:
            fault = _upsertion_fault(upsertion.name, upsertion.mechanism, upsertion.iterations)
            faults.setdefault(upsertion.name, fault)
    return AlterUserScramCredentialsResponse(
        results=[
            AlterUserScramCredentialsResult(user=name, error_code=fault.code, error_message=fault.message)
            for name, fault in faults.items()
        ]
    )


def _deletion_fault(name: str, mechanism: int) -> Fault:
    if not name:
        return _NO_NAME
    if mechanism not in _MECHANISMS:
        return _NO_MECHANISM
    return Fault(ErrorCode.RESOURCE_NOT_FOUND, "Attempt to delete a user credential that does not exist")


def _upsertion_fault(name: str, mechanism: int, iterations: int) -> Fault:
    if not name:
        return _NO_NAME
    if mechanism not in _MECHANISMS:
        return _NO_MECHANISM
    if iterations < ITERATIONS_MIN:
        return Fault(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too few iterations")
    if iterations > ITERATIONS_MAX:
        return Fault(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too many iterations")
    return Fault(
        ErrorCode.UNSUPPORTED_SASL_MECHANISM,
        "This broker authenticates nobody yet: a password would let nobody in and keep nobody out.",
    )
