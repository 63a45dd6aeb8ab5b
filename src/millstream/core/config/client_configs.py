"""The configs of clients: Kafka's names, types, defaults and limits. `client_config.py` reads what a user gives.

Three tables, one for each kind of client; what all share comes first, security stands in `client_security_configs.py`.
Where a default is not Kafka's its row says why. What only a JVM can use is in `JAVA_ONLY`, with what takes its place.
"""

from __future__ import annotations

from typing import Final

from millstream.core.config.client_security_configs import SECURITY_CONFIGS
from millstream.core.config.definition import (
    INT_MAX,
    ConfigDef,
    ConfigKey,
    ConfigType,
    ConfigValue,
    Importance,
    Validator,
    at_least,
    between,
    between_or,
    one_of,
    one_of_any_case,
)

COMPRESSION_TYPES: Final = ("none", "gzip", "snappy", "lz4", "zstd")
ASSIGNORS: Final = ("range", "roundrobin", "sticky", "cooperative-sticky")

_STRING, _INT, _LONG, _BOOLEAN, _LIST = (
    ConfigType.STRING,
    ConfigType.INT,
    ConfigType.LONG,
    ConfigType.BOOLEAN,
    ConfigType.LIST,
)
_HIGH, _MEDIUM, _LOW = Importance.HIGH, Importance.MEDIUM, Importance.LOW


def _reset_policy(value: ConfigValue) -> tuple[object, str] | None:
    assert isinstance(value, str), value
    if value in ("latest", "earliest", "none") or value.startswith("by_duration:P"):
        return None
    return value, "it is earliest, latest, none, or by_duration: and an ISO 8601 duration, as in by_duration:PT12H"


def _not_empty(value: ConfigValue) -> str | None:
    return "{name} must not be empty" if value == "" else None


_NOT_EMPTY: Final = Validator("non-empty string", _not_empty)


def _key(
    name: str,
    kind: ConfigType,
    default: ConfigValue,
    importance: Importance,
    doc: str,
    validator: Validator | None = None,
) -> ConfigKey:
    return ConfigKey(name=name, type=kind, default=default, doc=doc, validator=validator, importance=importance)


def _common(*, connections_max_idle_ms: int) -> list[ConfigKey]:
    return [
        _key("bootstrap.servers", _LIST, [], _HIGH, "Brokers to ask first, as host:port; every other is learnt of."),
        _key("client.id", _STRING, "millstream", _MEDIUM, "What brokers' logs and quotas call this client."),
        _key(
            "client.dns.lookup",
            _STRING,
            "use_all_dns_ips",
            _MEDIUM,
            "Whether every address of a name is tried, or a bootstrap name stands for the names behind its addresses.",
            one_of("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"),
        ),
        _key(
            "connections.max.idle.ms",
            _LONG,
            connections_max_idle_ms,
            _MEDIUM,
            "A connection unused for so long is closed; below 0: never.",
        ),
        _key("metadata.max.age.ms", _LONG, 300_000, _LOW, "Metadata is asked for again after so long.", at_least(0)),
        _key(
            "metadata.recovery.strategy",
            _STRING,
            "rebootstrap",
            _LOW,
            "What to do when no known broker answers: begin again with bootstrap.servers, or go on trying (KIP-899).",
            one_of_any_case("rebootstrap", "none"),
        ),
        _key(
            "metadata.recovery.rebootstrap.trigger.ms",
            _LONG,
            300_000,
            _LOW,
            "Without metadata for so long, begin again with bootstrap.servers (KIP-1102).",
            at_least(0),
        ),
        # Kafka's 64 KiB cut an answer of a megabyte into dozens of reads; what the system grows by itself takes a few.
        _key("receive.buffer.bytes", _INT, -1, _MEDIUM, "SO_RCVBUF of sockets; -1: the system's.", at_least(-1)),
        _key("send.buffer.bytes", _INT, 131_072, _MEDIUM, "SO_SNDBUF of sockets; -1: the system's.", at_least(-1)),
        _key(
            "reconnect.backoff.ms", _LONG, 50, _LOW, "First pause before a broker is connected to again.", at_least(0)
        ),
        _key("reconnect.backoff.max.ms", _LONG, 1_000, _LOW, "Longest such pause; each doubles.", at_least(0)),
        _key("request.timeout.ms", _INT, 30_000, _MEDIUM, "How long one answer is waited for.", at_least(0)),
        _key("retry.backoff.ms", _LONG, 100, _LOW, "First pause before a request is tried again.", at_least(0)),
        _key("retry.backoff.max.ms", _LONG, 1_000, _LOW, "Longest such pause; each doubles.", at_least(0)),
        _key("socket.connection.setup.timeout.ms", _LONG, 10_000, _MEDIUM, "How long connecting may take at first."),
        _key("socket.connection.setup.timeout.max.ms", _LONG, 30_000, _MEDIUM, "And at most, after failures."),
        *SECURITY_CONFIGS,
    ]


