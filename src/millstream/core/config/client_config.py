"""What a user gave a client, read and checked: Kafka's dotted names in a mapping, or snake_case keywords.

ClientConfig.load(PRODUCER_CONFIGS, "127.0.0.1:9092", {"linger_ms": 20})
ClientConfig.load(CONSUMER_CONFIGS, {"bootstrap.servers": "127.0.0.1:9092", "group.id": "loaders"})
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from millstream.core.config.client_configs import JAVA_ONLY, WITHOUT_EFFECT
from millstream.core.config.definition import ConfigDef, ConfigError, ConfigValue, invalid_value

Given = bool | int | float | str | Sequence[str] | None
"""What a setting may be given as; None leaves the default."""

_BOOTSTRAP: Final = "bootstrap.servers"
_HIDDEN: Final = "[hidden]"


class ClientConfig:
    """Typed, immutable settings of one client: `config["linger.ms"]`. Its repr hides secrets."""

    __slots__ = ("_definition", "_values", "given")

    def __init__(self, definition: ConfigDef, given: Mapping[str, ConfigValue]) -> None:
        """Take parsed values by dotted name; `load` makes them of what a user gives."""
        self._definition = definition
        # Names that were given, defaults not among them.
        self.given = frozenset(given)
        self._values: dict[str, ConfigValue] = {name: key.default for name, key in definition.items()} | dict(given)

    @classmethod
    def load(
        cls,
        definition: ConfigDef,
        bootstrap_servers: str | Iterable[str] | Mapping[str, Given] | None,
        keywords: Mapping[str, Given] | None = None,
    ) -> ClientConfig:
        """Read the first argument of a client and its keywords; a keyword goes before the same name in a mapping.

        Raises ConfigError for a bad value, a name that is not known, and a client without bootstrap servers.
        """
        texts: dict[str, Given] = {}
        if isinstance(bootstrap_servers, Mapping):
            texts.update((_dotted(name), value) for name, value in bootstrap_servers.items())
        elif isinstance(bootstrap_servers, str):
            texts[_BOOTSTRAP] = bootstrap_servers
        elif bootstrap_servers is not None:
            texts[_BOOTSTRAP] = list(bootstrap_servers)
        texts.update((_dotted(name), value) for name, value in (keywords or {}).items())
        parsed = {
            name: _parsed(definition, name, value)
            for name, value in texts.items()
            if value is not None and name not in WITHOUT_EFFECT
        }
        if not parsed.get(_BOOTSTRAP):
            raise ConfigError(
                "No bootstrap servers: give at least one broker, as in bootstrap_servers='127.0.0.1:9092'",
                name=_BOOTSTRAP,
            )
        return cls(definition, parsed)

    def __contains__(self, name: str) -> bool:
        """Whether this kind of client has a config of that name."""
        return name in self._values

    def __getitem__(self, name: str) -> ConfigValue:
        return self._values[name]

    def integer(self, name: str) -> int:
        """Return the value of an INT, SHORT or LONG config."""
        value = self._values[name]
        assert isinstance(value, int), (name, value)
        return value

    def number(self, name: str) -> float:
        """Return the value of a DOUBLE config."""
        value = self._values[name]
        assert isinstance(value, float), (name, value)
        return value

    def seconds(self, name: str) -> float:
        """Return a config in milliseconds as seconds."""
        return self.integer(name) / 1000

    def boolean(self, name: str) -> bool:
        """Return the value of a BOOLEAN config."""
        value = self._values[name]
        assert isinstance(value, bool), (name, value)
        return value

    def string(self, name: str) -> str:
        """Return the value of a STRING config that has one."""
        value = self._values[name]
        assert isinstance(value, str), (name, value)
        return value

    def string_or_none(self, name: str) -> str | None:
        """Return the value of a STRING or PASSWORD config, None where it has none."""
        value = self._values[name]
        assert value is None or isinstance(value, str), (name, value)
        return value

    def strings(self, name: str) -> list[str]:
        """Return the value of a LIST config."""
        value = self._values[name]
        assert isinstance(value, list), (name, value)
        return list(value)

    def __repr__(self) -> str:
        shown = (
            f"{name}={_HIDDEN if self._definition[name].sensitive else repr(self._values[name])}"
            for name in sorted(self.given)
        )
        return f"ClientConfig({', '.join(shown)})"


def _dotted(name: str) -> str:
    return name if "." in name else name.replace("_", ".")


def _parsed(definition: ConfigDef, name: str, given: Given) -> ConfigValue:
    if name in JAVA_ONLY:
        raise ConfigError(f"{name} has no meaning here: {JAVA_ONLY[name]}", name=name)
    if name not in definition:
        near = difflib.get_close_matches(name, definition, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"Unknown configuration: {name}{hint}", name=name)
    return definition.parse(name, _text(name, given))


def _text(name: str, given: Given) -> str:
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, str | int | float):
        return str(given)
    if isinstance(given, list | tuple) and all(isinstance(entry, str) for entry in given):
        return ",".join(given)
    shown = given if not isinstance(given, bytes) else "bytes"
    raise invalid_value(name, shown, "it is given as text, a number, True or False, or a list of texts")
