"""Load for a schema registry: connections that ask, wait for the answer, and ask again. Prints what it counted as JSON.

    python -m bench.load.registry get --url http://127.0.0.1:8081 --seconds 5 --connections 16

get       schemas by id, a hundred of them, over and over
first     schemas by id, each of them once per change: a config is set between rounds of ten thousand
register  schemas that are registered already, a hundred of them
new       schemas that nobody has registered
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import uvloop

KINDS = ("get", "first", "register", "new")
SUBJECTS = 1_000


def request(method: str, path: str, host: str, body: bytes = b"") -> bytes:
    """An HTTP/1.1 request as Confluent's clients send it."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/vnd.schemaregistry.v1+json\r\n"
    if body:
        head += f"Content-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def requests_of(kind: str, host: str) -> Iterator[bytes]:
    """What is asked, without an end."""
    from bench.registry import text

    if kind == "get":
        yield from itertools.cycle([request("GET", f"/schemas/ids/{1 + one * 97}", host) for one in range(100)])
    if kind == "first":
        for turn in itertools.count():
            body = json.dumps({"compatibility": "FULL" if turn % 2 else "BACKWARD"}).encode()
            yield request("PUT", "/config/changing", host, body)
            for one in range(10_000):
                yield request("GET", f"/schemas/ids/{1 + one}", host)
    if kind == "register":
        bodies = [(one, json.dumps({"schema": text(one)}).encode()) for one in range(100)]
        asked = [request("POST", f"/subjects/subject-{one % SUBJECTS}/versions", host, body) for one, body in bodies]
        yield from itertools.cycle(asked)
    unique = os.getpid() * 1_000_000
    for number in itertools.count(unique):
        body = json.dumps({"schema": text(number)}).encode()
        yield request("POST", f"/subjects/new-{number}/versions", host, body)


async def ask(host: str, port: int, asked: Iterator[bytes], until: float, took: list[float]) -> None:
    """One connection."""
    reader, writer = await asyncio.open_connection(host, port)
    for data in asked:
        started = time.perf_counter()
        # One answer at least, however slow the machine is.
        if took and started >= until:
            break
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{data[:200]!r} was answered {head!r}")
        at = head.lower().index(b"content-length:") + 15
        await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
        took.append(time.perf_counter() - started)
    writer.close()


async def run(kind: str, url: str, seconds: float, connections: int) -> dict[str, float]:
    """Ask for so long."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    took: list[float] = []
    asked = requests_of(kind, parts.netloc)
    started = time.perf_counter()
    until = started + seconds
    await asyncio.gather(*(ask(parts.hostname, parts.port, asked, until, took) for _ in range(connections)))
    took.sort()
    return {
        "requests": len(took),
        "seconds": time.perf_counter() - started,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args()
    print(json.dumps(uvloop.run(run(given.kind, given.url, given.seconds, given.connections))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
