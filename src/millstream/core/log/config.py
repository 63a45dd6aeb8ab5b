"""What one log does with its bytes: the topic-level configs that matter below the broker, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from millstream.core.records import AppendRules, Compression

DELETE: Final = "delete"
COMPACT: Final = "compact"
UNLIMITED: Final = 2**63 - 1

_CODECS: Final = {
    "uncompressed": "NONE",
    "none": "NONE",
    "gzip": "GZIP",
    "snappy": "SNAPPY",
    "lz4": "LZ4",
    "zstd": "ZSTD",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """The effective configs of a topic, by Kafka's names with underscores; the defaults are Kafka 4.3's."""

    segment_bytes: int = 1 << 30
    segment_ms: int = 7 * 24 * 3600 * 1000
    segment_jitter_ms: int = 0
    segment_index_bytes: int = 10 << 20
    index_interval_bytes: int = 4096
    retention_ms: int = 7 * 24 * 3600 * 1000
    retention_bytes: int = -1
    flush_messages: int = UNLIMITED
    flush_ms: int = UNLIMITED
    file_delete_delay_ms: int = 60_000
    max_message_bytes: int = 1_048_588
    cleanup_policy: frozenset[str] = field(default_factory=lambda: frozenset({DELETE}))
    delete_retention_ms: int = 24 * 3600 * 1000
    min_cleanable_dirty_ratio: float = 0.5
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = UNLIMITED
    preallocate: bool = False
    compression_type: str = "producer"
    compression_level: int | None = None
    message_timestamp_type: str = "CreateTime"
    message_timestamp_before_max_ms: int = UNLIMITED
    message_timestamp_after_max_ms: int = 3_600_000
    min_insync_replicas: int = 1
    unclean_leader_election_enable: bool = False
    validate_compressed: bool = False

    @property
    def compacted(self) -> bool:
        return COMPACT in self.cleanup_policy

    @property
    def roll_ms(self) -> int:
        """How old a segment may become before it is rolled: the cleaner takes no active one."""
        return min(self.segment_ms, self.max_compaction_lag_ms) if self.compacted else self.segment_ms

    @property
    def log_append_time(self) -> bool:
        return self.message_timestamp_type == "LogAppendTime"

    @classmethod
    def from_topic(cls, effective: Mapping[str, Any]) -> LogConfig:
        """Build it from effective topic configs (Kafka's dotted names to text or typed values); others are ignored."""
        values: dict[str, Any] = {}
        for each in fields(cls):
            name = (
                "millstream.validate.compressed" if each.name == "validate_compressed" else each.name.replace("_", ".")
            )
            if effective.get(name) is not None:
                values[each.name] = _typed(each.name, effective[name])
        codec = values.get("compression_type")
        if codec in {"gzip", "lz4", "zstd"} and effective.get(f"compression.{codec}.level") is not None:
            values["compression_level"] = int(effective[f"compression.{codec}.level"])
        return cls(**values)

    def rules(self) -> AppendRules:
        """Return what a batch must satisfy to be appended to this log."""
        return AppendRules(
            max_message_bytes=self.max_message_bytes,
            compacted=self.compacted,
            compression=None if self.compression_type == "producer" else Compression[_CODECS[self.compression_type]],
            compression_level=self.compression_level,
            log_append_time=self.log_append_time,
            timestamp_before_max_ms=self.message_timestamp_before_max_ms,
            timestamp_after_max_ms=self.message_timestamp_after_max_ms,
            validate_compressed=self.validate_compressed,
        )


_TEXTS: Final = frozenset({"compression_type", "message_timestamp_type"})
_RATIOS: Final = frozenset({"min_cleanable_dirty_ratio"})
_FLAGS: Final = frozenset({"preallocate", "unclean_leader_election_enable", "validate_compressed"})


def _typed(name: str, value: Any) -> Any:
    if name == "cleanup_policy":
        parts = value.split(",") if isinstance(value, str) else value
        return frozenset(part.strip() for part in parts if part.strip())
    if name in _FLAGS:
        return value if isinstance(value, bool) else str(value).strip().lower() == "true"
    if name in _RATIOS:
        return float(value)
    return str(value) if name in _TEXTS else int(value)
