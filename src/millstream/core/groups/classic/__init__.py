"""Groups of the classic protocol: members join, a leader among them assigns, all get their part.

JoinGroup, SyncGroup, Heartbeat and LeaveGroup, for any protocol type: what members speak among themselves is theirs.

    group.py       ClassicGroup: the state of one group, its record, its answers to the offset store
    member.py      ClassicMember                    session.py       deadlines of silence
    rebalances.py  the phases of a rebalance        joins.py         JoinGroup
    requests.py    ClassicRequests: what the shard hands over
"""

from __future__ import annotations

from millstream.core.groups.classic.group import ClassicGroup, ClassicState
from millstream.core.groups.classic.member import ClassicMember
from millstream.core.groups.classic.requests import ClassicRequests

__all__ = ["ClassicGroup", "ClassicMember", "ClassicRequests", "ClassicState"]
