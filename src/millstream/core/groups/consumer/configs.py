"""What holds for one group of the consumer protocol: its own configs (resource type GROUP), else the broker's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from millstream.core.config import GROUP_CONFIGS, ConfigError

if TYPE_CHECKING:
    from millstream.core.groups.configs import GroupConfigs


class ConsumerGroupConfigs(NamedTuple):
    """How often members send heartbeats, how long they may be silent, how often they are assigned anew."""

    session_timeout_ms: int
    heartbeat_interval_ms: int
    assignment_interval_ms: int


def consumer_group_configs(broker: GroupConfigs, own: Mapping[str, str] | None) -> ConsumerGroupConfigs:
    """Return what holds for a group with these configs of its own, kept within the broker's limits."""
    return ConsumerGroupConfigs(
        _within(
            own, "consumer.session.timeout.ms", broker.consumer_session_timeout_ms, broker.session_timeout_range_ms
        ),
        _within(
            own, "consumer.heartbeat.interval.ms", broker.consumer_heartbeat_interval_ms, broker.heartbeat_range_ms
        ),
        _within(
            own,
            "consumer.assignment.interval.ms",
            broker.consumer_assignment_interval_ms,
            broker.assignment_interval_range_ms,
        ),
    )


def _within(own: Mapping[str, str] | None, name: str, default: int, limits: tuple[int, int]) -> int:
    text = None if own is None else own.get(name)
    if text is None:
        return default
    try:
        value = GROUP_CONFIGS.parse(name, text)
    except ConfigError:  # Written by another program.
        return default
    assert isinstance(value, int), f"{name} is {value!r}"
    return min(max(value, limits[0]), limits[1])
