"""SyncGroup (key 14): the leader hands in the assignment of a generation, and each member gets its own part.

Versions  1 throttle time (KIP-124)   3 static members (KIP-345)   4 flexible (KIP-482)
          5 protocol type and name, for the broker to check (KIP-559)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, message, struct


@struct
class SyncGroupRequestAssignment:
    member_id: str = ""
    assignment: bytes = b""


@message(key=14, versions="0-5", flexible="4+")
class SyncGroupRequest:
    group_id: str = ""
    generation_id: int32 = 0
    member_id: str = ""
    group_instance_id: str | None = field(versions="3+", default=None)
    protocol_type: str | None = field(versions="5+", default=None)
    protocol_name: str | None = field(versions="5+", default=None)
    assignments: list[SyncGroupRequestAssignment] = field(factory=list)


@message(key=14, versions="0-5", flexible="4+")
class SyncGroupResponse:
    throttle_time_ms: int32 = field(versions="1+", default=0)
    error_code: int16 = 0
    protocol_type: str | None = field(versions="5+", default=None)
    protocol_name: str | None = field(versions="5+", default=None)
    assignment: bytes = b""
