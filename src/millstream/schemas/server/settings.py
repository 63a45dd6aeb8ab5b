"""The registry's configuration: Confluent's names, so that a schema-registry.properties works; types, defaults, limits.

A name that begins with `kafkastore.` and is none of the table's own is a config of the Kafka client behind it
(`kafkastore.security.protocol`). Names of Confluent's that have no meaning here are accepted and named at the start.
"""

from __future__ import annotations

import difflib
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from millstream.core.config import (
    ADMIN_CONFIGS,
    CONSUMER_CONFIGS,
    PRODUCER_CONFIGS,
    ConfigDef,
    ConfigError,
    ConfigKey,
    ConfigType,
    ConfigValue,
    Importance,
    read_properties,
)
from millstream.core.config.definition import at_least, one_of, one_of_any_case
from millstream.core.net import Address
from millstream.core.net.addresses import parse_address
from millstream.schemas.compat import Level

PORT_DEFAULT: Final = 8081
LISTEN_DEFAULT: Final = f"127.0.0.1:{PORT_DEFAULT}"
COUNT_MAX: Final = 2**31 - 1
_STRING, _INT, _BOOLEAN, _LIST = ConfigType.STRING, ConfigType.INT, ConfigType.BOOLEAN, ConfigType.LIST
_CLIENT_PREFIX: Final = "kafkastore."


def _key(name: str, kind: ConfigType, default: ConfigValue, doc: str, validator: Any = None) -> ConfigKey:
    return ConfigKey(name=name, type=kind, default=default, doc=doc, validator=validator, importance=Importance.MEDIUM)


def _listing(what: str, default: int) -> list[ConfigKey]:
    return [
        _key(f"{what}.search.default.limit", _INT, default, f"How many of a {what} listing are returned.", at_least(1)),
        _key(f"{what}.search.max.limit", _INT, default, "And how many may be asked for.", at_least(1)),
    ]


REGISTRY_CONFIGS: Final = ConfigDef(
    [
        _key("listeners", _LIST, [f"http://{LISTEN_DEFAULT}"], "Where to listen: http://HOST:PORT or https://, one."),
        _key("host.name", _STRING, None, "What other instances reach this one by; the listener's host otherwise."),
        _key("host.port", _INT, None, "And its port; the listener's otherwise.", None),
        _key("inter.instance.protocol", _STRING, None, "http or https between instances; the listener's otherwise."),
        _key("inter.instance.ca.location", _STRING, None, "File of authorities' certificates to forward over https."),
        _key("kafkastore.bootstrap.servers", _LIST, [], "The Kafka cluster that keeps the schemas, as HOST:PORT."),
        _key("kafkastore.topic", _STRING, "_schemas", "The topic they are kept in: compacted, one partition."),
        _key(
            "kafkastore.topic.replication.factor",
            _INT,
            3,
            "Its replicas, or as many as there are brokers.",
            at_least(1),
        ),
        _key("kafkastore.timeout.ms", _INT, 10_000, "How long a write may take.", at_least(1)),
        _key("kafkastore.init.timeout.ms", _INT, 60_000, "How long a start may take.", at_least(1)),
        _key("schema.registry.group.id", _STRING, "schema-registry", "The group in which instances elect a leader."),
        _key("leader.eligibility", _BOOLEAN, True, "Whether this instance may become the leader, which alone writes."),
        _key(
            "leader.election.session.timeout.ms", _INT, 10_000, "A leader unheard of so long is replaced.", at_least(1)
        ),
        _key("leader.election.heartbeat.interval.ms", _INT, 3_000, "How often it says that it is there.", at_least(1)),
        _key("leader.connect.timeout.ms", _INT, 60_000, "How long connecting to the leader may take.", at_least(1)),
        _key("leader.read.timeout.ms", _INT, 60_000, "How long its answer may take.", at_least(1)),
        _key(
            "schema.compatibility.level", _STRING, "BACKWARD", "The level where none is set.", one_of_any_case(*Level)
        ),
        _key("mode.mutability", _BOOLEAN, True, "Whether modes may be changed."),
        *_listing("schema", 1_000),
        *_listing("subject", COUNT_MAX),
        *_listing("subject.version", COUNT_MAX),
        *_listing("context", COUNT_MAX),
        _key("request.size.bytes.max", _INT, 4 * 1024 * 1024, "Larger request bodies are refused.", at_least(1024)),
        _key("schema.validate.new.schemas", _BOOLEAN, True, "Whether new schemas are held to stricter rules."),
        _key("schema.cache.size", _INT, 1_000, "Parsed schemas kept, at most.", at_least(1)),
        _key("schema.cache.characters.max", _INT, 4_000_000, "And at most so many characters of them.", at_least(1)),
        _key("response.cache.size.bytes", _INT, 16 * 1024 * 1024, "Answers kept for who asks again.", at_least(0)),
        _key("connections.max", _INT, 1_000, "Requests served at a time; others are answered 503.", at_least(1)),
        _key(
            "authentication.method", _STRING, "NONE", "BASIC asks for a user and a password.", one_of("NONE", "BASIC")
        ),
        _key("authentication.realm", _STRING, "Schema Registry", "What the users' dialogue is called."),
        _key(
            "authentication.users.location",
            _STRING,
            None,
            "File of users, one a line: NAME:PASSWORD or NAME:scrypt:...",
        ),
        _key("ssl.certificate.location", _STRING, None, "PEM file of the server's certificate and chain, for https."),
        _key("ssl.key.location", _STRING, None, "PEM file of its private key; the certificate's file otherwise."),
        _key("ssl.key.password", ConfigType.PASSWORD, None, "Password of that key."),
        _key(
            "ssl.client.authentication",
            _STRING,
            "NONE",
            "NONE, REQUESTED or REQUIRED.",
            one_of("NONE", "REQUESTED", "REQUIRED"),
        ),
        _key(
            "ssl.client.ca.location", _STRING, None, "PEM file of the authorities that clients' certificates are from."
        ),
        _key(
            "log.level",
            _STRING,
            "INFO",
            "What is logged: DEBUG, INFO, WARNING, ERROR.",
            one_of_any_case("DEBUG", "INFO", "WARNING", "ERROR"),
        ),
    ]
)

