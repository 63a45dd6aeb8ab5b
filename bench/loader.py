"""The loader beside Spark and what one would write by hand: the same topics, the same machine, in turn.

    python -m bench.loader                                             every row, three rounds, every place
    python -m bench.loader --rows parquet,avro --brokers millstream --destinations file --rounds 1
    python -m bench.loader --records 60000 --rounds 1                  a small one, to see that it runs
    python -m bench.loader --write-doc docs/performance.md
    python -m bench.loader --rows both --results run.jsonl             one part of a series; parts add to the file
    python -m bench.loader --rows "" --results run.jsonl --write-doc docs/performance.md       and all of them together

A place is a broker (Millstream, Apache Kafka 4.3) and a destination (a local disk, a real HDFS). Ours is the command,
`millstream load run`; rates are records per CPU-second of the loader's processes from the first fetch to the last
close, and what they take beside that is told. Whoever writes it, Parquet is zstd at level 1 with statistics and Avro
zstd at level 1. What scripts do, and what was set so that they are fast, stands in `bench/load/loader_works.py` (they
write to the local disk), what Spark does in `bench/load/loader_spark.py`, the records in `bench/load/loader_topic.py`.
Spark comes from an environment of its own (`make spark`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.load import report
from bench.load.brokers import Kafka, Millstream
from bench.load.loader_places import Destination, Hdfs, LocalDisk, Source
from bench.load.loader_runs import RATE, Spark, job_figures, load_figures, run_job, run_script, write_job
from bench.load.loader_topic import DISTINCT, PARTITIONS, RECORDS, TOPIC, values
from bench.load.turns import BROKERS, OURS, Goal, Turn, Turns, in_turn, judged

from millstream.hadoop_loader.planning import plan_splits
from millstream.hadoop_loader.splits import OffsetRange

SECTION = "loader"
DESTINATIONS = ("file", "hdfs")
QUIET, QUIET_PARTITIONS = "quiet", 1_000
PLANNED_PARTITIONS = 20_000
ONE, TWO = "1 worker", "2 workers"
LEVELS = {f"{name}, level {level}": (name, level) for name in ("avro", "parquet") for level in (1, 3)}
CORES = len(os.sched_getaffinity(0))
SCRIPTS = ("polars", "copy", "read", "fastavro")
# A record at a time: one round over one of the partitions says as much.
ONCE = ("fastavro",)
PROGRAMS = (OURS, "spark", *SCRIPTS)
FIGURES = (RATE, "records/s", "B/record", "s beside", "CPU-s beside", "MB peak", "broker CPU-s")


@dataclass(frozen=True)
class Place:
    """A broker and a destination; rows that load nothing have neither."""

    source: Source
    destination: Destination

    @property
    def name(self) -> str:
        return f"{self.source.name}-{self.destination.name}"


class Bench:
    """What is there to measure with."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options = options
        self.work = work
        self.sources: list[Source] = []
        self.destinations: list[Destination] = []
        # Started when a row needs it.
        self._spark: Spark | None = None
        # Jobs that have nothing left to load, by place.
        self._quiet_jobs: dict[str, Path] = {}

    def prepare(self, rows: Sequence[Row], stack: ExitStack) -> None:
        """Start brokers and destinations, and fill the topics that the rows read."""
        stack.callback(self._stop)
        needed = {destination for row in rows for destination in row.destinations}
        if not needed:
            return
        distinct = values(min(DISTINCT, self.options.records))
        for kind in (Millstream, Kafka):
            if kind.name in self.options.brokers:
                broker = kind(self.work / kind.name)
                stack.callback(broker.kill)
                source = Source(broker, self.work / kind.name)
                stack.callback(source.stop)
                self.sources.append(source)
                if any(row.measure is not nothing_new for row in rows):
                    source.make_topic(TOPIC, PARTITIONS, self.options.records, distinct)
                if any(row.measure is nothing_new for row in rows):
                    source.make_topic(QUIET, QUIET_PARTITIONS, QUIET_PARTITIONS, distinct)
        for name in sorted(needed.intersection(self.options.destinations)):
            destination = Hdfs(self.work / name) if name == "hdfs" else LocalDisk(self.work / name)
            stack.callback(destination.stop)
            self.destinations.append(destination)

    def places(self, row: Row) -> Iterator[Place | None]:
        """Yield where a row is measured."""
        if not row.destinations:
            yield None
            return
        for source in self.sources:
            for destination in self.destinations:
                if source.name in row.brokers and destination.name in row.destinations:
                    yield Place(source, destination)

    def job(self, name: str, place: Place, topic: str, formats: Sequence[str], workers: int, level: int = 1) -> Path:
        """Write a job whose destination is empty."""
        path = self.work / f"{name}-{place.name}.toml"
        write_job(path, place.source, topic, place.destination.fresh(name), formats, workers, level)
        return path

    def quiet_job(self, place: Place) -> Path:
        """Return a job that has loaded all there is."""
        if place.name not in self._quiet_jobs:
            job = self.job("quiet", place, QUIET, ("parquet",), CORES)
            found = run_job(job, self.work)
            assert found["rows"] == QUIET_PARTITIONS, found
            self._quiet_jobs[place.name] = job
        return self._quiet_jobs[place.name]

    def spark(self) -> Spark:
        """Return Spark's session."""
        if self._spark is None:
            self._spark = Spark(self.options.spark, self.options.spark_jars, self.work)
        return self._spark

    def _stop(self) -> None:
        if self._spark is not None:
            self._spark.stop()


