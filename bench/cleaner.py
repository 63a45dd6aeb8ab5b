"""The log cleaner beside Apache Kafka's, on the same files: `python -m bench.cleaner`.

    python -m bench.cleaner --quick                           a tenth of the bytes, about a minute
    python -m bench.cleaner --write-doc docs/performance.md   put the table into its section of the page
    python -m bench.cleaner --maps 32 --rounds 1 --keep /tmp/dirty --write-doc docs/performance.md --add
                                                              one round more of one map, the others stay on the page

One partition of 2 GB: records of 100 B in batches of a thousand, uncompressed, with a tenth as many keys as records,
drawn at random. The files are made once and given to each broker, stopped, as the partition's folder; started again,
it serves the partition with min.cleanable.dirty.ratio=1, which no log exceeds. Then the topic gets 0, and the cleaner
works until its checkpoint says that everything but the active segment is clean.

    CPU             the broker's, all threads, over the cleaning, less what it used in as long a time before
    passes          how often the log was gone through: the map of keys holds 24 bytes a key, and 10 % stay free
    memory          the broker's peak before, and what the cleaning added to it
    latency         of a client in a process of its own that sends a record every 2 ms to another topic (acks=1) and
                    waits for each: over 6 s without cleaning before and 6 s behind, and while the log is cleaned

Each broker does that three times for each map, started anew; the table has the medians, and the page every round, so
that a run of some of them can be joined to it. One p99 says little: a machine
that does something else for a moment, be it its host, makes it several times as long, with cleaning or without.

Kafka has the JVM settings of its own start script and 1 GB of heap. Needs about 7 GB in the temporary directory.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import random
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from bench.load import report
from bench.load.brokers import Kafka, Millstream, Served, cpu_seconds, peak_memory_mb, remove, start
from bench.load.fill import forget_clean_stop
from bench.load.report import Measured, Target

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
IDLE_S = 6.0
WARM_UP_S = 2.0
PACE_S = 0.002
ROUNDS = 3
TOPIC, OTHER = "dirty", "other"
NOW_MS = 1_700_000_000_000
MAP_MB = (64, 32)
SECTION = "log cleaner"
ROUNDS_HEADING = "Every round:"
KINDS: dict[str, Callable[[Path, dict[str, str]], Served]] = {"millstream": Millstream, "kafka": Kafka}
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


def table(measured: Sequence[Measured], size_bytes: int) -> list[str]:
    """The figures as lines of Markdown: medians of all rounds, then the rounds."""
    out = [
        "| map | figure | Millstream | Kafka | ratio | target | met | rounds |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]
    for row in dict.fromkeys(each.row for each in measured):
        by_broker = {
            broker: [each.figures for each in measured if (each.row, each.broker) == (row, broker)]
            for broker in ("millstream", "kafka")
        }
        for figure in next(each.figures for each in measured if each.row == row):
            ours, theirs = (_median(rounds, figure) for rounds in by_broker.values())
            target = _target(row, figure)
            met = "" if target is None or ours is None else "yes" if target.met(ours) else "**no**"
            cells = [report.number(value) if value is not None else "" for value in (ours, theirs)]
            ratio = f"{ours / theirs:.2f}x" if ours is not None and theirs else ""
            counts = " and ".join(str(len(rounds)) for rounds in by_broker.values())
            out.append(report.table_row((row, figure, *cells, ratio, str(target or ""), met, counts)))
    out += ["", ROUNDS_HEADING, "", "| map | broker | round | began | figures |", "|---|---|--:|---|---|"]
    out += [
        report.table_row((each.row, each.broker, str(each.round + 1), each.run, report.brief(each.figures)))
        for each in measured
    ]
    return [
        "Written by `python -m bench.cleaner --write-doc docs/performance.md`: one log of 100 B records,",
        f"{size_bytes / 1e9:g} GB, with a tenth as many keys, cleaned by each broker from the same files, with",
        "`log.cleaner.dedupe.buffer.size` as given; medians of the rounds below. How it is measured is said in",
        "`bench/cleaner.py`.",
        "",
        f"Machine: {report.machine()}.",
        "",
        *out,
    ]


def _median(rounds: Sequence[Mapping[str, float]], figure: str) -> float | None:
    return statistics.median(each[figure] for each in rounds) if rounds else None


def _target(row: str, figure: str) -> Target | None:
    map_mb = int(row.removesuffix(" MB"))
    if figure == "MB of log per CPU-second" and map_mb == max(MAP_MB):
        return Target(figure, ">=", 150, absolute=True)
    if figure == "p99 meanwhile over idle":
        return Target(figure, "<=", 2, absolute=True)
    if figure == "added by cleaning, MB":
        # The map, and a few MB for buffers and pages of code not run before.
        return Target(figure, "<=", map_mb + 16, absolute=True)
    return None


def joined(older: Sequence[Measured], newer: Sequence[Measured], *, add: bool) -> list[Measured]:
    """The rounds of both; those of a map measured anew take the place of the older ones, or with `add` join them."""
    again = set() if add else {each.row for each in newer}
    found: dict[tuple[str, str], list[Measured]] = {}
    for each in (*(each for each in older if each.row not in again), *newer):
        found.setdefault((each.row, each.broker), []).append(each)
    order = sorted(found, key=lambda row: (-int(row[0].removesuffix(" MB")), row[1] != "millstream"))
    return [dataclasses.replace(each, round=number) for row in order for number, each in enumerate(found[row])]


def read_rounds(page: Path) -> list[Measured]:
    """The rounds that stand on the page."""
    section = report.sections_of(page.read_text()).get(SECTION, "") if page.exists() else ""
    return [
        Measured(row, broker, int(number) - 1, report.figures_in(figures), began)
        for row, broker, number, began, figures in report.cells_under(section.splitlines(), ROUNDS_HEADING)
    ]


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the bytes")
    parser.add_argument("--brokers", default="millstream,kafka", help="one of them alone, to look at it")
    parser.add_argument("--maps", type=int, nargs="+", default=MAP_MB, metavar="MB", help="sizes of the map")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each broker cleans with each map")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the dirty log is made, and found next time")
    parser.add_argument("--write-doc", type=Path, help="put the table into its section of this page")
    parser.add_argument("--add", action="store_true", help="leave the page's rounds of these maps beside the new ones")
    given = parser.parse_args()
    size_bytes = 2_000_000_000 // (10 if given.quick else 1)
    measured = []
    with tempfile.TemporaryDirectory(prefix="millstream-bench-cleaner-", dir=given.keep and given.keep.parent) as name:
        work = Path(name)
        source = given.keep or work / "source"
        if not source.exists():
            write_dirty_log(source, size_bytes, SEGMENT_BYTES // (10 if given.quick else 1))
        # The active segment is the last one.
        active = max(int(each.stem) for each in source.iterdir())
        for number in range(given.rounds):
            for map_mb in given.maps:
                size_mb = max(map_mb // 10, 1) if given.quick else map_mb
                for kind in given.brokers.split(",")[:: 1 if number % 2 == 0 else -1]:
                    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
                    figures = measure_once(KINDS[kind], source, active, work / kind, size_mb)
                    measured.append(Measured(f"{map_mb} MB", kind, number, figures, began))
                    print(f"{map_mb} MB, {kind}: {report.brief(figures)}", flush=True)
    if given.write_doc:
        rounds = joined(read_rounds(given.write_doc), measured, add=given.add)
        report.replace_section(given.write_doc, SECTION, "The log cleaner", table(rounds, size_bytes))


if __name__ == "__main__":
    main()
