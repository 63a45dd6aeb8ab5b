"""The configs of topics: those of Apache Kafka 4.3, and `millstream.*`.

`synonyms` are the broker configs that give a topic its default. Tiered storage does not exist here: its configs are
accepted at the values that leave it off, so that a topic's definition made for Kafka can be used as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from millstream.core.config.definition import (
    LONG_MAX,
    ConfigDef,
    ConfigError,
    ConfigKey,
    ConfigType,
    ConfigValue,
    Importance,
    Synonym,
    Validator,
    at_least,
    between,
    between_or,
    list_of,
    one_of,
    only,
)

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
WEEK_MS: Final = 7 * DAY_MS
MIB: Final = 1024 * 1024
MESSAGE_SIZE_BYTES_MAX: Final = MIB + 12  # Kafka's default: a megabyte and the 12 bytes before a batch's length ends
SEGMENT_SIZE_BYTES_MIN: Final = MIB

COMPRESSION_TYPES: Final = ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
TIMESTAMP_TYPES: Final = ("CreateTime", "LogAppendTime")
CLEANUP_POLICIES: Final = ("compact", "delete")
GZIP_LEVELS: Final = between_or(1, 9, -1)
LZ4_LEVELS: Final = between(1, 17)
ZSTD_LEVELS: Final = between(-131072, 22)

_REPLICA: Final = re.compile(r"[0-9]+:[0-9]+\Z")

# Said in the documentation of what is accepted and obeyed by nothing yet, so that no operator relies on it.
_TIERED_STORAGE: Final = "Tiered storage does not exist here, so this has no effect"
_NO_FOLLOWERS: Final = "There are no followers yet, so this has no effect."
_NOT_PREALLOCATED: Final = "Segments grow as they are written here, so this has no effect."


def _throttled_replicas(name: str) -> Validator:
    form = "[partitionId]:[brokerId],[partitionId]:[brokerId],..."

    def check(value: ConfigValue) -> tuple[object, str] | None:
        assert isinstance(value, list), value
        if value == ["*"] or all(not entry or _REPLICA.match(entry) for entry in value):
            return None
        return value, f"{name} must be the literal '*' or a list of replicas in the following format: {form}"

    return Validator(form, check)


def _key(
    name: str,
    kind: ConfigType,
    default: ConfigValue,
    validator: Validator | None,
    synonyms: tuple[Synonym, ...],
    doc: str,
) -> ConfigKey:
    return ConfigKey(
        name=name,
        type=kind,
        default=default,
        validator=validator,
        synonyms=synonyms,
        doc=doc,
        importance=Importance.MEDIUM,
    )


def _like(*names: str) -> tuple[Synonym, ...]:
    return tuple(Synonym(name) for name in names)


TOPIC_CONFIGS: Final = ConfigDef(
    [
        _key(
            "cleanup.policy",
            ConfigType.LIST,
            ["delete"],
            list_of(*CLEANUP_POLICIES),
            _like("log.cleanup.policy"),
            "What happens to old data: `delete` drops segments past retention.ms or retention.bytes, `compact` keeps "
            "the newest value of each key. Both may be given.",
        ),
        _key(
            "compression.gzip.level",
            ConfigType.INT,
            -1,
            GZIP_LEVELS,
            _like("compression.gzip.level"),
            "The gzip level, 1 to 9, or -1 for the library's default, where compression.type is gzip.",
        ),
        _key(
            "compression.lz4.level",
            ConfigType.INT,
            9,
            LZ4_LEVELS,
            _like("compression.lz4.level"),
            "The lz4 level, 1 to 17, where compression.type is lz4.",
        ),
        _key(
            "compression.type",
            ConfigType.STRING,
            "producer",
            one_of(*COMPRESSION_TYPES),
            _like("compression.type"),
            "How batches are stored: `producer` keeps what the producer sent, `uncompressed` opens them all, a codec "
            "compresses again what was sent with another one. Anything but `producer` costs the broker CPU.",
        ),
        _key(
            "compression.zstd.level",
            ConfigType.INT,
            3,
            ZSTD_LEVELS,
            _like("compression.zstd.level"),
            "The zstd level, -131072 to 22, where compression.type is zstd.",
        ),
        _key(
            "delete.retention.ms",
            ConfigType.LONG,
            DAY_MS,
            at_least(0),
            _like("log.cleaner.delete.retention.ms"),
            "How long a compacted topic keeps a deletion marker, so that a reader that starts at the beginning and "
            "finishes within this time sees every deletion.",
        ),
        _key(
            "file.delete.delay.ms",
            ConfigType.LONG,
            MINUTE_MS,
            at_least(0),
            _like("log.segment.delete.delay.ms"),
            "How long the files of a deleted segment stay on disk, for readers that still hold them.",
        ),
        _key(
            "flush.messages",
            ConfigType.LONG,
            LONG_MAX,
            at_least(1),
            _like("log.flush.interval.messages"),
            "Sync the log after this many records. At 1 a producer is answered only when its records are on the disk; "
            "syncs are shared by all that wait.",
        ),
        _key(
            "flush.ms",
            ConfigType.LONG,
            LONG_MAX,
            at_least(0),
            _like("log.flush.interval.ms", "log.flush.scheduler.interval.ms"),
            "Sync the log when its oldest record that is not synced is this old.",
        ),
        _key(
            "follower.replication.throttled.replicas",
            ConfigType.LIST,
            [],
            _throttled_replicas("follower.replication.throttled.replicas"),
            (),
            "Replicas (partition:broker, or * for all) whose fetching as followers is held to the throttle rate."
            f" {_NO_FOLLOWERS}",
        ),
        _key(
            "index.interval.bytes",
            ConfigType.INT,
            4096,
            at_least(0),
            _like("log.index.interval.bytes"),
            "Add an entry to the offset index each time this many bytes were written. Fewer bytes make the index "
            "larger and the scan after a lookup shorter.",
        ),
        _key(
            "leader.replication.throttled.replicas",
            ConfigType.LIST,
            [],
            _throttled_replicas("leader.replication.throttled.replicas"),
            (),
            "Replicas (partition:broker, or * for all) that are served to followers at the throttle rate."
            f" {_NO_FOLLOWERS}",
        ),
        _key(
            "local.retention.bytes",
            ConfigType.LONG,
            -2,
            at_least(-2),
            _like("log.local.retention.bytes"),
            f"The bytes of a partition kept on local disk next to a remote copy. {_TIERED_STORAGE}.",
        ),
        _key(
            "local.retention.ms",
            ConfigType.LONG,
            -2,
            at_least(-2),
            _like("log.local.retention.ms"),
            f"How long segments are kept on local disk next to a remote copy. {_TIERED_STORAGE}.",
        ),
        _key(
            "max.compaction.lag.ms",
            ConfigType.LONG,
            LONG_MAX,
            at_least(1),
            _like("log.cleaner.max.compaction.lag.ms"),
            "The longest a record of a compacted topic may wait before it is looked at by the cleaner.",
        ),
        _key(
            "max.message.bytes",
            ConfigType.INT,
            MESSAGE_SIZE_BYTES_MAX,
            at_least(0),
            _like("message.max.bytes"),
            "The largest batch that is taken, as it arrives, so after compression.",
        ),
        _key(
            "message.timestamp.after.max.ms",
            ConfigType.LONG,
            HOUR_MS,
            at_least(0),
            _like("log.message.timestamp.after.max.ms"),
            "How far a record's timestamp may lie ahead of the broker's clock. Not looked at with LogAppendTime.",
        ),
        _key(
            "message.timestamp.before.max.ms",
            ConfigType.LONG,
            LONG_MAX,
            at_least(0),
            _like("log.message.timestamp.before.max.ms"),
            "How far a record's timestamp may lie behind the broker's clock. Not looked at with LogAppendTime.",
        ),
        _key(
            "message.timestamp.type",
            ConfigType.STRING,
            "CreateTime",
            one_of(*TIMESTAMP_TYPES),
            _like("log.message.timestamp.type"),
            "Whether a record keeps the timestamp its producer gave (CreateTime) or gets the broker's clock "
            "(LogAppendTime).",
        ),
        _key(
            "millstream.validate.compressed",
            ConfigType.BOOLEAN,
            False,
            None,
            _like("millstream.validate.compressed"),
            "Open every compressed batch and check each record before it is appended. Without it a compressed batch is "
            "opened only where the topic needs that, and a batch whose inside is broken reaches its readers.",
        ),
        _key(
            "min.cleanable.dirty.ratio",
            ConfigType.DOUBLE,
            0.5,
            between(0, 1),
            _like("log.cleaner.min.cleanable.ratio"),
            "The share of a compacted log that must be uncleaned before the cleaner takes it up.",
        ),
        _key(
            "min.compaction.lag.ms",
            ConfigType.LONG,
            0,
            at_least(0),
            _like("log.cleaner.min.compaction.lag.ms"),
            "The shortest time a record of a compacted topic stays before a newer one may replace it.",
        ),
        _key(
            "min.insync.replicas",
            ConfigType.INT,
            1,
            at_least(1),
            _like("min.insync.replicas"),
            "With acks=all, how many replicas must be in sync for a record to be taken.",
        ),
        _key(
            "preallocate",
            ConfigType.BOOLEAN,
            False,
            None,
            _like("log.preallocate"),
            f"Reserve a segment's whole size on disk when it is made. {_NOT_PREALLOCATED}",
        ),
        _key(
            "remote.log.copy.disable",
            ConfigType.BOOLEAN,
            False,
            None,
            (),
            f"Whether segments stop being copied to remote storage. {_TIERED_STORAGE}.",
        ),
        _key(
            "remote.log.delete.on.disable",
            ConfigType.BOOLEAN,
            False,
            None,
            (),
            f"Whether remote data goes when remote storage is switched off. {_TIERED_STORAGE}.",
        ),
        _key(
            "remote.storage.enable",
            ConfigType.BOOLEAN,
            False,
            only(
                False,
                "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log "
                "storage.",
            ),
            (),
            "Whether old segments move to remote storage. Tiered storage does not exist here; only false is accepted.",
        ),
        _key(
            "retention.bytes",
            ConfigType.LONG,
            -1,
            None,
            _like("log.retention.bytes"),
            "The size of a partition past which its oldest segments are deleted; -1 for no limit.",
        ),
        _key(
            "retention.ms",
            ConfigType.LONG,
            WEEK_MS,
            at_least(-1),
            (
                Synonym("log.retention.ms"),
                Synonym("log.retention.minutes", MINUTE_MS),
                Synonym("log.retention.hours", HOUR_MS),
            ),
            "How old the newest record of a segment may become before the segment is deleted; -1 for no limit.",
        ),
        _key(
            "segment.bytes",
            ConfigType.INT,
            1024 * MIB,
            at_least(SEGMENT_SIZE_BYTES_MIN),
            _like("log.segment.bytes"),
            "The size at which a segment file is closed and the next begins. Retention takes whole segments.",
        ),
        _key(
            "segment.index.bytes",
            ConfigType.INT,
            10 * MIB,
            at_least(4),
            _like("log.index.size.max.bytes"),
            "The largest size of a segment's index; a full index closes the segment.",
        ),
        _key(
            "segment.jitter.ms",
            ConfigType.LONG,
            0,
            at_least(0),
            (Synonym("log.roll.jitter.ms"), Synonym("log.roll.jitter.hours", HOUR_MS)),
            "The most that is taken off segment.ms, at random, so that segments do not all close at once.",
        ),
        _key(
            "segment.ms",
            ConfigType.LONG,
            WEEK_MS,
            at_least(1),
            (Synonym("log.roll.ms"), Synonym("log.roll.hours", HOUR_MS)),
            "The age at which a segment is closed although it is not full, so that retention can reach it.",
        ),
        _key(
            "unclean.leader.election.enable",
            ConfigType.BOOLEAN,
            False,
            None,
            _like("unclean.leader.election.enable"),
            "Whether a replica that is not in sync may become leader when no other is left, which loses records."
            f" {_NO_FOLLOWERS}",
        ),
    ]
)


# Of several wrong settings the one that comes first here is named, as by Kafka; what Kafka does not have comes last.
_CHECK_ORDER: Final = """
    segment.bytes segment.ms segment.jitter.ms segment.index.bytes flush.messages flush.ms retention.bytes retention.ms
    max.message.bytes index.interval.bytes delete.retention.ms min.compaction.lag.ms max.compaction.lag.ms
    file.delete.delay.ms min.cleanable.dirty.ratio cleanup.policy unclean.leader.election.enable min.insync.replicas
    compression.type compression.gzip.level compression.lz4.level compression.zstd.level preallocate
    message.timestamp.type message.timestamp.before.max.ms message.timestamp.after.max.ms
    leader.replication.throttled.replicas follower.replication.throttled.replicas local.retention.ms
    local.retention.bytes remote.log.copy.disable remote.log.delete.on.disable remote.storage.enable
    millstream.validate.compressed
"""
_CHECKED_IN_ORDER: Final = tuple(_CHECK_ORDER.split())
assert sorted(_CHECKED_IN_ORDER) == list(TOPIC_CONFIGS), "a topic config is not checked"


def validate_topic_configs(configs: Mapping[str, str]) -> None:
    """Raise ConfigError unless a topic can have all of these settings together."""
    if not configs:
        return
    for name in configs:
        if name not in TOPIC_CONFIGS:
            raise ConfigError(f"Unknown topic config name: {name}", name=name)
    values = {name: TOPIC_CONFIGS.parse(name, configs[name]) for name in _CHECKED_IN_ORDER if name in configs}
    least = values.get("min.compaction.lag.ms", TOPIC_CONFIGS["min.compaction.lag.ms"].default)
    most = values.get("max.compaction.lag.ms", TOPIC_CONFIGS["max.compaction.lag.ms"].default)
    assert isinstance(least, int)
    assert isinstance(most, int)
    if least > most:
        raise ConfigError(
            f"conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})",
            name="min.compaction.lag.ms",
        )
