"""Consumer groups on Millstream and Apache Kafka 4.3 side by side: the same load, the same machine, in turn.

    python -m bench.groups                                    every row, three rounds
    python -m bench.groups --rows join --rounds 5             the page keeps the other rows of older runs
    python -m bench.groups --quick                            one short round of each, about half a minute
    python -m bench.groups --write-doc docs/performance.md    put the table into its section of the page

What the load does stands in bench/load/groups.py. Both brokers run with 50 partitions of __consumer_offsets and
group.initial.rebalance.delay.ms=0, and are warmed up with the row's own load. CPU is the kernel's figure of the
broker's process.
"""

import argparse
import dataclasses
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.broker import Bench, Settings
from bench.load import report
from bench.load.brokers import Kafka, Millstream, Served, raise_open_files, start
from bench.load.page import HEAD, Page, Run
from bench.load.report import Measured, Target

from millstream.testing.raw import RawConnection

PROPERTIES = {"offsets.topic.num.partitions": "50"}
TOPIC, PARTITIONS = "committed", 1000
SECTION = "groups"
ROUNDS_HEADING = "Every round:"
_numbers = itertools.count()


def prefix() -> str:
    """A name for groups that were not there before."""
    return f"bench-{next(_numbers)}"


def join(bench: Bench, name: str) -> None:
    """1,000 members of 100 groups join at once."""

    def run(broker: Served) -> dict[str, float]:
        words = ("--prefix", prefix(), "--groups", "100", "--members", "10", "--broker-pid", str(broker.pid))
        found = bench.load(name, broker, "groups join", *words)
        return {
            "seconds": found["seconds"],
            "CPU-seconds of the broker": found["settling_cpu_seconds"],
            "CPU-seconds of the load": found["load_cpu_seconds"],
            "requests": found["requests"],
            "generations": found["generations"],
        }

    def warm_up(broker: Served) -> None:
        for _ in range(3):
            run(broker)

    bench.alternate(name, run, warm_up=warm_up)


def commit(bench: Bench, name: str) -> None:
    """50 members commit one partition each, one after the other."""

    def run(broker: Served, seconds: float) -> dict[str, float]:
        words = ("--prefix", prefix(), "--topic", TOPIC, "--connections", "50", "--seconds", str(seconds))
        found = bench.load(name, broker, "groups commit", *words)
        return {
            "commits/s": found["commits"] / found["seconds"],
            "commits per broker CPU-second": found["commits"] / found["broker_cpu_seconds"],
        }

    settings = bench.settings
    bench.alternate(name, lambda b: run(b, settings.seconds), warm_up=lambda b: run(b, settings.warmup_s))


def fetch(bench: Bench, name: str) -> None:
    """1,000 offsets of each of ten groups in one request: 10,000 partitions of one are more than Kafka makes here."""

    def run(broker: Served) -> dict[str, float]:
        words = ("--topic", TOPIC, "--groups", "10", "--partitions", str(PARTITIONS), "--count", "300")
        found = bench.load(name, broker, "groups fetch", "--prefix", "fetched", *words)
        return {f"{part} ms": found[part] for part in ("p50", "p99")}

    bench.alternate(name, run, warm_up=run)


ROWS: dict[str, tuple[str, Callable[[Bench, str], None], tuple[Target, ...]]] = {
    "join": ("1,000 members join 100 groups, until settled", join, (Target("seconds", "<=", 0.5),)),
    "commit": (
        "commits of one partition from 50 connections",
        commit,
        (Target("commits per broker CPU-second", ">=", 20_000, absolute=True),),
    ),
    "fetch": ("fetch of 10,000 committed offsets in one request", fetch, (Target("p50 ms", "<=", 5, absolute=True),)),
}
QUICK = Settings(rounds=1, seconds=2.0, warmup_s=2.0)


def section(measured: Sequence[Measured]) -> tuple[list[str], str]:
    """The lines of the page's section, and the table for the terminal."""
    rows = {name: (title, targets) for name, (title, _, targets) in ROWS.items()}
    runs = [Run(when, "", "", "") for when in sorted({one.run for one in measured})]
    page = Page(
        {name: row for name, row in rows.items() if any(one.row == name for one in measured)}, measured, {}, {}, runs
    )
    lines = [
        "Written by `python -m bench.groups --write-doc docs/performance.md`: both brokers on the same machine in the",
        "same run, in turn; medians of the rounds. What a member does stands in `bench/load/groups.py`.",
        "",
        f"Machine: {report.machine()}.",
        "",
        report.table_row(HEAD),
        "|---|---|--:|--:|--:|--:|---|--:|",
        *(report.table_row(line) for line in page.lines()),
        "",
        ROUNDS_HEADING,
        "",
        "| row | broker | round | of the run that began | figures |",
        "|---|---|--:|---|---|",
        *(
            report.table_row((one.row, one.broker, str(one.round + 1), one.run, report.brief(one.figures)))
            for one in measured
        ),
    ]
    return lines, page.table()


def read_rounds(page: Path) -> list[Measured]:
    """The rounds that stand on the page."""
    found = report.sections_of(page.read_text()).get(SECTION, "") if page.exists() else ""
    return [
        Measured(row, broker, int(number) - 1, report.figures_in(figures), began)
        for row, broker, number, began, figures in report.cells_under(found.splitlines(), ROUNDS_HEADING)
    ]


def joined(older: Sequence[Measured], newer: Sequence[Measured]) -> list[Measured]:
    """The rounds of both; of rows that were measured again only the newer ones."""
    again = {one.row for one in newer}
    return [one for row in ROWS for one in (*(old for old in older if old.row not in again), *newer) if one.row == row]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated")
    parser.add_argument("--brokers", default="millstream,kafka", help="one of them alone, to look at it")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--write-doc", type=Path, help="put the table into its section of this page")
    given = parser.parse_args()
    names = given.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    settings = QUICK if given.quick else Settings()
    if given.rounds is not None:
        settings = dataclasses.replace(settings, rounds=given.rounds)
    raise_open_files()
    work = Path(tempfile.mkdtemp(prefix="millstream-bench-groups-"))
    kinds = {kind.name: kind for kind in (Millstream, Kafka)}
    brokers: list[Served] = [kinds[name](work / name, PROPERTIES) for name in given.brokers.split(",")]
    bench = Bench(settings, brokers, work)
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    try:
        for broker in brokers:
            start(broker)
            with RawConnection(broker.bootstrap) as raw:
                raw.create_topic(TOPIC, PARTITIONS)
        for name in names:
            ROWS[name][1](bench, name)
    finally:
        for broker in brokers:
            broker.kill()
        shutil.rmtree(work, ignore_errors=True)
    measured = [dataclasses.replace(one, run=began) for one in bench.measured]
    print(section(measured)[1])
    if given.write_doc:
        lines, _ = section(joined(read_rounds(given.write_doc), measured))
        report.replace_section(given.write_doc, SECTION, "Groups", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
