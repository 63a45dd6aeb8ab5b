"""The service: jobs side by side, in turn on one root, stopped with a grace; files read anew; the page."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from millstream.hadoop_loader.driver.metrics import LoadMetrics
from millstream.hadoop_loader.driver.observer import Observer
from millstream.hadoop_loader.driver.report import LoadReport, Outcome
from millstream.hadoop_loader.engines import AttemptProgressed
from millstream.hadoop_loader.job import JobError, LoadJob
from millstream.hadoop_loader.schedule import LoadService, StatusPage
from millstream.hadoop_loader.splits import OffsetRange, Progress, Split

DEADLINE_S = 30.0


def job_file(directory: Path, name: str, *, root: str | None = None, schedule: str = "every_s = 3600") -> Path:
    path = directory / f"{name}.toml"
    path.write_text(
        f"""
        name = "{name}"
        [source]
        bootstrap_servers = "127.0.0.1:9092"
        topics = ["{name}"]
        [value]
        format = "raw"
        [destination]
        uri = "file:///{root or name}"
        [schedule]
        {schedule}
        """
    )
    return path


def report(job: LoadJob, outcome: Outcome = Outcome.LOADED, *errors: str) -> LoadReport:
    return LoadReport("run-1", job.name, job.destination.uri, outcome=outcome, errors=list(errors))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    changed = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        changed.wait(0.01)


@dataclass
class Runs:
    """Stands in for loads: each run waits until it is let go."""

    running: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    together: int = 0
    go: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, job: LoadJob, stop: threading.Event, observer: Observer) -> LoadReport:
        with self.lock:
            self.running.append(job.name)
            self.started.append(job.name)
            self.together = max(self.together, len(self.running))
        while not self.go.is_set() and not stop.is_set():
            stop.wait(0.01)
        with self.lock:
            self.running.remove(job.name)
        return report(job, Outcome.STOPPED if stop.is_set() else Outcome.LOADED)


@contextmanager
def serving(service: LoadService) -> Iterator[threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=service.serve, args=(stop,))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_jobs_run_side_by_side(tmp_path: Path) -> None:
    runs = Runs()
    service = LoadService([job_file(tmp_path, "one"), job_file(tmp_path, "two")], runs, environ={})
    with serving(service):
        wait_for(lambda: runs.together == 2)
        runs.go.set()
        wait_for(lambda: all(job.last is not None for job in service.jobs))
    assert [job.runs[0].outcome for job in service.jobs] == ["loaded", "loaded"]


def test_jobs_with_one_root_take_turns(tmp_path: Path) -> None:
    runs = Runs()
    service = LoadService(
        [job_file(tmp_path, "one", root="lake"), job_file(tmp_path, "two", root="lake")], runs, environ={}
    )
    with serving(service):
        wait_for(lambda: len(runs.started) == 1)
        runs.go.set()
        wait_for(lambda: len(runs.started) == 2)
    assert runs.together == 1


def test_runs_at_a_time_are_bounded(tmp_path: Path) -> None:
    runs = Runs()
    runs.go.set()
    service = LoadService([job_file(tmp_path, str(number)) for number in range(4)], runs, environ={}, parallel=1)
    with serving(service):
        wait_for(lambda: len(runs.started) == 4)
    assert runs.together == 1


def test_stopping_lets_a_run_commit(tmp_path: Path) -> None:
    runs = Runs()
    service = LoadService([job_file(tmp_path, "one")], runs, environ={})
    stop, codes = threading.Event(), list[int]()
    thread = threading.Thread(target=lambda: codes.append(service.serve(stop)))
    thread.start()
    wait_for(lambda: runs.running == ["one"])
    stop.set()
    runs.go.set()
    thread.join(DEADLINE_S)
    assert codes == [0]
    assert service.jobs[0].runs[0].outcome == "loaded"


def test_a_run_past_its_grace_is_stopped(tmp_path: Path) -> None:
    runs, told = Runs(), list[str]()
    path = job_file(tmp_path, "one", schedule="every_s = 3600\n        stop_grace_s = 0")
    service = LoadService([path], runs, environ={}, tell=told.append)
    stop, codes = threading.Event(), list[int]()
    thread = threading.Thread(target=lambda: codes.append(service.serve(stop)))
    thread.start()
    wait_for(lambda: runs.running == ["one"])
    stop.set()
    thread.join(DEADLINE_S)
    assert codes == [130]
    assert service.jobs[0].runs[0].outcome == "stopped"
    assert any("left, uncommitted" in sentence for sentence in told)


def test_each_run_has_the_grace_of_its_own_job(tmp_path: Path) -> None:
    runs, told = Runs(), list[str]()
    short = job_file(tmp_path, "short", schedule="every_s = 3600\n        stop_grace_s = 0")
    long = job_file(tmp_path, "long", schedule="every_s = 3600\n        stop_grace_s = 3600")
    service = LoadService([long, short], runs, environ={}, tell=told.append)
    stop, codes = threading.Event(), list[int]()
    thread = threading.Thread(target=lambda: codes.append(service.serve(stop)))
    thread.start()
    wait_for(lambda: sorted(runs.running) == ["long", "short"])
    stop.set()
    wait_for(lambda: runs.running == ["long"])
    assert any("short: its run is left" in sentence for sentence in told)
    runs.go.set()
    thread.join(DEADLINE_S)
    assert codes == [130]
    assert {job.name: job.runs[0].outcome for job in service.jobs} == {"long": "loaded", "short": "stopped"}


def test_a_file_is_read_anew_for_each_run(tmp_path: Path) -> None:
    seen: list[str] = []
    told: list[str] = []
    path = job_file(tmp_path, "one", schedule='every_s = "1 s"')

    def run(job: LoadJob, stop: threading.Event, observer: Observer) -> LoadReport:
        seen.append(job.destination.uri)
        if len(seen) == 1:
            job_file(tmp_path, "one", root="elsewhere", schedule='every_s = "1 s"')
        else:
            path.write_text(path.read_text().replace("raw", "rar"))
        return report(job)

    without: list[tuple[str, str, int]] = []
    service = LoadService([path], run, environ={}, tell=told.append, on_no_report=lambda *ended: without.append(ended))
    with serving(service):
        wait_for(lambda: any(job.last is not None and job.last.outcome == "job wrong" for job in service.jobs))
    assert without[0] == ("one", "job wrong", 2)
    assert seen == ["file:///one", "file:///elsewhere"]
    assert any("did you mean raw?" in sentence for sentence in told)


def test_a_clock_that_is_set_back_stops_no_interval(tmp_path: Path) -> None:
    """In virtual time: the wall clock is set back by a day while the job waits, which runs hourly all the same."""
    passed_s, set_by_s, told, started = 0.0, 0.0, list[str](), list[float]()
    finished = threading.Event()

    def wait(stop: threading.Event, wait_s: float) -> None:
        nonlocal passed_s, set_by_s
        passed_s += wait_s
        if passed_s > 1800:
            set_by_s = -86_400.0

    def run(job: LoadJob, stop: threading.Event, observer: Observer) -> LoadReport:
        started.append(passed_s)
        if len(started) == 3:
            finished.set()
            stop.wait(DEADLINE_S)
        return report(job)

    service = LoadService(
        [job_file(tmp_path, "one", schedule='every_s = "1 h"\n        stop_grace_s = 0')],
        run,
        environ={},
        tell=told.append,
        clock=lambda: 1_790_000_000 + passed_s + set_by_s,
        monotonic=lambda: passed_s,
        wait=wait,
    )
    with serving(service):
        assert finished.wait(DEADLINE_S)
    assert [round(each) for each in started] == [0, 3600, 7200]
    assert any("the clock was set back by 86400 s" in sentence for sentence in told)


def test_an_unforeseen_error_of_one_job_leaves_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def run(job: LoadJob, stop: threading.Event, observer: Observer) -> LoadReport:
        if job.name == "one":
            raise RuntimeError("a bug")
        return report(job)

    without: list[tuple[str, str, int]] = []
    service = LoadService(
        [job_file(tmp_path, "one"), job_file(tmp_path, "two")],
        run,
        environ={},
        on_no_report=lambda *ended: without.append(ended),
    )
    with serving(service):
        wait_for(lambda: all(job.last is not None for job in service.jobs))
        assert service.is_alive
        assert without == [("one", "failed", 1)]
        assert [job.is_red for job in service.jobs] == [True, False]
    assert "a bug" in caplog.text


def test_every_wrong_file_is_told_at_once(tmp_path: Path) -> None:
    wrong = job_file(tmp_path, "wrong", schedule='cron = "* * *"')
    without = job_file(tmp_path, "without")
    without.write_text(without.read_text().replace("[schedule]", "[report]").replace("every_s = 3600", ""))
    twin = tmp_path / "twin.toml"
    twin.write_text(job_file(tmp_path, "one").read_text())

    with pytest.raises(JobError) as caught:
        LoadService([wrong, without, tmp_path / "one.toml", twin], Runs(), environ={})

    text = str(caught.value)
    assert "wrong.toml: line 11: schedule.cron" in text
    assert "without.toml: schedule: there is none" in text
    assert "one.toml has the same name" in text


def fetched(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_page(tmp_path: Path) -> None:
    def run(job: LoadJob, stop: threading.Event, observer: Observer) -> LoadReport:
        return report(job, Outcome.FAILED, "the registry is away; start it")

    service = LoadService([job_file(tmp_path, "one")], run, environ={})
    with StatusPage("127.0.0.1", 0, service, lambda: "runs 1\n") as page:
        url = f"http://127.0.0.1:{page.address[1]}"
        with serving(service):
            wait_for(lambda: service.jobs[0].last is not None)
            code, body = fetched(f"{url}/healthz")
            assert (code, json.loads(body)) == (200, {"status": "red", "red": ["one"]})
            (shown,) = json.loads(fetched(f"{url}/status")[1])["jobs"]
            assert shown["runs"][0]["sentences"] == ["the registry is away; start it"]
            assert fetched(f"{url}/metrics") == (200, "runs 1\n")
            assert fetched(f"{url}/other")[0] == 404
        assert fetched(f"{url}/healthz")[0] == 503


def test_the_page_shows_how_far_a_run_is(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def run(job: LoadJob, stop: threading.Event, observer: Observer) -> LoadReport:
        observer.handle_planned([Split(0, (OffsetRange("t", "id", 0, -1, 100, 200),))], 1)
        observer.handle_progressed(AttemptProgressed(0, 0, (Progress("t", 0, 150, 40, 4_000),)))
        begun.set()
        go.wait(DEADLINE_S)
        return report(job)

    service, metrics = LoadService([job_file(tmp_path, "one")], run, environ={}), LoadMetrics()
    metrics.show_runs(lambda: service.at_work)
    with StatusPage("127.0.0.1", 0, service, metrics.text) as page, serving(service):
        url = f"http://127.0.0.1:{page.address[1]}"
        assert begun.wait(DEADLINE_S)
        (shown,) = json.loads(fetched(f"{url}/status")[1])["jobs"]
        text = fetched(f"{url}/metrics")[1]
        metrics.write(tmp_path / "metrics.prom")
        go.set()
        wait_for(lambda: service.jobs[0].last is not None)
        (after,) = json.loads(fetched(f"{url}/status")[1])["jobs"]

        assert shown["state"] == "running"
        assert [shown["run"][name] for name in ("offsets", "offsets_read", "rows", "bytes")] == [100, 50, 40, 4_000]
        assert 'millstream_loader_run_offsets_read{job="one"} 50\n' in text
        assert 'millstream_loader_run_rows_read{job="one"} 40\n' in text
        assert after["run"] is None
        assert "run_offsets" not in (tmp_path / "metrics.prom").read_text()
        assert 'run_offsets{job="one"}' not in fetched(f"{url}/metrics")[1]