def load(bench: Bench, row: Row, place: Place, program: str) -> dict[str, float]:
    """Load the topic, or what a script does of it."""
    records = bench.options.records
    try:
        if program == OURS:
            found = run_job(bench.job("loaded", place, TOPIC, row.formats, 1), bench.work)
            figures = job_figures(found)
            found["records"] = found["rows"]
        elif program == "spark":
            found = bench.spark().load(place.source, place.destination.fresh("loaded"), row.formats[0])
            figures = load_figures(found)
        else:
            folder = place.destination.fresh("loaded").removeprefix("file://")
            partitions = 1 if program in ONCE else PARTITIONS
            found = run_script(program, place.source, folder, row.formats, partitions, bench.work)
            figures = load_figures(found)
            records = records // PARTITIONS * partitions
        if found["records"] != records:
            raise RuntimeError(f"{program} loaded {found['records']:,} of {records:,} records")
    finally:
        place.destination.drop("loaded")
    return figures


def scaling(bench: Bench, row: Row, place: Place, program: str) -> dict[str, float]:
    """The same job with one worker and with two; what the broker took of the cores meanwhile is not theirs."""
    workers = {ONE: 1, TWO: 2}[program]
    before = place.source.cpu_s()
    try:
        found = run_job(bench.job("scaled", place, TOPIC, row.formats, workers), bench.work)
    finally:
        place.destination.drop("scaled")
    left = CORES - (place.source.cpu_s() - before) / found["splits_s"]
    figures = job_figures(found)
    return {
        **figures,
        "cores left by the broker": left,
        "records/s per core": figures["records/s"] / min(workers, left),
    }


def levels(bench: Bench, _: Row, place: Place, program: str) -> dict[str, float]:
    """The same job by level of zstd: what the default was chosen by."""
    format_, level = LEVELS[program]
    try:
        return job_figures(run_job(bench.job("levels", place, TOPIC, (format_,), 1, level), bench.work))
    finally:
        place.destination.drop("levels")


def nothing_new(bench: Bench, _: Row, place: Place, __: str) -> dict[str, float]:
    """A run that finds nothing to do."""
    found = run_job(bench.quiet_job(place), bench.work)
    assert found["outcome"] == "nothing new", found
    return {"s": found["process_wall_s"], "CPU-s": found["process_cpu_s"]}


def planning(_: Bench, __: Row, ___: Place, ____: str) -> dict[str, float]:
    """The planner alone, in this process: partitions of very different sizes."""
    ranges = [
        OffsetRange("events", "id", number, -1, 0, 1_000_000, estimated_bytes=number * number % 1_000_003 * 100)
        for number in range(PLANNED_PARTITIONS)
    ]
    began = time.perf_counter()
    splits = plan_splits(ranges, workers=CORES, split_bytes=256 << 20).splits
    return {"s": time.perf_counter() - began, "splits": len(splits)}


