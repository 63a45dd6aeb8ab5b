"""Our client beside confluent-kafka, kafka-python and aiokafka: the same topics, the same machine, in turn.

    python -m bench.client                                             every row on both brokers, three rounds
    python -m bench.client --rows send,latency --clients millstream,confluent-kafka --brokers millstream
    python -m bench.client --rows arrow --records 20000 --rounds 1     a small one, to see that it runs
    python -m bench.client --write-doc docs/performance.md
    python -m bench.client --rows send --results run.jsonl             one part of a series; parts add to the file
    python -m bench.client --rows "" --results run.jsonl --write-doc docs/performance.md        and all of them together

Records are 100 B. Rates are per CPU-second of the client's process (`bench/load/clients.py` has what each does). Topics
that are read have four partitions with the same bytes on both brokers, written while they are down. In each round every
client takes its turn, the first one changing. Slow clients do a tenth of the records.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import report
from bench.load.brokers import Kafka, Millstream, Served, raise_open_files, start
from bench.load.clients import CLIENTS, PARTITIONS
from bench.load.fill import forget_clean_stop, write_log
from bench.load.turns import BROKERS, OURS, Goal, Turn, Turns, in_turn, judged, last_line

from millstream.core.records import BatchBuilder, Compression
from millstream.testing.raw import RawConnection

# Clients in plain Python: their share of a row's records, where a rate is measured.
SLOW = {"kafka-python": 10, "aiokafka": 10}
RATE = "records per CPU-second"
SECTION = "client"
WORDS = [b"Basel", b"Bern", b"Chur", b"Genf", b"Olten", b"Thun", b"Zug", b"delayed", b"on time", b"platform 12"]


@dataclass(frozen=True)
class Row:
    """A row: what a client does with which topic, how often, and what ours must reach."""

    title: str
    work: str
    # A topic that is filled beforehand, or "" for a fresh one.
    topic: str
    records: int
    goals: tuple[Goal, ...]
    clients: tuple[str, ...] = tuple(CLIENTS)

    @property
    def is_rate(self) -> bool:
        """Whether its figures are rates, which fewer records tell as well."""
        return self.work in ("arrow", "consume", "table", "send")


LARGE, LZ4, SMALL = "client-large", "client-lz4", "client-one-record"
# Records of a batch, and its codec.
FILLED = {LARGE: (10_000, Compression.NONE), LZ4: (10_000, Compression.LZ4), SMALL: (1, Compression.NONE)}
ROWS = {
    "arrow": Row(
        "consume to Arrow, 10,000-record batches",
        "arrow",
        LARGE,
        3_000_000,
        (Goal(RATE, ">=", 6e6), Goal(RATE, ">=", 5, "confluent-kafka")),
    ),
    "arrow-lz4": Row("the same, lz4", "arrow", LZ4, 3_000_000, (Goal(RATE, ">=", 4e6),)),
    "arrow-one": Row("the same, one-record batches", "arrow", SMALL, 400_000, (Goal(RATE, ">=", 1e6),)),
    "consume": Row("consume record by record", "consume", LARGE, 1_000_000, (Goal(RATE, ">=", 1, "confluent-kafka"),)),
    "table": Row("send_batch from Arrow", "table", "", 3_000_000, (Goal(RATE, ">=", 5e6),), (OURS,)),
    "send": Row(
        "send() per record, a handle or callback each",
        "send",
        "",
        500_000,
        (Goal(RATE, ">=", 1, "confluent-kafka"), Goal(RATE, ">=", 4, "aiokafka")),
    ),
    "latency": Row(
        "one record at a time, acks=all", "latency", "", 3_000, (Goal("p99 ms", "<=", 1.5, "confluent-kafka"),)
    ),
    "memory-consume": Row(
        "growth while consuming to Arrow", "memory-consume", LARGE, 0, (Goal("MB over the bound", "<=", 20),), (OURS,)
    ),
    "memory-send": Row(
        "growth while sending per record", "memory-send", "", 0, (Goal("MB over the bound", "<=", 20),), (OURS,)
    ),
}


@dataclass
class Bench:
    """The brokers, what is asked for, and what has been measured."""

    brokers: Sequence[Served]
    clients: Sequence[str]
    rounds: int
    # Of a row; 0: as the row says.
    records: int
    seconds: float
    turns: Turns = field(default_factory=Turns)
    topics_made: int = 0
    command: str = ""

    def prepare(self, rows: Sequence[Row]) -> None:
        """Start the brokers, with the topics that the rows read."""
        topics = sorted({row.topic for row in rows if row.topic})
        wanted = {topic: max(self.amount(row) for row in rows if row.topic == topic) for topic in topics}
        for broker in self.brokers:
            start(broker)
            if not topics:
                continue
            with RawConnection(broker.bootstrap) as raw:
                for topic in topics:
                    raw.create_topic(topic, PARTITIONS, max_message_bytes=2 << 20, retention_ms=-1)
            broker.stop()
            for topic in topics:
                batch = filled_batch(*FILLED[topic])
                batches = -(-wanted[topic] // PARTITIONS // FILLED[topic][0]) + 1
                for partition in range(PARTITIONS):
                    write_log(broker.data_directory / f"{topic}-{partition}", batch, batches * len(batch))
            forget_clean_stop(broker.data_directory)
            start(broker, dict.fromkeys(topics, PARTITIONS))

    def amount(self, row: Row) -> int:
        """How many records a client has to do with; a topic to read over and over has a million."""
        return self.records or row.records or 1_000_000

    def run(self, name: str) -> None:
        """Every round of a row."""
        row = ROWS[name]
        clients = [client for client in self.clients if client in row.clients]
        for broker in self.brokers:
            # What the first client would find cold, and the page cache as well.
            if row.topic and clients:
                self.turn(name, row, broker, clients[0])
            for number in self.turns.rounds_to_come(self.rounds, name, broker.name):
                for client in in_turn(clients, number):
                    figures = self.turn(name, row, broker, client)
                    self.turns.keep(Turn(name, broker.name, client, number, figures, self.turns.started, self.command))
                    print(f"{name:16} {broker.name:10} {client:16} {report.brief(figures)}", flush=True)

    def turn(self, name: str, row: Row, broker: Served, client: str) -> dict[str, float]:
        """One client does a row's work once."""
        topic = row.topic or self.fresh_topic(broker)
        records = self.amount(row) // (SLOW.get(client, 1) if row.is_rate else 1)
        words = (row.work, client, "--topic", topic, "--records", str(records), "--seconds", str(self.seconds))
        command = [sys.executable, "-m", "bench.load.clients", *words, "--bootstrap", broker.bootstrap]
        self.command = f"python -m bench.load.clients {' '.join(words)} --bootstrap HOST:PORT"
        found = last_line(command, f"{name}, {client} on {broker.name}", timeout_s=600)
        if "cpu_seconds" in found:
            return {RATE: found["records"] / found["cpu_seconds"], "records/s": found["records"] / found["seconds"]}
        return {f"{figure} ms" if figure.startswith("p") else figure: value for figure, value in found.items()}

    def fresh_topic(self, broker: Served) -> str:
        """A topic that nobody has written to."""
        self.topics_made += 1
        name = f"client-bench-{self.topics_made:04d}"
        with RawConnection(broker.bootstrap) as raw:
            raw.create_topic(name, PARTITIONS, max_message_bytes=2 << 20, retention_bytes=1 << 30)
        return name

    def lines(self) -> list[tuple[str, ...]]:
        """Work, broker, figure, each client's median, goal, met."""
        lines = []
        for name, row in ROWS.items():
            for broker in BROKERS:
                for figure in dict.fromkeys(figure for turn in self.turns.of(name, broker) for figure in turn.figures):
                    medians = {client: self.turns.median(name, broker, client, figure) for client in CLIENTS}
                    goals = [goal for goal in row.goals if goal.figure == figure]
                    shown = (report.number(value) if value is not None else "" for value in medians.values())
                    texts = judged(goals, medians[OURS], medians)
                    lines.append((row.title, broker, figure, *shown, *texts))
        return lines

    def section(self) -> list[str]:
        """The page's section."""
        commands: dict[str, str] = {}
        for turn in self.turns.all:
            if turn.program == OURS:
                commands.setdefault(turn.row, turn.command)
        return [
            "Written by `python -m bench.client --write-doc docs/performance.md`: each client in a process of its own,",
            "on the same topics in the same run, in turn; medians of the rounds. Rates are per CPU-second of the",
            "client's process; kafka-python and aiokafka do a tenth of the records for them. A run has all clients",
            "of some rows, on one or both brokers. What each client does stands in `bench/load/clients.py`.",
            "",
            f"Machine: {report.machine()}. Measured {self.turns.when()}.",
            "",
            f"| work | broker | figure | {' | '.join(CLIENTS)} | goal | met |",
            f"|---|---|---|{'--:|' * len(CLIENTS)}---|---|",
            *("| " + " | ".join(line) + " |" for line in self.lines()),
            "",
            "```sh",
            *(f"# {row}\n{commands[row]}" for row in ROWS if row in commands),
            "```",
            "",
            "| row | broker | client | round | figures | run |",
            "|---|---|---|--:|---|---|",
            *(
                report.table_row((m.row, m.broker, m.program, f"{m.round + 1}", report.brief(m.figures), m.run))
                for m in sorted(self.turns.all, key=lambda m: (list(ROWS).index(m.row), m.broker != OURS, m.round))
            ),
        ]


