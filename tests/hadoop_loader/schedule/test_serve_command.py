"""`millstream load serve` as a process: it loads by its schedule, says so, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from millstream import Admin, Producer
from millstream.testing import TestBroker

COUNT = 50
DEADLINE_S = 60.0


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "millstream", "load", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TOPIC_PASSWORD": "unused"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE_S)
        assert process.stdout is not None
        process.stdout.close()


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """Read on to a line with these words; the test's own deadline ends a wait for one that never comes."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"it ended with {process.wait()} and never said {words!r}")


@pytest.mark.timeout(180)
def test_it_loads_and_ends_when_it_is_told_to(millstream_broker_session: TestBroker, tmp_path: Path) -> None:
    bootstrap, topic = millstream_broker_session.bootstrap_servers, f"serve-{os.getpid()}"
    with Admin(bootstrap) as admin, Producer(bootstrap) as producer:
        admin.create_topic(topic, partitions=2)
        for number in range(COUNT):
            producer.send(topic, b"%d" % number, partition=number % 2)
        producer.flush()
    path, metrics = tmp_path / "job.toml", tmp_path / "job.prom"
    path.write_text(
        f"""
        name = "{topic}"
        workers = 1
        [source]
        bootstrap_servers = "{bootstrap}"
        topics = "{topic}"
        run_bytes_max = 200
        [value]
        format = "raw"
        [partitioning]
        kind = "none"
        [destination]
        uri = "{(tmp_path / "lake").as_uri()}"
        [schedule]
        every_s = "1 h"
        [report]
        metrics_file = "{metrics}"
        """
    )
    # What an earlier process counted, and a job that is run by hand.
    rows_total = "millstream_loader_rows_total"
    another = f'{rows_total}{{job="another",topic="t"}} 7\n'
    metrics.write_text(f'{rows_total}{{job="{topic}",topic="{topic}"}} 1000\n{another}')
    with serving(str(path)) as process:
        # A run that ended at its bound is not followed an hour later.
        assert "the rest follows at once" in line_with(process, f"{topic}: loaded, ")
        line_with(process, "next run")
        process.send_signal(signal.SIGTERM)
        line_with(process, "stopping")
        assert process.wait(DEADLINE_S) == 0
    files = list((tmp_path / "lake" / topic / "parquet").rglob("*.parquet"))
    values = [value for file in files for value in pq.read_table(file)["value"].to_pylist()]
    assert sorted(values) == sorted(b"%d" % number for number in range(COUNT))
    assert f'rows_total{{job="{topic}",topic="{topic}"}} {1000 + COUNT}\n' in metrics.read_text()
    assert another in metrics.read_text()


def test_wrong_jobs_are_told_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('name = "a"\n[schedule]\ncron = "* * *"\n')
    with serving(str(path), str(tmp_path / "none.toml")) as process:
        output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert "job.toml: line 3: schedule.cron" in output
    assert "none.toml: the file: it cannot be read" in output
    assert "Traceback" not in output
