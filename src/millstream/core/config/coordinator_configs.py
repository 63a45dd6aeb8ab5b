"""The broker configs of the group coordinator: Kafka's names, types and defaults.

`core/groups/configs.py` says what most of them mean for groups; `broker/coordinators.py` reads those of the topic.
"""

from __future__ import annotations

from typing import Final

from millstream.core.config.definition import (
    ConfigKey,
    ConfigType,
    ConfigValue,
    Importance,
    UpdateMode,
    Validator,
    accepted_by,
    at_least,
    between,
    list_of,
)

MIGRATION_POLICIES: Final = ("DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL")
GROUP_SIZE_MAX: Final = 2**31 - 1

_INT, _LONG, _SHORT, _STRING, _LIST = (
    ConfigType.INT,
    ConfigType.LONG,
    ConfigType.SHORT,
    ConfigType.STRING,
    ConfigType.LIST,
)


def _offsets(
    name: str, default: ConfigValue, doc: str, *, kind: ConfigType = _INT, validator: Validator | None = None
) -> ConfigKey:
    return _key(name, kind, default, doc, validator, Importance.HIGH)


def _group(
    name: str,
    default: ConfigValue,
    doc: str,
    *,
    kind: ConfigType = _INT,
    validator: Validator | None = None,
    dynamic: UpdateMode = UpdateMode.READ_ONLY,
) -> ConfigKey:
    return _key(name, kind, default, doc, validator, Importance.MEDIUM, dynamic)


def _key(
    name: str,
    kind: ConfigType,
    default: ConfigValue,
    doc: str,
    validator: Validator | None,
    importance: Importance,
    dynamic: UpdateMode = UpdateMode.READ_ONLY,
) -> ConfigKey:
    return ConfigKey(
        name=name,
        type=kind,
        default=default,
        doc=doc,
        validator=validator,
        dynamic=dynamic,
        importance=importance,
        synonyms=(),
    )


def _migration_policy(text: str) -> object:
    if text.upper() not in MIGRATION_POLICIES:
        raise ValueError(f"String must be one of (case insensitive): {', '.join(MIGRATION_POLICIES)}")
    return text


COORDINATOR_CONFIGS: Final = [
    _offsets(
        "offset.metadata.max.bytes",
        4096,
        "The longest text that a client may store with a committed offset, in UTF-16 units.",
    ),
    _offsets(
        "offsets.commit.timeout.ms",
        5_000,
        "Whoever waits for so long for a write to __consumer_offsets to be committed is told to look for the "
        "coordinator again.",
        validator=at_least(1),
    ),
    _offsets(
        "offsets.load.buffer.size",
        5 * 1024 * 1024,
        "How much of a partition of __consumer_offsets is read at once when its groups are loaded; a larger batch is "
        "read whole.",
        validator=at_least(1),
    ),
    _offsets(
        "offsets.retention.check.interval.ms",
        600_000,
        "How often committed offsets that have expired are looked for.",
        kind=_LONG,
        validator=at_least(1),
    ),
    _offsets(
        "offsets.retention.minutes",
        10_080,
        "How long committed offsets are kept once their group has no members, or, for a consumer that was assigned its "
        "partitions by hand, since its last commit.",
        validator=at_least(1),
    ),
    _offsets(
        "offsets.topic.compression.codec",
        0,
        "How batches of __consumer_offsets are compressed: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.",
        validator=between(0, 4),
    ),
    _offsets(
        "offsets.topic.num.partitions",
        50,
        "The partitions that __consumer_offsets is created with. Their number must not change: groups are found by it.",
        validator=at_least(1),
    ),
    _offsets(
        "offsets.topic.replication.factor",
        3,
        "The replicas that __consumer_offsets is created with; of fewer brokers each has one.",
        kind=_SHORT,
        validator=at_least(1),
    ),
    _offsets(
        "offsets.topic.segment.bytes",
        100 * 1024 * 1024,
        "The segment.bytes that __consumer_offsets is created with: small segments are compacted, and loaded, sooner.",
        validator=at_least(1),
    ),
    _group(
        "group.consumer.assignors",
        ["uniform", "range"],
        "The assignors of the consumer protocol that members may choose from; the first is the default.",
        kind=_LIST,
        validator=list_of("uniform", "range"),
    ),
    _group(
        "group.consumer.assignment.interval.ms",
        1_000,
        "The shortest time between two assignments of a group of the consumer protocol: members that join meanwhile "
        "are assigned together.",
        validator=at_least(0),
        dynamic=UpdateMode.CLUSTER_WIDE,
    ),
    *(
        _group(
            f"group.consumer.{bound}.{what}",
            default,
            f"The {word} that consumer.{what} of a group may be set to.",
            validator=at_least(0 if what == "assignment.interval.ms" else 1),
        )
        for bound, word, what, default in (
            ("min", "least", "assignment.interval.ms", 0),
            ("max", "most", "assignment.interval.ms", 15_000),
            ("min", "least", "heartbeat.interval.ms", 5_000),
            ("max", "most", "heartbeat.interval.ms", 15_000),
            ("min", "least", "session.timeout.ms", 45_000),
            ("max", "most", "session.timeout.ms", 60_000),
        )
    ),
    _group(
        "group.consumer.heartbeat.interval.ms",
        5_000,
        "How often members of the consumer protocol are told to send heartbeats.",
        validator=at_least(1),
    ),
    _group(
        "group.consumer.max.size",
        GROUP_SIZE_MAX,
        "How many members a group of the consumer protocol may have.",
        validator=at_least(1),
    ),
    _group(
        "group.consumer.migration.policy",
        "bidirectional",
        "Whether groups may move between the classic and the consumer protocol while they have members: disabled, "
        "upgrade, downgrade or bidirectional.",
        kind=_STRING,
        validator=accepted_by(_migration_policy, f"(case insensitive) [{', '.join(MIGRATION_POLICIES)}]"),
    ),
    _group(
        "group.consumer.regex.refresh.interval.ms",
        600_000,
        "How often the topics that match a member's regular expression are looked up again.",
        validator=at_least(10_000),
    ),
    _group(
        "group.consumer.session.timeout.ms",
        45_000,
        "A member of the consumer protocol that sends no heartbeat for this long is removed from its group.",
        validator=at_least(1),
    ),
    _group(
        "group.coordinator.rebalance.protocols",
        ["classic", "consumer", "streams"],
        "The protocols that groups may use; streams and share are accepted, and not served here.",
        kind=_LIST,
        validator=list_of("consumer", "classic", "share", "streams"),
    ),
    _group(
        "group.initial.rebalance.delay.ms",
        3_000,
        "How long a group of the classic protocol waits for more members before its first rebalance.",
    ),
    _group(
        "group.max.session.timeout.ms",
        1_800_000,
        "The longest session timeout that members of the classic protocol may ask for.",
    ),
    _group(
        "group.min.session.timeout.ms",
        6_000,
        "The shortest session timeout that members of the classic protocol may ask for.",
    ),
    _group(
        "group.max.size",
        GROUP_SIZE_MAX,
        "How many members a group of the classic protocol may have.",
        validator=at_least(1),
    ),
]