def filled_batch(records: int, codec: Compression) -> bytes:
    """A batch of 100 B values of words, so that a codec finds something to do."""
    draw = random.Random(5)
    builder = BatchBuilder(compression=codec)
    for index in range(records):
        value = b" ".join(draw.choices(WORDS, k=20))[:100]
        builder.append(1_790_000_000_000 + index, None, value)
    return builder.build()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="comma-separated")
    parser.add_argument("--brokers", default="millstream,kafka", help="one of them alone, to look at it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=0, help="of each row, instead of its own number")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the rows about memory")
    parser.add_argument("--results", type=Path, help="a file that keeps the turns of a series of runs")
    parser.add_argument("--write-doc", type=Path, help="put the table into its section of this page")
    given = parser.parse_args()
    names, clients = [name for name in given.rows.split(",") if name], given.clients.split(",")
    for what, asked, known in (("row", names, list(ROWS)), ("client", clients, list(CLIENTS))):
        if unknown := [name for name in asked if name not in known]:
            parser.error(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    raise_open_files()
    # Who limits the time of a run should find no brokers behind it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before its time"))
    work = Path(tempfile.mkdtemp(prefix="millstream-bench-client-"))
    kinds = {kind.name: kind for kind in (Millstream, Kafka)}
    served = given.brokers.split(",") if names else []
    brokers: list[Served] = [kinds[name](work / name) for name in served]
    bench = Bench(brokers, clients, given.rounds, given.records, given.seconds, Turns(given.results))
    try:
        if names:
            bench.prepare([ROWS[name] for name in names])
        for name in names:
            bench.run(name)
    finally:
        for broker in brokers:
            broker.kill()
        shutil.rmtree(work, ignore_errors=True)
    for line in bench.lines():
        print("  ".join(cell.ljust(14) for cell in line))
    if given.write_doc:
        report.replace_section(given.write_doc, SECTION, "Client", bench.section())
    return 0


if __name__ == "__main__":
    sys.exit(main())
