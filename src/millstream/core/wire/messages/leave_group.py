"""LeaveGroup (key 13): remove members from a group at once, without waiting for their sessions to expire.

Versions  1 throttle time (KIP-124)   3 several members, static ones too (KIP-345)   4 flexible (KIP-482)
          5 reason (KIP-800)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, message, struct


@struct
class MemberIdentity:
    member_id: str = ""
    group_instance_id: str | None = None
    reason: str | None = field(versions="5+", default=None)


@message(key=13, versions="0-5", flexible="4+")
class LeaveGroupRequest:
    group_id: str = ""
    member_id: str = field(versions="0-2", default="")
    members: list[MemberIdentity] = field(versions="3+", factory=list)


@struct
class MemberResponse:
    member_id: str = ""
    group_instance_id: str | None = ""
    error_code: int16 = 0


@message(key=13, versions="0-5", flexible="4+")
class LeaveGroupResponse:
    throttle_time_ms: int32 = field(versions="1+", default=0)
    error_code: int16 = 0
    members: list[MemberResponse] = field(versions="3+", factory=list)
