"""`millstream produce`: lines of standard input or of a file become records."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from millstream.cli.options import (
    BOOTSTRAP_DEFAULT,
    TIMEOUT_DEFAULT_S,
    Bootstrap,
    CompressionName,
    Json,
    Timeout,
    client_settings,
    examples,
    pairs_of,
    run_client,
)
from millstream.cli.output import note, print_json, progress, rate_text
from millstream.cli.registry_options import (
    REGISTRY_DEFAULT,
    Registry,
    RegistryCa,
    ValueFormat,
    async_registry_client,
    registry_sentences,
    registry_settings,
)
from millstream.cli.schema_values import LineEncoder, line_encoder
from millstream.core.client.producer import Producer, RecordHandle
from millstream.core.config import PRODUCER_CONFIGS
from millstream.core.wire import KafkaError

_READ_BYTES: Final = 1024 * 1024
_LINE_BYTES_MAX: Final = 64 * 1024 * 1024
# Room for the longest line with what a record has beside it; how large a record may be is the broker's to say.
_REQUEST_BYTES_MAX: Final = _LINE_BYTES_MAX + 1024 * 1024
_BUFFER_BYTES: Final = 2 * _REQUEST_BYTES_MAX
_LINGER_MS: Final = 5


class Acks(StrEnum):
    """Who must have a record before it counts as written."""

    all = "all"
    one = "1"
    none = "0"


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "echo hello | millstream produce greetings",
            "millstream produce users --key-separator : < users.txt",
            "millstream produce events --file events.jsonl --compression zstd",
            "echo 'u42:<null>' | millstream produce users -K : --null '<null>'  # a tombstone",
            "millstream produce flights --value-serializer avro --value-schema flight.avsc < flights.jsonl",
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
    idempotent: Annotated[
        bool | None,
        typer.Option(
            "--idempotent/--no-idempotent", help="A retry never writes a record twice; so it is with --acks all."
        ),
    ] = None,
    batch_bytes: Annotated[
        int, typer.Option("--batch-bytes", metavar="BYTES", min=1, help="Close a batch at this size, uncompressed.")
    ] = 256 * 1024,
    key_serializer: Annotated[
        ValueFormat, typer.Option("--key-serializer", help="What becomes of keys; as --value-serializer.")
    ] = ValueFormat.bytes,
    value_serializer: Annotated[
        ValueFormat,
        typer.Option(
            "--value-serializer",
            help="What becomes of values, which are JSON then: written by the subject's latest schema, of whatever type"
            " with auto.",
        ),
    ] = ValueFormat.bytes,
    key_schema: Annotated[
        Path | None,
        typer.Option(
            "--key-schema", metavar="FILE", exists=True, dir_okay=False, help="Register this one for keys; use it."
        ),
    ] = None,
    value_schema: Annotated[
        Path | None,
        typer.Option(
            "--value-schema",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Register this one for values; use it.",
        ),
    ] = None,
    registry: Registry = REGISTRY_DEFAULT,
    registry_ca: RegistryCa = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Write records, one per line. A line that was typed is sent at once; a file goes in large batches."""
    if idempotent and acks is not Acks.all:
        raise typer.BadParameter("--idempotent needs --acks all", param_hint="--acks")
    headers = [(name, value.encode()) for name, value in _pairs(header or [])]
    wanted = (
        _Wanted("key", key_serializer, _schema_text(key_serializer, key_schema, "--key-schema")),
        _Wanted("value", value_serializer, _schema_text(value_serializer, value_schema, "--value-schema")),
    )
    source = os.open(file, os.O_RDONLY) if file is not None else sys.stdin.fileno()
    total = file.stat().st_size if file is not None and file.stat().st_size else None
    started = time.monotonic()

    lines = _Lines(key_separator.encode() if key_separator else None, None if null is None else null.encode())
    delivery_ms = max(_LINGER_MS + 1, int(timeout * 1000))
    settings = client_settings(
        PRODUCER_CONFIGS,
        bootstrap,
        timeout,
        acks=acks.value,
        enable_idempotence=acks is Acks.all if idempotent is None else idempotent,
        compression_type=compression.value,
        batch_size=batch_bytes,
        linger_ms=_LINGER_MS,
        max_request_size=_REQUEST_BYTES_MAX,
        buffer_memory=_BUFFER_BYTES,
        max_block_ms=delivery_ms,
        delivery_timeout_ms=delivery_ms,
        request_timeout_ms=delivery_ms - _LINGER_MS,
    )

    async def work() -> tuple[int, int]:
        async with Producer(settings) as producer:
            count = len(await producer.partitions_for(topic))
            if partition is not None and partition >= count:
                raise typer.BadParameter(
                    f"topic {topic!r} has no partition {partition}: it has {count}, from 0 on",
                    param_hint="--partition",
                )
            async with _encoders(registry_settings(registry, registry_ca, timeout), topic, wanted) as encoders:
                sending = _Sending(producer, topic, partition, lines, headers, encoders)
                return await _send_lines(source, total, sending)

    try:
        records, size_bytes = run_client(work())
    finally:
        if file is not None:
            os.close(source)
    seconds = time.monotonic() - started
    if as_json:
        print_json({"topic": topic, "records": records, "bytes": size_bytes, "seconds": round(seconds, 3)})
    elif not quiet:
        note(f"produced {rate_text(records, size_bytes, seconds)}")


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


