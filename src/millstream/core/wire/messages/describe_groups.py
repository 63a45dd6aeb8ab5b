"""DescribeGroups (key 15): state, members and assignments of classic groups.

Versions  1 throttle time (KIP-124)   3 authorized operations (KIP-430)   4 static members (KIP-345)
          5 flexible (KIP-482)   6 GROUP_ID_NOT_FOUND and a message (KIP-1043)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, message, struct


@message(key=15, versions="0-6", flexible="5+")
class DescribeGroupsRequest:
    groups: list[str] = field(factory=list)
    include_authorized_operations: bool = field(versions="3+", default=False)


@struct
class DescribedGroupMember:
    member_id: str = ""
    group_instance_id: str | None = field(versions="4+", default=None)
    client_id: str = ""
    client_host: str = ""
    member_metadata: bytes = b""
    member_assignment: bytes = b""


@struct
class DescribedGroup:
    error_code: int16 = 0
    error_message: str | None = field(versions="6+", default=None)
    group_id: str = ""
    group_state: str = ""
    protocol_type: str = ""
    # The assignor, for consumers.
    protocol_data: str = ""
    members: list[DescribedGroupMember] = field(factory=list)
    authorized_operations: int32 = field(versions="3+", default=-(2**31))


@message(key=15, versions="0-6", flexible="5+")
class DescribeGroupsResponse:
    throttle_time_ms: int32 = field(versions="1+", default=0)
    groups: list[DescribedGroup] = field(factory=list)
