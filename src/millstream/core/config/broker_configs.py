"""The configs of a broker: those of Apache Kafka 4.3 that are acted on, `millstream.*`, and the names merely accepted.

A default differs from Kafka's where this broker differs: it listens on the loopback address until told otherwise, its
request memory is bounded, its data lies in the working directory.
"""

from __future__ import annotations

from typing import Final

from millstream.core.config.cleaner_configs import CLEANER_CONFIGS
from millstream.core.config.coordinator_configs import COORDINATOR_CONFIGS
from millstream.core.config.definition import (
    INT_MAX,
    LONG_MAX,
    ConfigDef,
    ConfigKey,
    ConfigType,
    ConfigValue,
    Importance,
    Synonym,
    UpdateMode,
    Validator,
    accepted_by,
    at_least,
    between,
    list_of,
    one_of,
    unlimited_or_at_least,
)
from millstream.core.config.listeners import parse_address_limits, parse_host_port
from millstream.core.config.replica_configs import REPLICA_CONFIGS
from millstream.core.config.topic_configs import (
    CLEANUP_POLICIES,
    COMPRESSION_TYPES,
    DAY_MS,
    GZIP_LEVELS,
    HOUR_MS,
    LZ4_LEVELS,
    MESSAGE_SIZE_BYTES_MAX,
    MIB,
    MINUTE_MS,
    SEGMENT_SIZE_BYTES_MIN,
    TIMESTAMP_TYPES,
    TOPIC_CONFIGS,
    ZSTD_LEVELS,
)

QUEUED_REQUEST_SIZE_BYTES_MAX: Final = 64 * MIB
REQUEST_SIZE_BYTES_MAX: Final = 100 * MIB

_BOOLEAN, _STRING, _INT, _LONG, _DOUBLE, _LIST, _SHORT = (
    ConfigType.BOOLEAN,
    ConfigType.STRING,
    ConfigType.INT,
    ConfigType.LONG,
    ConfigType.DOUBLE,
    ConfigType.LIST,
    ConfigType.SHORT,
)
_DYNAMIC: Final = UpdateMode.CLUSTER_WIDE


def _key(
    name: str,
    kind: ConfigType,
    default: ConfigValue,
    doc: str,
    *,
    validator: Validator | None = None,
    dynamic: UpdateMode = UpdateMode.READ_ONLY,
    importance: Importance = Importance.MEDIUM,
    synonyms: tuple[Synonym, ...] = (),
) -> ConfigKey:
    return ConfigKey(
        name=name,
        type=kind,
        default=default,
        doc=doc,
        validator=validator,
        dynamic=dynamic,
        importance=importance,
        synonyms=synonyms,
    )


def _topic_default(
    name: str,
    kind: ConfigType,
    default: ConfigValue,
    topic_config: str,
    *,
    validator: Validator | None = None,
    dynamic: UpdateMode = _DYNAMIC,
    importance: Importance = Importance.MEDIUM,
    unit: str = "",
    synonyms: tuple[Synonym, ...] = (),
) -> ConfigKey:
    doc = f"The {topic_config} of topics that do not set their own{unit}. {TOPIC_CONFIGS[topic_config].doc}"
    return _key(
        name, kind, default, doc, validator=validator, dynamic=dynamic, importance=importance, synonyms=synonyms
    )


_RETENTION: Final = (
    Synonym("log.retention.ms"),
    Synonym("log.retention.minutes", MINUTE_MS),
    Synonym("log.retention.hours", HOUR_MS),
)
_ROLL: Final = (Synonym("log.roll.ms"), Synonym("log.roll.hours", HOUR_MS))
_ROLL_JITTER: Final = (Synonym("log.roll.jitter.ms"), Synonym("log.roll.jitter.hours", HOUR_MS))
_FLUSH_INTERVAL: Final = (Synonym("log.flush.interval.ms"), Synonym("log.flush.scheduler.interval.ms"))

