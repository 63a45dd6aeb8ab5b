"""A consumer's settings as its machines use them: typed, named with their units, checked once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from millstream.core.config.client_config import ClientConfig
from millstream.core.config.definition import ConfigError, invalid_value


class ResetKind(Enum):
    """Where reading begins without an offset to begin at."""

    EARLIEST = "earliest"
    LATEST = "latest"
    NONE = "none"
    BY_DURATION = "by_duration"


class OffsetReset(NamedTuple):
    """auto.offset.reset: where to begin; `duration_ms` is how long ago, for BY_DURATION (KIP-1106)."""

    kind: ResetKind
    duration_ms: int = 0


EARLIEST_RESET: Final = OffsetReset(ResetKind.EARLIEST)
LATEST_RESET: Final = OffsetReset(ResetKind.LATEST)

# ISO 8601 as Java's Duration reads it: days, hours, minutes, seconds; no weeks, months or years.
_DURATION: Final = re.compile(
    r"P(?:(?P<days>\d+)D)?(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:\.(?P<part>\d{1,9}))?S)?)?\Z",
    re.IGNORECASE,
)
_BY_DURATION: Final = "by_duration:"


def parse_reset(text: str) -> OffsetReset:
    """Read a value of auto.offset.reset. Raises ConfigError."""
    if not text.startswith(_BY_DURATION):
        return OffsetReset(ResetKind(text))
    written = text.removeprefix(_BY_DURATION)
    found = _DURATION.match(written)
    if found is None or written.upper() in ("P", "PT"):
        raise invalid_value("auto.offset.reset", text, "its duration is none of ISO 8601, as P1DT2H3M4.5S is")
    days, hours, minutes, seconds = (int(found[name] or 0) for name in ("days", "hours", "minutes", "seconds"))
    part_ms = int((found["part"] or "0").ljust(3, "0")[:3])
    return OffsetReset(ResetKind.BY_DURATION, (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + part_ms)


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """What fetching and positions need of a consumer's configuration."""

    group_id: str | None = None
    reset: OffsetReset = LATEST_RESET
    read_committed: bool = False
    check_crcs: bool = True
    client_rack: str = ""
    fetch_bytes_max: int = 52_428_800
    partition_bytes_max: int = 4_194_304
    fetch_bytes_min: int = 1
    fetch_wait_ms_max: int = 500
    memory_bytes_max: int = 67_108_864
    request_timeout_ms: int = 30_000
    api_timeout_ms: int = 60_000
    retry_backoff_ms: int = 100
    metadata_age_ms_max: int = 300_000
    poll_records_max: int = 500
    auto_commit: bool = True
    auto_create_topics: bool = True
    exclude_internal_topics: bool = True

    @classmethod
    def from_config(cls, config: ClientConfig) -> ConsumerSettings:
        """Read them of a consumer's configuration. Raises ConfigError, also for what Kafka refuses together."""
        _check_together(config)
        return cls(
            group_id=config.string_or_none("group.id"),
            reset=parse_reset(config.string("auto.offset.reset")),
            read_committed=config.string("isolation.level") == "read_committed",
            check_crcs=config.boolean("check.crcs"),
            client_rack=config.string("client.rack"),
            fetch_bytes_max=config.integer("fetch.max.bytes"),
            partition_bytes_max=config.integer("max.partition.fetch.bytes"),
            fetch_bytes_min=config.integer("fetch.min.bytes"),
            fetch_wait_ms_max=config.integer("fetch.max.wait.ms"),
            memory_bytes_max=config.integer("buffer.memory"),
            request_timeout_ms=config.integer("request.timeout.ms"),
            api_timeout_ms=config.integer("default.api.timeout.ms"),
            retry_backoff_ms=config.integer("retry.backoff.ms"),
            metadata_age_ms_max=config.integer("metadata.max.age.ms"),
            poll_records_max=config.integer("max.poll.records"),
            auto_commit=config.boolean("enable.auto.commit") and config.string_or_none("group.id") is not None,
            auto_create_topics=config.boolean("allow.auto.create.topics"),
            exclude_internal_topics=config.boolean("exclude.internal.topics"),
        )


# What the broker decides where it is the one that assigns (KIP-848), and the reverse.
_CLASSIC_ONLY: Final = ("partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms")
_CONSUMER_ONLY: Final = ("group.remote.assignor",)


def _check_together(config: ClientConfig) -> None:
    is_consumer = config.string("group.protocol").lower() == "consumer"
    protocol = "consumer" if is_consumer else "classic"
    for name in _CLASSIC_ONLY if is_consumer else _CONSUMER_ONLY:
        if name in config.given:
            raise ConfigError(f"{name} cannot be set with group.protocol={protocol}", name=name)
    group_id = config.string_or_none("group.id")
    session_ms, heartbeat_ms = config.integer("session.timeout.ms"), config.integer("heartbeat.interval.ms")
    if group_id is not None and not is_consumer and heartbeat_ms >= session_ms:
        raise ConfigError(
            f"heartbeat.interval.ms: {heartbeat_ms} is not below session.timeout.ms, {session_ms}",
            name="heartbeat.interval.ms",
        )
    if group_id is not None and not group_id.strip():
        raise ConfigError("group.id: it is empty; leave it away to read without a group", name="group.id")
    if group_id is None and "enable.auto.commit" in config.given and config.boolean("enable.auto.commit"):
        raise ConfigError("enable.auto.commit: it is true without a group.id to commit for", name="enable.auto.commit")
