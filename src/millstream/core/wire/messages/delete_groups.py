"""DeleteGroups (key 42): delete groups that have no members, with their offsets.

Versions  0 (KIP-229)   2 flexible (KIP-482)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, message, struct


@message(key=42, versions="0-2", flexible="2+")
class DeleteGroupsRequest:
    groups_names: list[str] = field(factory=list)


@struct
class DeletableGroupResult:
    group_id: str = ""
    error_code: int16 = 0


@message(key=42, versions="0-2", flexible="2+")
class DeleteGroupsResponse:
    throttle_time_ms: int32 = 0
    results: list[DeletableGroupResult] = field(factory=list)
