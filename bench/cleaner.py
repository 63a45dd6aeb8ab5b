"""The log cleaner beside Apache Kafka's, on the same files: `python -m bench.cleaner`.

    python -m bench.cleaner --quick                           a tenth of the bytes, about a minute
    python -m bench.cleaner --write-doc docs/performance.md   put the table into its section of the page

One partition of 2 GB: records of 100 B in batches of a thousand, uncompressed, with a tenth as many keys as records,
drawn at random. The files are made once and given to each broker, stopped, as the partition's folder; started again,
it serves the partition with min.cleanable.dirty.ratio=1, which no log exceeds. Then the topic gets 0, and the cleaner
works until its checkpoint says that everything but the active segment is clean.

    CPU             the broker's, all threads, over the cleaning, less what it used in as long a time before
    passes          how often the log was gone through: the map of keys holds 24 bytes a key, and 10 % stay free
    memory          the broker's peak before, and what the cleaning added to it
    latency         of a client in a process of its own that sends a record every 2 ms to another topic (acks=1) and
                    waits for each: over 8 s without cleaning before and 8 s behind, and while the log is cleaned

Each broker does that three times for each map, started anew; the table has the medians. One p99 says little: a machine
that does something else for a moment, be it its host, makes it several times as long, with cleaning or without.

Kafka has the JVM settings of its own start script and 1 GB of heap. Needs about 7 GB in the temporary directory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from bench.load import report
from bench.load.brokers import Kafka, Millstream, Served, cpu_seconds, peak_memory_mb, remove, start
from bench.load.fill import forget_clean_stop

from millstream.core.records import BatchBuilder, crc32c
from millstream.core.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from millstream.testing.raw import RawConnection

RECORD_BYTES = 100
KEY_BYTES = 10
A_BATCH = 1000
SEGMENT_BYTES = 500_000_000
IDLE_S = 8.0
WARM_UP_S = 2.0
PACE_S = 0.002
ROUNDS = 3
TOPIC, OTHER = "dirty", "other"
NOW_MS = 1_700_000_000_000
MAP_MB = (64, 32)
SECTION = "log cleaner"
HEADER_BYTES = 61


def write_dirty_log(folder: Path, size_bytes: int, segment_bytes: int) -> int:
    """Make the segments; return the offset where the active one, of one batch, begins."""
    count = size_bytes // (A_BATCH * RECORD_BYTES)
    unique = max(count * A_BATCH // 10, 1)
    keys = [b"%0*d" % (KEY_BYTES, number) for number in range(unique)]
    builder = BatchBuilder(leader_epoch=0)
    for _ in range(A_BATCH):
        # Length, attributes, deltas, key and value lengths and the count of headers take about 9 bytes.
        builder.append(NOW_MS, b"\xff" * KEY_BYTES, b"v" * (RECORD_BYTES - KEY_BYTES - 9))
    template = builder.build()
    pieces = template[HEADER_BYTES:].split(b"\xff" * KEY_BYTES)
    draw = random.Random(1)
    joined: list[bytes] = [b""] * (2 * A_BATCH + 1)
    joined[::2] = pieces
    folder.mkdir(parents=True)
    a_segment = max(segment_bytes // len(template), 1)
    offset, left, active = 0, count, 0
    while True:
        # The active one, last, has one batch.
        with Path(folder, f"{offset:020d}.log").open("wb") as file:
            active = offset
            for _ in range(min(left, a_segment) or 1):
                joined[1::2] = draw.choices(keys, k=A_BATCH)
                payload = b"".join(joined)
                header = bytearray(template[:HEADER_BYTES])
                struct.pack_into(">q", header, 0, offset)
                struct.pack_into(">I", header, 17, crc32c(payload, crc32c(bytes(header[21:]))))
                file.write(header)
                file.write(payload)
                offset += A_BATCH
        if not left:
            return active
        left -= min(left, a_segment)


class Client:
    """A process that sends a record at a time at an even pace and notes how long each takes."""

    def __init__(self, bootstrap: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_send, args=(bootstrap, there), name="client", daemon=True)
        self._process.start()

    def take(self) -> list[float]:
        """Return the latencies since the last call, in ms."""
        self._here.send("take")
        latencies: list[float] = self._here.recv()
        return latencies

    def stop(self) -> None:
        self._here.send("stop")
        self._process.join(60)


def _send(bootstrap: str, asked: Connection) -> None:
    builder = BatchBuilder()
    builder.append(NOW_MS, None, b"x" * RECORD_BYTES)
    batch = builder.build()
    latencies_ms: list[float] = []
    with RawConnection(bootstrap) as raw:
        due = time.perf_counter()
        while True:
            if asked.poll():
                if asked.recv() == "stop":
                    return
                asked.send(latencies_ms)
                latencies_ms = []
                due = time.perf_counter()
            started = time.perf_counter()
            assert raw.produce(OTHER, 0, batch, acks=1).error_code == 0
            latencies_ms.append((time.perf_counter() - started) * 1000)
            due += PACE_S
            time.sleep(max(due - time.perf_counter(), 0))


def p99(latencies: list[float]) -> float:
    """The 99th percentile."""
    return sorted(latencies)[int(len(latencies) * 0.99)]


def set_ratio(bootstrap: str, ratio: str) -> None:
    """Set min.cleanable.dirty.ratio of the dirty topic."""
    config = AlterableConfig(name="min.cleanable.dirty.ratio", config_operation=0, value=ratio)
    resource = AlterConfigsResource(resource_type=2, resource_name=TOPIC, configs=[config])
    with RawConnection(bootstrap) as raw:
        answer = raw.call(IncrementalAlterConfigsRequest(resources=[resource]))
        assert [each.error_code for each in answer.responses] == [0], answer


def clean_offset(data_directory: Path) -> int:
    """What the cleaner's checkpoint says of the dirty topic."""
    try:
        lines = (data_directory / "cleaner-offset-checkpoint").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return max((int(line.split()[2]) for line in lines[2:] if line.startswith(f"{TOPIC} ")), default=0)