class _Wanted(NamedTuple):
    """What becomes of keys or of values, and the schema to register for it."""

    field: str
    format: ValueFormat
    schema_text: str | None


@asynccontextmanager
async def _encoders(
    settings: dict[str, Any], topic: str, wanted: Sequence[_Wanted]
) -> AsyncIterator[dict[str, LineEncoder] | None]:
    """What encodes keys and values, by field; None where lines are written as they are."""
    if all(one.format is ValueFormat.bytes for one in wanted):
        yield None
        return
    with registry_sentences():
        async with async_registry_client(settings) as registry:
            yield {
                one.field: await line_encoder(registry, one.format, topic, one.field, one.schema_text)
                for one in wanted
                if one.format is not ValueFormat.bytes
            }


def _schema_text(wanted: ValueFormat, file: Path | None, hint: str) -> str | None:
    if file is None:
        return None
    if wanted in {ValueFormat.bytes, ValueFormat.auto}:
        raise typer.BadParameter(
            f"say what it is a schema for: {hint.replace('schema', 'serializer')}", param_hint=hint
        )
    return file.read_text(encoding="utf-8")


def _pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Read the headers, in their order; a name may come twice. Raises BadParameter."""
    return [pair for text in texts for pair in pairs_of([text], "--header").items()]


class _Sending:
    """Makes lines into records, and remembers the first one that was refused."""

    def __init__(
        self,
        producer: Producer,
        topic: str,
        partition: int | None,
        lines: _Lines,
        headers: Sequence[tuple[str, bytes]],
        encoders: dict[str, LineEncoder] | None = None,
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._partition = partition
        self._lines = lines
        self._headers = tuple(headers)
        self._encoders = encoders
        self._error: KafkaError | None = None

    async def send(self, lines: Sequence[bytes]) -> None:
        """Send `lines`, waiting for room. Raises KafkaError for an earlier record that was refused too."""
        split, topic, partition, headers = self._lines.split, self._topic, self._partition, self._headers
        send_soon, ended = self._producer.send_soon, self._note_end
        for line in lines:
            key, value = split(line)
            if self._encoders is not None:
                key, value = await self._encoded("key", key), await self._encoded("value", value)
            handle = await send_soon(topic, value, key=key, partition=partition, headers=headers)
            handle.add_done_callback(ended)
        if self._error is not None:
            raise self._error

    async def _encoded(self, field: str, data: bytes | None) -> bytes | None:
        assert self._encoders is not None, "asked only where there are some"
        encoder = self._encoders.get(field)
        return data if encoder is None else await encoder(data)

    async def finish(self) -> None:
        """Wait until every record is written. Raises KafkaError for the first one that is not."""
        await self._producer.flush()
        await self.send(())

    def _note_end(self, handle: RecordHandle) -> None:
        if self._error is None:
            error = handle.exception()
            assert error is None or isinstance(error, KafkaError), error
            self._error = error


async def _send_lines(source: int, total: int | None, sending: _Sending) -> tuple[int, int]:
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
            await sending.send(lines)
            records += len(lines)
            size_bytes += len(chunk)
            advance(len(chunk))
        if rest:
            await sending.send([rest])
            records += 1
        await sending.finish()
    return records, size_bytes