@dataclass(frozen=True)
class Row:
    """One kind of work: who does it, and what the last named of our programs must reach."""

    title: str
    measure: Callable[[Bench, Row, Place, str], dict[str, float]]
    programs: tuple[str, ...]
    goals: tuple[Goal, ...] = ()
    formats: tuple[str, ...] = ()
    brokers: tuple[str, ...] = BROKERS
    destinations: tuple[str, ...] = DESTINATIONS
    judged: str = OURS
    # As many rounds as asked for, or one.
    is_once: bool = False

    def programs_at(self, place: Place | None) -> list[str]:
        """Who does it there: scripts write to the local disk only."""
        is_hdfs = place is not None and place.destination.name == "hdfs"
        return [one for one in self.programs if not (is_hdfs and one in SCRIPTS)]


ROWS = {
    "parquet": Row(
        "Kafka -> Parquet",
        load,
        (OURS, "spark", "polars", "fastavro"),
        (Goal(RATE, ">=", 1.6e6), Goal(RATE, ">=", 6, "spark"), Goal(RATE, ">=", 4, "polars")),
        ("parquet",),
    ),
    "avro": Row(
        "Kafka -> Avro",
        load,
        (OURS, "spark", "copy", "fastavro"),
        (Goal(RATE, ">=", 2e6), Goal(RATE, ">=", 8, "spark"), Goal(RATE, ">=", 3, "copy")),
        ("avro",),
    ),
    "both": Row("both from one read", load, (OURS,), (Goal(RATE, ">=", 1.1e6),), ("avro", "parquet")),
    "read": Row("reading only", load, ("read",), formats=("none",), destinations=("file",)),
    "nothing": Row(
        f"a run with nothing new, {QUIET_PARTITIONS:,} partitions", nothing_new, (OURS,), (Goal("s", "<=", 3),)
    ),
    "scaling": Row(
        "Parquet, by number of workers",
        scaling,
        (ONE, TWO),
        (Goal("records/s", ">=", 1.7, ONE),),
        ("parquet",),
        destinations=("file",),
        judged=TWO,
    ),
    "levels": Row("by level of zstd", levels, tuple(LEVELS), brokers=(OURS,), destinations=("file",), is_once=True),
    "planner": Row(
        f"planning {PLANNED_PARTITIONS:,} partitions", planning, (OURS,), (Goal("s", "<=", 1),), destinations=()
    ),
}


def measure(bench: Bench, turns: Turns, name: str) -> None:
    """Every round of a row, its programs in turn, at each place."""
    row = ROWS[name]
    for place in bench.places(row):
        at = (place.source.name, place.destination.name) if place else ("", "")
        programs = [one for one in row.programs_at(place) if one in bench.options.programs or one not in PROGRAMS]
        for number in turns.rounds_to_come(1 if row.is_once else bench.options.rounds, name, *at):
            for program in in_turn(programs, number):
                if program in ONCE and turns.of(name, at[0], program, at[1]):
                    continue
                cpu_s = place.source.cpu_s() if place else 0.0
                figures = row.measure(bench, row, place, program)  # type: ignore[arg-type]
                if place:
                    figures["broker CPU-s"] = place.source.cpu_s() - cpu_s
                turns.keep(Turn(name, at[0], program, number, figures, turns.started, destination=at[1]))
                print(f"{name:9} {' '.join(at):16} {program:10} {report.brief(figures)}", flush=True)


def medians(turns: Turns, rows: Iterable[str]) -> Iterator[tuple[str, str, str, str, dict[str, float], str, str]]:
    """Yield work, broker, destination, program, medians of its figures, goals, met."""
    for name in rows:
        row = ROWS[name]
        for broker in (*BROKERS, ""):
            for destination in (*DESTINATIONS, ""):
                for program in row.programs:
                    found = turns.of(name, broker, program, destination)
                    names = dict.fromkeys(figure for one in found for figure in one.figures)
                    figures = {one: turns.median(name, broker, program, one, destination) or 0.0 for one in names}
                    if not figures:
                        continue

                    goals = row.goals if program == row.judged else ()
                    peers = {
                        # Scripts write to the local disk alone.
                        goal.peer: turns.median(name, broker, goal.peer, goal.figure, destination)
                        or turns.median(name, broker, goal.peer, goal.figure, "file")
                        for goal in goals
                    }
                    texts = judged(goals, figures[goals[0].figure] if goals else None, peers)
                    yield row.title, broker, destination, program, figures, *texts


