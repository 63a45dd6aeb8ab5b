"""[source] and [registry]: which topics are read, from where to where, how fast; and where their schemas are."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from millstream.core.config.client_config import Given
from millstream.core.config.client_configs import ADMIN_CONFIGS, CONSUMER_CONFIGS
from millstream.hadoop_loader.job.offsets import parse_offsets
from millstream.hadoop_loader.job.secret import Secret
from millstream.hadoop_loader.job.setting import DEADLINE_S_MAX, setting

if TYPE_CHECKING:
    from millstream.schemas.client import RegistryClient, RegistryConfig

# What the loader itself decides; a job says it by its own keys, or it has no meaning for a loader.
OWN_CONFIGS: Final = {
    "bootstrap.servers": "source.bootstrap_servers",
    "isolation.level": "source.isolation_level",
    "group.id": "source.group",
    "auto.offset.reset": "source.start",
    "group.instance.id": "",
    "group.protocol": "",
    "allow.auto.create.topics": "",
    "enable.auto.commit": "",
    "auto.commit.interval.ms": "",
    "partition.assignment.strategy": "",
}


def parse_timestamp_ms(given: Any) -> int:
    """Return ms since 1970 of a TOML date-time or its text; one without a zone is UTC. Raises ValueError."""
    if isinstance(given, str):
        given = datetime.datetime.fromisoformat(given)
    if isinstance(given, datetime.date) and not isinstance(given, datetime.datetime):
        given = datetime.datetime.combine(given, datetime.time())
    if not isinstance(given, datetime.datetime):
        raise ValueError("it is no date-time")  # noqa: TRY004  what a file says is a value
    moment = given if given.tzinfo is not None else given.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)


def _parse_start(given: Any) -> str | int:
    if given in ("earliest", "latest"):
        return str(given)
    try:
        return parse_timestamp_ms(given)
    except ValueError:
        raise ValueError('write "earliest", "latest", or a date-time such as 2026-01-31T00:00:00Z') from None


def _parse_stop(given: Any) -> str | int:
    if given == "now":
        return "now"
    try:
        return parse_timestamp_ms(given)
    except ValueError:
        raise ValueError('write "now", or a date-time such as 2026-01-31T00:00:00Z') from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """Topics of one cluster, and the part of them that this job loads."""

    bootstrap_servers: str = setting(
        "Brokers to ask first, as `host:port` with commas between; every other one is learnt from them.",
        example='"kafka-1:9092,kafka-2:9092"',
    )
    topics: tuple[str, ...] = setting("Topics by name.", default=(), example='["flights", "weather"]')
    topics_pattern: str | None = setting(
        "A regular expression (RE2) over whole names; topics that match are read beside those in `topics`, also ones"
        " that are created later. Internal topics never match.",
        default=None,
        example='"sensor-.*"',
    )
    exclude_pattern: str | None = setting(
        "Of the topics that match `topics_pattern`, these are left out (RE2, whole names).", default=None
    )
    isolation_level: str = setting(
        "`read_committed` leaves out records of aborted transactions and ends at the last stable offset;"
        " `read_uncommitted` takes every record up to the high watermark.",
        default="read_committed",
        choices=("read_committed", "read_uncommitted"),
    )
    start: str | int = setting(
        "Where a partition starts that was never loaded: `earliest`, `latest` (what is there when it is first seen is"
        " left out), or a date-time. Partitions that were loaded go on where they are. In Python a date-time is"
        " milliseconds since 1970.",
        default="earliest",
        parse=_parse_start,
        kind="text or date-time",
    )
    start_offsets: Mapping[str, Mapping[int, int]] = setting(
        "Per topic and partition, the first offset to load of a topic that was never loaded here, as another loader"
        " left it. Partitions that are not named start as `start_group` or `start` says. Without meaning once the"
        " topic was loaded.",
        default_factory=dict,
        parse=parse_offsets,
        kind="table",
        example='{ flights = { "0" = 1500, "1" = 1620 } }',
    )
    start_group: str | None = setting(
        "A consumer group, as another loader left it: topics that were never loaded here start at what it committed,"
        " but for partitions that `start_offsets` names. A topic is stopped where neither says anything of a partition"
        " that has records. Leave it out once all of its topics were loaded.",
        default=None,
        example='"connect-hdfs-sink"',
    )
    stop: str | int = setting(
        "Where a run ends: `now` (what is there when it starts), or a date-time: records before the first one as late"
        " as that. In Python a date-time is milliseconds since 1970.",
        default="now",
        parse=_parse_stop,
        kind="text or date-time",
    )
    stop_offsets: Mapping[str, Mapping[int, int]] = setting(
        "Per topic and partition, the offset a run ends before, where that is earlier than `stop`.",
        default_factory=dict,
        parse=parse_offsets,
        kind="table",
        example='{ flights = { "0" = 1500 } }',
    )
    group: str | None = setting(
        "A consumer group to which loaded offsets are also committed, for tools that show lag. The loader never reads"
        " them: its positions are in the destination's commit log.",
        default=None,
    )
    gaps: str = setting(
        "When retention deleted records before they were loaded: `fail` stops that topic, `continue` goes on at the"
        " first record there is and reports the gap.",
        default="fail",
        choices=("fail", "continue"),
    )
    truncated: str = setting(
        "When a log ends before the position, or was rewritten below it by an unclean leader election: `fail` stops"
        " that topic, `continue` goes on where the two histories part; rows loaded from there on are kept.",
        default="fail",
        choices=("fail", "continue"),
    )
    recreated: str = setting(
        "When a topic was deleted and created anew (its id is another one): `fail` stops that topic, `continue` loads"
        " the new one from its start, beside the rows of the old one.",
        default="fail",
        choices=("fail", "continue"),
    )
    deleted: str = setting(
        "When a topic that was loaded is gone: `fail` makes the run fail after the other topics were loaded,"
        " `continue` reports it only.",
        default="continue",
        choices=("fail", "continue"),
    )
    rate_limit_bytes_per_s: int | None = setting(
        "At most so many bytes are fetched per second, over all workers.", default=None, at_least=1
    )
    rate_limit_records_per_s: int | None = setting(
        "At most so many records are read per second, over all workers.", default=None, at_least=1
    )
    run_bytes_max: int | None = setting(
        "At most about so many bytes are loaded by one run; the next one goes on. Every partition gets its share.",
        default=None,
        at_least=1,
    )
    timeout_s: float = setting(
        "How long the cluster may leave a question unanswered before the run fails.",
        default=60.0,
        at_least=1,
        at_most=DEADLINE_S_MAX,
    )
    client: Mapping[str, str | Secret] = setting(
        "Kafka's client configs by their own names: `security.protocol`, `sasl.mechanism`, `ssl.truststore.location`,"
        " `fetch.max.bytes` and so on. Those that are secret are references.",
        default_factory=dict,
        kind="table",
        example='{ security.protocol = "SASL_SSL", sasl.password = { env = "KAFKA_PASSWORD" } }',
    )

    def consumer_configs(self) -> dict[str, Given]:
        """Return the configs of a consumer of this source by Kafka's names, secrets in the clear."""
        configs = self._configs(CONSUMER_CONFIGS)
        configs["isolation.level"] = self.isolation_level
        configs["enable.auto.commit"] = False
        # A topic that was deleted is to be found missing, not made again without its records by asking for it.
        configs["allow.auto.create.topics"] = False
        configs["auto.offset.reset"] = "none"
        return configs

    def client_configs(self) -> dict[str, Given]:
        """Return the configs of a `Client` or `Admin` of this source by Kafka's names, secrets in the clear."""
        return self._configs(ADMIN_CONFIGS)

    def _configs(self, definition: Mapping[str, Any]) -> dict[str, Given]:
        configs: dict[str, Given] = {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in self.client.items()
            if name in definition
        }
        configs.setdefault("client.id", "millstream-loader")
        configs["bootstrap.servers"] = self.bootstrap_servers
        return configs


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """A schema registry that speaks Confluent's REST interface."""

    urls: tuple[str, ...] = setting(
        "Addresses of the registry, tried in order; one text or several.", example='["https://registry:8081"]'
    )
    user: str | None = setting("User for basic authentication.", default=None)
    password: Secret | None = setting("Password of `user`.", default=None)
    token: Secret | None = setting("A bearer token, instead of user and password.", default=None)
    ca_location: str | None = setting("PEM file of the authorities to trust; the system's otherwise.", default=None)
    keystore_location: str | None = setting("PEM file with a client's key and certificates.", default=None)
    key_password: Secret | None = setting("Password of that key.", default=None)
    check_hostname: bool = setting("Whether the server's certificate has to name its host.", default=True)
    proxy: str | None = setting("Address of an HTTP proxy.", default=None)
    timeout_s: float = setting(
        "How long one question may take, tries included.", default=30.0, at_least=0.1, at_most=DEADLINE_S_MAX
    )

    def config(self) -> RegistryConfig:
        """Return the settings of a client of this registry, secrets in the clear. Raises ValueError."""
        from millstream.schemas.client.config import RegistryConfig, with_urls

        auth = (self.user, self.password.reveal()) if self.user is not None and self.password is not None else None
        config = RegistryConfig(
            urls=self.urls,
            auth=auth,
            token=None if self.token is None else self.token.reveal(),
            ca_location=self.ca_location,
            keystore_location=self.keystore_location,
            key_password=None if self.key_password is None else self.key_password.reveal(),
            check_hostname=self.check_hostname,
            proxy=self.proxy,
            timeout_s=self.timeout_s,
        )
        return with_urls(self.urls, config)

    def client(self) -> RegistryClient:
        """Return a client of this registry; the caller closes it. Raises ValueError."""
        from millstream.schemas.client import RegistryClient

        return RegistryClient(config=self.config())
