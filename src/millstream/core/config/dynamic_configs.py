"""Which broker configs change while a broker runs, for one broker or for all, and what a set of them has to satisfy.

The rules and their sentences are Apache Kafka 4.3's (KIP-226). A config that Kafka changes while it runs and that
nothing here obeys is taken and kept, as a properties file that sets it is; one that Kafka refuses is refused. Names
that no table knows are kept for the program that knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from millstream.core.config.accepted_configs import ACCEPTED
from millstream.core.config.broker_config import BrokerConfig
from millstream.core.config.broker_configs import BROKER_CONFIGS
from millstream.core.config.definition import ConfigError, UpdateMode
from millstream.core.config.group_configs import ASSIGNMENT_INTERVAL, check_consumer_timeouts
from millstream.core.config.thread_pools import ACCEPTED_THREAD_POOLS, thread_count, validate_step

CLEANER_THREADS: Final = "log.cleaner.threads"
DEDUPE_BUFFER_SIZE: Final = "log.cleaner.dedupe.buffer.size"
RECOVERY_THREADS: Final = "num.recovery.threads.per.data.dir"
RETENTION_MS: Final = "log.retention.ms"
DEDUPE_BUFFER_BYTES_PER_THREAD_MIN: Final = 1 << 20

# Accepted names that Kafka changes while it runs.
_CLUSTER_WIDE: Final = """
    background.threads follower.fetch.last.tiered.offset.enable group.coordinator.cached.buffer.max.bytes
    group.share.assignment.interval.ms group.streams.assignment.interval.ms max.connection.creation.rate
    metric.reporters num.io.threads num.network.threads num.replica.fetchers remote.fetch.max.wait.ms
    remote.list.offsets.request.timeout.ms remote.log.index.file.cache.total.size.bytes
    remote.log.manager.copier.thread.pool.size remote.log.manager.copy.max.bytes.per.second
    remote.log.manager.expiration.thread.pool.size remote.log.manager.fetch.max.bytes.per.second
    remote.log.manager.follower.thread.pool.size remote.log.reader.threads
    share.coordinator.cached.buffer.max.bytes transaction.partition.verification.enable
"""
_ACCEPTED_CLUSTER_WIDE: Final = frozenset(_CLUSTER_WIDE.split())
_ACCEPTED_PER_BROKER: Final = frozenset({"cordoned.log.dirs", "sasl.enabled.mechanisms"})


def update_mode(name: str) -> UpdateMode | None:
    """Return whether and for whom a broker config changes while a broker runs; None for a name that no table knows."""
    key = BROKER_CONFIGS.get(name)
    if key is not None:
        return key.dynamic
    if name in _ACCEPTED_CLUSTER_WIDE:
        return UpdateMode.CLUSTER_WIDE
    if name in _ACCEPTED_PER_BROKER:
        return UpdateMode.PER_BROKER
    return UpdateMode.READ_ONLY if name in ACCEPTED else None


def validate_dynamic_configs(changes: Mapping[str, str], *, current: BrokerConfig, per_broker: bool) -> None:
    """Raise ConfigError unless a broker of the configs `current` may be given these, in Kafka's words."""
    fixed = [name for name in changes if update_mode(name) is UpdateMode.READ_ONLY]
    if fixed:
        raise ConfigError(f"Cannot update these configs dynamically: [{', '.join(fixed)}]")
    own = [name for name in changes if update_mode(name) is UpdateMode.PER_BROKER]
    if own and not per_broker:
        raise ConfigError(
            f"Cannot update these configs at default cluster level, broker id must be specified: [{', '.join(own)}]"
        )
    for name, text in changes.items():
        if name == RETENTION_MS and text.strip() == "0":
            raise ConfigError(
                f"requirement failed: {name} must be unlimited (-1) or, greater than or equal to 1", name=name
            )
        if name in BROKER_CONFIGS:
            BROKER_CONFIGS.parse(name, text)
        elif name in ACCEPTED_THREAD_POOLS:
            ACCEPTED_THREAD_POOLS.parse(name, text)
    for name in changes:
        if name in ACCEPTED_THREAD_POOLS:
            before = thread_count(current.accepted_thread_pools, name)
            validate_step(name, before, thread_count(changes, name))
        elif name == RECOVERY_THREADS:
            validate_step(name, current.integer(name), BrokerConfig({name: changes[name]}).integer(name))
    if CLEANER_THREADS in changes or DEDUPE_BUFFER_SIZE in changes:
        _validate_cleaner(current, changes)
    if f"group.{ASSIGNMENT_INTERVAL}" in changes:
        check_consumer_timeouts(BrokerConfig({**current.texts, **changes}))


def _validate_cleaner(current: BrokerConfig, changes: Mapping[str, str]) -> None:
    before = current.integer(CLEANER_THREADS)
    proposed = BrokerConfig({**current.texts, **changes})
    threads = proposed.integer(CLEANER_THREADS)
    if threads < 1:
        raise _thread_fault(f"Log cleaner threads must be at least one: {CLEANER_THREADS} is {threads}")
    if proposed.integer(DEDUPE_BUFFER_SIZE) // threads < DEDUPE_BUFFER_BYTES_PER_THREAD_MIN:
        raise ConfigError(
            f"requirement failed: {DEDUPE_BUFFER_SIZE} must be at least 1MB per cleaner thread.",
            name=DEDUPE_BUFFER_SIZE,
        )
    if threads < before // 2:
        raise _thread_fault(f"Log cleaner threads cannot be reduced to less than half the current value {before}")
    if threads > before * 2:
        raise _thread_fault(f"Log cleaner threads cannot be increased to more than double the current value {before}")


def _thread_fault(reason: str) -> ConfigError:
    return ConfigError(
        f"Invalid value org.apache.kafka.common.config.ConfigException: {reason} for configuration Invalid dynamic "
        "configuration",
        name=CLEANER_THREADS,
    )