def measure(
    make: Callable[[Path, dict[str, str]], Served], source: Path, active: int, work: Path, map_mb: int, rounds: int
) -> dict[str, float]:
    """Clean the same files so often, each time by a broker started anew; return each figure's median."""
    found = []
    for _ in range(rounds):
        found.append(measure_once(make, source, active, work, map_mb))
        print(f"    {map_mb} MB, {make.__name__.lower()}: {report.brief(found[-1])}", flush=True)
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def measure_once(
    make: Callable[[Path, dict[str, str]], Served], source: Path, active: int, work: Path, map_mb: int
) -> dict[str, float]:
    """One cleaning on one broker."""
    settings = {
        "log.cleaner.dedupe.buffer.size": str(map_mb << 20),
        "log.cleaner.backoff.ms": "100",
        "log.segment.delete.delay.ms": "600000",
    }
    broker = make(work, settings)
    start(broker)
    with RawConnection(broker.bootstrap) as raw:
        configs = {"min_cleanable_dirty_ratio": "1", "segment_bytes": 1 << 30, "retention_ms": -1}
        raw.create_topic(TOPIC, 1, cleanup_policy="compact", **configs)
        raw.create_topic(OTHER, 1)
    broker.stop()
    folder = broker.data_directory / f"{TOPIC}-0"
    for old in [*folder.glob("*.log"), *folder.glob("*index"), *folder.glob("*.snapshot")]:
        old.unlink()
    for each in source.iterdir():
        os.link(each, folder / each.name)
    forget_clean_stop(broker.data_directory)
    start(broker, {TOPIC: 1, OTHER: 1})
    try:
        client = Client(broker.bootstrap)
        time.sleep(WARM_UP_S)
        client.take()
        _, idle_rate, idle = watched(broker, client, lambda passed, _: passed < IDLE_S)
        memory = peak_memory_mb(broker.pid)
        before = sum(each.stat().st_size for each in folder.glob("*.log"))

        def is_dirty(passed: float, cleaned: int) -> bool:
            assert passed < 600, f"clean up to {cleaned} of {active}"
            return cleaned < active

        set_ratio(broker.bootstrap, "0")
        seconds, rate, busy = watched(broker, client, is_dirty)
        added = peak_memory_mb(broker.pid) - memory
        set_ratio(broker.bootstrap, "1")
        time.sleep(WARM_UP_S)
        client.take()
        idle += watched(broker, client, lambda passed, _: passed < IDLE_S)[2]
        client.stop()
        after = sum(each.stat().st_size for each in folder.glob("*.log"))
        return {
            "MB of log per CPU-second": before / 1e6 / ((rate - idle_rate) * seconds),
            "seconds": seconds,
            "share of the log that stays": after / before,
            "peak memory before, MB": memory,
            "added by cleaning, MB": added,
            "client's p50 idle, ms": statistics.median(idle),
            "client's p50 meanwhile, ms": statistics.median(busy),
            "client's p99 idle, ms": p99(idle),
            "client's p99 meanwhile, ms": p99(busy),
            "p99 meanwhile over idle": p99(busy) / p99(idle),
        }
    finally:
        remove(broker)


