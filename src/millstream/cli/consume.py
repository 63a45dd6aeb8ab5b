"""`millstream consume`: records to standard output, up to what is there now, or for ever."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, TypeAlias

import typer

from millstream.cli.errors import CommandError
from millstream.cli.options import (
    BOOTSTRAP_DEFAULT,
    TIMEOUT_DEFAULT_S,
    Bootstrap,
    Json,
    Timeout,
    client_settings,
    examples,
    on_cluster,
    partitions_of,
    run_client,
)
from millstream.cli.output import fail, note, rate_text
from millstream.cli.registry_options import (
    REGISTRY_DEFAULT,
    Registry,
    RegistryCa,
    ValueFormat,
    async_registry_client,
    registry_sentences,
    registry_settings,
)
from millstream.cli.schema_values import DecodedRecord, JsonText, RecordDecoder
from millstream.cli.times import parse_time, time_text
from millstream.core.client import EARLIEST, LATEST, Client, TopicPartition, list_offsets
from millstream.core.client.consumer import Consumer, ConsumerRecord
from millstream.core.config import CONSUMER_CONFIGS
from millstream.core.wire import ErrorCode, KafkaError

_FIELDS: Final = ("topic", "partition", "offset", "timestamp", "time", "key", "value", "headers")
_ESCAPES: Final = {r"\t": "\t", r"\n": "\n", r"\0": "\0", r"\\": "\\"}

_RECORDS_AT_ONCE: Final = 5_000
_POLL_S: Final = 0.25  # between looks at the clock

# Turns a record into the bytes that are printed for it, its end included.
_Record: TypeAlias = ConsumerRecord | DecodedRecord
_Formatter: TypeAlias = Callable[[_Record], bytes]


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "millstream consume flights --max-messages 5",
            "millstream consume flights --follow --format '{time} {key}: {value}'",
            "millstream consume flights --partition 0 --offset 1000 --json | jq .value",
            "millstream consume flights --from-time 2026-03-01T00:00:00Z",
            "millstream consume flights --group loaders --follow  # goes on where the group left off",
            "millstream consume flights --value-deserializer avro --registry http://127.0.0.1:8081",
        )
    )(consume)


def consume(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="What to read.")],
    partition: Annotated[
        list[int] | None, typer.Option("--partition", "-p", metavar="N", help="Only this one; repeatable.")
    ] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="From the first record; so it is without --follow.")
    ] = False,
    offset: Annotated[
        int | None,
        typer.Option(
            "--offset", "-o", metavar="N", help="From this offset in each partition; -N: from N before the end."
        ),
    ] = None,
    from_time: Annotated[
        str | None, typer.Option("--from-time", metavar="WHEN", help="From this date, or milliseconds since 1970.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group", "-g", metavar="GROUP", help="As a member of this group: from where it left off; commits."
        ),
    ] = None,
    max_messages: Annotated[
        int | None, typer.Option("--max-messages", "-n", metavar="N", min=1, help="Stop after so many.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-F", help="Wait for new records, from the end on unless told otherwise.")
    ] = False,
    text_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="TEXT",
            help="What to print per record: {topic} {partition} {offset} {timestamp} {time} {key} {value} {headers}, "
            r"\t, \n. The value and a line end otherwise.",
        ),
    ] = None,
    read_committed: Annotated[
        bool, typer.Option("--read-committed", help="No records of aborted or open transactions.")
    ] = False,
    key_deserializer: Annotated[
        ValueFormat, typer.Option("--key-deserializer", help="What keys are; as --value-deserializer.")
    ] = ValueFormat.bytes,
    value_deserializer: Annotated[
        ValueFormat,
        typer.Option(
            "--value-deserializer",
            help="What values are: shown as JSON, by the schema they name; auto: whatever the registry says it is.",
        ),
    ] = ValueFormat.bytes,
    registry: Registry = REGISTRY_DEFAULT,
    registry_ca: RegistryCa = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT_S,
    as_json: Json = False,
) -> None:
    """Print the records that are there now, or with --follow also those to come.

    Order holds within a partition. With --json a record is an object on a line;
    keys and values that are no UTF-8 text become {"base64": ...} there.

    With --group the partitions are shared with the group's other members, and
    what was printed is committed. A new group starts at the first record, or
    with --follow at the end.
    """
    if from_beginning + (offset is not None) + (from_time is not None) > 1:
        raise typer.BadParameter("give one of --from-beginning, --offset, --from-time")
    if as_json and text_format is not None:
        raise typer.BadParameter("--json and --format exclude each other", param_hint="--format")
    if group is not None and (partition or offset is not None or from_time is not None):
        raise typer.BadParameter(
            "a group decides on partitions and offsets: without --partition, --offset, --from-time",
            param_hint="--group",
        )
    formatter = _json_line if as_json else value_line if text_format is None else compile_format(text_format)
    start_time = None if from_time is None else parse_time(from_time)
    if offset is None and start_time is None:
        start_time = LATEST if follow and not from_beginning else EARLIEST
    settings = client_settings(
        CONSUMER_CONFIGS,
        bootstrap,
        timeout,
        group_id=group,
        auto_offset_reset="latest" if start_time == LATEST else "earliest",
        isolation_level="read_committed" if read_committed else None,
        allow_auto_create_topics=False,
    )
    reading = _Reading(formatter, max_messages)

    async def find(client: Client) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        wanted = await partitions_of(client, topic, partition)
        return await _range(client, wanted, start_time, offset, read_committed) if group is None else ({}, {})

    async def read(starts: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> None:
        decoding = _decoder(registry_settings(registry, registry_ca, timeout), key_deserializer, value_deserializer)
        async with Consumer(settings) as consumer, decoding as reading.decoder:
            if group is not None:
                consumer.subscribe([topic])
            else:
                consumer.assign(starts)
                for tp, start in starts.items():
                    consumer.seek(tp, start)
            await _read(consumer, reading, None if follow else ends, timeout)

    started = time.monotonic()
    try:
        run_client(read(*on_cluster(bootstrap, timeout, find)))
    finally:
        if sys.stderr.isatty() and not quiet:
            note(f"consumed {rate_text(reading.records, reading.bytes_written, time.monotonic() - started)}")


async def _read(
    consumer: Consumer, reading: _Reading, ends: dict[TopicPartition, int] | None, timeout_s: float
) -> None:
    """Print records up to `ends`, those of a group's partitions being looked up as they come; None: for ever."""
    heard = time.monotonic()
    while not reading.is_complete:
        if ends is not None:
            assigned = consumer.assignment()
            if new := assigned - ends.keys():
                ends.update(await consumer.end_offsets(new))
            done = {tp for tp in assigned if (at := consumer.position(tp)) is not None and at >= ends[tp]}
            if assigned and done == assigned:
                return
            # What is written meanwhile waits for the next time.
            consumer.pause(*done)
        records = await consumer.poll_records(_POLL_S, reading.records_wanted)
        if records:
            heard = time.monotonic()
            try:
                await reading.write(records, ends)
            except CommandError:
                # A group goes on with the first one that was not printed.
                for record in reversed(reading.unprinted):
                    consumer.seek(TopicPartition(record.topic, record.partition), record.offset)
                raise
        elif ends is not None and time.monotonic() - heard > timeout_s:
            what = "no record came" if consumer.assignment() else "the group gave this member no partition"
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, f"{what} within {timeout_s:g} s; `--timeout` waits longer")