_IDENTITY_AND_LISTENERS: Final = [
    _key(
        "node.id",
        _INT,
        1,
        "The number of this broker in its cluster. It is written into every log directory and must not change.",
        validator=at_least(0),
        importance=Importance.HIGH,
        synonyms=(Synonym("node.id"), Synonym("broker.id")),
    ),
    _key("broker.id", _INT, None, "The older name of node.id.", importance=Importance.HIGH),
    _key("broker.rack", _STRING, None, "Where this broker stands; clients read from replicas of their own rack."),
    _key(
        "listeners",
        _LIST,
        ["PLAINTEXT://127.0.0.1:9092"],
        "The addresses to serve on, as NAME://HOST:PORT; an empty host is every address, port 0 picks a free one. "
        "Nothing authenticates clients yet, so an address that others can reach is open to all of them.",
        importance=Importance.HIGH,
    ),
    _key(
        "advertised.listeners",
        _LIST,
        None,
        "The addresses that clients are told for each listener's name, where they differ from those served on: behind "
        "a translated address, or where the host is empty.",
        importance=Importance.HIGH,
    ),
    _key(
        "listener.security.protocol.map",
        _LIST,
        ["PLAINTEXT:PLAINTEXT", "SSL:SSL", "SASL_PLAINTEXT:SASL_PLAINTEXT", "SASL_SSL:SASL_SSL"],
        "Which security protocol each listener's name stands for. PLAINTEXT alone is served yet.",
        importance=Importance.LOW,
    ),
    _key(
        "controller.listener.names",
        _LIST,
        [],
        "Listeners of Kafka's own controllers, which do not exist here: they are left out of `listeners`.",
        importance=Importance.LOW,
    ),
]

_NETWORK: Final = [
    _key(
        "socket.listen.backlog.size",
        _INT,
        50,
        "How many connections the system may hold that this broker has not accepted yet.",
        validator=at_least(1),
    ),
    _key(
        "socket.receive.buffer.bytes",
        _INT,
        100 * 1024,
        "The receive buffer (SO_RCVBUF) of a connection; -1 leaves it to the system.",
        importance=Importance.HIGH,
    ),
    _key(
        "socket.send.buffer.bytes",
        _INT,
        100 * 1024,
        "The send buffer (SO_SNDBUF) of a connection; -1 leaves it to the system.",
        importance=Importance.HIGH,
    ),
    _key(
        "socket.request.max.bytes",
        _INT,
        REQUEST_SIZE_BYTES_MAX,
        "The largest request; a connection that announces a larger one is closed.",
        validator=at_least(1),
        importance=Importance.HIGH,
    ),
    _key(
        "queued.max.request.bytes",
        _LONG,
        QUEUED_REQUEST_SIZE_BYTES_MAX,
        "The memory that requests being received or waiting may hold together; never less than one largest request. "
        "-1 is the default, not endless.",
    ),
    _key(
        "queued.max.requests",
        _INT,
        500,
        "How many requests of one connection may wait to be worked on before it is read no further.",
        validator=at_least(1),
        importance=Importance.HIGH,
    ),
    _key(
        "max.connections",
        _INT,
        INT_MAX,
        "How many connections this broker holds at most; the next ones are closed.",
        validator=at_least(0),
        dynamic=_DYNAMIC,
    ),
    _key(
        "max.connections.per.ip",
        _INT,
        INT_MAX,
        "How many connections one address may hold; the next ones are closed.",
        validator=at_least(0),
        dynamic=_DYNAMIC,
    ),
    _key(
        "max.connections.per.ip.overrides",
        _STRING,
        "",
        "Other limits for single addresses, as address:count,address:count. Names are not looked up.",
        validator=accepted_by(parse_address_limits, "ADDRESS:COUNT,..."),
        dynamic=_DYNAMIC,
    ),
    _key(
        "connections.max.idle.ms",
        _LONG,
        10 * MINUTE_MS,
        "Close a connection that has sent nothing for this long; -1 never does.",
    ),
    _key(
        "fetch.max.bytes",
        _INT,
        55 * MIB,
        "The most bytes a fetch is answered with, whatever it asks for; the first batch is sent though it is larger.",
        validator=at_least(1024),
    ),
    _key(
        "max.request.partition.size.limit",
        _INT,
        2000,
        "How many partitions one answer to DescribeTopicPartitions has at most; a client asks for the next ones.",
        validator=at_least(1),
    ),
    _key(
        "max.incremental.fetch.session.cache.slots",
        _INT,
        1000,
        "How many incremental fetch sessions (KIP-227) are kept; without one a consumer names all its partitions.",
        validator=at_least(0),
    ),
]

