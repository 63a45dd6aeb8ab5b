"""The configs of one group (config resource type GROUP, KIP-848): those of Kafka 4.3 that are acted on.

Each has a broker config that gives its default, and two that bound it. Configs of share and streams groups are unknown
here, as those groups are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from millstream.core.config.definition import (
    INT_MAX,
    ConfigDef,
    ConfigError,
    ConfigKey,
    ConfigType,
    Synonym,
    at_least,
    between,
)

if TYPE_CHECKING:
    from millstream.core.config.broker_config import BrokerConfig

SESSION_TIMEOUT: Final = "consumer.session.timeout.ms"
HEARTBEAT_INTERVAL: Final = "consumer.heartbeat.interval.ms"
ASSIGNMENT_INTERVAL: Final = "consumer.assignment.interval.ms"

GROUP_CONFIGS: Final = ConfigDef(
    [
        ConfigKey(
            name=SESSION_TIMEOUT,
            type=ConfigType.INT,
            default=45_000,
            doc="A member of this consumer group that sends no heartbeat for this long is removed from it.",
            validator=at_least(1),
            synonyms=(Synonym("group.consumer.session.timeout.ms"),),
        ),
        ConfigKey(
            name=HEARTBEAT_INTERVAL,
            type=ConfigType.INT,
            default=5_000,
            doc="How often members of this consumer group are told to send heartbeats.",
            validator=at_least(1),
            synonyms=(Synonym("group.consumer.heartbeat.interval.ms"),),
        ),
        ConfigKey(
            name=ASSIGNMENT_INTERVAL,
            type=ConfigType.INT,
            default=1_000,
            doc="The shortest time between two assignments of this consumer group: members that join meanwhile are "
            "assigned together.",
            validator=between(0, INT_MAX),
            synonyms=(Synonym("group.consumer.assignment.interval.ms"),),
        ),
    ]
)


def broker_limits(name: str) -> tuple[str, str]:
    """Return the names of the broker configs that bound a group's config from below and from above."""
    what = name.removeprefix("consumer.")
    return f"group.consumer.min.{what}", f"group.consumer.max.{what}"


def check_consumer_timeouts(broker: BrokerConfig) -> None:
    """Raise ConfigError where the broker's defaults for groups are not within the limits it sets, in Kafka's words."""
    for name in (HEARTBEAT_INTERVAL, SESSION_TIMEOUT, ASSIGNMENT_INTERVAL):
        minimum, maximum = broker_limits(name)
        default = f"group.{name}"
        if broker.integer(maximum) < broker.integer(minimum):
            raise ConfigError(f"{maximum} must be greater than or equal to {minimum}", name=maximum)
        if broker.integer(default) < broker.integer(minimum):
            raise ConfigError(f"{default} must be greater than or equal to {minimum}", name=default)
        if broker.integer(default) > broker.integer(maximum):
            raise ConfigError(f"{default} must be less than or equal to {maximum}", name=default)
    heartbeat, session = f"group.{HEARTBEAT_INTERVAL}", f"group.{SESSION_TIMEOUT}"
    if broker.integer(heartbeat) >= broker.integer(session):
        raise ConfigError(f"{heartbeat} must be less than {session}", name=heartbeat)


def validate_group_configs(settings: Mapping[str, str], broker: BrokerConfig) -> None:
    """Raise ConfigError unless a group may have these configs, all of them together, in Kafka's words."""
    for name in settings:
        if name not in GROUP_CONFIGS:
            raise ConfigError(f"Unknown group config name: {name}", name=name)
    values = {name: GROUP_CONFIGS.parse(name, text) for name, text in settings.items()}
    for name, value in values.items():
        minimum, maximum = broker_limits(name)
        assert isinstance(value, int), f"{name} is {value!r}"
        if value < broker.integer(minimum):
            raise ConfigError(f"{name} must be greater than or equal to {minimum}", name=name)
        if value > broker.integer(maximum):
            raise ConfigError(f"{name} must be less than or equal to {maximum}", name=name)
    session, heartbeat = (
        values.get(name, broker.integer(f"group.{name}")) for name in (SESSION_TIMEOUT, HEARTBEAT_INTERVAL)
    )
    assert isinstance(session, int), f"{SESSION_TIMEOUT} is {session!r}"
    assert isinstance(heartbeat, int), f"{HEARTBEAT_INTERVAL} is {heartbeat!r}"
    if session <= heartbeat:
        raise ConfigError(f"{SESSION_TIMEOUT} must be greater than {HEARTBEAT_INTERVAL}", name=SESSION_TIMEOUT)
