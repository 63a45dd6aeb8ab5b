"""A file of metrics that several processes add their runs to: `serve`, runs by hand, jobs that share it."""

from __future__ import annotations

import fcntl
import re
import threading
from functools import partial
from pathlib import Path

import pytest

from millstream.hadoop_loader.driver import LoadReport, Outcome
from millstream.hadoop_loader.driver.metrics import LoadMetrics
from millstream.hadoop_loader.driver.metrics_file import LOCK_WAIT_S, add_run, leave
from millstream.hadoop_loader.driver.report import TopicReport

DEADLINE_S = 60.0


def report(job: str, rows: int, outcome: Outcome = Outcome.LOADED) -> LoadReport:
    topics = [TopicReport("t", "id", rows=rows)]
    return LoadReport("run", job, "file:///lake", outcome, number=1 if rows else None, topics=topics)


def add(path: Path, job: str, rows: int = 1, former: Path | None = None) -> None:
    add_run(path, job, partial(LoadMetrics.handle_report, report=report(job, rows)), former=former)


def rows_of(path: Path) -> dict[str, int]:
    lines = re.findall(r'^millstream_loader_rows_total\{job="(\w+)",topic="t"\} (\d+)$', path.read_text(), re.MULTILINE)
    return {job: int(rows) for job, rows in lines}


def test_whoever_adds_a_run_takes_nothing_back(tmp_path: Path) -> None:
    path = tmp_path / "loads.prom"
    for job, rows in (("one", 5), ("two", 7), ("one", 6)):
        add(path, job, rows)
    assert rows_of(path) == {"one": 11, "two": 7}
    assert [one.name for one in tmp_path.iterdir() if not one.name.startswith(".")] == ["loads.prom"]


@pytest.mark.parametrize("job", ["one", "two"])
def test_one_that_comes_while_another_writes_waits_for_it(tmp_path: Path, job: str) -> None:
    path, halted = tmp_path / "loads.prom", threading.Event()

    def wait(_seconds: float) -> None:
        halted.set()
        has_written.wait(DEADLINE_S)

    def add_second() -> None:
        add_run(path, job, partial(LoadMetrics.handle_report, report=report(job, 7)), wait=wait)
        halted.set()

    has_written, second = threading.Event(), threading.Thread(target=add_second)

    def add_first(metrics: LoadMetrics) -> None:
        # The file has been read: what came to it from here on would be lost.
        second.start()
        assert halted.wait(DEADLINE_S)
        metrics.handle_report(report("one", 5))

    add_run(path, "one", add_first)
    has_written.set()
    second.join(DEADLINE_S)
    assert rows_of(path) == ({"one": 12} if job == "one" else {"one": 5, "two": 7})


def test_a_process_that_hangs_with_the_lock_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path, now_s = tmp_path / "loads.prom", 100.0

    def wait(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    add(path, "one")
    before = path.read_text()
    with (tmp_path / ".loads.prom.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="another process has held its lock for 10 s"):
            add_run(path, "one", LoadMetrics.handle_report, monotonic=lambda: now_s, wait=wait)  # type: ignore[arg-type]
    assert now_s == pytest.approx(100.0 + LOCK_WAIT_S, abs=1)
    assert path.read_text() == before
    add(path, "one")
    assert rows_of(path) == {"one": 2}


def test_a_job_that_names_another_file_is_in_one_alone(tmp_path: Path) -> None:
    """Two files with one series in both are an error to the node exporter, which then shows neither."""
    before, now = tmp_path / "before.prom", tmp_path / "now.prom"
    for job in ("one", "two"):
        add(before, job, 5)

    add(now, "one", 3, former=before)

    assert rows_of(now) == {"one": 8}
    assert rows_of(before) == {"two": 5}
    assert '"one"' not in before.read_text()
    # What the new one has of it already counts, and a former one that is gone is no trouble.
    add(now, "two", 1)
    add(now, "two", 1, former=before)
    add(now, "one", 1, former=tmp_path / "gone.prom")
    assert rows_of(now) == {"one": 9, "two": 2}
    assert rows_of(before) == {}
    assert not (tmp_path / "gone.prom").exists()


def test_a_job_leaves_a_file_that_others_stay_in(tmp_path: Path) -> None:
    path = tmp_path / "loads.prom"
    add(path, "one", 5)
    add(path, "two", 7)
    leave(path, "one")
    assert rows_of(path) == {"two": 7}
    leave(tmp_path / "none.prom", "one")
    assert not (tmp_path / "none.prom").exists()


def test_a_file_that_cannot_be_read_is_not_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "loads.prom"
    add(path, "one", 5)
    before = path.read_bytes()

    def refuse(_self: Path) -> str:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refuse)
        with pytest.raises(PermissionError):
            add(path, "two", 7)
    assert path.read_bytes() == before
