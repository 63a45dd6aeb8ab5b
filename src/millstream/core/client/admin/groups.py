"""Groups as an operator sees them: which there are, their members; and deleting them (KIP-222).

Calls on several groups return what failed per group.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.coordinators import check, error_of, final_error, of_coordinator, of_coordinators
from millstream.core.wire import ApiKey, ErrorCode, KafkaError, WireError
from millstream.core.wire.embedded_protocol import CONSUMER_PROTOCOL_TYPE, decode_assignment
from millstream.core.wire.messages import consumer_group_describe as consumer_wire
from millstream.core.wire.messages import describe_groups as classic_wire
from millstream.core.wire.messages.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from millstream.core.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity
from millstream.core.wire.messages.list_groups import ListGroupsRequest, ListGroupsResponse


class GroupType(Enum):
    """Which protocol a group speaks; a broker before ListGroups 5 does not say."""

    CLASSIC = "Classic"
    CONSUMER = "Consumer"
    SHARE = "Share"
    STREAMS = "Streams"
    UNKNOWN = ""

    @classmethod
    def _missing_(cls, value: object) -> GroupType:
        """Brokers write it in small letters or not."""
        return next((one for one in cls if one.value == str(value).title()), cls.UNKNOWN)


class GroupListing(NamedTuple):
    """A group in a list; `state` is empty where the broker does not say."""

    group_id: str
    type: GroupType
    protocol_type: str
    state: str
    coordinator: int


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of a group. Epochs and `target` are those of the consumer protocol; a classic group has none."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    assigned: tuple[TopicPartition, ...]
    target: tuple[TopicPartition, ...] | None = None
    epoch: int | None = None
    rack: str | None = None


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """A group with its members. `assignor` is the name of the assignment strategy; the epochs as for the members."""

    group_id: str
    type: GroupType
    protocol_type: str
    state: str
    assignor: str
    coordinator: int
    members: tuple[GroupMember, ...]
    epoch: int | None = None
    assignment_epoch: int | None = None

    @property
    def is_active(self) -> bool:
        """Whether members hold on to its offsets: these can't be changed from outside then."""
        return self.state not in {"Empty", "Dead"}


async def list_groups(
    client: Client,
    *,
    states: Iterable[str] = (),
    types: Iterable[GroupType] = (),
    timeout_ms: int | None = None,
) -> list[GroupListing]:
    """Return the groups of every broker, by name; those in these states and of these types where any are given."""
    wanted_states, wanted_types = {state.lower() for state in states}, set(types)

    async def ask() -> list[GroupListing]:
        listed: list[GroupListing] = []
        for node in (await client.metadata([], timeout_ms=timeout_ms)).brokers:
            response: ListGroupsResponse = await client.request(ListGroupsRequest(), node=node, timeout_ms=timeout_ms)
            check(response.error_code, None, f"groups of broker {node}")
            listed += (
                GroupListing(one.group_id, GroupType(one.group_type), one.protocol_type, one.group_state, node)
                for one in response.groups
            )
        return sorted(
            (
                one
                for one in listed
                if (not wanted_states or one.state.lower() in wanted_states)
                and (not wanted_types or one.type in wanted_types)
            ),
            key=lambda one: (one.group_id, one.coordinator),
        )

    return await client.retried(ask, timeout_ms=timeout_ms)


async def describe_groups(
    client: Client, group_ids: Iterable[str], *, timeout_ms: int | None = None
) -> dict[str, GroupDescription | KafkaError]:
    """Return state and members of groups of either protocol, or per group why it can't be described."""

    async def ask(node: int, groups: list[str]) -> dict[str, GroupDescription | KafkaError]:
        found = await _describe_consumer_groups(client, node, groups, timeout_ms)
        rest = [group_id for group_id in groups if group_id not in found]
        return found | (await _describe_classic_groups(client, node, rest, timeout_ms) if rest else {})

    return await of_coordinators(client, group_ids, ask, timeout_ms)


async def delete_groups(
    client: Client, group_ids: Iterable[str], *, timeout_ms: int | None = None
) -> dict[str, KafkaError | None]:
    """Delete groups that have no members, with their offsets; return per group None or why it was not deleted."""

    async def ask(node: int, groups: list[str]) -> dict[str, KafkaError | None]:
        request = DeleteGroupsRequest(groups_names=groups)
        response: DeleteGroupsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
        return {
            result.group_id: final_error(
                result.error_code, None, f"group {result.group_id!r} was not deleted", result.group_id
            )
            for result in response.results
        }

    return await of_coordinators(client, group_ids, ask, timeout_ms)


