"""DeleteGroups: delete groups that have no members, with their offsets (KIP-229)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._groups import done, gather, permits_group
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.delete_groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def delete_groups(
    broker: Broker, request: DeleteGroupsRequest, context: RequestContext
) -> Delayed[DeleteGroupsResponse]:
    """Answer each group for itself; one that is named twice is deleted once."""
    names = list(dict.fromkeys(request.groups_names))

    def deleted(group_id: str) -> Delayed[ErrorCode]:
        if not permits_group(context, Operation.DELETE, group_id):
            return done(ErrorCode.GROUP_AUTHORIZATION_FAILED)
        return broker.coordinators.request(
            group_id, "delete_group", group_id, context, refusal=lambda error: error.code
        )

    def combined(codes: list[ErrorCode]) -> DeleteGroupsResponse:
        results = [
            DeletableGroupResult(group_id=name, error_code=code) for name, code in zip(names, codes, strict=True)
        ]
        return DeleteGroupsResponse(results=results)

    return gather([deleted(group_id) for group_id in names], combined)