def watched(broker: Served, client: Client, goes_on: Callable[[float, int], bool]) -> tuple[float, float, list[float]]:
    """Wait while `goes_on(seconds passed, clean offset)`; return the seconds, CPU-seconds in each, and latencies."""
    cpu, started = cpu_seconds(broker.pid), time.monotonic()
    # With cleaning or without: what this process takes of the machine by looking falls out of the ratio.
    while goes_on(time.monotonic() - started, clean_offset(broker.data_directory)):
        time.sleep(0.02)
    seconds = time.monotonic() - started
    return seconds, (cpu_seconds(broker.pid) - cpu) / seconds, client.take()


def table(rows: dict[int, dict[str, dict[str, float]]], size_bytes: int, rounds: int) -> list[str]:
    """The figures as lines of Markdown."""
    out = [
        "| map | figure | Millstream | Kafka | ratio | target | met |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for map_mb, brokers in rows.items():
        for figure, ours in brokers["millstream"].items():
            theirs = brokers.get("kafka", {}).get(figure)
            target, met = "", ""
            if figure == "MB of log per CPU-second" and map_mb == max(MAP_MB):
                target, met = ">= 150", "yes" if ours >= 150 else "**no**"
            elif figure == "p99 meanwhile over idle":
                target, met = "<= 2", "yes" if ours <= 2 else "**no**"
            elif figure == "added by cleaning, MB":
                # The map, and a few MB for buffers and pages of code not run before.
                target, met = f"<= {map_mb + 16}", "yes" if ours <= map_mb + 16 else "**no**"
            cells = [
                f"{map_mb} MB",
                figure,
                report.number(ours),
                "" if theirs is None else report.number(theirs),
                f"{ours / theirs:.2f}x" if theirs else "",
                target,
                met,
            ]
            out.append("| " + " | ".join(cells) + " |")
    return [
        "Written by `python -m bench.cleaner --write-doc docs/performance.md`: one log of 100 B records,",
        f"{size_bytes / 1e9:g} GB, with a tenth as many keys, cleaned by each broker from the same files, with",
        f"`log.cleaner.dedupe.buffer.size` as given; medians of {rounds}. How it is measured is said in",
        "`bench/cleaner.py`.",
        "",
        f"Machine: {report.machine()}.",
        "",
        *out,
    ]


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the bytes")
    parser.add_argument("--without-kafka", action="store_true", help="Millstream only")
    parser.add_argument("--maps", type=int, nargs="+", default=MAP_MB, metavar="MB", help="sizes of the map")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each broker cleans with each map")
    parser.add_argument("--write-doc", type=Path, help="put the table into its section of this page")
    given = parser.parse_args()
    size_bytes = 2_000_000_000 // (10 if given.quick else 1)
    rows: dict[int, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="millstream-bench-cleaner-") as name:
        work = Path(name)
        source = work / "source"
        active = write_dirty_log(source, size_bytes, SEGMENT_BYTES // (10 if given.quick else 1))
        for map_mb in given.maps:
            size_mb = max(map_mb // 10, 1) if given.quick else map_mb
            for make in (Millstream,) if given.without_kafka else (Millstream, Kafka):
                figures = measure(make, source, active, work / make.name, size_mb, given.rounds)
                rows.setdefault(map_mb, {})[make.name] = figures
                print(f"{map_mb} MB, {make.name}: {report.brief(figures)}", flush=True)
        shutil.rmtree(source)
    if given.write_doc:
        report.replace_section(given.write_doc, SECTION, "The log cleaner", table(rows, size_bytes, given.rounds))


if __name__ == "__main__":
    main()
