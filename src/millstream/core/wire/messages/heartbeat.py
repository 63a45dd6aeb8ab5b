"""Heartbeat (key 12): tell the coordinator that a member is alive, and learn of a rebalance.

Versions  1 throttle time (KIP-124)   3 static members (KIP-345)   4 flexible (KIP-482)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, message


@message(key=12, versions="0-4", flexible="4+")
class HeartbeatRequest:
    group_id: str = ""
    generation_id: int32 = 0
    member_id: str = ""
    group_instance_id: str | None = field(versions="3+", default=None)


@message(key=12, versions="0-4", flexible="4+")
class HeartbeatResponse:
    throttle_time_ms: int32 = field(versions="1+", default=0)
    error_code: int16 = 0
