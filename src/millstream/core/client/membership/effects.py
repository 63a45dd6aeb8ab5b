"""What a membership machine asks its surroundings to do, in the order it is to happen; and what members tell.

`Membership` performs it; each effect but the last three ends in an event that the machine is given:

    Send               handle_answer(number, response) or handle_failure(number, error)
    AskTopics          handle_topics(asked, topics)
    Call               handle_called()
    ForgetCoordinator, RefreshTopics, Fail     nothing
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple


class CallKind(Enum):
    """What a member's owner is told."""

    ASSIGNED = "assigned"
    REVOKED = "revoked"
    LOST = "lost"


class Send(NamedTuple):
    """Send this to the group's coordinator. A machine knows its requests by their numbers."""

    number: int
    message: Any
    timeout_ms: int


class AskTopics(NamedTuple):
    """Find out, from the brokers and now, which partitions these topics have."""

    topics: frozenset[str]


class Call(NamedTuple):
    """Tell the owner, and wait for it: partitions of a consumer, bytes of other protocol types.

    There is one at a time.
    """

    kind: CallKind
    what: Any


class ForgetCoordinator(NamedTuple):
    """The coordinator is not there, or not the coordinator: look it up again."""


class RefreshTopics(NamedTuple):
    """Topic ids came up that nobody knows yet: ask for metadata."""

    topic_ids: frozenset[bytes]


class Fail(NamedTuple):
    """Membership ends here: nothing but another configuration, or a person, mends this."""

    error: Exception


Effect = Send | AskTopics | Call | ForgetCoordinator | RefreshTopics | Fail


class MembershipState(Enum):
    """Where a member stands; see the machines for the transitions."""

    OUTSIDE = "outside"
    JOINING = "joining"
    RECONCILING = "reconciling"
    STABLE = "stable"
    LEAVING = "leaving"
    STALE = "stale"
    FAILED = "failed"
