"""FindCoordinator (key 10): which broker coordinates a group, a transactional id or a share partition.

Versions  1 transactional ids, throttle time, error messages (KIP-98, KIP-124)   3 flexible (KIP-482)
          4 several keys at once (KIP-699)   5 TRANSACTION_ABORTABLE (KIP-890)   6 share groups (KIP-932)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int8, int16, int32, message, struct


@message(key=10, versions="0-6", flexible="3+")
class FindCoordinatorRequest:
    key: str = field(versions="0-3", default="")
    # 0 group, 1 transactional id, 2 share partition.
    key_type: int8 = field(versions="1+", default=0)
    coordinator_keys: list[str] = field(versions="4+", factory=list)


@struct
class Coordinator:
    key: str = ""
    node_id: int32 = 0
    host: str = ""
    port: int32 = 0
    error_code: int16 = 0
    error_message: str | None = ""


@message(key=10, versions="0-6", flexible="3+")
class FindCoordinatorResponse:
    throttle_time_ms: int32 = field(versions="1+", default=0)
    error_code: int16 = field(versions="0-3", default=0)
    error_message: str | None = field(versions="1-3", default="")
    node_id: int32 = field(versions="0-3", default=0)
    host: str = field(versions="0-3", default="")
    port: int32 = field(versions="0-3", default=0)
    coordinators: list[Coordinator] = field(versions="4+", factory=list)
