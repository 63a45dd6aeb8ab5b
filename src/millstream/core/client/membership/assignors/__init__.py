"""Assignors: how a group's leader shares partitions (classic protocol). Kafka's four, and the interface for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from millstream.core.client.membership.assignors.assignor import (
    Assignor,
    MemberSubscription,
    RebalanceProtocol,
    Shares,
    TopicLayout,
    Topics,
)
from millstream.core.client.membership.assignors.range import RangeAssignor
from millstream.core.client.membership.assignors.roundrobin import RoundRobinAssignor
from millstream.core.client.membership.assignors.sticky import CooperativeStickyAssignor, StickyAssignor
from millstream.core.config.definition import ConfigError

__all__ = [
    "Assignor",
    "CooperativeStickyAssignor",
    "MemberSubscription",
    "RangeAssignor",
    "RebalanceProtocol",
    "RoundRobinAssignor",
    "Shares",
    "StickyAssignor",
    "TopicLayout",
    "Topics",
    "assignors_named",
]

_BUILT_IN: Final[Mapping[str, Callable[[], Assignor]]] = {
    "range": RangeAssignor,
    "roundrobin": RoundRobinAssignor,
    "sticky": StickyAssignor,
    "cooperative-sticky": CooperativeStickyAssignor,
}
_JAVA_PREFIX: Final = "org.apache.kafka.clients.consumer."
_JAVA_CLASSES: Final = {
    "RangeAssignor": "range",
    "RoundRobinAssignor": "roundrobin",
    "StickyAssignor": "sticky",
    "CooperativeStickyAssignor": "cooperative-sticky",
}


def assignors_named(names: Sequence[str]) -> list[Assignor]:
    """Make assignors of the names in `partition.assignment.strategy`. Raises ConfigError for one that is not known."""
    found: list[Assignor] = []
    for name in names:
        known = _JAVA_CLASSES.get(name.removeprefix(_JAVA_PREFIX), name)
        if known not in _BUILT_IN:
            raise ConfigError(
                f"Unknown assignor {name!r}: there are {', '.join(_BUILT_IN)}; give your own as an object",
                name="partition.assignment.strategy",
            )
        found.append(_BUILT_IN[known]())
    return found
