"""JoinGroup (key 11): enter a group, or re-enter it for a rebalance; the answer comes when all members are there.

Versions  1 rebalance timeout (KIP-62)   2 throttle time (KIP-124)   4 a second join with the id assigned (KIP-394)
          5 static members (KIP-345)   6 flexible (KIP-482)   7 protocol type in the answer (KIP-559)
          8 reason (KIP-800)   9 a leader may skip its assignment (KIP-814)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, message, struct


@struct
class JoinGroupRequestProtocol:
    name: str = ""
    metadata: bytes = b""


@message(key=11, versions="0-9", flexible="6+")
class JoinGroupRequest:
    group_id: str = ""
    session_timeout_ms: int32 = 0
    rebalance_timeout_ms: int32 = field(versions="1+", default=-1)
    # Empty on the first join; the response brings one.
    member_id: str = ""
    group_instance_id: str | None = field(versions="5+", default=None)
    protocol_type: str = ""
    # In the order the member prefers them.
    protocols: list[JoinGroupRequestProtocol] = field(factory=list)
    reason: str | None = field(versions="8+", default=None)


@struct
class JoinGroupResponseMember:
    member_id: str = ""
    group_instance_id: str | None = field(versions="5+", default=None)
    metadata: bytes = b""


@message(key=11, versions="0-9", flexible="6+")
class JoinGroupResponse:
    throttle_time_ms: int32 = field(versions="2+", default=0)
    error_code: int16 = 0
    generation_id: int32 = -1
    protocol_type: str | None = field(versions="7+", default=None)
    protocol_name: str | None = field(nullable="7+", default="")
    leader: str = ""
    skip_assignment: bool = field(versions="9+", default=False)
    member_id: str = ""
    # For the leader only.
    members: list[JoinGroupResponseMember] = field(factory=list)
