"""HOST:PORT as people write it, IPv6 in brackets included."""

from __future__ import annotations

import asyncio
import socket
from typing import Final, NamedTuple

PORT_DEFAULT: Final = 9092
_PORT_MAX: Final = 65_535


class Address(NamedTuple):
    """A host name or address without brackets, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, port_default: int | None = PORT_DEFAULT) -> Address:
    """Read `host:port`, `[v6]:port`, or a host alone where there is a default port. Raises ValueError."""
    text = text.strip()
    host, colon, port_text = text, "", ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no address: after an IPv6 address in brackets comes :PORT")
        colon, port_text = rest[:1], rest[1:]
    elif text.count(":") == 1:
        host, colon, port_text = text.partition(":")
    elif ":" in text:
        raise ValueError(f"{text!r} is no address: put an IPv6 address in brackets, as in [::1]:9092")
    if not host or any(character.isspace() or character in "/," for character in host):
        raise ValueError(f"{text!r} is no address: write HOST:PORT, for example 127.0.0.1:9092")
    if not colon:
        if port_default is None:
            raise ValueError(f"{text!r} has no port: write HOST:PORT, for example 127.0.0.1:9092")
        return Address(host, port_default)
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > _PORT_MAX:
        raise ValueError(f"{text!r} has no valid port: it is a number from 0 to {_PORT_MAX}")
    return Address(host, int(port_text))


def parse_bootstrap(text: str) -> list[Address]:
    """Read a comma-separated list of addresses; at least one. Raises ValueError."""
    addresses = [parse_address(part) for part in text.split(",") if part.strip()]
    if not addresses:
        raise ValueError("the list of bootstrap servers is empty: write HOST:PORT, for example 127.0.0.1:9092")
    return list(dict.fromkeys(addresses))


async def canonical_addresses(address: Address) -> list[Address]:
    """Return the canonical names behind every address of a name, for Kerberos behind one alias (KIP-235).

    Where a name or an address cannot be resolved it stays as it is: connecting to it will say why.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        ends = [(str(info[4][0]), int(info[4][1])) for info in found]
        names = [(await loop.getnameinfo(end, socket.NI_NAMEREQD))[0] for end in ends]
    except OSError:
        return [address]
    return [Address(name, address.port) for name in dict.fromkeys(names)]