async def remove_members(
    client: Client,
    group_id: str,
    members: Iterable[GroupMember | str] | None = None,
    *,
    reason: str | None = None,
    timeout_ms: int | None = None,
) -> dict[str, KafkaError | None]:
    """Have members leave a group at once; a text is a static member's group.instance.id, None means all members.

    Returns, per group.instance.id, or member id where there is none, None or why it is still there.
    """
    if members is None:
        described = (await describe_groups(client, [group_id], timeout_ms=timeout_ms))[group_id]
        if isinstance(described, KafkaError):
            raise described
        members = described.members
    request = LeaveGroupRequest(
        group_id=group_id,
        members=[
            MemberIdentity(group_instance_id=member, reason=reason)
            if isinstance(member, str)
            else MemberIdentity(member_id=member.member_id, group_instance_id=member.instance_id, reason=reason)
            for member in members
        ],
    )
    if not request.members:
        return {}

    async def ask(node: int) -> dict[str, KafkaError | None]:
        response: LeaveGroupResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
        check(response.error_code, None, f"no member of group {group_id!r} was removed", group_id)
        return {
            (name := one.group_instance_id or one.member_id): error_of(
                one.error_code, None, f"member {name!r} of group {group_id!r} was not removed"
            )
            for one in response.members
        }

    return await of_coordinator(client, group_id, ask, timeout_ms)


async def _describe_consumer_groups(
    client: Client, node: int, group_ids: list[str], timeout_ms: int | None
) -> dict[str, GroupDescription | KafkaError]:
    """Describe those that speak the consumer protocol; classic ones and those not there are left out."""
    if ApiKey.CONSUMER_GROUP_DESCRIBE not in (await client.connection(node)).versions:
        return {}
    request = consumer_wire.ConsumerGroupDescribeRequest(group_ids=group_ids)
    response: consumer_wire.ConsumerGroupDescribeResponse = await client.request(
        request, node=node, timeout_ms=timeout_ms
    )
    found: dict[str, GroupDescription | KafkaError] = {}
    for group in response.groups:
        if group.error_code in {ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.UNSUPPORTED_VERSION}:
            continue
        error = final_error(group.error_code, group.error_message, f"group {group.group_id!r}", group.group_id)
        found[group.group_id] = error or GroupDescription(
            group_id=group.group_id,
            type=GroupType.CONSUMER,
            protocol_type=CONSUMER_PROTOCOL_TYPE,
            state=group.group_state,
            assignor=group.assignor_name,
            coordinator=node,
            members=tuple(sorted(map(_consumer_member, group.members), key=lambda member: member.member_id)),
            epoch=group.group_epoch,
            assignment_epoch=group.assignment_epoch,
        )
    return found


def _consumer_member(member: consumer_wire.Member) -> GroupMember:
    return GroupMember(
        member_id=member.member_id,
        instance_id=member.instance_id,
        client_id=member.client_id,
        host=member.client_host,
        assigned=_partitions(member.assignment),
        target=_partitions(member.target_assignment),
        epoch=member.member_epoch,
        rack=member.rack_id,
    )


def _partitions(assignment: consumer_wire.Assignment) -> tuple[TopicPartition, ...]:
    return tuple(
        sorted(
            TopicPartition(topic.topic_name, partition)
            for topic in assignment.topic_partitions
            for partition in topic.partitions
        )
    )


async def _describe_classic_groups(
    client: Client, node: int, group_ids: list[str], timeout_ms: int | None
) -> dict[str, GroupDescription | KafkaError]:
    request = classic_wire.DescribeGroupsRequest(groups=group_ids)
    response: classic_wire.DescribeGroupsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
    found: dict[str, GroupDescription | KafkaError] = {}
    for group in response.groups:
        # Before DescribeGroups 6 a group that is not there is described as dead.
        code = group.error_code or (ErrorCode.GROUP_ID_NOT_FOUND if group.group_state == "Dead" else ErrorCode.NONE)
        error = final_error(code, group.error_message, f"group {group.group_id!r}", group.group_id)
        found[group.group_id] = error or GroupDescription(
            group_id=group.group_id,
            type=GroupType.CLASSIC,
            protocol_type=group.protocol_type,
            state=group.group_state,
            assignor=group.protocol_data,
            coordinator=node,
            members=tuple(
                sorted(
                    (_classic_member(group.protocol_type, member) for member in group.members),
                    key=lambda member: member.member_id,
                )
            ),
        )
    return found


def _classic_member(protocol_type: str, member: classic_wire.DescribedGroupMember) -> GroupMember:
    assigned: list[TopicPartition] = []
    if protocol_type == CONSUMER_PROTOCOL_TYPE:
        try:
            topics = decode_assignment(member.member_assignment).assigned_partitions
        except WireError:
            topics = []  # what its leader made up; nobody but its members can read it
        assigned = [TopicPartition(topic.topic, partition) for topic in topics for partition in topic.partitions]
    return GroupMember(
        member_id=member.member_id,
        instance_id=member.group_instance_id,
        client_id=member.client_id,
        host=member.client_host,
        assigned=tuple(sorted(assigned)),
    )