_TOPICS: Final = [
    _key(
        "num.partitions", _INT, 1, "The partitions of a topic that is created without a number.", validator=at_least(1)
    ),
    _key(
        "default.replication.factor",
        _INT,
        1,
        "The replication factor of a topic that is created without one.",
        validator=at_least(1),
    ),
    _key(
        "auto.create.topics.enable",
        _BOOLEAN,
        True,
        "Create a topic when a client asks for the metadata of one that does not exist and allows that.",
        importance=Importance.HIGH,
    ),
    _key(
        "delete.topic.enable",
        _BOOLEAN,
        True,
        "Whether topics can be deleted.",
        importance=Importance.HIGH,
    ),
]

_LOG_DIRECTORIES: Final = [
    _key(
        "log.dirs",
        _LIST,
        None,
        "The directories that hold the partitions, on different disks for instance; when one fails the others "
        "serve on.",
        importance=Importance.HIGH,
        synonyms=(Synonym("log.dirs"), Synonym("log.dir")),
    ),
    _key(
        "log.dir",
        _LIST,
        ["millstream-data"],
        "The log directory where log.dirs is not set.",
        importance=Importance.HIGH,
    ),
    _key(
        "metadata.log.dir",
        _STRING,
        None,
        "Where the metadata is kept; the first log directory if it is not set.",
        importance=Importance.HIGH,
    ),
    _key(
        "num.recovery.threads.per.data.dir",
        _INT,
        2,
        "How many logs of one directory are recovered at the same time after a crash.",
        validator=at_least(1),
        dynamic=_DYNAMIC,
        importance=Importance.HIGH,
    ),
    _key(
        "log.retention.check.interval.ms",
        _LONG,
        5 * MINUTE_MS,
        "How often it is looked for segments that retention deletes.",
        validator=at_least(1),
    ),
    _key(
        "log.flush.offset.checkpoint.interval.ms",
        _INT,
        MINUTE_MS,
        "How often the recovery points are written, behind which a crash makes no log be read.",
        validator=at_least(0),
        importance=Importance.HIGH,
    ),
    _key(
        "log.flush.start.offset.checkpoint.interval.ms",
        _INT,
        MINUTE_MS,
        "How often the log start offsets are written, which DeleteRecords and retention move.",
        validator=at_least(0),
        importance=Importance.HIGH,
    ),
    _key(
        "replica.high.watermark.checkpoint.interval.ms",
        _LONG,
        5000,
        "How often the high watermarks are written.",
        validator=at_least(1),
        importance=Importance.HIGH,
    ),
    _key(
        "producer.id.expiration.ms",
        _INT,
        DAY_MS,
        "How long a partition remembers an idempotent producer that has sent nothing.",
        validator=at_least(1),
        dynamic=_DYNAMIC,
        importance=Importance.LOW,
    ),
    _key(
        "producer.id.expiration.check.interval.ms",
        _INT,
        10 * MINUTE_MS,
        "How often it is looked for idempotent producers to forget.",
        validator=at_least(1),
        importance=Importance.LOW,
    ),
]

