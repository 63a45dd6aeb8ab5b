"""`millstream load ...` as an operator runs it: results, sentences, JSON, exit codes, signals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from tests.support.loads import SCHEMA_2, Events, assert_same
from tests.support.registry import registry

from millstream.cli.app import run
from millstream.cli.load import app as load_app
from millstream.cli.load_output import print_replay, print_report
from millstream.hadoop_loader.driver import load
from millstream.hadoop_loader.driver.load import run_load
from millstream.hadoop_loader.driver.replay import Replay, ReplayedTopic
from millstream.hadoop_loader.driver.report import LoadReport, Outcome, TopicReport
from millstream.hadoop_loader.job import LoadJob
from millstream.testing import broker

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def events(broker_kind: str, request: pytest.FixtureRequest) -> Iterator[Events]:
    if broker_kind == "kafka":
        bootstrap: str = request.getfixturevalue("apache_kafka").bootstrap_servers
        made = Events(bootstrap, request.getfixturevalue("kafka_registry").url, "clicks")
        made.send(600)
        yield made
        return
    with broker() as kafka, registry(kafka.bootstrap_servers) as schemas:
        made = Events(kafka.bootstrap_servers, schemas.url, "clicks")
        made.send(600)
        yield made


class Job:
    """A job file for the topic, and commands on it."""

    def __init__(self, events: Events, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = folder / "clicks.toml"
        self._capsys = capsys
        self.lake = folder / "lake"
        self.write(events)

    def write(self, events: Events, more: str = "") -> None:
        self.path.write_text(
            f"""
            name = "clicks"
            source.bootstrap_servers = "{events.bootstrap}"
            source.topics = ["{events.topic}"]
            registry.urls = "{events.registry_url}"
            destination.uri = "{self.lake.as_uri()}"
            destination.formats = ["avro", "parquet"]
            partitioning.pattern = "daily"
            metadata_columns = ["partition", "offset"]
            report.metrics_file = "{self.path.parent / "clicks.prom"}"
            {more}
            """
        )

    def __call__(self, command: str, *options: str, code: int = 0) -> tuple[str, str]:
        """Run a command, check its exit code, and return both of its streams."""
        self._capsys.readouterr()
        found = run(["load", command, str(self.path), *options])
        out, err = self._capsys.readouterr()
        assert found == code, (out, err)
        assert "Traceback" not in err
        return out, err

    def json(self, command: str, *options: str, code: int = 0) -> Any:
        return json.loads(self(command, *options, "--json", code=code)[0])


@pytest.fixture
def job(events: Events, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Job:
    return Job(events, tmp_path, capsys)


def test_compaction_takes_memory_as_workers_do(tmp_path: Path) -> None:
    program = (
        "from millstream.cli.app import run\n"
        f"run(['load', 'compact', {str(tmp_path / 'none.toml')!r}])\n"
        "import pyarrow\n"
        "print(pyarrow.default_memory_pool().backend_name)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.split() == ["system"], done.stderr


@pytest.mark.from_kafka
def test_a_load_from_plan_to_compaction(job: Job, events: Events) -> None:
    count = events.next_id
    assert job.json("plan")["offsets"] == count
    assert f"{count:,} offsets" in job("plan", "--partitions")[0]

    out, _ = job("run")
    assert f"loaded: {count:,} records" in out
    assert f"audit: {count:,} offsets = {count:,} rows + 0 bad" in out
    assert (
        f'millstream_loader_rows_total{{job="clicks",topic="clicks"}} {count}'
        in (job.path.parent / "clicks.prom").read_text()
    )

    assert "a run would load nothing" in job("plan")[0]
    report = job.json("run")
    assert (report["outcome"], report["exit_code"], report["rows"]) == ("nothing new", 0, 0)
    events.send(20, SCHEMA_2)
    assert job.json("run")["rows"] == 20
    metrics = (job.path.parent / "clicks.prom").read_text()
    assert f'millstream_loader_rows_total{{job="clicks",topic="clicks"}} {count + 20}\n' in metrics

    status = job.json("status")
    assert [table["rows"] for table in status["tables"]] == [count + 20, count + 20]
    assert status["red"] == []
    assert "nothing is red" in job("status", "--partitions")[0]
    assert job.json("compact")["exit_code"] == 0
    assert job.json("verify", "--deep")["findings"] == []
    assert "no dead letters" in job("replay-dead-letters")[0]


def test_a_topic_is_loaded_anew_and_its_former_table_dropped(job: Job, events: Events) -> None:
    job("run")
    options = ("--topic", events.topic, "--table", "anew")

    assert (
        f"topic {events.topic} would begin anew with the next run, in table anew: "
        in job("anew", *options, "--dry-run")[0]
    )
    out, err = job("anew", *options)

    assert f"topic {events.topic} begins anew with the next run, in table anew: {events.next_id:,} offsets" in out
    assert f"once they have left it: `millstream load drop --table {events.topic}`" in err
    assert "no more" not in err  # all of its rows come again
    assert job.json("status")["topics"][0]["lag"] == events.next_id
    assert job.json("run")["topics"][0]["table"] == "anew"
    assert job("drop", "--table", events.topic)[0].startswith("dropped ")
    assert job("drop", "--table", events.topic)[0].startswith("none is left to drop")
    assert "'anew' is no table that a topic of this job had before" in job("drop", "--table", "anew", code=1)[1]
    assert job.json("anew", *options, code=1)["errors"] == [
        f"table anew: anew is there already; give another name, such as {events.topic}_2"
    ]


def test_a_file_where_a_directory_has_to_be_is_told_with_what_to_do(job: Job, events: Events) -> None:
    job.lake.write_text("in the way")
    for command in ("run", "plan", "status", "verify", "compact"):
        assert "not a directory; see that the path can be made and written to" in job(command, code=1)[1]
    job.lake.unlink()
    job.lake.mkdir()
    in_the_way = job.lake / events.topic
    in_the_way.write_text("in the way")

    assert f"{in_the_way} is a file where a directory has to be: move it away; the next run" in job("run", code=3)[1]
    in_the_way.unlink()
    job("run")

    assert_same(events, job.lake, "avro", "parquet")
    assert "nothing is red" in job("status")[0]


@pytest.mark.parametrize(("options", "is_full"), [(("--json",), True), ((), False)], ids=["full", "gone"])
def test_a_run_whose_result_nobody_takes_has_loaded_all_the_same(
    job: Job, events: Events, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], is_full: bool
) -> None:
    job.write(events, "source.run_bytes_max = 9000\n            workers = 1")
    reading, writing = os.pipe()
    os.close(reading)
    place = os.open("/dev/full", os.O_WRONLY) if is_full else writing
    with os.fdopen(place, "w") as nowhere, monkeypatch.context() as output:
        output.setattr(sys, "stdout", nowhere)
        err = job("run", "--until-done", *options, code=3 if is_full else 0)[1]
    if is_full:
        os.close(writing)

    assert ("standard output: no space left on device" in err) is is_full
    assert_same(events, job.lake, "avro", "parquet")


def test_a_run_that_can_tell_nobody_ends_as_it_went(job: Job, events: Events) -> None:
    nowhere = str(job.path.parent / "nowhere" / "clicks.prom")
    command = [sys.executable, "-m", "millstream", "load", "run", str(job.path), "--json", "--metrics-file", nowhere]
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(command, stdout=full, stderr=full, timeout=60).returncode == 3
    assert_same(events, job.lake, "avro", "parquet")


def test_rounds_load_all_of_it_each_with_a_commit_of_its_own(job: Job, events: Events) -> None:
    job.write(events, "source.run_bytes_max = 6000\n            workers = 1")
    (first,) = [json.loads(line) for line in job("run", "--json")[0].splitlines()]
    assert 0 < first["rows"] < events.next_id

    (bounded,) = [json.loads(line) for line in job("run", "--until-done", "--for", "0", "--json")[0].splitlines()]
    rounds = [bounded, *(json.loads(line) for line in job("run", "--until-done", "--json")[0].splitlines())]

    assert first["rows"] + sum(one["rows"] for one in rounds) == events.next_id
    assert len({one["number"] for one in rounds}) == len(rounds) > 1
    assert [one["audit"]["lag"] > 0 for one in rounds] == [True] * (len(rounds) - 1) + [False]
    assert job.json("run", "--until-done")["outcome"] == "nothing new"
    assert_same(events, job.lake, "avro", "parquet")


@pytest.mark.parametrize(
    ("options", "words"), [(["--for", "1 h"], "--until-done"), (["--until-done", "--for", "soon"], "10 min")]
)
def test_a_bound_of_rounds_that_is_none(job: Job, options: list[str], words: str) -> None:
    assert words in job("run", *options, code=2)[1]


def test_a_quiet_run_says_nothing_of_another_one_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    report = LoadReport("run", "clicks", "file:///lake", outcome=Outcome.CLAIMED, errors=["loader-1:7 is at work"])
    print_report(report, quiet=True)
    assert capsys.readouterr() == ("", "")
    print_report(report)
    assert "loader-1:7 is at work" in capsys.readouterr().err


def test_records_that_could_not_be_read_are_told_with_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    clicks = TopicReport("clicks", "id", bad=3, files={"dead_letters": 1})
    print_report(
        LoadReport(
            "run", "clicks", "file:///lake", Outcome.LOADED, number=2, topics=[clicks], dead_letters={"clicks": 3}
        )
    )
    assert "3 records could not be read: `millstream load replay-dead-letters --dry-run` says why" in (
        capsys.readouterr().err
    )

    letters = ReplayedTopic(
        "clicks", 30_000, errors={"[1] is odd": 2, "no zero byte": 3},
        places={"[1] is odd": "partition 1, offset 7", "no zero byte": "partition 0, offset 4"},
    )  # fmt: skip
    print_replay(Replay("run", "clicks", "file:///lake", "table", Outcome.NOTHING_NEW, topics=[letters]), dry_run=True)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "clicks: 30,000 dead letters",
        "  3: no zero byte (one is partition 0, offset 4)",
        "  2: [1] is odd (one is partition 1, offset 7)",
    ]
    assert err == "clicks: 5 of them were looked into\n"

    letters.errors = {f"{number} is odd": 1 for number in range(12)}
    letters.places = dict.fromkeys(letters.errors, "partition 0, offset 1")
    print_replay(Replay("run", "clicks", "file:///lake", "table", Outcome.NOTHING_NEW, topics=[letters]), dry_run=True)
    assert capsys.readouterr().out.endswith(
        "  1: 9 is odd (one is partition 0, offset 1)\n  2 for other reasons; --json has all\n"
    )


def test_a_run_that_was_stopped_claims_no_cpu_and_no_memory(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(LoadReport("run", "clicks", "file:///lake", Outcome.STOPPED, splits=6, workers=2, wall_s=7.5))
    assert capsys.readouterr().err == "6 splits on 2 workers, 7.50 s in all\n"


def test_what_is_wrong_with_a_job_is_listed(job: Job, events: Events) -> None:
    job.write(events, 'engin = "spark"\n            workers = 0')

    _, err = job("run", code=2)

    assert "2 problems" in err
    assert "did you mean engine?" in err
    assert "workers = 0" in err
    assert job("status", code=2)[1] == err


def test_a_failure_is_a_sentence(job: Job, events: Events) -> None:
    job.lake.write_text("a file, where the destination should be")

    _, err = job("run", code=1)

    assert err.splitlines()[-1].startswith("millstream: ")
    assert str(job.lake) in err
    assert "remembered" not in err  # for the same reason


@pytest.mark.parametrize("command", ["plan", "run"])
def test_brokers_that_are_away_are_told_with_what_to_do(job: Job, command: str) -> None:
    job.path.write_text(re.sub(r"bootstrap_servers = .*", 'bootstrap_servers = "127.0.0.1:1"', job.path.read_text()))

    _, err = job(command, code=1)

    assert "127.0.0.1:1: nothing listens there; see that the brokers run, and that source.bootstrap_servers" in err


def test_a_metrics_file_that_cannot_be_written_undoes_nothing(job: Job, events: Events) -> None:
    nowhere = str(job.path.parent / "nowhere" / "clicks.prom")

    out, err = job("run", "--json", "--metrics-file", nowhere, code=3)

    report = json.loads(out)
    assert (report["outcome"], report["exit_code"]) == ("loaded", 0)
    assert "nowhere" in err
    assert "the metrics were not written" in err


def test_a_run_that_ends_while_another_is_at_work_stays_counted(
    job: Job, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As cron starts them: what the first has written to the file is not taken back by the second."""

    def another_beside(load_job: LoadJob, **options: Any) -> LoadReport:
        monkeypatch.setattr(load, "run_load", run_load)
        assert run(["load", "run", str(job.path), "--quiet"]) == 0
        return run_load(load_job, **options)

    monkeypatch.setattr(load, "run_load", another_beside)
    assert job.json("run")["outcome"] == "nothing new"

    metrics = (job.path.parent / "clicks.prom").read_text()
    assert f'rows_total{{job="clicks",topic="clicks"}} {events.next_id}\n' in metrics
    assert 'runs_total{job="clicks",outcome="loaded"} 1\n' in metrics
    assert 'runs_total{job="clicks",outcome="nothing new"} 1\n' in metrics


