"""The schema registry under load, over HTTP, with 10,000 schemas in its topic.

    python -m bench.registry                                    every row, three rounds
    python -m bench.registry --rows get,register --rounds 1
    python -m bench.registry --write-doc docs/performance.md    put the table into its section of the page

Registry and broker are processes of their own; the load is another one (`bench/load/registry.py`), 16 connections that
each wait for their answer. CPU is the kernel's figure of the registry's process. There is no peer here: Karapace is not
on PyPI, Confluent's registry (io.confluent) is not on Maven Central.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.load import report
from bench.load.brokers import cpu_seconds, peak_memory_mb
from bench.load.report import Measured, Target

from millstream.cli.child import RegistryProcess
from millstream.core.client import Producer
from millstream.schemas.server.content import Content
from millstream.schemas.server.records import Key, KeyType, SchemaRecord, encode_value
from millstream.testing import TestBroker, broker
from millstream.testing.kafka import wait_until

SCHEMAS = 10_000
SUBJECTS = 1_000
TOPIC = "_schemas"
SECTION = "registry"
CONNECTIONS = 16
SETTINGS = {"kafkastore.topic.replication.factor": "1", "kafkastore.topic": TOPIC, "log.level": "WARNING"}


def text(number: int) -> str:
    """A schema of ten fields, about 600 bytes, as the registry stores it."""
    fields = [{"name": f"field_{number}_{one}", "type": ["null", "string"], "default": None} for one in range(10)]
    record = {"type": "record", "name": f"Record{number}", "namespace": "bench", "fields": fields}
    return json.dumps(record, separators=(",", ":"))


async def fill(bootstrap: str) -> None:
    """Put SCHEMAS schemas into the topic, as a registry would have."""
    async with Producer(bootstrap, linger_ms=20) as producer:
        for number in range(SCHEMAS):
            key = Key(KeyType.SCHEMA, f"subject-{number % SUBJECTS}", number // SUBJECTS + 1)
            value = encode_value(key, SchemaRecord(number + 1, Content("AVRO", text(number)), deleted=False))
            await producer.send_soon(TOPIC, value, key=key.encoded(), partition=0)
        await producer.flush(60)


class Bench:
    """One registry on one broker, and what was measured."""

    def __init__(self, rounds: int, seconds: float, work: Path) -> None:
        self.rounds = rounds
        self.seconds = seconds
        self.work = work
        self.measured: list[Measured] = []

    def start(self, kafka: TestBroker) -> RegistryProcess:
        """Start a registry on the topic."""
        return RegistryProcess(kafka.bootstrap_servers, config=SETTINGS, output=self.work / "registry.txt")

    def note(self, row: str, number: int, figures: Mapping[str, float]) -> None:
        """Keep a round's figures, and show them."""
        self.measured.append(Measured(row, "millstream", number, figures))
        print(f"{row:10} round {number + 1}: {report.brief(figures)}", flush=True)


def loaded(kind: str) -> Callable[[Bench, TestBroker, str], None]:
    """Return a row that asks one kind of question."""

    def run(bench: Bench, kafka: TestBroker, row: str) -> None:
        running = bench.start(kafka)
        try:
            wait_until(lambda: leads(running), 60, "the registry leads")
            load(running, kind, seconds=2.0)
            for number in range(bench.rounds):
                before = cpu_seconds(running.pid)
                found = load(running, kind, seconds=bench.seconds)
                used = cpu_seconds(running.pid) - before
                figures = {
                    "requests per CPU-second": found["requests"] / used,
                    "requests/s": found["requests"] / found["seconds"],
                    "p50 ms": found["p50_ms"],
                    "p99 ms": found["p99_ms"],
                }
                bench.note(row, number, figures)
        finally:
            running.stop()

    return run


def leads(running: RegistryProcess) -> bool:
    """Whether a registry may write by now: the one before it has to be given up first."""
    with urllib.request.urlopen(f"{running.url}/healthz") as response:
        return bool(json.loads(response.read())["is_leader"])


def load(running: RegistryProcess, kind: str, *, seconds: float) -> dict[str, float]:
    """Run the load as a process of its own; return what it counted."""
    words = ("--url", running.url, "--seconds", str(seconds), "--connections", str(CONNECTIONS))
    command = [sys.executable, "-m", "bench.load.registry", kind, *words]
    # What it complains of is seen by whoever runs the benchmark.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def begin(bench: Bench, kafka: TestBroker, row: str) -> None:
    """From the start of the process until it serves, the topic read, and what it takes then."""
    for number in range(bench.rounds):
        started = time.monotonic()
        running = bench.start(kafka)
        try:
            figures = {
                "seconds": time.monotonic() - started,
                "CPU-seconds": cpu_seconds(running.pid),
                "peak memory MB": peak_memory_mb(running.pid),
            }
            bench.note(row, number, figures)
        finally:
            running.stop()


ROWS: dict[str, tuple[str, Callable[[Bench, TestBroker, str], None], tuple[Target, ...]]] = {
    "start": (
        f"start on a topic of {SCHEMAS:,} schemas",
        begin,
        (Target("seconds", "<=", 2, absolute=True), Target("peak memory MB", "<=", 150, absolute=True)),
    ),
    "get": (
        "GET a schema by id, asked for before",
        loaded("get"),
        (Target("requests per CPU-second", ">=", 3_000, absolute=True), Target("p99 ms", "<=", 10, absolute=True)),
    ),
    "first": ("GET a schema by id, for the first time since something changed", loaded("first"), ()),
    "register": (
        "POST a schema that is there already",
        loaded("register"),
        (Target("requests per CPU-second", ">=", 1_500, absolute=True), Target("p99 ms", "<=", 10, absolute=True)),
    ),
    "new": ("POST a new schema, written and read back", loaded("new"), ()),
}


def lines_of(bench: Bench, seconds: float) -> list[str]:
    """The lines of the page's section."""
    lines = [
        "Written by `python -m bench.registry --write-doc docs/performance.md`; medians of the rounds. The load is",
        f"{CONNECTIONS} connections that each wait for their answer; Millstream's broker keeps the topic. There is no",
        "peer: Karapace is not on PyPI, Confluent's registry (io.confluent) is not on Maven Central.",
        "",
        f"Machine: {report.machine()}. The run took {seconds / 60:.0f} minutes.",
        "",
        "| work | figure | Millstream | target | met |",
        "|---|---|--:|--:|---|",
    ]
    for name, (title, _, targets) in ROWS.items():
        rounds = [one.figures for one in bench.measured if one.row == name]
        for figure in rounds[0] if rounds else ():
            value = statistics.median(one[figure] for one in rounds)
            target = next((one for one in targets if one.figure == figure), None)
            met = "" if target is None else "yes" if target.met(value) else "no"
            lines.append(f"| {title} | {figure} | {report.number(value)} | {target or ''} | {met} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--write-doc", type=Path, help="put the table into its section of this page")
    given = parser.parse_args()
    names = given.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    work = Path(tempfile.mkdtemp(prefix="millstream-bench-registry-"))
    bench = Bench(given.rounds, given.seconds, work)
    started = time.monotonic()
    try:
        with broker() as kafka:
            RegistryProcess(kafka.bootstrap_servers, config=SETTINGS, output=work / "first.txt").stop()
            asyncio.run(fill(kafka.bootstrap_servers))
            for name in names:
                ROWS[name][1](bench, kafka, name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    lines = lines_of(bench, time.monotonic() - started)
    print("\n".join(lines[6:]))
    if given.write_doc:
        report.replace_section(given.write_doc, SECTION, "Schema registry", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
