"""ConsumerGroupDescribe: state, epochs, members and assignments of groups of the consumer protocol (KIP-848)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.core.broker.context import Operation, RequestContext
from millstream.core.broker.delayed import Delayed
from millstream.core.broker.handlers._groups import done, gather, permits_group, permits_topic
from millstream.core.broker.handlers.consumer_group_heartbeat import CONSUMER
from millstream.core.broker.handlers.describe_groups import group_operations
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    DescribedGroup,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker


def consumer_group_describe(
    broker: Broker, request: ConsumerGroupDescribeRequest, context: RequestContext
) -> Delayed[ConsumerGroupDescribeResponse]:
    """Answer each group for itself; one with a topic that the asker may not describe is not shown."""
    is_served = CONSUMER in broker.config.strings("group.coordinator.rebalance.protocols")

    def described(group_id: str) -> Delayed[DescribedGroup]:
        if not is_served:
            return done(DescribedGroup(group_id=group_id, error_code=ErrorCode.UNSUPPORTED_VERSION))
        if not permits_group(context, Operation.DESCRIBE, group_id):
            return done(DescribedGroup(group_id=group_id, error_code=ErrorCode.GROUP_AUTHORIZATION_FAILED))
        if not group_id:
            return done(DescribedGroup(group_id=group_id, error_code=ErrorCode.INVALID_GROUP_ID))

        def refusal(error: KafkaError) -> DescribedGroup:
            return DescribedGroup(group_id=group_id, error_code=error.code)

        return broker.coordinators.request(group_id, "describe_consumer_group", group_id, context, refusal=refusal)

    def combined(groups: list[DescribedGroup]) -> ConsumerGroupDescribeResponse:
        shown = [group if _may_see(context, group) else _hidden(group.group_id) for group in groups]
        if request.include_authorized_operations:
            for group in shown:
                if not group.error_code:
                    group.authorized_operations = group_operations(context, group.group_id)
        return ConsumerGroupDescribeResponse(groups=shown)

    return gather([described(group_id) for group_id in request.group_ids], combined)


def _may_see(context: RequestContext, group: DescribedGroup) -> bool:
    topics = {
        topic.topic_name
        for member in group.members
        for assignment in (member.assignment, member.target_assignment)
        for topic in assignment.topic_partitions
    }
    topics.update(name for member in group.members for name in member.subscribed_topic_names)
    return all(permits_topic(context, Operation.DESCRIBE, name) for name in topics)


def _hidden(group_id: str) -> DescribedGroup:
    return DescribedGroup(
        group_id=group_id,
        error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        error_message="The group has described topic(s) that the client is not authorized to describe.",
    )
