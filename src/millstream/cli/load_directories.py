"""`millstream load close`, `expire`, `drop`: directories, closed by hand or emptied; `anew`: a topic once more."""

from __future__ import annotations

import datetime
import zoneinfo
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.cli.load_options import JobFile, Quiet, job_of, stop_on_signals
from millstream.cli.options import Json, examples
from millstream.cli.output import done, note, out, print_json, size_text

if TYPE_CHECKING:
    from millstream.hadoop_loader.driver.directories import DirectoryRun

Tables = Annotated[list[str] | None, typer.Option("--table", "-t", metavar="TABLE", help="Only this one; repeatable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say which they are.")]
_SHOWN = 50


def add_to(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    app.command(
        epilog=examples(
            "millstream load close flights.toml",
            "millstream load close flights.toml --table flights --directory year=2013/month=12",
        )
    )(close)
    app.command(
        epilog=examples(
            "millstream load expire flights.toml --before 2026-01-01 --dry-run",
            "millstream load expire flights.toml --before 2026-01-01 --table flights",
        )
    )(expire)
    app.command(
        epilog=examples(
            "millstream load anew flights.toml --topic flights --table flights_2 --dry-run",
            "millstream load anew flights.toml --topic flights --table flights_2",
        )
    )(anew)
    app.command(
        epilog=examples(
            "millstream load drop flights.toml --table flights --dry-run",
            "millstream load drop flights.toml --table flights",
        )
    )(drop)


def close(
    job_file: JobFile,
    table: Tables = None,
    directory: Annotated[
        list[str] | None,
        typer.Option(
            "--directory",
            "-d",
            metavar="DIRECTORY",
            help="Only this one, as it is listed or below TABLE/FORMAT; repeatable.",
        ),
    ] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Close directories by hand: those that no record time closes.

    They get their _SUCCESS and are compacted from then on, and records that still
    come for them are late, as late.policy says. Without --table or --directory
    the open ones are listed, and nothing is changed.
    """
    job = job_of(job_file)
    if isinstance(job, int):
        return job
    from millstream.hadoop_loader.driver.directories import close_directories

    only_lists = dry_run or (table is None and directory is None)
    with stop_on_signals() as stop:
        run = close_directories(job, tables=table, directories=directory, dry_run=only_lists, stop=stop)
    if as_json:
        print_json(run.as_json())
    else:
        _print(run, "open", quiet=quiet, dry_run=only_lists)
        if only_lists and not dry_run and run.directories and not quiet:
            note("name those to close by --table or --directory")
    return run.exit_code


def expire(
    job_file: JobFile,
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            metavar="DATE",
            help="Those that ended by then, as in 2026-01-01T06:00; destination.retention_s otherwise.",
        ),
    ] = None,
    table: Tables = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Empty closed directories of time that are too old to be kept.

    What they hold goes to the trash, where it stays for snapshot_retention_s, and
    is gone then; late records of their time and dead letters that old go with
    them. The clock is that of partitioning.zone.
    """
    job = job_of(job_file)
    if isinstance(job, int):
        return job
    from millstream.hadoop_loader.driver.directories import expire_directories

    if before is None and job.destination.retention_s is None:
        raise typer.BadParameter("give a date, or the job a destination.retention_s", param_hint="--before")
    before_ms = None if before is None else _before_ms(before, job.partitioning.zone)
    with stop_on_signals() as stop:
        run = expire_directories(job, before_ms=before_ms, tables=table, dry_run=dry_run, stop=stop)
    if as_json:
        print_json(run.as_json())
    else:
        _print(run, "old enough", quiet=quiet, dry_run=dry_run)
    return run.exit_code


def anew(
    job_file: JobFile,
    topic: Annotated[str, typer.Option("--topic", metavar="TOPIC", help="Which one.", show_default=False)],
    table: Annotated[
        str, typer.Option("--table", metavar="TABLE", help="What its table is called from now on.", show_default=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be.")] = False,
    as_json: Json = False,
) -> int:
    """Have the next run load a topic from its start once more, into another table.

    The table that it has stays as it is for its readers, and gets nothing any
    more; `millstream load drop` empties it. Dead letters of records that come again
    are done with.
    """
    job = job_of(job_file)
    if isinstance(job, int):
        return job
    from millstream.cli.load_output import counted, print_errors
    from millstream.hadoop_loader.driver.anew import load_anew

    with stop_on_signals() as stop:
        run = load_anew(job, topic, table, dry_run=dry_run, stop=stop)
    if as_json:
        print_json(run.as_json())
        return run.exit_code
    if not run.errors:
        begins = "would begin" if dry_run else "begins"
        entry = "" if run.number is None else f", entry {run.number}"
        done(
            f"topic {topic} {begins} anew with the next run, in table {table}: {counted(run.offsets, 'offset')} of "
            f"{counted(len(run.start_offsets), 'partition')}, {run.destination}{entry}"
        )
        for name in run.former_tables:
            note(
                f"{name} stays as it is for its readers; once they have left it: `millstream load drop --table {name}`"
            )
        if run.former_rows > run.offsets:
            note(
                f"that is less than the {counted(run.former_rows, 'row')} there: the topic holds some of them no more,"
                " or source.start leaves them out"
            )
        if run.letters:
            note(f"{counted(run.letters, 'dead letter')} of {topic} will not be replayed: the records come again")
        for sentence in run.notes:
            note(sentence)
    print_errors(run.errors)
    return run.exit_code


def drop(
    job_file: JobFile,
    table: Annotated[
        list[str], typer.Option("--table", "-t", metavar="TABLE", help="Which one; repeatable.", show_default=False)
    ],
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Empty a table that a topic had before it was loaded anew.

    What it holds, late records too, goes to the trash, where it stays for
    snapshot_retention_s, and is gone then.
    """
    job = job_of(job_file)
    if isinstance(job, int):
        return job
    from millstream.hadoop_loader.driver.directories import drop_tables

    with stop_on_signals() as stop:
        run = drop_tables(job, table, dry_run=dry_run, stop=stop)
    if as_json:
        print_json(run.as_json())
    else:
        _print(run, "left to drop", quiet=quiet, dry_run=dry_run)
    return run.exit_code


def _print(run: DirectoryRun, what: str, *, quiet: bool, dry_run: bool) -> None:
    from millstream.cli.load_output import counted, print_errors

    count = len(run.directories)
    directories = counted(count, "directory", "directories")
    held = f": {counted(run.files, 'file')}, {counted(run.rows, 'row')}, {size_text(run.bytes)}" if run.files else ""
    if quiet or run.errors:
        pass
    elif not count:
        done(f"none is {what}, {run.destination}")
    elif dry_run:
        out().print(f"{directories} {'is' if count == 1 else 'are'} {what}{held}", highlight=False)
    else:
        done(f"{run.act} {directories}{held}, {run.destination}, entry {run.number}")
    if not quiet:
        for directory in run.directories[:_SHOWN]:
            out().print(f"  {directory}", markup=False, highlight=False, soft_wrap=True)
        if count > _SHOWN:
            note(f"and {count - _SHOWN:,} more; --json shows all")
        for sentence in run.notes:
            note(sentence)
    print_errors(run.errors)


def _before_ms(text: str, zone: str) -> int:
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no date: write 2026-01-01, or 2026-01-01T06:00", param_hint="--before"
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=zoneinfo.ZoneInfo(zone))
    return int(when.timestamp() * 1000)
