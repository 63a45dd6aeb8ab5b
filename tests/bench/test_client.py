"""The benchmark of the clients: each does each work, and what it says is what is there."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.client import RATE, ROWS, Bench, filled_batch
from bench.load.clients import CLIENTS, PARTITIONS
from bench.load.turns import OURS, Goal, Turn, Turns

from millstream.core.records import Compression, read_header
from millstream.testing import TestBroker, broker
from millstream.testing.raw import RawConnection

RECORDS = 1_000


@pytest.fixture(scope="module")
def served() -> Iterator[TestBroker]:
    with broker() as running, RawConnection(running.bootstrap_servers) as raw:
        raw.create_topic("read", PARTITIONS)
        batch = filled_batch(100, Compression.LZ4)
        for number in range(2 * RECORDS // 100):
            assert raw.produce("read", number % PARTITIONS, batch).error_code == 0
        yield running


@pytest.mark.parametrize("work", ["arrow", "consume", "table", "send", "latency", "memory-consume", "memory-send"])
@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_does_its_works(served: TestBroker, client: str, work: str) -> None:
    row = next(row for row in ROWS.values() if row.work == work)
    topic = "read" if row.topic else f"written-{client}-{work}"
    if client not in row.clients:
        assert row.clients == (OURS,)
        return
    with RawConnection(served.bootstrap_servers) as raw:
        if not row.topic:
            raw.create_topic(topic, PARTITIONS)
        words = ("--bootstrap", served.bootstrap_servers, "--topic", topic, "--records", str(RECORDS), "--seconds", "1")
        command = [sys.executable, "-m", "bench.load.clients", work, client, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        if work == "latency":
            assert 0 < found["p50"] <= found["p99"]
        elif work.startswith("memory"):
            assert "MB over the bound" in found
        else:
            assert found["records"] == RECORDS
            assert found["cpu_seconds"] > 0
        if work in ("table", "send"):
            assert sum(raw.offset(topic, partition) for partition in range(PARTITIONS)) >= RECORDS


def test_goals_are_judged_by_medians_against_the_peer() -> None:
    class Named:
        name = "millstream"

    bench = Bench([Named()], list(CLIENTS), 3, 0, 1)  # type: ignore[list-item]
    for number, (ours, theirs) in enumerate([(9.0, 3.0), (5.0, 2.0), (6.0, 1.0)]):
        bench.turns.keep(Turn("send", "millstream", OURS, number, {RATE: ours}))
        bench.turns.keep(Turn("send", "millstream", "aiokafka", number, {RATE: theirs}))
    (line,) = bench.lines()
    assert line[3:] == ("6", "", "", "2", ">= 1x confluent-kafka; >= 4x aiokafka", ", **no**")
    assert any("| 6 |" in text for text in bench.section())
    assert Goal("x", "<=", 1.5, "confluent-kafka").met(3, 2)
    assert not Goal("x", ">=", 5).met(4, None)
    assert read_header(filled_batch(10, Compression.LZ4)).count == 10


def test_runs_of_a_series_add_up(tmp_path: Path) -> None:
    results = tmp_path / "run.jsonl"
    for rate in (5.0, 7.0):
        turns = Turns(results)
        (number,) = turns.rounds_to_come(1, "send", "kafka")
        turns.keep(
            Turn("send", "kafka", OURS, number, {RATE: rate}, f"2026-01-01 00:0{rate:.0f}:00", f"send {rate:.0f}")
        )
    assert list(Turns(results).rounds_to_come(2, "send", "kafka")) == [2, 3]
    series = Bench([], list(CLIENTS), 1, 0, 1, Turns(results))
    (line,) = series.lines()
    assert line[1:4] == ("kafka", RATE, "6")
    page = "\n".join(series.section())
    assert "Measured by 2 runs between 2026-01-01 00:05:00 and 2026-01-01 00:07:00; " in page
    assert "# send\nsend 5\n" in page
