"""Membership in a group: who shares partitions (or anything else) with whom, and how far they have come.

Membership           on the loop: performs what a machine asks for, tells its owner (membership.py)
ClassicMember        sans-I/O: JoinGroup, SyncGroup, Heartbeat, LeaveGroup (classic.py)
ConsumerGroupMember  sans-I/O: ConsumerGroupHeartbeat, KIP-848 (consumer_group.py)
ConsumerProtocol     what consumers of a classic group tell each other (consumer_protocol.py), with assignors/
CustomProtocol       the same for anybody else (group_protocol.py)
OffsetCommitter      commits and reads offsets (offset_committer.py)
GroupCoordinator     finds and asks the coordinator (coordinator.py)
"""

from __future__ import annotations

from millstream.core.client.membership.assignors import (
    Assignor,
    CooperativeStickyAssignor,
    MemberSubscription,
    RangeAssignor,
    RebalanceProtocol,
    RoundRobinAssignor,
    Shares,
    StickyAssignor,
    TopicLayout,
    Topics,
)
from millstream.core.client.membership.classic import ClassicMember
from millstream.core.client.membership.commits import Offsets
from millstream.core.client.membership.consumer_group import ConsumerGroupMember
from millstream.core.client.membership.consumer_protocol import ConsumerProtocol
from millstream.core.client.membership.coordinator import GroupCoordinator
from millstream.core.client.membership.effects import MembershipState
from millstream.core.client.membership.errors import CommitFailedError, RebalanceInProgressError
from millstream.core.client.membership.group_protocol import CustomProtocol, GroupProtocol, JoinedMember
from millstream.core.client.membership.machine import Identity, MemberConfig
from millstream.core.client.membership.membership import GroupMetadata, Membership, MembershipListener
from millstream.core.client.membership.offset_committer import CommitsAs, OffsetCommitter

__all__ = [
    "Assignor",
    "ClassicMember",
    "CommitFailedError",
    "CommitsAs",
    "ConsumerGroupMember",
    "ConsumerProtocol",
    "CooperativeStickyAssignor",
    "CustomProtocol",
    "GroupCoordinator",
    "GroupMetadata",
    "GroupProtocol",
    "Identity",
    "JoinedMember",
    "MemberConfig",
    "MemberSubscription",
    "Membership",
    "MembershipListener",
    "MembershipState",
    "OffsetCommitter",
    "Offsets",
    "RangeAssignor",
    "RebalanceInProgressError",
    "RebalanceProtocol",
    "RoundRobinAssignor",
    "Shares",
    "StickyAssignor",
    "TopicLayout",
    "Topics",
]
