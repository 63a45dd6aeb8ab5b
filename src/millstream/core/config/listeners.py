"""Listeners: the sockets a broker serves clients on, and the addresses it tells them.

    listeners              PLAINTEXT://host:port, NAME://:port (every address), ...   what is bound; port 0 picks one
    advertised.listeners   the same names with the host and port that clients can reach

Every name has a security protocol, by `listener.security.protocol.map` or because it is one.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from millstream.core.config.definition import ConfigError, invalid_value

SECURITY_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SERVED_PROTOCOLS: Final = ("PLAINTEXT",)
WILDCARD_HOSTS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, never bound by default

_LISTENER: Final = re.compile(
    r"(?P<name>[A-Za-z0-9_.-]+)://(?:\[(?P<v6>[0-9a-fA-F:.%]*)\]|(?P<host>[^\[\]:/]*)):(?P<port>[0-9]{1,5})\Z"
)


class Listener(NamedTuple):
    """A named endpoint. `host` is "" for every address, an IPv6 host has no brackets."""

    name: str
    security_protocol: str
    host: str
    port: int

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every address of the machine."""
        return self.host in WILDCARD_HOSTS

    @property
    def is_public(self) -> bool:
        """Whether others than this machine may reach it: nothing authenticates them on a PLAINTEXT listener."""
        return not (self.host == "localhost" or self.host == "::1" or self.host.startswith("127."))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name}://{host}:{self.port}"


def parse_protocol_map(name: str, entries: Sequence[str] | str) -> dict[str, str]:
    """Return listener names and their security protocols; raises ConfigError."""
    pairs = [entry.strip() for entry in entries.split(",")] if isinstance(entries, str) else entries
    protocols: dict[str, str] = {}
    for entry in pairs:
        listener, colon, protocol = entry.partition(":")
        listener = listener.strip().upper()
        if not colon or not listener:
            raise invalid_value(name, entry, "expected LISTENER:PROTOCOL")
        if protocol.strip() not in SECURITY_PROTOCOLS:
            raise invalid_value(name, entry, f"{protocol.strip()} is none of {', '.join(SECURITY_PROTOCOLS)}")
        if listener in protocols:
            raise invalid_value(name, entry, f"{listener} comes twice")
        protocols[listener] = protocol.strip()
    return protocols


def parse_listeners(
    name: str, entries: Iterable[str], protocols: Mapping[str, str], *, bound: bool
) -> tuple[Listener, ...]:
    """Return the listeners of a config's entries; raises ConfigError.

    `bound` ones must differ in their ports (but for 0, and for one port on an IPv4 and an IPv6 address).
    """
    listeners: list[Listener] = []
    for entry in entries:
        match = _LISTENER.match(entry)
        if match is None:
            raise invalid_value(name, entry, "expected NAME://HOST:PORT, an IPv6 HOST in brackets")
        listener_name, port = match["name"].upper(), int(match["port"])
        if port > 65535:
            raise invalid_value(name, entry, f"{port} is no port")
        protocol = protocols.get(listener_name)
        if protocol is None:
            raise invalid_value(
                name, entry, f"listener.security.protocol.map gives {listener_name} no security protocol"
            )
        host = match["v6"] if match["v6"] is not None else match["host"]
        listener = Listener(listener_name, protocol, host, port)
        for other in listeners:
            if other.name == listener.name:
                raise invalid_value(name, entry, f"the listener name {listener.name} comes twice")
            if bound and port and other.port == port and not _other_family(other.host, host):
                raise invalid_value(name, entry, f"port {port} comes twice")
        listeners.append(listener)
    if not listeners:
        raise ConfigError(
            f"{name} names no listener for clients; give one such as PLAINTEXT://127.0.0.1:9092", name=name
        )
    return tuple(listeners)


def _other_family(one: str, other: str) -> bool:
    return bool(one) and bool(other) and (":" in one) != (":" in other)


def parse_host_port(text: str) -> tuple[str, int]:
    """Return the host, "" for every address, and the port of HOST:PORT, an IPv6 HOST in brackets; raises ValueError."""
    match = _LISTENER.match(f"HTTP://{text}")
    if match is None or int(match["port"]) > 65535:
        raise ValueError("expected HOST:PORT, an IPv6 HOST in brackets")
    return match["v6"] if match["v6"] is not None else match["host"], int(match["port"])


def parse_address_limits(text: str) -> dict[str, int]:
    """Return the numbers of ADDRESS:COUNT,ADDRESS:COUNT by address; raises ValueError.

    A host's name is refused: it would have to be looked up for each connection, and one that cannot be found would
    silently have no limit.
    """
    limits: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        address, colon, count = entry.rpartition(":")
        if not colon or not (count.isascii() and count.isdigit()):
            raise ValueError(f"{entry} is not ADDRESS:COUNT")
        address = address.strip().strip("[]")
        # Without `ipaddress`, whose import costs every start two milliseconds.
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            packed = socket.inet_pton(family, address)
        except OSError as error:
            raise ValueError(f"{address} is no address; give the address in place of a name") from error
        limits[socket.inet_ntop(family, packed)] = int(count)
    return limits