# Confluent's names for what is asked of the JVM, of Jetty or of its commercial parts.
_WITHOUT_MEANING: Final = (
    "debug",
    "metrics.",
    "metric.",
    "jmx.",
    "confluent.",
    "resource.",
    "access.control.",
    "avro.compatibility.level",
    "kafkastore.connection.url",
    "kafkastore.zk.",
    "kafkastore.group.id",
    "kafkastore.update.handlers",
    "schema.providers",
    "schema.registry.zk.",
    "schema.registry.inter.instance.protocol",
    "schema.registry.resource.",
    "master.eligibility",
    "rest.servlet.",
    "thread.pool.",
    "request.logger.",
    "compression.enable",
    "shutdown.graceful.ms",
    "ssl.keystore.",
    "ssl.truststore.",
)


class Listener(NamedTuple):
    """Where the registry listens."""

    scheme: str
    address: Address


class RegistryConfig:
    """Typed, immutable settings: `config.integer("kafkastore.timeout.ms")`."""

    def __init__(self, values: Mapping[str, ConfigValue], client: Mapping[str, str], ignored: tuple[str, ...]) -> None:
        """Take parsed values; `load` makes them."""
        self._values = {name: key.default for name, key in REGISTRY_CONFIGS.items()} | dict(values)
        self._client = dict(client)
        # Names that were given and have no meaning here.
        self.ignored = ignored
        if not self.strings("kafkastore.bootstrap.servers"):
            raise ConfigError(
                "no Kafka cluster is named: give kafkastore.bootstrap.servers, or --bootstrap HOST:PORT",
                name="kafkastore.bootstrap.servers",
            )
        self.listener = self._listener()
        if self.string("authentication.method") == "BASIC" and not self.text("authentication.users.location"):
            raise ConfigError("authentication.method=BASIC needs authentication.users.location", name="authentication")
        if self.listener.scheme == "https" and not self.text("ssl.certificate.location"):
            raise ConfigError("a listener of https needs ssl.certificate.location", name="ssl.certificate.location")
        wanted = self.string("ssl.client.authentication")
        if wanted != "NONE" and not self.text("ssl.client.ca.location"):
            raise ConfigError(f"ssl.client.authentication={wanted} needs ssl.client.ca.location", name="ssl.client")

    @classmethod
    def load(cls, path: Path | None, overrides: Mapping[str, str]) -> RegistryConfig:
        """Read a properties file and what goes before it. Raises ConfigError with the file and the line, OSError."""
        values: dict[str, ConfigValue] = {}
        client: dict[str, str] = {}
        ignored: list[str] = []
        given = {
            name: (one.value, f"{path}:{one.line}: ") for name, one in (read_properties(path) if path else {}).items()
        }
        given |= {name: (value, "") for name, value in overrides.items()}
        for name, (text, place) in given.items():
            try:
                if name in REGISTRY_CONFIGS:
                    values[name] = REGISTRY_CONFIGS.parse(name, text)
                elif name.startswith(_CLIENT_PREFIX) and _is_client_config(name.removeprefix(_CLIENT_PREFIX)):
                    client[name.removeprefix(_CLIENT_PREFIX)] = text
                elif name.startswith(_WITHOUT_MEANING):
                    ignored.append(name)
                else:
                    values[name] = _unknown(name)
            except ConfigError as error:
                raise ConfigError(f"{place}{error}", name=name) from error
        return cls(values, client, tuple(ignored))

    def shown(self) -> dict[str, ConfigValue]:
        """Return every config by name; passwords are hidden."""
        hidden = {name for name, key in REGISTRY_CONFIGS.items() if key.sensitive}
        return {name: "[hidden]" if name in hidden and value else value for name, value in self._values.items()}

    def integer(self, name: str) -> int:
        """Return a number."""
        value = self._values[name]
        assert isinstance(value, int), (name, value)
        return value

    def seconds(self, name: str) -> float:
        """Return a config in milliseconds as seconds."""
        return self.integer(name) / 1000

    def boolean(self, name: str) -> bool:
        """Return a yes or no."""
        return bool(self._values[name])

    def string(self, name: str) -> str:
        """Return a text that has a default."""
        value = self._values[name]
        assert isinstance(value, str), (name, value)
        return value

    def text(self, name: str) -> str | None:
        """Return a text that may be missing."""
        value = self._values[name]
        assert value is None or isinstance(value, str), (name, value)
        return value or None

    def strings(self, name: str) -> list[str]:
        """Return a list."""
        value = self._values[name]
        assert isinstance(value, list), (name, value)
        return list(value)

    def client(self, definition: ConfigDef, **configs: str | int | bool) -> dict[str, Any]:
        """Return the configs of one kind of Kafka client: those given as `kafkastore.NAME`, then `configs`."""
        own = {name: value for name, value in self._client.items() if name in definition}
        servers = ",".join(self.strings("kafkastore.bootstrap.servers"))
        return {"bootstrap.servers": _plain_servers(servers), "client.id": "schema-registry", **own, **configs}

    def server_tls(self) -> ssl.SSLContext | None:
        """Return the TLS settings of the listener. Raises ConfigError, naming the file that can't be used."""
        if self.listener.scheme != "https":
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate, key = self.string("ssl.certificate.location"), self.text("ssl.key.location")
        used = f"ssl.certificate.location={certificate}" + (f", ssl.key.location={key}" if key else "")
        with _named_files(used):
            context.load_cert_chain(certificate, key, self.text("ssl.key.password"))
        wanted = self.string("ssl.client.authentication")
        if wanted != "NONE":
            authorities = self.string("ssl.client.ca.location")
            context.verify_mode = ssl.CERT_REQUIRED if wanted == "REQUIRED" else ssl.CERT_OPTIONAL
            with _named_files(f"ssl.client.ca.location={authorities}"):
                context.load_verify_locations(authorities)
        return context

    def leader_tls(self) -> ssl.SSLContext:
        """Return by which authorities a leader is trusted. Raises ConfigError, naming the file that can't be used."""
        authorities = self.text("inter.instance.ca.location")
        with _named_files(f"inter.instance.ca.location={authorities}"):
            return ssl.create_default_context(cafile=authorities)

    def _listener(self) -> Listener:
        listeners = self.strings("listeners")
        if len(listeners) != 1:
            raise ConfigError(
                f"listeners={','.join(listeners)}: give one, as in http://{LISTEN_DEFAULT}", name="listeners"
            )
        scheme, separator, address = listeners[0].rpartition("://")
        scheme = scheme.lower() if separator else "http"
        if scheme not in ("http", "https"):
            raise ConfigError(f"listeners={listeners[0]}: it begins with http:// or https://", name="listeners")
        try:
            return Listener(scheme, parse_address(address.rstrip("/"), port_default=PORT_DEFAULT))
        except ValueError as error:
            raise ConfigError(f"listeners={listeners[0]}: {error}", name="listeners") from error

    def advertised(self, port: int) -> Listener:
        """Return where other instances reach this one, which listens on `port`."""
        host = self.text("host.name") or self.listener.address.host
        if host in ("0.0.0.0", "::"):  # noqa: S104  an address that nobody can be reached by
            host = socket.getfqdn()
        advertised_port = self._values["host.port"]
        assert advertised_port is None or isinstance(advertised_port, int), advertised_port
        scheme = self.text("inter.instance.protocol") or self.listener.scheme
        return Listener(scheme, Address(host, advertised_port or port))


@contextmanager
def _named_files(used: str) -> Iterator[None]:
    """Say which file it was: the library does not."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{used}: {error.strerror or error}") from error


def _is_client_config(name: str) -> bool:
    return any(name in definition for definition in (ADMIN_CONFIGS, CONSUMER_CONFIGS, PRODUCER_CONFIGS))


def _plain_servers(servers: str) -> str:
    """Return `host:port` of what Confluent writes as PLAINTEXT://host:port."""
    return ",".join(one.rpartition("://")[2] for one in servers.split(","))


def _unknown(name: str) -> ConfigValue:
    near = difflib.get_close_matches(name, REGISTRY_CONFIGS, n=1, cutoff=0.7)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"unknown configuration: {name}{hint}", name=name)