_TOPIC_DEFAULTS: Final = [
    _topic_default("log.cleanup.policy", _LIST, ["delete"], "cleanup.policy", validator=list_of(*CLEANUP_POLICIES)),
    _topic_default("compression.gzip.level", _INT, -1, "compression.gzip.level", validator=GZIP_LEVELS),
    _topic_default("compression.lz4.level", _INT, 9, "compression.lz4.level", validator=LZ4_LEVELS),
    _topic_default("compression.zstd.level", _INT, 3, "compression.zstd.level", validator=ZSTD_LEVELS),
    _topic_default(
        "compression.type",
        _STRING,
        "producer",
        "compression.type",
        validator=one_of(*COMPRESSION_TYPES),
        importance=Importance.HIGH,
    ),
    _topic_default("log.cleaner.delete.retention.ms", _LONG, DAY_MS, "delete.retention.ms", validator=at_least(0)),
    _topic_default(
        "log.segment.delete.delay.ms",
        _LONG,
        MINUTE_MS,
        "file.delete.delay.ms",
        validator=at_least(0),
        importance=Importance.HIGH,
    ),
    _topic_default(
        "log.flush.interval.messages",
        _LONG,
        LONG_MAX,
        "flush.messages",
        validator=at_least(1),
        importance=Importance.HIGH,
    ),
    _topic_default(
        "log.flush.interval.ms",
        _LONG,
        None,
        "flush.ms",
        validator=at_least(0),
        importance=Importance.HIGH,
        synonyms=_FLUSH_INTERVAL,
    ),
    _key(
        "log.flush.scheduler.interval.ms",
        _LONG,
        LONG_MAX,
        "The default of log.flush.interval.ms, as in Kafka; whatever it is, logs are looked at four times a second.",
        importance=Importance.HIGH,
    ),
    _topic_default("log.index.interval.bytes", _INT, 4096, "index.interval.bytes", validator=at_least(0)),
    _topic_default("log.local.retention.bytes", _LONG, -2, "local.retention.bytes", validator=at_least(-2)),
    _topic_default("log.local.retention.ms", _LONG, -2, "local.retention.ms", validator=at_least(-2)),
    _topic_default(
        "log.cleaner.max.compaction.lag.ms", _LONG, LONG_MAX, "max.compaction.lag.ms", validator=at_least(1)
    ),
    _topic_default(
        "message.max.bytes",
        _INT,
        MESSAGE_SIZE_BYTES_MAX,
        "max.message.bytes",
        validator=at_least(0),
        importance=Importance.HIGH,
    ),
    _topic_default(
        "log.message.timestamp.after.max.ms", _LONG, HOUR_MS, "message.timestamp.after.max.ms", validator=at_least(0)
    ),
    _topic_default(
        "log.message.timestamp.before.max.ms", _LONG, LONG_MAX, "message.timestamp.before.max.ms", validator=at_least(0)
    ),
    _topic_default(
        "log.message.timestamp.type",
        _STRING,
        "CreateTime",
        "message.timestamp.type",
        validator=one_of(*TIMESTAMP_TYPES),
    ),
    _topic_default("millstream.validate.compressed", _BOOLEAN, False, "millstream.validate.compressed"),
    _topic_default(
        "log.cleaner.min.cleanable.ratio", _DOUBLE, 0.5, "min.cleanable.dirty.ratio", validator=between(0, 1)
    ),
    _topic_default("log.cleaner.min.compaction.lag.ms", _LONG, 0, "min.compaction.lag.ms", validator=at_least(0)),
    _topic_default(
        "min.insync.replicas", _INT, 1, "min.insync.replicas", validator=at_least(1), importance=Importance.HIGH
    ),
    _topic_default("log.preallocate", _BOOLEAN, False, "preallocate"),
    _topic_default("log.retention.bytes", _LONG, -1, "retention.bytes", importance=Importance.HIGH),
    _topic_default(
        "log.retention.ms",
        _LONG,
        None,
        "retention.ms",
        validator=unlimited_or_at_least(1),
        importance=Importance.HIGH,
        synonyms=_RETENTION,
    ),
    _topic_default(
        "log.retention.minutes",
        _INT,
        None,
        "retention.ms",
        unit=", in minutes",
        validator=unlimited_or_at_least(1),
        dynamic=UpdateMode.READ_ONLY,
        importance=Importance.HIGH,
    ),
    _topic_default(
        "log.retention.hours",
        _INT,
        168,
        "retention.ms",
        unit=", in hours",
        validator=unlimited_or_at_least(1),
        dynamic=UpdateMode.READ_ONLY,
        importance=Importance.HIGH,
    ),
    _topic_default(
        "log.segment.bytes",
        _INT,
        1024 * MIB,
        "segment.bytes",
        validator=at_least(SEGMENT_SIZE_BYTES_MIN),
        importance=Importance.HIGH,
    ),
    _topic_default("log.index.size.max.bytes", _INT, 10 * MIB, "segment.index.bytes", validator=at_least(4)),
    _topic_default(
        "log.roll.jitter.ms",
        _LONG,
        None,
        "segment.jitter.ms",
        validator=at_least(0),
        importance=Importance.HIGH,
        synonyms=_ROLL_JITTER,
    ),
    _topic_default(
        "log.roll.jitter.hours",
        _INT,
        0,
        "segment.jitter.ms",
        unit=", in hours",
        validator=at_least(0),
        dynamic=UpdateMode.READ_ONLY,
        importance=Importance.HIGH,
    ),
    _topic_default(
        "log.roll.ms",
        _LONG,
        None,
        "segment.ms",
        validator=at_least(1),
        importance=Importance.HIGH,
        synonyms=_ROLL,
    ),
    _topic_default(
        "log.roll.hours",
        _INT,
        168,
        "segment.ms",
        unit=", in hours",
        validator=at_least(1),
        dynamic=UpdateMode.READ_ONLY,
        importance=Importance.HIGH,
    ),
    _topic_default(
        "unclean.leader.election.enable",
        _BOOLEAN,
        False,
        "unclean.leader.election.enable",
        importance=Importance.HIGH,
    ),
]