def section(turns: Turns) -> list[str]:
    """The page's section."""
    loads = [name for name, row in ROWS.items() if row.measure is load]
    others = [name for name in ROWS if name not in loads]
    where = ["work", "broker", "to", "program"]
    return [
        "Written by `python -m bench.loader --write-doc docs/performance.md`: each program in processes of its",
        "own, on the same topics in the same run, in turn; medians of the rounds. Ours is `millstream load run`",
        "with one worker. Rates are per CPU-second of the loader's processes from the first fetch to the last",
        "close; *beside* is what else they took: start, imports, driver, commit. Spark is one session throughout,",
        "after a load of each format that is not told. Whoever writes it, Parquet is zstd at level 1 with",
        f"statistics, Avro zstd at level 1. {RECORDS:,} Avro records of about 120 bytes, {DISTINCT:,} of them",
        f"distinct, {PARTITIONS} partitions, lz4. Scripts, with confluent-kafka as it is fastest, write to the local",
        "disk, where their rate stands for both destinations; fastavro reads one of the partitions. HDFS is a NameNode",
        "and a DataNode on the same machine, as the brokers are.",
        "",
        f"Machine: {report.machine()}. Measured {turns.when()}.",
        "",
        report.table_row([*where, *FIGURES, "goal", "met"]),
        report.table_row(["---"] * 4 + ["--:"] * len(FIGURES) + ["---"] * 2),
        *(
            report.table_row(
                [*at, *(report.number(figures[one]) if one in figures else "" for one in FIGURES), goals, met]
            )
            for *at, figures, goals, met in medians(turns, loads)
        ),
        "",
        "Runs, as whole commands but for the planner:",
        "",
        report.table_row([*where, "figures", "goal", "met"]),
        report.table_row(["---"] * 7),
        *(
            report.table_row([*at, report.brief(figures), goals, met])
            for *at, figures, goals, met in medians(turns, others)
        ),
        "",
        report.table_row(["row", "broker", "to", "program", "round", "figures", "run"]),
        report.table_row(["---"] * 4 + ["--:", "---", "---"]),
        *(
            report.table_row(
                [
                    one.row,
                    one.broker,
                    one.destination,
                    one.program,
                    f"{one.round + 1}",
                    report.brief(one.figures),
                    one.run,
                ]
            )
            for one in turns.all
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "millstream"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def some(*known: str) -> Callable[[str], list[str]]:
        def parsed(text: str) -> list[str]:
            given = [one for one in text.split(",") if one]
            if unknown := [one for one in given if one not in known]:
                raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
            return given

        return parsed

    parser.add_argument("--rows", type=some(*ROWS), default=list(ROWS), help=f"comma-separated, of {', '.join(ROWS)}")
    parser.add_argument("--programs", type=some(*PROGRAMS), default=list(PROGRAMS), help=f"of {', '.join(PROGRAMS)}")
    parser.add_argument(
        "--brokers", type=some(*BROKERS), default=list(BROKERS), help="one of them alone, to look at it"
    )
    parser.add_argument("--destinations", type=some(*DESTINATIONS), default=list(DESTINATIONS), help="file, hdfs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--spark", type=Path, default=cache / "spark-4.1.1", help="an environment with pyspark 4.1.1")
    parser.add_argument("--spark-jars", type=Path, default=cache / "java" / "spark-4.1.1")
    parser.add_argument("--results", type=Path, help="a file that keeps the turns of a series of runs")
    parser.add_argument("--write-doc", type=Path, help="put the table into its section of this page")
    options = parser.parse_args(arguments)
    # As many in each partition.
    options.records -= options.records % PARTITIONS
    # Who limits the time of a run should find no brokers behind it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before its time"))
    turns = Turns(options.results)
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="millstream-bench-loader-"))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        bench = Bench(options, work)
        bench.prepare([ROWS[name] for name in options.rows], stack)
        for name in options.rows:
            measure(bench, turns, name)
    for *at, figures, goals, met in medians(turns, list(ROWS)):
        print("  ".join(cell.ljust(12) for cell in (*at, report.brief(figures), goals, met)))
    if options.write_doc:
        report.replace_section(options.write_doc, SECTION, "Loader", section(turns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