_API_TIMEOUT: Final = _key(
    "default.api.timeout.ms", _INT, 60_000, _MEDIUM, "How long a call may take that gives no timeout.", at_least(0)
)

PRODUCER_CONFIGS: Final = ConfigDef(
    [
        *_common(connections_max_idle_ms=540_000),
        _key(
            "acks",
            _STRING,
            "all",
            _LOW,
            "Whose word is waited for: every in-sync replica's, the leader's (1), nobody's (0).",
            one_of("all", "-1", "0", "1"),
        ),
        _key(
            "batch.size",
            _INT,
            16_384,
            _MEDIUM,
            "A batch of one partition is sent when it has so many bytes.",
            at_least(0),
        ),
        _key("buffer.memory", _LONG, 33_554_432, _HIGH, "Bytes of records not yet acknowledged, at most.", at_least(0)),
        _key("compression.type", _STRING, "none", _HIGH, "How batches are compressed.", one_of(*COMPRESSION_TYPES)),
        _key("compression.gzip.level", _INT, -1, _MEDIUM, "Level of gzip; -1: its default.", between_or(1, 9, -1)),
        _key("compression.lz4.level", _INT, 9, _MEDIUM, "Level of lz4.", between(1, 17)),
        _key("compression.zstd.level", _INT, 3, _MEDIUM, "Level of zstd.", between(-131_072, 22)),
        _key(
            "delivery.timeout.ms",
            _INT,
            120_000,
            _MEDIUM,
            "A record is acknowledged or has failed within so long; at least linger.ms + request.timeout.ms.",
            at_least(0),
        ),
        _key("enable.idempotence", _BOOLEAN, True, _LOW, "Whether brokers drop what a retry sends twice (KIP-98)."),
        _key("linger.ms", _LONG, 5, _MEDIUM, "How long a batch that is not full waits for more records.", at_least(0)),
        _key("max.block.ms", _LONG, 60_000, _MEDIUM, "How long send waits for metadata or room.", at_least(0)),
        _key("max.in.flight.requests.per.connection", _INT, 5, _LOW, "Requests sent ahead of answers.", at_least(1)),
        _key("max.request.size", _INT, 1_048_576, _MEDIUM, "Bytes of a request and of a record, at most.", at_least(0)),
        _key("metadata.max.idle.ms", _LONG, 300_000, _LOW, "A topic unused for so long is forgotten.", at_least(5_000)),
        _key(
            "partitioner.adaptive.partitioning.enable",
            _BOOLEAN,
            True,
            _LOW,
            "Whether keyless records go rather to partitions whose brokers are quick (KIP-794).",
        ),
        _key(
            "partitioner.availability.timeout.ms",
            _LONG,
            0,
            _LOW,
            "A broker that takes nothing for so long gets no keyless records; 0: none is left out.",
            at_least(0),
        ),
        _key("partitioner.ignore.keys", _BOOLEAN, False, _MEDIUM, "Whether keys have no say in the partition."),
        _key("retries", _INT, INT_MAX, _HIGH, "How often a batch is sent again.", between(0, INT_MAX)),
        _key("transaction.timeout.ms", _INT, 60_000, _LOW, "How long a transaction may stay open."),
        _key("transactional.id", _STRING, None, _LOW, "Name under which transactions are fenced.", _NOT_EMPTY),
    ]
)

