"""What commands print: tables that fit the terminal, JSON for programs, rates and progress for people.

Results go to standard output, all else (progress, summaries, errors) to standard error, so a pipe gets results only.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn, Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from millstream.cli.errors import CommandError

_UNBOUNDED_WIDTH: Final = 1_000_000  # a pipe has no width: nothing is cut there
_KILO: Final = 1024
_TIME_UNITS_S: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def out() -> Console:
    """Return a console on standard output as it is now."""
    return _console(stderr=False)


def err() -> Console:
    """Return a console on standard error as it is now."""
    return _console(stderr=True)


def fail(sentence: str) -> NoReturn:
    """End the command with `sentence` on standard error and exit code 1."""
    raise CommandError(sentence)


def print_json(value: Any) -> None:
    """Print `value` as one JSON document: indented for a person, one line for a program."""
    indent = 2 if sys.stdout.isatty() else None
    is_ascii = (sys.stdout.encoding or "").lower() not in {"utf-8", "utf8"}
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=is_ascii, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[str] = ()) -> None:
    """Print rows below their columns' names; the columns named in `numbers` are right-aligned.

    On a narrow terminal long cells are folded, never cut: a name must stay one that can be copied.
    """
    right = set(numbers)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else escape(_cell(cell)) for cell in row))
    out().print(table)


def note(sentence: str) -> None:
    """Say something besides the result, on standard error."""
    console = err()
    console.print(f"[dim]{escape(sentence)}[/dim]", highlight=False, soft_wrap=not console.is_terminal)


def done(sentence: str) -> None:
    """Say what was changed, on standard output."""
    out().print(escape(sentence), highlight=False, soft_wrap=True)


def size_text(size_bytes: float) -> str:
    """Return a size as people read it: 812 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < _KILO or unit == "GB":
            return f"{size_bytes:,.0f} {unit}" if unit == "B" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= _KILO
    raise AssertionError("the last unit takes every size")


def duration_text(seconds: float) -> str:
    """Return a time as people read it, in its two largest units: 8 s, 3 min 20 s, 2 h 5 min, 4 d 3 h."""
    whole = round(seconds)
    for (factor, name), (below, small) in itertools.pairwise(_TIME_UNITS_S):
        if whole >= factor:
            rest = whole % factor // below
            return f"{whole // factor} {name} {rest} {small}" if rest else f"{whole // factor} {name}"
    return f"{whole} s"


def rate_text(count: int, size_bytes: int, seconds: float) -> str:
    """Return what was moved and how fast: `336,776 records, 30.1 MB in 1.2 s (280,646 records/s, 25.1 MB/s)`."""
    seconds_counted = max(seconds, 1e-6)
    return (
        f"{count:,} {'record' if count == 1 else 'records'}, {size_text(size_bytes)} in {seconds:.2f} s "
        f"({count / seconds_counted:,.0f} records/s, {size_text(size_bytes / seconds_counted)}/s)"
    )


@contextmanager
def progress(
    description: str, total: int | None = None, *, unit: str = "records", shown: bool = True
) -> Iterator[_Advance]:
    """Show how far a long work is, on standard error, while the block runs; nothing where nobody watches."""
    console = err()
    if not shown or not console.is_terminal:
        yield lambda _count: None
        return
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        *([BarColumn(bar_width=20), TaskProgressColumn(), TimeRemainingColumn()] if total else []),
        TextColumn("{task.completed:,.0f} " + unit, style="dim"),
    ]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape(description), total=total)
        yield lambda count: bar.advance(task, count)


class _Advance(Protocol):
    """A call that moves the progress by a count."""

    def __call__(self, count: int) -> None: ...


def silence_stdout() -> None:
    """Send what is left for standard output to nowhere: its reader has gone, and the interpreter would complain."""
    _silence(sys.stdout)


def silence_stderr() -> None:
    """The same for standard error."""
    _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    console = Console(file=stream, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNBOUNDED_WIDTH
    return console


def _cell(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, (tuple, list)):
        return ",".join(map(str, cell))
    return str(cell)
