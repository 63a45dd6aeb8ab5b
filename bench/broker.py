"""Millstream and Apache Kafka 4.3 side by side: the same load, the same machine, in turn.

    python -m bench.broker                                    every row, three rounds
    python -m bench.broker --rows produce-10000,latency --rounds 5
    python -m bench.broker --quick                            one short round of each, about three minutes
    python -m bench.broker --rows produce-10000 --full-cache
    python -m bench.broker --write-doc docs/performance.md    rows not measured stay as the page has them
    python -m bench.broker --rows start --partitions 0,2000

Both brokers run; a row is measured on one while the other is idle, alternating which comes first. Before the rounds
each broker is warmed up with the row's own load (a JVM needs that, and it is what both would be in service). Records
are 100 B, topics have 4 partitions, acks=1, max.message.bytes is 2 MB. Broker CPU-seconds and memory are the kernel's
figures of the broker's process.
"""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.kafka_tools import consumer_performance, end_to_end_latency, producer_performance
from bench.load import report
from bench.load.brokers import Kafka, Millstream, Served, cpu_seconds, peak_memory_mb, raise_open_files, remove, start
from bench.load.fill import fill_page_cache, forget_clean_stop, write_log
from bench.load.frames import make_batch
from bench.load.page import Page, Run, write_page
from bench.load.report import Measured, Target

from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from millstream.testing.raw import RawConnection

PARTITIONS = 4
KINDS: dict[str, Callable[[Path], Served]] = {"millstream": Millstream, "kafka": Kafka}
MESSAGE_BYTES_MAX = 2 << 20
LARGE, SMALL = "from-large-batches", "from-one-record-batches"
RECORDS_A_BATCH = {LARGE: 10_000, SMALL: 1}


@dataclasses.dataclass
class Settings:
    """How long things take."""

    rounds: int = 3
    seconds: float = 5.0
    warmup_s: float = 5.0
    latencies: int = 3000
    consumed_bytes: int = 300_000_000
    partition_counts: tuple[int, ...] = (0, 2000, 20_000)
    large_partition_bytes: int = 20_000_000_000
    recovered_bytes: int = 500_000_000
    full_cache: bool = False

    @property
    def sentence(self) -> str:
        """What of this tells how far figures can be trusted."""
        cache = ", page cache full" if self.full_cache else ""
        return f"{self.rounds} rounds, {self.seconds:g} s each where a row has a length{cache}"


QUICK = Settings(
    rounds=1,
    seconds=2.0,
    warmup_s=2.0,
    latencies=1000,
    consumed_bytes=60_000_000,
    partition_counts=(0, 2000),
    large_partition_bytes=4_000_000_000,
    recovered_bytes=100_000_000,
)


