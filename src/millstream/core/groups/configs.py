"""What an operator can set of the group coordinator, as numbers it works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.core.config import BrokerConfig


@dataclass(frozen=True, slots=True)
class GroupConfigs:
    """The broker's `group.*` and `offset*` configs; the names are Kafka's. Replaced as a whole when one changes."""

    offset_metadata_size_bytes_max: int
    offsets_retention_ms: int

    # The classic protocol.
    session_timeout_min_ms: int
    session_timeout_max_ms: int
    initial_rebalance_delay_ms: int
    classic_members_max: int

    # The consumer protocol (KIP-848).
    consumer_session_timeout_ms: int
    consumer_heartbeat_interval_ms: int
    consumer_assignment_interval_ms: int
    # The least and the most that a group's own config may say.
    session_timeout_range_ms: tuple[int, int]
    heartbeat_range_ms: tuple[int, int]
    assignment_interval_range_ms: tuple[int, int]
    consumer_members_max: int
    consumer_assignors: tuple[str, ...]
    # disabled, upgrade, downgrade, bidirectional
    consumer_migration_policy: str
    consumer_regex_refresh_interval_ms: int
    # classic, consumer
    rebalance_protocols: frozenset[str]

    @classmethod
    def from_broker(cls, config: BrokerConfig) -> GroupConfigs:
        """Read them from the broker's configuration."""
        return cls(
            offset_metadata_size_bytes_max=config.integer("offset.metadata.max.bytes"),
            offsets_retention_ms=config.integer("offsets.retention.minutes") * 60_000,
            session_timeout_min_ms=config.integer("group.min.session.timeout.ms"),
            session_timeout_max_ms=config.integer("group.max.session.timeout.ms"),
            initial_rebalance_delay_ms=config.integer("group.initial.rebalance.delay.ms"),
            classic_members_max=config.integer("group.max.size"),
            consumer_session_timeout_ms=config.integer("group.consumer.session.timeout.ms"),
            consumer_heartbeat_interval_ms=config.integer("group.consumer.heartbeat.interval.ms"),
            consumer_assignment_interval_ms=config.integer("group.consumer.assignment.interval.ms"),
            session_timeout_range_ms=(
                config.integer("group.consumer.min.session.timeout.ms"),
                config.integer("group.consumer.max.session.timeout.ms"),
            ),
            heartbeat_range_ms=(
                config.integer("group.consumer.min.heartbeat.interval.ms"),
                config.integer("group.consumer.max.heartbeat.interval.ms"),
            ),
            assignment_interval_range_ms=(
                config.integer("group.consumer.min.assignment.interval.ms"),
                config.integer("group.consumer.max.assignment.interval.ms"),
            ),
            consumer_members_max=config.integer("group.consumer.max.size"),
            consumer_assignors=tuple(config.strings("group.consumer.assignors")),
            consumer_migration_policy=config.string("group.consumer.migration.policy").lower(),
            consumer_regex_refresh_interval_ms=config.integer("group.consumer.regex.refresh.interval.ms"),
            rebalance_protocols=frozenset(config.strings("group.coordinator.rebalance.protocols")),
        )
