"""The loader beside Spark and what one would write by hand: the same topic, the same machine, in turn.

    python -m bench.loader                                             every row, three rounds, both brokers
    python -m bench.loader --rows parquet,avro --brokers millstream --rounds 1
    python -m bench.loader --records 60000 --rounds 1                  a small one, to see that it runs
    python -m bench.loader --write-doc docs/performance.md
    python -m bench.loader --rows both --results run.jsonl             one part of a series; parts add to the file
    python -m bench.loader --rows "" --results run.jsonl --write-doc docs/performance.md       and all of them together

Rates are records per CPU-second of the loader's process, from its first fetch to its last close; start-up (imports, a
JVM) is told beside them. Everything is written to a local disk and synced; Parquet is zstd at level 1 with statistics,
Avro zstd at level 1, but for fastavro's, whose zstd needs another package: deflate. `bench/load/loader_works.py` has
what each does, `bench/load/loader_topic.py` the records. Spark comes from an environment of its own (`make spark`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.load import report
from bench.load.brokers import Kafka, Millstream, Served, start
from bench.load.loader_topic import DISTINCT, RECORDS, TEXT, TOPIC, fill, values

OURS = "millstream"
SECTION = "loader"
SPARK_TIMEOUT_S = 600


@dataclass(frozen=True)
class Goal:
    """What our rate must reach: so many records per CPU-second, or so many times a peer's."""

    value: float
    peer: str = ""

    def met(self, ours: float, peer: float | None) -> bool | None:
        """Whether it is reached; None without the peer's figure."""
        if not self.peer:
            return ours >= self.value
        return None if peer is None else ours >= self.value * peer

    def __str__(self) -> str:
        return f">= {self.value:g}x {self.peer}" if self.peer else f">= {self.value / 1e6:g} M"


@dataclass(frozen=True)
class Row:
    """One kind of work: what is written, by whom, and the goals."""

    title: str
    formats: str
    loaders: tuple[str, ...]
    goals: tuple[Goal, ...] = ()


ROWS = {
    "parquet": Row(
        "Kafka -> Parquet (zstd)",
        "parquet",
        (OURS, "spark", "polars", "fastavro"),
        (Goal(1.6e6), Goal(6, "spark"), Goal(4, "polars")),
    ),
    "avro": Row(
        "Kafka -> Avro (zstd)",
        "avro",
        (OURS, "spark", "copy", "fastavro"),
        (Goal(2e6), Goal(8, "spark"), Goal(3, "copy")),
    ),
    "both": Row("both from one read", "avro,parquet", (OURS,), (Goal(1.1e6),)),
    "read": Row("reading only", "none", ("read",)),
}
LOADERS = (OURS, "spark", "polars", "copy", "fastavro", "read")
# A record at a time: a tenth of the records say as much.
SLOW = {"fastavro": 6}


@dataclass(frozen=True)
class Measured:
    """One turn."""

    row: str
    broker: str
    loader: str
    round: int
    figures: dict[str, float]
    run: str = ""


