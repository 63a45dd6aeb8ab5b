"""What a ConsumerGroupHeartbeat may say, and what it says of its member. Checks and sentences are Kafka 4.3's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from millstream.core.groups.consumer.member import JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH, ConsumerMember
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    TopicPartitionsResponse,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millstream.core.groups.group import Caller

# From this version on the client makes its member id (KIP-1082).
CLIENT_MADE_IDS_VERSION: Final = 1
NOT_GIVEN: Final = -1


def check_heartbeat(request: ConsumerGroupHeartbeatRequest, api_version: int, assignors: Sequence[str]) -> None:
    """Raise KafkaError for a request that no group could take."""
    epoch = request.member_epoch
    if request.member_id == "" and (api_version >= CLIENT_MADE_IDS_VERSION or epoch > 0 or epoch == LEAVE_EPOCH):
        raise _invalid("MemberId can't be empty.")
    if request.group_id == "":
        raise _invalid("GroupId can't be empty.")
    if request.instance_id == "":
        raise _invalid("InstanceId can't be empty.")
    if request.rack_id == "":
        raise _invalid("RackId can't be empty.")
    if epoch == JOIN_EPOCH:
        if request.rebalance_timeout_ms == NOT_GIVEN:
            raise _invalid("RebalanceTimeoutMs must be provided in first request.")
        if request.topic_partitions is None or request.topic_partitions:
            raise _invalid("TopicPartitions must be empty when (re-)joining.")
        if request.subscribed_topic_names is None and request.subscribed_topic_regex is None:
            raise _invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")
    elif epoch == STATIC_LEAVE_EPOCH:
        if request.instance_id is None:
            raise _invalid("InstanceId can't be null.")
    elif epoch < STATIC_LEAVE_EPOCH:
        raise _invalid("MemberEpoch is invalid.")
    if request.server_assignor is not None and request.server_assignor not in assignors:
        raise KafkaError(
            ErrorCode.UNSUPPORTED_ASSIGNOR,
            f"ServerAssignor {request.server_assignor} is not supported. Supported assignors: {', '.join(assignors)}.",
        )


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, message)


def check_member_epoch(member: ConsumerMember, request: ConsumerGroupHeartbeatRequest) -> None:
    """Raise KafkaError FENCED_MEMBER_EPOCH unless the member is in this epoch, or did not get our last answer."""
    epoch = request.member_epoch
    if epoch in (JOIN_EPOCH, member.member_epoch):
        return
    word = "greater"
    if epoch < member.member_epoch:
        # What it has must be part of what it was given: else it acts on something older still.
        if epoch == member.previous_member_epoch and _owns_at_most(request, member):
            return
        word = "smaller"
    raise KafkaError(
        ErrorCode.FENCED_MEMBER_EPOCH,
        f"The consumer group member has a {word} member epoch ({epoch}) than the one known by the group coordinator "
        f"({member.member_epoch}). The member must abandon all its partitions and rejoin.",
    )


def _owns_at_most(request: ConsumerGroupHeartbeatRequest, member: ConsumerMember) -> bool:
    if request.topic_partitions is None:
        return False
    assigned = member.assigned
    return all(
        topic.topic_id in assigned and assigned[topic.topic_id].keys() >= set(topic.partitions)
        for topic in request.topic_partitions
    )


def as_requested(member: ConsumerMember, request: ConsumerGroupHeartbeatRequest, caller: Caller) -> ConsumerMember:
    """Return the member with what it says of itself; itself where that is nothing new. What it leaves out holds on."""
    changes: dict[str, Any] = {}
    if request.instance_id is not None and request.instance_id != member.instance_id:
        changes["instance_id"] = request.instance_id
    if request.rack_id is not None and request.rack_id != member.rack_id:
        changes["rack_id"] = request.rack_id
    timeout_ms = request.rebalance_timeout_ms
    if timeout_ms not in (NOT_GIVEN, member.rebalance_timeout_ms):
        changes["rebalance_timeout_ms"] = timeout_ms
    if request.server_assignor is not None and request.server_assignor != member.server_assignor:
        changes["server_assignor"] = request.server_assignor
    names = request.subscribed_topic_names
    if names is not None and (topics := frozenset(names)) != member.subscribed_topic_names:
        changes["subscribed_topic_names"] = topics
    regex = request.subscribed_topic_regex
    if regex is not None and regex != member.subscribed_topic_regex:
        changes["subscribed_topic_regex"] = regex
    if caller.client_id != member.client_id:
        changes["client_id"] = caller.client_id
    if caller.host != member.client_host:
        changes["client_host"] = caller.host
    if member.classic is not None:
        changes["classic"] = None
    return replace(member, **changes) if changes else member


def wants_assignment(request: ConsumerGroupHeartbeatRequest) -> bool:
    """Whether the member is to be told its whole assignment, changed or not: it joins, or it told all of itself."""
    return request.member_epoch == JOIN_EPOCH or (
        request.rebalance_timeout_ms != NOT_GIVEN
        and (request.subscribed_topic_names is not None or request.subscribed_topic_regex is not None)
        and request.topic_partitions is not None
    )


def assignment_of(member: ConsumerMember) -> Assignment:
    """Return what the member has, as it is told."""
    return Assignment(
        topic_partitions=[
            TopicPartitionsResponse(topic_id=topic_id, partitions=sorted(partitions))
            for topic_id, partitions in member.assigned.items()
        ]
    )