_OPERATION: Final = [
    _key(
        "millstream.http.listener",
        _STRING,
        "",
        "HOST:PORT for /metrics (Prometheus) and /healthz; empty serves neither.",
        validator=accepted_by(lambda text: text and parse_host_port(text), "HOST:PORT"),
    ),
    _key(
        "millstream.disk.free.min.bytes",
        _LONG,
        -1,
        "A log directory takes no more records while its file system has less than this free; -1 is the smaller of "
        "512 MB and 2 percent of the file system.",
        validator=at_least(-1),
        dynamic=_DYNAMIC,
    ),
    _key(
        "millstream.loop.lag.threshold.ms",
        _LONG,
        500,
        "When the event loop is kept from working this long, where it was kept is logged.",
        validator=at_least(1),
        dynamic=_DYNAMIC,
    ),
    _key("millstream.log.file", _STRING, "", "The file to log to; empty logs to standard error alone."),
    _key(
        "millstream.log.file.max.bytes",
        _LONG,
        64 * MIB,
        "The size at which the log file is put aside and a new one begins.",
        validator=at_least(1024),
    ),
    _key(
        "millstream.log.file.count",
        _INT,
        10,
        "How many log files are kept, the current one included.",
        validator=at_least(1),
    ),
    _key(
        "millstream.log.format",
        _STRING,
        "text",
        "How log lines are written: text for people, json for programs.",
        validator=one_of("text", "json"),
    ),
    _key(
        "millstream.log.level",
        _STRING,
        "info",
        "The least important log lines that are written.",
        validator=one_of("debug", "info", "warning", "error"),
    ),
]

BROKER_CONFIGS: Final = ConfigDef(
    [
        *_IDENTITY_AND_LISTENERS,
        *_NETWORK,
        *_TOPICS,
        *_LOG_DIRECTORIES,
        *_TOPIC_DEFAULTS,
        *CLEANER_CONFIGS,
        *COORDINATOR_CONFIGS,
        *REPLICA_CONFIGS,
        *_OPERATION,
    ]
)