CONSUMER_CONFIGS: Final = ConfigDef(
    [
        *_common(connections_max_idle_ms=540_000),
        _API_TIMEOUT,
        _key("allow.auto.create.topics", _BOOLEAN, True, _MEDIUM, "Whether subscribing to a topic may create it."),
        _key(
            "auto.commit.interval.ms",
            _INT,
            5_000,
            _LOW,
            "How often positions are committed by themselves.",
            at_least(0),
        ),
        _key(
            "auto.offset.reset",
            _STRING,
            "latest",
            _MEDIUM,
            "Where to begin without a committed offset, or with one out of range.",
            Validator("[latest, earliest, none, by_duration:PnDTnHnMn.nS]", _reset_policy),
        ),
        _key(
            "buffer.memory",
            _LONG,
            67_108_864,
            _HIGH,
            "Bytes fetched and not yet taken, or still in use by what was taken, before fetching pauses. Not Kafka's.",
            at_least(1),
        ),
        _key("check.crcs", _BOOLEAN, True, _LOW, "Whether each batch's CRC is checked."),
        _key("client.rack", _STRING, "", _LOW, "Rack of this client: a replica there is read from (KIP-392)."),
        _key("enable.auto.commit", _BOOLEAN, True, _MEDIUM, "Whether positions are committed by themselves."),
        _key("exclude.internal.topics", _BOOLEAN, True, _MEDIUM, "Whether a pattern passes over internal topics."),
        _key("fetch.max.bytes", _INT, 52_428_800, _MEDIUM, "Bytes of a fetch's answer, about.", at_least(0)),
        _key("fetch.max.wait.ms", _INT, 500, _LOW, "How long a broker waits for fetch.min.bytes.", at_least(0)),
        _key("fetch.min.bytes", _INT, 1, _HIGH, "Bytes a broker waits for.", at_least(0)),
        _key("group.id", _STRING, None, _HIGH, "The group to belong to, and whose offsets are committed."),
        _key("group.instance.id", _STRING, None, _MEDIUM, "Makes the member a static one (KIP-345).", _NOT_EMPTY),
        _key(
            "group.protocol",
            _STRING,
            "classic",
            _HIGH,
            "How the group agrees: among its members, or by the broker (KIP-848).",
            one_of_any_case("classic", "consumer"),
        ),
        _key("group.remote.assignor", _STRING, None, _MEDIUM, "The broker's assignor to use; None: its default."),
        _key(
            "heartbeat.interval.ms",
            _INT,
            3_000,
            _HIGH,
            "Time between heartbeats; the consumer protocol's is the broker's.",
        ),
        _key(
            "isolation.level",
            _STRING,
            "read_uncommitted",
            _MEDIUM,
            "Whether records of open and aborted transactions are seen.",
            one_of("read_committed", "read_uncommitted"),
        ),
        # Kafka's 1 MiB is less than a large batch: an answer would bring one batch, of one partition.
        _key("max.partition.fetch.bytes", _INT, 4_194_304, _HIGH, "Bytes of one partition in an answer.", at_least(0)),
        _key("max.poll.interval.ms", _INT, 300_000, _MEDIUM, "A member that polls less often leaves.", at_least(1)),
        _key("max.poll.records", _INT, 500, _MEDIUM, "Records of one poll_records, at most.", at_least(1)),
        _key(
            "partition.assignment.strategy",
            _LIST,
            ["range", "cooperative-sticky"],
            _MEDIUM,
            f"Assignors in order of preference: {', '.join(ASSIGNORS)}, or those given as objects. "
            "Names of Kafka's Java classes mean the same.",
        ),
        _key("session.timeout.ms", _INT, 45_000, _HIGH, "A member unheard of for so long is taken for dead."),
    ]
)

ADMIN_CONFIGS: Final = ConfigDef([*_common(connections_max_idle_ms=300_000), _API_TIMEOUT])

_SERIALIZER: Final = "keys and values are bytes here; encode them before send, or use millstream.schemas"
_METRICS: Final = "`metrics()` returns them here"
JAVA_ONLY: Final = {
    "key.serializer": _SERIALIZER,
    "value.serializer": _SERIALIZER,
    "key.deserializer": _SERIALIZER,
    "value.deserializer": _SERIALIZER,
    "interceptor.classes": "give objects as interceptors=[...]",
    "partitioner.class": "give a callable as partitioner=",
    "metric.reporters": _METRICS,
    "sasl.client.callback.handler.class": "give a callable as sasl_token_provider=",
    "sasl.login.callback.handler.class": "give a callable as sasl_token_provider=",
    "sasl.login.class": "give a callable as sasl_token_provider=",
    "ssl.engine.factory.class": "give an ssl.SSLContext as ssl_context=",
    "security.providers": "give an ssl.SSLContext as ssl_context=",
    "bootstrap.controllers": "requests go to the controller by themselves",
    "transaction.two.phase.commit.enable": "two-phase commit across systems is not served",
}

# Those that change nothing here, and harm nobody who moves a file of settings over.
WITHOUT_EFFECT: Final = frozenset(
    {
        "config.providers",
        "enable.metrics.push",
        "metrics.num.samples",
        "metrics.recording.level",
        "metrics.sample.window.ms",
        "internal.throw.on.fetch.stable.offset.unsupported",
        "share.acknowledgement.mode",
        "share.acquire.mode",
        "sasl.kerberos.kinit.cmd",
        "sasl.kerberos.min.time.before.relogin",
        "sasl.kerberos.ticket.renew.jitter",
        "sasl.kerberos.ticket.renew.window.factor",
        "ssl.keymanager.algorithm",
        "ssl.trustmanager.algorithm",
        "ssl.protocol",
        "ssl.provider",
        "ssl.secure.random.implementation",
    }
)
