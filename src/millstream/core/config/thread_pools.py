"""The sizes of Kafka's thread pools that change while it runs, and by how much they may at once.

Of these only num.recovery.threads.per.data.dir is a pool here; the others are accepted and have no effect. The rule
holds for all of them all the same: a tool that changes them is told what Apache Kafka 4.3 tells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from millstream.core.config.definition import ConfigDef, ConfigError, ConfigKey, ConfigType, UpdateMode, at_least

_DEFAULTS: Final = {"background.threads": 10, "num.io.threads": 8, "num.network.threads": 3, "num.replica.fetchers": 1}

ACCEPTED_THREAD_POOLS: Final = ConfigDef(
    [
        ConfigKey(
            name=name,
            type=ConfigType.INT,
            default=default,
            doc="Accepted, and without effect.",
            validator=at_least(1),
            dynamic=UpdateMode.CLUSTER_WIDE,
        )
        for name, default in _DEFAULTS.items()
    ]
)


def validate_step(name: str, before: int, after: int) -> None:
    """Raise ConfigError where a pool would shrink to less than half, or grow to more than double."""
    if after < before // 2:
        raise _fault(name, after, f"value should be at least half the current value {before}")
    if after > before * 2:
        raise _fault(name, after, f"value should not be greater than double the current value {before}")


def thread_count(texts: Mapping[str, str], name: str) -> int:
    """Return the size of a pool that is accepted only, as `texts` set it."""
    key = ACCEPTED_THREAD_POOLS[name]
    value = key.default if name not in texts else key.parse(texts[name])
    assert isinstance(value, int), f"{name} is {value!r}"
    return value


def _fault(name: str, value: int, reason: str) -> ConfigError:
    return ConfigError(
        "Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count update validation failed "
        f"for {name}={value}, {reason} for configuration Invalid dynamic configuration",
        name=name,
    )
