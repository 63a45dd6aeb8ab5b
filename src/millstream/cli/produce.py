"""`millstream produce`: lines of standard input or of a file become records."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from millstream.cli.options import (
    BOOTSTRAP_DEFAULT,
    TIMEOUT_DEFAULT_S,
    Bootstrap,
    CompressionName,
    Json,
    Timeout,
    examples,
    on_cluster,
    pairs_of,
)
from millstream.cli.output import note, print_json, progress, rate_text
from millstream.core.client import BatchWriter, Client, KeylessPartitioner, TopicPartition, partition_of_key
from millstream.core.records import Compression

_READ_BYTES: Final = 1024 * 1024
_LINE_BYTES_MAX: Final = 64 * 1024 * 1024


class Acks(StrEnum):
    """Who must have a record before it counts as written."""

    all = "all"
    one = "1"
    none = "0"


_ACKS: Final = {Acks.all: -1, Acks.one: 1, Acks.none: 0}


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "echo hello | millstream produce greetings",
            "millstream produce users --key-separator : < users.txt",
            "millstream produce events --file events.jsonl --compression zstd --idempotent",
            "echo 'u42:<null>' | millstream produce users -K : --null '<null>'  # a tombstone",
        )
    )(produce)


def produce(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Where to; created if the cluster creates topics.")],
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", exists=True, dir_okay=False, help="Read it; standard input otherwise."
        ),
    ] = None,
    key_separator: Annotated[
        str | None,
        typer.Option("--key-separator", "-K", metavar="TEXT", help="What divides a line into key and value."),
    ] = None,
    null: Annotated[
        str | None,
        typer.Option("--null", metavar="TEXT", help="What stands for a null key or value (a tombstone)."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME=VALUE", help="A header of every record; may be repeated."),
    ] = None,
    partition: Annotated[
        int | None, typer.Option("--partition", "-p", metavar="N", min=0, help="Only to this one; by key otherwise.")
    ] = None,
    compression: Annotated[
        CompressionName, typer.Option("--compression", "-z", help="Codec of the batches.")
    ] = CompressionName.none,
    acks: Annotated[
        Acks, typer.Option("--acks", help="all: every in-sync replica, 1: the leader, 0: nobody.")
    ] = Acks.all,
    idempotent: Annotated[bool, typer.Option("--idempotent", help="A retry never writes a record twice.")] = False,
    batch_bytes: Annotated[
        int, typer.Option("--batch-bytes", metavar="BYTES", min=1, help="Close a batch at this size, uncompressed.")
    ] = 256 * 1024,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Write records, one per line. A line that was typed is sent at once; a file goes in large batches."""
    if idempotent and acks is not Acks.all:
        raise typer.BadParameter("--idempotent needs --acks all", param_hint="--acks")
    headers = [(name, value.encode()) for name, value in _pairs(header or [])]
    source = os.open(file, os.O_RDONLY) if file is not None else sys.stdin.fileno()
    total = file.stat().st_size if file is not None and file.stat().st_size else None
    started = time.monotonic()

    async def work(client: Client) -> tuple[int, int]:
        info = (await client.metadata([topic], auto_create=True)).topics.get(topic)
        count = len(info.partitions) if info is not None else 0
        if not count:
            count = await _partitions_once_created(client, topic)
        async with BatchWriter(
            client,
            acks=_ACKS[acks],
            idempotent=idempotent,
            compression=Compression[compression.name.upper()],
            batch_bytes=batch_bytes,
            delivery_timeout_ms=int(timeout * 1000),
        ) as producer:
            lines = _Lines(key_separator.encode() if key_separator else None, None if null is None else null.encode())
            send = _line_sender(producer, topic, count, partition, lines, headers, batch_bytes)
            return await _send_lines(source, total, producer, send)

    try:
        records, size_bytes = on_cluster(bootstrap, timeout, work)
    finally:
        if file is not None:
            os.close(source)
    seconds = time.monotonic() - started
    if as_json:
        print_json({"topic": topic, "records": records, "bytes": size_bytes, "seconds": round(seconds, 3)})
    elif not quiet:
        note(f"produced {rate_text(records, size_bytes, seconds)}")


async def _partitions_once_created(client: Client, topic: str) -> int:
    """Wait until a topic that is being created has its partitions; return how many. Raises KafkaError."""

    async def ask() -> int:
        return len((await client.metadata([topic], auto_create=True)).topic(topic).partitions)

    return await client.retried(ask)


class _Lines(NamedTuple):
    """How a line is read: what divides key from value, and which text stands for null."""

    separator: bytes | None
    null: bytes | None

    def split(self, line: bytes) -> tuple[bytes | None, bytes | None]:
        """Return key and value."""
        key, value = None, line
        if self.separator is not None:
            head, found, tail = line.partition(self.separator)
            if found:
                key, value = head, tail
        if self.null is None:
            return key, value
        return None if key == self.null else key, None if value == self.null else value


def _pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Read the headers, in their order; a name may come twice. Raises BadParameter."""
    return [pair for text in texts for pair in pairs_of([text], "--header").items()]


def _line_sender(
    producer: BatchWriter,
    topic: str,
    count: int,
    partition: int | None,
    lines: _Lines,
    headers: Sequence[tuple[str, bytes]],
    batch_bytes: int,
) -> Callable[[bytes], None]:
    """Return what turns one line into a record: the choice of partition is made once, not per line."""
    partitions = [TopicPartition(topic, index) for index in range(max(count, (partition or 0) + 1))]
    keyless = KeylessPartitioner(count, bytes_each=batch_bytes)

    def send(line: bytes) -> None:
        key, value = lines.split(line)
        if partition is not None:
            chosen = partition
        elif key is not None:
            chosen = partition_of_key(key, count)
        else:
            chosen = keyless.partition(len(value or b""))
        producer.append(partitions[chosen], key, value, headers=headers)

    return send


async def _send_lines(
    source: int, total: int | None, producer: BatchWriter, send: Callable[[bytes], None]
) -> tuple[int, int]:
    """Read `source` to its end, off the loop, and send its lines; return how many, and their bytes."""
    records = size_bytes = 0
    rest = b""
    watched = total is not None or not sys.stdin.isatty()
    with progress("producing", total, unit="bytes", shown=watched) as advance:
        while chunk := await asyncio.to_thread(os.read, source, _READ_BYTES):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            if len(rest) > _LINE_BYTES_MAX:
                raise typer.BadParameter(f"line {records + len(lines) + 1} is longer than {_LINE_BYTES_MAX:,} bytes")
            for line in lines:
                send(line)
            records += len(lines)
            size_bytes += len(chunk)
            if len(chunk) < _READ_BYTES:
                # The writer paused (a person, a slow program): what is there is sent now.
                producer.close_batches()
            await producer.room()
            advance(len(chunk))
        if rest:
            send(rest)
            records += 1
        await producer.flush()
    return records, size_bytes
