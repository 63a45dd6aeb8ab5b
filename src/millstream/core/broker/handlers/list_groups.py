"""ListGroups: the groups that this broker coordinates; those that one who may not see the cluster may describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._groups import gather, permits_group
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.list_groups import ListedGroup, ListGroupsRequest, ListGroupsResponse

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def list_groups(broker: Broker, request: ListGroupsRequest, context: RequestContext) -> Delayed[ListGroupsResponse]:
    """Answer the groups of all shards; with COORDINATOR_LOAD_IN_PROGRESS and what is known while one is loaded."""
    answers = broker.coordinators.request_all("list_groups", request, context, refusal=lambda error: error.code)
    sees_all = context.permits_cluster(Operation.DESCRIBE)

    def combined(parts: list[Any]) -> ListGroupsResponse:
        code = ErrorCode.NONE
        groups: list[ListedGroup] = []
        for part in parts:
            if isinstance(part, ErrorCode):
                # A shard that has moved away is listed by who has it now.
                code = part if part is not ErrorCode.NOT_COORDINATOR else code
            else:
                groups += part
        if not sees_all:
            groups = [each for each in groups if permits_group(context, Operation.DESCRIBE, each.group_id)]
        return ListGroupsResponse(error_code=code, groups=[] if code else groups)

    return gather(answers, combined)