class Bench:
    """Runs rows on brokers that have the topic."""

    def __init__(self, brokers: list[Served], options: argparse.Namespace, work: Path) -> None:
        self.brokers = brokers
        self.options = options
        self.work = work
        self.measured: list[Measured] = []
        self.started = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        if options.results is not None and options.results.exists():
            self.measured = [Measured(**json.loads(line)) for line in options.results.read_text().splitlines()]

    def prepare(self) -> None:
        """Start the brokers and fill them."""
        distinct = values(min(DISTINCT, self.options.records))
        for broker in self.brokers:
            start(broker)
            fill(broker.bootstrap, self.options.records, distinct)

    def run(self, name: str) -> None:
        """Every round of a row, the loaders in turn, the first one changing."""
        row = ROWS[name]
        loaders = [one for one in row.loaders if one in self.options.loaders]
        for broker in self.brokers:
            for number in range(self.options.rounds):
                at = number % max(len(loaders), 1)
                for loader in [*loaders[at:], *loaders[:at]]:
                    figures = self.turn(row, broker, loader)
                    self.keep(Measured(name, broker.name, loader, number, figures, self.started))
                    print(f"{name:9} {broker.name:10} {loader:10} {report.brief(figures)}", flush=True)

    def keep(self, measured: Measured) -> None:
        """Note a turn, in the series' file as well."""
        self.measured.append(measured)
        if self.options.results is not None:
            with self.options.results.open("a") as file:
                file.write(json.dumps(asdict(measured)) + "\n")

    def turn(self, row: Row, broker: Served, loader: str) -> dict[str, float]:
        """One loader does a row's work once."""
        target = Path(tempfile.mkdtemp(prefix="loaded-", dir=self.work))
        command = [sys.executable, "-m", "bench.load.loader_works", loader, "--formats", row.formats]
        if loader in SLOW:
            command += ["--partitions", "0"]
        if loader == "spark":
            script = Path(__file__).parent / "load" / "loader_spark.py"
            command = [str(self.options.spark / "bin" / "python"), str(script), "--jars", str(self.options.spark_jars)]
            command += ["--topic", TOPIC, "--schema", TEXT, "--formats", row.formats]
        command += ["--bootstrap", broker.bootstrap, "--to", str(target)]
        # Modules are compiled once, as they are where packages are installed.
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(self.work / "compiled")}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SPARK_TIMEOUT_S, env=environ)
            if done.returncode:
                raise RuntimeError(f"{row.title}, {loader} on {broker.name}: {done.stderr[-2000:]}")
        finally:
            shutil.rmtree(target, ignore_errors=True)
        found = json.loads(done.stdout.splitlines()[-1])
        records = found["records"]
        return {
            "records/CPU-s": records / found["cpu_s"],
            "records/s": records / found["wall_s"],
            "B/record": found["bytes"] / records,
            "s start-up": found["startup_s"],
            "MB peak": found["peak_mb"],
        }

    def median(self, row: str, broker: str, loader: str, figure: str) -> float | None:
        """The median of a figure's rounds."""
        found = [
            one.figures[figure] for one in self.measured if (one.row, one.broker, one.loader) == (row, broker, loader)
        ]
        return statistics.median(found) if found else None

    def lines(self) -> list[tuple[str, ...]]:
        """Work, broker, loader, figures, goals, met."""
        lines: list[tuple[str, ...]] = []
        for name, row in ROWS.items():
            for broker in ("millstream", "kafka"):
                for loader in row.loaders:
                    figures = [
                        self.median(name, broker, loader, figure)
                        for figure in ("records/CPU-s", "records/s", "B/record", "s start-up", "MB peak")
                    ]
                    rate = figures[0]
                    if rate is None:
                        continue
                    goals = row.goals if loader == OURS else ()
                    judged = [goal.met(rate, self.median(name, broker, goal.peer, "records/CPU-s")) for goal in goals]
                    met = ", ".join("" if one is None else "yes" if one else "**no**" for one in judged)
                    shown = [report.number(figure) if figure is not None else "" for figure in figures]
                    lines.append((row.title, broker, loader, *shown, "; ".join(map(str, goals)), met))
        return lines

    def section(self) -> list[str]:
        """The page's section."""
        runs = sorted({one.run for one in self.measured})
        heads = ["work", "broker", "loader", "records/CPU-s", "records/s", "B/record", "s start-up", "MB peak"]
        return [
            "Written by `python -m bench.loader --write-doc docs/performance.md`: each loader in a process of its own,",
            "on the same topics in the same run, in turn; medians of the rounds. CPU is that of the loader's process",
            "from its first fetch to its last close: ours is one worker's share of a run, Spark the second run in one",
            "session. Parquet is zstd at level 1 with statistics, Avro zstd at level 1 (fastavro: deflate), on a local",
            f"disk, synced. {RECORDS:,} Avro records of about 120 bytes, {DISTINCT:,} of them distinct, 6 partitions,",
            "lz4; fastavro reads one of the partitions.",
            "",
            f"Machine: {report.machine()}. Measured from {runs[0]} to {runs[-1]} UTC." if runs else "",
            "",
            report.table_row([*heads, "goal", "met"]),
            report.table_row(["---"] * 3 + ["--:"] * 5 + ["---"] * 2),
            *(report.table_row(line) for line in self.lines()),
            "",
            report.table_row(["row", "broker", "loader", "round", "figures"]),
            report.table_row(["---", "---", "---", "--:", "---"]),
            *(
                report.table_row([one.row, one.broker, one.loader, str(one.round + 1), report.brief(one.figures)])
                for one in self.measured
            ),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "millstream"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated")
    parser.add_argument("--loaders", type=lambda text: text.split(","), default=list(LOADERS))
    parser.add_argument("--brokers", default="millstream,kafka", help="one of them alone, to look at it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--spark", type=Path, default=cache / "spark-4.1.1", help="an environment with pyspark 4.1.1")
    parser.add_argument("--spark-jars", type=Path, default=cache / "java" / "spark-4.1.1")
    parser.add_argument("--results", type=Path, help="a file that keeps the turns of a series of runs")
    parser.add_argument("--write-doc", type=Path, help="put the table into its section of this page")
    options = parser.parse_args(arguments)
    names = [name for name in options.rows.split(",") if name]
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    # Who limits the time of a run should find no brokers behind it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before its time"))
    work = Path(tempfile.mkdtemp(prefix="millstream-bench-loader-"))
    kinds = {kind.name: kind for kind in (Millstream, Kafka)}
    brokers: list[Served] = [kinds[name](work / name) for name in options.brokers.split(",")] if names else []
    bench = Bench(brokers, options, work)
    try:
        if names:
            bench.prepare()
        for name in names:
            bench.run(name)
    finally:
        for broker in brokers:
            broker.kill()
        shutil.rmtree(work, ignore_errors=True)
    for line in bench.lines():
        print("  ".join(cell.ljust(12) for cell in line))
    if options.write_doc:
        report.replace_section(options.write_doc, SECTION, "Loader", bench.section())
    return 0


if __name__ == "__main__":
    sys.exit(main())
