"""`millstream load serve`: jobs by their schedules, with a page for those who watch them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli.load_options import EXIT_JOB_WRONG, stop_on_signals
from millstream.cli.options import examples
from millstream.cli.output import err

if TYPE_CHECKING:
    from millstream.hadoop_loader.driver.metrics import LoadMetrics
    from millstream.hadoop_loader.driver.observer import Observer
    from millstream.hadoop_loader.driver.report import LoadReport
    from millstream.hadoop_loader.job import LoadJob

JobFiles = Annotated[
    list[Path], typer.Argument(metavar="JOB.toml", help="Jobs that have a schedule.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Make `serve` one of the commands of `app`."""
    app.command(
        epilog=examples(
            "millstream load serve flights.toml weather.toml",
            "millstream load serve /etc/millstream/jobs/*.toml --http 127.0.0.1:9480 --parallel 2",
        )
    )(serve)


def serve(
    job_files: JobFiles,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="Answer /healthz, /metrics and /status there."),
    ] = None,
    parallel: Annotated[
        int | None, typer.Option("--parallel", metavar="COUNT", min=1, help="Runs at a time; all by default.")
    ] = None,
) -> int:
    """Run jobs by their schedules until SIGTERM: cron expressions and intervals.

    A job never overlaps itself, jobs with one destination take turns, a missed
    start is caught up once, a failed run is tried again soon. Job files are read
    anew for each run. On SIGTERM a run has its schedule's stop_grace_s to end.
    Exit codes: 0 stopped, 1 the page's address is taken, 2 a job is wrong, 130
    stopped with a run left uncommitted.
    """
    from millstream.hadoop_loader.driver.load import run_load
    from millstream.hadoop_loader.driver.metrics import LoadMetrics
    from millstream.hadoop_loader.driver.metrics_file import add_run, leave
    from millstream.hadoop_loader.job import JobError
    from millstream.hadoop_loader.schedule import LoadService, StatusPage

    metrics, lock = LoadMetrics(), threading.Lock()
    # The file of metrics of each job that has one, as its last run had it; each changed by the job's own thread alone.
    files: dict[str, Path] = {}

    def run(job: LoadJob, stop: threading.Event, observer: Observer) -> LoadReport:
        report = run_load(job, observer=observer, stop=stop)
        path = None if job.report.metrics_file is None else Path(job.report.metrics_file)
        count(job.name, lambda counted: counted.handle_report(report), path)
        return report

    def handle_no_report(name: str, outcome: str, exit_code: int) -> None:
        count(name, lambda counted: counted.handle_no_report(name, outcome, exit_code), files.get(name))

    def count(name: str, add: Callable[[LoadMetrics], None], path: Path | None) -> None:
        """Count a run for the page, and in the file that the job names now."""
        with lock:
            add(metrics)
        former = files.get(name)
        try:
            if path is not None:
                add_run(path, name, add, former=None if former == path else former)
                files[name] = path
            elif former is not None:
                leave(former, name)
                del files[name]
        except OSError as error:
            _tell(f"{name}: {path or former}: the metrics were not written: {error}")

    def text() -> str:
        with lock:
            return metrics.text()

    try:
        service = LoadService(
            job_files, run, environ=os.environ, parallel=parallel, tell=_tell, on_no_report=handle_no_report
        )
    except JobError as error:
        err().print(f"millstream: {error}", markup=False, soft_wrap=True)
        return EXIT_JOB_WRONG
    for job in service.jobs_at_start:
        if job.report.metrics_file is not None:
            files[job.name] = Path(job.report.metrics_file)
            try:
                metrics.take_over(files[job.name], job.name)
            except OSError as error:
                _tell(f"{job.name}: {files[job.name]}: the metrics there cannot be read: {error}")
    metrics.show_runs(lambda: service.at_work)
    with ExitStack() as stack:
        if http is not None:
            try:
                page = stack.enter_context(StatusPage(*_address(http), service, text))
            except OSError as error:
                err().print(f"millstream: --http {http}: {error.strerror or error}", markup=False, soft_wrap=True)
                return 1
            host, port = page.address
            _tell(f"status on http://{host}:{port}/status")
        stop = stack.enter_context(stop_on_signals())
        _tell(f"serving {len(job_files)} {'job' if len(job_files) == 1 else 'jobs'}: {', '.join(service.names)}")
        return service.serve(stop)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter(f"{text} is no HOST:PORT", param_hint="--http")
    return host.strip("[]") or "127.0.0.1", int(port)


def _tell(sentence: str) -> None:
    """Say what happened, with the time before it as logs have it."""
    import datetime

    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
    print(f"{now} {sentence}", flush=True)
