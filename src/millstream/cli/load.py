"""`millstream load ...`: topics into Avro and Parquet on HDFS, by job files.

Exit codes, the same for every command of the group:

    0    done: loaded, or nothing new; verified without a finding; nothing is red
    1    failed: nothing was committed by this run
    2    the command line or the job file is wrong
    3    partly done: something was committed, and something has to be looked at
    4    another driver works on the destination
    130  stopped by a signal: nothing was committed by this run
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli import load_directories, load_keys, load_serve
from millstream.cli.errors import os_sentence
from millstream.cli.load_options import JobFile, MetricsFile, Quiet, job_of, stop_on_signals
from millstream.cli.options import Json, examples
from millstream.cli.output import print_json, silence_stderr, silence_stdout

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob

app = typer.Typer(
    no_args_is_help=True,
    help="Load topics into Avro and Parquet files on HDFS or a local disk, exactly once.",
    rich_markup_mode="rich",
)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="load")


@app.callback()
def _take_memory_as_workers_do() -> None:
    # Compaction is at work in this very process, and its first directory takes some tenth less CPU so.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


@app.command(
    epilog=examples(
        "millstream load run flights.toml",
        "millstream load run flights.toml --json | jq .rows",
        "millstream load run flights.toml --until-done --for '2 h'",
        "millstream load run flights.toml --quiet || mail -s 'flights: not loaded' ops@example.org",
    )
)
def run(
    job_file: JobFile,
    until_done: Annotated[
        bool,
        typer.Option(
            "--until-done", help="As many rounds of source.run_bytes_max as it takes, each with a commit of its own."
        ),
    ] = False,
    at_most: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="Of --until-done: begin no round after so long, as in '90 min'."),
    ] = None,
    quiet: Quiet = False,
    metrics_file: MetricsFile = None,
    as_json: Json = False,
) -> int:
    """Load what the topics hold now and the destination does not.

    Runs may be started as often as you like: each begins where the last commit
    ended, one that was killed is repaired by the next, and two never work on one
    destination at a time. Exit codes: 0 done, 1 failed, 2 the job is wrong, 3
    partly done, 4 another run is at it, 130 stopped.
    """
    ends_at_s = _end_s(at_most, until_done=until_done)
    job = job_of(job_file)
    if isinstance(job, int):
        return job
    from millstream.cli.load_output import print_report
    from millstream.cli.load_progress import LoadProgress
    from millstream.hadoop_loader.driver.load import run_load
    from millstream.hadoop_loader.driver.metrics import LoadMetrics
    from millstream.hadoop_loader.driver.metrics_file import add_run
    from millstream.hadoop_loader.driver.report import Outcome
    from millstream.hadoop_loader.driver.rounds import Rounds, has_more

    path = metrics_file or (None if job.report.metrics_file is None else Path(job.report.metrics_file))
    rounds, is_written = Rounds(), True
    with stop_on_signals() as stop:
        while True:
            with LoadProgress(shown=not quiet and not as_json) as progress:
                report = run_load(job, observer=None if quiet else progress, stop=stop)
            rounds.add(report)
            if as_json:
                is_written &= _is_printed(partial(print_json, report.as_json()))
            else:
                is_written &= _is_printed(partial(print_report, report, quiet=quiet, told=progress.told))
            try:
                if path is not None:
                    add_run(path, report.job, partial(LoadMetrics.handle_report, report=report))
            except OSError as error:
                is_written = False
                _tell(f"{path}: the metrics were not written: {error.strerror or error}")
            if not until_done or not has_more(job, report) or time.monotonic() >= ends_at_s:
                break
    return rounds.outcome.exit_code or (0 if is_written else Outcome.PARTIAL.exit_code)


def _is_printed(print_it: Callable[[], None]) -> bool:
    """Print a run's result, and return False where that failed: it is loaded all the same. A reader may have gone."""
    try:
        print_it()
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # the latter is rich's
        silence_stdout()
    except OSError as error:
        silence_stdout()
        _tell(f"standard output: {os_sentence(error).lower()}")
        return False
    return True


def _tell(sentence: str) -> None:
    """Say what went wrong behind a run, if there is anybody who reads it."""
    from millstream.cli.load_output import print_errors

    try:
        print_errors([sentence])
    except (OSError, SystemExit):
        silence_stderr()


@app.command(
    epilog=examples("millstream load plan flights.toml", "millstream load plan flights.toml --json | jq .offsets")
)
def plan(
    job_file: JobFile,
    partitions: Annotated[bool, typer.Option("--partitions", help="A line for each partition.")] = False,
    as_json: Json = False,
) -> int:
    """Show what a run would load now, and change nothing: offsets, bytes, splits, and what it would refuse."""
    job = job_of(job_file)
    if isinstance(job, int):
        return job
    from millstream.cli.load_output import print_plan
    from millstream.hadoop_loader.driver.dry_run import plan_load

    with load_sentences(job):
        planned = plan_load(job)
    if as_json:
        print_json(planned.as_json())
    else:
        print_plan(planned, partitions=partitions)
    return planned.exit_code