class _Reading:
    """Writes records to standard output and counts them, up to a number of them."""

    def __init__(self, formatter: _Formatter, records_max: int | None) -> None:
        self._formatter = formatter
        self._records_max = records_max
        self.decoder: RecordDecoder | None = None
        # What was polled and could not be printed.
        self.unprinted: list[ConsumerRecord] = []
        self.records = 0
        self.bytes_written = 0

    @property
    def is_complete(self) -> bool:
        return self._records_max is not None and self.records >= self._records_max

    @property
    def records_wanted(self) -> int:
        """How many to ask for next."""
        left = _RECORDS_AT_ONCE if self._records_max is None else self._records_max - self.records
        return min(left, _RECORDS_AT_ONCE)

    async def write(self, records: Iterable[ConsumerRecord], ends: Mapping[TopicPartition, int] | None) -> None:
        """Print `records`, but for those behind their partition's end. Raises CommandError for one without a schema."""
        formatter = self._formatter
        wanted = [
            record
            for record in records
            if ends is None or record.offset < ends.get((record.topic, record.partition), math.inf)  # type: ignore[call-overload]
        ]
        lines: list[bytes] = []
        try:
            for record in wanted:
                shown: _Record = record if self.decoder is None else await self.decoder.decoded(record)
                lines.append(formatter(shown))
        finally:
            self.unprinted = wanted[len(lines) :]
            self._print(lines)

    def _print(self, lines: list[bytes]) -> None:
        if lines:
            data = b"".join(lines)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            self.records += len(lines)
            self.bytes_written += len(data)


