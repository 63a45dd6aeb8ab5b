"""What one log costs below the broker, and how fast logs come back: `python -m bench.log`.

    reserve, write, read      the steps of an append and of a fetch, medians of several repeats, on a warm cache
    clean start               many idle partitions, from the call of load to the last one open
    recovery                  8 logs without indexes after a crash, as `bench/broker.py` has it beside Apache Kafka

Needs about 5 GB in the temporary directory (TMPDIR); `--quick` takes a fifth of the logs and bytes.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.load.fill import write_log

from millstream.core.log import Log, LogConfig, LogDirectory, LogManager, TopicPartition
from millstream.core.records import BatchBuilder, read_header

REPEATS = 9
LOGS = 8
TOPIC_ID = bytes(range(16))
NOW_MS = 1_700_000_000_000


def make_batch(records: int, **options: Any) -> bytes:
    """A batch of records of 100 bytes."""
    builder = BatchBuilder(**options)
    for _ in range(records):
        builder.append(NOW_MS, None, b"x" * 100)
    return bytes(builder.build())


@contextmanager
def loaded(path: Path) -> Iterator[LogManager]:
    """The logs in `path`, closed in good order at the end."""
    manager = LogManager([LogDirectory(path)])
    manager.load(LogConfig(), cluster_id="bench")
    try:
        yield manager
    finally:
        manager.close()


def tell(name: str, value: float, unit: str, goal: float | None = None, *, at_least: bool = False) -> None:
    """One line of the table."""
    missed = goal is not None and (value < goal if at_least else value > goal)
    asked = "" if goal is None else f"   goal {'>=' if at_least else '<='} {goal:g}{'   MISSED' if missed else ''}"
    print(f"{name:62}{value:12.2f} {unit}{asked}", flush=True)


def median_us(step: Callable[[], object], count: int) -> float:
    """Microseconds a call, median of REPEATS rows of `count` calls."""
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter_ns()
        for _ in range(count):
            step()
        taken.append((time.perf_counter_ns() - started) / count / 1000)
    return statistics.median(taken)


def appends(manager: LogManager) -> Log:
    """Reserving and writing; return a log that has something to read: batches of one record."""
    log = manager.create_log(TopicPartition("appends", 0), TOPIC_ID, LogConfig())
    batch = make_batch(1)
    header = read_header(batch)

    def reserve() -> None:
        log.reserve(batch, header, leader_epoch=0, now_ms=NOW_MS)

    tell("reserve, one record", median_us(reserve, 20_000), "us", 1.5)
    log.write()
    numbered = make_batch(1, producer_id=7, producer_epoch=0, base_sequence=0)
    headers = iter([read_header(numbered)._replace(base_sequence=each) for each in range(REPEATS * 10_000)])

    def reserve_idempotent() -> None:
        log.reserve(numbered, next(headers), leader_epoch=0, now_ms=NOW_MS)

    tell("reserve, one record, idempotent", median_us(reserve_idempotent, 10_000), "us")
    log.write()

    def one() -> None:
        reserve()
        log.write()

    tell("reserve and write, one record", median_us(one, 2000), "us")

    def hundred() -> None:
        for _ in range(100):
            reserve()
        log.write()

    tell("reserve and write, 100 batches of one record at a time", median_us(hundred, 100) / 100, "us a batch")
    large_log = manager.create_log(TopicPartition("large", 0), TOPIC_ID, LogConfig())
    large = make_batch(10_000)
    large_header = read_header(large)

    def one_large() -> None:
        large_log.reserve(bytearray(large), large_header, leader_epoch=0, now_ms=NOW_MS, copy=False)
        large_log.write()

    seconds = median_us(one_large, 20) / 1e6
    tell("reserve and write, 10,000-record batches", len(large) / seconds / 1e6, "MB/s")
    return log


def reads(log: Log) -> None:
    """Fetching from memory, in sequence and at random."""
    end = log.log_end_offset
    rng = random.Random(1)
    tell("read 16 KB at a random offset, cached", median_us(lambda: log.read(rng.randrange(end), 16384), 1000), "us")
    read_bytes, started = 0, time.perf_counter()
    at = log.log_start_offset
    while at < end:
        found = log.read(at, 1 << 20)
        read_bytes += len(found.data)
        at = found.next_offset
    rate = read_bytes / (time.perf_counter() - started) / 1e6
    tell("read one-record batches in sequence, 1 MB at a time, cached", rate, "MB/s")


def clean_start(path: Path, count: int) -> None:
    """Many partitions, each with a batch in it."""
    batch = make_batch(1)
    with loaded(path) as manager:
        for partition in range(count):
            log = manager.create_log(TopicPartition("start", partition), TOPIC_ID, LogConfig())
            log.reserve(batch, read_header(batch), leader_epoch=0, now_ms=NOW_MS)
            log.write()
    started = time.perf_counter()
    with loaded(path) as manager:
        taken = time.perf_counter() - started
        assert len(manager.logs) == count, len(manager.logs)
    tell(f"clean start, {count} partitions", taken, "s", count / 1000)


def recovery(path: Path, records: int, size_bytes: int, goal: float) -> None:
    """Logs of which nothing is known to be flushed, from the page cache."""
    batch = make_batch(records)
    ends = []
    for partition in range(LOGS):
        folder = path / f"recovery-{partition}"
        folder.mkdir(parents=True)
        ends.append(write_log(folder, batch, size_bytes))
    os.sync()
    started = time.perf_counter()
    with loaded(path) as manager:
        taken = time.perf_counter() - started
        assert [manager.logs[TopicPartition("recovery", each)].log_end_offset for each in range(LOGS)] == ends
    name = f"recovery of {LOGS} logs, batches of {records} records"
    tell(name, LOGS * size_bytes / taken / 1e6, "MB/s", goal, at_least=True)


def main() -> None:
    """Print every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    scale = 5 if parser.parse_args().quick else 1
    with tempfile.TemporaryDirectory(prefix="millstream-bench-log-") as work:
        with loaded(Path(work, "data")) as manager:
            reads(appends(manager))
        for count in (2000, 20_000):
            clean_start(Path(work, f"start-{count}"), count // scale)
        for records, goal in ((10_000, 500.0), (1, 200.0)):
            recovery(Path(work, f"recovery-{records}"), records, 500_000_000 // scale, goal)


if __name__ == "__main__":
    main()