@app.command(epilog=examples("millstream load status flights.toml", "millstream load status flights.toml --json"))
def status(
    job_file: JobFile,
    partitions: Annotated[bool, typer.Option("--partitions", help="A line for each partition.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the cluster: no lag.")] = False,
    as_json: Json = False,
) -> int:
    """Show how the destination stands: lag, last runs, files, and what is red with what to do about it.

    Ends with 3 where something is red. Changes nothing, and may run beside a load.
    """
    job = job_of(job_file)
    if isinstance(job, int):
        return job
    from millstream.cli.load_output import print_status
    from millstream.hadoop_loader.driver.status import status_of

    with load_sentences(job):
        found = status_of(job, offline=offline)
    if as_json:
        print_json(found.as_json())
    else:
        print_status(found, partitions=partitions)
    return found.exit_code


@app.command(
    epilog=examples(
        "millstream load verify flights.toml",
        "millstream load verify flights.toml --deep",
        "millstream load verify flights.toml --repair --offline",
    )
)
def verify(
    job_file: JobFile,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every file whole, and hold its bytes against the log's checksum.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the cluster about the topics.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Give closed directories back a _SUCCESS that is gone.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Hold the destination against its log and its topics.

    Every file the log names must be there with its length, every file that is
    there must be in the log, each position within its topic. --deep also reads
    them. Ends with 3 where something was found. Changes nothing but what
    --repair mends.
    """
    job = job_of(job_file)
    if isinstance(job, int):
        return job
    from millstream.cli.load_output import print_findings
    from millstream.hadoop_loader.driver.verify import verify_destination

    with load_sentences(job):
        verified = verify_destination(job, deep=deep, offline=offline, repair=repair)
    if as_json:
        print_json(verified.as_json())
    else:
        print_findings(verified)
    return verified.exit_code


@app.command(
    epilog=examples("millstream load compact flights.toml", "millstream load compact flights.toml --table flights")
)
def compact(
    job_file: JobFile,
    table: Annotated[
        list[str] | None, typer.Option("--table", "-t", metavar="TABLE", help="Only this one; repeatable.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Make few large files of the many small ones in closed directories.

    The rows stay what they are, unless the job de-duplicates them. Directories
    are replaced whole; what they held stays in the trash for readers that have
    it open. May run beside a load.
    """
    job = job_of(job_file)
    if isinstance(job, int):
        return job
    from millstream.cli.load_output import CompactionProgress, print_compaction
    from millstream.hadoop_loader.driver.compacting import run_compaction

    with stop_on_signals() as stop, CompactionProgress(shown=not quiet and not as_json) as progress:
        compacted = run_compaction(job, tables=table, stop=stop, on_progress=progress.handle_read)
    if as_json:
        print_json(compacted.as_json())
    else:
        print_compaction(compacted, quiet=quiet)
    return compacted.exit_code


@app.command(
    name="replay-dead-letters",
    epilog=examples(
        "millstream load replay-dead-letters flights.toml --dry-run",
        "millstream load replay-dead-letters flights.toml --topic flights",
        "millstream load replay-dead-letters flights.toml --to-topic flights-retry",
    ),
)
def replay(
    job_file: JobFile,
    topic: Annotated[
        list[str] | None, typer.Option("--topic", "-t", metavar="TOPIC", help="Only this one's; repeatable.")
    ] = None,
    to_topic: Annotated[
        str | None, typer.Option("--to-topic", metavar="TOPIC", help="Send them there, not into their tables.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are, and why.")] = False,
    as_json: Json = False,
) -> int:
    """Read dead letters once more, with the schemas of today, into their tables.

    What still cannot be read stays a dead letter. A letter is replayed once,
    whatever happens meanwhile; with --to-topic it may be sent twice then, and has
    the header millstream.replayed.from to know it by.
    """
    job = job_of(job_file)
    if isinstance(job, int):
        return job
    from millstream.cli.load_output import print_replay
    from millstream.hadoop_loader.driver.replay import replay_dead_letters

    replayed = replay_dead_letters(job, topics=topic, to_topic=to_topic, dry_run=dry_run)
    if as_json:
        print_json(replayed.as_json())
    else:
        print_replay(replayed, dry_run=dry_run)
    return replayed.exit_code


load_directories.add_to(app)
load_keys.add_to(app)
load_serve.add_to(app)


def _end_s(at_most: str | None, *, until_done: bool) -> float:
    """When the last round may begin, on the monotonic clock."""
    from millstream.hadoop_loader.job.setting import duration_s

    if at_most is None:
        return math.inf
    if not until_done:
        raise typer.BadParameter("it bounds --until-done; a run on its own is one round", param_hint="--for")
    try:
        return time.monotonic() + duration_s(f"{at_most} s" if at_most.isdecimal() else at_most)
    except ValueError as error:
        raise typer.BadParameter(f"{at_most!r} is no time: {error}", param_hint="--for") from None


@contextmanager
def load_sentences(job: LoadJob) -> Iterator[None]:
    """Make sentences of what commands on a destination may meet. Raises CommandError."""
    from millstream.cli.errors import CommandError
    from millstream.hadoop_loader.driver.problems import MET, sentence_of

    try:
        yield
    except MET as error:
        raise CommandError(sentence_of(error, job.destination.uri)) from error
