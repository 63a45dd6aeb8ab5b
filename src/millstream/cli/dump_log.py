"""`millstream dump-log`: what is in the files of a partition, byte for byte Kafka's."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from millstream.cli.options import Json, examples
from millstream.cli.output import fail, print_json


def register(app: typer.Typer) -> None:
    app.command(
        "dump-log",
        epilog=examples(
            "millstream dump-log millstream-data/flights-0/00000000000000000000.log",
            "millstream dump-log --records millstream-data/flights-0/*.log",
            "millstream dump-log millstream-data/flights-0/*.index --json",
        ),
    )(dump_log)


def dump_log(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", exists=True, dir_okay=False, help=".log .index .timeindex .txnindex .snapshot files."
        ),
    ],
    records: Annotated[bool, typer.Option("--records", "-r", help="Also the records in each batch.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", metavar="N", min=1, help="Stop after so many lines a file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the batches of log files and the entries of index files; damage ends the command with code 1."""
    damaged: list[str] = []
    for file in files:
        if not as_json and len(files) > 1:
            sys.stdout.write(f"{file}\n")
        for index, entry in enumerate(_entries(file, records)):
            if entry["kind"] == "problem":
                damaged.append(f"{file}: {entry['text']}")
            elif limit is not None and index >= limit:
                break
            if as_json:
                print_json({"file": str(file), **entry})
            else:
                sys.stdout.write(f"{' '.join(_words(entry))}\n")
    if damaged:
        fail("; ".join(damaged))


def _entries(file: Path, records: bool) -> Iterator[dict[str, Any]]:
    from millstream.core.log.dump import dump_file

    try:
        yield from dump_file(file, deep=records)
    except ValueError as error:
        fail(str(error))


def _words(entry: Mapping[str, object]) -> Iterator[str]:
    """Yield the words of an entry's line; a record is indented below its batch."""
    yield "  record" if entry["kind"] == "record" else str(entry["kind"])
    for name, value in entry.items():
        if name != "kind":
            yield f"{name}={str(value).lower() if isinstance(value, bool) else value}"