async def _range(
    client: Client, wanted: list[TopicPartition], start_time: int | None, offset: int | None, read_committed: bool
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Return where each partition is read from, and where it ends now."""
    last = await list_offsets(client, dict.fromkeys(wanted, LATEST), read_committed=read_committed)
    ends = {tp: found.offset for tp, found in last.items()}
    if start_time is None:
        assert offset is not None, "either a time or an offset is given"
        first = {
            tp: found.offset for tp, found in (await list_offsets(client, dict.fromkeys(wanted, EARLIEST))).items()
        }
        if offset > max(ends.values(), default=offset):
            fail(f"offset {offset} is past the end of {wanted[0].topic}; `millstream offsets` shows what is there")
        return {tp: max(first[tp], offset if offset >= 0 else ends[tp] + offset) for tp in wanted}, ends
    if start_time == LATEST:
        return dict(ends), ends
    found_first = await list_offsets(client, dict.fromkeys(wanted, start_time))
    return {tp: at.offset if at.offset >= 0 else ends[tp] for tp, at in found_first.items()}, ends


@asynccontextmanager
async def _decoder(
    settings: dict[str, Any], key: ValueFormat, value: ValueFormat
) -> AsyncIterator[RecordDecoder | None]:
    """What makes JSON of keys and values; None where they are printed as they are."""
    if key is value is ValueFormat.bytes:
        yield None
        return
    with registry_sentences():
        async with async_registry_client(settings) as registry:
            yield RecordDecoder(registry, key, value)


def value_line(record: _Record) -> bytes:
    """The value and a line end."""
    return bytes(record.value or b"") + b"\n"


def compile_format(text: str) -> _Formatter:
    r"""Return the formatter of a text with {fields}, \t and \n. Raises BadParameter for a field that does not exist."""
    pieces: list[str | bytes] = []
    for part in re.split(r"(\{\w*\}|\\.)", text):
        if part.startswith("{"):
            if part[1:-1] not in _FIELDS:
                raise typer.BadParameter(
                    f"there is no field {part}; there are {', '.join('{' + name + '}' for name in _FIELDS)}",
                    param_hint="--format",
                )
            pieces.append(part[1:-1])
        elif part:
            pieces.append(_ESCAPES.get(part, part).encode())
    pieces.append(b"\n")

    def formatted(record: _Record) -> bytes:
        return b"".join(piece if isinstance(piece, bytes) else _field(piece, record) for piece in pieces)

    return formatted


def _field(name: str, record: _Record) -> bytes:
    if name == "key":
        return bytes(record.key or b"")
    if name == "value":
        return bytes(record.value or b"")
    if name == "headers":
        return b",".join(_header_name(key) + b"=" + bytes(value or b"") for key, value in record.headers)
    values: dict[str, object] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "time": time_text(record.timestamp) or "",
    }
    return str(values[name]).encode()


def _json_line(record: _Record) -> bytes:
    line: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": _json_bytes(record.key),
        "value": _json_bytes(record.value),
    }
    if record.headers:
        line["headers"] = [
            [_header_name(name).decode(errors="replace"), _json_bytes(value)] for name, value in record.headers
        ]
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _json_bytes(data: bytes | memoryview | None) -> object:
    if data is None:
        return None
    if isinstance(data, JsonText):
        return json.loads(data)
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _header_name(name: str | bytes | memoryview) -> bytes:
    return name.encode() if isinstance(name, str) else bytes(name)
