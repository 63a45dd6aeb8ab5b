"""The configuration of one broker: a properties file and settings of the command line, read, checked, typed.

A name that is not known is warned about together with the nearest known one; a value that cannot be stops the start
with the file, the line and the reason. `warnings` holds what to tell the operator once logging is set up.

An operator's server.properties written for Apache Kafka is read as it is: KRaft's controller listeners are left out,
names of features that do not exist here are accepted, and what would have protected the data is refused.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from millstream.core.config.accepted_configs import ACCEPTED, ACCEPTED_PREFIXES, PROTECTING, REMOVED
from millstream.core.config.broker_configs import BROKER_CONFIGS, QUEUED_REQUEST_SIZE_BYTES_MAX
from millstream.core.config.definition import ConfigError, ConfigValue, Synonym, invalid_value
from millstream.core.config.group_configs import check_consumer_timeouts
from millstream.core.config.listeners import (
    SERVED_PROTOCOLS,
    Listener,
    parse_address_limits,
    parse_listeners,
    parse_protocol_map,
)
from millstream.core.config.properties import PropertiesError, read_properties
from millstream.core.config.thread_pools import ACCEPTED_THREAD_POOLS

_COMMAND_LINE: Final = "command line"


class BrokerConfig:
    """Typed, immutable settings of a broker.

    `config[name]` is the value that holds for a name of BROKER_CONFIGS, its synonyms looked at, so that
    `config["log.retention.ms"]` also answers for a file that sets log.retention.hours.
    """

    def __init__(
        self,
        texts: Mapping[str, str] | None = None,
        *,
        warnings: tuple[str, ...] = (),
        host_name: Callable[[], str] = socket.gethostname,
    ) -> None:
        """Take settings as text by name; raises ConfigError. `load` reads them from a file."""
        # What is set, by name, as text; defaults are not in it.
        self.texts: Mapping[str, str] = {name: text for name, text in (texts or {}).items() if name in BROKER_CONFIGS}
        self._set: dict[str, ConfigValue] = {
            name: BROKER_CONFIGS.parse(name, text) for name, text in self.texts.items()
        }
        # Thread pools that nothing here has, as set: their sizes change by steps.
        self.accepted_thread_pools: Mapping[str, str] = {
            name: text for name, text in (texts or {}).items() if name in ACCEPTED_THREAD_POOLS
        }
        self._host_name = host_name
        self.warnings: tuple[str, ...] = warnings

        self.node_id: int = self._node_id()
        self.rack: str | None = self._string_or_none("broker.rack")
        self.log_dirs: tuple[Path, ...] = self._log_dirs()
        # What to bind, in order; port 0 is replaced by the one the system gave, in `advertised_listeners` too.
        self.listeners: tuple[Listener, ...]
        # What clients are told, one for each of `listeners` and in their order.
        self.advertised_listeners: tuple[Listener, ...]
        self.listeners, self.advertised_listeners = self._listeners()
        self.num_partitions: int = self.integer("num.partitions")
        self.default_replication_factor: int = self.integer("default.replication.factor")
        self.auto_create_topics_enable: bool = self.boolean("auto.create.topics.enable")
        self.delete_topic_enable: bool = self.boolean("delete.topic.enable")
        self.request_size_bytes_max: int = self.integer("socket.request.max.bytes")
        self.queued_request_size_bytes_max: int = self._queued_request_size_bytes_max()
        self.max_connections_per_ip_overrides: Mapping[str, int] = parse_address_limits(
            self.string("max.connections.per.ip.overrides")
        )

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        overrides: Mapping[str, str] | None = None,
        *,
        host_name: Callable[[], str] = socket.gethostname,
    ) -> BrokerConfig:
        """Read a server.properties file, if one is given, and settings that go before it.

        Raises ConfigError with the file, the line and the reason, OSError if the file cannot be read.
        """
        texts: dict[str, str] = {}
        origins: dict[str, str] = {}
        if path is not None:
            try:
                properties = read_properties(path)
            except (PropertiesError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path}, {error}") from error
            for name, (value, line) in properties.items():
                texts[name], origins[name] = value, f"{path}, line {line}"
        for name, value in (overrides or {}).items():
            texts[name], origins[name] = value, _COMMAND_LINE
        warnings = [f"{origins[name]}: {text}" for name in texts if (text := _unused(name)) is not None]
        accepted = sorted(name for name in texts if _is_accepted(name))
        if accepted:
            warnings.append(f"these configs are accepted and have no effect here: {', '.join(accepted)}")
        for name, text in texts.items():
            _refuse_unprotected(name, text, origins[name])
            if name in BROKER_CONFIGS:
                try:
                    BROKER_CONFIGS.parse(name, text)
                except ConfigError as error:
                    raise ConfigError(f"{origins[name]}: {error}", name=name) from error
        try:
            config = cls(texts, warnings=tuple(warnings), host_name=host_name)
            check_consumer_timeouts(config)
        except ConfigError as error:
            origin = origins.get(error.name or "", str(path) if path is not None else _COMMAND_LINE)
            raise ConfigError(f"{origin}: {error}", name=error.name) from error
        return config

    def __getitem__(self, name: str) -> ConfigValue:
        key = BROKER_CONFIGS[name]
        for synonym in key.synonyms or (Synonym(name),):
            value = self._set.get(synonym.name)
            if value is not None:
                return scaled(value, synonym.factor)
        for synonym in key.synonyms or (Synonym(name),):
            value = BROKER_CONFIGS[synonym.name].default
            if value is not None:
                return scaled(value, synonym.factor)
        return None

    def integer(self, name: str) -> int:
        """Return a number config."""
        value = self[name]
        assert type(value) is int, f"{name} is {value!r}"
        return value

    def boolean(self, name: str) -> bool:
        """Return a config that is true or false."""
        value = self[name]
        assert isinstance(value, bool), f"{name} is {value!r}"
        return value

    def string(self, name: str) -> str:
        """Return a text config."""
        value = self[name]
        assert isinstance(value, str), f"{name} is {value!r}"
        return value

    def strings(self, name: str) -> list[str]:
        """Return a list config; an unset one is empty."""
        value = self[name]
        assert value is None or isinstance(value, list), f"{name} is {value!r}"
        return value or []

    def with_dynamic(self, dynamic_broker_configs: Mapping[str, Mapping[str, str]]) -> BrokerConfig:
        """Return these settings with the dynamic ones of the cluster and of this broker over them.

        Only configs that may change while a broker runs are taken; a stored value that is not valid is left out.
        """
        texts = {**self.texts, **self.accepted_thread_pools}
        for broker in ("", str(self.node_id)):
            for name, text in dynamic_broker_configs.get(broker, {}).items():
                key = BROKER_CONFIGS.get(name) or ACCEPTED_THREAD_POOLS.get(name)
                if key is None or not key.is_dynamic:
                    continue
                try:
                    key.parse(text)
                except ConfigError:
                    continue
                texts[name] = text
        return BrokerConfig(texts, warnings=self.warnings, host_name=self._host_name)

    def _string_or_none(self, name: str) -> str | None:
        return self.string(name) if self[name] is not None else None

    def _node_id(self) -> int:
        older = self._set.get("broker.id")
        newer = self._set.get("node.id")
        if older is not None and newer is not None and older != newer:
            raise ConfigError(f"node.id is {newer} and broker.id is {older}; give one of them", name="broker.id")
        node_id = self.integer("node.id")
        if node_id < 0:
            raise invalid_value("broker.id", node_id, "Value must be at least 0")
        return node_id

    def _log_dirs(self) -> tuple[Path, ...]:
        name = "log.dirs" if self._set.get("log.dirs") else "log.dir"
        directories: list[Path] = []
        for entry in self.strings(name):
            if not entry:
                raise ConfigError(f"{name} has an empty entry", name=name)
            if Path(entry) in directories:
                raise ConfigError(f"{name} names {entry} twice", name=name)
            directories.append(Path(entry))
        if not directories:
            raise ConfigError(f"{name} names no directory", name=name)
        return tuple(directories)

    def _listeners(self) -> tuple[tuple[Listener, ...], tuple[Listener, ...]]:
        protocols = parse_protocol_map("listener.security.protocol.map", self.strings("listener.security.protocol.map"))
        controllers = {name.upper() for name in self.strings("controller.listener.names")}

        def for_clients(name: str) -> list[str]:
            return [entry for entry in self.strings(name) if entry.partition(":")[0].upper() not in controllers]

        bound = parse_listeners("listeners", for_clients("listeners"), protocols, bound=True)
        if len(bound) < len(self.strings("listeners")):
            self.warnings += ("controller listeners are left out: there is no KRaft controller here",)
        for listener in bound:
            if listener.security_protocol not in SERVED_PROTOCOLS:
                raise invalid_value(
                    "listeners", listener, f"{listener.security_protocol} is not served yet, only PLAINTEXT is"
                )
        told: dict[str, Listener] = {}
        if entries := for_clients("advertised.listeners"):
            told = {
                listener.name: listener
                for listener in parse_listeners("advertised.listeners", entries, protocols, bound=False)
            }
        for listener in told.values():
            if listener.name not in {other.name for other in bound}:
                raise invalid_value("advertised.listeners", listener, f"listeners has no {listener.name}")
            if listener.is_wildcard:
                raise invalid_value("advertised.listeners", listener, "clients cannot connect to a wildcard address")
        return bound, tuple(told.get(listener.name) or self._advertised(listener) for listener in bound)

    def _advertised(self, listener: Listener) -> Listener:
        if not listener.is_wildcard:
            return listener
        host = self._host_name()
        self.warnings += (
            f"clients of {listener} are told the host {host}; set advertised.listeners if they cannot reach it",
        )
        return listener._replace(host=host)

    def _queued_request_size_bytes_max(self) -> int:
        size = self.integer("queued.max.request.bytes")
        return max(QUEUED_REQUEST_SIZE_BYTES_MAX if size < 0 else size, self.request_size_bytes_max)


def scaled(value: ConfigValue, factor: int) -> ConfigValue:
    """Return a value in the unit of the config it stands in for; -1 hours is no limit, as -1 ms is."""
    if factor == 1 or not isinstance(value, int) or value < 0:
        return value
    return value * factor


def _is_accepted(name: str) -> bool:
    return name in ACCEPTED or name.startswith(ACCEPTED_PREFIXES)


def _unused(name: str) -> str | None:
    if name in BROKER_CONFIGS or _is_accepted(name):
        return None
    if name in REMOVED:
        return f"{name} has no effect any more, in Apache Kafka 4 neither"
    import difflib

    near = difflib.get_close_matches(name, BROKER_CONFIGS, n=1) or difflib.get_close_matches(name, ACCEPTED, n=1)
    return f"{name} is no config that is known here" + (f"; is it meant to be {near[0]}?" if near else "")


def _refuse_unprotected(name: str, text: str, origin: str) -> None:
    if name in PROTECTING and text.strip():
        raise ConfigError(
            f"{origin}: {name} is set, and nothing here obeys it yet; take it out to run without that protection",
            name=name,
        )
    if name == "process.roles" and "broker" not in {role.strip() for role in text.split(",")}:
        raise ConfigError(f"{origin}: process.roles is {text}; this is no broker's configuration", name=name)