@dataclasses.dataclass
class Bench:
    """The two brokers, prepared, and what has been measured so far."""

    settings: Settings
    brokers: list[Served]
    work: Path
    measured: list[Measured] = dataclasses.field(default_factory=list)
    commands: dict[str, str] = dataclasses.field(default_factory=dict)
    topics_made: int = 0

    def topic(self, broker: Served, partitions: int = PARTITIONS, **configs: object) -> str:
        """A fresh topic; every name has the same length."""
        self.topics_made += 1
        name = f"bench-{self.topics_made:05d}"
        with RawConnection(broker.bootstrap) as raw:
            raw.create_topic(name, partitions, max_message_bytes=MESSAGE_BYTES_MAX, **configs)
        return name

    def delete(self, broker: Served, topic: str) -> None:
        """Give the disk back."""
        with RawConnection(broker.bootstrap) as raw:
            raw.call(DeleteTopicsRequest(topics=[DeleteTopicState(name=topic)], timeout_ms=30_000))

    def load(self, row: str, broker: Served, *arguments: str) -> dict[str, float]:
        """Run a load program to its end; its figures, and the broker's CPU-seconds meanwhile."""
        command = program(broker, *arguments)
        self.commands.setdefault(row, " ".join(["python", *command[1:]]).replace(broker.bootstrap, "HOST:PORT"))
        before = cpu_seconds(broker.pid)
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise RuntimeError(f"{row} on {broker.name}: {done.stderr[-2000:]}")
        return {**json.loads(done.stdout.splitlines()[-1]), "broker_cpu_seconds": cpu_seconds(broker.pid) - before}

    def keep_whole_rows(self) -> None:
        """Forget the row in progress where one broker has fewer rounds of it than the other, or one alone."""
        last = self.measured[-1].row if self.measured else ""
        counts = [
            sum((each.row, each.broker) == (last, broker.name) for each in self.measured) for broker in self.brokers
        ]
        if min(counts) < max(counts) or max(counts) < min(self.settings.rounds, 2):
            self.measured = [each for each in self.measured if each.row != last]

    def alternate(
        self,
        row: str,
        measure: Callable[[Served], dict[str, float]],
        *,
        warm_up: Callable[[Served], object] | None = None,
        full_cache: bool = False,
    ) -> None:
        """The row's rounds: both brokers in turn, the first one changing. What they wrote is on disk before each.

        With `full_cache` no memory is free then, as on a server that has run for some days.
        """
        if warm_up is not None:
            for broker in self.brokers:
                warm_up(broker)
        for number in range(self.settings.rounds):
            for broker in self.brokers if number % 2 == 0 else self.brokers[::-1]:
                os.sync()
                if full_cache or self.settings.full_cache:
                    fill_page_cache(self.work / "cached")
                figures = measure(broker)
                self.measured.append(Measured(row, broker.name, number, figures))
                print(f"{row:26} {broker.name:10} {report.brief(figures)}", flush=True)


def program(broker: Served, module: str, *arguments: str) -> list[str]:
    """The argv of a load program against this broker."""
    name, *words = module.split()
    return [sys.executable, "-m", f"bench.load.{name}", *words, "--bootstrap", broker.bootstrap, *arguments]


def rates(found: dict[str, float]) -> dict[str, float]:
    """What a throughput row reports."""
    return {
        "records/s": found["records"] / found["seconds"],
        "MB/s": found["bytes"] / found["seconds"] / 1e6,
        "broker CPU us/record": found["broker_cpu_seconds"] / found["records"] * 1e6,
    }


def produce(records_a_batch: int, *, full_cache: bool = False) -> Callable[[Bench, str], None]:
    """The row that produces batches of so many records."""

    def row(bench: Bench, name: str) -> None:
        def run(broker: Served, seconds: float) -> dict[str, float]:
            topic = bench.topic(broker)
            arguments = ("--topic", topic, "--batch", str(records_a_batch), "--seconds", str(seconds))
            found = bench.load(name, broker, "produce", *arguments)
            bench.delete(broker, topic)
            return rates(found)

        settings = bench.settings
        bench.alternate(
            name,
            lambda b: run(b, settings.seconds),
            warm_up=lambda b: run(b, settings.warmup_s),
            full_cache=full_cache,
        )

    return row


def consume(topic: str) -> Callable[[Bench, str], None]:
    """The row that reads a filled topic from its start with the raw reader."""

    def row(bench: Bench, name: str) -> None:
        fill(bench, topic)

        def run(broker: Served) -> dict[str, float]:
            return rates(bench.load(name, broker, "consume", "--topic", topic, "--passes", "3"))

        bench.alternate(name, run, warm_up=run)

    return row