def load_examples() -> Iterator[tuple[str, list[str]]]:
    """Each command of `load` that the help of one shows, without what a shell makes of the rest of the line."""
    load: Any = typer.main.get_command(load_app)
    for command in load.commands.values():
        for line in command.epilog.splitlines():
            found = re.search(r"millstream load (.+)", line)
            if found is not None:
                name, *arguments = shlex.split(re.split(r" [|&]", found[1])[0])
                yield name, arguments


def test_the_examples_of_the_help_are_commands() -> None:
    load: Any = typer.main.get_command(load_app)
    shown = list(load_examples())

    assert {name for name, _ in shown} == set(load.commands)
    for name, arguments in shown:
        # Raises for an option that is not there, and for what an option does not take.
        load.commands[name].make_context(name, list(arguments))


def test_something_red_ends_with_3(job: Job, events: Events) -> None:
    job("run")
    next(job.lake.rglob("*.parquet")).unlink()

    out, err = job("verify", code=3)

    assert "1 finding\n" in out
    assert "is not there" in err


def test_a_signal_stops_a_run_and_its_workers(job: Job, events: Events) -> None:
    job.write(events, "source.rate_limit_records_per_s = 20")
    process = subprocess.Popen(
        [sys.executable, "-m", "millstream", "load", "run", str(job.path)], stderr=subprocess.PIPE, text=True
    )
    workers: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not workers or not list((job.lake / "_millstream/staging").glob("*/*")):
            assert time.monotonic() < deadline, "no split was given to a worker"
            assert process.poll() is None, process.communicate()
            workers = psutil.Process(process.pid).children()

        os.kill(process.pid, signal.SIGTERM)

        assert process.wait(DEADLINE_S) == 130
    finally:
        process.kill()
        process.communicate()
    psutil.wait_procs(workers, DEADLINE_S)
    assert not any(worker.is_running() for worker in workers)
    assert not (job.lake / events.topic).exists()
    job.write(events)
    assert job.json("run")["rows"] == events.next_id


def test_two_runs_at_a_time(job: Job, events: Events) -> None:
    # The second run looks until the first one has renewed its claim: that one must not come to its end meanwhile.
    job.write(events, "source.rate_limit_records_per_s = 5")
    process = subprocess.Popen([sys.executable, "-m", "millstream", "load", "run", "--quiet", str(job.path)])
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not list((job.lake / "_millstream/staging").glob("*/*")):
            assert time.monotonic() < deadline, "the first run has not begun"
            assert process.poll() is None
        _, err = job("run", code=4)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 130
    finally:
        process.kill()
        process.wait()

    assert "is at work as load" in err
