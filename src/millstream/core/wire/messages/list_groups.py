"""ListGroups (key 16): the groups that a broker coordinates.

Versions  1 throttle time (KIP-124)   3 flexible (KIP-482)   4 states, and a filter on them (KIP-518)
          5 types, and a filter on them (KIP-848)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, message, struct


@message(key=16, versions="0-5", flexible="3+")
class ListGroupsRequest:
    states_filter: list[str] = field(versions="4+", factory=list)
    types_filter: list[str] = field(versions="5+", factory=list)


@struct
class ListedGroup:
    group_id: str = ""
    protocol_type: str = ""
    group_state: str = field(versions="4+", default="")
    group_type: str = field(versions="5+", default="")


@message(key=16, versions="0-5", flexible="3+")
class ListGroupsResponse:
    throttle_time_ms: int32 = field(versions="1+", default=0)
    error_code: int16 = 0
    groups: list[ListedGroup] = field(factory=list)