def consume_librdkafka(topic: str) -> Callable[[Bench, str], None]:
    """The row that reads a filled topic from its start with confluent-kafka."""

    def row(bench: Bench, name: str) -> None:
        fill(bench, topic)
        size = 110 if topic == LARGE else 170
        records = min(3_000_000, bench.settings.consumed_bytes * PARTITIONS // size * 9 // 10)

        def run(broker: Served) -> dict[str, float]:
            arguments = ("--topic", topic, "--records", str(records))
            return rates(bench.load(name, broker, "librdkafka consume", *arguments))

        bench.alternate(name, run, warm_up=run)

    return row


def fill(bench: Bench, topic: str) -> None:
    """Make a topic that is read, once: the same bytes in both brokers, written while they are down."""
    batch = make_batch(RECORDS_A_BATCH[topic], 100)
    for broker in bench.brokers:
        with RawConnection(broker.bootstrap) as raw:
            if topic in raw.topics():
                continue
            raw.create_topic(topic, PARTITIONS, max_message_bytes=MESSAGE_BYTES_MAX, retention_ms=-1)
        broker.stop()
        for partition in range(PARTITIONS):
            write_log(broker.data_directory / f"{topic}-{partition}", batch, bench.settings.consumed_bytes)
        forget_clean_stop(broker.data_directory)
        start(broker, {topic: PARTITIONS})


def small_fetches(shape: str) -> Callable[[Bench, str], None]:
    """The row of small fetches as a client of this kind sends them."""

    def row(bench: Bench, name: str) -> None:
        def run(broker: Served, seconds: float) -> dict[str, float]:
            topic = bench.topic(broker, PARTITIONS)
            found = bench.load(name, broker, f"fetch {shape}", "--topic", topic, "--seconds", str(seconds))
            used = found["broker_cpu_seconds"] / found["requests"] * 1e6
            return {"requests/s": found["requests"] / found["seconds"], "broker CPU us/request": used}

        settings = bench.settings
        bench.alternate(name, lambda b: run(b, settings.seconds), warm_up=lambda b: run(b, settings.warmup_s))

    return row


def latency(module: str) -> Callable[[Bench, str], None]:
    """The row of one record at a time, nothing else going on."""

    def row(bench: Bench, name: str) -> None:
        def run(broker: Served, count: int) -> dict[str, float]:
            topic = bench.topic(broker, 1)
            found = bench.load(name, broker, module, "--topic", topic, "--count", str(count))
            return {f"{part} ms": found[part] for part in ("p50", "p99", "p999")}

        count = bench.settings.latencies
        bench.alternate(name, lambda b: run(b, count), warm_up=lambda b: run(b, count))

    return row


def latency_busy(bench: Bench, name: str) -> None:
    """One record at a time while a cold catch-up reader, retention and another broker's recovery run.

    The recovery is that of a second broker of the same kind, killed with unflushed logs, on the same two cores.
    """
    fill(bench, LARGE)

    def run(broker: Served) -> dict[str, float]:
        retained = bench.topic(broker, 1, segment_bytes=4 << 20, retention_bytes=16 << 20, file_delete_delay_ms=1000)
        topic = bench.topic(broker, 1)
        folders = [str(broker.data_directory / f"{LARGE}-{partition}") for partition in range(PARTITIONS)]
        recovering = unclean(bench, broker.name, 10_000, bench.settings.recovered_bytes // 2)
        recovering.prepare()
        background = [
            subprocess.Popen(program(broker, *words), stdout=subprocess.DEVNULL)
            for words in (
                ("consume", "--topic", LARGE, "--passes", "0", "--evict", *folders),
                ("produce", "--topic", retained, "--partitions", "1", "--batch", "100", "--requests-per-second", "500"),
            )
        ]
        try:
            recovering.spawn()
            found = bench.load(name, broker, "latency", "--topic", topic, "--count", str(bench.settings.latencies))
        finally:
            for process in background:
                process.kill()
                process.wait()
            remove(recovering)
        return {f"{part} ms": found[part] for part in ("p50", "p99", "p999")}

    bench.alternate(name, run)


def peak_memory(bench: Bench, name: str) -> None:
    """VmHWM of both processes after the rows that ran before this one."""
    for broker in bench.brokers:
        figures = {"MB": peak_memory_mb(broker.pid)}
        bench.measured.append(Measured(name, broker.name, 0, figures))
        print(f"{name:26} {broker.name:10} {report.brief(figures)}", flush=True)


def starts(bench: Bench, name: str) -> None:
    """Clean starts of brokers of their own, until every partition answers; the first start of all is not counted."""
    for count in bench.settings.partition_counts:
        row = f"{name}-{count}"
        topics = {f"many-{number:02d}": count // 20 for number in range(20)} if count else {}
        made: list[Served] = []
        for kind in (standing.name for standing in bench.brokers):
            if kind == "kafka" and count > KAFKA_PARTITIONS_MAX:
                continue
            broker: Served = KINDS[kind](bench.work / f"{row}-{kind}")
            made.append(broker)
            start(broker)
            with RawConnection(broker.bootstrap, timeout_s=600) as raw:
                for topic, partitions in topics.items():
                    raw.create_topic(topic, partitions)
            broker.stop()
        for number in range(bench.settings.rounds if count <= 2000 else 1):
            for broker in made:
                figures = {"seconds": start(broker, topics)}
                figures["MB"] = peak_memory_mb(broker.pid)
                broker.stop()
                bench.measured.append(Measured(row, broker.name, number, figures))
                print(f"{row:26} {broker.name:10} {report.brief(figures)}", flush=True)
        for broker in made:
            remove(broker)


def unclean(bench: Bench, kind: str, records_a_batch: int, size_bytes: int, partitions: int = 8) -> Served:
    """A stopped broker whose logs are as kill -9 leaves them: nothing flushed, no indexes."""
    broker: Served = KINDS[kind](Path(tempfile.mkdtemp(dir=bench.work, prefix=f"unclean-{kind}-")))
    start(broker)
    with RawConnection(broker.bootstrap) as raw:
        raw.create_topic("unflushed", partitions, max_message_bytes=MESSAGE_BYTES_MAX)
    broker.stop()
    batch = make_batch(records_a_batch, 100)
    for partition in range(partitions):
        write_log(broker.data_directory / f"unflushed-{partition}", batch, size_bytes)
    forget_clean_stop(broker.data_directory)
    return broker


def recovery(records_a_batch: int) -> Callable[[Bench, str], None]:
    """The row that starts on 8 unflushed logs."""

    def row(bench: Bench, name: str) -> None:
        for number in range(min(bench.settings.rounds, 2)):
            for kind in (standing.name for standing in bench.brokers):
                size_bytes = bench.settings.recovered_bytes
                broker = unclean(bench, kind, records_a_batch, size_bytes)
                seconds = start(broker, {"unflushed": 8})
                broker.stop()
                restart = start(broker, {"unflushed": 8})
                figures = {"seconds": seconds, "MB/s": 8 * size_bytes / 1e6 / max(seconds - restart, 1e-3)}
                remove(broker)
                bench.measured.append(Measured(name, kind, number, figures))
                print(f"{name:26} {kind:10} {report.brief(figures)}", flush=True)

    return row


def random_fetch(bench: Bench, name: str) -> None:
    """Fetches at random offsets of a large partition and of a 1 GB one."""
    broker = Millstream(bench.work / name)
    sizes = {"large": bench.settings.large_partition_bytes, "small": 1_000_000_000}
    start(broker)
    with RawConnection(broker.bootstrap) as raw:
        for topic in sizes:
            raw.create_topic(topic, 1, max_message_bytes=MESSAGE_BYTES_MAX, retention_ms=-1)
    broker.stop()
    batch = make_batch(1000, 100)
    for topic, size_bytes in sizes.items():
        write_log(broker.data_directory / f"{topic}-0", batch, size_bytes)
    os.sync()
    forget_clean_stop(broker.data_directory)
    start(broker, dict.fromkeys(sizes, 1))
    for number in range(bench.settings.rounds):
        figures: dict[str, float] = {}
        for topic in sizes:
            arguments = ("--topic", topic, "--folder", str(broker.data_directory / f"{topic}-0"), "--seed", str(number))
            found = bench.load(name, broker, "random_fetch", *arguments)
            figures |= {f"{topic} {part} ms": found[f"{part}_p50"] for part in ("cold", "cached")}
        for part in ("cold", "cached"):
            figures[f"{part} ratio"] = figures[f"large {part} ms"] / figures[f"small {part} ms"]
        bench.measured.append(Measured(name, broker.name, number, figures))
        print(f"{name:26} {broker.name:10} {report.brief(figures)}", flush=True)
    remove(broker)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: how it is measured and what it must reach."""

    title: str
    run: Callable[[Bench, str], None]
    targets: tuple[Target, ...] = ()


THROUGHPUT, CPU = "records/s", "broker CPU us/record"
CONSUMED = (Target(THROUGHPUT, ">=", 1.05), Target(CPU, "<=", 0.7))
ROWS = {
    "produce-10000": Row(
        "produce, 10,000-record batches", produce(10_000), (Target(THROUGHPUT, ">=", 1.3), Target(CPU, "<=", 0.5))
    ),
    "produce-100": Row(
        "produce, 100-record batches", produce(100), (Target(THROUGHPUT, ">=", 2), Target(CPU, "<=", 0.25))
    ),
    "produce-1": Row(
        "produce, 1 record a request, pipelined", produce(1), (Target(THROUGHPUT, ">=", 4), Target(CPU, "<=", 0.15))
    ),
    "produce-10000-full": Row("the same on a full page cache, 10,000-record batches", produce(10_000, full_cache=True)),
    "produce-100-full": Row("the same on a full page cache, 100-record batches", produce(100, full_cache=True)),
    "producer-performance": Row("produce, Kafka's ProducerPerformance, 1.1 MB batches", producer_performance),
    "consume-large": Row("consume from the start, 10,000-record batches", consume(LARGE), CONSUMED),
    "consume-small": Row("consume from the start, one-record batches", consume(SMALL), CONSUMED),
    "consume-large-librdkafka": Row("the same by confluent-kafka, 10,000-record batches", consume_librdkafka(LARGE)),
    "consume-small-librdkafka": Row("the same by confluent-kafka, one-record batches", consume_librdkafka(SMALL)),
    "fetch-java": Row("small fetches as the Java client's: a session, 1 of 4 partitions named", small_fetches("java")),
    "fetch-librdkafka": Row("as librdkafka's: no session, 4 partitions named", small_fetches("librdkafka")),
    "fetch-kafka-python": Row("as kafka-python's: a session, version 10", small_fetches("kafka-python")),
    "fetch-aiokafka": Row("as aiokafka's: no session, version 4", small_fetches("aiokafka")),
    "consumer-performance": Row(
        "the same by Kafka's ConsumerPerformance, 10,000-record batches", consumer_performance(LARGE, fill)
    ),
    "latency": Row(
        "end to end latency, one record at a time",
        latency("latency"),
        (Target("p50 ms", "<=", 0.5), Target("p99 ms", "<=", 0.2)),
    ),
    "latency-librdkafka": Row("the same by confluent-kafka", latency("librdkafka latency")),
    "latency-kafka": Row("the same by Kafka's EndToEndLatency", end_to_end_latency),
    "latency-busy": Row(
        "end to end latency while recovery, retention and a cold catch-up consumer run",
        latency_busy,
        (Target("p99 ms", "<=", 0.5),),
    ),
    "peak-memory": Row(
        "peak memory after all of the above that its run has", peak_memory, (Target("MB", "<=", 120, absolute=True),)
    ),
    "start": Row("start to every partition answering", starts),
    "recovery-10000": Row(
        "recovery after kill -9, 8 unflushed logs, 10,000-record batches",
        recovery(10_000),
        (Target("MB/s", ">=", 500, absolute=True),),
    ),
    "recovery-1": Row(
        "recovery after kill -9, 8 unflushed logs, one-record batches",
        recovery(1),
        (Target("MB/s", ">=", 200, absolute=True),),
    ),
    "random-fetch": Row(
        "fetch at a random offset: a large partition against a 1 GB one",
        random_fetch,
        (Target("cold ratio", "<=", 1.2, absolute=True), Target("cached ratio", "<=", 1.2, absolute=True)),
    ),
}
START_TARGETS = {0: 0.7, 2000: 3.0, 20_000: 20.0}
# The one run that made 20,000 partitions on both ended at the last topic: its partitions had no leader after a minute.
# Millstream alone made and started them all. Why Apache Kafka did not, if it was that, was not looked into.
KAFKA_PARTITIONS_MAX = 2000
# These rows start brokers of their own.
ALONE = {"start", "recovery-10000", "recovery-1", "random-fetch"}


def described() -> dict[str, tuple[str, tuple[Target, ...]]]:
    """Titles and targets by the names that measurements carry."""
    found = {name: (row.title, row.targets) for name, row in ROWS.items() if name != "start"}
    for count, seconds in START_TARGETS.items():
        limit = Target("seconds", "<=", seconds, absolute=True)
        found[f"start-{count}"] = (f"start to every partition answering, {count:,} partitions", (limit,))
    return found


def measure(bench: Bench, names: Sequence[str]) -> None:
    """Run the rows: those on the two standing brokers first, then those with brokers of their own."""
    standing = [name for name in ROWS if name in names and name not in ALONE]
    if standing:
        for broker in bench.brokers:
            start(broker)
        for name in standing:
            ROWS[name].run(bench, name)
        for broker in bench.brokers:
            remove(broker)
    for name, row in ROWS.items():
        if name in names and name in ALONE:
            row.run(bench, name)


class EndedEarlyError(Exception):
    """SIGTERM came."""


def _end_early(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise EndedEarlyError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help=f"comma-separated, of: {', '.join(ROWS)}")
    parser.add_argument("--brokers", default="millstream,kafka", help="one of them alone, to look at it")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="length of one produce measurement")
    parser.add_argument(
        "--full-cache", action="store_true", help="fill the page cache before each round, as it is in service"
    )
    parser.add_argument("--partitions", metavar="COUNTS", help="how many the row start has, of 0,2000,20000")
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--write-doc", type=Path, help="put what was measured into this page")
    parser.add_argument("--folder", type=Path, help="where both keep their data; a temporary folder by default")
    given = parser.parse_args()
    names = given.rows.split(",") if given.rows else list(ROWS)
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    changes = {name: value for name in ("rounds", "seconds") if (value := getattr(given, name)) is not None}
    if given.partitions:
        changes["partition_counts"] = tuple(int(count) for count in given.partitions.split(","))
    settings = dataclasses.replace(QUICK if given.quick else Settings(), full_cache=given.full_cache, **changes)
    if unknown_counts := set(settings.partition_counts) - set(START_TARGETS):
        parser.error(f"--partitions {unknown_counts}: there are {', '.join(map(str, START_TARGETS))}")
    raise_open_files()
    work = Path(tempfile.mkdtemp(prefix="millstream-bench-", dir=given.folder))
    bench = Bench(settings, [KINDS[kind](work / kind) for kind in given.brokers.split(",")], work)
    started, when = time.monotonic(), time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    # Ended early, it ends what it has started, and keeps the rows of which both brokers have as many rounds.
    signal.signal(signal.SIGTERM, _end_early)
    try:
        measure(bench, names)
    except EndedEarlyError:
        bench.keep_whole_rows()
        print("ended early", flush=True)
    finally:
        for broker in bench.brokers:
            broker.kill()
        shutil.rmtree(work, ignore_errors=True)
    places = ((str(work), "WORK"), (f"{Path(sys.executable).parent}/", ""))
    commands = {broker.name: " ".join(broker.command) for broker in bench.brokers}
    for place, shown in places:
        commands = {name: command.replace(place, shown) for name, command in commands.items()}
    run = Run(when, f"{(time.monotonic() - started) / 60:.1f} minutes", settings.sentence, report.machine())
    measured = [dataclasses.replace(each, run=when) for each in bench.measured]
    page = Page(described(), measured, commands, bench.commands, [run])
    print(page.table())
    if given.write_doc:
        write_page(given.write_doc, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
